"""Runs side by side: scores, paired differences, settings that differ, curves over each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deepweave.report import mistakes, plots
from deepweave.report.page import render
from deepweave.report.reading import Reading, read
from deepweave.report.sections import cell, lower, scale, series
from deepweave.report.sheet import Sheet
from deepweave.report.words import Metric, amount, duration, interval, metric, number, storage
from deepweave.run import write_whole


class Difference(NamedTuple):
    """A score of one run minus that of the first, on the same test samples."""

    key: str
    value: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def compare(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Write the page that sets runs side by side to ``out`` and give its path.

    Raises:
        ValueError: fewer than two folders, or one that cannot be read.
        FileNotFoundError: a folder is missing or is no run.
    """
    readings = _readings(folders)
    names, sheet = _names(readings), Sheet()
    keys = list(dict.fromkeys(key for r in readings for key in r.scores()))
    main = next((r.main() for r in readings if r.main()), None)
    keys.sort(key=lambda key: (not key.startswith("test/"), key != main))
    same = [_same(readings[0], other) for other in readings[1:]]
    pairs = [
        {"name": name, "rows": [_difference(d) for d in differences(readings[0], other)]}
        for name, other, paired in zip(names[1:], readings[1:], same)
        if paired
    ]
    titles = list(dict.fromkeys(reading.data_title for reading in readings))
    context = {
        "names": names,
        "readings": readings,
        "title": f"{len(readings)} runs on {titles[0] if len(titles) == 1 else 'different data'}",
        "scores": [_row(key, readings) for key in keys],
        "effort": _effort(readings),
        "picture": _picture(main, readings, names, sheet),
        "pairs": pairs,
        "unpaired": not all(same),
        "settings": _settings(readings),
        "curves": _curves(readings, names, main, sheet),
        "notes": [f"{n}: {line}" for n, r in zip(names, readings) for line in r.notes]
        + sheet.notes,
    }
    return write_whole(Path(out), render("comparison.html", **context))


def table(folders: Sequence[str | os.PathLike[str]]) -> list[list[str]]:
    """The comparison for a terminal: a row of names, then one row per score and per effort.

    Scores carry their interval; runs without a score show a dash.
    """
    readings = _readings(folders)
    rows = [["", *_names(readings)]]
    for key in dict.fromkeys(key for reading in readings for key in reading.scores()):
        line = [metric(key).label]
        for reading in readings:
            score = reading.scores().get(key)
            text = (
                f"{amount(key, score.value, reading.unit)} {interval(key, score)}" if score else "–"
            )
            line.append(text.strip())
        rows.append(line)
    return rows + [[row["name"], *row["values"]] for row in _effort(readings)]


def differences(first: Reading, other: Reading, *, draws: int = 2000) -> list[Difference]:
    """What ``other`` scores more than ``first`` on the same samples, with 95 % intervals.

    The samples are drawn again with replacement, for both runs the same (paired bootstrap).
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.

    Raises:
        ValueError: the runs were not tested on the same samples.
    """
    if not _same(first, other):
        raise ValueError("comparison.differences: the runs were not tested on the same samples")
    a, b = _losses(first), _losses(other)
    keys = [key for key in a if key in b]
    columns = np.stack([side[key] for key in keys for side in (a, b)], 1)  # (N, 2 keys)
    means = _resampled(columns, draws)
    found = []
    for i, key in enumerate(keys):
        root = np.sqrt if key == "test/rmse" else np.asarray
        drawn = root(means[:, 2 * i + 1]) - root(means[:, 2 * i])
        exact = root(columns[:, 2 * i + 1].mean()) - root(columns[:, 2 * i].mean())
        low, high = np.quantile(drawn, [0.025, 0.975])
        found.append(Difference(key, float(exact), float(low), float(high)))
    return found


