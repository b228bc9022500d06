"""The recipes of topics 05, 06 and 09 on other tasks than their own, and what they must show."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deepweave import recipes

pytestmark = pytest.mark.long


@pytest.mark.parametrize("data", ["diabetes", "breast_cancer"])
def test_initialization_of_other_tasks(data, tmp_path, capsys):
    run = recipes.find("initialization")(data, quick=True, out=tmp_path / "run")
    assert [f["file"] for f in run.info["figures"]] == [
        "figures/variance.svg", "figures/gradient_variance.svg", "figures/trained.svg",
    ]  # fmt: skip
    cells = [cell for table in run.info["tables"] for row in table["rows"] for cell in row]
    assert not any("nan" in str(cell).split() for cell in cells)


def test_the_symmetry_of_zero_stands_in_the_table(tmp_path, capsys):
    run = recipes.find("initialization")(quick=True, out=tmp_path / "run")
    table = next(t for t in run.info["tables"] if t["title"] == "The symmetry of zero")
    for start, activation, *ranks, _ in table["rows"]:
        after = [int(rank.split(" → ")[1]) for rank in ranks]
        if start == "He":
            assert min(after[:2]) > 20
        else:
            assert max(after) <= 1
        if start == "all 0" and activation == "relu":
            assert after == [0, 0, 0, 0]


@pytest.mark.parametrize("data", ["digits", "breast_cancer", "labels"])
def test_regularization_of_other_tasks(data, tmp_path, capsys):
    if data == "labels":
        x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
        np.savez(tmp_path / "mine.npz", x=x, y=(x[:, :3] > 0).astype(int))
        data = str(tmp_path / "mine.npz")
    run = recipes.find("regularization")(data, quick=True, samples=40, out=tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    rows = {row[0]: row for row in info["tables"][0]["rows"]}
    assert {"none", "L1", "mixup", "SAM", "early stopping"} <= rows.keys()
    assert ("cutmix" in rows) == (data == "digits")
    assert info["data"]["splits"]["train"] == 40
    assert run.info["rivals"]["no regulariser"].keys() == run.info["scores"].keys()


def test_the_path_of_the_lasso_gets_sparser(tmp_path, capsys):
    run = recipes.find("regularization")(quick=True, out=tmp_path / "run")
    files = [figure["file"] for figure in run.info["figures"]]
    assert "figures/path.svg" in files
    drawn = (tmp_path / "run" / "figures" / "sparsity.svg").read_text()
    assert ": 0 weights" in drawn, "at the strongest none is left"
    assert ": 10 weights" in drawn or ": 9 weights" in drawn
