"""The plots of a run, in the house style: plain arrays in, one SVG as a string out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepweave.report.decisions import confusion, precision_recall, reliability, roc
from deepweave.report.densities import densities
from deepweave.report.style import (
    INK,
    MUTED,
    PAPER,
    RULE,
    SERIES,
    WIDE,
    WORDS,
    clean,
    figure,
    plain,
    png,
    save,
    style,
)  # fmt: skip
from deepweave.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "INK", "MUTED", "PAPER", "RULE", "SERIES", "WIDE", "WORDS", "bars", "clean", "confusion",
    "curves", "densities", "figure", "histogram", "images", "intervals", "plain", "png",
    "precision_recall", "reliability", "residuals", "roc", "save", "scatter", "style",
]  # fmt: skip


def _tick(value: float, _: object = None) -> str:
    """A tick's number, short: 0.002, 1,500, 1e−6."""
    text = f"{value:,.6g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}e{int(exponent)}"
    return text.replace("-", "−")


def _percent(value: float, _: object = None) -> str:
    return _tick(100 * value) + " %"


def _numbers(axes: Axes, *, percent: bool = False, across: bool = True) -> None:
    """Short numbers on the axes, and a left margin as wide as they need."""
    if across:
        axes.xaxis.set_major_formatter(_tick)
    axes.yaxis.set_major_formatter(_percent if percent else _tick)
    low, high = sorted(axes.get_ylim())
    shown = [tick for tick in axes.get_yticks() if low <= tick <= high]
    words = axes.yaxis.get_major_formatter().format_ticks(shown)
    box, width = axes.get_position(), axes.get_figure(root=True).get_figwidth()  # pyright: ignore[reportOptionalMemberAccess]
    left = (0.13 + 0.08 * max(map(len, words), default=0)) / width
    axes.set_position((left, box.y0, box.x1 - left, box.height))


