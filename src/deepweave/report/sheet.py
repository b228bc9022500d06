"""The figures of one page: each with ids of its own, all within the room of the file."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from deepweave.report import plots

LIMIT = 2_000_000  # bytes of a page


class Sheet:
    """Collects the figures of a page: gives each its own ids, and keeps account of the room."""

    def __init__(self, room: int = LIMIT - 400_000) -> None:
        self.room, self.count, self.notes = room, 0, []

    def figure(
        self, svg: str, title: str = "", caption: str = "", alt: str = ""
    ) -> dict[str, Any] | None:
        """A figure as the template takes it, or None with a note if it is no SVG or too large."""
        from markupsafe import Markup

        self.count += 1
        try:
            text = plots.clean(svg, alt, f"f{self.count}-")
        except ValueError as error:
            self.notes.append(f"A figure is left out: {error}.")
            return None
        if len(text.encode()) > self.room:
            self.notes.append(
                f"The figure “{title}” is too large for the page; it is in the folder."
            )
            return None
        self.room -= len(text.encode())
        width = float(re.split(r"[ ,]+", re.findall(r'viewBox="([^"]*)"', text)[0].strip())[2])
        smallest = float((re.findall(r'data-text="([\d.]+)"', text) or ["9"])[0])
        least = round(width * 9 / max(smallest, 1))  # narrower, its text would fall below 9 px
        return {"svg": Markup(text), "title": title, "caption": caption, "least": least,
                "wide": least > 440}  # fmt: skip

    def draw(self, title: str, make: Callable[[], str], caption: str = "") -> dict[str, Any] | None:
        """A figure from the function that draws it; what cannot be drawn is noted."""
        try:
            svg = make()
        except (ValueError, IndexError, TypeError) as error:
            self.notes.append(f"“{title}” could not be drawn: {error}.")
            return None
        return self.figure(svg, title, caption)
