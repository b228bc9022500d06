"""The rows of a split: a tensor, a tuple of tensors, or a collection that makes its own batches.

A collection holds what is no rectangle: sequences of different lengths (:class:`Ragged`), graphs.
It has ``len()``, ``take(index)`` for the batch of some rows, ``to(device)``, ``tensors()`` for
what it holds by name, and ``collection[slice or index]`` for fewer rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Collection(Protocol):
    """Rows that are no rectangle, and how a batch is made of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: slice | Tensor) -> Any: ...

    def take(self, index: Tensor) -> Any:
        """The batch of these rows: a tensor or a tuple of tensors."""

    def to(self, device: torch.device | str) -> Any:
        """The same rows on a device."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything held, by name."""
        ...


Rows = Any  # Tensor | tuple[Rows, ...] | Collection


def each(change: Callable[[Any], Any], rows: Rows) -> Rows:
    """Change every tensor or collection in rows; a named tuple keeps its names."""
    if not isinstance(rows, tuple):
        return change(rows)
    parts = [each(change, part) for part in rows]
    return type(rows)(*parts) if hasattr(rows, "_fields") else tuple(parts)


def count(rows: Rows) -> int:
    """How many rows there are.

    Raises:
        ValueError: the parts of a tuple have different numbers of them.
    """
    if not isinstance(rows, tuple):
        return len(rows)
    counts = {count(part) for part in rows}
    if len(counts) != 1:
        raise ValueError(f"Split: the parts of a tuple must be of one length, got {counts}")
    return counts.pop()


def take(rows: Rows, index: Tensor) -> Any:
    """The batch of the rows of an index.

    >>> take((torch.arange(5), torch.arange(5) * 10), torch.tensor([3, 1]))
    (tensor([3, 1]), tensor([30, 10]))
    """
    return each(
        lambda one: one.index_select(0, index) if isinstance(one, Tensor) else one.take(index), rows
    )


def between(rows: Rows, low: int, high: int) -> Any:
    """The batch of the rows from ``low`` to ``high``: views where they are tensors."""
    return each(
        lambda one: one[low:high] if isinstance(one, Tensor) else one.take(torch.arange(low, high)),
        rows,
    )


def slices(rows: Rows, size: int) -> Iterator[Any]:
    """Batches of ``size`` rows in their order; a batch that is made already comes as it is."""
    if any(hasattr(part, "_fields") for part in (rows, *(rows if isinstance(rows, tuple) else ()))):
        yield rows
        return
    for low in range(0, count(rows), size):
        yield between(rows, low, min(low + size, count(rows)))


def some(rows: Rows, index: slice | Tensor) -> Rows:
    """Fewer rows, of the same kind."""
    return each(lambda one: one[index], rows)


def moved(rows: Rows, device: torch.device | str) -> Rows:
    """The same rows on a device."""
    return each(lambda one: one.to(device), rows)


def named(rows: Rows, name: str) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in rows with its name: ``x``, ``x.0``, ``x.values``."""
    if isinstance(rows, Tensor):
        yield name, rows
    elif isinstance(rows, tuple):
        for place, part in enumerate(rows):
            yield from named(part, f"{name}.{place}")
    else:
        for inner, tensor in rows.tensors().items():
            yield f"{name}.{inner}", tensor


def lengths(rows: Rows) -> Tensor | None:
    """The length of each row where they are sequences of different lengths, of the first such."""
    if isinstance(rows, tuple):
        return next((found for found in map(lengths, rows) if found is not None), None)
    return None if isinstance(rows, Tensor) else getattr(rows, "lengths", None)
