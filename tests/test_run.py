from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import deepweave as dw
from deepweave import outcome
from deepweave.run import Run, claim, derive, learnt, read_info, write_whole


class Mine(nn.Module):
    """A user's own model, with tied weights and a buffer."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.first = nn.Linear(4, width)
        self.norm = nn.BatchNorm1d(width)
        self.encode = nn.Linear(width, 4, bias=False)
        self.decode = nn.Linear(4, width, bias=False)
        self.decode.weight = nn.Parameter(torch.zeros(width, 4))
        self.encode.weight = self.decode.weight if width == 4 else self.encode.weight
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        return self.head(self.decode(self.encode(self.norm(self.first(x)).tanh())) + 1)


@pytest.fixture(scope="module")
def iris() -> dw.data.Data:
    return dw.data.load("iris")


@pytest.fixture
def run(iris, tmp_path) -> Run:
    torch.manual_seed(0)
    net = dw.nn.mlp(iris.spec, (8,), norm="batch")
    return dw.fit(dw.Classify(net), iris, epochs=3, lr=0.01, out=tmp_path / "run")


# --- load -----------------------------------------------------------------------------------


def test_load_gives_the_model_ready_to_use(run, iris):
    model = dw.load(run.folder)
    assert not model.training
    with torch.no_grad():
        assert torch.equal(model(iris.test.x), run.model.eval()(iris.test.x))


def test_load_fills_a_model_of_ones_own(iris, tmp_path):
    torch.manual_seed(0)
    run = dw.fit(dw.Classify(Mine()), iris, epochs=2, lr=0.05, out=tmp_path / "run")
    assert len(load_file(tmp_path / "run/model.safetensors")) == 10, "a tied weight is kept once"
    with pytest.raises(ValueError, match=r"load: Mine was not made by deepweave: pass .*model="):
        dw.load(run.folder)
    torch.manual_seed(9)
    mine = dw.load(run.folder, model=Mine())
    assert mine.encode.weight is mine.decode.weight
    with torch.no_grad():
        assert torch.equal(mine(iris.test.x), run.model.eval()(iris.test.x))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: Mine(5), r"weight must be \(.*5.*\), got \(4, 4\)"),
        (lambda: nn.Linear(4, 3), "has .*, which Linear has not"),
        (lambda: nn.Sequential(Mine(), nn.Linear(3, 3)), "which Sequential has not"),
    ],
)
def test_load_into_another_model(iris, tmp_path, other, message):
    dw.fit(dw.Classify(Mine()), iris, epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match=f"load: .*{message}"):
        dw.load(tmp_path / "run", model=other())


def test_load_says_what_is_missing(iris, tmp_path):
    dw.fit(dw.Classify(Mine()), iris, epochs=1, out=tmp_path / "run")

    class More(Mine):
        def __init__(self):
            super().__init__()
            self.extra = nn.Parameter(torch.zeros(2))

    with pytest.raises(ValueError, match=r"model.safetensors lacks extra"):
        dw.load(tmp_path / "run", model=More())


def test_load_from_elsewhere(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no folder of a run"):
        dw.load(tmp_path)


def test_load_before_the_end(iris, tmp_path):
    class Stop(dw.Hook):
        def after_epoch(self, loop):
            raise RuntimeError("a fault\nof two lines")

    with pytest.raises(RuntimeError):
        dw.fit(dw.Classify(nn.Linear(4, 3)), iris, epochs=2, hooks=[Stop()], out=tmp_path / "run")
    info = read_info(tmp_path / "run")
    assert info["status"] == "failed"
    assert info["error"] == "RuntimeError: a fault"
    with pytest.raises(FileNotFoundError, match=r"no trained model \(status: failed\); .* resume"):
        dw.load(tmp_path / "run")


# --- what is written ------------------------------------------------------------------------


def test_the_book_of_a_run(run, iris):
    run.test()
    info = json.loads((run.folder / "run.json").read_text())
    assert info["data"]["fingerprint"] == iris.fingerprint
    assert info["data"]["splits"] == {"train": 105, "validation": 22, "test": 23}
    assert info["model"]["parameters"] == sum(w.numel() for w in run.model.parameters())
    assert info["steps"] == info["epochs"] == 3
    assert info["optimizer"]["name"] == "AdamW"
    assert info["optimizer"]["lr"] == 0.01
    assert info["versions"].keys() == {"deepweave", "python", "torch", "numpy"}
    assert set(info["scores"]) == set(info["baseline"])
    for score in info["scores"].values():
        if score["low"] is not None:
            assert score["low"] <= score["value"] <= score["high"]
    right = (run.predict(iris.test.x).argmax(1) == iris.test.y).double().mean()
    assert info["scores"]["test/accuracy"]["value"] == pytest.approx(float(right))
    assert repr(run).startswith("Run(Classify, 3 steps, trained)\n  test/accuracy")


def test_examples_are_the_worst_ones(run, iris):
    run.test()
    held = load_file(run.folder / "examples.safetensors")
    kept = load_file(run.folder / "test.safetensors")
    probability = kept["prediction"].gather(1, kept["target"][:, None]).squeeze(1)
    order = probability.argsort()
    assert held["worst_index"][:5].tolist() == order[:5].tolist()
    assert torch.equal(held["worst_x"], iris.test.x[held["worst_index"]])
    assert torch.equal(held["test_y"], torch.arange(3))
    assert held["train_y"].bincount().tolist() == [13, 13, 13]


@pytest.mark.parametrize(
    ("task", "prediction", "target", "expected"),
    [
        ("binary", [0.2, 0.9], [1, 0], [-np.log(0.2), -np.log(0.1)]),
        ("multiclass", [[0.5, 0.5], [0.1, 0.9]], [0, 0], [-np.log(0.5), -np.log(0.1)]),
        ("multilabel", [[0.5, 0.9]], [[1.0, 0.0]], [(-np.log(0.5) - np.log(0.1)) / 2]),
        ("regression", [3.0, -1.0], [1.0, 0.0], [2.0, 1.0]),
        ("regression", [[3.0, -1.0]], [[1.0, 0.0]], [3.0]),
        ("segmentation", [[[0.5, 0.1]]], [[[1, 1]]], [(-np.log(0.5) - np.log(0.1)) / 2]),
    ],
)
def test_badness_is_the_loss_of_each(task, prediction, target, expected):
    found = outcome.badness(task, torch.tensor(prediction), torch.tensor(target))
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_run_without_a_folder_leaves_nothing(iris, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = dw.fit(dw.Classify(nn.Linear(4, 3)), iris, epochs=1, out=False)
    assert run.test()["test/accuracy"] >= 0
    with pytest.raises(ValueError, match=r"report: this run has no folder: pass out= to fit"):
        run.report()
    assert not list(tmp_path.iterdir())


def test_bare_batches_have_no_test_set():
    batch = torch.zeros(2, 4), torch.zeros(2).long()
    run = dw.fit(dw.Classify(nn.Linear(4, 3)), [batch], epochs=1)
    with pytest.raises(ValueError, match="test: this run was fitted on bare batches"):
        run.test()


def test_exports_need_to_know_the_inputs(tmp_path):
    from deepweave.export import export

    batch = torch.zeros(2, 4), torch.zeros(2).long()
    dw.fit(dw.Classify(dw.nn.shallow((4, 3))), [batch], epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match="fitted on bare batches: its inputs are not known"):
        export(tmp_path / "run", "torch", None)
    with pytest.raises(FileNotFoundError, match="not trained on a data set"):
        outcome.predict_file(tmp_path / "run", "x.csv", tmp_path / "p.csv")


# --- predict --------------------------------------------------------------------------------


def test_predict_on_new_rows_is_predict_on_the_test_set(run, iris, tmp_path):
    """From the folder alone: prepared as in training, with the same bits."""
    again = outcome.revive(run.folder)
    assert torch.equal(again.predict(iris.test.x), run.predict(iris.test.x))
    assert torch.equal(outcome.predict(again, iris.test.x, size=5), run.predict(iris.test.x))


def test_regression_is_in_the_unit_of_the_target(tmp_path):
    data = dw.data.load("diabetes")
    run = dw.fit(dw.Regress(dw.nn.shallow(data.spec)), data, epochs=30, lr=0.05,
                 out=tmp_path / "run")  # fmt: skip
    score = run.test()["test/rmse"]
    truth = data.preparation.restore(data.test.y)
    assert 100 < float(run.predict(data.test.x).mean()) < 200
    error = (run.predict(data.test.x) - truth).square().mean().sqrt()
    assert float(score) == pytest.approx(float(error), rel=1e-5)
    assert float(score) < 0.85 * float(truth.std())


def test_predict_keeps_the_mode_and_the_batch_size_does_not_matter(run, iris):
    run.model.train()
    whole = outcome.predict(run, iris.train.x)
    assert run.model.training
    torch.testing.assert_close(outcome.predict(run, iris.train.x, size=7), whole)


# --- the folder -----------------------------------------------------------------------------


def test_write_whole(tmp_path):
    path = tmp_path / "a.txt"
    assert write_whole(path, "é\n") == path
    assert path.read_bytes() == "é\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    write_whole(path, b"more")
    assert path.read_bytes() == b"more"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, call):
    path = write_whole(tmp_path / "a.txt", "before")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=rf"cannot write {path}: No space left on device"):
        write_whole(path, "after")
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_write_whole_into_nowhere(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*none/a.txt: No such file"):
        write_whole(tmp_path / "none/a.txt", "x")


def _claim(parent: str) -> str:
    return str(claim(parent, "deep"))


def test_folders_are_claimed_one_each(tmp_path):
    """Also by programs that begin at the same moment."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.map(_claim, [str(tmp_path / "runs")] * 12, chunksize=1)
    assert sorted(found) == sorted(f"{tmp_path}/runs/deep-{i}" for i in range(1, 13))


