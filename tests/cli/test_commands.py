"""The commands as they are meant to be used."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file

import deepweave as dw
from deepweave import recipes

WATCH = """
import sys
from deepweave.cli import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    heavy = {"torch", "numpy", "pandas", "matplotlib", "sklearn"} & set(sys.modules)
    sys.exit(f"heavy imports: {heavy}" if heavy else left.code)
"""


def python(*words: str, **options) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    return subprocess.run(
        [sys.executable, *words], env=env, capture_output=True, text=True, timeout=120, **options
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["list"], ["00 Shallow neural networks", "01 Deep neural networks"]),
        (["--help"], ["Usage", "resume", "predict", "compare"]),
        (["run", "--help"], ["deep", "shallow"]),
        (["run", "deep", "--help"], ["--hidden", "the width of each hidden layer", "--quick"]),
        (["--version"], [dw.__version__]),
    ],
)
def test_what_only_tells_imports_nothing_heavy(words, told):
    done = python("-c", WATCH, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert all(word in done.stdout for word in told), done.stdout


def test_the_package_imports_nothing_heavy():
    done = python("-c", "import deepweave, sys; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


def test_list_names_every_recipe(cli):
    said = cli("list")
    assert said.code == 0
    for one in recipes.every():
        assert re.search(rf"{re.escape(one.topic)} +{one.name.replace('_', '-')} ", said.out)


def test_every_option_is_explained(cli):
    for one in recipes.every():
        text = cli("run", one.name.replace("_", "-"), "--help").out
        for line in (one.function.__doc__ or "").split("Args:")[1].strip().splitlines():
            name, _, about = line.strip().partition(": ")
            if not name.isidentifier():  # the line before goes on
                continue
            assert f"--{name.replace('_', '-')}" in text
            assert " ".join(about.split())[:30] in " ".join(text.split())


@pytest.mark.parametrize("name", ["resume", "predict", "export", "compare", "tune"])
def test_every_command_explains_its_options(name, cli):
    from deepweave import cli as commands

    text = " ".join(cli(name, "--help").out.replace("│", " ").split())
    told = (getattr(commands, name).__doc__ or "").split("Args:")[1].strip().splitlines()
    for line in told:
        about = line.strip().partition(": ")[2]
        assert " ".join(about.split())[:24] in text


def test_as_a_module_into_a_pipe(tmp_path, finished):
    """Plain lines on stderr, the result on stdout, no escape codes in either."""
    words = ["run", "shallow", "--data", str(finished / "table.csv"), "--quick", "--out", "a"]
    done = python("-m", "deepweave", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    first, *_, last = done.stderr.splitlines()
    assert re.fullmatch(r"epoch 1/3  step 1/3  loss \S+  [\d,]+ steps/s  \S+ s left", first)
    assert re.fullmatch(r"trained 3 steps in \S+ s  validation loss \S+  .*", last)
    assert "accuracy" in done.stdout
    assert done.stdout.splitlines()[-1] == "page: a/report.html"


def test_a_refusal_as_a_program(tmp_path):
    done = python("-m", "deepweave", "run", "shallow", "--data", "nowhere.csv", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "deepweave: load: there is no file or folder nowhere.csv\n"


def test_a_live_line_on_a_terminal(tmp_path, finished):
    """On a terminal one line is drawn over itself, and at the end the cursor is back."""
    parent, child = pty.openpty()
    words = ["run", "shallow", "--data", str(finished / "table.csv"), "--epochs", "400"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "deepweave", *words, "--out", str(tmp_path / "a")],
        env=env, stdout=subprocess.DEVNULL, stderr=child,
    )  # fmt: skip
    os.close(child)
    written = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        written += piece
    os.close(parent)
    assert process.wait(120) == 0
    text = written.decode()
    assert "\x1b[?25l" in text, "the cursor is hidden while the line lives"
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "and shown again"
    drawn = re.findall(r"epoch \d+/400  step (\d+)/400  loss [\d.e-]+  .*?steps/s  .*? left", text)
    assert len(drawn) >= 2
    assert [int(step) for step in drawn] == sorted(int(step) for step in drawn)
    lines = text.split("\n")
    assert "\r\x1b[2K" in text, "the old line is wiped"
    assert len(lines) <= 4, "one line is redrawn, the page does not scroll"
    assert "trained 400 steps" in lines[-2]


def test_the_command_of_a_run_repeats_it(cli, table, tmp_path):
    words = ["--hidden", "8", "6", "--norm", "batch", "--residual", "--epochs", "2"]
    assert cli("run", "deep", table, *words, "--seed", "3", "--out", "one").code == 0
    info = json.loads((tmp_path / "one/run.json").read_text())
    program, *again = shlex.split(info["command"])
    assert program == "deepweave"
    assert cli(*again, "--out", "two").code == 0
    assert json.loads((tmp_path / "two/run.json").read_text())["settings"] == info["settings"]
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)


def test_predict_writes_what_the_model_says(cli, finished, table, tmp_path):
    frame = pd.read_csv(table).drop(columns="label")
    frame.loc[0, "kind"] = "never seen"
    frame.loc[1, ["a", "kind"]] = np.nan
    frame.to_csv("new.csv", index=False)
    for out in ("p.csv", "p.npz"):
        said = cli("predict", finished / "run", "--data", "new.csv", "--out", out)
        assert said.code == 0, said.err
        assert said.out == f"90 predictions in {out}\n"
    rows = list(csv.DictReader(Path("p.csv").read_text().splitlines()))
    assert list(rows[0]) == ["id", "prediction", "p(no)", "p(yes)"]
    assert [row["id"] for row in rows] == [str(i) for i in range(1, 91)]
    held = np.load("p.npz")
    x, _, _ = dw.data.read("new.csv", dw.data.load(table).preparation)
    expected = dw.load(finished / "run")(x).sigmoid().reshape(-1).detach().numpy()
    found = np.array([float(row["p(yes)"]) for row in rows])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(held["p(yes)"], found, rtol=0, atol=1e-12)
    np.testing.assert_allclose(held["p(no)"], 1 - found, rtol=0, atol=1e-12)
    said = np.where(expected > 0.5, "yes", "no")
    assert [row["prediction"] for row in rows] == said.tolist()
    assert held["prediction"].tolist() == said.tolist()


def test_columns_that_are_not_known_are_noted_in_one_line(cli, finished, table):
    pd.read_csv(table).assign(more=1).to_csv("new.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        said = cli("predict", finished / "run", "--data", "new.csv", "--out", "p.csv")
    assert said.code == 0
    assert said.err == 'deepweave: note: inputs: column "more" not seen in training: ignored.\n'


def test_predict_a_quantity_in_its_unit(cli, tmp_path):
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(120, 2)), columns=["a", "b"])
    frame["price"] = 5000 + 300 * frame["a"]
    frame.to_csv("houses.csv", index=False)
    said = cli("run", "shallow", "houses.csv", "--epochs", "40", "--lr", "0.05", "--out", "run")
    assert said.code == 0, said.err
    assert cli("predict", "run", "--data", "houses.csv", "--out", "p.csv").code == 0
    found = pd.read_csv("p.csv")
    assert list(found) == ["id", "price"]
    assert np.abs(found["price"] - frame["price"]).mean() < 30


@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec:FutureWarning")
@pytest.mark.parametrize(("form", "name"), [("onnx", "model.onnx"), ("torch", "model.pt2")])
def test_export_is_the_same_function(cli, finished, tmp_path, form, name):
    import torch

    run = tmp_path / "run"
    shutil.copytree(finished / "run", run)
    said = cli("export", run, "--format", form)
    assert said.code == 0, said.err
    assert said.err == "", "the exporters' own remarks stay away"
    assert re.fullmatch(
        rf"{run}/{re.escape(name)}: the largest difference .* [\d.e+-]+\n", said.out
    )
    x = torch.randn(7, 7)  # another number of rows than it was exported with
    with torch.no_grad():
        expected = dw.load(run)(x)
        if form == "torch":
            found = torch.export.load(run / name).module()(x)
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession(str(run / name))
            found = torch.from_numpy(session.run(None, {"x": x.numpy()})[0])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_compare_runs(cli, finished, table, tmp_path):
    assert cli("run", "deep", table, "--quick", "--out", "deep").code == 0
    said = cli("compare", finished / "run", "deep")
    assert said.code == 0, said.err
    assert said.out.splitlines()[-1] == "page: comparison.html"
    assert re.search(r"accuracy.*\d\.\d+.*\d\.\d+", said.out)
    assert "<html" in Path("comparison.html").read_text()
