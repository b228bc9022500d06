"""Flows in time: a training step beside zuko's, nflows' and normflows', and samples of
autoregressive flows.

Nets of one size: 3 spline layers of 8 bins, hidden (64, 64) at 2 features and (128, 128) at 64.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.flows [--rounds 7]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import compare, save
from benchmarks.quality.flows import Nflows, Normflows, Zuko
from deepweave.nn import Autoregressive, autoregressive_flow, jacobi

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.flows"


def steps(features: int, batch: int, hidden: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """A forward and backward pass of the likelihood, and Adam."""
    x, calls = torch.randn(batch, features), {}
    made: dict[str, Any] = {
        "deepweave": autoregressive_flow(features, 3, hidden),
        "zuko NSF": Zuko(features, hidden),
        "nflows NSF-AR": Nflows(features, hidden),
        "normflows NSF-AR": Normflows(features, hidden),
    }
    for name, model in made.items():
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)

        def step(model: Any = model, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad()
            (-model(x).mean()).backward()
            optimizer.step()

        calls[name] = step
    return compare(calls, rounds=rounds, repeats=3)


def samples(kind: str, hidden: tuple[int, ...], rounds: int, many: int = 1000) -> dict[str, Any]:
    """1,000 samples of 64 features, after checking that what is computed once is right."""
    import zuko

    torch.manual_seed(0)
    flow = autoregressive_flow(64, 3, hidden, kind=kind).eval()  # pyright: ignore
    layer = next(one for one in flow.modules() if isinstance(one, Autoregressive))
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        z = torch.randn(many, 64)
        gap = float((layer(layer.inverse(z)[0])[0] - z).abs().max())
    if gap > 1e-5:
        raise ValueError(f"the inverse is off by {gap}")
    print(f"round trip of {kind}: {gap:.1e}")
    make = zuko.flows.NSF if kind == "spline" else zuko.flows.MAF
    peer = make(64, transforms=3, hidden_features=hidden)
    calls: dict[str, Any] = {"deepweave": lambda: flow.sample(many)}

    def theirs() -> None:
        with torch.no_grad():
            peer().sample((many,))

    calls["zuko"] = theirs

    def one_of_theirs_by_jacobi() -> None:
        with torch.no_grad():
            parts = list(peer().transform.transforms)
            x = torch.randn(many, 64)
            for part in reversed(parts):
                z = x
                meta = getattr(part, "meta", None)
                if meta is None:
                    x = part.inv(z)
                    continue
                x, _ = jacobi(lambda x, z=z, meta=meta: meta(x).inv(z), torch.zeros_like(z))

    calls["zuko's untrained nets by deepweave's jacobi"] = one_of_theirs_by_jacobi
    return compare(calls, rounds=rounds)


def measure(rounds: int) -> Path:
    """Run everything and save benchmarks/results/flows.json."""
    torch.set_num_threads(1)
    results = {
        "step, 2 features": steps(2, 512, (64, 64), 3 * rounds),
        "step, 64 features": steps(64, 256, (128, 128), rounds),
        "1,000 samples, splines": samples("spline", (128, 128), max(3, rounds // 2)),
        "1,000 samples, affine": samples("affine", (128, 128), rounds),
    }
    for name, rows in results.items():
        print(name, {who: f"{r['seconds']:.4f} s {r['ratio']:.2f}" for who, r in rows.items()})
    return save("flows", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    print(measure(parser.parse_args().rounds))
