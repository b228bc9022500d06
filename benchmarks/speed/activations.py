"""A study of eleven activations, five networks each: one Population, eleven of them, or loops.

OMP_NUM_THREADS=1 python -m benchmarks.speed.activations
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import deepweave as dw
from benchmarks.harness import compare, save
from deepweave.recipes.activations import KINDS

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.activations"
SEEDS, DEPTH, WIDTH = 5, 10, 48


class Mixed(nn.Module):
    """Every activation computed for every member, one of them kept: vmap as one writes it first."""

    def __init__(self, place: int):
        super().__init__()
        self.register_buffer("on", torch.arange(len(KINDS)) == place)
        self.layers = nn.ModuleList(dw.nn.activation_layer(kind) for kind in KINDS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        on: Any = self.on
        found = torch.zeros_like(x)
        for k, layer in enumerate(self.layers):
            found = torch.where(on[k], layer(x), found)
        return found


def nets(make: Callable[[int], Any]) -> list[dw.Objective]:
    """Five networks for each activation, made by what ``mlp`` takes for it."""
    found: list[dw.Objective] = []
    for place in range(len(KINDS)):
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            net = dw.nn.mlp(((1, 8, 8), 10), (WIDTH,) * DEPTH, make(place))
            found.append(dw.Classify(net))
    return found


def stepper(steps: Sequence[dw.Step], batch: Any) -> Callable[[], None]:
    def call() -> None:
        for step in steps:
            step(batch)

    return call


def measure(rounds: int) -> Path:
    """Run everything and save benchmarks/results/activations.json."""
    torch.set_num_threads(1)
    data = dw.data.load("digits")
    batch = (data.train.x[:64], data.train.y[:64])
    how: dict[str, Any] = {"lr": 1e-3}

    def together(objectives: list[dw.Objective]) -> dw.Population:
        return dw.Population(objectives, optimizer="Adam", shared=True, **how)

    one = together(nets(lambda place: dw.nn.Choice(KINDS, place)))
    named = nets(lambda place: KINDS[place])
    groups = [
        together(nets(lambda place: KINDS[place])[i * SEEDS : (i + 1) * SEEDS])
        for i in range(len(KINDS))
    ]
    loops = [dw.Descent(net, "Adam", **how) for net in named]
    contenders = {
        "deepweave": stepper([one], batch),
        "a Population per activation": stepper(groups, batch),
        "one vmap, every activation for every member": stepper([together(nets(Mixed))], batch),
        "55 loops": stepper(loops, batch),
    }
    results = compare(contenders, rounds=rounds, repeats=4)
    print({who: f"{row['ratio']:.2f}" for who, row in results.items()})
    return save("activations", results, command=COMMAND)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    print(measure(parser.parse_args().rounds))
