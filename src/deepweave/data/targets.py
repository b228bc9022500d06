"""The target of a data set: which task it makes, its classes, its scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from deepweave.data import formats
from deepweave.data.spec import TASKS, Task

MANY = 30  # whole numbers with more different values than this are a quantity, not classes


@dataclass(frozen=True)
class Target:
    """How raw targets become tensors, and predictions become targets again.

    Classes are numbered in their sorted order. Regression targets are standardised by the
    mean and the standard deviation of the training rows, ``(y - mean) / scale``.
    """

    task: Task
    names: tuple[str, ...]
    classes: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    unit: str = ""

    @property
    def outputs(self) -> int:
        """The number of values that a model gives for one sample."""
        if self.task == "binary":
            return 1
        if self.task == "segmentation":
            return 1 if len(self.classes) == 2 else len(self.classes)
        classes = self.task in ("multiclass", "tokens")
        return len(self.classes) if classes else len(self.names)

    def encode(self, columns: Mapping[str, np.ndarray]) -> Tensor:
        """Raw target columns as a tensor: class numbers, labels, or quantities as float64.

        Raises:
            ValueError: a value that is missing, not finite, or not one of the classes.
        """
        arrays = [columns[name] for name in self.names]
        for name, array in zip(self.names, arrays):
            refuse_missing(name, array)
        if self.task in ("binary", "multiclass"):
            return self._codes(arrays[0])
        if self.task == "segmentation":
            return torch.from_numpy(masks(self.names[0], arrays[0], len(self.classes)))
        rows = np.stack([numbers(name, array) for name, array in zip(self.names, arrays)], axis=1)
        if self.task == "multilabel":
            return torch.from_numpy(rows.astype(np.float32))
        return torch.from_numpy(rows[:, 0] if len(self.names) == 1 else rows)

    def _codes(self, array: np.ndarray) -> Tensor:
        found, inverse = distinct(array)
        place = {value: code for code, value in enumerate(self.values)}
        named = {label: code for code, label in enumerate(self.classes)}
        codes = [place.get(value, named.get(str(value), -1)) for value in found]
        if -1 in codes:
            strange = found[codes.index(-1)]
            known = ", ".join(self.classes[:6]) + (", ..." if len(self.classes) > 6 else "")
            row = int(np.argmax(inverse == codes.index(-1))) + 1
            raise ValueError(
                f'load: target "{self.names[0]}" has {strange!r} in row {row}, '
                f"which is not one of the classes {known}"
            )
        return torch.from_numpy(np.asarray(codes, dtype=np.int64)[inverse])

    def fitted(self, train: Tensor) -> Target:
        """The target with the scale of the training rows (regression); else itself."""
        if self.task != "regression":
            return self
        rows = train.reshape(len(train), -1).double()
        scale = rows.std(0, correction=0)
        if not bool((scale > 0).all()):
            name = self.names[int(torch.argmin(scale))]
            raise ValueError(f'load: target "{name}" has one value only in the training rows')
        return replace(self, mean=tuple(rows.mean(0).tolist()), scale=tuple(scale.tolist()))

    def standardise(self, y: Tensor) -> Tensor:
        """Encoded targets as the training sees them."""
        if self.task != "regression":
            return y
        mean, scale = self._affine(y)
        return ((y - mean) / scale).float()

    def restore(self, prediction: Tensor) -> Tensor:
        """Predictions in the original unit, ``prediction * scale + mean`` (regression only)."""
        if self.task != "regression":
            return prediction
        mean, scale = self._affine(prediction)
        return prediction * scale + mean

    def _affine(self, like: Tensor) -> tuple[Tensor, Tensor]:
        if len(self.names) == 1:
            return like.new_tensor(self.mean[0]), like.new_tensor(self.scale[0])
        if like.shape[-1] != len(self.names):
            raise ValueError(
                f"restore: prediction must be (N, {len(self.names)}), got {tuple(like.shape)}"
            )
        return like.new_tensor(self.mean), like.new_tensor(self.scale)

    def to_json(self) -> dict[str, Any]:
        """The target as plain lists, numbers and strings."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Target:
        """The target that ``to_json`` wrote."""
        held: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.items()
        }
        return cls(**held)


