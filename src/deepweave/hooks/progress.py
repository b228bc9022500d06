"""One live line while a run goes on; plain lines when nobody watches a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from deepweave.core import Hook, Logs, Loop


class Progress(Hook):
    """Show where the run stands: epoch, loss, validation, speed, time left.

    A terminal gets one line that is drawn anew ten times a second; a pipe gets a line when
    training begins, every ``seconds``, and when it ends.
    """

    writes = True

    def __init__(self, *, seconds: float = 10.0):
        self.seconds = seconds
        self._live: Any = None
        self._next = 0.0

    def begin(self, loop: Loop) -> None:
        self._pace = 0.1 if sys.stderr.isatty() else self.seconds
        self._next = 0.0
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
            self._live.start()

    def after_step(self, loop: Loop, logs: Logs) -> None:
        now = time.perf_counter()
        if now < self._next:
            return
        self._next = now + self._pace
        text = line(loop, logs)
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def close(self, loop: Loop) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def end(self, loop: Loop) -> None:
        self.close(loop)
        print(summary(loop), file=sys.stderr, flush=True)  # noqa: T201


def line(loop: Loop, logs: Logs) -> str:
    """The one line: ``epoch 3/20  step 33/220  loss 0.41  validation 0.52 ...``."""
    parts = []
    if loop.epochs:
        parts.append(f"epoch {min(loop.epoch + 1, loop.epochs)}/{loop.epochs}")
    parts.append(f"step {loop.count}/{loop.steps}" if loop.steps else f"step {loop.count}")
    parts.append(f"loss {float(logs['loss'].float().mean()):.4g}")
    parts += latest(loop)
    speed = loop.count / max(loop.seconds, 1e-9)
    parts.append(f"{speed:,.0f} steps/s")
    if loop.steps:
        parts.append(f"{_clock((loop.steps - loop.count) / speed)} left")
    return "  ".join(parts)


def summary(loop: Loop) -> str:
    """The line that stays."""
    why = f": {loop.stop}" if loop.stop else ""
    parts = [f"trained {loop.count:,} steps in {_clock(loop.seconds)}{why}", *latest(loop)]
    return "  ".join(parts)


def latest(loop: Loop) -> list[str]:
    """The newest validation numbers, briefly; of a population the best member's."""
    for entry in reversed(loop.run.history):
        found = {k: v for k, v in entry.items() if k.startswith("validation/") and v is not None}
        if found:
            return [f"{k.replace('/', ' ')} {_short(v)}" for k, v in list(found.items())[:3]]
    return []


def _short(value: Any) -> str:
    if isinstance(value, list):
        value = min((v for v in value if v is not None), default=float("nan"))
    return f"{value:.4g}"


def _clock(seconds: float) -> str:
    """Seconds as 9.3 s, 1:05 or 2:03:04."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
