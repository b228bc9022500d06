"""One schedule: its times and levels, its targets, its weights."""

from __future__ import annotations

import math

import pytest
import torch

import deepweave as dw
from deepweave.functional import schedule as s_
from deepweave.functional.schedule import (
    KINDS,
    TARGETS,
    WEIGHTS,
    Schedule,
    coefficients,
    convert,
    importance,
)

T = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_times_and_levels(kind):
    one = Schedule(kind, lowest=0.01, highest=50.0)
    s = one.level(T)
    assert bool((s.diff() > 0).all())
    ends = one.level(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert torch.allclose(ends, torch.tensor([0.01, 50.0]).double(), rtol=1e-6)
    assert torch.allclose(one.time(s), T, atol=1e-9)
    assert torch.allclose(one.time_of(one.log_snr(T)), T, atol=1e-9)
    assert torch.allclose(one.log_snr(T), 2 * (one.alpha(T) / one.sigma(T)).log())
    point = s.clone().requires_grad_()
    (slope,) = torch.autograd.grad(one.time(point).sum(), point)
    assert torch.allclose(one.rate(s), slope, rtol=1e-9)
    grid = torch.logspace(-2, math.log10(50), 20_001, dtype=torch.float64)
    assert float(torch.trapezoid(one.rate(grid), grid)) == pytest.approx(1, abs=1e-5)


def test_what_each_kind_keeps():
    for kind in ("cosine", "linear"):
        one = Schedule(kind)
        assert torch.allclose(one.alpha(T) ** 2 + one.sigma(T) ** 2, torch.ones(25).double())
    straight = Schedule("straight")
    assert torch.allclose(straight.alpha(T) + straight.sigma(T), torch.ones(25).double())
    wide = Schedule("straight", lowest=1e-9, highest=1e9)
    assert torch.allclose(wide.sigma(T), T, atol=1e-6)  # x_t = (1 - t) x + t e
    wide = Schedule("cosine", lowest=1e-9, highest=1e9)
    assert torch.allclose(wide.sigma(T), (math.pi / 2 * T).sin(), atol=1e-6)
    wide = Schedule("linear", lowest=1e-9, highest=150.0)
    place = wide._place(wide.level(T))  # alpha^2 = exp(-integral of beta)
    beta = 0.1 * place + 19.9 * place**2 / 2
    assert torch.allclose(wide.alpha(T) ** 2, torch.exp(-beta), atol=1e-9)
    for kind in ("lognormal", "loguniform"):
        assert torch.equal(Schedule(kind).alpha(T), torch.ones(25).double())


@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_drawn_as_the_density_says(kind):
    torch.manual_seed(0)
    one = Schedule(kind)
    drawn = one.draw(1000, torch.zeros(1))
    assert bool(((drawn >= one.lowest) & (drawn <= one.highest)).all())
    place = one.time(drawn.double()).sort().values
    even = (torch.arange(1000) + 0.5) / 1000
    assert float((place - even).abs().max()) < 2e-3  # one in each part
    many = torch.vmap(lambda _: one.draw(4, torch.zeros(1)), randomness="different")(torch.zeros(3))
    assert len(many.flatten().unique()) == 12


def test_levels_of_a_sampler():
    one = Schedule(lowest=0.01, highest=10.0)
    for spacing in s_.SPACINGS:
        found = one.levels(8, spacing)
        assert found.shape == (9,)
        assert found.dtype == torch.float64
        assert float(found[0]) == pytest.approx(10.0)
        assert float(found[-1]) == 0
        assert bool((found.diff() < 0).all())
        assert torch.allclose(one.levels(1, spacing), torch.tensor([10.0, 0.0]).double())
    karras, log = one.levels(5), one.levels(5, "log")
    assert torch.allclose((karras[:-1] ** (1 / 7)).diff().std(), torch.zeros(()).double())
    assert torch.allclose(log[:-1].log().diff().std(), torch.zeros(()).double(), atol=1e-12)
    assert float(karras[-2]) == pytest.approx(0.01)


def test_targets_are_each_other():
    torch.manual_seed(0)
    x, e = torch.randn(2, 50, 3, dtype=torch.float64)
    s = torch.logspace(-2, 2, 50, dtype=torch.float64)
    w, d = s[:, None], 0.7
    y, alpha = x + w * e, 1 / (1 + w**2).sqrt()
    truth = {
        "noise": e,
        "data": x,
        "velocity": alpha * e - w * alpha * x,
        "flow": e - x,
        "balanced": (x - d**2 / (w**2 + d**2) * y) * (w**2 + d**2).sqrt() / (w * d),
    }
    assert set(truth) == set(TARGETS)
    for source in TARGETS:
        skip, out, inner = coefficients(source, w, d)
        assert torch.allclose(skip * y + out * truth[source], x, atol=1e-9)
        assert torch.allclose(inner, 1 / (w**2 + d**2).sqrt())
        for target in TARGETS:
            found = convert(truth[source], y, s, source, target, data=d)
            assert torch.allclose(found, truth[target], atol=1e-7), (source, target)
    many = torch.randn(2, 200_000, dtype=torch.float64)  # variance 1 at every level
    for level in (0.05, 0.7, 20.0):
        w = torch.tensor(level).double()
        skip, out, _ = coefficients("balanced", w, d)
        goal = (d * many[0] - skip * (d * many[0] + w * many[1])) / out
        assert float(goal.var()) == pytest.approx(1, abs=0.01)


def test_weights_are_of_the_data_whatever_the_target():
    s = torch.logspace(-2, 2, 9, dtype=torch.float64)
    one = Schedule("cosine", data=0.7)
    wanted = {  # of |x - x'|^2
        "edm": (s**2 + 0.49) / (s * 0.7) ** 2,
        "min-snr": (0.49 / s**2).clamp_max(5) / 0.49,
        "bound": 1 / (s**3 * one.rate(s)),
    }
    for target in TARGETS:
        out = coefficients(target, s, 0.7)[1]
        for weight, value in wanted.items():
            found = importance(weight, target, one, s)
            assert torch.allclose(found / out**2, value), (weight, target)
        assert torch.equal(importance("simple", target, one, s), torch.ones(9).double())
    assert torch.allclose(importance("edm", "balanced", one, s), torch.ones(9).double())
    assert {*wanted, "simple"} == set(WEIGHTS)


def test_the_forward_process_is_heat():
    """Smoothing the density of the data by heat for a time s^2 / 2 gives that of y."""
    width = 8.0
    grid = (torch.arange(512, dtype=torch.float64) + 0.5) / 512 * 2 * width - width

    def bumps(s):
        return sum(
            torch.distributions.Normal(torch.tensor(c).double(), math.hypot(0.3, s))
            .log_prob(grid).exp() / 2
            for c in (-1.0, 1.5)
        )  # fmt: skip

    step = 2 * width / 512
    spread = dw.heat(bumps(0.0), 0.8**2 / 2, axes=1, spacing=step)
    assert float((spread - bumps(0.8)).abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Schedule("sine"), "kind must be one of cosine, .* got 'sine'"),
        (lambda: Schedule(lowest=0.0), "0 < lowest < highest, got 0.0 and 80.0"),
        (lambda: Schedule(lowest=2.0, highest=1.0), "0 < lowest < highest"),
        (lambda: Schedule(highest=math.inf), "0 < lowest < highest"),
        (lambda: Schedule(data=math.nan), "data and width must be positive"),
        (lambda: Schedule(centre=40.0), "no share of levels between"),
        (lambda: Schedule(centre=math.nan), "no share of levels"),
        (lambda: Schedule().levels(0), "steps must be at least 1, got 0"),
        (lambda: Schedule().levels(3, "even"), "spacing must be one of karras, log, time"),
        (lambda: coefficients("x", torch.ones(1), 1.0), "target must be one of noise, data"),
        (lambda: importance("x", "data", Schedule(), torch.ones(1)), "weight must be one of"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_makers():
    for kind in KINDS:
        assert getattr(s_, kind)(data=2.0) == Schedule(kind, data=2.0)