def decide(
    columns: Mapping[str, np.ndarray],
    *,
    task: str | None = None,
    classes: Sequence[str] = (),
    unit: str = "",
) -> tuple[Target, list[str]]:
    """The target that raw columns make, and the sentence that says so.

    Two different values make a binary task, texts or whole numbers of at most 30 values a
    multiclass task, other numbers regression; several columns are labels when all are 0 or 1,
    else quantities. ``task`` overrides. ``classes`` names the class numbers 0 to K-1.
    """
    names = tuple(columns)
    if task in (None, "segmentation") and columns[names[0]].ndim == 3:
        return _masked(names[0], columns[names[0]], classes)
    if task is not None and (task not in TASKS or task == "segmentation"):
        known = ", ".join(name for name in TASKS if name != "segmentation")
        raise ValueError(f"load: task must be one of {known}, got {task!r}")
    for name, array in columns.items():
        refuse_missing(name, array)
    if len(names) > 1 or task == "multilabel":
        return _several(columns, task, unit)
    name, array = next(iter(columns.items()))
    if len(array) == 0:
        raise ValueError("load: there are no rows")
    found, inverse = distinct(array)
    given = task is not None
    chosen = task or _guess(name, array, found)
    if chosen == "regression":
        numbers(name, array)
        return Target("regression", names, unit=unit), [
            f'Task: regression on "{name}"' + (" (as told)." if given else f" ({_kind(array)}).")
        ]
    if len(found) == 1:
        raise ValueError(
            f'load: target "{name}" has one class only ({found[0]}); '
            "at least two are needed to learn from"
        )
    if chosen == "binary" and len(found) != 2:
        raise ValueError(
            f'load: task="binary" needs two classes, target "{name}" has {len(found)}; '
            'take task="multiclass"'
        )
    values: tuple[Any, ...] = tuple(found)
    labels: list[str] = [str(value) for value in found]
    if classes:
        values, labels = tuple(range(len(classes))), [str(name) for name in classes]
        wrong = [value for value in found if value not in values]
        if wrong:
            row = int(np.argmax(inverse == found.index(wrong[0]))) + 1
            raise ValueError(
                f'load: target "{name}" must be class numbers 0 to {len(classes) - 1}, '
                f"got {wrong[0]!r} in row {row}"
            )
        if len(classes) != 2 and chosen == "binary":
            chosen = "multiclass"
    target = Target(cast(Task, chosen), names, tuple(labels), values)
    said = f"Task: {chosen}" + (" (as told)" if given else "")
    said += f', from {len(labels)} different {_kind(array)} in "{name}".'
    if chosen == "binary":
        said += f' Class 1 is "{labels[1]}".'
    return target, [said]


def _masked(name: str, array: np.ndarray, classes: Sequence[str]) -> tuple[Target, list[str]]:
    """The target that masks (N, H, W) make: a class for every pixel."""
    if len(array) == 0:
        raise ValueError("load: there are no rows")
    count = max(2, len(classes), int(array.max()) + 1)
    masks(name, array, count)
    if count > MANY + 1:
        raise ValueError(
            f'load: masks "{name}" must be class numbers from 0, got {int(array.max())}; '
            "of black and white pictures take mask > 127"
        )
    labels = tuple(classes) if classes else ("background", "object")
    labels = labels if len(labels) == count else tuple(map(str, range(count)))
    said = f"Task: segmentation, a class for every pixel, {count} classes."
    return Target("segmentation", (name,), labels, tuple(range(count))), [said]


def masks(name: str, array: np.ndarray, count: int) -> np.ndarray:
    """Masks as int64, or an error that says what they must be."""
    if array.ndim != 3 or array.dtype.kind not in "biu":
        raise ValueError(
            f'load: masks "{name}" must be (N, H, W) of whole numbers, '
            f"got {array.shape} of {array.dtype}"
        )
    if array.size and (int(array.min()) < 0 or int(array.max()) >= count):
        raise ValueError(
            f'load: masks "{name}" must be class numbers 0 to {count - 1}, '
            f"got {int(array.min())}..{int(array.max())}"
        )
    return array.astype(np.int64)


