"""The recipes of topics 10b and 11: what they must show, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch

import deepweave as dw
from deepweave import recipes
from deepweave.recipes.lstm import addition


def test_the_adding_problem():
    x, y = addition(500, 30, torch.Generator().manual_seed(0))
    assert x.shape == (500, 30, 2)
    marks = x[..., 1]
    assert (marks[:, :15].sum(1) == 1).all()
    assert (marks[:, 15:].sum(1) == 1).all()
    picked = torch.stack([row[mark == 1].sum() for row, mark in zip(x[..., 0], marks)])
    torch.testing.assert_close(picked, y)
    assert float((y - 1).square().mean()) == pytest.approx(1 / 6, abs=0.03)


FIGURES = {
    "rnn": ["heard", "reach", "starts"],
    "lstm": ["heard", "gates", "seeds", "adding", "reach"],
    "gru": ["heard", "gates", "seeds"],
}


@pytest.mark.long
@pytest.mark.parametrize("name", FIGURES)
def test_recipes(name, tmp_path, capsys):
    run = recipes.find(name)(quick=True, out=tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert [f["file"] for f in info["figures"]] == [f"figures/{one}.svg" for one in FIGURES[name]]
    assert "mean and spread over time" in run.info["rivals"]
    assert all(rival.keys() == info["scores"].keys() for rival in info["rivals"].values())
    net = dw.load(tmp_path / "run")
    assert net.centre, "a folder makes the same net again"
    assert net(torch.randn(2, 5, 13)).shape == (2, 10)


@pytest.mark.long
def test_memory_adds_what_a_plain_network_forgets():
    errors = {}
    for name, rate, options in (("lstm", 0.02, {"memory": 60}), ("rnn", 0.002, {})):
        dw.chance.seed_all(0)
        objective = dw.Regress(getattr(dw.nn, name)(((60, 2), 1), 24, **options))
        generator = torch.Generator().manual_seed(0)
        batches = [addition(32, 60, generator) for _ in range(500)]
        step = dw.Descent(objective, "Adam", lr=rate)
        dw.fit(step, batches, steps=500, hooks=[dw.hooks.Clip(norm=1.0)], out=False)
        with torch.no_grad():
            errors[name] = float(objective.eval()(addition(500, 60, generator))[0])
    assert errors["lstm"] < 0.03
    assert errors["rnn"] > 0.1


def test_they_refuse_what_is_no_sequence(tmp_path):
    with pytest.raises(ValueError, match="need sequences with a class each, digits is multiclass"):
        recipes.find("gru")("digits", out=tmp_path / "run")
