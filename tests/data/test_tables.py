from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch

from deepweave.data import Preparation, load, read


def frame(count: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 10, count)
    age[::10] = np.nan
    return pd.DataFrame(
        {
            "name": [f"p{i}" for i in range(count)],
            "age": age,
            "rooms": rng.integers(1, 9, count),
            "town": rng.choice(["Ulm", "Bonn", "Kiel"], count),
            "day": pd.date_range("2024-01-01", periods=count).strftime("%Y-%m-%d"),
            "same": 7,
            "price": rng.normal(300, 50, count),
        }
    )


def test_numbers_are_those_of_the_training_rows():
    table = frame()
    data = load(table)
    assert data.spec.task == "regression"
    names = data.spec.features
    assert names == (
        "age", "age missing", "rooms", "town = Bonn", "town = Kiel", "town = Ulm", "day",
    )  # fmt: skip
    # the training rows, found again by their target
    held = data.preparation.restore(data.train.y.double()).numpy()
    rows = np.abs(table["price"].to_numpy()[None] - held[:, None]).argmin(1)
    age = table["age"].to_numpy()[rows]
    filled = np.where(np.isnan(age), np.nanmedian(age), age)
    expected = (filled - filled.mean()) / filled.std()
    np.testing.assert_allclose(data.train.x[:, 0], expected, atol=1e-5)
    np.testing.assert_array_equal(data.train.x[:, 1], np.isnan(age))
    town = (table["town"].to_numpy()[rows] == "Kiel").astype(float)
    np.testing.assert_array_equal(data.train.x[:, 4], town)
    days = pd.to_datetime(table["day"][rows]).astype("int64").to_numpy(dtype=float)
    np.testing.assert_allclose(data.train.x[:, 6], (days - days.mean()) / days.std(), atol=1e-5)
    said = " ".join(data.preparation.sentences)
    assert 'The target is "price", the last column.' in said
    assert 'constant in training: column "same"' in said
    assert 'a name, not a property): column "name"' in said


def test_nothing_of_the_test_rows_is_learned():
    table = frame()
    data = load(table)
    held = data.preparation.restore(data.test.y.double()).numpy()
    rows = np.abs(table["price"].to_numpy()[None] - held[:, None]).argmin(1)
    table.loc[rows, ["age", "rooms", "price"]] *= 1000
    table.loc[rows, "town"] = "Rom"
    changed = load(table)
    assert changed.preparation.to_json()["features"] == data.preparation.to_json()["features"]
    assert changed.preparation.target == data.preparation.target
    assert torch.equal(changed.train.x, data.train.x)


def test_targets_are_standardised_and_restored():
    data = load(frame())
    assert abs(data.train.y.mean()) < 1e-5
    assert abs(data.train.y.std(correction=0) - 1) < 1e-5
    everything = torch.cat([split.y for split in data.splits.values()])
    restored = data.preparation.restore(everything).sort().values
    np.testing.assert_allclose(restored, np.sort(frame()["price"]), rtol=1e-5)


def test_json_round_trip_is_exact(tmp_path):
    data = load(frame())
    again = Preparation.from_json(json.loads(json.dumps(data.preparation.to_json())))
    assert again == data.preparation
    raw = frame(seed=1).drop(columns="price")
    assert torch.equal(again.inputs(raw), data.preparation.inputs(raw))
    y = torch.randn(9)
    assert torch.equal(again.restore(y), data.preparation.restore(y))
    assert again.spec == data.spec


def test_new_rows():
    preparation = load(frame()).preparation
    raw = frame(20, seed=1).drop(columns=["price", "name", "same"])
    plain = preparation.inputs(raw)
    assert torch.equal(preparation.inputs(raw[raw.columns[::-1]]), plain)
    unseen = preparation.inputs(raw.assign(town="Paris"))
    assert bool((unseen[:, 3:6] == 0).all())
    with pytest.raises(ValueError, match='lack column "rooms"'):
        preparation.inputs(raw.drop(columns="rooms"))
    with pytest.warns(UserWarning, match='column "moon" not seen in training'):
        assert torch.equal(preparation.inputs(raw.assign(moon=1)), plain)
    with pytest.raises(ValueError, match="\"rooms\" holds numbers, but row 3 has 'two'"):
        preparation.inputs(raw.assign(rooms=[1, 2, "two"] + [3] * 17))


def test_rare_and_unseen_categories_share_a_column():
    table = pd.DataFrame({"a": ["x"] * 500 + ["y"] * 500 + ["z"] * 3, "y": [0, 1] * 501 + [0]})
    preparation = load(table).preparation
    assert preparation.spec.features == ("a = x", "a = y", "a = other")
    rows = preparation.inputs(pd.DataFrame({"a": ["y", "z", "new", None]}))
    assert rows.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]


