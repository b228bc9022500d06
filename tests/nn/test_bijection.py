"""One contract over all bijections, what it must find, extremes and bad input."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from tests.contracts.bijections import BIJECTIONS
from torch import nn

import deepweave as dw
from deepweave.nn import (
    MADE,
    ActNorm,
    Autoregressive,
    Composition,
    Continuous,
    Coupling,
    Dequantize,
    ImageCoupling,
    Logit,
    LUMixing,
    Permutation,
    Planar,
    Radial,
    Softplus,
    Squeeze,
    jacobi,
)
from deepweave.testing import check_bijection


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", BIJECTIONS)
def test_contract(name):
    case = BIJECTIONS[name]
    x = drawn(6, *case.shape)
    x = x.sigmoid() if case.unit else x
    context = drawn(6, case.context, seed=1) if case.context else None
    check_bijection(case.make, x, context, fine=case.fine, coarse=case.coarse)


class Faulty(LUMixing):
    """Faults that the check must find, one at a time."""

    def __init__(self, fault):
        super().__init__(3)
        self.fault = fault

    def forward(self, x, context=None):
        z, log_det = super().forward(x)
        if self.fault == "log_det":
            log_det = log_det * 1.01 + 0.01
        if self.fault == "batch":
            z = z + z.mean(0)
        return z, log_det.sum() if self.fault == "shape" else log_det

    def inverse(self, z, context=None):
        x, log_det = super().inverse(z)
        if self.fault == "log_det":
            log_det = log_det * 1.01 - 0.01
        if self.fault == "slopes":
            x = x.detach() + 0.5 * (x - x.detach())
        return (x + 1e-4, log_det) if self.fault == "inverse" else (x, log_det)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("log_det", "not that of the Jacobian"),
        ("batch", "inverse is off|depend on the batch"),
        ("shape", "log_det must be"),
        ("inverse", "inverse is off by 0.0001"),
        ("slopes", "slopes of the inverse are wrong"),
    ],
)
def test_the_check_finds_faults(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_bijection(lambda: Faulty(fault), drawn(4, 3))


def test_made_hears_of_earlier_features_only():
    net = MADE(6, 3, (20, 20, 9), context=2, gain=1.0, activation="tanh")
    context = drawn(1, 2)
    slopes = torch.func.jacrev(lambda x: net(x[None], context)[0])(drawn(6))
    heard = slopes.abs().sum(1) > 0
    assert torch.equal(heard, torch.ones(6, 6).tril(-1).bool())
    heard = torch.func.jacrev(lambda c: net(drawn(1, 6), c)[0])(context).abs().sum((1, 2, 3))
    assert (heard > 0).all(), "the context reaches every feature, the first too"


@pytest.mark.parametrize("kind", ["affine", "spline"])
def test_each_unit_computed_once_gives_what_full_passes_give(kind):
    torch.manual_seed(0)
    layer = Autoregressive(37, kind, (80, 80, 50), context=2, activation="silu").double()
    for weight in layer.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    z, context = drawn(7, 37).double(), drawn(7, 2, seed=1).double()

    def better(x):
        return layer.scalar.inverse(z, layer.net(x, context))[0]

    slow, rounds = jacobi(better, torch.zeros_like(z), tolerance=0.0)
    assert rounds <= 37
    with torch.no_grad():
        fast, log_det = layer.inverse(z, context)
    torch.testing.assert_close(fast, slow.detach(), atol=1e-11, rtol=0)
    slopes, with_log_det = layer.inverse(z, context)  # the way that keeps slopes
    torch.testing.assert_close(slopes.detach(), fast, atol=1e-13, rtol=0)
    torch.testing.assert_close(with_log_det.detach(), log_det, atol=1e-12, rtol=0)
    torch.testing.assert_close(-layer(fast, context)[1].detach(), log_det, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ["affine", "spline"])
@pytest.mark.parametrize("seed", [0, 1, 3])
def test_many_features_come_back_in_float32(kind, seed):
    torch.manual_seed(seed)
    layer = Autoregressive(64, kind, (128, 128))
    z = torch.randn(1000, 64)
    with torch.no_grad():
        for weight in layer.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
        x, log_det = layer.inverse(z)
        again, there = layer(x)
    assert x.is_contiguous()
    # to the rounding of numbers of size 5 and slopes of 15: z for itself is 5e-7 off
    assert float((again - z).abs().max()) < 1e-5
    torch.testing.assert_close(there, -log_det, atol=1e-4, rtol=0)


def test_units_are_computed_once():
    layer = Autoregressive(8, "affine", (24, 24))
    seen = []
    layer.net.act.register_forward_hook(lambda module, given, out: seen.append(out.shape[0]))
    with torch.no_grad():
        layer.inverse(drawn(3, 8))
    assert sum(seen) == 48


def test_jacobi_says_how_many_rounds():
    weight = torch.zeros(6, 6)
    weight[5, 0] = 1.0  # one feature hears of one other: two rounds reach it, a third confirms
    x, rounds = jacobi(lambda x: 1 + x @ weight.T, torch.zeros(2, 6))
    assert rounds == 3
    assert x[0].tolist() == [1, 1, 1, 1, 1, 2]
    assert jacobi(lambda x: 1 + x @ weight.T, torch.zeros(2, 6), every=4)[1] == 4
    assert jacobi(lambda x: 1 + x @ weight.T, torch.zeros(2, 6), most=1)[1] == 1
    with pytest.raises(ValueError, match="jacobi: tolerance"):
        jacobi(lambda x: x, torch.zeros(1, 2), tolerance=-1.0)


@given(st.integers(0, 2**31), st.integers(2, 9), st.floats(0.5, 20.0))
@settings(max_examples=40, deadline=None)
def test_splines_are_monotone_and_turn_round(seed, bins, bound):
    random = torch.Generator().manual_seed(seed)
    shape = 3 * torch.randn(1, 3 * bins - 1, generator=random, dtype=torch.float64)
    x = torch.linspace(-1.5 * bound, 1.5 * bound, 201, dtype=torch.float64)
    many = shape.expand(201, -1)
    spline = dw.functional.rational_quadratic
    y, log_slope = spline(x, many, bound=bound)
    assert (y.diff() > 0).all()
    back, log_back = spline(y, many, bound=bound, inverse=True)
    torch.testing.assert_close(back, x, atol=1e-8 * bound, rtol=0)
    torch.testing.assert_close(log_back, -log_slope, atol=1e-5, rtol=0)
    outside = x.abs() >= bound
    assert torch.equal(y[outside], x[outside])
    slope = torch.func.vmap(torch.func.grad(lambda a, s: spline(a, s, bound=bound)[0]))(x, many)
    torch.testing.assert_close(slope.log()[~outside], log_slope[~outside], atol=1e-8, rtol=0)


def test_a_spline_loses_no_digits_at_its_knots():
    random = torch.Generator().manual_seed(0)
    shape = 0.3 * torch.randn(20_000, 23, generator=random)
    x = 1.5 * torch.randn(20_000, generator=random)
    spline = dw.functional.rational_quadratic
    for inverse in (False, True):
        found, log_slope = spline(x, shape, inverse=inverse)
        wanted, fine = spline(x.double(), shape.double(), inverse=inverse)
        assert found.dtype == log_slope.dtype == torch.float32
        assert float((found - wanted).abs().max()) < 1.5e-6  # in x's digits, with slopes up to 6
        assert float((log_slope - fine).abs().max()) < 5e-6
    y, _ = spline(x, shape)
    assert float((spline(y, shape, inverse=True)[0] - x).abs().max()) < 3e-6


def test_the_spline_meets_its_knots():
    shape = drawn(1, 11).double()
    shares = 0.02 + 0.92 * shape[0, :8].view(2, 4).softmax(-1)
    knots = 10 * shares.cumsum(-1) - 5
    y, log_slope = dw.functional.rational_quadratic(knots[0, :3], shape.expand(3, -1))
    torch.testing.assert_close(y, knots[1, :3])
    wanted = 0.01 + torch.nn.functional.softplus(shape[0, 8:] + math.log(math.expm1(0.99)))
    torch.testing.assert_close(log_slope.exp(), wanted)


def test_spline_slopes_are_exact_and_finite_everywhere():
    shape = drawn(5, 14).double().requires_grad_()
    x = torch.tensor([-5.0, 4.9, 0.0, 1e4, -1e30]).double()
    spline = dw.functional.rational_quadratic
    for inverse in (False, True):
        inside = drawn(5).double().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda a, s, i=inverse: spline(a, s, inverse=i), (inside, shape)
        )
        y, log_slope = spline(x.requires_grad_(), shape, inverse=inverse)
        assert y.isfinite().all()
        assert log_slope.isfinite().all()
        for slope in torch.autograd.grad(y.tanh().sum() + log_slope.sum(), (x, shape)):
            assert slope.isfinite().all()


def test_bad_splines():
    spline = dw.functional.rational_quadratic
    with pytest.raises(ValueError, match="3K - 1 numbers, K at least 2, got 7"):
        spline(torch.zeros(2), torch.zeros(2, 7))
    with pytest.raises(ValueError, match=r"shape must be \(2, 8\), got \(3, 8\)"):
        spline(torch.zeros(2), torch.zeros(3, 8))
    with pytest.raises(ValueError, match="bound must be above 0"):
        spline(torch.zeros(2), torch.zeros(2, 8), bound=0.0)


def test_actnorm_starts_once():
    layer = ActNorm(3)
    x = drawn(500, 3) * torch.tensor([10.0, 0.1, 0.0]) + torch.tensor([5.0, -3.0, 2.0])
    layer.eval()
    assert torch.equal(layer(x)[0], x), "before the first batch it is the identity"
    layer.train()
    z, log_det = layer(x)
    torch.testing.assert_close(z.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(z[:, :2].std(0), torch.ones(2), atol=2e-3, rtol=0)
    assert z[:, 2].abs().max() == 0, "a constant feature is not blown up"
    assert log_det.isfinite().all()
    kept = layer.mean.clone()
    layer(x * 100)
    assert torch.equal(layer.mean, kept)
    layer.reset_parameters()
    layer(x + 1)
    torch.testing.assert_close(layer.mean, kept + 1, atol=1e-5, rtol=1e-5)


def test_actnorm_starts_alike_in_a_population():
    x = drawn(64, 2) * 4 + 1
    made = [dw.Likelihood(dw.nn.affine_flow(2, 2, (8,))) for _ in range(2)]
    step = dw.Population(made, shared=True, lr=1e-3)
    step(x)
    started = [k for k in step.buffers if k.endswith("started")]
    assert len(started) == 1
    assert step.buffers[started[0]].all()
    mean = step.buffers[started[0].replace("started", "mean")]
    torch.testing.assert_close(mean, x.mean(0).expand(2, 2))


def test_scales_are_bounded():
    layer = Coupling(4, "affine", (8,), most=2.0)
    nn.init.constant_(layer.net[-1].bias, 1e6)
    log_det = layer(drawn(3, 4))[1]
    torch.testing.assert_close(log_det, torch.full((3,), 4.0))


@pytest.mark.parametrize("kind", ["spline", "affine"])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e3, 1e18])
def test_far_tails_stay_finite(kind, size):
    flow = dw.nn.spline_flow(3) if kind == "spline" else dw.nn.affine_flow(3, 3)
    for weight in flow.parameters():
        weight.data += 0.5 * torch.randn_like(weight)
    x = (drawn(20, 3) * size).requires_grad_()
    found = flow.log_prob(x)
    assert found.isfinite().all()
    assert torch.autograd.grad(found.sum(), x)[0].isfinite().all()


def test_planar_is_invertible_for_any_numbers():
    layer = Planar(3)
    with torch.no_grad():
        layer.numbers.copy_(torch.tensor([-4.0, 1.0, 2.0, 4.0, 0.5, -3.0, 0.3]))  # w . u far < -1
    x = 3 * drawn(200, 3)
    z, log_det = layer(x)
    assert log_det.isfinite().all()
    torch.testing.assert_close(layer.inverse(z)[0], x, atol=2e-3, rtol=0)
    fine = layer.double()
    z, _ = fine(x.double())
    torch.testing.assert_close(fine.inverse(z)[0], x.double(), atol=1e-10, rtol=0)


def test_radial_at_its_centre():
    layer = Radial(2)
    x = layer.numbers[:2].detach()[None].requires_grad_()
    z, log_det = layer(x)
    assert log_det.isfinite().all()
    assert torch.autograd.grad(z.sum() + log_det.sum(), x)[0].isfinite().all()
    torch.testing.assert_close(layer.inverse(z)[0], x)


def test_squeeze_keeps_blocks_together():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    z, _ = Squeeze()(x)
    assert z[0, :, 0, 0].tolist() == [0, 1, 4, 5]
    with pytest.raises(ValueError, match="even sides"):
        Squeeze()(torch.zeros(1, 1, 3, 4))


def test_levels_come_back_and_carry_their_mass():
    layer = Dequantize(17)
    x = torch.arange(17.0).repeat(50, 1) / 16
    z, log_det = layer(x)
    assert ((z >= 0) & (z <= 1)).all()
    assert torch.equal(layer.inverse(z)[0], x)
    torch.testing.assert_close(log_det, torch.full((50,), -17 * math.log(17)))
    # a uniform density over [0, 1] gives each of 17 levels 1 / 17: log2(17) bits per dimension
    assert (z * 17).floor().diff(dim=1).eq(1).all()
    with pytest.raises(ValueError, match="levels must be at least 2"):
        Dequantize(1)


def test_trace_estimates_are_right_on_average():
    torch.manual_seed(0)
    layer = Continuous(12, (24,), steps=4, exact=2)
    for weight in layer.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    x = drawn(1, 12).expand(4000, -1)
    estimates = layer.train()(x)[1].detach()
    exact = layer.eval()(x[:1])[1].detach()
    error = estimates.std() / 4000**0.5
    assert estimates.std() > 0
    assert (estimates.mean() - exact[0]).abs() < 4 * error


def test_a_linear_velocity_is_an_exponential():
    """dx/dt = a x takes x to e^a x with log-determinant D a, up to the error of the steps."""
    layer = Continuous(2, (4,), steps=16).double()

    class Linear(nn.Module):
        def forward(self, x, t, ways, context):
            return 0.7 * x, 0.7 * ways

    layer.velocity = Linear()
    x = drawn(3, 2).double()
    z, log_det = layer(x)
    torch.testing.assert_close(z, x * math.exp(0.7), atol=1e-6, rtol=0)
    torch.testing.assert_close(log_det, torch.full((3,), 1.4).double())


def test_more_steps_cut_the_error_by_the_fourth_power():
    torch.manual_seed(1)
    layer = Continuous(2, (16,), steps=4).double()
    for weight in layer.parameters():
        weight.data += 0.5 * torch.randn_like(weight)
    x, errors = drawn(50, 2).double(), []
    for steps in (8, 16):
        layer.steps = steps
        errors.append((layer.inverse(layer(x)[0])[0] - x).abs().max().item())
    assert errors[1] < errors[0] / 8


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Coupling(0), "Coupling: features must be at least 1, got 0"),
        (lambda: Coupling(3, "cubic"), "kind must be 'affine' or 'spline'"),
        (lambda: Coupling(3, bins=1), "bins must be at least 2, got 1"),
        (lambda: Coupling(3, bound=-1.0), "bound must be above 0, got -1.0"),
        (lambda: Autoregressive(3, hidden=()), "hidden must be widths of at least 1"),
        (lambda: MADE(3, 0), "size must be above 0, got 0"),
        (lambda: Planar(2, context=-1), "context must be 0 or"),
        (lambda: ImageCoupling(1), "channels must be at least 2, got 1"),
        (lambda: Permutation(0), "features must be at least 1"),
        (lambda: LUMixing(2, most=0.0), "most must be above 0"),
        (lambda: Logit(0.5), r"margin must lie in \[0, 1/2\)"),
        (lambda: Continuous(2, (0,)), "hidden must be widths"),
        (lambda: Continuous(2, steps=0), "steps must be above 0"),
    ],
)
def test_bad_sizes(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_parts_that_cannot_be_turned_round():
    with pytest.raises(TypeError, match="every part needs an inverse, got Linear"):
        Composition([nn.Linear(2, 2)])  # pyright: ignore


def test_softplus_far_from_zero():
    x = torch.tensor([[1e-6, 1.0, 80.0]]).double()
    z, log_det = Softplus()(x)
    assert log_det.isfinite().all()
    torch.testing.assert_close(Softplus().inverse(z)[0], x)