def test_what_was_learnt(tmp_path):
    assert not learnt(tmp_path)
    inner = tmp_path / "run/shallow/checkpoint"
    inner.mkdir(parents=True)
    assert not learnt(tmp_path / "run")
    (inner / "last.safetensors").touch()
    assert learnt(tmp_path / "run/shallow")
    assert not learnt(tmp_path / "run"), "a folder of runs is no run"
    (tmp_path / "run/run.json").touch()
    assert learnt(tmp_path / "run")
    assert not learnt(tmp_path)


def test_a_failed_try_leaves_no_trace_in_the_next(iris, tmp_path):
    bad = [(torch.zeros(2, 4), torch.tensor([0, 7]))]
    with pytest.raises(ValueError, match="labels must lie in"):
        dw.fit(dw.Classify(nn.Linear(4, 3)), bad, epochs=1, out=tmp_path / "run")
    assert "error" in read_info(tmp_path / "run")
    dw.fit(dw.Classify(nn.Linear(4, 3)), iris, epochs=1, out=tmp_path / "run")
    info = read_info(tmp_path / "run")
    assert info["status"] == "trained"
    assert "error" not in info


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("\udcff".encode("utf-8", "surrogateescape"), "is damaged"),
        ("[]", "expected the format 'deepweave run 1', got None"),
        ('{"format": "x"}', "got 'x'"),
    ],
)
def test_damaged_books(tmp_path, text, message):
    raw = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "run.json").write_bytes(raw)
    for use in (read_info, Run, dw.load):
        with pytest.raises(ValueError, match=message):
            use(tmp_path)


