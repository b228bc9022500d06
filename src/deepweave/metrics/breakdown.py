"""Class by class: the confusion matrix, and a rate of every class."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from deepweave.metrics import rates
from deepweave.metrics.classification import counted, f1, precision, recall, specificity
from deepweave.metrics.overlap import dice, jaccard
from deepweave.metrics.score import Score


def confusion_matrix(
    prediction: Any,
    target: Any,
    *,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
) -> Tensor:
    """The counts (sums of weights) of true class i said to be j, float64.

    Shapes: as for ``accuracy`` -> (K, K), or (L, 2, 2) with labels.

    Raises:
        ValueError: as for ``accuracy``.

    >>> import torch
    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])).tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    return counted("confusion_matrix", prediction, target, weight, classes, threshold).matrix()


RATES = {
    precision: rates.PRECISION,
    recall: rates.RECALL,
    specificity: rates.SPECIFICITY,
    f1: rates.F1,
    jaccard: rates.JACCARD,
    dice: rates.F1,
}


def per_class(
    metric: Any,
    prediction: Any,
    target: Any,
    *,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    empty: float = 0.0,
    confidence: float | None = 0.95,
) -> tuple[Score, ...]:
    """A rate of every class against the rest (or of every label), each with its interval.

    ``metric`` is one of ``precision``, ``recall``, ``specificity``, ``f1``, ``jaccard``, ``dice``.

    Shapes: as for ``accuracy`` -> K scores.

    Raises:
        TypeError: another metric.
        ValueError: as for ``accuracy``.

    >>> import torch
    >>> from deepweave.metrics import recall
    >>> said, true = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])
    >>> [s.text(2) for s in per_class(recall, said, true)]
    ['1 [0.21, 1]', '0.5 [0.095, 0.91]', '1 [0.21, 1]']
    """
    if metric not in RATES:
        names = ", ".join(m.__name__ for m in RATES)
        raise TypeError(f"per_class: metric must be one of {names}, got {metric!r}")
    tally = counted(metric.__name__, prediction, target, weight, classes, threshold)
    return tally.each(RATES[metric], empty=empty, confidence=confidence)
