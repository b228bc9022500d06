"""Ranking metrics: the ROC and precision-recall curves and the areas under them."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepweave.metrics import inputs, sorting
from deepweave.metrics.ranking import Ranking
from deepweave.metrics.score import Score


class Curve(NamedTuple):
    """Points of a curve, and the threshold ("at least this score") of each."""

    x: Tensor
    y: Tensor
    threshold: Tensor


def ranked(name: str, prediction: Any, target: Any, weight: Any = None) -> Ranking:
    """The scores of one whole set, under the metric's name."""
    p, t = inputs.pair(name, prediction, target)
    if not p.is_floating_point():
        p = p.double()
    task, outputs = inputs.reading(name, p, t)
    if task == "segmentation":
        raise ValueError(f"{name}: prediction must be (N,), (N, K) or (N, L), got {tuple(p.shape)}")
    tally = Ranking(1 if task == "binary" else outputs, labels=task == "multilabel", name=name)
    return tally.update(p, t, weight)


def auc(
    prediction: Any,
    target: Any,
    *,
    average: Literal["macro", "weighted", "micro"] | None = None,
    versus: Literal["rest", "one"] = "rest",
    weight: Any = None,
    confidence: float | None = 0.95,
) -> Score:
    """The area under the ROC curve: how often a positive outranks a negative, ties a half.

    ``sum_g pos_g (neg below g + neg_g / 2) / (m n)`` over the distinct scores g, counted exactly.
    K classes: each ``versus`` the "rest", or "one" against one (mean of both orders), averaged
    "macro" or "weighted" (by support or pair). A class that is absent has no AUC and is left out;
    where none is left the value is NaN and the interval [0, 1]. Interval: DeLong's from the same
    sort on the logit scale; Newcombe's at 0 and 1.

    Shapes: prediction (N,), (N, K), (N, L) of any real scores; target (N,) or (N, L).

    Raises:
        ValueError: shapes that do not fit, labels out of range, NaN, negative weights, no samples.

    Source: D. J. Hand, R. J. Till, A simple generalisation of the area under the ROC curve, 2001.

    >>> auc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]), confidence=None)
    Score(0.75, '')
    """
    tally = ranked("auc", prediction, target, weight)
    return tally.auc(average, versus=versus, confidence=confidence)


def average_precision(
    prediction: Any,
    target: Any,
    *,
    average: Literal["macro", "weighted", "micro"] | None = None,
    weight: Any = None,
    confidence: float | None = 0.95,
) -> Score:
    """The mean precision over the positives: ``sum (R_n - R_(n-1)) P_n`` over the thresholds.

    Steps, not trapezoids. Without positives it is 0. Interval: delta method on the logit scale.

    Shapes: as for ``auc``.

    Raises:
        ValueError: as for ``auc``.

    >>> p, y = torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1])
    >>> average_precision(p, y, confidence=None)
    Score(0.833333, '')
    """
    tally = ranked("average_precision", prediction, target, weight)
    return tally.average_precision(average, confidence=confidence)


def _two(name: str, prediction: Any, target: Any, weight: Any) -> sorting.Groups:
    tally = ranked(name, prediction, target, weight)
    if tally.outputs != 1:
        raise ValueError(f"{name}: prediction must be (N,), take one class or label at a time")
    return sorting.order(*tally.whole())


def roc(prediction: Any, target: Any, *, weight: Any = None) -> Curve:
    """The ROC curve: x = false positive rate, y = true positive rate, thresholds descending.

    It starts at (0, 0) with threshold infinity; one point per distinct score. A rate of a class
    that is absent is NaN.

    Shapes: prediction and target (N,) -> three (G + 1,) float64.

    Raises:
        ValueError: as for ``auc``.

    >>> curve = roc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
    >>> curve.x.tolist(), curve.y.tolist()
    ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    g = _two("roc", prediction, target, weight)
    rates = []
    for counts in (g.negative, g.positive):
        sums = np.concatenate([[0.0], np.cumsum(counts[::-1])])
        rates.append(torch.from_numpy(sums / sums[-1] if sums[-1] > 0 else sums * math.nan))
    threshold = np.concatenate([[math.inf], g.score[::-1].astype(np.float64)])
    return Curve(rates[0], rates[1], torch.from_numpy(threshold))


def precision_recall(prediction: Any, target: Any, *, weight: Any = None) -> Curve:
    """The precision-recall curve: x = recall, y = precision, thresholds ascending.

    It ends at recall 0 and precision 1 with threshold infinity. Without positives recall is 1 at
    every threshold, as nothing was missed.

    Shapes: prediction and target (N,) -> three (G + 1,) float64.

    Raises:
        ValueError: as for ``auc``.

    >>> curve = precision_recall(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
    >>> curve.x.tolist()
    [1.0, 1.0, 0.5, 0.5, 0.0]
    """
    g = _two("precision_recall", prediction, target, weight)
    found, said = sorting.steps(g)
    precision = np.divide(found, said, out=np.zeros_like(found), where=said > 0)
    recall = found / found[0] if found[0] > 0 else np.ones_like(found)
    ends = [np.append(recall, 0.0), np.append(precision, 1.0), np.append(g.score, math.inf)]
    return Curve(*(torch.from_numpy(x.astype(np.float64)) for x in ends))
