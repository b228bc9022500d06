from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

from deepweave.data import Preparation, load, names, read

X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 3


@pytest.mark.parametrize(
    ("name", "task", "shape", "outputs", "rows"),
    [
        ("digits", "multiclass", (1, 8, 8), 10, 1797),
        ("breast_cancer", "binary", (30,), 1, 569),
        ("wine", "multiclass", (13,), 3, 178),
        ("iris", "multiclass", (4,), 3, 150),
        ("diabetes", "regression", (10,), 1, 442),
    ],
)
def test_named_sets(name, task, shape, outputs, rows):
    data = load(name)
    spec = data.spec
    assert (data.name, spec.task, spec.shape, spec.outputs) == (name, task, shape, outputs)
    assert sum(len(split) for split in data.splits.values()) == rows
    assert data.train.x.dtype == torch.float32
    assert data.train.y.dtype == (torch.float32 if task == "regression" else torch.int64)
    assert data.title
    assert data.source
    assert data.licence
    preparation = Preparation.from_json(json.loads(json.dumps(data.preparation.to_json())))
    assert preparation == data.preparation
    assert preparation.spec == spec


def test_digits_lie_in_zero_to_one():
    x = load("digits").train.x
    assert (x.min(), x.max()) == (0, 1)


def test_the_same_seed_gives_the_same_data():
    assert load("wine").fingerprint == load("wine").fingerprint
    assert load("wine").fingerprint != load("wine", seed=1).fingerprint


def test_every_class_is_in_every_split():
    counts = load("wine", splits=(0.9, 0.05, 0.05)).summary()["class_counts"]
    assert all(min(count) >= 1 for count in counts.values())


def test_limit_keeps_the_classes_in_proportion():
    data = load("digits", limit=200)
    assert sum(len(split) for split in data.splits.values()) == 200
    assert max(data.summary()["class_counts"]["train"]) <= 16
    # a class that the limit leaves with one row is learned, not refused
    small = load((X[:30], np.array([0] * 28 + [1] * 2)), limit=6)
    assert small.spec.task == "binary"


def test_names_are_known():
    assert {"digits", "mnist", "fashion_mnist"} <= set(names())


def test_tensors():
    data = load((torch.from_numpy(X), torch.from_numpy(Y)), target="kind")
    assert data.spec.targets == ("kind",)
    assert data.spec.classes == ("0", "1", "2")
    half = load((torch.from_numpy(X).bfloat16(), torch.from_numpy(Y)))
    assert half.train.x.dtype == torch.float32


@pytest.mark.parametrize(
    ("y", "task", "outputs", "classes"),
    [
        (np.array(["b", "a"] * 30), "binary", 1, ("a", "b")),
        (np.array([True, False] * 30), "binary", 1, ("False", "True")),
        (np.array([-1, 1] * 30), "binary", 1, ("-1", "1")),
        (np.array([0.0, 1.0] * 30), "binary", 1, ("0.0", "1.0")),
        (np.array(list("xyz") * 20, dtype=object), "multiclass", 3, ("x", "y", "z")),
        (np.array([10, 9, 2] * 20), "multiclass", 3, ("2", "9", "10")),
        (np.arange(60), "regression", 1, ()),
        (np.arange(60) / 7, "regression", 1, ()),
        (np.stack([Y > 0, Y > 1], 1), "multilabel", 2, ("y0", "y1")),
        (np.stack([Y, Y * 2.5], 1), "regression", 2, ()),
        (Y[:, None], "multiclass", 3, ("0", "1", "2")),
    ],
)
def test_the_target_makes_the_task(y, task, outputs, classes):
    data = load((X, y))
    assert (data.spec.task, data.spec.outputs, data.spec.classes) == (task, outputs, classes)
    assert data.train.y.shape[1:] == ((2,) if len(data.spec.targets) == 2 else ())


def test_a_told_task_overrides():
    assert load((X, Y), task="regression").spec.task == "regression"
    assert load((X, Y % 2), task="multiclass").spec.outputs == 2
    assert load((X, Y.astype(float)), task="multiclass").spec.outputs == 3
    hot = load((X, np.eye(3)[Y]), task="multiclass")
    assert (hot.spec.outputs, hot.train.y.dtype) == (3, torch.int64)


