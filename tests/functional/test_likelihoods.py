"""Negative log-likelihoods against the distributions of torch and scipy, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Laplace, Normal, Poisson, StudentT

from deepweave import functional as f

B = 40


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(a: Tensor, b: Tensor, rtol: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize(
    ("loss", "law"),
    [
        (f.gaussian_nll, Normal),
        (f.laplace_nll, Laplace),
        (lambda p, y: f.student_nll(p, y, degrees=3.5), lambda m, s: StudentT(3.5, m, s)),
    ],
)
def test_centre_and_scale(loss, law):
    p, y = 2 * draw(B, 2), 3 * draw(B, seed=1)
    near(loss(p, y), -law(p[:, 0], p[:, 1].exp()).log_prob(y))


def test_counts():
    y = torch.arange(B).double()
    z = 2 * draw(B)
    near(f.poisson_nll(z, y), -Poisson(z.exp()).log_prob(y))
    from scipy.stats import nbinom

    p = draw(B, 2)
    mean, r = p[:, 0].exp(), (-p[:, 1]).exp()
    theirs = -nbinom.logpmf(y.numpy(), r.numpy(), (r / (r + mean)).numpy())
    near(f.negative_binomial_nll(p, y), torch.from_numpy(theirs), rtol=1e-10)


def test_small_dispersions_are_poisson():
    y, log_mean = torch.arange(B).double(), 1 + draw(B) / 2
    for dispersion, gap in ((-12.0, 1e-2), (-20.0, 5e-6), (-29.0, 1e-9)):
        p = torch.stack([log_mean, torch.full_like(log_mean, dispersion)], 1)
        assert float((f.negative_binomial_nll(p, y) - f.poisson_nll(log_mean, y)).abs().max()) < gap


def test_the_series_meets_the_gamma_function():
    """At a dispersion of 1/50 the formula changes; there is no step, nor in the slope."""
    y = torch.tensor([0.0, 1.0, 7.0, 300.0]).double()
    slopes = []
    for nudge in (-1e-9, 1e-9):
        p = torch.stack([torch.full_like(y, 1.3), torch.full_like(y, -math.log(50) + nudge)], 1)
        p.requires_grad_()
        loss = f.negative_binomial_nll(p, y)
        loss.sum().backward()
        slopes.append((loss.detach(), p.grad))
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-7, atol=1e-7)


def test_float32_keeps_its_digits():
    p = torch.stack([torch.full((B,), 1.0), torch.linspace(-20, 3, B)], 1)
    y = torch.arange(B).float()
    fine = f.negative_binomial_nll(p.double(), y.double())
    torch.testing.assert_close(f.negative_binomial_nll(p, y).double(), fine, rtol=1e-5, atol=1e-4)


def test_log_densities_are_true_ones():
    """exp(-loss) integrates, or adds, to 1: no constant is missing."""
    places = torch.linspace(-400, 400, 400_001, dtype=torch.float64)
    for loss in (f.gaussian_nll, f.laplace_nll, f.student_nll):
        p = torch.tensor([0.3, 0.2]).double().expand(len(places), 2)
        assert float(torch.trapezoid((-loss(p, places)).exp(), places)) == pytest.approx(
            1, abs=1e-5
        )
    counts = torch.arange(2000).double()
    p = torch.tensor([2.0, 0.5]).double().expand(2000, 2)
    assert float((-f.negative_binomial_nll(p, counts)).exp().sum()) == pytest.approx(1, abs=1e-9)
    total = (-f.poisson_nll(p[:, 0], counts)).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-12)


def test_floors_and_tangents():
    y = torch.zeros(1).double()
    low = torch.tensor([[3.0, -50.0]]).double()
    near(
        f.gaussian_nll(low, y, floor=0.1),
        f.gaussian_nll(torch.tensor([[3.0, math.log(0.1)]], dtype=torch.float64), y),
    )
    z = torch.tensor([31.0]).double().requires_grad_()
    loss = f.poisson_nll(z, y)
    near(loss.detach(), torch.tensor([2 * math.exp(30)], dtype=torch.float64))
    loss.sum().backward()
    assert z.grad is not None
    near(z.grad, torch.tensor([math.exp(30)], dtype=torch.float64))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: f.gaussian_nll(torch.zeros(4), torch.zeros(4)),
         r"gaussian_nll: prediction must be \(4, 2\), got \(4,\)"),
        (lambda: f.laplace_nll(torch.zeros(4, 2), torch.zeros(4), floor=0.0), "floor must be"),
        (lambda: f.student_nll(torch.zeros(4, 2), torch.zeros(4), degrees=0.0), "degrees must be"),
        (lambda: f.poisson_nll(torch.zeros(4), -torch.ones(4)),
         r"counts of at least 0, got -1 \(targets that were standardised are no counts\)"),
        (lambda: f.poisson_nll(torch.zeros(4, 1), torch.ones(4)), r"target must be \(4, 1\)"),
        (lambda: f.negative_binomial_nll(torch.zeros(4, 3), torch.ones(4)), r"must be \(4, 2\)"),
        (lambda: f.negative_binomial_nll(torch.zeros(1, 2), torch.tensor([torch.nan])), "got nan"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
