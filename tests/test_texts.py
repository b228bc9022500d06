"""A run on texts from end to end: its folder, page, predictions of new texts, exported forms."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch

import deepweave as dw
from deepweave import outcome
from deepweave.export import export

SAID = ["what a good film", "bad and too long", "a good and warm one", "bad bad bad"] * 30


@pytest.fixture(scope="module")
def reads(tmp_path_factory):
    """A run that tells good from bad."""
    folder = tmp_path_factory.mktemp("reads") / "run"
    data = dw.data.load((SAID, ["good", "bad"] * 60))
    dw.chance.seed_all(0)
    net = dw.nn.transformer(data.spec, 16, 1, heads=2)
    run = dw.fit(dw.Classify(net), data, epochs=10, lr=0.01, out=folder)
    run.test()
    run.report()
    return folder


@pytest.fixture(scope="module")
def writes(tmp_path_factory):
    """A run that continues a text."""
    folder = tmp_path_factory.mktemp("writes")
    (folder / "a.txt").write_text("abcd" * 300)
    data = dw.data.load(folder / "a.txt", context=8)
    net = dw.nn.language_model(data.spec, 8, 1, heads=2)
    run = dw.fit(dw.NextToken(net), data, epochs=1, out=folder / "run")
    run.test()
    run.report()
    return folder / "run"


def test_the_page_shows_texts(reads):
    page = (reads / "report.html").read_text()
    assert "texts of at most 5 tokens" in page
    assert "what a good film" in page
    info = json.loads((reads / "run.json").read_text())
    assert set(info["texts"]) == {"test_x", "train_x", "worst_x"}
    assert all(text in SAID for text in info["texts"]["worst_x"])


def test_new_texts_are_predicted(reads, tmp_path):
    (tmp_path / "new.txt").write_text("a good film\n\nbad\n")
    assert outcome.predict_file(reads, str(tmp_path / "new.txt"), tmp_path / "p.csv") == 2
    assert pd.read_csv(tmp_path / "p.csv")["prediction"].tolist() == ["good", "bad"]


def test_a_writer_is_scored_and_writes_but_predicts_no_table(writes, tmp_path):
    info = json.loads((writes / "run.json").read_text())
    assert {"test/bits", "test/loss", "test/perplexity", "test/accuracy"} <= info["scores"].keys()
    assert "Bits per token" in (writes / "report.html").read_text()
    found = dw.nn.generate(dw.load(writes), torch.tensor([[4]]), 3, end=None)
    assert found.shape == (1, 3)
    with pytest.raises(ValueError, match="predict: this model writes"):
        outcome.predict_file(writes, "a.txt", tmp_path / "p.csv")


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_exported_texts_are_the_same_function(reads, writes, form, tmp_path):
    for folder in (reads, writes):
        path, gap = export(folder, form, tmp_path / f"model.{form}")
        assert path.is_file()
        assert gap < 1e-5


def test_what_takes_more_than_a_tensor_is_not_exported(tmp_path):
    rows = {"name": "a", "title": "A", "source": "-", "licence": "-"}
    pairs = dw.data.tokens.pairs([(f"a {i}", f"b {i}") for i in range(40)], rows)
    net = dw.nn.seq2seq(pairs.spec, 8)
    dw.fit(dw.NextToken(net), pairs, epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"export: .* one tensor: .*\(source, target so far\)"):
        export(tmp_path / "run", "torch", None)
    graph = dw.data.load("karate")
    dw.fit(dw.Classify(dw.nn.gnn(graph.spec, (4,))), graph, epochs=1, out=tmp_path / "graph")
    with pytest.raises(ValueError, match="export: a graph has no fixed shape"):
        export(tmp_path / "graph", "torch", None)
