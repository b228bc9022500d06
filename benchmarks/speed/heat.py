"""Diffusion beside scipy, py-pde, ndlib and scikit-image: the same equation, errors shown.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.heat

in an environment with scipy, py-pde, ndlib and scikit-image.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import deepweave as dw
from benchmarks.harness import compare, elsewhere, save

os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # read when numba is loaded: one thread for all
COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.heat"
SIDE, TIME, SHORT = 512, 1e-3, 1e-5  # after the short time no wave is gone


def waves(time: float = TIME) -> tuple[np.ndarray, np.ndarray]:
    """A field on the unit square, of waves that end flat at the walls, and what becomes of it."""
    x = (np.arange(SIDE) + 0.5) / SIDE
    first, after = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE))
    for k, m, size in ((1, 2, 1.0), (5, 3, 0.5), (9, 14, 0.25), (0, 20, 0.125)):
        wave = size * np.cos(np.pi * k * x)[:, None] * np.cos(np.pi * m * x)
        first, after = first + wave, after + wave * math.exp(-((k**2 + m**2) * np.pi**2) * time)
    return first, after


def grid(rounds: int, time: float = TIME, name: str = "exact") -> dict[str, Any]:
    """512 x 512, zero flux: whole solutions, and their errors."""
    import scipy.fft as fft

    first, after = waves(time)
    rate = np.exp(-((np.pi * np.arange(SIDE)) ** 2) * time)
    factor = rate[:, None] * rate

    def scipy(u: np.ndarray, kept: np.ndarray) -> Any:
        return fft.idctn(fft.dctn(u, norm="ortho") * kept, norm="ortho")

    def ours(u: torch.Tensor) -> torch.Tensor:
        return dw.heat(u, time, spacing=1 / SIDE)

    found: dict[str, Any] = {}
    for kind in (np.float32, np.float64):
        u, kept = first.astype(kind), factor.astype(kind)
        tensor = torch.from_numpy(u)
        calls: dict[str, Callable[[], Any]] = {
            "deepweave": lambda t=tensor: ours(t), "scipy.fft": lambda a=u, k=kept: scipy(a, k),
        }  # fmt: skip
        rows = compare(calls, rounds=rounds, repeats=5)
        for who, call in calls.items():
            rows[who]["error"] = float(np.abs(np.asarray(call()) - after).max())
        found[f"512 x 512, {name}, {np.dtype(kind).name}"] = rows
    return found


def steppers(rounds: int) -> dict[str, Any]:
    """The same by py-pde, explicit steps compiled by numba; the second solve is timed too."""
    import pde

    first, after = waves()
    box = pde.CartesianGrid([[0, 1], [0, 1]], [SIDE, SIDE])
    field = pde.ScalarField(box, first)
    equation = pde.DiffusionPDE(diffusivity=1.0, bc={"derivative": 0})
    step = 0.2 / SIDE**2

    def peer() -> np.ndarray:
        return equation.solve(field, t_range=TIME, dt=step, tracker=None).data

    tensor = torch.from_numpy(first.astype(np.float32))
    calls: dict[str, Callable[[], Any]] = {
        "deepweave": lambda: dw.heat(tensor, TIME, spacing=1 / SIDE),
        "py-pde": peer,
    }
    rows = compare(calls, rounds=rounds)
    for who, call in calls.items():
        rows[who]["error"] = float(np.abs(np.asarray(call()) - after).max())
    return {"512 x 512, beside py-pde": rows}


def network(nodes: int = 10_000) -> Any:
    """A network of preferential attachment, five edges for each new node."""
    import networkx

    return networkx.barabasi_albert_graph(nodes, 5, seed=0)


def kernels(rounds: int) -> dict[str, Any]:
    """exp(-L) of 16 fields on 10,000 nodes in float64, beside scipy's expm_multiply."""
    import networkx
    from scipy.sparse.linalg import expm_multiply

    held = network()
    graph = dw.functional.graph(
        torch.tensor(list(held.edges)).T, torch.zeros(len(held), 1).double()
    )
    laplacian = -networkx.laplacian_matrix(held).astype(float).tocsr()
    u = torch.randn(len(held), 16, dtype=torch.float64)
    calls: dict[str, Callable[[], Any]] = {
        "deepweave": lambda: dw.heat(u, 1.0, graph=graph),
        "scipy expm_multiply": lambda: expm_multiply(laplacian, u.numpy()),
    }
    rows = compare(calls, rounds=rounds)
    gap = np.abs(np.asarray(calls["deepweave"]()) - calls["scipy expm_multiply"]()).max()
    rows["deepweave"]["difference"] = float(gap)
    return {"heat on 10,000 nodes": rows}


