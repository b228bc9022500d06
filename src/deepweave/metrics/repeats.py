"""The mean of repeated measurements: over samples, over several seeds."""

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
        return Score(mean, method="one value")
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * float(found.std()) / math.sqrt(n)
    return Score(mean, mean - half, mean + half, method)


def over_samples(values: Sequence[float] | Tensor) -> Score:
    """The mean of n independent values with a normal 95 % interval: mean +- 1.96 s / sqrt(n).

    For many values, such as what each test sample costs; of few take :func:`over_seeds`. A single
    value has no interval, and neither has a mean that is not finite.

    Shapes: values (n,)

    Raises:
        ValueError: no value.

    >>> over_samples([1.0, 2.0, 3.0]).text(3)
    '2 [0.868, 3.13]'
    """
    found = torch.as_tensor(values, dtype=torch.float64).reshape(-1).detach().cpu()
    if not len(found):
        raise ValueError("over_samples: expected at least one value, got none")
    mean = float(found.mean())
    if len(found) == 1 or not math.isfinite(mean):
        return Score(mean, method="normal")
    half = 1.959963984540054 * float(found.std()) / math.sqrt(len(found))
    return Score(mean, mean - half, mean + half, "normal")


def rmse_gain(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], target: Tensor, *, confidence: float = 0.95
) -> Score:
    """Root mean square error of theirs minus that of ours, as samples and seeds vary.

    The two half-widths are joined, as the root of the sum of their squares: of the mean over seeds
    as test samples vary (in first order, paired sample by sample), and Student's as seeds vary.

    Shapes: one prediction (N,) of each for every seed, target (N,)

    Raises:
        ValueError: not as many of ours as of theirs, or predictions of another shape.

    >>> y = torch.arange(4.0)
    >>> float(rmse_gain([y, y], [y + 1, y + 1], y))
    1.0
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"rmse_gain: as many of each, got {len(ours)} and {len(theirs)}")
    gaps, pulls = [], []
    for pair in zip(ours, theirs):
        if any(one.shape != target.shape for one in pair):
            told = tuple(target.shape), tuple(pair[0].shape), tuple(pair[1].shape)
            raise ValueError(f"rmse_gain: predictions must be {told[0]}, got {told[1]}, {told[2]}")
        a, b = ((one.double() - target).square() for one in pair)
        roots = a.mean().sqrt(), b.mean().sqrt()
        gaps.append(float(roots[1] - roots[0]))
        parts = [(s - s.mean()) / (2 * r.clamp_min(1e-300)) for s, r in zip((a, b), roots)]
        pulls.append(parts[1] - parts[0])
    pull = torch.stack(pulls).mean(0)
    among = float(pull.var(correction=1)) / len(pull)
    seeds = over_seeds(gaps, confidence=confidence)
    from scipy.special import ndtri

    width = float(ndtri(0.5 + confidence / 2))
    student = 0.0 if len(gaps) == 1 else seeds.high - float(seeds)
    reach = math.sqrt(student**2 + width**2 * among)
    mean = float(seeds)
    return Score(mean, mean - reach, mean + reach, "paired over samples and seeds")
