"""The recipe ``deep`` on digits over several seeds: test accuracy and seconds of training.

Each seed has its own split, weights and order of data. Beside it the single layer, on the same
splits. Run it with ``python -m benchmarks.quality.digits``.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks import harness
from deepweave.recipes import find

SEEDS = range(6)


def main() -> None:
    """Run the recipe for every seed and save what came."""
    results: dict[str, dict[str, float]] = {}
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            run = find("deep")(seed=seed, out=Path(folder) / "run")
            row = run.info["scores"]["test/accuracy"]
            single = run.info["rivals"]["a single layer"]["test/accuracy"]["value"]
            results[f"seed {seed}"] = {
                "accuracy": row["value"],
                "low": row["low"],
                "high": row["high"],
                "single_layer": single,
                "training_seconds": run.info["seconds"],
            }
            print(seed, results[f"seed {seed}"])
    mean = {
        key: statistics.mean(row[key] for row in results.values())
        for key in ("accuracy", "single_layer", "training_seconds")
    }
    error = statistics.stdev(row["accuracy"] for row in results.values()) / len(SEEDS) ** 0.5
    results["mean"] = {**mean, "standard_error": error}
    print("mean", results["mean"])
    harness.save("digits", results, command="python -m benchmarks.quality.digits")


if __name__ == "__main__":
    main()
