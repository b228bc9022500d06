"""Runs without labels: what a likelihood costs, what samples are like, and what a folder says."""

from __future__ import annotations

import json

import pytest
import torch

import deepweave as dw
from deepweave import judging
from deepweave.export import export
from deepweave.outcome import revive


@pytest.fixture(scope="module")
def digits():
    return dw.data.load("digits")


def gan(spec, **options):
    told = {"classes": 10} if options.get("classes") else {}
    return dw.GAN(
        dw.nn.decoder(spec, 4, (16,), output="sigmoid", **told),
        dw.nn.discriminator(spec, (16,), **told), **options,
    )  # fmt: skip


@pytest.mark.parametrize("classes", [0, 10])
def test_a_gan_is_scored_by_its_samples(digits, tmp_path, capsys, classes):
    out = tmp_path / "run"
    run = dw.fit(dw.Alternate(gan(digits.spec, classes=classes)), digits, steps=5, out=out)
    scores = run.test()
    run.report()
    info = json.loads((out / "run.json").read_text())
    names = {"coverage", "precision", "recall", "density", "mmd", "c2st", "frechet", "memorised"}
    assert {name.removeprefix("test/") for name in scores} == names
    assert info["main"] == "test/coverage"
    assert info["baseline_name"] == "each value by itself"
    assert info["rivals"]["other real samples"]["test/coverage"]["value"] > 0.8
    page = (out / "report.html").read_text()
    assert "Coverage" in page
    assert "onfusion" not in page
    again = dw.fit(dw.Alternate(gan(digits.spec, classes=classes)), digits, steps=5, out=False)
    assert again.test().keys() == scores.keys()


def test_the_baseline_draws_each_pixel_by_itself(digits):
    class Copies(dw.Objective):
        """Gives training samples: everything is covered, and all of it is a copy."""

        def forward(self, batch):
            return batch[0].sum(), {}

        def sample(self, count, y=None):
            return digits.train.x[:count]

    ours, plain, real = judging.samples(Copies(), digits)
    assert ours["memorised"] > 0.95
    assert ours["coverage"] > 0.9
    assert plain["c2st"] > 0.9
    assert plain["coverage"] < real["coverage"]


def test_a_wrapped_vae_is_judged_as_itself(digits):
    vae = dw.VAE(dw.nn.gaussian_encoder(digits.spec, 2, (8,)), dw.nn.decoder(digits.spec, 2, (8,)))
    objective = dw.Penalize(vae, l2=1e-4)
    run = dw.fit(objective, digits, steps=3, out=False)
    torch.manual_seed(0)
    assert set(run.test()) == {"test/nll", "test/bits_per_dim"}
    assert run.info["generative"] == "VAE"


def test_no_gan_stops_early_by_its_loss(digits):
    for objective in (gan(digits.spec), dw.Penalize(gan(digits.spec), l2=1e-4)):
        assert objective.comparable is False
        before = torch.cat([w.detach().flatten().clone() for w in objective.parameters()])
        run = dw.fit(dw.Descent(objective, lr=1e-2), digits, epochs=2, out=False)
        weights = torch.cat([w.detach().flatten() for w in objective.parameters()])
        assert "best" not in run.info
        assert not torch.equal(weights, before)
        validate = dw.hooks.standard([], digits, False, objective.comparable)
        hook = next(h for h in validate if isinstance(h, dw.hooks.Validate))
        assert (hook.patience, hook.restoring) == (None, False)
    vae = dw.VAE(dw.nn.gaussian_encoder(digits.spec, 2, (8,)), dw.nn.decoder(digits.spec, 2, (8,)))
    assert vae.comparable


@pytest.mark.parametrize("kind", ["GAN", "VAE"])
def test_what_a_folder_of_it_can_do(digits, tmp_path, kind):
    if kind == "GAN":
        objective, shape = gan(digits.spec), (2, 4)
    else:
        encoder = dw.nn.gaussian_encoder(digits.spec, 2, (8,))
        objective, shape = dw.VAE(encoder, dw.nn.decoder(digits.spec, 2, (8,))), (2, 1, 8, 8)
    dw.fit(objective, digits, steps=2, out=tmp_path / "run")
    assert dw.load(tmp_path / "run")(torch.rand(shape)).shape == (2, 1, 1, 8, 8)
    with pytest.raises(ValueError, match=f"trained without labels .{kind}.: it has no answers"):
        revive(tmp_path / "run")
    path, difference = export(tmp_path / "run", "torch", None)
    assert path.exists()
    assert difference < 1e-5


def test_a_model_that_draws_is_not_exported(digits, tmp_path):
    flow = dw.nn.affine_flow(digits.spec, 1, (8,), levels=17)
    data = dw.data.load("digits", limit=100)
    dw.fit(dw.Likelihood(flow), data, batch=32, epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match="export: the model draws random numbers"):
        export(tmp_path / "run", "torch", None)
    assert not list((tmp_path / "run").glob("*.pt2"))
