"""The plots: numbers as scikit-learn's, the same bytes twice, nothing but text and variables."""

from __future__ import annotations

import base64
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from deepweave.report import plots
from deepweave.report.decisions import _thin, steps, wilson

RNG = np.random.default_rng(0)
SCORE, TARGET = RNG.random(200).round(2), RNG.integers(0, 2, 200)  # rounded: ties
SERIES = {"validation": (np.arange(9), np.geomspace(2, 0.01, 9)), "train": ([0, 8], [1.0, 0.02])}

DRAWN: dict[str, Callable[[], str]] = {
    "curves": lambda: plots.curves(SERIES, y="loss", mark=(7, "best")),
    "long curve": lambda: plots.curves({"loss": (np.arange(5000), RNG.random(5000) * 0 + 0.5)}),
    "confusion": lambda: plots.confusion([[5, 1], [0, 7]], ["no", "yes"]),
    "roc": lambda: plots.roc(TARGET, SCORE, ["no", "yes"]),
    "roc, many": lambda: plots.roc(np.arange(60) % 3, np.eye(3)[np.arange(60) % 3], list("abc")),
    "precision and recall": lambda: plots.precision_recall(TARGET, SCORE, ["no", "yes"]),
    "reliability": lambda: plots.reliability(TARGET, SCORE),
    "scatter": lambda: plots.scatter(SCORE, SCORE**2),
    "residuals": lambda: plots.residuals(SCORE, SCORE**2, unit="mm"),
    "histogram": lambda: plots.histogram({"a": SCORE, "b": SCORE**2}, x="share", mark=0.5),
    "densities": lambda: plots.densities(
        {"shaded": np.eye(9), "dots": np.stack([SCORE, SCORE**2], 1)},
        (0, 1, 0, 1),
        labels=("a", "b"),
    ),
    "bars": lambda: plots.bars(["one", "two"], [1.0, 2.5], x="weight (kg)"),
    "intervals": lambda: plots.intervals({"a": (0.5, 0.4, 0.6), "b": (0.7, None, None)}, mark=0.3),
    "images": lambda: plots.images(np.ones((3, 8, 8)), ["a", "b", "c"]),
}


@pytest.mark.parametrize("name", DRAWN)
def test_house_style(name: str) -> None:
    svg = DRAWN[name]()
    assert svg == DRAWN[name]()  # no date, no random id
    assert re.match(r"<svg [^>]*viewBox", svg)
    assert re.search(r'aria-label="[^"]{8,}"', svg)
    assert "<style" not in svg
    assert "<metadata" not in svg
    assert not re.search(r"(?<!, )#[0-9a-f]{6}\b", svg)
    assert float(re.findall(r'data-text="([\d.]+)"', svg)[0]) >= 9 if "<text" in svg else True
    assert "DejaVu" not in svg
    assert len(svg) < 200_000


def test_steps_are_those_of_the_roc_curve() -> None:
    true, false = steps(TARGET, SCORE)
    expected = reference.roc_curve(TARGET, SCORE, drop_intermediate=False)
    np.testing.assert_allclose(false / false[-1], expected[0], atol=1e-12)
    np.testing.assert_allclose(true / true[-1], expected[1], atol=1e-12)


def test_areas_are_those_of_scikit_learn() -> None:
    area = reference.roc_auc_score(TARGET, SCORE)
    assert f"area {area:.3f}" in plots.roc(TARGET, SCORE)
    average = reference.average_precision_score(TARGET, SCORE)
    assert f"average precision {average:.3f}" in plots.precision_recall(TARGET, SCORE)


def test_the_weakest_class_is_named() -> None:
    target = np.arange(90) % 3
    score = np.eye(3)[target]
    score[:30, 2] = RNG.random(30)
    worst = reference.roc_auc_score(target == 2, score[:, 2])
    assert f"weakest: “c”, area {worst:.3f}" in plots.roc(target, score, list("abc"))


def test_thinning_keeps_a_staircase() -> None:
    x = np.concatenate([np.linspace(0, 1, 500), np.ones(500)])
    y = np.concatenate([np.zeros(500), np.linspace(0, 1, 500)])
    thin = _thin(x, y)
    assert len(thin[0]) <= 240
    assert np.trapezoid(thin[1], thin[0]) == pytest.approx(np.trapezoid(y, x), abs=1e-9)
    assert (thin[0][0], thin[1][-1]) == (0, 1)


