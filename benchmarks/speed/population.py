"""32 networks at once: a Population against 32 training loops, and against torch.func by hand.

Network 64-128-128-10 with ReLU, Adam, float32. A call is one step of all 32 members. "own" means
that each member has a batch of its own, "shared" that all see the same. The yardstick is 32
hand-written loops with the fused Adam; ``speedup`` is their time over the contender's, round by
round. Afterwards, at float64 and float32, the largest difference of a weight to the loops after
100 steps.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.population
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from benchmarks import harness
from deepweave.core import Population
from deepweave.objectives import Classify

MEMBERS, RATE = 32, 1e-3
LOOPS = "32 loops"
RATES = [10 ** (-4 + 3 * i / (MEMBERS - 1)) for i in range(MEMBERS)]
Call = Callable[[], Any]


def networks() -> list[nn.Sequential]:
    torch.manual_seed(0)
    return [
        nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        for _ in range(MEMBERS)
    ]


def batch(size: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(32, B, 64) inputs and (32, B) labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(MEMBERS, size, 64, generator=generator)
    return x, torch.randint(10, (MEMBERS, size), generator=generator)


class Loops:
    """The yardstick: each network in turn, by hand."""

    def __init__(self, models: list[nn.Sequential], rates: list[float]):
        self.models = models
        self.optimizers = [
            torch.optim.Adam(model.parameters(), lr=rate, fused=True)
            for model, rate in zip(models, rates)
        ]

    def __call__(self, batch: tuple[Tensor, Tensor]) -> None:
        for i, (model, optimizer) in enumerate(zip(self.models, self.optimizers)):
            x, y = batch[0][i], batch[1][i]
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()


class ByHand:
    """What PyTorch's page on model ensembling shows: stacked weights, vmap of grad."""

    def __init__(self, models: list[nn.Sequential]):
        self.weights, self.buffers = stack_module_state(models)  # pyright: ignore[reportArgumentType]
        shape = copy.deepcopy(models[0]).to("meta")

        def loss(weights: Any, buffers: Any, x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(functional_call(shape, (weights, buffers), (x,)), y)

        self.slopes = vmap(grad_and_value(loss))
        self.optimizer = torch.optim.Adam(self.weights.values(), lr=RATE, fused=True)

    def __call__(self, batch: tuple[Tensor, Tensor]) -> None:
        slopes, _ = self.slopes(self.weights, self.buffers, *batch)
        for name, weight in self.weights.items():
            weight.grad = slopes[name].contiguous()  # the fused Adam needs them so
        self.optimizer.step()


def population(models: list[nn.Sequential], shared: bool, rates: Any = RATE) -> Population:
    return Population(
        [Classify(model) for model in models], optimizer="Adam", lr=rates, shared=shared
    )


def contenders(size: int) -> dict[str, Call]:
    x, y = batch(size)
    one = x[0], y[0]
    each = RATES
    steps: dict[str, tuple[Any, Any]] = {
        LOOPS: (Loops(networks(), [RATE] * MEMBERS), (x, y)),
        "deepweave, own": (population(networks(), False), (x, y)),
        "deepweave, shared": (population(networks(), True), one),
        "deepweave, own, a rate each": (population(networks(), False, each), (x, y)),
        "deepweave, shared, a rate each": (population(networks(), True, each), one),
        "torch.func by hand, own": (ByHand(networks()), (x, y)),
    }
    return {name: (lambda step=step, what=what: step(what)) for name, (step, what) in steps.items()}


def difference(dtype: torch.dtype, shared: bool, rates: list[float] | None = None) -> float:
    """The largest difference of a weight to the loops' after 100 steps."""
    models = [model.to(dtype) for model in networks()]
    alone = copy.deepcopy(models)
    together = population(models, shared, rates or RATE)
    loops = Loops(alone, rates or [RATE] * MEMBERS)
    for number in range(100):
        x, y = batch(32, number)
        x = x.to(dtype)
        if shared:
            loops((x[:1].expand_as(x), y[:1].expand_as(y)))
            together((x[0], y[0]))
        else:
            loops((x, y))
            together((x, y))
    gaps = [
        (together.stacked[f"model.{name}"][i] - weight).abs().max()
        for i, model in enumerate(alone)
        for name, weight in model.named_parameters()
    ]
    return float(torch.stack(gaps).detach().max())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="*", default=[16, 32, 128])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--out", default="population", help="the name in benchmarks/results")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        for size in options.sizes:
            found = harness.compare(
                contenders(size), rounds=options.rounds, baseline="deepweave, own", repeats=8
            )
            for row in found.values():
                taken = zip(found[LOOPS]["rounds"], row["rounds"])
                gain = harness.spread([loops / own for loops, own in taken])
                row |= {key.replace("ratio", "speedup"): value for key, value in gain.items()}
            results[f"batch {size}, {threads} thread{'s' * (threads > 1)}"] = found
            print(f"\nbatch {size}, threads {threads}")
            for who, row in found.items():
                low, high = row["speedup_low"], row["speedup_high"]
                gain = f"{row['speedup']:5.2f} ({low:.2f}-{high:.2f})"
                print(f"{who:32s} {row['seconds'] * 1e3:8.2f} ms  {gain} times the loops' speed")
    torch.set_num_threads(1)
    apart = {
        f"{str(dtype).removeprefix('torch.')}, {name}": difference(dtype, shared, rates)
        for dtype in (torch.float64, torch.float32)
        for name, shared, rates in (
            ("own", False, None),
            ("shared", True, None),
            ("own, a rate each", False, RATES),
        )
    }
    for name, value in apart.items():
        print(f"largest difference after 100 steps, {name}: {value:.2g}")
    results["largest difference after 100 steps"] = apart
    threads = " ".join(map(str, options.threads))
    command = f"OMP_NUM_THREADS=1 python -m benchmarks.speed.population --threads {threads}"
    print(harness.save(options.out, results, command=command))


if __name__ == "__main__":
    main()
