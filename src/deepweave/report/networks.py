"""Graphs drawn: nodes by colour, edges by weight, several panels on one layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepweave.report.style import INK, MUTED, PAPER, SERIES, WIDE, plain, save, style

TONES = (*SERIES, "#7b52ab", "#8c5a3c", "#7f858d")  # ten classes need more than the palette has
PLATE = {"facecolor": PAPER, "alpha": 0.8, "edgecolor": "none", "boxstyle": "round,pad=0.12"}
MOST = 900  # dots that are drawn of a large graph
MANY = 200  # nodes beyond which they are drawn as small dots, and edges are left out


def layout(edges: Any, nodes: int, *, seed: int = 0) -> np.ndarray:
    """Places of the nodes, the springs of their edges at rest: (N, 2) within [0, 1]."""
    import networkx

    network = networkx.Graph()
    network.add_nodes_from(range(nodes))
    network.add_edges_from(np.asarray(edges).T.tolist())
    places = networkx.spring_layout(network, seed=seed, iterations=60 if nodes > MANY else 200)
    found = np.stack([places[i] for i in range(nodes)])
    low, high = found.min(0), found.max(0)
    return (found - low) / np.where(high > low, high - low, 1)


def network(
    places: np.ndarray, edges: Any, panels: Mapping[str, Any], *, classes: Sequence[str] = (),
    widths: Any = None, marked: Any = (), names: Mapping[int, str] | None = None,
    columns: int = 2, alt: str = "",
) -> str:  # fmt: skip
    """The same graph once for each panel: a panel gives each node its class.

    Args:
        places: of the nodes, as :func:`layout` gives them.
        edges: pairs of nodes, as columns.
        panels: title -> class of each node, from 0; -1 is grey.
        classes: their names, for the key below.
        widths: of each edge, 0 to 1.
        marked: nodes with a ring around them.
        names: words beside some nodes, by their number.

    Shapes: places (N, 2); edges (2, E); each panel (N,); widths (E,)
    """
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    edges = np.asarray(edges)
    large = len(places) > MANY
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    side = WIDE / columns
    key = 0.24 if classes and not large else 0.0
    tall = rows * (side + 0.22) + key
    marked = np.asarray(list(marked), int)
    shown = np.arange(len(places))[:: -(-len(places) // MOST)]
    with style():
        drawn = Figure(figsize=(WIDE, tall))
        for i, (title, colours) in enumerate(panels.items()):
            row, column = divmod(i, columns)
            bottom = 1 - ((row + 1) * (side + 0.22)) / tall
            axes = drawn.add_axes((column / columns, bottom, 0.98 / columns, side / tall))
            if not large or widths is not None:
                pen: Any = 0.5 if widths is None else 0.15 + 3.2 * np.asarray(widths, float)
                lines = LineCollection(list(places[edges.T]), colors=MUTED, linewidths=pen)
                lines.set_alpha(0.45)
                axes.add_collection(lines)
            kind = np.asarray(colours)
            shade = [TONES[c % 10] if c >= 0 else "#c4c9cf" for c in kind[shown].tolist()]
            size = 5 if large else max(22, min(80, 2600 / len(places)))
            axes.scatter(
                places[shown, 0], places[shown, 1], s=size, c=shade, linewidths=0, zorder=2
            )
            if len(marked):
                across, up = places[marked].T
                axes.scatter(across, up, s=size * 1.9, facecolors="none", edgecolors=INK,
                             linewidths=0.9, zorder=3)  # fmt: skip
            for number, name in enumerate(classes if large else ()):
                if (kind == number).any():  # a class is named where most of it lies
                    across, up = np.median(places[kind == number], 0).tolist()
                    axes.text(across, up, plain(name), ha="center", va="center", color=INK,
                              fontsize=11, fontweight="bold", zorder=5, bbox=PLATE)  # fmt: skip
            for number, name in (names or {}).items():
                across, up = places[number]
                words: Any = {"ha": "left" if across < 0.6 else "right", "va": "center"}
                axes.text(across + (0.04 if across < 0.6 else -0.04), up, plain(name),
                          color=INK, fontweight="bold", zorder=4, bbox=PLATE, **words)  # fmt: skip
            axes.set_title(plain(title))
            axes.set_axis_off()
            axes.set_xlim(-0.06, 1.06)
            axes.set_ylim(-0.06, 1.06)
        _key(drawn, () if large else classes, tall)
        return save(drawn, alt or f"A graph of {len(places)} nodes: {', '.join(panels)}.")


def _key(drawn: Any, classes: Sequence[str], tall: float) -> None:
    """The classes in their colours, in a line below."""
    if not classes:
        return
    axes = drawn.add_axes((0, 0, 1, 0.2 / tall))
    axes.set_axis_off()
    axes.set_xlim(0, WIDE)
    axes.set_ylim(0, 0.2)
    at = 0.06
    for i, name in enumerate(classes):
        axes.plot([at], [0.1], "o", color=TONES[i % 10], markersize=4.5)
        axes.text(at + 0.09, 0.1, plain(name), va="center", color=INK)
        at += 0.24 + 0.078 * len(str(name))