def test_wilson_solves_its_equation() -> None:
    right, count = np.array([0, 3, 10]), np.array([4, 7, 10])
    z = 1.959963984540054
    for end in wilson(right, count):
        inner = (right / count - end) ** 2 - z * z * end * (1 - end) / count
        np.testing.assert_allclose(inner, 0, atol=1e-12)


def test_confusion_writes_every_count() -> None:
    svg = plots.confusion([[41, 1, 0], [0, 52, 3], [4, 0, 63]], ["a", "b", "c"])
    written = re.findall(r">(\d+)</text>", svg)
    assert sorted(map(int, written)) == [1, 3, 4, 41, 52, 63]
    assert f"{100 * (41 + 52 + 63) / 164:.1f} % right" in svg


def test_hostile_labels_are_drawn_as_text() -> None:
    evil = "$\\frac{<script>\x00"
    svg = plots.confusion([[1, 0], [0, 1]], [evil, "b"])
    assert "<script" not in svg
    assert "$\\frac{&lt;sc" in svg


def test_end_labels_do_not_cover_each_other() -> None:
    svg = plots.curves({f"line {i}": ([0, 1], [0.0, 1 + i / 1000]) for i in range(7)})
    heights = [float(y) for y in re.findall(r'y="([\d.]+)"[^>]*>line \d</text>', svg)]
    assert len(heights) == 7
    assert np.diff(sorted(heights)).min() > 10


def test_png_is_the_picture() -> None:
    picture = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
    raw = base64.b64decode(plots.png(picture).split(",")[1])
    assert struct.unpack(">II", raw[16:24]) == (7, 5)
    length = struct.unpack(">I", raw[33:37])[0]
    rows = np.frombuffer(zlib.decompress(raw[41 : 41 + length]), np.uint8).reshape(5, 22)
    np.testing.assert_array_equal(rows[:, 1:].reshape(5, 7, 3), picture)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plots.curves({"a": ([1], [np.nan])}), "no finite number"),
        (lambda: plots.densities({}, (0, 1, 0, 1)), "nothing to draw"),
        (lambda: plots.densities({"a": np.full((3, 3), np.inf)}, (0, 1, 0, 1)), "not finite"),
        (lambda: plots.confusion(np.eye(3), ["a", "b"]), r"got \(3, 3\) and 2"),
        (lambda: plots.roc(np.ones(4), np.ones(4)), "one class only"),
        (lambda: plots.precision_recall(np.zeros(4), np.ones(4)), "one class only"),
        (lambda: plots.scatter([np.nan], [1]), "no finite point"),
        (lambda: plots.bars(["a"], [1, 2]), "one value per name, got 2, 1"),
        (lambda: plots.intervals({}), "no row to draw"),
        (lambda: plots.images(np.ones((8, 8))), r"got \(8, 8\)"),
        (lambda: plots.clean("<p>no</p>"), "expected <svg>, got <p>"),
        (lambda: plots.clean("no"), "not an SVG"),
        (lambda: plots.clean('<!DOCTYPE svg [<!ENTITY a "b">]><svg/>'), "entities"),
    ],
)
def test_clear_errors(call: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_grid_puts_each_picture_in_its_place(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "images", lambda whole, **options: seen.append(whole) or "svg")
    shown = np.stack([np.full((4, 3), value, np.uint8) for value in (1, 2, 3)])
    assert plots.grid(shown, 2) == "svg"
    (whole,) = seen
    assert whole.shape == (1, 9, 7)
    assert (whole[0, :4, :3] == 1).all()
    assert (whole[0, :4, 4:] == 2).all()
    assert (whole[0, 5:, :3] == 3).all()
    assert (whole[0, 4] == 150).all()
    plots.grid(np.ones((1, 20, 20, 3)), 1)
    assert (seen[1] == 255).all()
    with pytest.raises(ValueError, match="grid: expected"):
        plots.grid(np.zeros((0, 2, 2)))
