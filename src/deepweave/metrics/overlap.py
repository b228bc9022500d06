"""How far two regions cover each other: the measures of segmentation, of any classes too."""

from __future__ import annotations

from typing import Any

from deepweave.metrics import rates
from deepweave.metrics.classification import rated
from deepweave.metrics.rates import Average
from deepweave.metrics.score import Score


def jaccard(
    prediction: Any,
    target: Any,
    *,
    average: Average | None = None,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    empty: float = 0.0,
    exact: bool = False,
    confidence: float | None = 0.95,
) -> Score:
    """Overlap over union: ``TP / (TP + FP + FN)`` (IoU).

    0 / 0 is ``empty``: 0 by default; NaN leaves the class out of an average. A macro average
    takes the classes seen in target or prediction (with labels: all); micro sums the counts.
    Interval of one class or micro: Wilson's share of the denominator;
    of averages: the delta method.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``, and an average that does not suit the task.

    Source: P. Jaccard, The distribution of the flora in the alpine zone, 1912.

    >>> import torch
    >>> jaccard(torch.tensor([1, 1, 0, 1]), torch.tensor([1, 0, 0, 1]), confidence=None)
    Score(0.666667, '')
    """
    return rated(
        "jaccard",
        rates.JACCARD,
        prediction,
        target,
        average,
        weight,
        classes,
        threshold,
        empty,
        exact,
        confidence,
    )


def dice(
    prediction: Any,
    target: Any,
    *,
    average: Average | None = None,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    empty: float = 0.0,
    exact: bool = False,
    confidence: float | None = 0.95,
) -> Score:
    """Twice the overlap over the sum of both: ``2 TP / (2 TP + FP + FN)``, F1 by its other name.

    0 / 0 is ``empty``: 0 by default; NaN leaves the class out of an average. A macro average
    takes the classes seen in target or prediction (with labels: all); micro sums the counts.
    Interval of one class or micro: Wilson's of ``J = TP / (TP + FP + FN)``, mapped by ``F(J)``;
    of averages: the delta method.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``, and an average that does not suit the task.

    Source: L. R. Dice, Measures of the amount of ecologic association between species, 1945.

    >>> import torch
    >>> dice(torch.tensor([1, 1, 0, 1]), torch.tensor([1, 0, 0, 1]), confidence=None)
    Score(0.8, '')
    """
    return rated(
        "dice",
        rates.F1,
        prediction,
        target,
        average,
        weight,
        classes,
        threshold,
        empty,
        exact,
        confidence,
    )
