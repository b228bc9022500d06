"""What a classifier got right: accuracy, precision, recall, F, MCC, kappa, overlap.

One rule for all: a *prediction* is probabilities (floats) or hard labels (integers, bools).
Probabilities are (N,) of class 1 (said to be 1 where above ``threshold``), (N, K) of K classes
(the largest is said, ties to the first), (N, L) of L labels beside a target (N, L), or
(N, C, H, W) and (N, H, W) for segmentation. Hard labels have the target's shape; pass ``classes``
where not all of them need occur. ``average=None`` means class 1 of two classes, macro of more.
"""

from __future__ import annotations

from typing import Any

from deepweave.metrics import inputs, rates
from deepweave.metrics.confusion import Confusion
from deepweave.metrics.rates import Average, Rate
from deepweave.metrics.score import Score


def counted(
    name: str,
    prediction: Any,
    target: Any,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
) -> Confusion:
    """The confusion tally of one whole set, under the metric's name."""
    p, t = inputs.pair(name, prediction, target)
    task, known = inputs.reading(name, p, t, classes)
    if classes is not None and classes != known:
        raise ValueError(f"{name}: classes = {classes}, but the prediction has {known}")
    tally = Confusion(
        2 if task == "multilabel" else known,
        labels=known if task == "multilabel" else None,
        images=task == "segmentation",
        threshold=threshold,
        name=name,
    )
    return tally.update(p, t, weight)


def rated(
    name: str,
    rate: Rate,
    prediction: Any,
    target: Any,
    average: Average | None,
    weight: Any,
    classes: int | None,
    threshold: float,
    empty: float,
    exact: bool,
    confidence: float | None,
) -> Score:
    """One rate of a whole set, under the metric's name."""
    tally = counted(name, prediction, target, weight, classes, threshold)
    return tally.rate(rate, average, empty=empty, exact=exact, confidence=confidence)


def accuracy(
    prediction: Any,
    target: Any,
    *,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    exact: bool = False,
    confidence: float | None = 0.95,
) -> Score:
    """The share of samples classified correctly: ``sum w [said = true] / sum w``.

    With labels (N, L) a sample counts only if all its labels are right; for segmentation every
    pixel counts. Interval: Wilson's, or with ``exact`` Clopper-Pearson's; weighted sets use the
    effective size; images are the independent units of a segmentation.

    Shapes: prediction (N,), (N, K), (N, L), (N, C, H, W); target (N,), (N, L), (N, H, W).

    Raises:
        ValueError: shapes that do not fit, labels out of range, NaN, negative weights, no samples.

    >>> import torch
    >>> accuracy(torch.tensor([0.9, 0.2, 0.6, 0.4]), torch.tensor([1, 0, 0, 0]))
    Score(0.75 [0.300642, 0.954413], 'Wilson')
    """
    tally = counted("accuracy", prediction, target, weight, classes, threshold)
    return tally.accuracy(exact=exact, confidence=confidence)


def precision(
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
    """Of those said to be positive, the share that is: ``TP / (TP + FP)``.

    0 / 0 is ``empty``: 0 by default; NaN leaves the class out of an average. A macro average
    takes the classes seen in target or prediction (with labels: all); micro sums the counts.
    Interval of one class or micro: Wilson's share of the denominator;
    of averages: the delta method.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``, and an average that does not suit the task.

    >>> import torch
    >>> precision(torch.tensor([1, 1, 0, 1]), torch.tensor([1, 0, 1, 1]), confidence=None)
    Score(0.666667, '')
    """
    return rated(
        "precision",
        rates.PRECISION,
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


def recall(
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
    """Of the positive ones, the share found: ``TP / (TP + FN)`` (sensitivity, true positive rate).

    0 / 0 is ``empty``: 0 by default; NaN leaves the class out of an average. A macro average
    takes the classes seen in target or prediction (with labels: all); micro sums the counts.
    Interval of one class or micro: Wilson's share of the denominator;
    of averages: the delta method.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``, and an average that does not suit the task.

    >>> import torch
    >>> recall(torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 1, 1]), confidence=None)
    Score(0.666667, '')
    """
    return rated(
        "recall",
        rates.RECALL,
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


def specificity(
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
    """Of the negative ones, the share left alone: ``TN / (TN + FP)`` (true negative rate).

    0 / 0 is ``empty``: 0 by default; NaN leaves the class out of an average. A macro average
    takes the classes seen in target or prediction (with labels: all); micro sums the counts.
    Interval of one class or micro: Wilson's share of the denominator;
    of averages: the delta method.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``, and an average that does not suit the task.

    >>> import torch
    >>> specificity(torch.tensor([1, 0, 0, 1]), torch.tensor([1, 0, 0, 0]), confidence=None)
    Score(0.666667, '')
    """
    return rated(
        "specificity",
        rates.SPECIFICITY,
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


def f1(
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
    """The harmonic mean of precision and recall: ``2 TP / (2 TP + FP + FN)``.

    0 / 0 is ``empty``: 0 by default; NaN leaves the class out of an average. A macro average
    takes the classes seen in target or prediction (with labels: all); micro sums the counts.
    Interval of one class or micro: Wilson's of ``J = TP / (TP + FP + FN)``, mapped by ``F(J)``;
    of averages: the delta method.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``, and an average that does not suit the task.

    Source: C. J. van Rijsbergen, Information retrieval, 1979.

    >>> import torch
    >>> f1(torch.tensor([1, 1, 0, 1]), torch.tensor([1, 0, 1, 1]))
    Score(0.666667 [0.260929, 0.918896], 'Wilson')
    """
    return rated(
        "f1",
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


def fbeta(
    prediction: Any,
    target: Any,
    *,
    beta: float,
    average: Average | None = None,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    empty: float = 0.0,
    exact: bool = False,
    confidence: float | None = 0.95,
) -> Score:
    """Recall counted b times as much: ``(1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP)``.

    0 / 0 is ``empty``: 0 by default; NaN leaves the class out of an average. A macro average
    takes the classes seen in target or prediction (with labels: all); micro sums the counts.
    Interval of one class or micro: Wilson's of ``J = TP / (TP + FP + FN)``, mapped by ``F(J)``;
    of averages: the delta method.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``, and an average that does not suit the task.

    Source: C. J. van Rijsbergen, Information retrieval, 1979.

    >>> import torch
    >>> fbeta(torch.tensor([1, 1, 0, 1]), torch.tensor([1, 0, 0, 1]), beta=2.0, confidence=None)
    Score(0.909091, '')
    """
    return rated(
        "fbeta",
        rates.f_rate(beta),
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
