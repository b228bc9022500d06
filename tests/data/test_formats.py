from __future__ import annotations

import sys

import pandas as pd
import pytest
import torch

from deepweave.data import load, read

ROWS = "".join(f"{i % 7}.5,{'ab'[i % 2]},{'yes' if i % 3 else 'no'}\n" for i in range(60))


def test_a_csv_with_missing_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("size,kind,label\n" + ROWS + ",a,yes\n?,,no\n")
    data = load(path)
    assert data.spec.task == "binary"
    assert data.spec.classes == ("no", "yes")
    assert data.spec.targets == ("label",)
    assert sum(map(len, data.splits.values())) == 62
    assert all(bool(split.x.isfinite().all()) for split in data.splits.values())
    assert 'The target is "label", by its name.' in data.preparation.sentences


@pytest.mark.parametrize("form", ["tsv", "semicolons", "bom", "parquet"])
def test_other_forms_hold_the_same(tmp_path, form):
    text = "size,kind,label\n" + ROWS
    plain = tmp_path / "a.csv"
    plain.write_text(text)
    path = tmp_path / f"b.{form if form in ('tsv', 'parquet') else 'csv'}"
    if form == "parquet":
        pd.read_csv(plain).to_parquet(path)
    elif form == "bom":
        path.write_text(text, encoding="utf-8-sig")
    elif form == "semicolons":
        path.write_text(text.replace(",", ";").replace(".5", ",5"))
    else:
        path.write_text(text.replace(",", "\t"))
    one, other = load(plain), load(path)
    assert torch.equal(one.train.x, other.train.x)
    assert torch.equal(one.train.y, other.train.y)


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        ("", {}, "is empty"),
        ("a,y\n", {}, "there are no rows"),
        ("a,b,a\n1,2,3\n", {}, 'two columns named "a"'),
        ("a, a\n1,2\n", {}, 'two columns named "a"'),
        ("5.1,3.5\n1,2\n", {}, "must name the columns, got 5.1,3.5"),
        ("a,y\n1,2\n1,2,3\n", {}, "cannot read"),
        ("a,y\n1,2,3\n4,5,6\n", {}, "cannot read"),
        ("y\n1\n", {}, "got 1 column"),
        ("size,kind,label\n" + ROWS, {"target": "lable"}, 'not a column; did you mean "label"?'),
        ("a,y\n" + "1,0\n2,1\n" * 9 + "3,\n", {}, "missing or not finite in 1 of 19 rows"),
        ("a,y\n" + "1,0\n2,1\n" * 9 + "inf,1\n", {}, 'column "a" is infinite in row 19'),
        ("a,y\n" + "1,0\n2,1\n" * 9 + "abc,1\n", {}, "row 19 has 'abc'"),
    ],
)
def test_errors(tmp_path, text, options, said):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        load(path, **options)
    assert "\n" not in str(caught.value)


def test_text_that_is_no_utf8(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("größe,y\n1,2\n".encode("latin-1"))
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        load(path)


def test_a_missing_extra_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="cannot read"):
        load(path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r'needs pyarrow: pip install "deepweave\[parquet\]"'):
        load(path)


def test_a_model_of_images_reads_no_table(tmp_path):
    (tmp_path / "a.csv").write_text("a,y\n1,2\n")
    with pytest.raises(ValueError, match=r"learned from images, but .*a\.csv holds tables"):
        read(tmp_path / "a.csv", load("digits", limit=100).preparation)
