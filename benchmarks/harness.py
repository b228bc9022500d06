"""One way to compare: side by side in one process, alternating, the ratio of each round.

A shared machine changes speed from minute to minute; a ratio within one round does not. So every
contender runs once per round, in an order that turns, and what is reported is the median and the
quartiles of (contender / deepweave) over the rounds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def compare(
    contenders: dict[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    baseline: str = "deepweave",
    repeats: int = 1,
    warmup: int = 1,
) -> dict[str, dict[str, Any]]:
    """Seconds per call of each contender, and its ratio to the baseline round by round.

    A ratio above 1 means that the baseline is faster. ``rounds`` holds the seconds of each
    round, so that :func:`against` can take another baseline.
    """
    for _ in range(warmup):
        for call in contenders.values():
            call()
    names = list(contenders)
    times: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            began = time.perf_counter()
            for _ in range(repeats):
                contenders[name]()
            times[name].append((time.perf_counter() - began) / repeats)
    found: dict[str, dict[str, Any]] = {
        name: {"seconds": statistics.median(taken), "rounds": [round(t, 9) for t in taken]}
        for name, taken in times.items()
    }
    for name, ratios in against(found, baseline).items():
        found[name] |= ratios
    return found


def against(found: dict[str, dict[str, Any]], baseline: str) -> dict[str, dict[str, float]]:
    """The ratios of what :func:`compare` found to another of its contenders."""
    base = found[baseline]["rounds"]
    return {
        name: spread([a / b for a, b in zip(row["rounds"], base)]) for name, row in found.items()
    }


def spread(ratios: list[float]) -> dict[str, float]:
    """Median and quartiles of ratios."""
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return {"ratio": middle, "ratio_low": low, "ratio_high": high}


def highest() -> float:
    """The most memory that this process has held, in MiB.

    Of its own address space: ``ru_maxrss`` begins with what the process that started it held.
    """
    rows = Path("/proc/self/status").read_text().splitlines()
    return next(int(row.split()[1]) for row in rows if row.startswith("VmHWM")) / 1024


def elsewhere(function: Callable[..., Any], *args: Any) -> Any:
    """What a function returns in a process of its own, which begins with nothing."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import torch

    packages = {}
    for name in ("deepweave", "torch", "numpy", "scikit-learn", "torchmetrics", "pytorch-lightning",
                 "keras", "skorch", "accelerate", "fastai", "monai",
                 "torch_geometric", "x-transformers", "transformers",
                 "zuko", "nflows", "normflows", "diffusers", "torchcfm", "POT",
                 "pythae", "torchgan", "torch-fidelity", "py-pde", "ndlib",
                 "scikit-image"):  # fmt: skip
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    cpu = next(
        (row.split(":")[1].strip() for row in Path("/proc/cpuinfo").read_text().splitlines()
         if row.startswith("model name")), platform.processor(),
    )  # fmt: skip
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parent,
    ).stdout.strip()  # fmt: skip
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        "python": platform.python_version(),
        "versions": packages,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
    }


def save(name: str, results: dict[str, Any], *, command: str) -> Path:
    """Write ``benchmarks/results/NAME.json`` with the machine and the command that made it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    content = {"command": command, "machine": machine(), "results": results}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def table(results: dict[str, dict[str, Any]], unit: float = 1e6, name: str = "us") -> str:
    """A Markdown table of what :func:`compare` found."""
    rows = [f"| contender | {name} | ratio to deepweave (quartiles) |", "|---|---:|---:|"]
    for who, row in results.items():
        spread_ = f"{row['ratio']:.2f} ({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
        rows.append(f"| {who} | {row['seconds'] * unit:,.0f} | {spread_} |")
    return "\n".join(rows)
