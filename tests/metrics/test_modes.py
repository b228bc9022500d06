"""Which classes a classifier sees in samples."""

from __future__ import annotations

import pytest
import torch

from deepweave import metrics
from deepweave.metrics.generative import modes


def test_hits_classes_and_entropy():
    said = torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.02, 0.98], [0.1, 0.9]])
    found = modes(said)
    assert (float(found.hits), found.classes, found.entropy) == (0.75, 2, 1.0)
    assert float(modes(said, sure=0.96).hits) == 0.25
    right = modes(said, torch.tensor([0, 1, 1, 1])).hits
    assert (float(right), right.low) == (0.75, metrics.wilson(3, 4).low)


def test_a_dropped_mode_costs_entropy():
    said = torch.eye(4)[torch.arange(90) % 3]
    found = modes(said)
    assert found.classes == 3
    assert found.entropy == pytest.approx(torch.tensor(3.0).log2().item())
    assert f"{modes(said[:1]).entropy:.2f}" == "0.00"


def test_two_classes_by_the_probability_of_the_second():
    p = torch.tensor([0.05, 0.4, 0.98, 0.9])
    both = torch.stack([1 - p, p], 1)
    assert modes(p) == modes(both)
    y = torch.tensor([0, 1, 1, 1])
    assert modes(p, y) == modes(both, y)


@pytest.mark.parametrize("said", [torch.zeros(3, 1, 1), torch.zeros(0, 2), torch.zeros(0)])
def test_refusals(said):
    with pytest.raises(ValueError, match=r"must be \(N, K\)"):
        modes(said)