def test_seeds_are_of_their_own():
    found = {derive(seed, *purpose) for seed in (0, 1) for purpose in
             (("order", 0), ("order", 1), ("train",), ("weights",), ("order/0",))}  # fmt: skip
    # "order/0" and ("order", 0) are one text, all others differ
    assert len(found) == 8
    assert all(0 <= seed < 2**63 for seed in found)
    assert derive(3, "order", 4) == derive(3, "order", 4)


def test_figures_and_tables_replace_their_namesakes(tmp_path):
    run = Run(tmp_path / "run")
    run.open()
    for text in ("<svg>1</svg>", "<svg>2</svg>"):
        run.figure("a", text, title="t", caption=text, alt="a")
        run.table("T", ["x"], [[1]], text)
    info = read_info(tmp_path / "run")
    assert [f["caption"] for f in info["figures"]] == ["<svg>2</svg>"]
    assert [t["caption"] for t in info["tables"]] == ["<svg>2</svg>"]
    assert Path(tmp_path / "run" / info["figures"][0]["file"]).read_text() == "<svg>2</svg>"


def test_a_run_inside_a_run(tmp_path):
    assert (Run() / "inner").folder is None
    inner = Run(tmp_path / "run", resume=True) / "inner"
    assert inner.folder == tmp_path / "run/inner"
    assert inner.resume