def _ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Direct labels at the right edge, pushed apart until none covers another."""
    height = axes.get_position().height * axes.get_figure(root=True).get_figheight() * 72  # pyright: ignore[reportOptionalMemberAccess]
    gap = 11.5 / height
    places = axes.transAxes.inverted().transform(
        axes.transData.transform([(0, y) for y, *_ in ends])
    )
    order = np.argsort(places[:, 1], kind="stable")
    spots = places[order, 1].clip(0, 1)
    for i in range(1, len(spots)):
        spots[i] = max(spots[i], spots[i - 1] + gap)
    for i in range(len(spots) - 1, -1, -1):
        spots[i] = min(spots[i], 1.03 - gap * (len(spots) - 1 - i))
    for spot, i in zip(spots, order):
        words = {"transform": axes.transAxes, "va": "center", "color": ends[i][2]}
        axes.text(1.02, spot, ends[i][1], **words)  # pyright: ignore[reportArgumentType]


def _label_room(names: Sequence[str]) -> float:
    return 0.12 + 0.082 * max(map(len, names), default=0)


def _mark(axes: Axes, mark: tuple[float, str], line: tuple[np.ndarray, np.ndarray]) -> None:
    """A dashed upright at a step, its words where the line leaves room: above or below."""
    axes.axvline(mark[0], color=MUTED, linewidth=0.8, dashes=(3, 3), zorder=0)
    left, right = axes.get_xlim()
    late = (mark[0] - left) / (right - left) > 0.6
    ends = (mark[0] - 0.3 * (right - left), mark[0]) if late else (mark[0], mark[0] + 0.3 * right)
    near = line[1][(line[0] >= ends[0]) & (line[0] <= ends[1])]
    spot = axes.transData.transform([(0, near.mean() if len(near) else 0)])
    above = axes.transAxes.inverted().transform(spot)[0, 1] < 0.5
    axes.text(
        mark[0] + (right - left) * (-0.015 if late else 0.015), 0.99 if above else 0.03, mark[1],
        transform=axes.get_xaxis_transform(), color=MUTED, va="top" if above else "bottom",
        ha="right" if late else "left",
    )  # fmt: skip


def curves(series: Mapping[str, tuple[Any, Any]], *, x: str = "step", y: str = "",
           mark: tuple[float, str] | None = None, log: bool | None = None,
           percent: bool = False, height: float = 2.7, alt: str = "",
           ) -> str:  # fmt: skip
    """Lines over steps, each named at its end; ``mark`` is (x, word) of a step to point out.

    A line of more than 120 points is drawn as the mean of 100 stretches within their range.
    """
    lines = {
        plain(k, 18): (np.asarray(a, float), np.asarray(b, float)) for k, (a, b) in series.items()
    }
    lines = {k: (a[np.isfinite(b)], b[np.isfinite(b)]) for k, (a, b) in lines.items()}
    lines = {k: v for k, v in lines.items() if len(v[1])}
    if not lines:
        raise ValueError("plots.curves: there is no finite number to draw")
    values = np.concatenate([b for _, b in lines.values()])
    if log is None:
        log = bool(values.min() > 0 and values.max() > 50 * values.min())
    named = list(lines) if len(lines) > 1 else []
    with style():
        drawn, axes = figure(height=height, right=_label_room(named) if named else 0.2)
        ends = []
        for i, (name, (a, b)) in enumerate(lines.items()):
            tone = SERIES[i % len(SERIES)]
            if len(b) > 120:
                cut = np.linspace(0, len(b), 101).astype(int)[:-1]
                low, high = np.minimum.reduceat(b, cut), np.maximum.reduceat(b, cut)
                size = np.diff(np.append(cut, len(b)))
                a, b = np.add.reduceat(a, cut) / size, np.add.reduceat(b, cut) / size
                axes.fill_between(a, low, high, color=tone, alpha=0.15, linewidth=0)
            axes.plot(a, b, color=tone, marker="o" if len(b) == 1 else None, markersize=4)
            if mark and i == 0:
                at = int(np.abs(a - mark[0]).argmin())
                axes.plot([a[at]], [b[at]], "o", color=tone, markersize=5.5)
            ends.append((float(b[-1]), name, WORDS[i % len(WORDS)]))
        if log:
            from matplotlib.ticker import LogLocator

            axes.set_yscale("log")
            few = values.max() < 2000 * values.min()
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=8))
            axes.minorticks_off()
        if mark:
            _mark(axes, mark, next(iter(lines.values())))
        axes.grid(False, axis="x")
        axes.set_title(plain(y))
        axes.set_xlabel(plain(x))
        axes.locator_params(axis="x", nbins=5)
        _numbers(axes, percent=percent)
        if named:
            _ends(axes, ends)
        said = "; ".join(f"{name} ends at {number(end)}" for end, name, _ in ends)
        return save(drawn, alt or f"Lines of {y} by {x}: {said}.")


def scatter(x: Any, y: Any, *, labels: tuple[str, str] = ("predicted", "true"),
            diagonal: bool = True, alt: str = "") -> str:  # fmt: skip
    """Points of y over x, with the diagonal where both should be equal.

    Of more than 1,500 points every n-th is drawn.
    """
    across, up = (np.asarray(side, float).reshape(-1) for side in (x, y))
    good = np.isfinite(across) & np.isfinite(up)
    across, up = across[good], up[good]
    if not len(up):
        raise ValueError("plots.scatter: there is no finite point to draw")
    stride = math.ceil(len(across) / 1500)
    with style():
        drawn, axes = figure(height=3.3, left=0.58)
        faint = float(np.clip(40 / math.sqrt(len(across) / stride) / 8, 0.25, 0.7))
        axes.plot(across[::stride], up[::stride], "o", color=SERIES[0], markersize=3.6,
                  alpha=faint, markeredgewidth=0)  # fmt: skip
        if diagonal:
            ends = [min(across.min(), up.min()), max(across.max(), up.max())]
            axes.plot(ends, ends, color=MUTED, linewidth=0.9, dashes=(3, 3), zorder=3)
        else:
            axes.axhline(0, color=MUTED, linewidth=0.9, dashes=(3, 3), zorder=3)
        axes.set_xlabel(plain(labels[0]))
        axes.set_title(plain(labels[1]))
        axes.locator_params(nbins=6)
        _numbers(axes)
        return save(drawn, alt or f"{len(across)} points: {labels[1]} by {labels[0]}.")


def residuals(predicted: Any, true: Any, *, unit: str = "", alt: str = "") -> str:
    """What is left, true minus predicted, over the predicted value. Shapes: (N,), (N,)."""
    predicted, true = np.asarray(predicted, float), np.asarray(true, float)
    tail = f" ({unit})" if unit else ""
    labels = (f"predicted{tail}", f"residual: true − predicted{tail}")
    rest = true - predicted
    spread = f"mean {number(rest.mean())}, deviation {number(rest.std())}{tail}"
    said = f"Residuals by prediction: {spread}."
    return scatter(predicted, rest, labels=labels, diagonal=False, alt=alt or said)


def histogram(groups: Mapping[str, Any], *, x: str = "", bins: int = 24, mark: float | None = None,
              y: str = "samples", alt: str = "") -> str:  # fmt: skip
    """How many values fall where, one outline per group, named at its highest bar."""
    parts = {plain(name, 24): np.asarray(v, float).reshape(-1) for name, v in groups.items()}
    parts = {name: v[np.isfinite(v)] for name, v in parts.items()}
    parts = {name: v for name, v in parts.items() if len(v)}
    if not parts:
        raise ValueError("plots.histogram: there is no finite number to draw")
    edges = np.histogram_bin_edges(np.concatenate(list(parts.values())), bins)
    with style():
        drawn, axes = figure(height=3.0)
        tallest, boxes = 0, []
        for i, (name, v) in enumerate(parts.items()):
            counts, _ = np.histogram(v, edges)
            axes.stairs(counts, edges, fill=True, color=SERIES[i % 7], alpha=0.3, linewidth=0)
            axes.stairs(counts, edges, color=SERIES[i % 7], linewidth=1.4)
            tallest = max(tallest, counts.max())
            boxes.append((counts.argmax(), counts.max(), name))
        axes.set_ylim(0, tallest * 1.16)
        for i, (peak, top, name) in enumerate(boxes if len(boxes) > 1 else []):
            side = "left" if peak < bins / 2 else "right"
            at = float(edges[peak] if side == "left" else edges[peak + 1])
            axes.text(at, top + tallest * 0.02, name, color=WORDS[i % 7], ha=side, va="bottom")
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=0.9, dashes=(3, 3))
        axes.set_title(plain(y))
        axes.set_xlabel(plain(x))
        axes.grid(False, axis="x")
        axes.locator_params(nbins=6)
        axes.locator_params(axis="y", nbins=6, integer=True)
        _numbers(axes)
        said = "; ".join(f"{name}: median {number(np.median(v))}" for name, v in parts.items())
        return save(drawn, alt or f"Histogram of {x}. {said}.")


def _rows(names: Sequence[str], *, right: float = 0.2) -> tuple[Any, Axes]:
    words = [plain(name, 26) for name in names]
    left = min(2.2, 0.2 + 0.075 * max(map(len, words)))
    drawn, axes = figure(height=0.55 + 0.22 * len(words), left=left, right=right, top=0.1)
    axes.set_yticks(range(len(words)), words)
    axes.set_ylim(len(words) - 0.4, -0.6)
    axes.tick_params(axis="y", labelcolor=INK, length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    return drawn, axes


def bars(names: Sequence[str], values: Any, *, x: str = "", alt: str = "") -> str:
    """One horizontal bar per name, its number at its end. Shapes: values (N,)."""
    sizes = np.asarray(values, float)
    if not len(sizes) or len(sizes) != len(names):
        raise ValueError(f"plots.bars: expected one value per name, got {len(sizes)}, {len(names)}")
    with style():
        drawn, axes = _rows(names, right=0.6)
        axes.barh(range(len(sizes)), sizes, 0.62, color=SERIES[0], alpha=0.75, linewidth=0)
        for i, size in enumerate(sizes):
            words = _tick(float(f"{size:.3g}"))
            axes.annotate(
                words, (max(size, 0), i), (4, 0),
                textcoords="offset points", va="center", color=MUTED,
            )  # fmt: skip
        axes.set_xlabel(plain(x))
        axes.grid(False)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        said = ", ".join(f"{plain(name)} {number(size)}" for name, size in zip(names, sizes))
        return save(drawn, alt or f"{x or 'Bars'}: {said}.")


def intervals(rows: Mapping[str, tuple[float, float | None, float | None]], *, x: str = "",
              mark: float | None = None, alt: str = "") -> str:  # fmt: skip
    """A dot and a bar per row, (value, low, high); ``mark`` is a grey line to compare with."""
    if not rows:
        raise ValueError("plots.intervals: there is no row to draw")
    with style():
        drawn, axes = _rows(list(rows))
        for i, (value, low, high) in enumerate(rows.values()):
            if low is not None and high is not None:
                axes.plot([low, high], [i, i], color=SERIES[0], linewidth=4, alpha=0.35)
            axes.plot([value], [i], "o", color=SERIES[0], markersize=5)
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=1.2)
        axes.set_xlabel(plain(x))
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter(_tick)
        said = ", ".join(f"{plain(name)} {number(row[0])}" for name, row in rows.items())
        return save(drawn, alt or f"{x or 'Scores'} with intervals: {said}.")


def images(pictures: Any, captions: Sequence[str] = (), *, columns: int = 8, alt: str = "") -> str:
    """A grid of small images with captions, every pixel a square.

    Shapes: pictures (N, H, W) or (N, H, W, 3), uint8 or in [0, 1].
    """
    shown = np.asarray(pictures)
    if shown.ndim not in (3, 4) or not len(shown):
        raise ValueError(f"plots.images: expected (N, H, W) or (N, H, W, 3), got {shown.shape}")
    columns = min(columns, len(shown))
    lines, cell = math.ceil(len(shown) / columns), WIDE / columns
    tall = cell * shown.shape[1] / shown.shape[2] + (0.2 if captions else 0)
    with style():
        from matplotlib.figure import Figure

        drawn = Figure(figsize=(WIDE, lines * tall))
        for i, picture in enumerate(shown):
            row, column = divmod(i, columns)
            box = (column / columns, 1 - (row + 1) / lines, 0.92 / columns, 0.92 / lines)
            axes = drawn.add_axes(box)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=255 if shown.dtype == np.uint8 else 1)
            axes.set_axis_off()
            if captions:
                axes.set_title(plain(captions[i], int(cell * 13)), loc="center", pad=3)
        said = ", ".join(plain(caption) for caption in captions)
        return save(drawn, alt or f"{len(shown)} images{': ' if said else ''}{said}.")


def grid(pictures: Any, columns: int = 10, *, alt: str = "") -> str:
    """Images side by side as one picture, which is drawn far faster than many, without captions.

    Shapes: pictures (N, H, W) or (N, H, W, 3), uint8 or in [0, 1].
    """
    parts = np.asarray(pictures)
    if parts.ndim not in (3, 4) or not len(parts):
        raise ValueError(f"plots.grid: expected (N, H, W) or (N, H, W, 3), got {parts.shape}")
    if parts.dtype != np.uint8:
        parts = (255 * parts.clip(0, 1)).round().astype(np.uint8)
    gap = 1 if parts.shape[1] < 16 else 2
    tall, wide = parts.shape[1] + gap, parts.shape[2] + gap
    lines = math.ceil(len(parts) / columns)
    whole = np.full((lines * tall - gap, columns * wide - gap, *parts.shape[3:]), 150, np.uint8)
    for i, part in enumerate(parts):
        row, column = divmod(i, columns)
        whole[row * tall :, column * wide :][: tall - gap, : wide - gap] = part
    return images(whole[None], columns=1, alt=alt or f"{len(parts)} images.")
