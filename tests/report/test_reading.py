"""Folders that are no run, are broken, or were cut short: one clear line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deepweave import report
from deepweave.report.reading import read


@pytest.mark.parametrize("what", [report.page, report.card])
def test_no_folder_and_no_run(what: Callable[[Path], Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"report: there is no folder .*gone"):
        what(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"is no run: it holds no run\.json"):
        what(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"format": "deepweave run 1", "sco', "is not whole JSON"),
        (b"\xff\xfe\x00", "is not whole JSON"),
        (b"[]", 'is no run: expected "format"'),
        (b'{"format": "something else"}', 'is no run: expected "format"'),
        (b'{"format": "deepweave run 2"}', 'reads "deepweave run 1": update deepweave'),
        (b'{"format": "deepweave run 1", "scores": []}', '"scores" is a list: repair it'),
        (b'{"format": "deepweave run 1", "figures": {}}', '"figures" is a dict: repair it'),
    ],
)
def test_broken_heads(text: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(ValueError, match=words) as error:
        report.page(tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "report.html").exists()


def test_a_last_line_cut_by_a_kill_is_noted(copy: Callable[..., Path]) -> None:
    folder = copy("binary")
    whole = read(folder)
    log = folder / "log.jsonl"
    log.write_bytes(log.read_bytes() + b'{"step": 999, "train/lo')
    found = read(folder)
    assert found.log == whole.log
    assert found.notes == ["The last line of log.jsonl was cut off and is left out."]
    assert "was cut off" in report.page(folder).read_text()


def test_a_broken_line_in_the_middle_is_noted(copy: Callable[..., Path]) -> None:
    folder = copy("binary")
    lines = (folder / "log.jsonl").read_text().splitlines()
    (folder / "log.jsonl").write_text("\n".join([lines[0], "[1]", *lines[1:]]) + "\n")
    found = read(folder)
    assert len(found.log) == len(lines)
    assert found.notes == ["Line 2 of log.jsonl is not JSON and is left out."]


def test_broken_tensors_are_noted(copy: Callable[..., Path]) -> None:
    folder = copy("binary")
    raw = (folder / "test.safetensors").read_bytes()
    (folder / "test.safetensors").write_bytes(raw[: len(raw) // 2])
    found = read(folder)
    assert found.prediction is None
    assert found.notes[0].startswith("test.safetensors could not be read and is left out")
    report.page(folder)


def test_scores_that_are_no_numbers_are_left_out(copy: Callable[..., Path]) -> None:
    scores = {"test/accuracy": {"value": float("nan")}, "test/auc": {"value": None}, "test/f1": 0.5}
    found = read(copy("binary", scores=scores))
    assert list(found.scores()) == ["test/f1"]
    assert found.main() == "test/f1"


def test_main_score_by_task(runs: dict[str, Path]) -> None:
    main = {task: read(folder).main() for task, folder in runs.items()}
    assert main == {
        "multiclass": "test/accuracy", "binary": "test/accuracy", "regression": "test/rmse",
        "multilabel": "test/f1_micro", "segmentation": "test/dice",
    }  # fmt: skip
