"""The house style over matplotlib: a figure as SVG text that follows a page into light and dark.

Colours are written as CSS variables with the light tone as fallback, text stays text, and
nothing in a file depends on the hour or the machine.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1b1d21", "#596069", "#e2e5e9", "#fefefe"
# Okabe and Ito's palette, yellow last: it is the weakest on white.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9", "#b8a800")
WORDS = ("#00639b", "#b04e00", "#00775a", "#8a5f00", "#9c4676", "#1f6f9f", "#6f6600")
_VARIABLES = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"}
_VARIABLES |= {tone: f"series-{i}" for i, tone in enumerate(SERIES, 1)}
_VARIABLES |= {tone: f"words-{i}" for i, tone in enumerate(WORDS, 1)}
_FAMILY = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', sans-serif"
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "deepweave", "text.parse_math": False,
    "font.size": 9, "font.family": "DejaVu Sans", "axes.titlesize": 9, "axes.labelsize": 9,
    "xtick.labelsize": 9, "ytick.labelsize": 9, "axes.titlelocation": "left",
    "axes.titlepad": 8, "text.color": INK, "axes.titlecolor": INK, "axes.labelcolor": MUTED,
    "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED, "axes.edgecolor": RULE, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": RULE, "grid.linewidth": 0.7,
    "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "xtick.major.size": 3, "ytick.major.size": 0, "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round", "axes.unicode_minus": True, "image.interpolation": "none",
    "axes.formatter.use_mathtext": False, "axes.formatter.useoffset": False,
}  # fmt: skip
WIDE = 4.4  # inches: 317 units, so that 9 pt stays above 9 px in a column of 328 px


@contextmanager
def style() -> Iterator[None]:
    """The house style for everything drawn inside the ``with``."""
    import matplotlib

    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "svg"}):
        matplotlib.rcParams.update(_STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


def figure(width: float = WIDE, height: float = 2.7, *, left: float = 0.5, right: float = 0.2,
           top: float = 0.32, bottom: float = 0.44) -> tuple[Figure, Axes]:  # fmt: skip
    """An empty figure with one set of axes; sizes and margins in inches. Use under `style`."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(width, height))
    box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (top + bottom) / height)
    return drawn, drawn.add_axes(box)


def save(drawn: Figure, alt: str) -> str:
    """A matplotlib figure as one SVG string in the house style.

    >>> with style():
    ...     drawn, axes = figure()
    ...     line = axes.plot([0, 1], [1, 0], color=SERIES[0])
    ...     svg = save(drawn, "a falling line")
    >>> 'aria-label="a falling line"' in svg and "var(--series-1, #0072b2)" in svg
    True
    """
    import matplotlib

    drawn.patch.set_visible(False)
    for axes in drawn.axes:
        axes.patch.set_visible(False)
    stream = io.StringIO()
    salt = {"svg.fonttype": "none", "svg.hashsalt": "deepweave"}
    with matplotlib.rc_context(salt):  # pyright: ignore[reportArgumentType]
        drawn.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return clean(stream.getvalue(), alt)


def clean(svg: str, alt: str = "", prefix: str | None = None) -> str:
    """An SVG made safe to stand inside a page: no script, style sheet, event, link or far load.

    ``prefix`` begins every id, so that several figures share a page; by default it is a digest
    of the figure.

    Raises:
        ValueError: the text is no SVG.
    """
    if "<!ENTITY" in svg.upper():
        raise ValueError("plots.clean: an SVG with entities is not accepted")
    try:
        root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", svg, count=1))
    except ElementTree.ParseError as error:
        raise ValueError(f"plots.clean: not an SVG ({error})") from None
    if _local(root.tag) != "svg":
        raise ValueError(f"plots.clean: expected <svg>, got <{_local(root.tag)}>")
    sizes = [float(found) for found in re.findall(r"font(?:-size)?: *(?:bold )?([\d.]+)px", svg)]
    if "viewBox" not in root.attrib:
        span = [re.sub(r"[^\d.]", "", root.get(side, "")) or "100" for side in ("width", "height")]
        root.set("viewBox", f"0 0 {span[0]} {span[1]}")
    label = alt or root.get("aria-label") or "figure"
    for name in ("width", "height", "version", "class", "aria-label", "role"):
        root.attrib.pop(name, None)
    prefix = prefix or "d" + hashlib.sha256(svg.encode()).hexdigest()[:8] + "-"
    kept = set(re.findall(r"""(?:url\(#|href=["']#)([^)"']+)""", svg))
    _wash(root, kept, prefix)
    root.set("stroke-linejoin", "round")
    root.set("role", "img")
    root.set("aria-label", plain(label))
    root.set("xmlns", "http://www.w3.org/2000/svg")
    if sizes:
        root.set("data-text", f"{min(sizes):g}")
    text = ElementTree.tostring(root, encoding="unicode")
    for tone, name in _VARIABLES.items():
        text = re.sub(rf"(?<!, ){tone}\b", f"var(--{name}, {tone})", text)
    return text


def _local(tag: object) -> str:
    return tag.rsplit("}", 1)[-1] if isinstance(tag, str) else ""


def _wash(node: ElementTree.Element, kept: set[str], prefix: str) -> None:
    banned = {"script", "style", "metadata", "foreignObject", "iframe", "a", "animate", "set", ""}
    for child in list(node):
        if _local(child.tag) in banned:
            node.remove(child)
        else:
            _wash(child, kept, prefix)
    node.tag = _local(node.tag)
    for name, value in list(node.attrib.items()):
        del node.attrib[name]
        local = _local(name)
        if local == "id":
            if value in kept:
                node.set("id", prefix + value)
        elif local == "href":
            if value.startswith("#"):
                node.set("href", f"#{prefix}{value[1:]}")
            elif value.startswith("data:image/"):
                node.set("href", re.sub(r"\s", "", value))
        elif not local.lower().startswith("on") and not re.search(r"url\((?!#)|@import", value):
            value = re.sub(r"url\(#", f"url(#{prefix}", value)
            value = re.sub(r"'DejaVu Sans'[^;]*", f"var(--font, {_FAMILY})", value)
            node.set(local, value)
    if node.text and not node.text.strip():
        node.text = None
    if node.tail and not node.tail.strip():
        node.tail = None


def plain(text: object, length: int = 0) -> str:
    """Text without control characters, cut to ``length`` with an ellipsis (0: whole)."""
    words = "".join(c if c.isprintable() or c == "\u00a0" else " " for c in str(text))
    return words[: length - 1] + "…" if length and len(words) > length else words


def png(picture: np.ndarray) -> str:
    """An image (H, W), (H, W, 3) of uint8 as a PNG data address.

    >>> png(np.zeros((2, 2), np.uint8))[:22]
    'data:image/png;base64,'
    """
    height, width = picture.shape[:2]
    colour = 2 if picture.ndim == 3 else 0
    flat = np.ascontiguousarray(picture, np.uint8).reshape(height, -1)
    raw = np.hstack([np.zeros((height, 1), np.uint8), flat]).tobytes()
    chunks = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body
        chunks += struct.pack(">I", zlib.crc32(kind + body))
    return "data:image/png;base64," + base64.b64encode(chunks).decode()
