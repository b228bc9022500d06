from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.search import shapes

WIDTHS = (5, 8, 16)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (32,), generator=generator)


def nets(**options) -> list[dw.Classify]:
    torch.manual_seed(1)
    return [dw.Classify(dw.nn.mlp((6, 3), (w, w), **options)).double() for w in WIDTHS]


@pytest.mark.parametrize("options", [{}, {"activation": "tanh"}, {"activation": "gelu"},
                                     {"norm": "batch"}, {"activation": "prelu"}])  # fmt: skip
def test_padding_changes_nothing(options):
    objectives = nets(**options)
    assert shapes.group(objectives, batch()) == [[0, 1, 2]]
    alone = copy.deepcopy(objectives)
    many = dw.Population(
        shapes.pad(objectives), shared=True, lr=[1e-2, 2e-2, 3e-2], decay=[0.1, 0.2, 0.3]
    )
    steps = [
        dw.Descent(one, "AdamW", lr=rate, weight_decay=10 * rate)
        for one, rate in zip(alone, (1e-2, 2e-2, 3e-2))
    ]
    for _ in range(20):
        many(batch())
        for step in steps:
            step(batch())
    for i, (one, other) in enumerate(zip(objectives, alone)):
        shapes.cut({k: v[i] for k, v in many.weights().items()}, one)
        for name, value in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], value, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("options", [{"activation": "sigmoid"}, {"norm": "layer"}])
def test_what_padding_would_change_stays_apart(options):
    assert shapes.group(nets(**options), batch()) == [[0], [1], [2]]


def test_padding_stops_where_a_program_of_its_own_is_cheaper(monkeypatch):
    objectives = nets()
    monkeypatch.setattr(shapes, "WASTE", 0)
    assert shapes.group(objectives, batch()) == [[0], [1], [2]]
    assert shapes.group([*objectives, copy.deepcopy(objectives[1])], batch()) == [[0], [1, 3], [2]]


def test_what_differs_in_more_than_tensors_stays_apart():
    def net(**options):
        return dw.nn.mlp((6, 3), (8,), **options)

    kinds = [
        dw.Classify(net()),
        dw.Classify(net(), smoothing=0.1),
        dw.Classify(net(activation="tanh")),
        dw.Classify(net(dropout=0.1)),
        dw.Classify(net(dropout=0.4)),
        dw.Classify(nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.1), nn.Linear(8, 3))),
        dw.Classify(nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 3))),
        dw.Classify(net()).requires_grad_(False),
    ]
    x, y = batch()
    found = shapes.group(kinds, (x.float(), y))
    assert found == [[0], [1], [2], [3, 4], [5], [6], [7]]
    assert shapes.same(kinds) == found


def test_functions_of_ones_own_are_told_apart():
    def first(x):
        return x.relu()

    def second(x):
        return x.tanh()

    def closed(scale):
        return lambda x: scale * x

    makes = [first, second, first, closed(1.0), closed(2.0)]
    objectives = [
        dw.Classify(nn.Sequential(nn.Linear(6, 3), dw.nn.Lambda(one))).double() for one in makes
    ]
    assert shapes.group(objectives, batch()) == [[0, 2], [1], [3], [4]]