def test_missing_categories_are_a_category():
    table = pd.DataFrame({"a": ["x", None] * 50, "y": [0, 1] * 50})
    assert load(table).spec.features == ("a = (missing)", "a = x")


def test_a_row_number_is_no_property():
    table = pd.DataFrame({"id": range(100), "a": np.arange(100) % 7, "y": [0, 1] * 50})
    assert load(table).spec.features == ("a",)


def test_text_in_a_column_of_numbers():
    column: list[object] = ["1.5"] * 100
    column[41] = "abc"
    table = pd.DataFrame({"a": column, "y": [0, 1] * 50})
    with pytest.raises(ValueError, match="column \"a\" holds numbers, but row 42 has 'abc'"):
        load(table)
    table["a"] = ["1", "2", "x"] * 33 + ["1"]  # a third is text: categories
    assert load(table).spec.features == ("a = 1", "a = 2", "a = x")


def test_arrays_keep_their_columns():
    x = np.random.default_rng(0).normal(5, 3, (100, 4))
    x[:, 2] = 1.25
    data = load((x, np.arange(100) % 3))
    assert data.spec.shape == (4,)
    assert bool((data.train.x[:, 2] == 0).all())
    np.testing.assert_allclose(data.train.x[:, 0].mean(), 0, atol=1e-6)
    assert any('zero: column "x2"' in said for said in data.preparation.sentences)
    with pytest.raises(ValueError, match=r"must be \(N, 4\), got \(5, 3\)"):
        data.preparation.inputs(x[:5, :3])


def test_the_target_by_its_usual_name():
    table = pd.DataFrame({"y": [0, 1] * 30, "Label": list("abc") * 20, "a": range(60)})
    assert load(table).spec.targets == ("Label",)
    assert load(table, target="y").spec.targets == ("y",)


def test_infinite_new_values():
    preparation = load(frame()).preparation
    with pytest.raises(ValueError, match='inputs: column "rooms" is infinite in row 1'):
        preparation.inputs(frame(5).assign(rooms=np.inf))


def test_nothing_to_learn_from():
    with pytest.raises(ValueError, match="no column is left"):
        load(pd.DataFrame({"a": 1, "y": [0, 1] * 10}))


@pytest.mark.parametrize("dtype", ["Int64", "Float64", "boolean", "category", "string"])
def test_the_types_of_pandas(dtype):
    held = pd.Series([1, 0, None, 1] * 25).astype("Int64")
    held = held.astype("string").astype("category") if dtype == "category" else held.astype(dtype)
    data = load(pd.DataFrame({"a": held, "y": [0, 1] * 50}))
    assert bool(data.train.x.isfinite().all())
    assert len(data.spec.features) in (2, 3)


def test_a_million_rows():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=1_000_000), "b": rng.integers(0, 9, 1_000_000)})
    table["c"] = np.asarray(["u", "v", "w"])[table["b"] % 3]
    table["y"] = (table["a"] > 0).astype(int)
    data = load(table)
    assert len(data.train) == 700_000
    assert data.spec.shape == (5,)
    assert abs(data.train.y.double().mean() - data.test.y.double().mean()) < 1e-5


def test_read_gives_inputs_targets_and_names(tmp_path):
    data = load(frame())
    new = frame(12, seed=2)
    new.to_csv(tmp_path / "new.csv", index=False)
    x, y, ids = read(tmp_path / "new.csv", data.preparation)
    assert x.shape == (12, 7)
    assert y is not None
    np.testing.assert_allclose(data.preparation.restore(y), new["price"], rtol=1e-5)
    assert ids[:2] == ["p0", "p1"]
    new.drop(columns=["price", "name"]).to_csv(tmp_path / "new.csv", index=False)
    again, y, ids = read(tmp_path / "new.csv", data.preparation)
    assert y is None
    assert ids == list(range(1, 13))
    assert torch.equal(again, x)


def test_a_read_of_classes_knows_them():
    data = load(pd.DataFrame({"a": np.arange(60) % 7, "kind": ["no", "yes", "no"] * 20}))
    new = pd.DataFrame({"a": [1, 2], "kind": ["yes", "no"]})
    y = read(new, data.preparation)[1]
    assert y is not None
    assert y.tolist() == [1, 0]
    with pytest.raises(ValueError, match="'maybe' in row 2, which is not one of the classes"):
        read(new.assign(kind=["yes", "maybe"]), data.preparation)
    with pytest.raises(ValueError, match="no rows"):
        read(new.head(0), data.preparation)
