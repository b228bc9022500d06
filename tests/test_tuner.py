from __future__ import annotations

import json

import pytest

from deepweave import tuner
from deepweave.cli import main
from deepweave.search.space import Choice

pytestmark = pytest.mark.long
ASKED = ["tune", "shallow", "--over", "lr=log(1e-3, 1e-1)", "--over", "batch=choice(16, 32)",
         "--set", "data=wine", "--set", "epochs=3", "--trials", "3"]  # fmt: skip

FIXED = {"data": "wine", "epochs": 3}


def command(words: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0


def test_tune_from_the_command_line(tmp_path, capsys, monkeypatch):
    out = tmp_path / "search"
    command([*ASKED, "--out", str(out)])
    said = capsys.readouterr()
    assert "Study(3 trials: 3 finished" in said.out
    assert said.err.count("validation/loss") == 3
    study = json.loads((out / "study.json").read_text())
    best = min(study["trials"], key=lambda t: t["value"])
    info = json.loads((out / "best" / "run.json").read_text())
    assert info["settings"]["lr"] == best["settings"]["lr"]
    assert info["settings"]["epochs"] == 3
    assert info["best"]["scores"]["validation/loss"] == best["value"]
    assert {f["file"] for f in info["figures"]} >= {"figures/history.svg", "figures/slices.svg"}
    assert "How the search went" in (out / "best" / "report.html").read_text()

    # the same command goes on: what has ended is not run again
    def fail(*_, **__):
        raise AssertionError("a trial that had ended ran again")

    monkeypatch.setattr(tuner, "go_on", fail)
    monkeypatch.setattr(tuner, "find", fail)
    call = tuner.Call("shallow", study["trials"][0]["settings"] | FIXED, out / "trials")
    assert call({}) == study["trials"][0]["value"]
    monkeypatch.undo()
    command([*ASKED, "--out", str(out)])
    assert "best validation/loss" in capsys.readouterr().out


def test_the_usual_space():
    assert set(tuner.usual("deep")) == {"lr", "dropout", "smoothing", "hidden"}
    assert repr(tuner.usual("shallow")["lr"]).startswith("log(")


def test_words_of_a_space():
    assert tuner.dimension("deep", "epochs", "integer(5, 50)").at(0.0) == 5
    assert tuner.dimension("deep", "norm", "choice(batch, layer)").values == ("batch", "layer")
    assert tuner.dimension("deep", "residual", "choice(true, false)").values == (True, False)
    found = tuner.dimension("deep", "hidden", "choice(32, 64 64)")
    assert isinstance(found, Choice)
    assert found.values == ((32,), (64, 64))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nope"], "there is no recipe 'nope'"),
        (["deep", "--over", "lr=0.1"], "lr must be log(a, b)"),
        (["deep", "--over", "lr=log(1)"], "log takes two bounds, got 1"),
        (["deep", "--over", "lr=log(1, 0.1)"], "log: low must be below high"),
        (["deep", "--over", "speed=log(1, 2)"], "has no option 'speed'"),
        (["deep", "--over", "epochs=integer(1, two)"], "epochs takes int, got 'two'"),
        (["deep", "--set", "residual=perhaps"], "residual takes bool, got 'perhaps'"),
        (["deep", "--trials", "0"], "trials and processes must be at least 1"),
    ],
)
def test_refuses(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["tune", *words])
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("run.json"))
