"""Samples among their nearest real neighbours: how good they are, how varied, how new."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from deepweave.metrics.curves import auc
from deepweave.metrics.kernels import apart, rows
from deepweave.metrics.score import Score
from deepweave.metrics.uncertainty import quantile, wilson


class Manifold(NamedTuple):
    """Four readings of samples among real ones."""

    precision: Score
    recall: Score
    density: Score
    coverage: Score


def manifold(
    samples: Tensor, real: Tensor, *, neighbours: int = 5, confidence: float = 0.95
) -> Manifold:
    """Precision, recall, density and coverage by balls around samples.

    Around each real sample lies a ball that reaches to its k-th nearest real neighbour.
    Precision is the share of samples inside any of them, density the mean number of balls that
    hold a sample, over k (1 where both are of one distribution; it may be above), coverage the
    share of balls that hold a sample; recall is the precision of real samples among balls around
    the samples. Precision and density tell quality, recall and coverage variety; density and
    coverage are less shaken by outliers. Intervals: Wilson's and, of density, the normal one; they
    take the balls as given.

    Shapes: samples (N, ...), real (M, ...)

    Raises:
        ValueError: samples that do not fit, or not more of each than neighbours.

    Source: Kynkäänniemi et al., Improved precision and recall metric for assessing generative
    models, 2019; Naeem et al., Reliable fidelity and diversity metrics for generative models, 2020.

    >>> x = torch.arange(20.0)[:, None]
    >>> found = manifold(x[:10] + 0.1, x, neighbours=1)
    >>> float(found.precision), float(found.coverage)
    (1.0, 0.55)
    """
    x, y = rows("manifold", samples, real)
    if not 1 <= neighbours < min(len(x), len(y)):
        raise ValueError(
            f"manifold: neighbours must lie in 1..{min(len(x), len(y)) - 1}, got {neighbours}"
        )
    far = apart(x, y)
    balls = _reach(y, neighbours)
    inside = far <= balls
    held = far <= _reach(x, neighbours)[:, None]
    hit, back = inside.any(1), held.any(0)
    counts = inside.sum(1).double() / neighbours
    mean = float(counts.mean())
    half = quantile(confidence) * float(counts.std()) / math.sqrt(len(counts))
    nearest = far.min(0).values <= balls
    return Manifold(
        wilson(int(hit.sum()), len(x), confidence=confidence),
        wilson(int(back.sum()), len(y), confidence=confidence),
        Score(mean, mean - half, mean + half, "normal"),
        wilson(int(nearest.sum()), len(y), confidence=confidence),
    )


def memorised(
    samples: Tensor, train: Tensor, real: Tensor, *, confidence: float | None = 0.95
) -> Score:
    """Whether samples are copies: how often one lies nearer to a training sample than a new one.

    P(d(sample, train) < d(real, train)) + P(=) / 2, d the distance to the nearest training sample
    and ``real`` samples that were not trained on. One half: as near as new data; 1: copies; well
    below one half: away from the data. The interval is DeLong's.

    Shapes: samples (N, ...), train (T, ...), real (M, ...)

    Raises:
        ValueError: samples that do not fit.

    Source: Meehan, Chaudhuri & Dasgupta, A non-parametric test to detect data-copying in
    generative models, 2020.

    >>> train = torch.arange(10.0)[:, None]
    >>> float(memorised(train[:5], train, train[:6] + 0.4))
    1.0
    """
    x, y = rows("memorised", samples, real)
    known = rows("memorised", samples, train)[1]
    near = [_nearest(one, known.to(one.dtype)) for one in (x, y)]
    distance = torch.cat(near)
    truth = (torch.arange(len(distance), device=distance.device) < len(x)).long()
    found = auc(-distance / distance.abs().max().clamp_min(1e-30), truth, confidence=confidence)
    return Score(float(found), found.low, found.high, found.method)


def _reach(x: Tensor, neighbours: int) -> Tensor:
    """The distance of each to its k-th nearest other."""
    return apart(x, x).kthvalue(neighbours + 1, 1).values


def _nearest(x: Tensor, y: Tensor, step: int = 2048) -> Tensor:
    return torch.cat([apart(part, y).min(1).values for part in x.split(step)])