def _resampled(columns: np.ndarray, draws: int) -> np.ndarray:
    """Means over samples drawn with replacement: (N, M) -> (draws, M), from one fixed seed."""
    count = len(columns)
    draws = int(np.clip(40_000_000 // max(count, 1), 400, draws))
    rng, means = np.random.default_rng(0), np.empty((draws, columns.shape[1]))
    chunk = max(1, 2_000_000 // (count * columns.shape[1]))
    for start in range(0, draws, chunk):
        end = min(draws, start + chunk)
        means[start:end] = columns[rng.integers(0, count, (end - start, count))].mean(1)
    return means


def _losses(reading: Reading) -> dict[str, np.ndarray]:
    """One number per test sample, (N,), whose mean is the score (its square for RMSE)."""
    said, true, task = reading.prediction, reading.target, reading.task
    if said is None or true is None:
        return {}
    count = len(said)
    if task == "regression":
        error = (said.astype(float) - true.reshape(said.shape)).reshape(count, -1)
        return {"test/rmse": (error**2).mean(1), "test/mae": np.abs(error).mean(1)}
    answer = mistakes.answers(task, said)
    right = (answer.reshape(count, -1) == true.reshape(count, -1)).mean(1)
    if task == "segmentation":
        return {"test/pixel_accuracy": right}
    if task == "multilabel":
        return {"test/subset_accuracy": (right == 1).astype(float)}
    sure = said[np.arange(count), true] if said.ndim == 2 else np.where(true == 1, said, 1 - said)
    loss = -np.log(np.clip(sure.astype(float), 1e-12, None))
    return {"test/accuracy": right, "test/log_loss": loss}


def _same(first: Reading, other: Reading) -> bool:
    """Whether two runs were tested on the same samples in the same order."""
    a, b = first.target, other.target
    paired = bool(first.fingerprint) and first.fingerprint == other.fingerprint
    shapes = first.prediction is not None and other.prediction is not None
    return paired and shapes and a is not None and b is not None and np.array_equal(a, b)


def _readings(folders: Sequence[str | os.PathLike[str]]) -> list[Reading]:
    if len(folders) < 2:
        raise ValueError(f"comparison: expected two folders or more, got {len(folders)}")
    return [read(folder) for folder in folders]


def _names(readings: list[Reading]) -> list[str]:
    """The folders' names, with the folder above where two are alike."""
    names = [reading.folder.resolve().name for reading in readings]
    if len(set(names)) < len(names):
        names = ["/".join(reading.folder.resolve().parts[-2:]) for reading in readings]
    return [name if names.count(name) == 1 else f"{name} {i}" for i, name in enumerate(names, 1)]


def _row(key: str, readings: list[Reading]) -> dict[str, Any]:
    scores = [reading.scores().get(key) for reading in readings]
    bases = [reading.scores("baseline").get(key) for reading in readings]
    base = next((b for b in bases if b), None)
    place = scale(key, [s for s in [*scores, base] if s])
    values = [s.value for s in scores if s]
    best = (max if metric(key).higher else min)(values)
    cells = []
    for score, reading in zip(scores, readings):
        if score is None:
            cells.append(None)
            continue
        bar = None
        if score.low is not None and score.high is not None:
            bar = (place(score.low), max(0.6, place(score.high) - place(score.low)))
        cells.append({
            "text": amount(key, score.value, reading.unit), "value": repr(score.value), "bar": bar,
            "interval": interval(key, score), "dot": place(score.value),
            "best": score.value == best and values.count(best) < len(values),
        })  # fmt: skip
    return {"label": metric(key).label, "better": "higher" if metric(key).higher else "lower",
            "cells": cells, "base": amount(key, base.value, readings[0].unit) if base else "",
            "mark": place(base.value) if base else None}  # fmt: skip


def _difference(found: Difference) -> dict[str, Any]:
    how, higher = metric(found.key), metric(found.key).higher
    if how.percent:
        words = [f"{100 * end:+.1f}" for end in (found.value, found.low, found.high)]
        unit = "points"
    else:
        words = [("+" if end >= 0 else "") + number(end) for end in found[1:]]
        unit = ""
    value, low, high = (word.replace("-", "−") for word in words)
    verdict = "no clear difference"
    if found.clear:
        verdict = "better" if (found.value > 0) == higher else "worse"
    return {"label": how.label, "value": f"{value} {unit}".strip(), "interval": f"[{low}, {high}]",
            "verdict": verdict}  # fmt: skip


def _effort(readings: list[Reading]) -> list[dict[str, Any]]:
    models = [reading.run.get("model") or {} for reading in readings]
    return [
        {"name": "Training time", "values": [duration(r.run.get("seconds")) for r in readings]},
        {"name": "Steps", "values": [number(r.run.get("steps")) for r in readings]},
        {"name": "Parameters", "values": [number(m.get("parameters"), 9) for m in models]},
        {"name": "Model size", "values": [storage(m.get("bytes")) for m in models]},
    ]


def _settings(readings: list[Reading]) -> list[dict[str, Any]]:
    """What differs between the runs: recipe, data, seed, device, settings, optimizer, versions."""
    flat = []
    for reading in readings:
        run = reading.run
        entries = {
            name: run.get(name) for name in ("recipe", "seed", "objective", "device", "threads")
        }
        entries["data"] = f"{reading.data_title} {reading.fingerprint[:8]}"
        for group in ("settings", "optimizer", "versions"):
            start = "" if group == "settings" else f"{group.removesuffix('s')} "
            entries |= {f"{start}{name}": value for name, value in (run.get(group) or {}).items()}
        flat.append({str(name): cell(value) for name, value in entries.items()})
    names = dict.fromkeys(name for entries in flat for name in entries)
    rows = [
        {"name": name, "values": [entries.get(name, "–") for entries in flat]} for name in names
    ]
    return [row for row in rows if len(set(row["values"])) > 1]


def _picture(main: str | None, readings: list[Reading], names: list[str], sheet: Sheet) -> Any:
    if main is None:
        return None
    found = {n: r.scores()[main] for n, r in zip(names, readings) if main in r.scores()}
    how = metric(main)
    by = 100 if how.percent else 1
    rows = {
        name: (by * s.value, *(None if end is None else by * end for end in (s.low, s.high)))
        for name, s in found.items()
    }
    unit = f" ({readings[0].unit})" if how.unit and readings[0].unit else ""
    unit = " (%)" if how.percent else unit
    plan = partial(plots.intervals, rows, x=lower(how.label) + unit)  # pyright: ignore[reportArgumentType]
    caption = "Dots: the scores, in their 95\u00a0% intervals. The axis does not begin at zero."
    return sheet.draw(f"{how.label}, seen closer", plan, caption)


def _curves(readings: list[Reading], names: list[str], main: str | None, sheet: Sheet) -> list[Any]:
    logs = [series(reading.log) for reading in readings]
    wanted = ["validation/loss", "train/loss"]
    wanted += [main.replace("test/", "validation/")] if main else []
    found = []
    for key in dict.fromkeys(wanted):
        lines = {name: log[key] for name, log in zip(names, logs) if key in log}
        if lines:
            how, where = metric(key), key.split("/")[0]
            known = how != Metric(how.label, bounded=False)
            better = f", {'higher' if how.higher else 'lower'} is better" if known else ""
            plan = partial(plots.curves, lines, y=lower(how.label) + better, percent=how.percent)
            found.append(sheet.draw(f"{how.label} over steps, {where}", plan))
    return [one for one in found if one]
