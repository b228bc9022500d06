"""Batches without labels, or whose labels are left out, and what their samples cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

from torch import Tensor

from deepweave.core import Batch


def costs(nll: Tensor, x: Tensor, levels: int | None) -> dict[str, Tensor]:
    """Nats of each sample by name, with bits per dimension where the data have levels."""
    if levels is None:
        return {"nll": nll}
    return {"nll": nll, "bits_per_dim": nll / (x[0].numel() * math.log(2))}


def by_value(likelihood: Any, x: Tensor, name: str) -> Callable[[Batch], dict[str, Tensor]]:
    """The cost of samples if each value is by itself, as it is among x, with nothing behind it."""
    said = likelihood.marginal(x)[None]

    def judge(batch: Batch) -> dict[str, Tensor]:
        x = parts(batch, name)[0]
        nll = likelihood.nll(said.expand(len(x), *said.shape[1:]), x)
        return costs(nll, x, likelihood.levels)

    return judge


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


def labelled(y: Any, count: Any, name: str, classes: int) -> None:
    """Raise ValueError unless y are ``count`` classes: whole numbers in 0..K-1."""
    if not isinstance(y, Tensor) or y.is_floating_point():
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{name}: classes must be whole numbers, got {kind}")
    if y.shape != (count,):
        raise ValueError(f"{name}: classes must be ({count},), got {tuple(y.shape)}")
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{name}: classes must lie in 0..{classes - 1}, got {low}..{high}")


def wanted(count: Any, y: Any, name: str, classes: int) -> None:
    """Raise ValueError unless ``count`` samples, of classes y where some are told, can be made."""
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name}: count must be a whole number from 1, got {count}")
    if classes and y is None:
        raise ValueError(f"{name}: it is told classes: say which, y of ({count},)")
    if y is not None and not classes:
        raise ValueError(f"{name}: it was made without classes, none can be asked for")
    if y is not None:
        labelled(y, count, name, classes)


def observed(likelihood: Any, name: str) -> Any:
    """The likelihood, if it is one.

    Raises:
        TypeError: something else, such as its name or its class.
    """
    if isinstance(likelihood, type) or not callable(getattr(likelihood, "nll", None)):
        told = getattr(likelihood, "__name__", repr(likelihood))
        raise TypeError(f"{name}: likelihood must be one such as Gaussian(), got {told}")
    return likelihood


def sound(batch: Batch, name: str, classes: int = 0) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The parts of a first batch, looked at before anything learns from it.

    Classes are looked at where any are told, weights where there are some.

    Raises:
        ValueError: inputs that are no floats, none, not finite; classes that are missing, no whole
            numbers, or beyond; weights of another number, not finite, below 0.
    """
    x, y, weight = parts(batch, name)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{name}: inputs must be a tensor of floats, got {kind}")
    if not x.dim() or not x.numel():
        raise ValueError(f"{name}: there are no inputs in a batch of {tuple(x.shape)}")
    if not x.isfinite().all():
        raise ValueError(f"{name}: {int((~x.isfinite()).sum())} of the inputs are not finite")
    if classes:
        if y is None:
            raise ValueError(f"{name}: with classes a batch must be (x, y), got x alone")
        labelled(y, len(x), name, classes)
    if weight is not None:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        if shape != (len(x),):
            raise ValueError(f"{name}: weight must be ({len(x)},), got {shape}")
        if not bool((weight.isfinite() & (weight >= 0)).all()):
            raise ValueError(f"{name}: weight must be finite and not below 0")
    return x, y, weight
