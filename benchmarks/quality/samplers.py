"""How good the samplers are: regret on fixed functions, beside Optuna's own loop.

Regret is the best value found minus the known minimum, as a mean over seeds with a 95 % interval
of Student's t. Functions: Branin (2 numbers), Hartmann (6 numbers), and a network-like one with a
learning rate on a logarithmic scale, a width, a kind and a momentum that only one kind has. The
model-based samplers propose in waves of 8 here, one at a time in Optuna's loop; the Gaussian
process runs to 50 evaluations only, since each of its proposals takes a tenth of a second.

    OMP_NUM_THREADS=1 python -m benchmarks.quality.samplers
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from typing import Any

import torch

from benchmarks import harness
from deepweave.search import TPE, GaussianProcess, Random, Sampler, Sobol, Space, minimize, space
from deepweave.search.bayesian import _suggest

SEEDS = 20


def branin(s: dict[str, Any]) -> float:
    """Minimum 0.397887."""
    x, y = s["x"], s["y"]
    first = y - 5.1 * x * x / (4 * math.pi**2) + 5 * x / math.pi - 6
    return first**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x) + 10 - 0.39788736


A = ((10, 3, 17, 3.5, 1.7, 8), (0.05, 10, 17, 0.1, 8, 14),
     (3, 3.5, 1.7, 10, 17, 8), (17, 8, 0.05, 10, 0.1, 14))  # fmt: skip
P = ((1312, 1696, 5569, 124, 8283, 5886), (2329, 4135, 8307, 3736, 1004, 9991),
     (2348, 1451, 3522, 2883, 3047, 6650), (4047, 8828, 8732, 5743, 1091, 381))  # fmt: skip


def hartmann(s: dict[str, Any]) -> float:
    """Minimum -3.32237."""
    x = [s[f"x{i}"] for i in range(6)]
    total = 0.0
    for weight, a, p in zip((1.0, 1.2, 3.0, 3.2), A, P):
        total += weight * math.exp(-sum(k * (v - c / 1e4) ** 2 for k, v, c in zip(a, x, p)))
    return 3.32236801 - total


def network(s: dict[str, Any]) -> float:
    """Like a validation loss: a valley in the learning rate that depends on kind and width."""
    best = 3e-3 if s["kind"] == "adam" else 3e-2 * (1 - s["momentum"]) / 0.1
    rate = math.log10(s["lr"] / best)
    width = math.log2(s["width"] / 256) / 4
    kind = 0.05 if s["kind"] == "sgd" else 0.1 if s["kind"] == "rms" else 0.0
    return 0.4 * rate**2 + 0.3 * width**2 * (1 + 0.5 * rate) + kind + 0.2 * s["dropout"] ** 2


FUNCTIONS: dict[str, tuple[Callable[[dict[str, Any]], float], Space]] = {
    "Branin": (branin, Space({"x": space.uniform(-5, 10), "y": space.uniform(0, 15)})),
    "Hartmann": (hartmann, Space({f"x{i}": space.uniform(0, 1) for i in range(6)})),
    "network": (
        network,
        Space(
            {
                "lr": space.log(1e-5, 1.0),
                "width": space.integer(16, 1024, log=True),
                "dropout": space.uniform(0, 0.8),
                "kind": space.choice("adam", "sgd", "rms"),
                "momentum": space.uniform(0.5, 0.99).when(kind=("sgd", "rms")),
            }
        ),
    ),
}


def ours(name: str, sampler: Sampler, trials: int, seed: int) -> list[float]:
    function, dimensions = FUNCTIONS[name]
    return minimize(function, dimensions, trials=trials, sampler=sampler, seed=seed).history()


def theirs(name: str, kind: str, trials: int, seed: int) -> list[float]:
    import warnings

    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    function, dimensions = FUNCTIONS[name]

    def objective(trial: Any) -> float:
        one: dict[str, Any] = {}
        for part in dimensions.order:
            if dimensions.active(part, one):
                one[part] = _suggest(trial, part, dimensions.dimensions[part])
        return function(one)

    kinds = {
        "random": optuna.samplers.RandomSampler,
        "quasi-random": optuna.samplers.QMCSampler,
        "TPE": optuna.samplers.TPESampler,
        "Gaussian process": optuna.samplers.GPSampler,
    }
    study = optuna.create_study(sampler=kinds[kind](seed=seed))
    study.optimize(objective, n_trials=trials)
    values = [trial.value or 0.0 for trial in study.trials]
    return [min(values[: i + 1]) for i in range(len(values))]


CONTENDERS: dict[str, Callable[[str, int, int], list[float]]] = {
    "deepweave Random": lambda f, n, s: ours(f, Random(), n, s),
    "Optuna random": lambda f, n, s: theirs(f, "random", n, s),
    "deepweave Sobol": lambda f, n, s: ours(f, Sobol(), n, s),
    "Optuna quasi-random": lambda f, n, s: theirs(f, "quasi-random", n, s),
    "deepweave TPE, waves of 8": lambda f, n, s: ours(f, TPE(wave=8), n, s),
    "Optuna TPE": lambda f, n, s: theirs(f, "TPE", n, s),
    "deepweave GaussianProcess, waves of 8": lambda f, n, s: ours(f, GaussianProcess(wave=8), n, s),
    "Optuna Gaussian process": lambda f, n, s: theirs(f, "Gaussian process", n, s),
}
T95 = {5: 2.776, 10: 2.262, 20: 2.093}


def main() -> None:
    """Every function, every sampler, every seed."""
    options = argparse.ArgumentParser()
    options.add_argument("--quick", action="store_true")
    quick = options.parse_args().quick
    results: dict[str, Any] = {}
    for name in FUNCTIONS:
        for who, call in CONTENDERS.items():
            slow = "aussian" in who
            seeds = 5 if quick or slow else SEEDS
            curves = [call(name, 50 if slow else 200, seed) for seed in range(seeds)]
            row: dict[str, Any] = {"seeds": seeds}
            for evaluations in (50,) if slow else (50, 200):
                found = [curve[evaluations - 1] for curve in curves]
                half = T95[seeds] * statistics.stdev(found) / seeds**0.5
                row[f"regret_{evaluations}"] = float(f"{statistics.mean(found):.3g}")
                row[f"half_{evaluations}"] = float(f"{half:.2g}")
            results[f"{name}: {who}"] = row
            print(name, who, row, flush=True)
    harness.save(
        "samplers", results, command="OMP_NUM_THREADS=1 python -m benchmarks.quality.samplers"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
