"""Densities learnt by flows of deepweave, zuko, nflows and normflows: nats and bits per dimension.

Two moons: 1,000 steps of Adam, batches of 512 fresh points, with sigma 0.1; the exact entropy is
known. Then the same with equal processor seconds. Digits: 64 dimensions of 17 levels, the same
dequantisation and logit for all, equal processor seconds. Every peer runs twice: as its own
tutorial trains (Adam at a constant 1e-3), and at the rate and schedule that deepweave gets here
(5e-3, a tenth of the time up, then down along a cosine).

    OMP_NUM_THREADS=1 python -m benchmarks.quality.flows [--seeds 3]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import save
from deepweave.nn import Composition, Dequantize, Logit, autoregressive_flow, spline_flow

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.quality.flows"
LEVELS = 17


def moons(count: int, seed: int, sigma: float = 0.1) -> Tensor:
    """Points of two half circles, as scikit-learn's make_moons has them, with noise."""
    random = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=random)
    upper = torch.rand(count, generator=random) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1) + sigma * torch.randn(count, 2, generator=random)


def exact(x: Tensor, sigma: float = 0.1, count: int = 2000) -> Tensor:
    """The log density of the moons: a mean of normal densities along the two half circles."""
    angle = (torch.arange(count, dtype=torch.float64) + 0.5) / count * math.pi
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    centres = torch.cat([upper, lower])
    parts = [
        torch.logsumexp(-torch.cdist(some, centres).square() / (2 * sigma**2), 1)
        for some in x.double().split(500)
    ]
    return torch.cat(parts) - math.log(len(centres) * 2 * math.pi * sigma**2)


