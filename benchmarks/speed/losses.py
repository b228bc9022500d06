"""Losses forward and back, beside torch's own functions and MONAI's: the same number, and its time.

Run from the root of the project, with one thread, in an environment that has MONAI:

    OMP_NUM_THREADS=1 python -m benchmarks.speed.losses
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness import compare, save
from deepweave import functional as f

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.losses"
Loss = Callable[[Tensor, Tensor], Tensor]


def classes(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 10, generator=g), torch.randint(0, 10, (count,), generator=g)


def masks(samples: int, outputs: int, side: int = 64) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(samples, outputs, side, side, generator=g)
    return z, torch.randint(0, max(2, outputs), (samples, 1, side, side), generator=g)


def monai(kind: str, **options: Any) -> dict[str, Loss]:
    """A loss of MONAI as its documentation makes it, or nothing where it is not installed."""
    if find_spec("monai") is None:
        return {}
    losses: Any = __import__("monai.losses", fromlist=["losses"])
    return {"MONAI": getattr(losses, kind)(**options)}


def cases() -> dict[str, tuple[tuple[Tensor, Tensor], dict[str, Loss]]]:
    """For each case a batch, and the contenders: all give the mean loss of the batch."""
    mean: dict[str, Any] = {"reduction": "mean"}
    one, y = masks(16, 1)
    y = y.float()
    many, k = masks(8, 4)
    smooth = {"smooth_nr": 1.0, "smooth_dr": 1.0}

    def soft(loss: Any, z: Tensor, y: Tensor) -> Tensor:
        return loss(z.softmax(1), f.one_hot(y.squeeze(1), 4), reduction="mean")

    return {
        "cross-entropy, 128 x 10": (
            classes(128),
            {
                "deepweave": partial(f.cross_entropy, **mean),
                "torch": F.cross_entropy,
                "deepweave, one number per sample": lambda z, y: f.cross_entropy(z, y).mean(),
            },
        ),
        "BCE, 16 masks of 64 x 64": (
            (one, y),
            {
                "deepweave": partial(f.binary_cross_entropy, **mean),
                "torch": F.binary_cross_entropy_with_logits,
                "deepweave, one number per sample": lambda z, y: f.binary_cross_entropy(
                    z, y
                ).mean(),
            },
        ),
        "Dice, 16 masks": (
            (one, y),
            {
                "deepweave": lambda z, y: f.dice(z.sigmoid(), y, reduction="mean"),
                **monai("DiceLoss", sigmoid=True, **smooth),
            },
        ),
        "Dice, 8 x 4 classes": (
            (many, k),
            {
                "deepweave": partial(soft, f.dice),
                **monai("DiceLoss", softmax=True, to_onehot_y=True, **smooth),
            },
        ),
        "Tversky, 16 masks": (
            (one, y),
            {
                "deepweave": lambda z, y: f.tversky(z.sigmoid(), y, reduction="mean"),
                **monai("TverskyLoss", sigmoid=True, alpha=0.3, beta=0.7, **smooth),
            },
        ),
        "focal, 16 masks": (
            (one, y),
            {"deepweave": partial(f.focal, **mean), **monai("FocalLoss", gamma=2.0)},
        ),
        "focal, 8 x 4 classes": (
            (many, k),
            {
                "deepweave": lambda z, y: f.focal(z, y.squeeze(1), reduction="mean"),
                **monai("FocalLoss", gamma=2.0, use_softmax=True, to_onehot_y=True),
            },
        ),
    }


def both_ways(loss: Loss, z: Tensor, y: Tensor) -> Callable[[], Tensor]:
    """The loss and its slope in the logits."""

    def call() -> Tensor:
        point = z.detach().requires_grad_()
        value = loss(point, y)
        value.backward()
        return value.detach()

    return call


def measure(rounds: int) -> Path:
    """Run everything and save benchmarks/results/losses.json."""
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    for name, ((z, y), contenders) in cases().items():
        calls = {who: both_ways(loss, z, y) for who, loss in contenders.items()}
        values = {who: float(call()) for who, call in calls.items()}
        ours = values["deepweave"]
        # MONAI takes the mean over classes of a focal loss whose others are 0
        parts = 4 if name == "focal, 8 x 4 classes" else 1
        for who, value in values.items():
            expected = ours / parts if who == "MONAI" else ours
            if abs(value - expected) > 1e-5 * max(1, abs(expected)):
                raise ValueError(f"{name}: {who} says {value}, deepweave {expected}")
        results[name] = compare(calls, rounds=rounds, repeats=40)
        print(name, {who: f"{row['ratio']:.2f}" for who, row in results[name].items()})
    return save("losses", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    print(measure(parser.parse_args().rounds))
