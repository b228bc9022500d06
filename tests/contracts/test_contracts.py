"""The same checks over every model and every objective."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.testing import check_model, check_objective
from tests.contracts.tables import DENSITIES, MODELS, OBJECTIVES, _x, cell, density


@pytest.mark.parametrize("name", MODELS)
def test_model(name):
    model = MODELS[name]
    own = name == "your own module"
    whole = "graph net" in name and "whole" not in name  # one graph: its nodes see each other
    check_model(
        lambda: model.make((model.shape, 3)), model.inputs(5), build=not own, independent=not whole
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objective(name):
    check_objective(lambda: cell(name, "mlp")[0], cell(name, "mlp")[1])


@pytest.mark.parametrize("name", DENSITIES)
def test_density(name):
    """The model gives log densities, and its objective learns; noise on data leaves no parity."""
    one = DENSITIES[name]
    if not one.context and not one.levels:
        check_model(one.make, one.batch(5))
    if not one.levels:
        check_objective(lambda: density(name)[0], one.batch(12))


class Leaky(nn.Module):
    """Faults that the checks must find, one at a time."""

    def __init__(self, fault: str):
        super().__init__()
        self.fault = fault
        self.layer, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.layer(x)
        if self.fault != "idle":
            out = out + self.idle(x)
        if self.fault == "batch":
            out = out - out.mean(0)
        if self.fault == "slope":
            out = out + (out.detach() - out)
        return out


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("idle", "no gradient reaches idle.weight"),
        ("batch", "must not depend on the batch"),
        ("slope", "is zero everywhere|slopes of the inputs are wrong"),
    ],
)
def test_check_model_finds_faults(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_model(lambda: Leaky(fault), _x(4, 3), build=False)


class Wrong(dw.Regress):
    def __init__(self, fault: str):
        super().__init__(nn.Linear(3, 1))
        self.fault = fault

    def forward(self, batch):
        loss, logs = super().forward(batch)
        if self.fault == "logs":
            logs = {"loss again": loss}
        if self.fault == "shape":
            loss = loss.repeat(2)
        if self.fault == "up":
            loss = -loss
        if self.fault == "slope":
            loss = loss.detach() + (loss - loss.detach()) * 0.5
        return loss, logs


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("logs", "must be a detached scalar"),
        ("shape", "must be a scalar"),
        ("slope", "the slope is .* the difference quotient"),
    ],
)
def test_check_objective_finds_faults(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_objective(lambda: Wrong(fault), (_x(4, 3), _x(4)))
