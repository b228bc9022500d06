"""The recipes of topics 17 and 20: what they must show."""

from __future__ import annotations

import pytest
import torch

from deepweave import recipes
from deepweave.recipes.gan import modes, ring

pytestmark = pytest.mark.long


@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "gaussian"])
def test_vae_with_other_likelihoods(likelihood, tmp_path, capsys):
    run = recipes.find("vae")(quick=True, likelihood=likelihood, out=tmp_path / "run")
    info = run.info
    bounds = info["bounds"]
    assert bounds["of 64 samples"]["value"] < bounds["ELBO"]["value"]
    assert info["scores"]["test/nll"]["value"] == pytest.approx(
        bounds["of 64 samples"]["value"], abs=0.5
    )
    assert ("test/bits_per_dim" in info["scores"]) == (likelihood != "gaussian")
    files = {figure["file"].removeprefix("figures/") for figure in info["figures"]}
    assert files == {
        f"{name}.svg" for name in
        ("samples", "again", "between", "moved", "unlikely", "told", "use", "plane", "rate")
    }  # fmt: skip


def test_vae_and_gan_refuse_tables(tmp_path, capsys):
    for name in ("vae", "gan"):
        with pytest.raises(ValueError, match=f"{name}: needs images of classes, iris is"):
            recipes.find(name)("iris", quick=True, out=tmp_path / name)


def test_vae_beats_the_frequencies_of_pixels(tmp_path, capsys):
    run = recipes.find("vae")(epochs=40, study_epochs=10, out=tmp_path / "run")
    info = run.info
    plain = info["rivals"]["frequencies of levels"]["test/nll"]
    assert info["scores"]["test/nll"]["high"] < plain["low"] - 10
    assert info["told"]["right"]["value"] > 0.9
    assert 5 <= info["latent"]["active"] <= 16
    rows = next(t for t in info["tables"] if t["title"] == "Weights of the divergence")["rows"]
    rates = [float(row[2]) for row in rows]
    assert rates == sorted(rates, reverse=True)


def test_gan_makes_every_class(tmp_path, capsys):
    run = recipes.find("gan")(steps=600, ring_steps=300, seeds=2, out=tmp_path / "run")
    info = run.info
    assert info["seen"]["made"]["classes"] == 10
    assert info["scores"]["test/coverage"]["value"] > 0.6
    assert info["baseline"]["test/coverage"]["value"] < 0.2
    assert not info["collapse"]["found"]
    assert any(line.startswith("provoked: Mode collapse") for line in info["ring"])
    rows = info["tables"][0]["rows"]
    told = float(rows[2][4].split(" ")[0])
    assert told > 70, "images of the class that was asked for"


def test_modes_are_counted():
    assert modes(ring(2000, 5))[0] == 8
    assert modes(ring(2000, 5))[1] > 0.97
    assert modes(torch.tensor([[1.0, 0.0]]).repeat(100, 1)) == (1, 1.0)
    assert modes(torch.zeros(100, 2)) == (0, 0.0)
