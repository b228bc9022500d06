"""Intervals: from a proportion, from a variance, from a test turned round, from resampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import torch
from torch import Tensor

from deepweave.metrics.score import Score


def quantile(confidence: float) -> float:
    """The two-sided standard normal quantile z: 95 % of the mass lies within +-z.

    Raises:
        ValueError: confidence is not between 0 and 1.

    >>> round(quantile(0.95), 4)
    1.96
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"interval: confidence must lie between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(right: float, n: float, *, confidence: float = 0.95, method: str = "Wilson") -> Score:
    """The share ``right / n`` with Wilson's score interval.

    The ends solve ``(p - q)^2 = z^2 q (1 - q) / n`` for q, so they stay in [0, 1] and have width
    at p = 0 and p = 1. ``n`` may be fractional (an effective size); with ``n = 0`` nothing is
    known: the value is 0 and the interval [0, 1].

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    1927.

    >>> wilson(9, 10)
    Score(0.9 [0.59585, 0.982124], 'Wilson')
    """
    if n <= 0:
        return Score(0.0, 0.0, 1.0, method)
    z, p = quantile(confidence), right / n
    shrink = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / shrink
    half = z / shrink * math.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n))
    return Score(p, min(max(centre - half, 0.0), p), max(min(centre + half, 1.0), p), method)


def clopper_pearson(right: float, n: float, *, confidence: float = 0.95) -> Score:
    """The share ``right / n`` with the exact binomial interval: it covers at least as promised.

    ``low`` is the a/2 quantile of Beta(k, n - k + 1), ``high`` the 1 - a/2 quantile of
    Beta(k + 1, n - k), with a = 1 - confidence.

    Source: C. J. Clopper, E. S. Pearson, The use of confidence or fiducial limits, 1934.

    >>> clopper_pearson(9, 10)
    Score(0.9 [0.554984, 0.997471], 'Clopper-Pearson')
    """
    from scipy.special import betaincinv  # ~40 ms, needed here only

    quantile(confidence)
    if n <= 0:
        return Score(0.0, 0.0, 1.0, "Clopper-Pearson")
    tail = (1 - confidence) / 2
    low = 0.0 if right <= 0 else float(betaincinv(right, n - right + 1, tail))
    high = 1.0 if right >= n else float(betaincinv(right + 1, n - right, 1 - tail))
    return Score(right / n, low, high, "Clopper-Pearson")


def effective(
    value: float, smooth: float, variance: float, *, floor: float = 0.0, confidence: float = 0.95
) -> Score:
    """A score in [floor, 1] with Wilson's interval at its effective sample size.

    A share p of n samples has variance ``p (1 - p) / n``; a score whose (delta method) variance
    is v behaves as a share of ``n = s (1 - s) / v`` samples. ``smooth`` = s is the score at
    counts pulled away from the border, where v would be 0.

    Source: E. L. Korn, B. I. Graubard, Confidence intervals for proportions with small expected
    number of positive counts estimated from survey data, 1998 (the effective size).
    """
    span = 1.0 - floor
    share, centre = (value - floor) / span, (smooth - floor) / span
    spread = variance / span**2
    n = centre * (1 - centre) / spread if spread > 0 else 0.0
    inner = wilson(share * n, n, confidence=confidence)
    return Score(value, floor + span * inner.low, floor + span * inner.high, "delta")


def on_logit(value: float, variance: float, method: str, *, confidence: float = 0.95) -> Score:
    """A score in (0, 1): ``logit(value) +- z se / (value (1 - value))``, mapped back."""
    logit = math.log(value / (1 - value))
    half = quantile(confidence) * math.sqrt(variance) / (value * (1 - value))
    low, high = (
        1 / (1 + math.exp(-min(max(x, -700.0), 700.0))) for x in (logit - half, logit + half)
    )
    return Score(value, low, high, method)


def on_log(value: float, variance: float, *, confidence: float = 0.95) -> Score:
    """A positive mean: ``value exp(+- z se / value)``, so that no end is negative.

    At 0, where every loss is 0, the interval is the point itself.
    """
    if value <= 0:
        return Score(value, value, value, "log-normal")
    half = min(quantile(confidence) * math.sqrt(variance) / value, 700.0)
    return Score(value, value * math.exp(-half), value * math.exp(half), "log-normal")


