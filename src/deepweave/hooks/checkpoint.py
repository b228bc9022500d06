"""Everything needed to go on after a kill, in one file, written whole or not at all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from deepweave import archive
from deepweave.core import Hook, Logs, Loop

SHARE = 0.02  # of the running time that may go into checkpoints


class Checkpoint(Hook):
    """Keep ``checkpoint/last.safetensors`` of the run's folder fresh.

    Of several processes the first reads and writes, and all take part: the file is the same as
    that of one process, and any number of processes can go on from it.

    Args:
        seconds: between two checkpoints; None: so that they cost at most 2 % of the time.

    Raises:
        ValueError: the file is damaged, or of another run than this one.
        OSError: the disk is full or cannot be written; the earlier checkpoint is whole.
    """

    def __init__(self, *, seconds: float | None = None):
        self.seconds = seconds
        self.path: Path | None = None
        self._due = 0.0
        self._next = 1  # the step of the next one, on which several processes agree
        self._last = 0.0, 0  # time and step of the one before

    def begin(self, loop: Loop) -> None:
        kept = loop.place.first(lambda: self._read(loop))
        if kept is not None:
            self._resume(loop, kept)
        now = time.perf_counter()
        self._due, self._last = now + (self.seconds or 0), (now, loop.count)
        self._next = loop.count + 1

    def _read(self, loop: Loop) -> Any:
        folder = loop.run.folder
        if folder is None:
            raise ValueError("Checkpoint: the run has no folder: pass out= to fit")
        (folder / "checkpoint").mkdir(exist_ok=True)
        for stale in (folder / "checkpoint").glob(".*.part"):
            stale.unlink(missing_ok=True)  # left by a kill in the midst of writing
        self.path = folder / "checkpoint" / "last.safetensors"
        if not self.path.exists():
            return None
        kept = archive.load(self.path)
        if not isinstance(kept, dict) or "identity" not in kept:
            raise ValueError(f"fit: {self.path} is no checkpoint of a run")
        return kept

    def _resume(self, loop: Loop, kept: dict[str, Any]) -> None:
        mine = identity(loop)
        for name, value in kept["identity"].items():
            if mine.get(name) != value:
                raise ValueError(
                    f"fit: {self.path} is of another run: its {name} is {value}, "
                    f"here it is {mine.get(name)}; give another out="
                )
        loop.restore(kept["loop"])

    def after_step(self, loop: Loop, logs: Logs) -> None:
        alone = loop.place.count == 1
        if time.perf_counter() >= self._due if alone else loop.count >= self._next:
            self.save(loop)

    def end(self, loop: Loop) -> None:
        self.save(loop)

    def save(self, loop: Loop) -> None:
        """Write the checkpoint now."""
        began = time.perf_counter()
        state = loop.place.whole(loop.state())
        if self.path is not None:
            archive.save(self.path, {"identity": identity(loop), "loop": state})
        now = time.perf_counter()
        wait = (now - began) / SHARE if self.seconds is None else self.seconds
        self._due = now + wait
        if loop.place.count > 1:
            then, count = self._last
            pace = (now - then) / max(1, loop.count - count)  # seconds per step
            self._next = loop.count + loop.place.first(lambda: max(1, round(wait / pace)))
            self._last = now, loop.count


def identity(loop: Loop) -> dict[str, Any]:
    """What must be the same for a checkpoint to belong to a run."""
    weights = loop.step.weights()
    return {
        "objective": loop.run.info["objective"],
        "optimizer": [type(one).__name__ for one in loop.step.optimizers],
        "weights": ", ".join(f"{name} {tuple(value.shape)}" for name, value in weights.items()),
        "seed": loop.seed,
        "epochs": loop.epochs,
        "steps": loop.steps,
        "precision": loop.place.precision,
        "data": loop.run.info.get("data", {}).get("fingerprint"),
    }
