"""Batches without labels, or whose labels are left out, and what their samples cost."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from deepweave.core import Batch


def costs(nll: Tensor, x: Tensor, levels: int | None) -> dict[str, Tensor]:
    """Nats of each sample by name, with bits per dimension where the data have levels."""
    if levels is None:
        return {"nll": nll}
    return {"nll": nll, "bits_per_dim": nll / (x[0].numel() * math.log(2))}


def parts(batch: Batch, name: str) -> tuple[Any, Tensor | None, Tensor | None]:
    """Inputs, classes and weights of x, (x,), (x, y) or (x, y, weight).

    Raises:
        ValueError: a batch of another form.
    """
    if isinstance(batch, Tensor):
        return batch, None, None
    if not isinstance(batch, tuple | list) or not 1 <= len(batch) <= 3:
        kind = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise ValueError(f"{name}: a batch must be x, (x, y) or (x, y, weight), got {kind}")
    x, y, weight = [*batch, None, None][:3]
    return x, y, weight
