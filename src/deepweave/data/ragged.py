"""Sequences of different lengths, stored end to end, and batches of like lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepweave.functional.ragged import Padded

WINDOW = 50  # batches whose samples are sorted by length among themselves


class Ragged:
    """Sequences of different lengths: their values end to end, and how long each is.

    A batch of them is :class:`deepweave.functional.ragged.Padded`, as long as its longest.

    Shapes: values (sum of lengths, ...), lengths (N,) -> a batch (B, longest, ...) and (B,)

    Raises:
        ValueError: an empty sequence, or lengths that do not add up.

    >>> rows = Ragged.of([torch.tensor([5, 6, 7]), torch.tensor([8]), torch.tensor([9, 9])])
    >>> rows.take(torch.tensor([2, 1])).values.tolist()
    [[9, 9], [8, 0]]
    """

    def __init__(self, values: Tensor, lengths: Tensor):
        lengths = torch.as_tensor(lengths, dtype=torch.int64)
        if len(lengths) and int(lengths.min()) < 1:
            raise ValueError(f"Ragged: sequence {int(lengths.argmin())} is empty")
        if int(lengths.sum()) != len(values):
            raise ValueError(
                f"Ragged: the lengths add up to {int(lengths.sum())}, but there are {len(values)} "
                "values"
            )
        self.values, self.lengths = values.contiguous(), lengths
        self.starts = lengths.cumsum(0) - lengths

    @classmethod
    def of(cls, sequences: Sequence[Tensor]) -> Ragged:
        """A list of sequences (T_i, ...)."""
        if not sequences:
            raise ValueError("Ragged: there must be at least one sequence")
        return cls(torch.cat(list(sequences)), torch.tensor([len(one) for one in sequences]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: slice | Tensor) -> Ragged:
        place = torch.arange(len(self), device=self.values.device)[index]
        lengths = self.lengths[place]
        within = torch.arange(int(lengths.sum()), device=place.device)
        first = lengths.cumsum(0) - lengths  # where each begins in what is made
        from_ = torch.repeat_interleave(self.starts[place] - first, lengths)
        return Ragged(self.values[from_ + within], lengths)

    def take(self, index: Tensor) -> Padded:
        """The sequences of these rows as one batch."""
        index = index.to(self.values.device)
        lengths = self.lengths.index_select(0, index)
        longest = int(lengths.max()) if len(lengths) else 1
        place = torch.arange(longest, device=index.device)
        real = place < lengths[:, None]
        source = torch.where(real, self.starts.index_select(0, index)[:, None] + place, 0)
        values = self.values.index_select(0, source.flatten())
        values = values.view(len(index), longest, *self.values.shape[1:])
        return Padded(
            values.masked_fill_(~real.view(*real.shape, *[1] * (values.dim() - 2)), 0), lengths
        )

    def to(self, device: torch.device | str) -> Ragged:
        """The same sequences on a device."""
        return Ragged(self.values.to(device), self.lengths.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """Values and lengths."""
        return {"values": self.values, "lengths": self.lengths}


def buckets(lengths: Tensor, order: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """An order whose batches of ``size`` hold sequences of like length: still random.

    Windows of 50 batches are sorted by length, then the whole batches are shuffled; a rest that
    fills no batch stays at the end.

    Shapes: lengths (N,), order (N,) -> (N,)

    >>> lengths = torch.tensor([9, 1, 8, 2, 1])
    >>> drawn = buckets(lengths, torch.arange(5), 2, torch.Generator().manual_seed(0))
    >>> lengths[drawn].tolist()
    [1, 1, 2, 8, 9]
    """
    lengths = lengths.to(order.device)
    windows = order.split(size * WINDOW)
    made = torch.cat([one[torch.argsort(lengths[one], stable=True)] for one in windows])
    whole = len(made) // size * size
    shuffled = torch.randperm(whole // size, generator=generator).to(order.device)
    return torch.cat([made[:whole].view(-1, size)[shuffled].flatten(), made[whole:]])
