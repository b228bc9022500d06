"""What a data set asks of a model: the task, the shapes, the names and the units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Task = Literal["binary", "multiclass", "multilabel", "regression", "segmentation", "tokens"]
Kind = Literal["table", "image", "sequence", "text", "graph"]

TASKS: tuple[str, ...] = get_args(Task)
KINDS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Spec:
    """The contract between a data set and a model: one sample's shape and what is asked of it.

    ``outputs`` is the number of values that the model gives for a sample: 1 for binary, the
    number of classes, of labels, or of regression targets; for tokens that of classes at every
    position. Of sequences ``shape`` is (longest, features), of texts (longest,) with the size of
    the ``vocabulary``, of graphs that of a node's features.

    Shapes: one sample ``shape``, a batch ``(B, *shape)`` -> ``(B, outputs)``.

    Raises:
        ValueError: an unknown task or kind, a shape or number of outputs that is not positive,
            or names that do not fit the numbers.

    >>> spec = Spec("multiclass", (1, 8, 8), 10, kind="image")
    >>> Spec.from_json(spec.to_json()) == spec
    True
    """

    task: Task
    shape: tuple[int, ...]
    outputs: int
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    unit: str = ""
    kind: Kind = "table"
    vocabulary: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"Spec: task must be one of {', '.join(TASKS)}, got {self.task!r}")
        if self.kind not in KINDS:
            raise ValueError(f"Spec: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")
        for field in ("shape", "classes", "features", "targets"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        if not self.shape or any(size < 1 for size in self.shape):
            raise ValueError(f"Spec: shape must be positive sizes, got {self.shape}")
        if self.outputs < 1:
            raise ValueError(f"Spec: outputs must be at least 1, got {self.outputs}")
        if self.task == "binary" and self.outputs != 1:
            raise ValueError(f"Spec: a binary task has 1 output, got {self.outputs}")
        one_mask = self.task == "segmentation" and self.outputs == 1
        expected = 2 if self.task == "binary" or one_mask else self.outputs
        if self.classes and self.task != "regression" and len(self.classes) != expected:
            raise ValueError(
                f"Spec: a {self.task} task with {self.outputs} outputs has {expected} class "
                f"names, got {len(self.classes)}"
            )

    @property
    def size(self) -> int:
        """The number of values in one sample: the product of ``shape``."""
        product = 1
        for length in self.shape:
            product *= length
        return product

    def to_json(self) -> dict[str, Any]:
        """The specification as plain lists, numbers and strings."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Spec:
        """The specification that ``to_json`` wrote."""
        held: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
        }
        return cls(**held)
