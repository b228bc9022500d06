"""Flows: densities that are densities, samples of them, makers, contexts, bad input."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from scipy.stats import kstest
from tests.contracts.tables import DENSITIES, density
from torch import nn

import deepweave as dw
from deepweave.nn import (
    ActNorm,
    Autoregressive,
    Composition,
    Dequantize,
    Flow,
    Logit,
    StandardNormal,
    affine_flow,
    autoregressive_flow,
    continuous_flow,
    glow,
    planar_flow,
    radial_flow,
    spline_flow,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stirred(flow, by=0.08):
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in flow.parameters():
            weight += by * torch.randn(weight.shape, generator=random)
    return flow.eval()


def small(make, features):
    if make in (planar_flow, radial_flow):
        return make(features, 3)
    return make(features, 2, (8,))


@pytest.mark.parametrize("make", [spline_flow, affine_flow, autoregressive_flow, planar_flow,
                                  radial_flow, continuous_flow])  # fmt: skip
def test_densities_integrate_to_one(make):
    torch.manual_seed(0)
    flow = stirred(small(make, 2))
    side = torch.linspace(-10, 10, 251)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        total = flow(grid).double().exp().sum() * 0.08**2
    assert abs(total - 1) < 5e-3


@pytest.mark.parametrize("make", [spline_flow, affine_flow, autoregressive_flow, planar_flow,
                                  radial_flow, continuous_flow])  # fmt: skip
def test_samples_follow_the_density(make):
    """One feature: the distribution function of the samples is the integral of the density."""
    torch.manual_seed(0)
    flow = stirred(small(make, 1))
    x, log_prob = flow.sample_and_log_prob(2000)
    torch.testing.assert_close(flow(x.detach()).detach(), log_prob.detach(), atol=2e-3, rtol=1e-3)
    side = torch.linspace(-15, 15, 15001)[:, None]
    with torch.no_grad():
        whole = flow(side).double().exp().cumsum(0) * 2e-3

    def below(at):
        place = ((torch.as_tensor(at) + 15) * 500).long().clamp(0, 15000)
        return whole[place].numpy()

    assert kstest(x.detach().double()[:, 0].numpy(), below).pvalue > 1e-3


def test_a_linear_flow_is_the_gaussian_of_its_factors():
    flow = Flow(Composition([ActNorm(3), dw.nn.LUMixing(3)]), (3,))
    flow = stirred(flow.double(), 0.5)
    zero = torch.zeros(1, 3).double()
    weight = torch.func.jacrev(lambda x: flow.bijection(x[None])[0][0])(zero[0])
    back = torch.linalg.inv(weight)
    centre = flow.decode(zero)[0][0]
    wanted = torch.distributions.MultivariateNormal(centre, back @ back.T)
    x = drawn(7, 3).double()
    torch.testing.assert_close(flow(x), wanted.log_prob(x))


def test_the_standard_normal():
    z = drawn(5, 2, 3)
    wanted = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2))
    torch.testing.assert_close(StandardNormal().log_prob(z), wanted)


def test_one_pass_or_two_say_the_same():
    flow = stirred(autoregressive_flow(4, 2, (8,), context=2))
    context = drawn(6, 2)
    x, log_prob = flow.sample_and_log_prob(6, context)
    torch.testing.assert_close(flow(x, context), log_prob, atol=2e-5, rtol=1e-5)
    assert x.requires_grad
    assert not flow.sample(6, context).requires_grad


def test_a_context_changes_the_density():
    flow = stirred(spline_flow(2, 2, context=3))
    x = drawn(4, 2)
    a, b = flow(x, torch.zeros(4, 3)), flow(x, torch.ones(4, 3))
    assert (a - b).abs().min() > 1e-4
    assert flow.sample(5, torch.ones(3)).shape == (5, 2)


def test_inversion_error_reads_what_is_lost():
    flow = stirred(spline_flow(3, 2, (8,)))
    error = flow.inversion_error(drawn(50, 3))
    assert 0 <= error.median <= error.largest < 1e-5
    assert error.log_det < 1e-4
    assert error.finite == 1.0
    rough = stirred(continuous_flow(3, 1, (8,), steps=1), 0.5).inversion_error(drawn(50, 3))
    assert rough.largest > 10 * error.largest, "few steps of a solver are told"
    bad = drawn(4, 3)
    bad[0] = torch.nan
    assert flow.inversion_error(bad).finite == 0.75
    assert flow.inversion_error(bad[:1]).largest == math.inf
    flow.train()
    flow.inversion_error(drawn(5, 3))
    assert flow.training


def test_bits_of_levels():
    """Data uniform over 4 levels cost log2(4) = 2 bits a dimension, whatever the noise."""
    flow = Flow(Composition([Dequantize(4), Logit(0.0)]), (3,), base=Logistic(), levels=4)
    x = torch.randint(0, 4, (64, 3)) / 3
    loss, logs = dw.Likelihood(flow)(x)
    assert float(logs["bits_per_dim"]) == pytest.approx(2.0, abs=1e-4)
    assert float(loss) == pytest.approx(3 * math.log(4), abs=1e-3)
    assert set(flow.sample(200).mul(3).round(decimals=4).unique().tolist()) == {0.0, 1.0, 2.0, 3.0}


class Logistic(nn.Module):
    """The base that a logit makes of uniform numbers."""

    def log_prob(self, z):
        return (nn.functional.logsigmoid(z) + nn.functional.logsigmoid(-z)).flatten(1).sum(1)

    def draw(self, like):
        return torch.logit(torch.rand_like(like))


@given(st.integers(1, 9), st.sampled_from(["spline", "affine"]), st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_any_size_turns_round(features, kind, context):
    torch.manual_seed(features)
    make = spline_flow if kind == "spline" else affine_flow
    for flow in (make(features, 2, (9,), context=context),
                 autoregressive_flow(features, 2, (9,), kind=kind, context=context)):  # fmt: skip
        flow = stirred(flow.double(), 0.1)
        told = drawn(8, context).double() if context else None
        x = 2 * drawn(8, features).double()
        z, there = flow.encode(x, told)
        again, back = flow.decode(z, told)
        torch.testing.assert_close(again, x, atol=1e-8, rtol=0)
        torch.testing.assert_close(there, -back, atol=1e-7, rtol=0)


def test_a_large_batch_and_a_single_sample():
    flow = spline_flow(2, 2, (8,))
    assert flow(drawn(100_000, 2)).isfinite().all()
    flow.train()
    assert flow(drawn(1, 2)).isfinite().all()


def test_a_constant_column_stays_finite_in_training():
    x = drawn(256, 3)
    x[:, 1] = 4.0
    flow = spline_flow(3, 2, (16,))
    run = dw.fit(dw.Descent(dw.Likelihood(flow), "Adam", lr=5e-3), [x], steps=150)
    losses = [flow(x).mean()]
    assert all(one.isfinite() for one in losses)
    assert run.stopped == "finished"


def test_an_inverse_flow_samples_in_one_pass():
    flow = autoregressive_flow(6, 2, (16,), kind="affine", inverse=True)
    count = []
    for layer in flow.modules():
        if isinstance(layer, dw.nn.MADE):
            layer.register_forward_hook(lambda *_: count.append(1))
    flow.sample(3)
    assert len(count) == 2


def test_a_spec_and_its_note_make_the_same_flow():
    data = dw.data.load("digits")
    for flow in (spline_flow(data.spec, 1, (8,), levels=17), glow(data.spec, 1, 1, width=8)):
        note = dw.blueprint.describe(flow)
        again = dw.blueprint.build(note)
        again.load_state_dict(flow.state_dict())
        assert flow.sample(2).shape == again.sample(2).shape == (2, 1, 8, 8)


def test_a_flow_comes_back_from_a_folder(tmp_path, capsys):
    data = dw.data.load("iris")
    flow = spline_flow(data.spec, 2, (8,))
    dw.fit(dw.Likelihood(flow), data, epochs=2, out=tmp_path / "run")
    back = dw.load(tmp_path / "run")
    x = data.test.x
    torch.testing.assert_close(back(x), flow.eval()(x))


def test_flows_of_other_libraries_and_torch_are_densities_too():
    class Bell(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Parameter(torch.zeros(2))

        def log_prob(self, x):
            return torch.distributions.Normal(self.mean, 1.0).log_prob(x).sum(1)

    model = Bell()
    dw.fit(dw.Descent(dw.Likelihood(model), "Adam", lr=0.1), [drawn(500, 2) + 3], steps=200)
    torch.testing.assert_close(model.mean.detach(), torch.full((2,), 3.0), atol=0.1, rtol=0)


@pytest.mark.parametrize("name", DENSITIES)
def test_training_lowers_the_loss_of_new_data(name):
    torch.manual_seed(0)
    objective, batch = density(name, 256)
    objective.eval()
    with torch.no_grad():
        first = float(objective(batch)[0])
    dw.fit(dw.Descent(objective, "Adam", lr=5e-3), [batch], steps=40)
    objective.eval()
    with torch.no_grad():
        assert float(objective(density(name, 256, seed=7)[1])[0]) < first


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spline_flow(0), "spline_flow: features must be at least 1"),
        (lambda: spline_flow(3, 0), "spline_flow: layers must be at least 1, got 0"),
        (lambda: spline_flow(3, mix="qr"), "mix must be 'lu', 'reverse', 'permute' or 'none'"),
        (lambda: spline_flow(3, context=-2), "context must be 0 or a number"),
        (lambda: glow(64), r"glow: needs images \(C, H, W\), got \(64,\)"),
        (lambda: glow((1, 6, 8)), r"sides must be divided by 2\^scales = 4, got 6 x 8"),
        (lambda: glow((1, 8, 8), 0), "at least 1, got 0, 4, 64"),
        (lambda: autoregressive_flow(2, inverse=True, levels=3), "cannot be dequantised"),
        (lambda: spline_flow(3).sample(0), "n must be at least 1, got 0"),
        (lambda: spline_flow(3)(torch.zeros(2, 4)), r"x must be \(B, 3\), got \(2, 4\)"),
        (lambda: spline_flow(3)(torch.zeros(3)), r"x must be \(B, 3\), got \(3,\)"),
        (lambda: spline_flow(3).decode(torch.zeros(2, 4)), r"z must be \(B, 3\), got \(2, 4\)"),
        (lambda: spline_flow(3, context=2)(torch.zeros(2, 3)), r"context \(B, 2\) is needed"),
        (lambda: spline_flow(3)(torch.zeros(2, 3), torch.zeros(2, 1)), "takes no context"),
        (
            lambda: spline_flow(3, context=2)(torch.zeros(2, 3), torch.zeros(2, 1)),
            r"context must be \(2, 2\), got \(2, 1\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_size_or_no_bijection():
    with pytest.raises(TypeError, match=r"Flow: x must be floating-point numbers, got torch.int64"):
        dw.nn.affine_flow(3).log_prob(torch.ones(4, 3).long())
    with pytest.raises(TypeError, match="features must be a number, a shape or a data spec"):
        spline_flow("three")
    with pytest.raises(TypeError, match="bijection must have an inverse, got Linear"):
        Flow(nn.Linear(2, 2), (2,))  # pyright: ignore


def test_copies_share_nothing():
    flow = Flow(Autoregressive(3), (3,))
    other = copy.deepcopy(flow)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(next(other.parameters()), next(flow.parameters()))
