"""One number for a whole table: balanced accuracy, Matthews, kappa, Hamming."""

from __future__ import annotations

from typing import Any

from deepweave.metrics import rates
from deepweave.metrics.classification import counted
from deepweave.metrics.confusion import Confusion
from deepweave.metrics.score import Score


def one_table(name: str, tally: Confusion) -> Confusion:
    """The tally, if it has one (K, K) table."""
    if tally.labels is not None:
        raise ValueError(f"{name}: target must be (N,) classes, got (N, L) labels: take each alone")
    return tally


def balanced_accuracy(
    prediction: Any,
    target: Any,
    *,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    confidence: float | None = 0.95,
) -> Score:
    """The mean recall over the classes that occur in the target; interval: delta method.

    Shapes: as for ``accuracy``, without labels (N, L).

    Raises:
        ValueError: as for ``accuracy``, and for labels (N, L).

    >>> import torch
    >>> balanced_accuracy(torch.tensor([0, 0, 1, 0]), torch.tensor([0, 0, 1, 1]), confidence=None)
    Score(0.75, '')
    """
    name = "balanced_accuracy"
    tally = one_table(name, counted(name, prediction, target, weight, classes, threshold))
    return tally.of(rates.balanced, confidence=confidence)


def mcc(
    prediction: Any,
    target: Any,
    *,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    confidence: float | None = 0.95,
) -> Score:
    """Matthews' correlation of said and true classes, in [-1, 1].

    ``(c n - sum t_k p_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2))`` with c right ones, t_k
    and p_k true and said counts; 0 where truth or prediction is one class. Interval: delta.

    Shapes: as for ``accuracy``, without labels (N, L).

    Raises:
        ValueError: as for ``accuracy``, and for labels (N, L).

    Source: J. Gorodkin, Comparing two K-category assignments by a K-category correlation
    coefficient, 2004.

    >>> import torch
    >>> mcc(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 1, 0]), confidence=None)
    Score(1, '')
    """
    tally = one_table("mcc", counted("mcc", prediction, target, weight, classes, threshold))
    return tally.of(rates.matthews, floor=-1.0, confidence=confidence)


def kappa(
    prediction: Any,
    target: Any,
    *,
    power: int = 0,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    confidence: float | None = 0.95,
) -> Score:
    """Cohen's kappa: agreement beyond chance, ``1 - sum cost C / sum cost E``, in [-1, 1].

    E holds the counts expected of independent margins. ``power=0`` costs 1 for any error, 1 is
    linear and 2 quadratic in the distance of ordered classes. Where chance agreement is total
    (one class on both sides) it is 0: nothing beyond chance was shown. Interval: delta.

    Shapes: as for ``accuracy``, without labels (N, L).

    Raises:
        ValueError: as for ``accuracy``, for labels (N, L), and a power other than 0, 1, 2.

    Source: J. Cohen, Weighted kappa, 1968.

    >>> import torch
    >>> kappa(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2]), power=2, confidence=None)
    Score(0.8, '')
    """
    if power not in (0, 1, 2):
        raise ValueError(f"kappa: power must be 0, 1 or 2, got {power}")
    tally = one_table("kappa", counted("kappa", prediction, target, weight, classes, threshold))
    return tally.of(rates.cohen(power), floor=-1.0, confidence=confidence)


def hamming(
    prediction: Any,
    target: Any,
    *,
    weight: Any = None,
    classes: int | None = None,
    threshold: float = 0.5,
    confidence: float | None = 0.95,
) -> Score:
    """The share of single labels said wrongly (Hamming loss); interval: delta, by sample.

    Shapes: as for ``accuracy``.

    Raises:
        ValueError: as for ``accuracy``.

    >>> import torch
    >>> hamming(torch.tensor([[1, 0], [1, 1]]), torch.tensor([[1, 0], [0, 1]]), confidence=None)
    Score(0.25, '')
    """
    tally = counted("hamming", prediction, target, weight, classes, threshold)
    return tally.of(rates.misses, confidence=confidence)
