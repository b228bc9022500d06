"""log.jsonl: one line per logged step, read by the page and by anyone."""

from __future__ import annotations

import json
import time
from typing import Any

import torch

from deepweave.core import Hook, Logs, Loop
from deepweave.run import unwritten, write_whole


class Log(Hook):
    """Average what the steps say, and write a line every few steps.

    Losses stay tensors until a line is due, so a step costs no synchronisation.

    Args:
        every: steps per line; None: about 200 lines in all, at least 10 steps each.
    """

    def __init__(self, every: int | None = None):
        if every is not None and every < 1:
            raise ValueError(f"Log: every must be at least 1, got {every}")
        self.every = every
        self._kept: list[Logs] = []
        self._written = 0
        self._due = 0.0
        self._loop: Loop | None = None

    def begin(self, loop: Loop) -> None:
        self._loop = loop
        loop.run.history = []
        if self.every is None:
            self.every = min(200, max(10, (loop.steps or 2000) // 200))

    def after_step(self, loop: Loop, logs: Logs) -> None:
        self._kept.append(logs)
        if loop.count % self.every == 0:  # pyright: ignore[reportOperatorIssue]
            self._line(loop)

    def _line(self, loop: Loop) -> None:
        if not self._kept:
            return
        means: dict[str, Any] = {}
        for name in dict.fromkeys(name for logs in self._kept for name in logs):
            found = [logs[name] for logs in self._kept if name in logs]  # not every step has all
            means[f"train/{name}"] = torch.stack(found).mean(0)
        self._kept = []
        rates = [one.param_groups[0]["lr"] for one in loop.step.optimizers]
        if rates:
            means["lr"] = float(rates[0])
        loop.note(loop.place.mean(means))
        if time.perf_counter() > self._due:
            self._flush(loop)

    def _flush(self, loop: Loop) -> None:
        history, folder = loop.run.history, loop.run.folder
        if folder is not None and self._written < len(history):
            lines = "".join(json.dumps(line) + "\n" for line in history[self._written :])
            path = folder / "log.jsonl"
            try:
                # The first lines begin the file: none is left of a try without a checkpoint.
                with open(path, "a" if self._written else "w", encoding="utf-8") as file:
                    file.write(lines)
            except OSError as error:
                raise unwritten(path, error) from None
            self._written = len(history)
        self._due = time.perf_counter() + 1.0

    def end(self, loop: Loop) -> None:
        self._line(loop)
        self._flush(loop)

    def state(self) -> dict[str, Any]:
        assert self._loop is not None
        self._flush(self._loop)  # the file must hold at least the lines that are counted here
        names = self._kept[-1] if self._kept else {}
        kept = {name: torch.stack([logs[name] for logs in self._kept]) for name in names}
        kept = self._loop.place.mean(kept)
        return {"kept": kept, "lines": len(self._loop.run.history)}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back the averages under way; drop the lines written after the checkpoint."""
        parts = {name: value.unbind(0) for name, value in state["kept"].items()}
        self._kept = [dict(zip(parts, values)) for values in zip(*parts.values())]
        assert self._loop is not None
        run = self._loop.run
        if run.folder is not None:
            path = run.folder / "log.jsonl"
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            lines = text.splitlines()[: state["lines"]]
            run.history = [json.loads(line) for line in lines]
            write_whole(path, "".join(line + "\n" for line in lines))
        self._written = len(run.history)
