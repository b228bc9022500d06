"""Every objective x model x runner learns; the page in the docs says what this test says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_map

import deepweave as dw
from deepweave import chance
from deepweave.core.objective import mapped
from tests.contracts.tables import (
    DENSITIES,
    GAPS,
    GENERATIVE,
    OBJECTIVES,
    RUNNERS,
    cell,
    crossings,
    density,
    page,
)

CELLS = [
    pytest.param(
        *key,
        marks=[pytest.mark.xfail(reason=GAPS[key], strict=True)] if key in GAPS else [],
    )
    for key in crossings()
]


@pytest.mark.parametrize(("objective", "model", "runner"), CELLS)
def test_cell(objective, model, runner):
    torch.manual_seed(0)
    method, batch = cell(objective, model)
    step = RUNNERS[runner](method)
    if step.members is not None and not step.shared:
        feed = tree_map(
            lambda part: part if part is None else part.expand(step.members, *part.shape), batch
        )
    else:
        feed = batch
    method.check(batch)  # what cannot work is refused before any work
    step.objective.eval()
    first = step.evaluate(batch)["loss"]
    step.objective.train()
    for _ in range(20):
        logs = step(feed)
        assert logs["loss"].isfinite().all()
    step.objective.eval()
    last = step.evaluate(batch)["loss"]
    assert last.shape == (() if step.members is None else (step.members,))
    assert (last < first).all()
    prediction = step.predict(batch[0])
    samples = prediction if step.members is None else prediction[0]
    assert len(samples) == 8
    if OBJECTIVES[objective].make.__qualname__ != "Regress" and "Regress" not in objective:
        assert ((samples >= 0) & (samples <= 1)).all()


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", DENSITIES)
def test_density(name, runner):
    torch.manual_seed(0)
    objective, batch = density(name, 32)
    step = RUNNERS[runner](objective)
    feed = batch
    if step.members is not None and not step.shared:
        feed = mapped(lambda part: part.expand(step.members, *part.shape), batch)
    for _ in range(2):
        step(feed)  # ActNorm has started, and no member's loss is compared across it
    step.objective.eval()
    with dw.chance.aside(0):
        first = step.evaluate(batch)["loss"]
    step.objective.train()
    for _ in range(30):
        assert step(feed)["loss"].isfinite().all()
    step.objective.eval()
    with dw.chance.aside(0):
        last = step.evaluate(batch)["loss"]
    assert (last < first).all()
    found = step.predict(batch)
    assert found.shape == (() if step.members is None else (step.members,)) + (32,)
    assert found.isfinite().all()


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", GENERATIVE)
def test_without_labels(name, runner):
    """What it is told falls, or both sides move; and it samples what it was shown."""
    torch.manual_seed(0)
    row = GENERATIVE[name]
    objective, batch = row.make(), row.batch()
    step = RUNNERS[runner](objective)
    feed = batch
    if step.members is not None and not step.shared:
        feed = tree_map(lambda part: part.expand(step.members, *part.shape), batch)
    objective.check(batch)

    def loss():
        with chance.aside(0):
            return torch.stack([step.evaluate(batch)["loss"] for _ in range(8)]).mean(0)

    first, before = loss(), {n: w.clone() for n, w in step.weights().items()}
    for _ in range(20):
        assert step(feed)["loss"].isfinite().all()
    if row.falls:
        assert (loss() < first).all()
    named = {n for n, w in objective.named_parameters() if w.dim() > 1}  # biases may cancel
    still = {n for n, w in step.weights().items() if n in named and torch.equal(w, before[n])}
    assert not still
    one = step.chosen()
    one = getattr(one, "objective", one)
    if hasattr(one, "sample"):
        told = (torch.arange(3),) if row.told else ()
        assert one.sample(3, *told).shape == (3, 6)


def test_the_page_is_as_the_tables():
    path = Path(__file__).parents[2] / "docs" / "weave.md"
    assert path.read_text() == page(), "make docs"
