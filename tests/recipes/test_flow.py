"""The recipe of topic 18: its scores, baselines, pictures, other data, and what it must reach."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import deepweave as dw
from deepweave import recipes
from deepweave.recipes.flow import EFFECTS, ERRORS, exact, levels_of, points, schools


def test_the_moons_are_as_their_density_says():
    side = torch.linspace(-2.5, 3.5, 140)
    cell = float(side[1] - side[0])
    total = exact(torch.cartesian_prod(side, side)).exp().sum() * cell**2
    assert float(total) == pytest.approx(1, abs=1e-3)
    x = points(5_000, 0)
    assert -float(exact(x).mean()) == pytest.approx(1.018, abs=0.04)


def test_the_schools_by_hand():
    """The density at one point, school by school, and its prior."""
    mean, t = 3.0, 4.0
    wanted = -((mean / 5) ** 2) / 2 - math.log(5 * math.sqrt(2 * math.pi))
    wanted += math.log(2 / (math.pi * 5 * (1 + (t / 5) ** 2))) + math.log(t)
    for y, s in zip(EFFECTS, ERRORS):
        normal = torch.distributions.Normal(mean, math.sqrt(s * s + t * t))
        wanted += float(normal.log_prob(torch.tensor(y)))
    found = schools(torch.tensor([[mean, math.log(t)]], dtype=torch.float64))
    assert float(found) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.long
def test_it_scores_a_density(tmp_path, capsys):
    run = recipes.find("flow")(quick=True, out=tmp_path / "run")
    assert set(run.info["scores"]) == {"test/nll", "test/bits_per_dim"}
    score = run.info["scores"]["test/bits_per_dim"]
    assert score["low"] < score["value"] < score["high"] < math.log2(17)
    assert run.info["baseline_name"] == "a Gaussian"
    levels = "frequencies of levels"
    assert set(run.info["rivals"]) == {"a mixture of Gaussians", "kernels", levels}
    plain = run.info["rivals"][levels]["test/nll"]["value"]
    assert plain < run.info["baseline"]["test/nll"]["value"], "few levels are no Gaussian"
    files = [figure["file"] for figure in run.info["figures"]]
    assert files == [f"figures/{n}.svg" for n in ("samples", "moons", "posterior", "noise")]
    titles = [table["title"] for table in run.info["tables"]]
    assert titles == ["The posterior in numbers", "What is lost there and back"]
    model = dw.load(tmp_path / "run")
    assert model.sample(2).shape == (2, 1, 8, 8)


@pytest.mark.long
def test_a_table_of_numbers(tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 3)) @ random.normal(size=(3, 3))
    rows = "\n".join(",".join(f"{v:.5f}" for v in row) for row in x)
    (tmp_path / "own.csv").write_text("a,b,c\n" + rows + "\n")
    run = recipes.find("flow")(
        str(tmp_path / "own.csv"), target="c", quick=True, kind="spline", moons=0, posterior=0,
        out=tmp_path / "run",
    )  # fmt: skip
    assert set(run.info["scores"]) == {"test/nll"}
    assert len(run.info["figures"]) == 1


@pytest.mark.long
def test_it_beats_the_gaussian_on_digits(tmp_path, capsys):
    run = recipes.find("flow")(epochs=30, moons=0, posterior=0, out=tmp_path / "run")
    ours, base = run.info["scores"]["test/nll"], run.info["baseline"]["test/nll"]
    assert ours["high"] < base["low"]
    assert run.info["scores"]["test/bits_per_dim"]["value"] < 2.1


def test_what_is_no_table_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="flow: needs images or a table of numbers"):
        recipes.find("flow")("reviews", quick=True, out=tmp_path / "run")


@pytest.mark.parametrize(("levels", "found"), [(2, 2), (17, 17), (256, 256), (0, None)])
def test_the_levels_of_pixels(levels, found):
    """Pixels that are any numbers in [0, 1] have none: no noise of their levels is taken away."""
    x = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = (x * (levels - 1)).round() / (levels - 1) if levels else x
    spec = SimpleNamespace(kind="image")
    assert levels_of(SimpleNamespace(spec=spec, train=SimpleNamespace(x=x))) == found