def newcombe(auc: float, positives: float, negatives: float, *, confidence: float = 0.95) -> Score:
    """An AUC whose DeLong variance is 0 or unknown: the score interval of Hanley-McNeil's law.

    The ends solve ``(A - t)^2 = z^2 V(t)`` with ``V(t) = t (1 - t) (1 + N ((1 - t) / (2 - t)
    + t / (1 + t))) / (m n)``, ``N = (m + n) / 2 - 1``: they have width at A = 1.

    Source: R. G. Newcombe, Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic, part 2, 2006, method 5.
    """
    z, extra = quantile(confidence), (positives + negatives) / 2 - 1

    def outside(t: float) -> bool:
        law = t * (1 - t) * (1 + extra * ((1 - t) / (2 - t) + t / (1 + t)))
        return (auc - t) ** 2 > z * z * law / (positives * negatives)

    ends = []
    for far in (0.0, 1.0):
        near, away = auc, far
        for _ in range(60):  # bisection: the ends to the last bit
            middle = (near + away) / 2
            near, away = (near, middle) if outside(middle) else (middle, away)
        ends.append(near)
    return Score(auc, ends[0], ends[1], "Newcombe")


def invert(
    mean: Tensor, covariance: Tensor, *, confidence: float = 0.95, draws: int = 4000
) -> tuple[float, float]:
    """The interval of ``|mean|_1`` for a mean known up to noise of a given covariance.

    A sum of absolute values is biased upwards and has a kink at 0, where the usual bootstrap
    never covers a true 0. So the test is turned round: along the ray ``c mean`` the low end is
    the largest c at which a sum as large as the one seen is still rare (a/2), and the high end
    the smallest c at which one as small is rare. The draws are shared by all c.

    Shapes: mean (M,), covariance (M, M) -> two floats.

    Source: J. Carpenter, Test inversion bootstrap confidence intervals, 1999.
    """
    size = float(mean.abs().sum())
    tail = (1 - confidence) / 2
    values, vectors = torch.linalg.eigh(covariance)
    root = vectors * values.clamp_min(0).sqrt()
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(draws // 2, len(mean), generator=generator, dtype=mean.dtype)
    noise = torch.cat([half, -half]) @ root.T
    if size == 0:
        return 0.0, float(torch.quantile(noise.abs().sum(1), 1 - tail))
    slack = 5 * float(noise.abs().sum(1).mean())

    def rare(c: float, above: bool) -> bool:
        seen = (c * mean + noise).abs().sum(1)
        return float(((seen >= size) if above else (seen <= size)).double().mean()) <= tail

    def border(inside: float, outside: float, above: bool) -> float:
        for _ in range(14):  # the ends to 1e-4 of the value
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if rare(middle, above) else (inside, middle)
        return inside

    # Where not even c = 0 makes it rare, the bisection ends at the low end 0.
    return border(0.0, 1.0, True) * size, border(1.0 + slack / size, 0.0, False) * size


def bootstrap(
    statistic: Callable[[Tensor], Tensor],
    columns: Tensor,
    *,
    weight: Tensor | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Score:
    """Any smooth or rough function of means, with a percentile interval; no loop over resamples.

    A resample is a row of multinomial counts, so all of them are one product ``counts @
    columns`` (in blocks that fit in memory).

    Shapes: columns (N, M), weight (N,); statistic (R, M) of weighted means -> (R,).

    Raises:
        ValueError: there are no samples.

    Source: B. Efron, Bootstrap methods: another look at the jackknife, 1979.

    >>> x = torch.arange(20.0).double()
    >>> spread = bootstrap(lambda m: (m[:, 1] - m[:, 0] ** 2).sqrt(), torch.stack([x, x * x], 1))
    >>> round(float(spread), 3), spread.low < spread < spread.high
    (5.766, True)
    """
    if columns.ndim != 2 or not len(columns):
        raise ValueError(
            f"bootstrap: columns must be (N, M) with N > 0, got {tuple(columns.shape)}"
        )
    tail = (1 - confidence) / 2
    quantile(confidence)
    columns, n = columns.double(), len(columns)
    w = torch.ones_like(columns[:, :1]) if weight is None else weight.double()[:, None]
    sums = torch.cat([w, w * columns], 1)
    generator = torch.Generator(device=columns.device).manual_seed(seed)
    block, parts = max(1, 20_000_000 // n), []
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = torch.randint(n, (rows, n), generator=generator, device=columns.device)
        drawn += torch.arange(rows, device=columns.device)[:, None] * n
        counts = torch.bincount(drawn.view(-1), minlength=rows * n).view(rows, n).double()
        total = counts @ sums
        parts.append(statistic(total[:, 1:] / total[:, :1]))
    ends = torch.quantile(torch.cat(parts), torch.tensor([tail, 1 - tail]).to(parts[0]))
    whole = sums.sum(0, keepdim=True)
    value = float(statistic(whole[:, 1:] / whole[:, :1])[0])
    return Score(value, float(ends[0]), float(ends[1]), "bootstrap")
