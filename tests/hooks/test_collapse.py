"""Collapse: provoked ones are named, healthy runs are left in peace, training is not touched."""

from __future__ import annotations

import json

import pytest
import torch
from tests.objectives.test_adversarial import ring
from torch import nn

import deepweave as dw
from deepweave.functional import adversarial as losses
from deepweave.functional.observation import Gaussian
from deepweave.hooks.collapse import MARK, Collapse

SIZES = ((2,), 1)
REAL = ring(400, 2)[0]


def train(loss, steps, *, seed=0, real=REAL, r=0.0, hooks=(), generator=None, out=False, **rates):
    dw.chance.seed_all(seed)
    made = dw.nn.decoder(SIZES, 8, (64, 64)) if generator is None else generator
    gan = dw.GAN(made, dw.nn.discriminator(SIZES, (64, 64)), loss, latent=8, r1=r, r2=r)
    x = ring(2000, 1)[0]
    split = dw.data.Split(x, torch.zeros(len(x), dtype=torch.long))
    options = {"every": 100} | rates.pop("collapse", {})
    hook = Collapse(real, **options)
    step = dw.Alternate(gan, **rates)
    run = dw.fit(step, split, batch=128, steps=steps, seed=seed, hooks=[hook, *hooks], out=out)
    return run, hook


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_provoked_collapse_is_named(seed, tmp_path):
    run, _ = train(
        losses.nonsaturating, 500, seed=seed, lr=2e-2, critic_lr=1e-3, betas=(0.9, 0.999),
        out=tmp_path / "run",
    )  # fmt: skip
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["collapse"]["found"]
    assert info["collapse"]["end"]["coverage"] < 0.25
    assert info["advice"][0].startswith(MARK)
    assert "R1 and R2" in info["advice"][0]
    steps = [line["step"] for line in run.history if "samples/coverage" in line]
    assert steps == [100, 200, 300, 400, 500]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_healthy_run_is_not(seed):
    run, _ = train(losses.relativistic, 600, seed=seed, lr=1e-3, r=0.1)
    assert run.info["collapse"]["found"] is False
    assert "advice" not in run.info
    assert run.info["collapse"]["end"]["coverage"] > 0.3


class Deaf(nn.Module):
    """Says the same whatever z is: a point of the data."""

    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, z):
        return self.point + 0.001 * z[:, :2]


def test_a_generator_that_ignores_its_input():
    run, _ = train(losses.least_squares, 100, generator=Deaf(), lr=1e-6)
    end = run.info["collapse"]["end"]
    assert run.info["collapse"]["found"]
    assert end["variety"] < 0.01
    assert run.info["advice"][0].startswith(MARK)


class Wide(Deaf):
    """Noise all over the plane, far from the data."""

    def forward(self, z):
        return 50 * self.point[0] * z[:, :2]


def test_samples_that_are_no_good_are_no_collapse():
    run, _ = train(losses.least_squares, 100, generator=Wide(), lr=1e-6)
    assert run.info["collapse"]["found"] is False
    assert run.info["advice"][0].startswith("Samples lie away from the data")


class Grey(Deaf):
    """What a generator makes before it learns: all alike, and nothing that is near the data."""

    def forward(self, z):
        return 0 * self.point + 0.01 * z[:, :2]


class Shrinks(Grey):
    """At first all over the plane; alike, and away from the data, from the 5th step on."""

    calls = 0

    def forward(self, z):
        self.calls += torch.is_grad_enabled()
        return (2.0 if self.calls < 5 else 0.01) * z[:, :2] + 0 * self.point


def test_a_generator_that_has_not_learned_yet_has_not_collapsed():
    run, _ = train(losses.least_squares, 10, generator=Grey(), collapse={"every": 2})
    assert run.info["collapse"]["found"] is False
    assert run.info["collapse"]["end"]["variety"] < 0.01
    assert run.info["advice"][0].startswith("Samples lie away from the data")
    run, _ = train(losses.least_squares, 10, generator=Shrinks(), collapse={"every": 2})
    assert run.info["collapse"]["found"]
    assert run.info["advice"][0].startswith(MARK)


class Script(Collapse):
    """Coverages as given, one after another."""

    def __init__(self, *coverages, **options):
        super().__init__(torch.randn(100, 2), every=1, **options)
        self.coverages = list(coverages)

    def measure(self, loop):
        value = self.coverages.pop(0) if len(self.coverages) > 1 else self.coverages[0]
        score = dw.metrics.uncertainty.wilson(round(500 * value), 500)
        return {"coverage": score, "precision": score, "variety": 1.0}


def scripted(*coverages, steps=None, **options):
    hook = Script(*coverages, **options)
    gan = dw.GAN(dw.nn.decoder(SIZES, 2, (4,)), dw.nn.discriminator(SIZES, (4,)))
    return dw.fit(dw.Alternate(gan), [ring(8)[0]], steps=steps or len(coverages), hooks=[hook])


def test_a_fall_to_less_than_half_of_the_best_is_a_collapse():
    run = scripted(0.5, 0.8, 0.3, 0.2, 0.2)
    first = run.info["collapse"]["first"]
    assert (first["step"], first["best"], first["best_step"]) == (4, 0.8, 2)
    assert "cover 20 % of the held-out data at the end, 80 % at step 2" in run.info["advice"][0]
    assert run.stopped == "finished"


def test_one_low_measurement_is_none_and_neither_is_one_that_chance_explains():
    assert not scripted(0.8, 0.3, 0.7, 0.3, 0.7).info["collapse"]["found"]
    assert not scripted(0.8, 0.38, 0.38, 0.38).info["collapse"]["found"], "0.42 is within Wilson's"
    assert not scripted(0.2, 0.05, 0.05, 0.6).info["collapse"]["found"], "it never had been good"


