"""Maximum likelihood and reverse KL: closed forms, contexts, diagnostics, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

import deepweave as dw
from deepweave.nn import affine_flow, autoregressive_flow, spline_flow
from deepweave.objectives.posterior import efficiency


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Bell(nn.Module):
    context = 3

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(3, 2))

    def log_prob(self, x, context=None):
        mean = 0.0 if context is None else context @ self.mean
        return Normal(mean, 1.0).log_prob(x).sum(1)


def test_the_loss_is_the_mean_of_nats():
    x = drawn(5, 2)
    wanted = -Normal(0.0, 1.0).log_prob(x).sum(1)
    torch.testing.assert_close(dw.Likelihood(Bell())(x)[0], wanted.mean())
    torch.testing.assert_close(dw.Likelihood(Bell())((x, torch.zeros(5)))[0], wanted.mean())
    weight = torch.tensor([1.0, 0, 2, 0, 1])
    found = dw.Likelihood(Bell())((x, torch.zeros(5), weight))[0]
    torch.testing.assert_close(found, (wanted * weight).sum() / 4)
    torch.testing.assert_close(dw.Likelihood(Bell()).predict(x), -wanted)


def test_targets_as_context():
    objective = dw.Likelihood(Bell(), context="target")
    x, y = drawn(6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        objective.model.mean.copy_(torch.tensor([[0.0, 0], [1, 1], [5, 5]]))
    wanted = -Normal(objective.model.mean[y], 1.0).log_prob(x).sum(1).mean()
    torch.testing.assert_close(objective((x, y))[0], wanted)
    numbers = nn.functional.one_hot(y).double()
    torch.testing.assert_close(objective((x, numbers))[0], wanted)


def test_a_conditional_flow_learns_each_class():
    torch.manual_seed(0)
    y = torch.arange(600) % 2
    x = drawn(600, 2) * (0.2 + y[:, None]) + 3 * y[:, None]
    flow = spline_flow(2, 2, (16,), context=2)
    objective = dw.Likelihood(flow, context="target")
    dw.fit(dw.Descent(objective, "Adam", lr=1e-2), [(x, y)], steps=250)
    flow.eval()
    for label, (mean, scale) in enumerate(((0.0, 0.2), (3.0, 1.2))):
        made = flow.sample(2000, torch.eye(2)[label])
        assert made.mean().item() == pytest.approx(mean, abs=0.2)
        assert made.std().item() == pytest.approx(scale, rel=0.25)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dw.Likelihood(spline_flow(2), context="labels"), "None or 'target'"),
        (lambda: dw.Likelihood(spline_flow(2)).check(torch.zeros(3, 3)), r"x must be \(B, 2\)"),
        (
            lambda: dw.Likelihood(spline_flow(2)).check(torch.tensor([[0.0, math.nan]])),
            "1 of the inputs are not finite",
        ),
        (lambda: dw.Likelihood(spline_flow(2)).check(torch.zeros(3, 2).long()), "tensor of floats"),
        (lambda: dw.Likelihood(spline_flow(2)).check([1, 2, 3, 4]), "must be x, .* got 4 parts"),
        (
            lambda: dw.Likelihood(spline_flow(2, levels=4)).check(torch.full((2, 2), 3.0)),
            r"data of 4 levels must lie in \[0, 1\], got 3..3",
        ),
        (
            lambda: dw.Likelihood(spline_flow(2, context=3), context="target").check(
                torch.zeros(4, 2)
            ),
            r"must be \(x, y\) with 4 targets, got none",
        ),
        (
            lambda: dw.Likelihood(spline_flow(2, context=3)).check(torch.zeros(4, 2)),
            r"a context \(B, 3\) is needed",
        ),
        (
            lambda: dw.Likelihood(spline_flow(2)).check(
                (torch.zeros(4, 2), torch.zeros(4), -torch.ones(4))
            ),
            "weight must be",
        ),
        (lambda: dw.Likelihood(Odd("shape")).check(torch.zeros(4, 2)), r"one number per sample"),
        (lambda: dw.Likelihood(Odd("inf")).check(torch.zeros(4, 2)), "4 of 4 samples is not"),
        (lambda: dw.ReverseKL(affine_flow(2), bell, samples=0), "samples must be at least 1"),
        (lambda: dw.ReverseKL(affine_flow(2), lambda x: x).check(None), "one number per sample"),
        (
            lambda: dw.ReverseKL(affine_flow(2), lambda x: bell(x) / 0).check(None),
            "256 of 256 samples is not finite",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Odd(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.fault = fault

    def log_prob(self, x, context=None):
        return x if self.fault == "shape" else x.sum(1) + math.inf


def test_what_is_no_density():
    with pytest.raises(TypeError, match="model must have log_prob"):
        dw.Likelihood(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"model must have draw\(n\) and push\(noise\), got Bell"):
        dw.ReverseKL(Bell(), bell)
    with pytest.raises(TypeError, match="log_density must be a function"):
        dw.ReverseKL(affine_flow(2), 3)  # pyright: ignore


def test_fit_refuses_a_first_batch():
    with pytest.raises(ValueError, match="1 of the inputs are not finite"):
        dw.fit(dw.Likelihood(spline_flow(2)), [torch.tensor([[math.inf, 0.0]])], steps=1)


def bell(x):
    return Normal(0.0, 1.0).log_prob(x).sum(1)


COVARIANCE = torch.tensor([[1.0, 0.8], [0.8, 2.0]])


def leaning(x):
    """A Gaussian times 7: its evidence is log 7."""
    return MultivariateNormal(torch.tensor([1.0, -2.0]), COVARIANCE).log_prob(x) + math.log(7)


def test_reverse_kl_finds_a_gaussian_and_its_evidence():
    torch.manual_seed(0)
    flow = autoregressive_flow(2, 2, (16,), kind="affine", inverse=True)
    objective = dw.ReverseKL(flow, leaning, samples=128)
    run = dw.fit(dw.Descent(objective, "Adam", lr=1e-2), [torch.zeros(1)], steps=400)
    objective.eval()
    with torch.no_grad():
        loss, logs = objective(torch.zeros(1))
    assert float(loss) == pytest.approx(-math.log(7), abs=0.02)
    assert float(logs["efficiency"]) > 0.95
    found = objective.importance(4000)
    assert found.low <= math.log(7) <= found.high
    assert found.high - found.low < 0.05
    assert found.efficiency > 0.95
    made = flow.sample(4000)
    torch.testing.assert_close(made.mean(0), torch.tensor([1.0, -2.0]), atol=0.15, rtol=0)
    torch.testing.assert_close(torch.cov(made.T), COVARIANCE, atol=0.25, rtol=0)
    assert run.stopped == "finished"


def test_a_posterior_for_each_context():
    """x | c is N(2c, 1): one flow learns it for every c."""
    torch.manual_seed(0)
    flow = affine_flow(1, 2, (16,), context=1)

    def target(x, context):
        return Normal(2 * context, 1.0).log_prob(x).sum(1)

    objective = dw.ReverseKL(flow, target)
    batches = [drawn(128, 1, seed=i) for i in range(20)]
    dw.fit(dw.Descent(objective, "Adam", lr=1e-2), batches, steps=300)
    made = flow.eval().sample(3000, torch.tensor([0.7]))
    assert made.mean().item() == pytest.approx(1.4, abs=0.15)
    assert objective.importance(1000, torch.tensor([0.7])).efficiency > 0.8


def test_efficiency():
    assert float(efficiency(torch.zeros(10))) == pytest.approx(1)
    assert float(efficiency(torch.tensor([500.0, 0, 0, 0]))) == pytest.approx(0.25)


def test_weights_tell_a_bad_fit():
    flow = affine_flow(2, 1)
    poor = dw.ReverseKL(flow, lambda x: bell((x - 4) * 3)).importance(2000)
    assert poor.efficiency < 0.05
    assert poor.largest > 0.05


def test_evaluation_draws_the_same():
    objective = dw.ReverseKL(affine_flow(2, 1), bell, samples=16)
    objective.eval()
    assert torch.equal(objective(None)[0], objective(None)[0])
    objective.train()
    assert not torch.equal(objective(None)[0], objective(None)[0])


def test_a_run_is_scored_beside_each_value_by_itself(tmp_path):
    data = dw.data.load("digits", limit=300)
    torch.manual_seed(0)
    net = dw.nn.spline_flow(data.spec, 1, (16,), levels=17)
    run = dw.fit(dw.Likelihood(net), data, epochs=2, batch=64, lr=3e-3, out=tmp_path / "run")
    scores = run.test()
    assert set(scores) == {"test/nll", "test/bits_per_dim"}
    base = run.info["baseline"]
    assert base["test/bits_per_dim"]["value"] == pytest.approx(
        base["test/nll"]["value"] / (64 * math.log(2))
    )
    # a Gaussian over levels and noise: its entropy on average, here by hand
    x = data.train.x * 16
    wanted = (0.5 * (x.var(0) + 1 / 12).log() + 0.5 * math.log(2 * math.pi * math.e)).sum()
    assert base["test/nll"]["value"] == pytest.approx(float(wanted), rel=0.15)
    assert "Nats per sample" in run.report().read_text()
