"""The recipe of topic 16: nodes of two graphs, molecules, and the interval of a paired gain."""

from __future__ import annotations

import pytest
import torch
from tests.recipes.test_recipes import complete

import deepweave as dw
from deepweave import recipes
from deepweave.recipes.gnn import handed_on, ridge

pytestmark = pytest.mark.long


def test_quick(tmp_path, capsys):
    run = recipes.find("gnn")(quick=True, out=tmp_path / "run")
    info = complete(run, "gnn")
    assert info["data"]["splits"] == {"train": 50, "validation": 200, "test": 350}
    assert set(info["rivals"]) == {"the same without edges", "labels handed on, no network"}
    files = {figure["file"] for figure in info["figures"]}
    assert files == {f"figures/{n}.svg" for n in ("learning", "graph", "karate", "attention")}
    assert (tmp_path / "run" / "report.html").stat().st_size < 2_000_000


def test_karate_with_every_kind(tmp_path, capsys):
    kinds = ("gcn", "gat", "sage", "gin", "transformer", "gatv1")
    run = recipes.find("gnn")("karate", kinds=kinds, seeds=2, epochs=60, out=tmp_path / "run")
    info = complete(run, "gnn")
    assert len(info["tables"][0]["rows"]) == 6
    assert info["scores"]["test/accuracy"]["value"] >= 0.8  # a club of two, from four labels


def test_molecules(tmp_path, capsys):
    run = recipes.find("gnn")("solubility", quick=True, out=tmp_path / "run")
    info = complete(run, "gnn")
    assert set(info["rivals"]) == {"ridge on counts of atoms"}
    assert len(info["tables"][0]["rows"]) == 4


def test_full_has_molecules_beside(tmp_path, capsys):
    run = recipes.find("gnn")("karate", full=True, quick=True, out=tmp_path / "run")
    complete(run, "gnn")
    assert (tmp_path / "run" / "solubility" / "report.html").is_file()


def test_other_data(tmp_path):
    with pytest.raises(ValueError, match="gnn: needs a data set of graphs, iris holds tables"):
        recipes.find("gnn")("iris", out=tmp_path / "run")


def test_labels_handed_on():
    """With enough rounds it is the closed form (1 - a) (I - a A)^-1 y."""
    table = dw.data.load("karate")
    g = table.test.x.graph
    a = torch.zeros(34, 34).index_put((g.target, g.source), g.norm)
    a = a + torch.diag(1 / (g.degree + 1))
    first = torch.zeros(34, 2)
    first[table.train.x.index, table.train.y] = 1
    exact = torch.linalg.solve(torch.eye(34) - 0.9 * a, 0.1 * first)
    found = handed_on(g, table, rounds=300)
    torch.testing.assert_close(
        found, (exact / exact.sum(1, keepdim=True))[:, 1], rtol=1e-4, atol=1e-4
    )


def test_ridge_knows_counts():
    """A target that is a sum over atoms is told by their counts alone."""
    table = dw.data.load("solubility", limit=200)
    from deepweave.data.molecules import counts

    splits = {}
    for name, split in table.splits.items():
        y = (
            counts(split.x.graph, len(table.preparation.features.elements))
            @ torch.arange(len(table.preparation.features.elements)).float()
        )
        splits[name] = dw.data.Split(split.x, y / 50)
    made = type(table)(**{**{k: getattr(table, k) for k in (
        "name", "title", "source", "licence", "spec", "preparation")}, **splits})  # fmt: skip
    assert float((ridge(made) - made.test.y).abs().max()) < 0.2
