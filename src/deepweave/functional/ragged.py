"""Sequences of different lengths in one batch: their values, padded at the end, and their lengths.

Three tasks have one answer here: which positions are real (`Padded.mask`), how a list of sequences
becomes a batch (`pad`), and how each is turned around within its own length (`backwards`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deepweave.functional.reduction import looking

PAD, UNKNOWN, BEGIN, END = 0, 1, 2, 3  # the first numbers of every vocabulary


class Padded(NamedTuple):
    """A batch of sequences: values, zero beyond each length, and the lengths.

    Shapes: values (B, T, ...) of numbers or (B, T) of tokens; lengths (B,) int64, 1 to T.

    >>> batch = pad([torch.tensor([5, 6, 7]), torch.tensor([8])])
    >>> batch.values.tolist(), batch.lengths.tolist()
    ([[5, 6, 7], [8, 0, 0]], [3, 1])
    >>> batch.mask.tolist()
    [[True, True, True], [True, False, False]]
    """

    values: Tensor
    lengths: Tensor

    @property
    def mask(self) -> Tensor:
        """Which positions are real: (B, T), True within each length."""
        return within(self.lengths, self.values.shape[1])


def within(lengths: Tensor, size: int) -> Tensor:
    """Which of ``size`` positions lie within each length: ``t < length``.

    Shapes: lengths (B,) -> (B, size) bool

    >>> within(torch.tensor([1, 3]), 3).int().tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def pad(sequences: Sequence[Tensor]) -> Padded:
    """One batch of a list of sequences, each (T_i, ...).

    Raises:
        ValueError: there is none, or one of them is empty.
    """
    if not len(sequences):
        raise ValueError("pad: there must be at least one sequence")
    lengths = torch.tensor([len(one) for one in sequences])
    if not int(lengths.min()):
        raise ValueError(f"pad: sequence {int(lengths.argmin())} is empty")
    return Padded(torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True), lengths)


def unpad(batch: Tensor | Padded, name: str = "unpad") -> tuple[Tensor, Tensor | None]:
    """Values and lengths of a batch of sequences; no lengths where all are whole.

    Raises:
        ValueError: there are no steps, or a length lies outside 1 to T.
    """
    values, lengths = batch if isinstance(batch, tuple) else (batch, None)
    if values.dim() < 2 or values.shape[1] == 0:
        raise ValueError(
            f"{name}: sequences must be (B, T, ...) with at least one step, got "
            f"{tuple(values.shape)}"
        )
    if lengths is None:
        return values, None
    if lengths.shape != values.shape[:1]:
        raise ValueError(f"{name}: lengths must be ({len(values)},), got {tuple(lengths.shape)}")
    if looking(lengths) and lengths.numel():
        low, high = (int(end) for end in torch.aminmax(lengths))
        if low < 1 or high > values.shape[1]:
            raise ValueError(f"{name}: lengths must lie in 1..{values.shape[1]}, got {low}..{high}")
    return values, lengths


def backwards(values: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Each sequence from its last real step to its first; what is beyond stays where it is.

    Shapes: values (B, T, ...), lengths (B,) -> (B, T, ...)

    >>> backwards(torch.tensor([[1, 2, 3, 0]]), torch.tensor([3]))
    tensor([[3, 2, 1, 0]])
    """
    if lengths is None:
        return values.flip(1)
    place = torch.arange(values.shape[1], device=values.device)
    index = torch.where(place < lengths[:, None], lengths[:, None] - 1 - place, place)
    index = index.view(*index.shape, *[1] * (values.dim() - 2))
    return values.gather(1, index.expand_as(values))
