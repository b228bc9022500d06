"""The mean of repeated measurements, such as one score over several seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepweave.metrics.score import Score


def over_seeds(values: Sequence[float] | Tensor, *, confidence: float = 0.95) -> Score:
    """The mean of n independent values with Student's interval: mean +- t s / sqrt(n).

    It says how sure the mean over seeds is (of weights, of order, of splits), and no more: seeds
    that share one test set share its luck too. A single value has no interval.

    Shapes: values (n,)

    Raises:
        ValueError: no value, or one that is not finite.

    Source: Student, The probable error of a mean, 1908.

    >>> over_seeds([1.0, 2.0, 3.0]).text(3)
    '2 [-0.484, 4.48]'
    """
    found = torch.as_tensor(values, dtype=torch.float64).reshape(-1)
    if not len(found) or not found.isfinite().all():
        raise ValueError(f"over_seeds: expected finite values, got {found.tolist()}")
    if not 0 < confidence < 1:
        raise ValueError(f"over_seeds: confidence must lie between 0 and 1, got {confidence}")
    mean, n = float(found.mean()), len(found)
    method = f"Student over {n} seeds"
    if n == 1:
        return Score(mean, method=method)
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(found.std()) / math.sqrt(n)
    return Score(mean, mean - half, mean + half, method)
