"""Scores of what a model says of tokens: their mean loss, in several units, and accuracy."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from deepweave.metrics.score import Score
from deepweave.metrics.uncertainty import quantile


def tokens(
    loss: Any, right: Any, count: Any, *, confidence: float | None = 0.95
) -> dict[str, Score]:
    """The scores of a language model from what each text says: its tokens do not stand alone.

    loss = sum_i l_i / sum_i n_i in nats per token; bits = loss / ln 2; perplexity = exp(loss);
    accuracy = sum_i r_i / sum_i n_i. Intervals treat texts as drawn at random (the linearised
    ratio, normal), so that tokens of one text may depend on each other.

    Shapes: loss, right and count (N,): of each text the summed loss, how many tokens were the
        likeliest, how many there are.

    Raises:
        ValueError: the shapes differ, or there are no tokens.

    >>> scores = tokens([2.0, 4.0], [1, 1], [2, 4])
    >>> round(scores["loss"], 3), round(scores["accuracy"], 3), round(scores["bits"], 3)
    (1.0, 0.333, 1.443)
    """
    parts = [torch.as_tensor(one).double() for one in (loss, right, count)]
    if len({tuple(one.shape) for one in parts}) != 1 or parts[0].dim() != 1:
        shapes = ", ".join(str(tuple(one.shape)) for one in parts)
        raise ValueError(f"tokens: loss, right and count must be (N,) each, got {shapes}")
    if not float(parts[2].sum()) > 0:
        raise ValueError("tokens: there are no tokens")
    mean, low, high = _ratio(parts[0], parts[2], confidence)
    hit, least, most = _ratio(parts[1], parts[2], confidence)
    how = "" if math.isnan(low) else "ratio over texts"
    unit = math.log(2)
    return {
        "loss": Score(mean, low, high, how),
        "bits": Score(mean / unit, low / unit, high / unit, how),
        "perplexity": Score(_exp(mean), _exp(low), _exp(high), how),
        "accuracy": Score(hit, max(least, 0.0), min(most, 1.0), how),
    }


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _ratio(top: Tensor, bottom: Tensor, confidence: float | None) -> tuple[float, float, float]:
    value = float(top.sum() / bottom.sum())
    if confidence is None or len(top) < 2:
        return value, math.nan, math.nan
    n = len(top)
    spread = ((top - value * bottom) ** 2).sum() * n / (n - 1)
    half = quantile(confidence) * float(spread.sqrt() / bottom.sum())
    return value, value - half, value + half
