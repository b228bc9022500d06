"""The plots of a search: how it went, what each setting did, which of them mattered."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from deepweave.report.plots import _numbers, _tick, intervals
from deepweave.report.style import INK, MUTED, SERIES, WIDE, WORDS, figure, plain, save, style
from deepweave.report.words import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOLLOW: dict[str, Any] = {"mfc": "none", "alpha": 0.65, "markeredgewidth": 0.8}
FULL: dict[str, Any] = {"alpha": 0.75, "markeredgewidth": 0.8}


def _valued(study: Any) -> list[Any]:
    found = [t for t in study.trials if t.value is not None and t.status != "failed"]
    if not found:
        raise ValueError("plots of a study: no trial gave a value")
    return found


def _stretched(values: np.ndarray) -> bool:
    """Whether values want a logarithmic axis."""
    return bool(values.min() > 0 and values.max() > 8 * values.min())


def _upright(axes: Axes, values: np.ndarray) -> None:
    """A value axis in plain numbers, logarithmic where the values want it."""
    if _stretched(values):
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        few = values.max() < 300 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=6))
        axes.minorticks_off()
    else:
        axes.locator_params(axis="y", nbins=5)


def history(study: Any, *, alt: str = "") -> str:
    """Every trial's value in the order they were tried, and the best so far."""
    used = _valued(study)
    finished = [t for t in used if t.status == "finished"]
    stopped = [t for t in used if t.status != "finished"]
    failed = [t for t in study.trials if t.status == "failed"]
    best = np.asarray(study.history(), float)
    values = np.asarray([t.value for t in used], float)
    with style():
        drawn, axes = figure(height=2.9)
        for trials, look in ((stopped, HOLLOW), (finished, FULL)):
            axes.plot([t.number + 1 for t in trials], [t.value for t in trials], "o",
                      color=SERIES[0], markersize=3.6, **look)  # fmt: skip
        there = np.isfinite(best)
        axes.step(np.arange(1, len(best) + 1)[there], best[there], where="post", color=SERIES[1])
        _upright(axes, values)
        if failed:
            axes.plot([t.number + 1 for t in failed], [0.02] * len(failed), "x", color=MUTED,
                      markersize=4, transform=axes.get_xaxis_transform())  # fmt: skip
        marks = ["●  trial", *(["○  stopped early"] if stopped else []),
                 *(["×  failed"] if failed else [])]  # fmt: skip
        axes.set_title(f"{plain(study.goal)}, validation")
        axes.text(1, 1.03, "   ".join(marks), transform=axes.transAxes, color=WORDS[0],
                  ha="right", va="bottom")  # fmt: skip
        axes.annotate("best so far", (len(best), best[there][-1]), (0, 2), color=WORDS[1],
                      textcoords="offset points", ha="right", va="bottom")  # fmt: skip
        axes.set_xlabel("trial")
        axes.grid(False, axis="x")
        axes.locator_params(axis="x", nbins=6, integer=True)
        _numbers(axes)
        said = f"{len(used)} trials, the best {study.goal} {number(study.best.value)}."
        return save(drawn, alt or f"Values of a search by trial: {said}")


