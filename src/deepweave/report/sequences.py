"""Plots of what happens over time: maps of many rows, and lines under them on the same axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deepweave.report.plots import _ends, _label_room
from deepweave.report.style import MUTED, SERIES, WIDE, WORDS, plain, save, style


def over_time(
    maps: Mapping[str, Any],
    lines: Mapping[str, Any] | None = None,
    *,
    x: str = "step",
    y: str = "",
    span: tuple[float, float] = (0.0, 1.0),
    alt: str = "",
) -> str:
    """Maps one above the other, light at the low end of ``span``, and lines below, by step.

    Shapes: each map (rows, T), each line (T,)

    Raises:
        ValueError: nothing to draw, or not all of one length.

    >>> svg = over_time({"a gate": np.zeros((3, 5))}, {"said": np.ones(5)}, alt="a gate")
    >>> 'aria-label="a gate"' in svg
    True
    """
    grids = {plain(name): np.asarray(one, float) for name, one in maps.items()}
    series = {plain(name, 18): np.asarray(one, float) for name, one in (lines or {}).items()}
    lengths = {one.shape[-1] for one in (*grids.values(), *series.values())}
    if len(lengths) != 1:
        raise ValueError(f"plots.over_time: maps and lines must be of one length, got {lengths}")
    (steps,) = lengths
    with style():
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure

        tones = LinearSegmentedColormap.from_list("blues", ["#f2f4f6", SERIES[0], "#08263a"])
        each, below = 0.72, 1.25 if series else 0.0
        tall = 0.5 + (each + 0.27) * len(grids) + (below + 0.3 if series else 0)
        left, right = 0.34, _label_room(list(series)) if len(series) > 1 else 0.15
        drawn = Figure(figsize=(WIDE, tall))
        top = tall
        axes: Any = None
        for name, grid in grids.items():
            top -= 0.25 + each
            box = (left / WIDE, top / tall, 1 - (left + right) / WIDE, each / tall)
            axes = drawn.add_axes(box)
            axes.imshow(grid, aspect="auto", cmap=tones, vmin=span[0], vmax=span[1],
                        extent=(0.5, steps + 0.5, len(grid) + 0.5, 0.5))  # fmt: skip
            axes.set_title(name, pad=3)
            axes.set_yticks([])
            axes.set_xticks([])
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set_visible(False)
        if series:
            top -= 0.3 + below
            box = (left / WIDE, top / tall, 1 - (left + right) / WIDE, below / tall)
            axes = drawn.add_axes(box)
            ends = []
            for i, (name, line) in enumerate(series.items()):
                axes.plot(np.arange(1, steps + 1), line, color=SERIES[i % len(SERIES)])
                ends.append((float(line[-1]), name, WORDS[i % len(WORDS)]))
            axes.set(xlim=(0.5, steps + 0.5), ylim=(-0.03, 1.03))
            axes.set_yticks([0, 0.5, 1], ["0", "½", "1"])
            axes.set_title(plain(y), pad=3)
            if len(ends) > 1:
                _ends(axes, ends)
        ticks = [1, *range(max(10, steps // 50 * 10), steps + 1, max(10, steps // 50 * 10))]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.tick_params(axis="x", length=3, labelcolor=MUTED)
        axes.set_xlabel(plain(x))
        return save(drawn, alt or f"{', '.join((*grids, *series))} over {steps} steps.")