def test_a_collapse_that_is_recovered_from_is_told():
    said = scripted(0.8, 0.1, 0.1, 0.7).info["advice"][0]
    assert said.startswith(MARK)
    assert "it recovered to 70 %" in said


def test_it_stops_when_asked():
    run = scripted(0.8, 0.1, 0.1, 0.1, steps=50, stop=True)
    assert run.stopped == "mode collapse"
    assert run.info["steps"] == 3


def test_training_goes_as_without():
    run, _ = train(losses.relativistic, 60, lr=1e-3, collapse={"every": 10})
    other, _ = train(losses.relativistic, 60, lr=1e-3, collapse={"every": 1000})
    for a, b in zip(run.step.weights().values(), other.step.weights().values()):
        assert torch.equal(a, b)


def test_an_average_is_what_is_measured():
    average = dw.hooks.Average(0.99)
    run, _ = train(losses.relativistic, 100, lr=1e-2, hooks=[average], collapse={"every": 50})
    ending = run.info["collapse"]["end"]["coverage"]
    with dw.chance.aside(dw.run.derive(0, "collapse", 100)):
        made = run.objective.sample(len(REAL))
    assert ending == float(dw.metrics.generative.manifold(made, REAL).coverage)


class Kill(dw.Hook):
    def __init__(self, at):
        self.at = at

    def after_step(self, loop, logs):
        if loop.count == self.at:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_the_same(tmp_path):
    def go(out, kill=0):
        return train(
            losses.relativistic, 60, lr=1e-3, collapse={"every": 20}, out=out,
            hooks=[dw.hooks.Checkpoint(seconds=0), Kill(kill)],
        )  # fmt: skip

    whole, one = go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "cut", 50)
    again, other = go(dw.Run(tmp_path / "cut", resume=True))
    assert again.info["collapse"] == whole.info["collapse"]
    assert one.state() == other.state()


def test_classes_are_told_to_a_generator_that_wants_them():
    x, y = ring(200, 3)
    gan = dw.GAN(
        dw.nn.decoder(SIZES, 2, (8,), classes=8), dw.nn.discriminator(SIZES, (8,), classes=8),
        classes=8,
    )  # fmt: skip
    for real in ((x, y), dw.data.Split(x, y)):
        run = dw.fit(dw.Alternate(gan), [(x, y)], steps=2, hooks=[Collapse(real, every=1)])
        assert "samples/coverage" in run.history[-1]


def test_classes_that_are_missing_are_told_before_training():
    x, y = ring(40, 3)
    gan = dw.GAN(
        dw.nn.decoder(SIZES, 2, (8,), classes=8), dw.nn.discriminator(SIZES, (8,), classes=8),
        classes=8,
    )  # fmt: skip
    step = dw.Alternate(gan)
    with pytest.raises(ValueError, match=r"Collapse: GAN is told classes: real must be \(x, y\)"):
        dw.fit(step, [(x, y)], steps=2, hooks=[Collapse(x, every=100)])
    assert step.count == 0
    with pytest.raises(ValueError, match="real has 40 inputs and 39 classes"):
        Collapse((x, y[1:]))


def test_classes_of_the_data_are_left_out_where_none_are_told():
    """Labelled data, a generator without classes: measured, and judged in the same words."""
    x, y = ring(400, 3)
    split = dw.data.Split(x, y)
    gan = dw.GAN(Deaf(), dw.nn.discriminator(SIZES, (8,)), latent=2)
    hook = Collapse(split, every=5)
    run = dw.fit(dw.Alternate(gan, lr=1e-6), split, batch=64, steps=10, hooks=[hook], out=False)
    assert run.info["collapse"]["found"]
    assert run.info["advice"][0].startswith(f"{MARK}samples cover ")
    assert "of the held-out data at the end" in run.info["advice"][0]


def test_a_vae_has_samples_too():
    vae = dw.VAE(dw.nn.gaussian_encoder(SIZES, 2, (8,)), dw.nn.decoder(SIZES, 2, (8,), numbers=2),
                 Gaussian())  # fmt: skip
    run = dw.fit(dw.Penalize(vae, l2=1e-4), [ring(64)[0]], steps=2, hooks=[Collapse(REAL, every=1)])
    assert "collapse" in run.info


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((torch.zeros(5, dtype=torch.long),), "must be a tensor of floats"),
        ((torch.zeros(4, 2),), r"neighbours must lie in 1\.\.3, got 5"),
        ((torch.zeros(9, 2), {"fall": 1.0}), "fall in"),
        ((torch.zeros(9, 2), {"every": 0}), "every must be at least 1"),
    ],
)
def test_refusals(arguments, match):
    real, options = (*arguments, {})[:2]
    with pytest.raises(ValueError, match=match):
        Collapse(real, **options)


def test_refuses_what_cannot_sample():
    net = dw.Regress(nn.Linear(2, 1))
    with pytest.raises(TypeError, match="must have sample"):
        dw.fit(net, [(REAL, REAL[:, 0])], steps=1, hooks=[Collapse(REAL)])
    gan = dw.GAN(dw.nn.decoder(SIZES, 2, (4,)), dw.nn.discriminator(SIZES, (4,)))
    with pytest.raises(TypeError, match="got a Population"):
        dw.fit(dw.Population(gan, 2, shared=True), [REAL], steps=1, hooks=[Collapse(REAL)])