class Zuko(nn.Module):
    """A flow of zuko as a function of x."""

    def __init__(self, features: int, hidden: tuple[int, ...]):
        super().__init__()
        import zuko

        self.flow = zuko.flows.NSF(features, transforms=3, hidden_features=hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.flow().log_prob(x)


class Nflows(nn.Module):
    """nflows' autoregressive spline flow, with reversals between, as its examples have it."""

    def __init__(self, features: int, hidden: tuple[int, ...]):
        super().__init__()
        from nflows.distributions.normal import StandardNormal
        from nflows.flows.base import Flow
        from nflows.transforms.autoregressive import (
            MaskedPiecewiseRationalQuadraticAutoregressiveTransform as Spline,
        )
        from nflows.transforms.base import CompositeTransform
        from nflows.transforms.permutations import ReversePermutation

        parts: list[Any] = []
        for _ in range(3):
            parts.append(ReversePermutation(features))
            parts.append(
                Spline(features, hidden[0], num_bins=8, tails="linear", tail_bound=5.0,
                       num_blocks=len(hidden) - 1)
            )  # fmt: skip
        self.flow = Flow(CompositeTransform(parts), StandardNormal([features]))

    def forward(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)


class Normflows(nn.Module):
    """normflows' autoregressive spline flow with LU permutations, as its examples have it."""

    def __init__(self, features: int, hidden: tuple[int, ...]):
        super().__init__()
        import normflows

        parts: list[Any] = []
        for _ in range(3):
            parts.append(
                normflows.flows.AutoregressiveRationalQuadraticSpline(
                    features, len(hidden) - 1, hidden[0]
                )
            )
            parts.append(normflows.flows.LULinearPermute(features))
        base = normflows.distributions.DiagGaussian(features, trainable=False)
        self.flow = normflows.NormalizingFlow(base, parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.flow.log_prob(x)


class Pixels(nn.Module):
    """A peer's flow behind the dequantisation and the logit that deepweave's flow begins with."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.before, self.inner = Composition([Dequantize(LEVELS), Logit(0.01)]), inner

    def forward(self, x: Tensor) -> Tensor:
        z, log_det = self.before(x)
        return self.inner(z) + log_det


PEERS = {"zuko NSF": Zuko, "nflows NSF-AR": Nflows, "normflows NSF-AR": Normflows}


def train(
    make: Callable[[], nn.Module],
    draw: Callable[[int], Tensor],
    seed: int,
    *,
    tuned: bool,
    steps: int | None = None,
    seconds: float | None = None,
) -> tuple[nn.Module, int, float]:
    """A model trained for so many steps, or processor seconds; how many steps, how long."""
    torch.manual_seed(seed)
    model = make().train()
    highest = 5e-3 if tuned else 1e-3
    optimizer = torch.optim.Adam(model.parameters(), lr=highest)
    began, done, taken = time.process_time(), 0, 0.0
    while True:
        taken = time.process_time() - began
        share = done / steps if steps else taken / (seconds or 1.0)
        if share >= 1:
            return model.eval(), done, taken
        if tuned:
            rise = min(1.0, (share + 0.01) / 0.1)
            optimizer.param_groups[0]["lr"] = highest * rise * (1 + math.cos(math.pi * share)) / 2
        loss = -model(draw(done)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        done += 1


def contenders(ours: dict[str, Any], peer: Callable[[Any], Any]) -> dict[str, tuple[Any, bool]]:
    """Every maker by its name in the table, and whether it gets the schedule."""
    rows: dict[str, tuple[Any, bool]] = {f"deepweave {n}": (m, True) for n, m in ours.items()}
    for name, kind in PEERS.items():
        rows[f"{name}, its tutorial's rate"] = (peer(kind), False)
        rows[f"{name}, deepweave's schedule"] = (peer(kind), True)
    return rows


def two_moons(seeds: int, **length: Any) -> dict[str, dict[str, Any]]:
    """Test nats on 20,000 points, and their distance from the exact entropy, over seeds."""
    test = moons(20_000, 10_000)
    floor = -float(exact(test).mean())
    ours = {
        "spline_flow": lambda: spline_flow(2),
        "autoregressive_flow": lambda: autoregressive_flow(2),
    }
    rows = contenders(ours, lambda kind: lambda: kind(2, (64, 64)))
    found: dict[str, dict[str, Any]] = {name: {"nats": [], "steps": [], "s": []} for name in rows}
    for seed in range(seeds):
        pool = moons(512 * 3000, 1 + seed).view(-1, 512, 2)
        for name, (make, tuned) in rows.items():
            model, steps, taken = train(
                make, lambda i, pool=pool: pool[i % len(pool)], seed, tuned=tuned, **length
            )
            with torch.no_grad():
                nats = -float(model(test).double().mean())
            found[name]["nats"].append(nats)
            found[name]["steps"].append(steps)
            found[name]["s"].append(taken)
            print(name, f"{nats:.4f} ({nats - floor:+.4f}), {steps} steps, {taken:.1f} s")
    for row in found.values():
        row["above the exact entropy"] = [round(n - floor, 4) for n in row.pop("nats")]
        row["processor seconds"] = [round(s, 1) for s in row.pop("s")]
    return found


def digits(seeds: int, seconds: float = 10.0) -> dict[str, dict[str, Any]]:
    """Test bits per dimension on 360 digits, over seeds: equal processor seconds."""
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    x = torch.tensor(loaded.data, dtype=torch.float32) / (LEVELS - 1)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    test, known = x[order[:360]], x[order[360:]]
    ours = {
        "autoregressive_flow": lambda: autoregressive_flow(64, 2, (128, 128), levels=LEVELS),
        "spline_flow": lambda: spline_flow(64, 4, (128, 128), levels=LEVELS),
    }
    rows = contenders(ours, lambda kind: lambda: Pixels(kind(64, (128, 128))))
    found: dict[str, dict[str, Any]] = {
        name: {"bits per dimension": [], "steps": [], "weights": 0} for name in rows
    }
    for seed in range(seeds):
        for name, (make, tuned) in rows.items():
            random = torch.Generator().manual_seed(seed)

            def draw(_: int, random: torch.Generator = random) -> Tensor:
                return known[torch.randint(len(known), (256,), generator=random)]

            model, steps, _ = train(make, draw, seed, tuned=tuned, seconds=seconds)
            torch.manual_seed(0)
            with torch.no_grad():
                nats = -float(torch.stack([model(test).double() for _ in range(8)]).mean())
            bits = nats / (64 * math.log(2))
            found[name]["bits per dimension"].append(round(bits, 4))
            found[name]["steps"].append(steps)
            found[name]["weights"] = sum(w.numel() for w in model.parameters())
            print(name, f"{bits:.4f} bits/dim, {steps} steps")
    return found


def measure(seeds: int) -> Path:
    """Run everything and save benchmarks/results/flows_quality.json."""
    torch.set_num_threads(1)
    results = {
        "moons, 1,000 steps": two_moons(seeds, steps=1000),
        "moons, 6 s": two_moons(seeds, seconds=6.0),
        "digits, 10 s": digits(seeds),
    }
    return save("flows_quality", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    print(measure(parser.parse_args().seeds))
