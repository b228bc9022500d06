"""Densities in the plane, drawn side by side: shaded where they are high, points over them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from deepweave.report.style import MUTED, SERIES, WIDE, plain, save, style


def densities(
    panels: Mapping[str, Any],
    extent: tuple[float, float, float, float],
    *,
    labels: tuple[str, str] = ("", ""),
    columns: int = 2,
    alt: str = "",
) -> str:
    """Panels of one plane: a density is shaded, the shade even in its root; points are dots.

    Args:
        panels: by title (H, W), a density on a grid whose first row is the lowest, or (N, 2),
            points, of which at most 1,500 are drawn.
        extent: left, right, bottom, top of the plane.
        labels: of the axes.

    Raises:
        ValueError: nothing to draw, or values that are not finite.
    """
    if not panels:
        raise ValueError("plots.densities: there is nothing to draw")
    left, right, bottom, top = extent
    columns = min(columns, len(panels))
    lines = math.ceil(len(panels) / columns)
    margin, gap, head, foot = 0.42, 0.16, 0.28, 0.42 if any(labels) else 0.26
    wide = (WIDE - margin - gap * (columns - 1) - 0.08) / columns
    tall = wide * min(max((top - bottom) / (right - left), 0.65), 1.3)
    height = head + foot + lines * tall + (lines - 1) * (head + foot)
    tone = [int(SERIES[0][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    with style():
        from matplotlib.figure import Figure

        drawn = Figure(figsize=(WIDE, height))
        for i, (name, values) in enumerate(panels.items()):
            shown = np.asarray(values, float)
            if not np.isfinite(shown).all():
                raise ValueError(f"plots.densities: {name} has values that are not finite")
            row, column = divmod(i, columns)
            floor = height - head - tall - row * (head + foot + tall)
            at = margin + column * (wide + gap)
            axes = drawn.add_axes((at / WIDE, floor / height, wide / WIDE, tall / height))
            if shown.shape[1] == 2:
                shown = shown[:: math.ceil(len(shown) / 1500)]
                axes.plot(*shown.T, "o", color=SERIES[0], markersize=1.6, alpha=0.5,
                          markeredgewidth=0)  # fmt: skip
            else:
                shade = np.zeros((*shown.shape, 4))
                shade[..., :3] = tone
                shade[..., 3] = (shown / max(shown.max(), 1e-300)) ** 0.5
                axes.imshow(shade, extent=extent, origin="lower", aspect="auto",
                            interpolation="bilinear")  # fmt: skip
            axes.set(xlim=(left, right), ylim=(bottom, top))
            axes.set_title(plain(name, 30))
            axes.set_xlabel(plain(labels[0]))
            if column == 0:
                axes.set_ylabel(plain(labels[1]), labelpad=2)
            else:
                axes.tick_params(labelleft=False)
            axes.locator_params(nbins=4)
            axes.grid(False)
            for spine in axes.spines.values():
                spine.set_visible(True)
                spine.set_color(MUTED)
        return save(drawn, alt or f"Densities side by side: {', '.join(map(plain, panels))}.")
