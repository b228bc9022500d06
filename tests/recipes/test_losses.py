from __future__ import annotations

import json

import numpy as np
import pytest
from tests.recipes.test_recipes import complete, table

import deepweave as dw
from deepweave import recipes

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["losses", "activations"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_table_of_ones_own(name, task, tmp_path, capsys):
    path = table(tmp_path / "mine.csv", task)
    run = recipes.find(name)(str(path), target="label", quick=True, out=tmp_path / "run")
    info = complete(run, name)
    assert info["data"]["spec"]["task"] == task
    rows = info["tables"][0]["rows"]
    assert len(rows) == (5 if name == "losses" else 11)


def test_several_labels_and_targets(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)
    for y in ((x[:, :3] > 0).astype(int), x[:, :2] + 0.1 * x[:, 2:4]):
        np.savez(tmp_path / "mine.npz", x=x, y=y)
        path = str(tmp_path / "mine.npz")
        run = recipes.find("losses")(path, quick=True, out=tmp_path / f"run{y.shape[1]}")
        complete(run, "losses")


def test_losses_on_masks_of_several_classes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (60, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", x=x, y=(x // 90).astype(np.uint8))
    run = recipes.find("losses")(str(tmp_path / "mine.npz"), quick=True, out=tmp_path / "run")
    info = complete(run, "losses")
    assert info["data"]["spec"]["outputs"] == 3
    assert [row[0] for row in info["tables"][0]["rows"]] == ["CE + Dice", "CE", "Dice", "focal"]
    assert set(info["rivals"]) == {"CE", "Dice", "focal"}


def test_masks_are_learned(tmp_path, capsys):
    """In forty steps each loss finds more than half of what there is."""
    run = recipes.find("losses")(steps=40, seeds=2, lr=0.008, out=tmp_path / "run")
    info = complete(run, "losses")
    assert info["picture"] == "figures/masks.svg"
    scores = [info["scores"], *info["rivals"].values()]
    assert all(score["test/dice"]["value"] > 0.4 for score in scores)
    assert info["baseline"]["test/dice"]["value"] == 0


def test_activations_differ_as_they_should(tmp_path, capsys):
    """Ten layers deep a sigmoid gets no slope to its first layer, and does not learn."""
    run = recipes.find("activations")(
        kinds=("sigmoid", "relu", "tanh"), seeds=2, epochs=10, out=tmp_path / "run"
    )
    info = complete(run, "activations")
    assert info["members"] == 6
    scores = {row[0]: row for row in info["tables"][0]["rows"]}
    percent = {name: float(row[1].split()[0]) for name, row in scores.items()}
    assert percent["sigmoid"] < 30 < 85 < percent["tanh"]
    assert percent["ReLU"] > 85
    flow = next(f for f in info["figures"] if f["file"] == "figures/flow.svg")
    slope = {
        part.split()[0]: float(part.split()[1])
        for part in flow["alt"].split(": ")[1].rstrip(".").split(", ")
    }
    assert slope["sigmoid"] < 1e-4 < 0.01 < slope["ReLU"]
    log = [json.loads(row) for row in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any(
        len(row.get("validation/loss", [])) == 6
        for row in log
        if isinstance(row.get("validation/loss"), list)
    )
    assert "Choice" in repr(dw.load(run.folder))


def test_an_unknown_activation_is_refused_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="got 'rulu'"):
        recipes.find("activations")(kinds=("relu", "rulu"), out=tmp_path / "run")
