"""Receptive fields while a model runs: what part of the image each tensor's units have seen.

Convolutions and poolings are followed by arithmetic, branches are joined where they meet. The
statistics of norms, which look at every place, are not counted, as is usual. Where an operation
has no rule here the field is unknown, and what follows is unknown too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """Unit i of an axis sees the places from i jump + low to i jump + high of the image."""

    low: int = 0
    high: int = 0
    jump: int = 1

    def window(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> Axis:
        """The axis behind a window of units."""
        low = self.low - padding * self.jump
        reach = (kernel - 1) * dilation * self.jump
        return Axis(low, self.high - padding * self.jump + reach, self.jump * stride)


@dataclass(frozen=True)
class Local:
    """Each unit of the last axes sees a window of its own."""

    axes: tuple[Axis, ...]

    def extent(self, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """What all units of a tensor of this shape see together."""
        counts = shape[len(shape) - len(self.axes) :]
        return tuple((a.low, (n - 1) * a.jump + a.high) for a, n in zip(self.axes, counts))


@dataclass(frozen=True)
class Merged:
    """Places stand along one axis of the tensor, in an order that is not followed further."""

    extent: tuple[tuple[int, int], ...]
    carrier: int


@dataclass(frozen=True)
class Whole:
    """Each unit sees the same part, from the first to the last place, of each axis."""

    extent: tuple[tuple[int, int], ...]


class Unknown:
    """No rule."""


Field = Local | Merged | Whole | Unknown
_KEEP = {
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "native_group_norm", "native_layer_norm", "native_dropout", "batch_norm_update_stats",
    "_batch_norm_with_update", "_batch_norm_no_update", "_softmax", "_log_softmax", "contiguous",
}  # fmt: skip
_SAME = {"detach", "alias", "lift_fresh", "view_as", "_conj"}
_VIEW = {"view", "_unsafe_view", "reshape", "_reshape_alias"}
_REDUCE = {"mean", "sum", "amax", "amin"}


def after(func: Any, name: str, args: Sequence[Any], out: Any, known: Any) -> Field | None:
    """The field of an operation's output, None if nothing of it comes from the image.

    ``known(tensor)`` is the field of an input, or None.
    """
    x = args[0] if args else None
    field = known(x) if isinstance(x, Tensor) else None
    parts = _parts(args, known)
    if not parts:
        return None
    if any(isinstance(part, Unknown) for _, part in parts):
        return Unknown()
    wholes = [part for _, part in parts if isinstance(part, Whole)]
    if wholes:
        return Whole(_union([_extent(tensor, part) for tensor, part in parts]))
    if isinstance(field, Local) and len(parts) == 1:
        found = _window(name, args, out, field)
        if found is not None:
            return found
    if name in _SAME:
        return parts[0][1]
    if name in _VIEW and isinstance(field, Local) and isinstance(x, Tensor):
        return _viewed(x, out, field)
    if name in _REDUCE and len(parts) == 1 and isinstance(x, Tensor) and len(args) > 1:
        return _reduced(x, args[1], parts[0][1])
    if name in ("mm", "addmm") and isinstance(parts[0][1], Merged):
        first = args[0] if name == "mm" else args[1]
        if len(parts) == 1 and parts[0][0] is first and parts[0][1].carrier == 1:
            return Whole(parts[0][1].extent)
        return Unknown()
    if name == "cat" and (args[1] if len(args) > 1 else 0) == 1:
        return _joined(parts)
    if name in _KEEP or torch.Tag.pointwise in func.tags:
        return _joined(parts)
    return Unknown()


def _parts(args: Any, known: Any) -> list[tuple[Tensor, Field]]:
    """The tensors among arguments that come from the input, each with its field."""
    found = []
    for one in args:
        if isinstance(one, Tensor):
            field = known(one)
            if field is not None:
                found.append((one, field))
        elif isinstance(one, list | tuple):
            found += _parts(one, known)
    return found


def _extent(tensor: Tensor, field: Field) -> tuple[tuple[int, int], ...]:
    return field.extent(tensor.shape) if isinstance(field, Local) else field.extent  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]


def _union(extents: Any) -> tuple[tuple[int, int], ...]:
    return tuple((min(a for a, _ in axis), max(b for _, b in axis)) for axis in zip(*extents))


def _joined(parts: list[tuple[Tensor, Field]]) -> Field:
    """The field of units that depend on the units at the same place of several tensors."""
    fields = [field for _, field in parts]
    if len(set(fields)) == 1:
        return fields[0]
    if not all(isinstance(field, Local) for field in fields):
        return Unknown()
    axes = []
    for several in zip(*(field.axes for field in fields)):  # pyright: ignore[reportAttributeAccessIssue]
        if len({axis.jump for axis in several}) > 1:
            return Unknown()
        low, high = min(axis.low for axis in several), max(axis.high for axis in several)
        axes.append(Axis(low, high, several[0].jump))
    return Local(tuple(axes))


def _numbers(value: Any, count: int, default: Any = 0) -> list[int]:
    value = default if value is None or value == [] else value
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * count if len(numbers) == 1 else numbers


def _window(name: str, args: Sequence[Any], out: Any, field: Local) -> Field | None:
    """The field behind a convolution, a pooling or a padding; None if it is none of them."""
    n, axes = len(field.axes), field.axes

    def given(i: int, default: Any = 0) -> list[int]:
        return _numbers(args[i] if len(args) > i else None, n, default)

    if name == "convolution":
        if args[6]:
            return Unknown()  # transposed: neighbours see windows of different sizes
        kernel = list(args[1].shape[2:])
        told = zip(axes, kernel, given(3), given(4), given(5))
        return Local(tuple(axis.window(*rest) for axis, *rest in told))
    if name.startswith(("max_pool", "avg_pool")):
        kernel = given(1)
        stride, padding = given(2, kernel), given(3)
        gaps = given(4, 1) if name.startswith("max_pool") else [1] * n
        told = zip(axes, kernel, stride, padding, gaps)
        return Local(tuple(axis.window(*rest) for axis, *rest in told))
    if name.startswith(("_adaptive_avg_pool", "adaptive_max_pool")):
        sizes, found = args[0].shape[-n:], []
        for axis, size, count in zip(axes, sizes, _numbers(args[1], n)):
            if size % count:
                return Unknown()  # windows of different sizes
            found.append(axis.window(size // count, size // count, 0))
        return Local(tuple(found))
    if name == "constant_pad_nd":
        told = ([0] * n + args[1][::2][::-1])[-n:]  # the last axis is told first
        return Local(tuple(axis.window(1, 1, side) for axis, side in zip(axes, told)))
    if name == "unsqueeze":
        axis = args[1] % (args[0].dim() + 1) - 2
        return Local((*axes[:axis], Axis(), *axes[axis:])) if axis >= 0 else Unknown()
    if name == "squeeze" and len(args) > 1 and isinstance(args[1], int):
        axis = args[1] % args[0].dim() - 2
        if args[0].dim() == out.dim():
            return field
        return Local((*axes[:axis], *axes[axis + 1 :])) if axis >= 0 else Unknown()
    return None


def _viewed(x: Tensor, out: Tensor, field: Local) -> Field:
    if out.shape == x.shape:
        return field
    n = len(field.axes)
    extent = field.extent(x.shape)
    if out.dim() == 3 and out.shape[:2] == x.shape[:2] and x.dim() == n + 2:
        return Merged(extent, 2)
    if out.dim() == 2 and len(out) == len(x) and x.dim() == n + 2:
        return Merged(extent, 1)
    return Unknown()


def _reduced(x: Tensor, dims: Any, field: Field) -> Field:
    """The field of a mean or sum over axes."""
    gone = {d % x.dim() for d in _numbers(dims, 1)}
    if isinstance(field, Merged):
        return Whole(field.extent) if field.carrier in gone else Unknown()
    if isinstance(field, Local) and gone >= set(range(x.dim() - len(field.axes), x.dim())):
        return Whole(field.extent(x.shape))
    return Unknown()
