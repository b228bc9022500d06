"""A run's folder read for the page, the card and the comparison."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepweave.report.words import Score, scores_of

FORMAT = "deepweave run 1"

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "settings": dict,
    "versions": dict,
    "data": dict,
    "model": dict,
    "optimizer": dict,
    "best": dict,
    "scores": dict,
    "baseline": dict,
    "rivals": dict,
    "diagnostics": list,
    "advice": list,
    "figures": list,
    "tables": list,
    "title": str,
    "question": str,
    "command": str,
    "seconds": (int, float),
}


_FIRST = {
    "binary": ("accuracy", "auc", "f1"),
    "multiclass": ("accuracy", "f1_macro"),
    "multilabel": ("f1_micro", "f1_macro", "average_precision_macro", "subset_accuracy"),
    "regression": ("rmse", "mae", "r2"),
    "tokens": ("bits", "perplexity", "accuracy"),
    "segmentation": ("dice", "dice_macro", "iou", "iou_macro", "pixel_accuracy", "accuracy"),
}


@dataclass(frozen=True)
class Reading:
    """All that a run's folder says, and ``notes`` on what could not be read."""

    folder: Path
    run: dict[str, Any]
    log: list[dict[str, Any]]
    prediction: np.ndarray | None
    target: np.ndarray | None
    examples: dict[str, np.ndarray]
    figures: list[dict[str, str]]
    notes: list[str]

    @property
    def data(self) -> dict[str, Any]:
        return self.run.get("data") or {}

    @property
    def spec(self) -> dict[str, Any]:
        return self.data.get("spec") or {}

    @property
    def task(self) -> str:
        return str(self.spec.get("task", ""))

    @property
    def unit(self) -> str:
        return str(self.spec.get("unit") or "")

    @property
    def image(self) -> bool:
        return self.spec.get("kind") == "image"

    @property
    def title(self) -> str:
        return self.run.get("title") or f"{self.run.get('recipe', 'A run')} on {self.data_title}"

    @property
    def data_title(self) -> str:
        return str(self.data.get("title") or self.data.get("name") or "unnamed data")

    @property
    def fingerprint(self) -> str:
        return str(self.data.get("fingerprint") or "")

    def classes(self, count: int) -> list[str]:
        """The names of ``count`` classes or labels, numbers where the run names none."""
        names = [str(name) for name in self.spec.get("classes") or ()]
        return names if len(names) == count else [str(i) for i in range(count)]

    def scores(self, field: str = "scores") -> dict[str, Score]:
        """The scores in ``field`` ("scores" or "baseline") that are numbers, by key."""
        return scores_of(self.run.get(field) or {})

    def rivals(self) -> dict[str, dict[str, Score]]:
        """The scores of each rival, by its name."""
        found = self.run.get("rivals") or {}
        return {str(k): scores_of(v) for k, v in found.items() if isinstance(v, Mapping)}

    def main(self) -> str | None:
        """The key of the score that the title names."""
        scores = self.scores()
        named = self.run.get("main")
        if named in scores:
            return str(named)
        for name in _FIRST.get(self.task, ()):
            if f"test/{name}" in scores:
                return f"test/{name}"
        return next((key for key in scores if key.startswith("test/")), next(iter(scores), None))


def read(folder: str | os.PathLike[str]) -> Reading:
    """Read the folder of a run; all but ``run.json`` may be missing.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no ``run.json``.
        ValueError: ``run.json`` is broken, or was written by a newer deepweave.
    """
    folder = Path(folder)
    run = _head(folder)
    notes: list[str] = []
    log = _log(folder / "log.jsonl", notes)
    test = _tensors(folder / "test.safetensors", notes)
    prediction, target = test.get("prediction"), test.get("target")
    if test and (prediction is None or target is None or len(prediction) != len(target)):
        notes.append("test.safetensors left out: it needs prediction and target of one length.")
        prediction = target = None
    examples = _tensors(folder / "examples.safetensors", notes)
    figures = _figures(folder, run.get("figures") or [], notes)
    return Reading(folder, run, log, prediction, target, examples, figures, notes)


def _head(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if not folder.is_dir():
        raise FileNotFoundError(f"report: there is no folder {folder}")
    if not path.is_file():
        raise FileNotFoundError(f"report: {folder} is no run: it holds no run.json")
    try:
        run = json.loads(path.read_bytes())
    except ValueError as error:  # also UnicodeDecodeError
        raise ValueError(f"report: {path} is not whole JSON ({error}): repeat the run") from None
    if not isinstance(run, dict) or not str(run.get("format", "")).startswith("deepweave run "):
        raise ValueError(f'report: {path} is no run: expected "format": "{FORMAT}"')
    if run["format"] != FORMAT:
        raise ValueError(
            f'report: {path} is of format "{run["format"]}", this deepweave reads "{FORMAT}": '
            "update deepweave"
        )
    for name, kind in _FIELDS.items():
        if run.get(name) is not None and not isinstance(run[name], kind):
            raise ValueError(f'report: {path}: "{name}" is a {type(run[name]).__name__}: repair it')
    return run


def _log(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number == len(lines):
            notes.append("The last line of log.jsonl was cut off and is left out.")
        else:
            notes.append(f"Line {number} of log.jsonl is not JSON and is left out.")
    return rows


def _tensors(path: Path, notes: list[str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        notes.append(f"{path.name} could not be read and is left out ({error}).")
        return {}


def _figures(folder: Path, entries: list[Any], notes: list[str]) -> list[dict[str, str]]:
    found = []
    for entry in entries:
        file = str(entry.get("file", "")) if isinstance(entry, Mapping) else str(entry)
        path = (folder / file).resolve()
        if not path.is_file() or not path.is_relative_to(folder.resolve()):
            notes.append(f"The figure {file} is not in the folder and is left out.")
            continue
        words = dict(entry) if isinstance(entry, Mapping) else {}
        words = {name: str(words.get(name) or "") for name in ("title", "caption", "alt")}
        found.append({"file": file, "svg": path.read_text("utf-8", "replace"), **words})
    return found
