"""Bad input: one clear line, exit code 2, no traceback, no work lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import save


def write(text: str, path: Path) -> Path:
    path.write_text(text)
    return path


def rows(count: int, label: str = "yes no", header: str = "a,b,label") -> str:
    names = label.split()
    body = (f"{i},{i * i % 7},{names[i % len(names)]}" for i in range(count))
    return "\n".join([header, *body]) + "\n"


TABLES = {
    "text in a column of numbers": (
        rows(40).replace("\n7,", "\nseven,"),
        ["a", "seven"],
    ),
    "infinite": (rows(40).replace("\n7,", "\ninf,"), ['"a"', "infinite", "row 8"]),
    "one class": (rows(40, "yes"), ["one class", "yes", "two"]),
    "a class with one row": (rows(40) + "3,3,maybe\n", ['"maybe"', "one row"]),
    "no rows": ("a,b,label\n", ["no rows"]),
    "nothing at all": ("", ["empty"]),
    "two columns of one name": (rows(40, header="a,a,label"), ["two columns", '"a"']),
    "one column": ("label\nyes\nno\n" * 9, ["a column to learn from", "target"]),
    "missing targets": (rows(40).replace(",yes", ","), ["label", "missing", "leave"]),
    "no header": (rows(40, "1 2", "7,5,1"), ["first line", "name the columns"]),
    "rows of lengths": (rows(40) + "1,2,yes,4,5\n", ["Expected 3 fields", "saw 5"]),
    "too few rows": (rows(4), ["few", "rows"]),
    "empty columns": ("a,label\n" + ",yes\n,no\n" * 20, ["no column is left", '"a"']),
    "a name for a target": (
        "a,label\n" + "".join(f"{i},name-{i}\n" for i in range(60)),
        ["60 different texts", "target"],
    ),
    "not text": ("a,label\n\x00\x00,\x00\n", []),
}


@pytest.mark.parametrize("case", TABLES)
def test_a_bad_table(cli, tmp_path, case):
    text, told = TABLES[case]
    path = write(text, tmp_path / "bad.csv")
    line = cli("run", "deep", "--data", path, "--quick").refusal()
    assert all(word in line for word in told), line
    assert [p.name for p in tmp_path.iterdir() if p.name != "runs"] == ["bad.csv"]
    assert not list(tmp_path.glob("runs/*")), "a refused run leaves no folder behind"


def test_not_utf8(cli, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_bytes(rows(30).encode().replace(b"yes", b"j\xe4"))
    assert "UTF-8" in cli("run", "deep", "--data", path).refusal()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--target", "labl"], ['"labl" is not a column', 'did you mean "label"']),
        (["--target", "a"], []),  # numbers: a regression, which can be learned
    ],
)
def test_a_wrong_target(cli, table, words, told):
    said = cli("run", "shallow", "--data", table, "--quick", *words)
    if told:
        assert all(word in said.refusal() for word in told)
    else:
        assert said.code == 0, said.err


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("missing.csv", ["there is no file or folder missing.csv"]),
        ("tabel.csv", ["there is no file", 'did you mean "table.csv"']),
        ("digts", ['neither a named set nor a file; did you mean "digits"']),
        ("data.xls", ['ending ".xls"', ".csv, .tsv, .parquet, .npz"]),
        ("folder", ["folder", "one folder per class"]),
        ("broken.parquet", ["cannot read", "broken.parquet"]),
        ("broken.npz", ["cannot read", "broken.npz"]),
        ("array.npz", ["must hold x and y", "lacks y", "it holds x"]),
        ("nan.npz", ["x has NaN or Inf in 1 of 40 rows", "row 4", "mend"]),
        ("labels.npz", ["one row only"]),
        ("shapes.npz", ["x and y must be of one length, got 40 and 39"]),
        ("samples.npz", ["different shapes"]),
        ("pickled.npz", ["cannot read", "pickle"]),
    ],
)
def test_a_bad_file(cli, table, tmp_path, name, told):
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    hole = x.copy()
    hole[3, 1] = np.nan
    odd = np.where(np.arange(40) == 9, 99, y)
    (tmp_path / "folder").mkdir()
    for broken in ("data.xls", "broken.parquet", "broken.npz"):
        write("no data", tmp_path / broken)
    np.savez(tmp_path / "array.npz", x=x)
    np.savez(tmp_path / "nan.npz", x=hole, y=y)
    np.savez(tmp_path / "labels.npz", x=x, y=odd)
    np.savez(tmp_path / "shapes.npz", x=x, y=y[1:])
    np.savez(tmp_path / "samples.npz", train_x=x, train_y=y, test_x=x[:, 1:], test_y=y)
    np.savez(tmp_path / "pickled.npz", x=x.astype(object), y=y)
    line = cli("run", "deep", "--data", name).refusal()
    assert all(word in line for word in told), line


def images(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 8) -> Path:
    random = np.random.default_rng(0)
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = random.integers(0, 100, (8, 8)) + 100 * place
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("cut", ["cannot read the image", "cat/3.png"]),
        ("text", ["cannot read the image", "cat/3.png"]),
        ("empty class", ["the class folder", "bird", "no images"]),
        ("one class", ["one class folder only (cat)"]),
        ("loose", ["16 images outside of any class folder"]),
        ("target", ["target of a folder is its class folders"]),
    ],
)
def test_a_bad_folder_of_images(cli, tmp_path, harm, told):
    folder = images(tmp_path / "pets", ("cat",) if harm == "one class" else ("cat", "dog"))
    victim, words = folder / "cat/3.png", []
    if harm == "cut":
        victim.write_bytes(victim.read_bytes()[:60])
    elif harm == "text":
        victim.write_text("not an image")
    elif harm == "empty class":
        (folder / "bird").mkdir()
    elif harm == "loose":
        for path in sorted(folder.glob("*/*.png")):
            path.rename(folder / f"{path.parent.name}{path.name}")
        for name in ("cat", "dog"):
            (folder / name).rmdir()
    elif harm == "target":
        words = ["--target", "cat"]
    line = cli("run", "deep", "--data", folder, "--quick", *words).refusal()
    assert all(word in line for word in told), line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "dep"], ['"dep"', 'Did you mean "deep"']),
        (["run", "nosuch"], ['"nosuch"', "deep", "shallow"]),
        (["rnu", "deep"], ['"rnu"', 'Did you mean "run"']),
        (["run", "deep", "--hiden", "3"], ["--hiden", "Did you mean --hidden"]),
        (["run", "deep", "--epochs", "many"], ["--epochs", '"many"', "int"]),
        (["run", "deep", "--epochs"], ["--epochs"]),
        (["run", "deep", "--epochs", "0"], ["epochs must be at least 1, got 0"]),
        (["run", "deep", "--batch", "0"], ["batch must be at least 1, got 0"]),
        (["run", "deep", "--lr", "-1"], ["learning rate", "-1"]),
        (["run", "deep", "--lr", "nan"], ["learning rate", "nan"]),
        (["run", "deep", "--hidden", "0"], ["hidden must be widths of at least 1, got (0,)"]),
        (["run", "deep", "--dropout", "1.5"], ["dropout must lie in [0, 1), got 1.5"]),
        (["run", "deep", "--smoothing", "1"], ["smoothing must lie in [0, 1), got 1"]),
        (["run", "deep", "--norm", "group"], ["norm must be None, 'batch' or 'layer'", "'group'"]),
        (["run", "deep", "--activation", "rleu"], ["activation: expected a name", "'rleu'"]),
        (["run", "deep", "iris", "extra"], ["extra"]),
        (["resume"], ["FOLDER", "requires an argument"]),
        (["resume", "nowhere"], ["nowhere is no folder of a run"]),
        (["predict", "nowhere", "--data", "x.csv", "--out", "y.csv"], ["nowhere is no folder"]),
        (["predict", "nowhere", "--data", "x.csv"], ["--out"]),
        (["export", "nowhere"], ["nowhere is no folder of a run"]),
        (["export", "nowhere", "--format", "keras"], ["onnx or torch, got 'keras'"]),
        (["compare", "one"], ["two runs or more, got 1"]),
        (["compare", "one", "two"], ["no folder one"]),
    ],
)
def test_wrong_words(cli, tmp_path, words, told):
    data = ["--data", "iris"] if words[:2] == ["run", "deep"] and "iris" not in words else []
    line = cli(*words, *data).refusal()
    assert all(word in line for word in told), line
    assert not list(tmp_path.glob("runs/*")), "a refused run leaves no folder behind"


# --- the folder -----------------------------------------------------------------------------


def test_a_refused_run_can_be_tried_again_in_its_folder(cli, table, tmp_path):
    good, out = table.read_text(), tmp_path / "mine"
    table.write_text(good.replace("yes", "no"))
    assert "one class" in cli("run", "shallow", "--data", table, "--quick", "--out", out).refusal()
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "failed"
    assert "one class" in info["error"]
    table.write_text(good)
    said = cli("run", "shallow", "--data", table, "--quick", "--out", out)
    assert said.code == 0, said.err
    info = json.loads((out / "run.json").read_text())
    assert info["status"] == "finished"
    assert "error" not in info


def test_refused_in_the_first_fit_and_tried_again(cli, table, tmp_path):
    out = tmp_path / "mine"
    words = ("run", "deep", "--data", table, "--quick", "--out", out)
    assert "batch" in cli(*words, "--batch", "0").refusal()
    assert cli(*words).code == 0


def test_a_folder_with_a_run_is_not_written_over(cli, table, tmp_path):
    out = tmp_path / "mine"
    words = ("run", "shallow", "--data", table, "--quick", "--out", out)
    assert cli(*words).code == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    line = cli(*words, "--seed", "1").refusal()
    assert f"{out} holds a run already" in line
    assert f"deepweave resume {out}" in line
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_run_that_was_cut_in_its_first_part_is_not_written_over(cli, table, tmp_path):
    out = tmp_path / "mine"
    words = ("run", "deep", "--data", table, "--quick", "--out", out)
    assert cli(*words).code == 0
    (out / "checkpoint/last.safetensors").unlink()  # as if only the part "shallow" had been begun
    before = (out / "run.json").read_bytes()
    assert f"{out} holds a run already" in cli(*words).refusal()
    assert (out / "run.json").read_bytes() == before


def test_each_run_gets_a_folder_of_its_own(cli, table, tmp_path):
    for number in (1, 2):
        said = cli("run", "shallow", "--data", table, "--quick")
        assert f"page: runs/shallow-{number}/report.html" in said.out
    assert cli("run", "shallow", "--data", "nowhere.csv").code == 2
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == ["shallow-1", "shallow-2"]


@pytest.mark.parametrize("kind", ["a file", "below a file", "forbidden", "foreign"])
def test_an_unwritable_folder(cli, table, tmp_path, monkeypatch, kind):
    out = tmp_path / "mine"
    told = ["mine", "cannot write"]
    if kind == "a file":
        out.write_text("precious")
        told = ["out must be a folder", "mine is a file"]
    elif kind == "below a file":
        (tmp_path / "mine").write_text("precious")
        out = tmp_path / "mine" / "run"
        told = ["cannot write to", "Not a directory"]
    elif kind == "foreign":
        out.mkdir()
        (out / "run.json").write_text('{"format": "other"}')
        told = ["run.json", "expected the format", "'other'"]
    else:
        import tempfile

        def refuse(**_: object) -> object:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(tempfile, "mkstemp", refuse)
        told = ["cannot write to", "mine", "Permission denied"]
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    line = cli("run", "deep", "--data", table, "--quick", "--out", out).refusal()
    assert all(word in line for word in told), line
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_full_disk_in_training_then_room_again(cli, table, tmp_path):
    """The system itself refuses to let a file grow: nothing is damaged, and the run goes on."""
    words = ["run", "deep", "--data", table, "--quick", "--hidden", "64", "64"]
    assert cli(*words, "--out", tmp_path / "whole").code == 0
    out = tmp_path / "mine"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # enough for the first part only
    try:
        said = cli(*words, "--out", out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.code == 2
    line = said.err.splitlines()[-1]
    assert line.startswith(f"deepweave: cannot write {out}/checkpoint/last.safetensors: File too")
    assert line.endswith(f"go on with: deepweave resume {out}")
    assert "Traceback" not in said.err
    assert not list(out.rglob("*.part"))
    assert cli("resume", out).code == 0
    for name in ("model.safetensors", "shallow/model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_full_disk_at_the_start(cli, table, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    line = cli("run", "deep", "--data", table, "--quick", "--out", tmp_path / "mine").refusal()
    assert "cannot write to" in line
    assert "No space left on device" in line


# --- resume ---------------------------------------------------------------------------------


@pytest.fixture
def run(finished, table, tmp_path) -> Path:
    """A finished run on the table, to be harmed."""
    folder = tmp_path / "mine"
    shutil.copytree(finished / "run", folder)
    book = folder / "run.json"
    book.write_text(book.read_text().replace(str(finished / "table.csv"), str(table)))
    return folder


def test_the_run_that_is_harmed_below_is_a_good_one(cli, run):
    assert cli("resume", run).code == 0


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("cut", ["last.safetensors is damaged"]),
        ("flip", ["last.safetensors is damaged", "checksum", "delete it"]),
        ("header", ["last.safetensors is damaged"]),
        ("foreign", ["expected 'deepweave archive 1'"]),
        ("archive", ["no checkpoint of a run"]),
        ("empty", ["last.safetensors is damaged"]),
        ("other", ["is of another run", "weights"]),
        ("data", ["is of another run", "data"]),
        ("info", ["run.json is damaged"]),
        ("list", ["run.json", "expected the format"]),
        ("newer", ["run.json", "'deepweave run 2'"]),
        ("recipe", ["no recipe 'magic'"]),
        ("setting", ["of another version", "['depth']"]),
        ("no settings", ["of another version"]),
        ("by hand", ["not made by a recipe", "fit"]),
    ],
)
def test_resume_of_a_damaged_run(cli, run, table, harm, told):
    from deepweave import archive

    path, book = run / "checkpoint/last.safetensors", run / "run.json"
    content, info = bytearray(path.read_bytes()), json.loads(book.read_text())
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "flip":
        content[-3] ^= 0xFF
        path.write_bytes(content)
    elif harm == "header":
        at = content.index(b"count")
        content[at : at + 5] = b"c0unt"
        path.write_bytes(content)
    elif harm == "foreign":
        path.write_bytes(save({"weight": torch.zeros(3)}))
    elif harm == "archive":
        archive.save(path, {"nothing": 1})
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "other":
        kept = archive.load(path)
        kept["identity"]["weights"] = "0.weight (3, 3)"
        archive.save(path, kept)
    elif harm == "data":
        table.write_text(table.read_text().replace("yes", "YES"))
    elif harm == "info":
        book.write_text(book.read_text()[:100])
    else:
        changes = {
            "newer": {"format": "deepweave run 2"},
            "recipe": {"recipe": "magic"},
            "setting": {"settings": {**info["settings"], "depth": 3}},
        }
        info |= changes.get(harm, {})
        drop = {"no settings": "settings", "by hand": "recipe"}.get(harm)
        book.write_text(json.dumps([] if harm == "list" else info | {} if drop is None else
                                   {k: v for k, v in info.items() if k != drop}))  # fmt: skip
    model = (run / "model.safetensors").read_bytes()
    line = cli("resume", run).refusal()
    assert all(word in line for word in told), line
    assert (run / "model.safetensors").read_bytes() == model


def test_resume_of_another_folder(cli, tmp_path):
    (tmp_path / "photos").mkdir()
    line = cli("resume", "photos").refusal()
    assert "photos is no folder of a run" in line
    assert list((tmp_path / "photos").iterdir()) == []


# --- predict, export, compare ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("columns", ["lack", '"c", "kind"']),
        ("text", ['column "a"', "'many'", "row 3"]),
        ("no rows", ["no rows"]),
        ("missing", ["there is no file"]),
        ("image", ["learned from tables"]),
        ("label", ["'perhaps'", "no, yes"]),
    ],
)
def test_predict_with_bad_rows(cli, run, table, tmp_path, harm, told):
    frame, path = pd.read_csv(table), tmp_path / "new.csv"
    if harm == "columns":
        frame = frame.drop(columns=["c", "kind"])
    elif harm == "text":
        frame["a"] = frame["a"].astype(object)
        frame.loc[2, "a"] = "many"
    elif harm == "no rows":
        frame = frame.head(0)
    elif harm == "label":
        frame.loc[1, "label"] = "perhaps"
    if harm == "image":
        path = images(tmp_path / "pets")
    elif harm != "missing":
        frame.to_csv(path, index=False)
    line = cli("predict", run, "--data", path, "--out", "out.csv").refusal()
    assert all(word in line for word in told), line
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("out.xlsx", ["out must end in .csv or .npz, got out.xlsx"]),
        ("out", ["out must end in .csv or .npz"]),
        ("nowhere/out.csv", ["there is no folder", "nowhere"]),
    ],
)
def test_predict_to_a_bad_place(cli, run, table, out, told):
    line = cli("predict", run, "--data", table, "--out", out).refusal()
    assert all(word in line for word in told), line


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("model", ["has no trained model", "deepweave resume"]),
        ("weights", ["model.safetensors is damaged"]),
        ("shape", ["must be", "got (5, 5)"]),
        ("unknown", ["has extra, which Sequential has not"]),
        ("lack", ["lacks 0.bias"]),
        ("blueprint", ["expected a name inside deepweave or torch.nn, got 'os.system'"]),
        ("nameless", ["was not made by deepweave"]),
    ],
)
@pytest.mark.parametrize("command", ["predict", "export"])
def test_a_damaged_model(cli, run, table, harm, told, command):
    path, book = run / "model.safetensors", run / "run.json"
    info = json.loads(book.read_text())
    from safetensors.torch import load_file

    weights = load_file(path)
    if harm == "model":
        path.unlink()
    elif harm == "weights":
        path.write_bytes(path.read_bytes()[:-9])
    elif harm == "shape":
        path.write_bytes(save(weights | {"0.weight": torch.zeros(5, 5)}))
    elif harm == "unknown":
        path.write_bytes(save(weights | {"extra": torch.zeros(1)}))
    elif harm == "lack":
        path.write_bytes(save({"0.weight": weights["0.weight"]}))
    elif harm == "blueprint":
        info["model"]["blueprint"] = {"make": "os.system", "with": {"command": "touch harmed"}}
    else:
        info["model"]["blueprint"] = None
    book.write_text(json.dumps(info))
    words = ["--data", table, "--out", "out.csv"] if command == "predict" else []
    line = cli(command, run, *words).refusal()
    assert all(word in line for word in told), line
    assert not Path("harmed").exists()


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_damaged_preparation(cli, run, table, content):
    path = run / "preparation.json"
    path.unlink() if content is None else path.write_text(content)
    line = cli("predict", run, "--data", table, "--out", "out.csv").refusal()
    assert "preparation.json" in line


def test_compare_of_something_else(cli, run, tmp_path):
    (tmp_path / "photos").mkdir()
    assert "photos" in cli("compare", run, "photos").refusal()
    assert not (tmp_path / "comparison.html").exists()


# --- interrupted and stopped ----------------------------------------------------------------


def test_ctrl_c_says_how_to_go_on(cli, table, tmp_path, monkeypatch):
    from deepweave.hooks import Log

    real = Log.after_step

    def press(self, loop, logs):
        real(self, loop, logs)
        if loop.count == 3:
            raise KeyboardInterrupt

    out = tmp_path / "mine"
    monkeypatch.setattr(Log, "after_step", press)
    said = cli("run", "shallow", "--data", table, "--quick", "--out", out)
    assert said.code == 130
    last = said.err.splitlines()[-1]
    assert last == f"deepweave: stopped; go on with: deepweave resume {out}"
    assert json.loads((out / "run.json").read_text())["status"] == "interrupted"
    monkeypatch.setattr(Log, "after_step", real)
    assert cli("resume", out).code == 0
    assert json.loads((out / "run.json").read_text())["status"] == "finished"


def test_a_rate_too_high_is_explained(cli, table):
    """Training that blows up ends with the reason, not with a useless model."""
    words = ["--activation", "identity", "--smoothing", "0", "--lr", "1e38", "--norm", "layer"]
    said = cli("run", "deep", "--data", table, *words, "--quick")
    assert said.code == 2
    last = said.err.splitlines()[-1]
    assert last.startswith("deepweave: fit: step ")
    assert "lower learning rate" in last or "Clip" in last
    assert "the weights are as they were before it" in last


def test_a_fault_of_the_program_shows_its_traceback(cli, table, monkeypatch):
    from deepweave.hooks import Log

    def fault(self, loop, logs):
        raise ZeroDivisionError

    monkeypatch.setattr(Log, "after_step", fault)
    said = cli("run", "shallow", "--data", table, "--quick")
    assert said.code == 1
    assert "Traceback" in said.err


@pytest.mark.long
def test_a_million_rows(cli, tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(1_000_000, 2)).astype(np.float32).round(3)
    frame = pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "label": (x[:, 0] > x[:, 1]).astype(int)})
    path = tmp_path / "large.csv"
    frame.to_csv(path, index=False)
    said = cli("run", "shallow", "--data", path, "--batch", "8192", "--quick", "--out", "large")
    assert said.code == 0, said.err
    info = json.loads(Path("large/run.json").read_text())
    assert info["data"]["splits"] == {"train": 700_000, "validation": 150_000, "test": 150_000}
    assert info["scores"]["test/accuracy"]["value"] > 0.97