def test_several_quantities_are_restored_one_by_one():
    y = np.stack([Y * 10.0 + 3, X[:, 0] * 0.01], 1)
    data = load((X, y))
    held = data.preparation.restore(torch.cat([s.y for s in data.splits.values()]))
    np.testing.assert_allclose(np.sort(held.numpy(), 0), np.sort(y, 0), atol=1e-4)
    with pytest.raises(ValueError, match=r"must be \(N, 2\), got \(5, 3\)"):
        data.preparation.restore(torch.zeros(5, 3))


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ((X, Y[:50]), {}, "one length, got 60 and 50"),
        ((X[:, 0], Y), {}, r"give x\[:, None\]"),
        ((X[:0], Y[:0]), {}, "there are no rows"),
        ((X[:2], Y[:2]), {"task": "regression"}, "2 rows are too few"),
        ((np.where(X > 1, np.nan, X), Y), {}, r"NaN or Inf in \d+ of 60 rows, the first is row"),
        ((np.where(X > 1, np.inf, X), Y), {}, "NaN or Inf"),
        ((X, np.where(Y > 1, np.nan, Y)), {}, "not finite in 20 of 60 rows, the first is row 3"),
        ((X, np.array(["a", None] * 30, dtype=object)), {}, "missing in 30 of 60 rows"),
        ((X, np.zeros(60, int)), {}, r"one class only \(0\)"),
        ((X, np.zeros(60)), {"task": "regression"}, "one value only"),
        ((X, np.array([0] * 59 + [1])), {}, 'class "1" of target "y" has one row only'),
        ((X, np.array([f"n{i}" for i in range(60)])), {}, "looks like a name of the row"),
        ((X, Y), {"task": "binary"}, "needs two classes"),
        ((X, Y), {"task": "ranking"}, "task must be one of"),
        ((X, np.array(["a", "b"] * 30)), {"task": "regression"}, "must be numbers, got 'a' in row"),
        ((X, np.zeros((60, 2, 2))), {}, r"y must be \(N,\) or \(N, T\)"),
        ((X.astype(str), Y), {}, "x must be numbers"),
        (([[1, 2], [3]], [0, 1]), {}, "regular arrays"),
        ((np.zeros((60, 1, 1, 1, 1)), Y), {}, "images must be"),
        ((X, np.stack([Y, Y], 1)), {"task": "multilabel"}, "must be 0 or 1"),
        ((X, np.stack([Y, Y], 1)), {"task": "binary"}, "takes one target column"),
        ((X, np.ones((60, 3))), {"task": "multiclass"}, "exactly one 1 in each row"),
        ((X, Y), {"splits": (0.5, 0.2, 0.2)}, "three positive shares"),
        ((X, Y), {"limit": 2}, "limit must be at least 3"),
        ("digit", {}, 'did you mean "digits"'),
        ("zzzz", {}, "named are digits"),
        ("digits", {"target": "y"}, "has its own target"),
    ],
)
def test_errors_say_what_is_wrong(source, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value)


def test_other_errors(tmp_path):
    (tmp_path / "house.csv").write_text("a,y\n1,2\n")
    with pytest.raises(FileNotFoundError, match=r'no file or folder .*; did you mean "house\.csv"'):
        load(tmp_path / "hose.csv")
    with pytest.raises(FileNotFoundError):
        load("no/such/folder")
    (tmp_path / "a.xyz").write_text("1")
    with pytest.raises(ValueError, match=r'its ending "\.xyz"; known are \.csv'):
        load(tmp_path / "a.xyz")
    with pytest.raises(TypeError, match="got int"):
        load(3)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.csv", load("iris").preparation)


def test_an_npz_of_one_part(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y, classes=np.array(["u", "v", "w"]), features=list("abc"))
    data = load(tmp_path / "a.npz")
    assert data.spec.classes == ("u", "v", "w")
    assert data.spec.features == ("a", "b", "c")
    x, y, ids = read(tmp_path / "a.npz", data.preparation)
    assert y is not None
    assert (len(x), y.tolist(), ids[-1]) == (60, Y.tolist(), 60)


def test_an_npz_keeps_its_own_splits(tmp_path):
    np.savez(tmp_path / "a.npz", train_x=X[:40], train_y=Y[:40], test_x=X[40:], test_y=Y[40:])
    data = load(tmp_path / "a.npz")
    assert torch.equal(data.test.y, torch.from_numpy(Y[40:]))
    assert [len(split) for split in data.splits.values()] == [33, 7, 20]
    # the test rows take no part in what is fitted
    shifted = X.copy()
    shifted[40:] += 100
    np.savez(tmp_path / "b.npz", train_x=X[:40], train_y=Y[:40], test_x=shifted[40:], test_y=Y[40:])
    assert torch.equal(load(tmp_path / "b.npz").train.x, data.train.x)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"x": X}, "it lacks y; it holds x"),
        ({"train_x": X, "train_y": Y, "test_x": X}, "lacks test_y"),
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "class numbers 0 to 1, got 2 in row 3"),
        ({"x": X, "y": Y - 1, "classes": ["a", "b", "c"]}, "0 to 2, got -1 in row 1"),
        ({"x": X, "y": Y, "features": ["a"]}, "names 1 features, but x has 3 columns"),
        (
            {"train_x": X, "train_y": Y, "test_x": X, "test_y": Y + 1},
            "3 in row 63, which is not one of the classes 0, 1, 2",
        ),
        ({"train_x": X, "train_y": Y, "test_x": X[:, :2], "test_y": Y}, "different shapes"),
        ({"x": np.array([None, {}]), "y": Y}, "cannot read .*allow_pickle=False"),
    ],
)
def test_npz_errors(tmp_path, held, said):
    np.savez(tmp_path / "a.npz", **held)
    with pytest.raises(ValueError, match=said):
        load(tmp_path / "a.npz")


def test_a_broken_npz(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\3\4 nothing more")
    with pytest.raises(ValueError, match=r"cannot read .*a\.npz"):
        load(tmp_path / "a.npz")
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(ValueError, match="one array, not a"):
        load(tmp_path / "a.npz")


def test_several_columns_of_a_table():
    table = pd.DataFrame({"a": X[:, 0], "u": Y > 0, "v": Y > 1}).astype({"u": int, "v": int})
    data = load(table, target=["u", "v"])
    assert (data.spec.task, data.spec.classes) == ("multilabel", ("u", "v"))
    assert data.summary()["class_counts"]["train"] == data.train.y.sum(0).tolist()


def test_importing_stays_light():
    heavy = "pandas sklearn matplotlib PIL pyarrow scipy"
    code = f"import deepweave.data, sys; print([m for m in {heavy.split()} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
