"""Sequences of numbers: recordings and the like, each of its own length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from deepweave.data.ragged import Ragged


@dataclass(frozen=True)
class Sequences:
    """How raw sequences become tensors: each feature standardised over all training steps.

    Shapes: N sequences (T_i, F) -> N sequences (T_i, F) float32; ``shape`` is (longest, F).
    """

    shape: tuple[int, int]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    names: tuple[str, ...] = ()
    kind: ClassVar[Literal["sequence"]] = "sequence"

    def inputs(self, raw: Any) -> Ragged:
        """Raw sequences as the model sees them: :class:`Ragged`, or a list of arrays (T, F).

        Raises:
            ValueError: an empty sequence, another number of features, or values not finite.
        """
        rows = gathered(raw)
        if rows.values.dim() != 2 or rows.values.shape[1] != len(self.mean):
            raise ValueError(
                f"inputs: sequences must be (T, {len(self.mean)}), "
                f"got (T, {', '.join(map(str, rows.values.shape[1:]))})"
            )
        mean, scale = (torch.tensor(each) for each in (self.mean, self.scale))
        return Ragged(((rows.values.double() - mean) / scale).float(), rows.lengths)

    def to_json(self) -> dict[str, Any]:
        """The preparation as plain lists, numbers and strings."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Sequences:
        """The preparation that ``to_json`` wrote."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in record.items()})


def gathered(raw: Ragged | Sequence[Any]) -> Ragged:
    """Sequences of any form as :class:`Ragged`; (T,) counts as (T, 1).

    Raises:
        ValueError: an empty sequence, differing features, or a value that is not finite.
    """
    if isinstance(raw, Ragged):
        return raw
    rows = [np.asarray(one, dtype=np.float64) for one in raw]
    rows = [one[:, None] if one.ndim == 1 else one for one in rows]
    for place, one in enumerate(rows):
        if one.ndim != 2 or one.shape[1:] != rows[0].shape[1:] or not len(one):
            raise ValueError(
                f"load: sequence {place} must be (T, F) with T at least 1 and F as in the first, "
                f"{rows[0].shape[-1]}, got {one.shape}"
            )
        if not np.isfinite(one).all():
            raise ValueError(f"load: sequence {place} has values that are not finite (NaN or Inf)")
    return Ragged.of([torch.from_numpy(one) for one in rows])


def fit(train: Ragged, names: Sequence[str]) -> tuple[Sequences, list[str]]:
    """The preparation that training sequences ask for, and what it does in plain sentences."""
    values: Tensor = train.values.double()
    mean, scale = values.mean(0), values.std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    low, high = int(train.lengths.min()), int(train.lengths.max())
    made = Sequences(
        (high, values.shape[1]), tuple(mean.tolist()), tuple(scale.tolist()), tuple(names)
    )
    return made, [
        f"Sequences of {low} to {high} steps of {values.shape[1]} features, each standardised by "
        "its mean and standard deviation over the training steps."
    ]
