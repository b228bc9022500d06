"""Convolutional nets beside the same layers in plain PyTorch, and Populations of them.

"plain PyTorch" are the same layers fed as images come; "channels last by hand" is what PyTorch's
tuning guide asks for: the model and every batch brought into that layout. deepweave's nets lay out
their input by themselves.

OMP_NUM_THREADS=1 python -m benchmarks.speed.vision
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

import deepweave as dw
from benchmarks.harness import compare, save

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.vision"
LAST: Any = torch.channels_last
MEMBERS = 8


class Plain(nn.Module):
    """The layers of a net without what deepweave does before them."""

    def __init__(self, net: Any):
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net.score(x)


def forms(net: Any) -> dict[str, tuple[nn.Module, bool]]:
    """The contenders: a net, and whether its batches come channels last."""
    by_hand: Any = Plain(copy.deepcopy(net))
    return {
        "deepweave": (net, False),
        "plain PyTorch": (Plain(copy.deepcopy(net)), False),
        "channels last by hand": (by_hand.to(memory_format=LAST), True),
    }


def classify(model: nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        model(x)


def learn(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


def forward(net: Any, x: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Calls that classify a batch."""
    contenders = forms(net).items()
    return {name: partial(classify, m.eval(), laid(x, last)) for name, (m, last) in contenders}


def training(net: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Calls that learn from a batch by Adam."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, (model, last) in forms(net).items():
        optimizer = torch.optim.Adam(model.parameters(), fused=True)
        calls[name] = partial(learn, model, optimizer, laid(x, last), y)
    return calls


def laid(x: torch.Tensor, last: bool) -> torch.Tensor:
    """A batch as it comes, or channels last."""
    return x.contiguous(memory_format=LAST) if last else x


def members(x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], Any]]:
    """Eight small nets that learn at once, beside eight loops over the same."""

    def net() -> dw.Objective:
        return dw.Classify(dw.nn.convnet((tuple(x.shape[1:]), 10), (8, 16), norm="group"))

    together = dw.Population(net(), MEMBERS, "Adam", shared=True)
    loops = [dw.Descent(net(), "Adam") for _ in range(MEMBERS)]

    def loop() -> None:
        for one in loops:
            one((x, y))

    return {"deepweave": lambda: together((x, y)), "8 loops": loop}


def measure(rounds: int) -> Path:
    """Run everything and save benchmarks/results/vision.json."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    photo, sizes = torch.randn(4, 3, 224, 224), ((3, 224, 224), 1000)
    small, y = torch.rand(128, 1, 28, 28), torch.randint(0, 10, (128,))
    tiny = torch.rand(32, 1, 8, 8)
    digit = ((1, 28, 28), 10)
    parts = {
        "ResNet-18, 4 photographs": forward(dw.nn.resnet(sizes), photo),
        "MobileNetV2, 4 photographs": forward(dw.nn.mobilenet_v2(sizes), photo),
        "convnet, a step of 128": training(dw.nn.convnet(digit, (16, 32, 64, 128)), small, y),
        "small ResNet, a step of 128": training(
            dw.nn.resnet_small(digit, 1, (32, 64, 128), pooled=True), small, y
        ),
        f"{MEMBERS} convnets, 32 of 8 x 8": members(tiny, y[:32]),
        f"{MEMBERS} convnets, 128 of 28 x 28": members(small, y),
    }
    results = {}
    for name, contenders in parts.items():
        results[name] = compare(contenders, rounds=rounds, repeats=3)
        print(name, {who: f"{row['ratio']:.2f}" for who, row in results[name].items()})
    return save("vision", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    print(measure(parser.parse_args().rounds))
