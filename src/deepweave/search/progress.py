"""One live line while a search goes on; plain lines when nobody watches a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from deepweave.search.bucket import Plan
from deepweave.search.study import Study


class Line:
    """One live line while a search goes on."""

    def __init__(self) -> None:
        self.live: Any = None
        self.next = 0.0

    def __call__(self, study: Study, place: int, count: int, rung: int, plan: Plan) -> None:
        now = time.perf_counter()
        if now < self.next:
            return
        watched = sys.stderr.isatty()
        self.next = now + (0.1 if watched else 10.0)
        ended = sum(t.status not in ("waiting",) for t in study.trials)
        best = f"  best {study.goal} {study.best.value:.4g}" if study.ranked else ""
        text = (
            f"search: {ended}/{len(study.trials)} trials  program {place + 1}/{count}  "
            f"to epoch {rung}/{plan.epochs}{best}"
        )
        if not watched:
            print(text, file=sys.stderr, flush=True)  # noqa: T201
            return
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        if self.live is None:
            self.live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self.live.start()
        self.live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)

    def close(self) -> None:
        """Let the terminal go."""
        if self.live is not None:
            self.live.stop()
            self.live = None
