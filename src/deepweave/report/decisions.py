"""How a classifier decides, drawn: who is taken for whom, ROC, precision-recall, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepweave.report.style import MUTED, RULE, SERIES, WIDE, WORDS, figure, plain, save, style
from deepweave.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def confusion(matrix: Any, classes: Sequence[str], *, alt: str = "") -> str:
    """Counts of true class (rows) by said class (columns), shaded by the share of the row.

    Shapes: matrix (K, K).
    """
    counts = np.asarray(matrix, float)
    size = len(counts)
    if counts.shape != (size, size) or len(classes) != size:
        raise ValueError(
            f"plots.confusion: expected (K, K) and K names, got {counts.shape} and {len(classes)}"
        )
    names = [plain(name, 14) for name in classes]
    longest = max(map(len, names))
    tilt = longest > 3 and size > 3
    left = 0.34 + 0.085 * longest
    foot = 0.42 + (0.075 * longest if tilt else 0.12)
    cell = max(0.34 if size > 12 else 0.25, min(0.9, (WIDE - left - 0.1) / size))
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    with style():
        from matplotlib.patches import Rectangle

        width = max(WIDE, left + cell * size + 0.1)
        drawn, axes = figure(
            width, 0.12 + foot + min(cell, 0.6) * size,
            left=left, right=width - left - cell * size, top=0.12, bottom=foot,
        )  # fmt: skip
        for row, column in zip(*np.nonzero(counts)):
            tone = SERIES[0] if row == column else SERIES[1]
            part = share[row, column]
            deep = 0.1 + 0.4 * part if row == column else 0.06 + 0.5 * part**0.5
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, color=tone, alpha=deep, lw=0))
            count = float(counts[row, column])
            short = number(count) if count < 10_000 or cell > 0.6 else f"{count / 1000:.0f}k"
            axes.text(float(column), float(row), short, ha="center", va="center_baseline")
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), xlabel="said", ylabel="true")
        axes.set_xticks(range(size), names, rotation=90 if tilt else 0)
        axes.set_yticks(range(size), names)
        axes.tick_params(length=0)
        axes.grid(False)
        for edge in np.arange(size + 1) - 0.5:
            axes.axhline(edge, color=RULE, lw=0.6)
            axes.axvline(edge, color=RULE, lw=0.6)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.yaxis.set_label_coords(-(left - 0.13) / (cell * size), 0.5)
        right = np.trace(counts) / max(counts.sum(), 1)
        return save(drawn, alt or f"Confusion matrix of {size} classes, {100 * right:.1f} % right.")


def steps(target: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives (from 0) as the threshold falls over each distinct score.

    Shapes: target (N,) of 0 and 1, score (N,) -> two of (M + 1,).
    """
    order = np.argsort(-score, kind="stable")
    ranked, hit = score[order], target[order].astype(float)
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    true = np.cumsum(hit)[last]
    return np.append(0.0, true), np.append(0.0, last + 1 - true)


def _thin(x: np.ndarray, y: np.ndarray, most: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """The corners of a staircase, at most ``most`` of them, both ends kept."""
    moved = np.append(True, (np.diff(x) != 0) | (np.diff(y) != 0))
    x, y = x[moved], y[moved]
    if len(x) > 2:
        cross = np.diff(x)[:-1] * np.diff(y)[1:] - np.diff(x)[1:] * np.diff(y)[:-1]
        bend = np.abs(cross) > 1e-12
        keep = np.flatnonzero(np.concatenate([[True], bend, [True]]))
        x, y = x[keep], y[keep]
    pick = np.unique(np.linspace(0, len(x) - 1, min(most, len(x))).round().astype(int))
    return x[pick], y[pick]


def _one_by_one(target: Any, score: Any, classes: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """Each class against the rest; one entry for a binary task; classes never seen left out."""
    target, score = np.asarray(target), np.asarray(score, float)
    if score.ndim == 1:
        pairs = {plain(classes[-1] if len(classes) else "1", 18): (target.reshape(-1), score)}
    else:
        hot = target if target.ndim == 2 else target[:, None] == np.arange(score.shape[1])
        names = [plain(name, 18) for name in classes]
        pairs = {name: (hot[:, i], score[:, i]) for i, name in enumerate(names)}
    return {name: (t, s) for name, (t, s) in pairs.items() if 0 < t.sum() < len(t)}


def _sheaf(
    axes: Axes,
    lines: dict[str, tuple[np.ndarray, np.ndarray, float]],
    what: str,
    foot: float = 0.08,
) -> str:
    """One line, or many with the weakest named, in words ``foot`` above the axis; says it too."""
    if len(lines) == 1:
        name, (x, y, area) = next(iter(lines.items()))
        axes.plot(x, y, color=SERIES[0])
        words = f"{what} {area:.3f}"
        axes.text(0.97, foot, words, transform=axes.transAxes, ha="right", color=WORDS[0])
        return f"{name}: {what} {area:.3f}"
    worst = min(lines, key=lambda name: lines[name][2])
    for name, (x, y, _) in lines.items():
        if name != worst:
            axes.plot(x, y, color=SERIES[0], linewidth=1, alpha=0.55)
    x, y, area = lines[worst]
    axes.plot(x, y, color=SERIES[1])
    words = f"weakest: “{worst}”, {what} {area:.3f}"
    axes.text(0.97, foot, words, transform=axes.transAxes, ha="right", color=WORDS[1])
    many = f"{len(lines)} classes, each against the rest"
    axes.text(0.97, foot + 0.09, many, transform=axes.transAxes, ha="right", color=WORDS[0])
    return words


def _unit_square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=x, title=y)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])


