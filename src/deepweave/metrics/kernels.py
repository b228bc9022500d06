"""Distances between two samples by kernels, each from one Gram matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepweave.metrics.score import Difference, Score
from deepweave.metrics.uncertainty import quantile

MOST = 20_000  # samples of both together: their Gram matrix has the square of it


def rows(name: str, x: Tensor, y: Tensor, least: int = 2) -> tuple[Tensor, Tensor]:
    """Two samples as (N, D) and (M, D) of float64 or float32, both where the first are.

    Raises:
        ValueError: samples of different shapes, too few, or not finite.
    """
    if x.dim() < 1 or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{name}: samples must have one shape, got {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if min(len(x), len(y)) < least:
        raise ValueError(f"{name}: at least {least} samples of each, got {len(x)} and {len(y)}")
    x, y = (one.detach().reshape(len(one), -1) for one in (x, y))
    x, y = (one if one.dtype == torch.float64 else one.float() for one in (x, y.to(x.device)))
    if not (bool(x.isfinite().all()) and bool(y.isfinite().all())):
        raise ValueError(f"{name}: samples must be finite, there is NaN or Inf among them")
    return x, y.to(x.dtype)


def apart(x: Tensor, y: Tensor) -> Tensor:
    """Distances of all pairs, (N, M), from differences: products of large numbers cancel."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def mmd(
    samples: Tensor, real: Tensor, *, widths: Sequence[float] = (0.5, 1.0, 2.0),
    confidence: float | None = 0.95, permutations: int = 500, seed: int = 0,
) -> Difference:  # fmt: skip
    """The squared maximum mean discrepancy, unbiased: 0 where both are of one distribution.

    MMD^2 = mean_(i != j) k(x_i, x_j) + mean_(i != j) k(y_i, y_j) - 2 mean k(x_i, y_j), k the mean
    of Gaussian kernels whose widths are these factors of the median distance among the real
    samples, so that generators are measured by one rule. The interval is the jackknife's, p the
    share of divisions of all samples at random that are as far apart.

    Shapes: samples (N, ...), real (M, ...)

    Raises:
        ValueError: samples of different shapes, fewer than three, more than 20,000, not finite.

    Source: Gretton et al., A kernel two-sample test, 2012.

    >>> x = torch.arange(8.0)[:, None]
    >>> mmd(x + 100, x).p < 0.01 < mmd(x + 0.1, x).p
    True
    """
    x, y = rows("mmd", samples, real, 3)
    both = torch.cat([x, y])
    if len(both) > MOST:
        raise ValueError(f"mmd: at most {MOST:,} samples together, got {len(both):,}")
    square = apart(both, both).square()
    own = square[len(x) :, len(x) :]
    middle = (
        own[*torch.triu_indices(len(y), len(y), 1, device=own.device)].median().clamp_min(1e-12)
    )
    gram = torch.stack([torch.exp(-square / (2 * middle * w**2)) for w in widths]).mean(0).double()
    return _unbiased(gram, len(x), confidence, permutations, seed)


def kid(
    samples: Tensor, real: Tensor, *, subsets: int | None = None, size: int = 1000,
    degree: int = 3, confidence: float | None = 0.95, seed: int = 2020,
) -> Score:  # fmt: skip
    """The kernel inception distance: MMD^2, unbiased, by the kernel (x.y / D + 1)^degree.

    Over all samples, with the jackknife's interval; or, as it is often reported, the mean over
    ``subsets`` drawn of ``size``, whose interval is then where 95 % of such a subset's values lie.

    Shapes: samples (N, D), real (M, D), features of a network or the data themselves

    Raises:
        ValueError: samples that do not fit, or subsets larger than they are.

    Source: Binkowski et al., Demystifying MMD GANs, 2018.

    >>> x = torch.eye(4)
    >>> round(float(kid(x, -x, confidence=None)), 4)
    0.2891
    """
    import numpy as np

    x, y = rows("kid", samples, real, 3)
    both = torch.cat([x, y]).double()
    gram = (both @ both.mT / both.shape[1] + 1) ** degree
    if subsets is None:
        found = _unbiased(gram, len(x), confidence, 0, seed)
        return Score(found, found.low, found.high, found.method)  # of which no p was asked
    if subsets < 1 or size < 2:
        raise ValueError(f"kid: needs subsets from 1 and a size from 2, got {subsets} and {size}")
    if size > min(len(x), len(y)):
        raise ValueError(f"kid: subsets of {size} cannot be drawn of {len(x)} and {len(y)} samples")
    random = np.random.RandomState(seed)  # as in the libraries that report it
    member = torch.zeros(2, subsets, len(both), dtype=torch.float64)  # filled on the host
    for number in range(subsets):
        for part, (start, count) in enumerate(((0, len(x)), (len(x), len(y)))):
            chosen = random.choice(count, size, replace=False)
            member[part, number, start + torch.from_numpy(chosen)] = 1
    member, diagonal = member.to(gram.device), gram.diagonal()
    inner = ((member @ gram) * member).sum(-1) - member @ diagonal
    across = ((member[0] @ gram) * member[1]).sum(-1)
    values = inner.sum(0) / (size * (size - 1)) - 2 * across / size**2
    mean, spread = float(values.mean()), float(values.std(correction=0))
    if confidence is None:
        return Score(mean)
    half = quantile(confidence) * spread
    return Score(mean, mean - half, mean + half, f"spread of {subsets} subsets of {size}")


def _unbiased(
    gram: Tensor, n: int, confidence: float | None, permutations: int, seed: int
) -> Difference:
    """MMD^2 of the first n rows against the others, from the Gram matrix of all."""
    m = len(gram) - n
    gram = gram.clone()
    gram.fill_diagonal_(0)
    first, second, cross = gram[:n, :n].sum(1), gram[n:, n:].sum(1), gram[:n, n:]
    a, b, c = float(first.sum()), float(second.sum()), float(cross.sum())
    value = a / (n * (n - 1)) + b / (m * (m - 1)) - 2 * c / (n * m)
    low = high = p = math.nan
    if confidence is not None:
        # the value without each sample in turn
        left = (a - 2 * first) / ((n - 1) * (n - 2)) + b / (m * (m - 1))
        left = left - 2 * (c - cross.sum(1)) / ((n - 1) * m)
        right = (b - 2 * second) / ((m - 1) * (m - 2)) + a / (n * (n - 1))
        right = right - 2 * (c - cross.sum(0)) / (n * (m - 1))
        variance = sum(
            (len(one) - 1) * float(one.var(correction=0)) for one in (left, right)
        )  # fmt: skip
        half = quantile(confidence) * math.sqrt(variance)
        low, high = value - half, value + half
    if permutations:
        random = torch.Generator().manual_seed(seed)
        order = torch.rand(permutations, n + m, generator=random).argsort(1).to(gram.device)
        member = gram.new_zeros(permutations, n + m)
        member.scatter_(1, order[:, :n], 1.0)
        other = 1 - member
        turned = member @ gram
        inner, across = (turned * member).sum(1), (turned * other).sum(1)
        rest = gram.sum() - inner - 2 * across
        drawn = inner / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m)
        p = (1 + int((drawn >= value).sum())) / (1 + permutations)
    return Difference(value, low, high, "jackknife" if confidence is not None else "", p)
