"""Which token looks at which: the weights of attention, with the tokens along both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepweave.report.style import MUTED, SERIES, WIDE, plain, save, style

SHOWN = {" ": "␣", "\n": "↵", "\t": "⇥"}


def alignment(
    weights: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    names: Sequence[str] = (),
    across: int = 1,
    labels: tuple[str, str] = ("says", "looks at"),
    alt: str = "",
) -> str:
    """Maps of weights, one for each head: dark where a row's token looks at a column's.

    Shapes: weights (T, S), or (heads, T, S) with a name for each

    Raises:
        ValueError: the numbers of tokens do not fit the weights.

    >>> svg = alignment(np.eye(2), ["AH", "B"], ["a", "b"], alt="letters and sounds")
    >>> 'aria-label="letters and sounds"' in svg
    True
    """
    maps = np.asarray(weights, float)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.shape[1:] != (len(rows), len(columns)):
        raise ValueError(
            f"plots.alignment: weights must be ({len(rows)}, {len(columns)}), got {maps.shape[1:]}"
        )
    across = min(across, len(maps))
    down = -(-len(maps) // across)
    words = [[plain(SHOWN.get(token, token), 12) for token in side] for side in (rows, columns)]
    longest = [max(map(len, side)) for side in words]
    with style():
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure

        tones = LinearSegmentedColormap.from_list("blues", ["#f2f4f6", SERIES[0], "#08263a"])
        turned = longest[1] > 2
        left = 0.32 + 0.075 * longest[0]
        bottom = 0.3 + (0.075 * longest[1] if turned else 0.13)
        wide = (WIDE - left - 0.12 - (across - 1) * 0.15) / across
        cell = min(0.3, wide / len(columns))
        wide, tall = cell * len(columns), cell * len(rows)
        top = 0.26 if names else 0.08
        height = bottom + down * (tall + top) + 0.05
        drawn = Figure(figsize=(WIDE, height))
        size = min(9.0, max(6.5, cell * 42))
        for place, grid in enumerate(maps):
            row, column = divmod(place, across)
            x = left + column * (wide + 0.15)
            y = height - (row + 1) * (tall + top)
            axes = drawn.add_axes((x / WIDE, y / height, wide / WIDE, tall / height))
            axes.imshow(grid, aspect="auto", cmap=tones, vmin=0, vmax=1)
            axes.grid(False)
            axes.tick_params(length=0, labelsize=size)
            last, first = place + across >= len(maps), column == 0
            axes.set_xticks(range(len(columns)), words[1] if last else [])
            axes.set_yticks(range(len(rows)), words[0] if first else [])
            if turned:
                axes.tick_params(axis="x", rotation=90)
            if names:
                axes.set_title(plain(names[place], 24), pad=3)
            if first:
                axes.set_ylabel(plain(labels[0]), color=MUTED, labelpad=2)
            if last:
                axes.set_xlabel(plain(labels[1]), color=MUTED, labelpad=2)
        return save(drawn, alt)