def roc(target: Any, score: Any, classes: Sequence[str] = (), *, alt: str = "") -> str:
    """The ROC curve: hits over false alarms; for K classes each against the rest.

    Shapes: target (N,) and score (N,), or target (N,) or (N, K) and score (N, K).
    """
    lines = {}
    for name, (hot, score_) in _one_by_one(target, score, classes).items():
        true, false = steps(hot, score_)
        x, y = false / false[-1], true / true[-1]
        lines[name] = (*_thin(x, y), float(np.trapezoid(y, x)))
    if not lines:
        raise ValueError("plots.roc: target holds one class only, two are needed")
    with style():
        drawn, axes = figure(height=3.3)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, dashes=(3, 3))
        axes.text(0.62, 0.57, "chance", color=MUTED, va="top")
        said = _sheaf(axes, lines, "area")
        _unit_square(axes, "false alarms (share of the others)", "hits (share of the class found)")
        return save(drawn, alt or f"ROC curve. {said}.")


def precision_recall(target: Any, score: Any, classes: Sequence[str] = (), *, alt: str = "") -> str:
    """Precision over recall; the dashed line is what guessing gives. Shapes as `roc`."""
    lines, shares = {}, []
    for name, (hot, score_) in _one_by_one(target, score, classes).items():
        true, false = (counts[1:] for counts in steps(hot, score_))
        precision, recall = true / (true + false), true / true[-1]
        area = float(np.sum(np.diff(np.append(0, recall)) * precision))
        shares.append(float(np.mean(hot)))
        x, y = _thin(np.append(0, recall), np.append(precision[0], precision))
        lines[name] = (x, y, area)
    if not lines:
        raise ValueError("plots.precision_recall: target holds one class only, two are needed")
    guess = float(np.mean(shares))
    with style():
        drawn, axes = figure(height=3.3)
        axes.axhline(guess, color=MUTED, linewidth=0.9, dashes=(3, 3))
        axes.text(0.01, guess + 0.02, "guessing", color=MUTED)
        said = _sheaf(
            axes,
            lines,
            "average precision",
            0.08 if guess > 0.35 else guess + 0.13,
        )
        _unit_square(axes, "recall (share of the class found)", "precision (share of finds right)")
        return save(drawn, alt or f"Precision-recall curve. {said}.")


def wilson(right: Any, count: Any) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a share, by Wilson's score. Source: Wilson, 1927.

    >>> low, high = wilson(9, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.596, 0.982)
    """
    right, count = np.asarray(right, float), np.maximum(np.asarray(count, float), 1)
    z, share = 1.959963984540054, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count**2)) / (1 + z * z / count)
    return np.maximum(middle - half, 0), np.minimum(middle + half, 1)


def reliability(target: Any, score: Any, *, bins: int = 10, alt: str = "") -> str:
    """How often the model is right when it says how sure it is; 95 % Wilson bars.

    Binary and multilabel: the share of class 1 by its probability. K classes: the share right by
    the probability of the class said.

    Shapes: target (N,) or (N, L), score (N,), (N, K) or (N, L).
    """
    target, score = np.asarray(target), np.asarray(score, float)
    if score.ndim == 2 and target.ndim == 1:
        hit, sure = (score.argmax(1) == target).astype(float), score.max(1)
        axis, title = "confidence of the answer", "share right"
    else:
        hit, sure = target.reshape(-1).astype(float), score.reshape(-1)
        axis, title = "probability said", "share that came true"
    place = np.minimum((sure * bins).astype(int), bins - 1).clip(0)
    count = np.bincount(place, minlength=bins)
    full = count > 0
    right = np.bincount(place, hit, bins)[full]
    middle = np.bincount(place, sure, bins)[full] / count[full]
    low, high = wilson(right, count[full])
    with style():
        drawn, axes = figure(height=3.3)
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.9, dashes=(3, 3))
        width, tall = 0.8 / bins, 0.12 * count / count.max()
        axes.bar((np.arange(bins) + 0.5) / bins, tall, width, color=MUTED, alpha=0.3, linewidth=0)
        axes.vlines(middle, low, high, color=SERIES[0], linewidth=1.4)
        axes.plot(middle, right / count[full], "o", color=SERIES[0], markersize=4.5)
        _unit_square(axes, f"{axis} (grey bars: how many)", title)
        gap = float(np.average(np.abs(middle - right / count[full]), weights=count[full]))
        said = f"The mean gap to the diagonal is {100 * gap:.1f} %."
        return save(drawn, alt or f"Reliability: {title} by {axis}. {said}")
