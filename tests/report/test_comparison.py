"""Runs side by side: differences as computed by hand, honest where they cannot be paired."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deepweave import report
from deepweave.report.comparison import differences, table
from deepweave.report.reading import read


@pytest.fixture
def two(copy: Callable[..., Path]) -> tuple[Path, Path]:
    """The digits' run, and a copy whose answers are spoilt in 30 places."""
    first = copy("multiclass", "first")
    second = copy("multiclass", "second", settings={"hidden": [8], "epochs": 30, "lr": 0.003})
    test = load_file(second / "test.safetensors")
    spoilt = test["prediction"].copy()
    spoilt[:30] = np.roll(spoilt[:30], 1, axis=1)
    save_file({"prediction": spoilt, "target": test["target"]}, second / "test.safetensors")
    return first, second


def test_differences_by_hand(two: tuple[Path, Path]) -> None:
    first, second = map(read, two)
    found = {row.key: row for row in differences(first, second)}
    assert first.prediction is not None
    assert second.prediction is not None
    right = [(r.prediction.argmax(1) == r.target).astype(float) for r in (first, second)]  # pyright: ignore[reportOptionalMemberAccess]
    exact = right[1].mean() - right[0].mean()
    row = found["test/accuracy"]
    assert row.value == pytest.approx(exact, abs=1e-12)
    error = np.std(right[1] - right[0]) / np.sqrt(len(right[0]))
    assert row.high - row.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert row.low < row.value < row.high < 0
    assert row.clear
    assert found["test/log_loss"].low > 0


def test_a_run_does_not_differ_from_itself(runs: dict[str, Path]) -> None:
    for task, folder in runs.items():
        rows = differences(read(folder), read(folder))
        assert rows, task
        assert all(row[1:] == (0, 0, 0) and not row.clear for row in rows)


def test_rmse_is_the_difference_of_roots(copy: Callable[..., Path]) -> None:
    first, second = copy("regression", "a"), copy("regression", "b")
    test = load_file(second / "test.safetensors")
    save_file({"prediction": test["prediction"] + 20, "target": test["target"]},
              second / "test.safetensors")  # fmt: skip
    tests = [load_file(folder / "test.safetensors") for folder in (first, second)]
    roots = [np.sqrt(np.mean((t["prediction"] - t["target"]) ** 2)) for t in tests]
    row = differences(read(first), read(second))[0]
    assert row.key == "test/rmse"
    assert row.value == pytest.approx(roots[1] - roots[0], rel=1e-6)


def test_other_test_sets_are_not_paired(two: tuple[Path, Path], runs: dict[str, Path]) -> None:
    other = runs["binary"]
    with pytest.raises(ValueError, match="were not tested on the same samples"):
        differences(read(two[0]), read(other))
    text = report.compare([two[0], two[1], other], two[0].parent / "c.html").read_text()
    assert "Not all runs were tested on the same samples as first" in text
    assert text.count('<th scope="row" class="text">second</th>') == 2


def test_equal_fingerprints_with_other_targets_are_not_paired(two: tuple[Path, Path]) -> None:
    test = load_file(two[1] / "test.safetensors")
    save_file({"prediction": test["prediction"], "target": test["target"][::-1].copy()},
              two[1] / "test.safetensors")  # fmt: skip
    with pytest.raises(ValueError, match="same samples"):
        differences(*map(read, two))


def test_page_shows_what_differs(two: tuple[Path, Path]) -> None:
    out = report.compare(two, two[0].parent / "c.html")
    text = out.read_text()
    differing = text.split('id="settings"')[1]
    assert re.search(r">hidden</th><td[^>]*>\[32\]</td><td[^>]*>\[8\]</td>", differing)
    assert ">epochs<" not in differing
    assert "worse" in text.split('id="differences"')[1]
    assert text.count("<svg") == 4  # the scores and three curves
    assert "<script" not in text
    assert not re.search(r"(src|href)=\"http|@import|url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


def test_table_for_the_terminal(two: tuple[Path, Path]) -> None:
    rows = table(two)
    score = json.loads((two[0] / "run.json").read_text())["scores"]["test/accuracy"]
    assert rows[0] == ["", "first", "second"]
    assert rows[1][0] == "Accuracy"
    assert rows[1][1].startswith(f"{100 * score['value']:.1f}")
    assert {len(row) for row in rows} == {3}
    assert "Parameters" in [row[0] for row in rows]


def test_one_folder_is_refused(two: tuple[Path, Path]) -> None:
    with pytest.raises(ValueError, match="expected two folders or more, got 1"):
        report.compare(two[:1], two[0] / "c.html")
