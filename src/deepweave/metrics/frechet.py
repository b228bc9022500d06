"""The distance of two Gaussians that have the means and covariances of two samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepweave.metrics.kernels import rows
from deepweave.metrics.score import Score
from deepweave.metrics.uncertainty import quantile


def frechet(
    samples: Tensor, real: Tensor, *, confidence: float | None = 0.95, groups: int = 10
) -> Score:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^1/2): of features of Inception it is the FID.

    With centred samples X, Y the trace of the root is the sum of the singular values of
    X Y' / sqrt((N - 1) (M - 1)): exact also with fewer samples than features, where the root of a
    product of singular matrices is slow and unstable. The interval is the jackknife's, which leaves
    out one of ``groups`` of the samples at a time. The distance is biased upwards, by more the
    fewer samples there are: compare only what was measured with as many.

    Shapes: samples (N, D), real (M, D)

    Raises:
        ValueError: samples of different shapes, fewer than two or than twice the groups, not
            finite.

    Source: Heusel et al., GANs trained by a two time-scale update rule converge to a local Nash
    equilibrium, 2017; Dowson & Landau, The Fréchet distance between multivariate normal
    distributions, 1982.

    >>> x = torch.tensor([[0.0], [2.0]])
    >>> float(frechet(x + 3, x, confidence=None))
    9.0
    """
    x, y = (one.double() for one in rows("frechet", samples, real))
    value = _distance(x, y)
    if confidence is None:
        return Score(value)
    if not 2 <= groups <= min(len(x), len(y)) // 2:
        raise ValueError(f"frechet: groups must lie in 2..{min(len(x), len(y)) // 2}, got {groups}")
    variance = 0.0
    for whole, other, turned in ((x, y, False), (y, x, True)):
        place = torch.arange(len(whole), device=whole.device) % groups
        left = []
        for group in range(groups):
            some = whole[place != group]
            left.append(_distance(other, some) if turned else _distance(some, other))
        variance += (groups - 1) / groups * sum((one - sum(left) / groups) ** 2 for one in left)
    half = quantile(confidence) * math.sqrt(variance)
    return Score(value, value - half, value + half, f"jackknife of {groups} groups")


def _distance(x: Tensor, y: Tensor) -> float:
    means = x.mean(0), y.mean(0)
    x, y = x - means[0], y - means[1]
    x, y = x / math.sqrt(len(x) - 1), y / math.sqrt(len(y) - 1)
    if min(len(x), len(y)) < x.shape[1]:
        root = torch.linalg.svdvals(x @ y.mT).sum()
    else:
        values, vectors = torch.linalg.eigh(x.mT @ x)
        half = vectors * values.clamp_min(0).sqrt()
        inner = half.mT @ (y.mT @ y) @ half
        root = torch.linalg.eigvalsh(inner).clamp_min(0).sqrt().sum()
    moved = (means[0] - means[1]).square().sum()
    return float(moved + x.square().sum() + y.square().sum() - 2 * root)
