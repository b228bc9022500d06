"""What happens while a loop runs, each in a few lines: validation, checkpoints, schedules ..."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deepweave.core import Hook
from deepweave.hooks.average import Average
from deepweave.hooks.checkpoint import Checkpoint
from deepweave.hooks.collapse import Collapse
from deepweave.hooks.gradients import Clip, Diagnose, Guard
from deepweave.hooks.log import Log
from deepweave.hooks.progress import Progress
from deepweave.hooks.proximal import MaxNorm, Proximal
from deepweave.hooks.schedule import (
    LearningRates,
    Plateau,
    Schedule,
    constant,
    cosine,
    find_lr,
    linear,
    one_cycle,
)
from deepweave.hooks.track import MLflow, TensorBoard
from deepweave.hooks.validate import Validate

__all__ = [
    "Average",
    "Checkpoint",
    "Clip",
    "Collapse",
    "Diagnose",
    "Guard",
    "LearningRates",
    "Log",
    "MLflow",
    "MaxNorm",
    "Plateau",
    "Progress",
    "Proximal",
    "Schedule",
    "TensorBoard",
    "Validate",
    "constant",
    "cosine",
    "find_lr",
    "kept",
    "linear",
    "one_cycle",
    "standard",
]

# Average before Validate, which validates it and ends with its best; Collapse after both, of what
# the run ends with, and after Diagnose, whose advice it adds to; Diagnose before Clip, so that it
# sees the gradients as they are.
_LATE = (
    *(Average, Validate, Plateau, Diagnose, Collapse, Clip, Log, TensorBoard, MLflow, Progress),
    Checkpoint,
)


def _ordered(hooks: Sequence[Hook]) -> list[Hook]:
    """Early hooks as given, then the late ones in their order: each sees what it reads."""

    def place(hook: Hook) -> int:
        return next((i for i, kind in enumerate(_LATE, 1) if isinstance(hook, kind)), 0)

    return sorted(hooks, key=place)


def standard(hooks: Sequence[Hook], data: Any, folder: bool, comparable: bool = True) -> list[Hook]:
    """The hooks of a whole data set, where the user's own do not take their place."""
    patience = 20 if comparable else None
    defaults: list[Hook] = [
        Guard(),
        Proximal(),
        Validate(data.validation, patience=patience, restore=comparable),
        Diagnose(),
        Log(),
        Progress(),
    ]
    if folder:
        defaults.append(Checkpoint())
    given = {type(hook) for hook in hooks}
    return _ordered([*(hook for hook in defaults if type(hook) not in given), *hooks])


def kept(hooks: Sequence[Hook], folder: bool) -> list[Hook]:
    """The hooks of bare batches: a guard, proximal steps, with a folder a log and checkpoints."""
    given = {type(hook) for hook in hooks}
    defaults: list[Hook] = [Guard(), Proximal(), *([Log(), Checkpoint()] if folder else [])]
    return _ordered([*(hook for hook in defaults if type(hook) not in given), *hooks])
