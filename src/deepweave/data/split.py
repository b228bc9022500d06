"""Samples in memory: a split, its batches by index, and the stratified division into splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deepweave.data.ragged import buckets as bucketed
from deepweave.data.rows import Rows, between, count, each, lengths, moved, some, take
from deepweave.run import derive

Batch = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """The samples of one split, whole in memory: inputs, targets and optional weights.

    Shapes: x ``(N, *shape)`` float32; y ``(N,)`` int64 for classes, ``(N, L)`` float32 for
    labels, ``(N,)`` or ``(N, T)`` float32 for regression; weight ``(N,)``. What is no rectangle
    (sequences of different lengths, graphs) is a collection: see :mod:`deepweave.data.rows`.

    Raises:
        ValueError: x, y and weight are not of one length.

    >>> split = Split(torch.zeros(5, 3), torch.arange(5))
    >>> len(split), len(split[1:3]), len(split[torch.tensor([0, 4])])
    (5, 2, 2)
    """

    x: Rows
    y: Rows
    weight: Tensor | None = None

    def __post_init__(self) -> None:
        counts = {"x": count(self.x), "y": count(self.y)}
        if self.weight is not None:
            counts["weight"] = len(self.weight)
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} has {number}" for name, number in counts.items())
            raise ValueError(f"Split: x, y and weight must be of one length, but {told}")
        # index_select and narrow views are fast on contiguous rows only
        for field in ("x", "y", "weight"):
            value = getattr(self, field)
            if value is not None:
                object.__setattr__(self, field, each(_contiguous, value))

    def __len__(self) -> int:
        return count(self.x)

    def __getitem__(self, index: slice | Tensor) -> Split:
        if not isinstance(index, slice | Tensor):
            raise TypeError(
                f"Split: index must be a slice or a tensor, got {type(index).__name__}; "
                "for one sample take split[i : i + 1]"
            )
        weight = None if self.weight is None else self.weight[index]
        return Split(some(self.x, index), some(self.y, index), weight)

    def to(self, device: torch.device | str) -> Split:
        """The split on a device: one move, after which batches are sliced there."""
        weight = None if self.weight is None else self.weight.to(device)
        return replace(self, x=moved(self.x, device), y=moved(self.y, device), weight=weight)

    def batches(
        self,
        size: int = 128,
        shuffle: bool = True,
        drop_last: bool = False,
        members: int | None = None,
        buckets: bool = True,
    ) -> Batches:
        """Batches of ``size`` samples, in a new order each epoch when ``shuffle``.

        With ``members`` each of so many learners gets an order of its own: ``(n, size, ...)``.
        Sequences of different lengths are shuffled so that a batch has like ones (``buckets``).
        """
        return Batches(self, size, shuffle, drop_last=drop_last, members=members, buckets=buckets)


class Batches:
    """Batches ``(x, y)`` or ``(x, y, weight)`` of a split, cut by index without per-sample work.

    The order of epoch ``number`` is ``randperm(N)`` from a generator seeded with
    ``derive(seed, "order", number)``: it depends on nothing else, so that an epoch can be
    entered in the middle after a resume, bit for bit. Iterating gives epoch 0, then 1, ...
    Sequences of different lengths are then sorted within windows of 50 batches and the batches
    shuffled, so that little is padded; ``buckets=False`` leaves the order as drawn.

    Without shuffling the batches are views of the split: do not change them in place.

    Raises:
        ValueError: size below 1, or no batch at all from a non-empty split.

    >>> batches = Split(torch.arange(10.0)[:, None], torch.arange(10)).batches(4)
    >>> whole = [y.tolist() for _, y in batches.epoch(3, seed=1)]
    >>> [y.tolist() for _, y in batches.epoch(3, seed=1, start=2)] == whole[2:]
    True
    """

    def __init__(
        self,
        split: Split,
        size: int = 128,
        shuffle: bool = True,
        *,
        drop_last: bool = False,
        members: int | None = None,
        buckets: bool = True,
    ) -> None:
        if size < 1:
            raise ValueError(f"Batches: size must be at least 1, got {size}")
        if drop_last and len(split) < size:
            raise ValueError(
                f"Batches: {len(split)} samples make no whole batch of {size}; "
                "take a smaller size or drop_last=False"
            )
        self.split, self.size, self.shuffle, self.drop_last = split, size, shuffle, drop_last
        self.members = members
        self._lengths = lengths(split.x) if buckets and shuffle else None
        self._next = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.split), self.size)
        return whole + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        number, self._next = self._next, self._next + 1
        return self.epoch(number)

    def epoch(self, number: int, seed: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``number``, from batch ``start`` on."""
        if not 0 <= start <= len(self):
            raise ValueError(
                f"Batches.epoch: start must be within 0 and {len(self)} batches, got {start}"
            )
        return self._cut(number, seed, start)

    def _cut(self, number: int, seed: int, start: int) -> Iterator[Batch]:
        x, y, weight = self.split.x, self.split.y, self.split.weight
        parts = (x, y) if weight is None else (x, y, weight)
        size, rows, n = self.size, len(self.split), self.members
        spans = [(at, min(at + size, rows)) for at in range(0, rows, size)][start : len(self)]
        if not self.shuffle:
            for low, high in spans:
                batch = tuple([between(part, low, high) for part in parts])
                yield batch if n is None else each(lambda one: one.expand(n, *one.shape), batch)
            return
        # drawn on the CPU so that the order is the same on every device
        if n is None:
            order = self._order(number, seed)
        else:
            seeds = [derive(seed, "member", i) for i in range(n)]
            order = torch.stack([self._order(number, own) for own in seeds])
        if isinstance(y, Tensor):
            order = order.to(y.device)
        for low, high in spans:
            index = order[..., low:high]
            batch = tuple([take(part, index.reshape(-1)) for part in parts])
            yield batch if n is None else each(_grouped(n, high - low), batch)

    def _order(self, number: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive(seed, "order", number))
        order = torch.randperm(len(self.split), generator=generator)
        if self._lengths is None:
            return order
        return bucketed(self._lengths, order, self.size, generator)


