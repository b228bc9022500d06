"""Diffusion crosses every model of rows and every runner."""

from __future__ import annotations

import pytest
import torch

import deepweave as dw
from deepweave.core.objective import mapped
from deepweave.testing import check_objective
from tests.contracts.tables import DIFFUSIONS, ROWS, RUNNERS, diffusion


@pytest.mark.parametrize("name", DIFFUSIONS)
def test_objective(name):
    check_objective(lambda: diffusion(name, "mlp")[0], diffusion(name, "mlp", 64)[1], random=True)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("model", ROWS)
@pytest.mark.parametrize("name", DIFFUSIONS)
def test_cell(name, model, runner):
    torch.manual_seed(0)
    objective, batch = diffusion(name, model, 48)
    step = RUNNERS[runner](objective)
    feed = batch
    if step.members is not None and not step.shared:
        feed = mapped(lambda part: part.expand(step.members, *part.shape), batch)
    first = _lost(step, batch)
    for _ in range(30):
        with dw.chance.aside(7):  # the same levels and noise, so that few steps show
            assert step(feed)["loss"].isfinite().all()
    last = _lost(step, batch)
    assert last.shape == (() if step.members is None else (step.members,))
    assert (last < first).all()


def _lost(step, batch):
    with dw.chance.aside(7):
        return step.evaluate(batch)["loss"]
