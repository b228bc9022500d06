"""Where torch's own activations are not exact, or not differentiable twice."""

from __future__ import annotations

import math

import pytest
import torch

from deepweave import functional as f


def test_softplus_keeps_its_digits():
    x = torch.tensor([18.0, 21.0, 30.0, 39.0], dtype=torch.float64)
    rest = f.softplus(x) - x
    torch.testing.assert_close(rest, torch.log1p((-x).exp()), rtol=0, atol=1e-14)
    assert float(rest[1]) > 7e-10
    torch.testing.assert_close(f.softplus(x, beta=0.5), 2 * torch.log1p((x / 2).exp()))
    with pytest.raises(ValueError, match="softplus: beta must be above 0, got 0"):
        f.softplus(x, beta=0.0)


def test_a_slope_above_one_acts_on_the_negative_side():
    x, a = torch.tensor([[-2.0], [3.0]]), torch.tensor([2.0])
    assert f.prelu(x, a).flatten().tolist() == [-4.0, 3.0]
    assert torch.maximum(a * x, x).flatten().tolist() == [-2.0, 6.0]
    each = f.prelu(-torch.ones(1, 3), torch.tensor([1.0, 2.0, -1.0]))
    assert each.tolist() == [[-1.0, -2.0, 1.0]]


def test_selu_keeps_mean_and_variance():
    """The fixed point of its constants: N(0, 1) goes to mean 0 and variance 1."""
    nodes = torch.linspace(-12, 12, 400_001, dtype=torch.float64)
    law = torch.exp(-nodes.square() / 2) / math.sqrt(2 * math.pi)
    y = f.selu(nodes)
    assert abs(float(torch.trapezoid(y * law, nodes))) < 1e-9
    assert abs(float(torch.trapezoid(y * y * law, nodes)) - 1) < 1e-9


def test_softmax_of_the_classes():
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(f.softmax(x), x.exp() / x.exp().sum(1, keepdim=True))
    torch.testing.assert_close(f.softmax(x + 1e4), f.softmax(x), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(f.softmax(x, dim=-1).sum(-1), torch.ones(2, 3).double())
