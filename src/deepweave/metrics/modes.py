"""Which classes samples show, as a classifier sees them that was trained apart."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deepweave.metrics.score import Score
from deepweave.metrics.uncertainty import wilson


class Modes(NamedTuple):
    """What a classifier sees in samples."""

    hits: Score
    classes: int
    entropy: float


def modes(prediction: Tensor, y: Tensor | None = None, *, sure: float = 0.9) -> Modes:
    """What a classifier says of samples: how many it reads rightly, of how many classes they are.

    Hits are the share whose likeliest class is y, or, without y, whose likeliest class has a
    probability of at least ``sure``; with Wilson's interval. The entropy is that of the shares of
    the classes, in bits: log2 K where all are made alike, less where modes are dropped.

    Shapes: prediction (N, K) probabilities, or (N,) of the second of two classes, y (N,)

    Raises:
        ValueError: predictions of another shape, or none.

    >>> found = modes(torch.tensor([[0.95, 0.05], [0.4, 0.6]]))
    >>> float(found.hits), found.classes, found.entropy
    (0.5, 2, 1.0)
    """
    if prediction.dim() not in (1, 2) or not len(prediction):
        raise ValueError(f"modes: prediction must be (N, K) or (N,), got {tuple(prediction.shape)}")
    if prediction.dim() == 1:
        prediction = torch.stack([1 - prediction, prediction], 1)
    best, place = prediction.max(1)
    hits = best >= sure if y is None else place == y.to(place.device)
    shares = place.bincount(minlength=prediction.shape[1]).double() / len(place)
    entropy = (shares * -shares.clamp_min(1e-12).log2()).sum().abs()  # no minus before a zero
    return Modes(wilson(int(hits.sum()), len(hits)), int((shares > 0).sum()), float(entropy))