def _places(study: Any, name: str, trials: list[Any]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Where trials lie on a dimension in [0, 1], and what to write at which places."""
    one = study.space.dimensions[name]
    values = getattr(one, "values", None)
    at = study.space.places([t.settings for t in trials]).numpy()
    column = list(study.space.dimensions).index(name)
    if values is not None:
        words = [_name(value) for value in values]
        spots = (np.arange(len(values)) + 0.5) / len(values)
    else:
        ticks = _ticks(one)
        words, spots = [_tick(t) for t in ticks], np.asarray([one.place(t) for t in ticks])
    return at[:, column], words, spots


def _ticks(one: Any) -> list[float]:
    if one.scale == "log":
        tens = [10.0**k for k in range(-12, 13) if one.low <= 10.0**k * 1.0001 <= one.high * 1.001]
        if len(tens) >= 2:
            return [min(max(t, one.low), one.high) for t in tens[:: math.ceil(len(tens) / 4)]]
        return one.grid(3)
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(3, integer=isinstance(one.low, int)).tick_values(one.low, one.high)
    return [float(t) for t in found if one.low <= t <= one.high]


def _name(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " ".join(map(_name, value))
    return plain(getattr(value, "__name__", value), 12)


def slices(study: Any, *, alt: str = "") -> str:
    """The value of every trial over each of its settings, one panel per setting."""
    from matplotlib.figure import Figure

    used = _valued(study)
    values = np.asarray([t.value for t in used], float)
    done = np.asarray([t.status == "finished" for t in used])
    best = used.index(study.best)
    names = list(study.space.dimensions)
    lines = math.ceil(len(names) / 2)
    height = 1.75 * lines
    with style():
        drawn = Figure(figsize=(WIDE, height))
        for i, name in enumerate(names):
            row, column = divmod(i, 2)
            left, wide = (0.46, 1.72) if column == 0 else (2.62, 1.72)
            bottom = height - 1.75 * row - 1.38
            axes = drawn.add_axes((left / WIDE, bottom / height, wide / WIDE, 1.08 / height))
            at, words, spots = _places(study, name, used)
            for chosen, look in ((~done, HOLLOW), (done, FULL)):
                axes.plot(at[chosen], values[chosen], "o", color=SERIES[0], markersize=3, **look)
            axes.plot([at[best]], [values[best]], "o", color=SERIES[1], markersize=5)
            axes.set_xlim(-0.04, 1.04)
            axes.set_xticks(spots, words)
            _upright(axes, values)
            axes.yaxis.set_major_formatter(_tick if column == 0 else lambda *_: "")
            axes.set_title(plain(name, 24), pad=4)
            axes.grid(False, axis="x")
        said = f"{study.goal} by {', '.join(names)}; the best trial is marked."
        return save(drawn, alt or f"Slices of a search: {said}")


def parallel(study: Any, *, share: float = 0.1, alt: str = "") -> str:
    """A line per finished trial through all its settings; the best share stands out."""
    used = [t for t in _valued(study) if t.status == "finished"] or _valued(study)
    used = sorted(used, key=lambda t: study.sign(t.value))
    names = list(study.space.dimensions)
    values = np.asarray([t.value for t in used], float)
    top = max(1, round(share * len(used)))
    with style():
        drawn, axes = figure(height=3.1, left=0.3, right=0.5, top=0.45, bottom=0.3)
        columns, marks = [], []
        for name in names:
            at, words, spots = _places(study, name, used)
            columns.append(at)
            marks.append((words, spots))
        scaled = np.log(values) if _stretched(values) else values
        span = max(float(np.ptp(scaled)), 1e-12)
        columns.append((scaled - scaled.min()) / span)
        grid = np.stack(columns, 1)
        x = np.arange(grid.shape[1])
        for i in reversed(range(len(used))):
            good = np.isfinite(grid[i])
            front = i < top
            axes.plot(x[good], grid[i][good], color=SERIES[1] if front else SERIES[0],
                      alpha=0.9 if front else 0.18, linewidth=1.5 if front else 0.9,
                      zorder=3 if front else 2)  # fmt: skip
        for k, (words, spots) in enumerate(marks):
            axes.axvline(k, color=MUTED, linewidth=0.8)
            for word, spot in zip(words, spots):
                axes.text(k + 0.03, spot, word, color=MUTED, va="center", zorder=4)
        axes.axvline(len(names), color=MUTED, linewidth=0.8)
        for spot, i in ((0.0, int(values.argmin())), (1.0, int(values.argmax()))):
            axes.text(len(names) + 0.05, spot, number(values[i]), color=MUTED, va="center")
        axes.set_xlim(-0.05, len(names) + 0.05)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        for side in axes.spines.values():
            side.set_visible(False)
        for k, name in enumerate([*names, study.goal]):
            side = "center" if k else "left"
            axes.text(k, 1.07, plain(name, 12), color=INK, ha=side, va="bottom")
        said = f"{len(used)} trials, the best {top} in front."
        return save(drawn, alt or f"Parallel coordinates of {', '.join(names)}: {said}")


def importance(study: Any, *, alt: str = "") -> str:
    """Each setting's share of the differences between trials, with a 95 % interval."""
    rows = {name: (100 * a, 100 * b, 100 * c) for name, (a, b, c) in study.importance().items()}
    return intervals(rows, x="share of the differences between trials (%)", alt=alt)