def _contiguous(part: Any) -> Any:
    return part.contiguous() if isinstance(part, Tensor) else part


def _grouped(n: int, size: int) -> Any:
    """Batches of n members, made in one piece, as (n, size, ...)."""

    def group(part: Any) -> Any:
        if not isinstance(part, Tensor) or len(part) != n * size:
            raise ValueError(
                "Batches: graphs make one batch, not one for each member: "
                "take Population(..., shared=True)"
            )
        return part.view(n, size, *part.shape[1:])

    return group


def divide(
    count: int, fractions: tuple[float, ...], seed: int, codes: Tensor | None = None
) -> list[Tensor]:
    """Row numbers of each part of a seeded random division, stratified by ``codes``.

    Parts take ``fractions`` of the rows of every class up to rounding, and of all rows in
    total; a class with at least as many rows as there are parts has a row in every part. A
    smaller class fills the first part, then the last. Each part comes in ascending order.

    Shapes: codes ``(N,)`` int64, 0 to K-1 -> each part ``(n,)`` int64.
    """
    generator = torch.Generator().manual_seed(derive(seed, "split"))
    order = torch.randperm(count, generator=generator)
    if codes is None:
        codes = torch.zeros(count, dtype=torch.int64)
    order = order[torch.argsort(codes[order], stable=True)]  # by class, random within it
    sizes = torch.bincount(codes)
    shares = _shares(sizes, fractions)
    first = (sizes.cumsum(0) - sizes)[codes[order]]
    rank = torch.arange(count) - first  # place of the row within its class
    part = (rank[:, None] >= shares.cumsum(1)[codes[order]]).sum(1)
    return [order[part == number].sort().values for number in range(len(fractions))]


def _shares(sizes: Tensor, fractions: tuple[float, ...]) -> Tensor:
    """Rows of each class in each part ``(K, P)``; rounding errors pass on to the next class."""
    rights = torch.tensor(fractions, dtype=torch.float64)
    edges = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    # the difference of rounded running sums is within one row of the exact share, class by
    # class, and exact in total; half-steps of different parts are kept apart by the offset
    rest = []
    for number, right in enumerate(rights[1:].tolist()):
        offset = (number + 1) / (len(fractions) + 1)
        rest.append(torch.floor(edges * right + offset).to(torch.int64).diff())
    shares = torch.stack([sizes - sum(rest), *rest], dim=1)
    large = sizes >= len(fractions)
    floor = large.to(torch.int64)[:, None].expand_as(shares).clone()
    for part in (0, len(fractions) - 1):
        floor[:, part] |= sizes > (0 if part == 0 else 1)
    # give each part its floor, and take what is given from the fullest parts
    shares = torch.where(large[:, None], torch.maximum(shares, floor), floor)
    excess = shares.sum(1) - sizes
    while bool((excess > 0).any()):
        fullest = (shares - floor).argmax(1)
        shares[torch.arange(len(sizes)), fullest] -= (excess > 0).to(torch.int64)
        excess = shares.sum(1) - sizes
    shares[:, 0] -= excess  # what is left over belongs to the first part
    return shares