def infections(peers: int) -> dict[str, Any]:
    """SIR on 10,000 nodes, 60 steps, seconds for one run; do both have one law?"""
    import ndlib.models.epidemics as epidemics
    from ndlib.models.ModelConfig import Configuration
    from scipy import stats

    held = network()
    graph = dw.functional.graph(torch.tensor(list(held.edges)).T, torch.zeros(len(held), 1))
    first = torch.arange(100)
    runs, infect, recover, steps = 100, 0.02, 0.05, 60
    spent: dict[str, list[float]] = {"deepweave": [], "ndlib": []}
    ends: dict[str, list[int]] = {"deepweave": [], "ndlib": []}
    random = torch.Generator().manual_seed(0)
    for number in range(peers):
        model = epidemics.SIRModel(held, seed=number)
        config = Configuration()
        config.add_model_parameter("beta", infect)
        config.add_model_parameter("gamma", recover)
        config.add_model_initial_configuration("Infected", first.tolist())
        model.set_initial_status(config)
        began = time.perf_counter()
        done = model.iteration_bunch(steps + 1, node_status=False)
        spent["ndlib"].append(time.perf_counter() - began)
        ends["ndlib"].append(done[-1]["node_count"][2])
        if number % 10 == 0:
            began = time.perf_counter()
            found = dw.functional.spread(
                graph, first, infect, recover, steps=steps, runs=runs, generator=random
            )
            spent["deepweave"].append((time.perf_counter() - began) / runs)
            ends["deepweave"] += found.counts[-1, :, 2].tolist()
    base = float(np.median(spent["deepweave"]))
    rows: dict[str, Any] = {}
    for who, taken in spent.items():
        low, middle, high = np.quantile(np.asarray(taken) / base, [0.25, 0.5, 0.75])
        rows[who] = {
            "seconds": float(np.median(taken)), "ratio": float(middle), "ratio_low": float(low),
            "ratio_high": float(high), "removed": float(np.mean(ends[who])),
            "runs": len(ends[who]),
        }  # fmt: skip
    half = len(ends["deepweave"]) // 2
    compared: Any = stats.ks_2samp
    rows["ndlib"]["p"] = float(compared(ends["deepweave"], ends["ndlib"]).pvalue)
    mine = ends["deepweave"]
    rows["deepweave"]["p"] = float(compared(mine[:half], mine[half:]).pvalue)
    return {"SIR on 10,000 nodes, one run": rows}


def walkers(rounds: int) -> dict[str, Any]:
    """Coins of 303 x 384 from marked pixels, beside scikit-image's solvers; labels compared."""
    import warnings

    from skimage import data
    from skimage.segmentation import random_walker

    image = data.coins() / 255.0
    seeds = np.zeros(image.shape, int)
    seeds[image < 30 / 255], seeds[image > 150 / 255] = 1, 2
    tensor, marks = torch.from_numpy(image.astype(np.float32)), torch.from_numpy(seeds)

    def peer(mode: str) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return random_walker(image, seeds, beta=130, mode=mode, tol=1e-4)

    calls: dict[str, Callable[[], Any]] = {
        "deepweave": lambda: dw.functional.random_walker(tensor, marks, tolerance=1e-4),
        "scikit-image, cg_j": lambda: peer("cg_j"),
        "scikit-image, cg_mg": lambda: peer("cg_mg"),
    }
    rows = compare(calls, rounds=rounds)
    mine = np.asarray(calls["deepweave"]()).argmax(0) + 1
    for mode in ("cg_j", "cg_mg"):
        rows[f"scikit-image, {mode}"]["agree"] = float((peer(mode) == mine).mean())
    return {"random walkers on coins": rows}


def smoothing(rounds: int) -> dict[str, Any]:
    """Thirty steps of Perona and Malik on 512 x 512, beside medpy."""
    from medpy.filter.smoothing import anisotropic_diffusion
    from skimage import data

    image = (data.camera() / 255.0).astype(np.float32)
    tensor = torch.from_numpy(image)
    edges = dw.functional.perona_malik(0.1)
    return {
        "Perona-Malik, 30 steps": compare(
            {
                "deepweave": lambda: dw.heat(tensor, 6.0, edges, steps=30),
                "medpy": lambda: anisotropic_diffusion(image, 30, kappa=0.1, gamma=0.2, option=1),
            },
            rounds=rounds,
        )
    }


def alone(part: Callable[[int], dict[str, Any]], count: int) -> dict[str, Any]:
    """A part of the benchmark, on one thread."""
    torch.set_num_threads(1)
    return part(count)


def measure(rounds: int, peers: int) -> Path:
    """Run everything and save benchmarks/results/heat.json."""
    torch.set_num_threads(1)
    results = grid(rounds) | grid(rounds, SHORT, "a short time")
    results |= kernels(max(3, rounds // 2)) | walkers(max(3, rounds // 2))
    # each in a process of its own: what numba leaves behind slows everything after it
    for part, count in ((smoothing, 3), (steppers, 3), (infections, peers)):
        try:
            results |= elsewhere(alone, part, count)
        except ImportError as error:
            print(f"left out: {error}")
    for name, rows in results.items():
        told = {who: {k: v for k, v in row.items() if k != "rounds"} for who, row in rows.items()}
        print(name, told)
    return save("heat", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", type=int, default=100, help="runs of ndlib")
    given = parser.parse_args()
    print(measure(given.rounds, given.peers))