def _several(
    columns: Mapping[str, np.ndarray], task: str | None, unit: str
) -> tuple[Target, list[str]]:
    names = tuple(columns)
    if len(columns[names[0]]) == 0:
        raise ValueError("load: there are no rows")
    rows = np.stack([numbers(name, array) for name, array in columns.items()], axis=1)
    zero_one = bool(np.isin(rows, (0.0, 1.0)).all())
    chosen = task or ("multilabel" if zero_one else "regression")
    if chosen not in ("multilabel", "regression"):
        raise ValueError(
            f"load: task={chosen!r} takes one target column, got {len(names)}: {', '.join(names)}"
        )
    if chosen == "multilabel" and not zero_one:
        raise ValueError("load: multilabel targets must be 0 or 1 in every column")
    said = f"Task: {chosen}, {len(names)} target columns."
    if chosen == "multilabel" and bool((rows.sum(1) == 1).all()):
        said += " Every row has exactly one label: a single column of classes may say it better."
    if chosen == "multilabel":
        return Target("multilabel", names, names), [said]
    return Target("regression", names, unit=unit), [said]


def _guess(name: str, array: np.ndarray, found: list[Any]) -> str:
    """The task that one column makes."""
    if len(found) == 2 or array.dtype.kind == "b":
        return "binary"
    if _kind(array) == "texts":
        if len(found) > 20 and len(found) > len(array) / 2:
            raise ValueError(
                f'load: target "{name}" has {len(found)} different texts in {len(array)} rows, '
                "which looks like a name of the row; give the target's column with target="
            )
        return "multiclass"
    few = len(found) <= MANY
    # one value only: as classes it is refused with a better sentence than as a quantity
    return "multiclass" if (array.dtype.kind in "iu" and few) or len(found) == 1 else "regression"


def _kind(array: np.ndarray) -> str:
    names = {"b": "truth values", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}
    return names.get(array.dtype.kind, "texts")


def distinct(array: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """The different values in sorted order, as plain Python values, and each row's place."""
    if array.dtype == object:
        import pandas

        codes, found = pandas.factorize(array)
        try:
            order = np.argsort(np.asarray(found), kind="stable")
        except TypeError:  # numbers and texts in one column
            order = np.argsort(np.asarray([str(value) for value in found]), kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        listed = [value.item() if hasattr(value, "item") else value for value in found]
        return [listed[i] for i in order], place[codes]
    found, inverse = np.unique(array, return_inverse=True)
    return found.tolist(), inverse.reshape(-1)


def numbers(name: str, array: np.ndarray) -> np.ndarray:
    """A target column as float64, or an error that names the first text in it."""
    try:
        return np.asarray(array, dtype=np.float64)
    except (TypeError, ValueError):
        for row, value in enumerate(array.tolist(), start=1):
            try:
                float(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f'load: target "{name}" must be numbers, got {value!r} in row {row}'
                ) from None
        raise


def refuse_missing(name: str, array: np.ndarray) -> None:
    """Raise ValueError where a target is missing or not finite."""
    if array.dtype == object:
        import pandas

        wrong, told = pandas.isna(array), "missing"
    elif array.dtype.kind == "f":
        wrong, told = ~np.isfinite(array), "missing or not finite"
    else:
        return
    if wrong.any():
        raise ValueError(
            f'load: target "{name}" is {told} in {int(wrong.sum())} of {len(array)} rows, '
            f"the first is row {int(np.argmax(wrong)) + 1}; leave those rows out"
        )


def one_column(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns of which exactly one is 1 in each row, as one column of their names."""
    rows = np.stack([formats.array(column) for column in columns.values()], axis=1)
    if not (np.isin(rows, (0, 1)).all() and (rows.sum(1) == 1).all()):
        raise ValueError(
            'load: task="multiclass" with several target columns needs exactly one 1 in each row'
        )
    return {"class": np.asarray(list(columns), dtype=object)[rows.argmax(1)]}
