"""Is one predictor better than another on the same samples?"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from deepweave.metrics import (
    agreement,
    calibration,
    classification,
    curves,
    inputs,
    overlap,
    rates as table,
    regression as errors,
)
from deepweave.metrics.ranking import Kind
from deepweave.metrics.score import Difference, Score
from deepweave.metrics.uncertainty import quantile


class Pull(NamedTuple):
    """A value and what each sample (N,) adds to it, in first order."""

    value: float
    each: Tensor


Puller = Callable[..., Pull]


def _confusion(
    name: str,
    statistic: Callable[..., Any],
    p: Any,
    t: Any,
    weight: Any,
    classes: int | None = None,
    threshold: float = 0.5,
    **options: Any,
) -> Pull:
    tally = classification.counted(name, p, t, weight, classes, threshold)
    tally.sound()
    function = statistic(tally, **options)
    value, _ = tally.gradient(function)
    return Pull(value, tally.influence(function, p, t, weight))


def _rate(rate: table.Rate) -> Callable[..., Any]:
    def statistic(tally: Any, average: Any = None, empty: float = 0.0) -> Any:
        return tally.of_table(table.averaged(rate, tally.averaging(average), empty))

    return statistic


def _fbeta(tally: Any, beta: float, average: Any = None, empty: float = 0.0) -> Any:
    return _rate(table.f_rate(beta))(tally, average, empty)


def _kappa(tally: Any, power: int = 0) -> Any:
    return tally.of_table(table.cohen(power))


def _ranking(
    name: str,
    kind: Kind,
    p: Any,
    t: Any,
    weight: Any,
    average: str | None = None,
    versus: str = "rest",
) -> Pull:
    tally = curves.ranked(name, p, t, weight)
    value, each, _ = tally.pulls(kind, average or "macro", versus, name)
    return Pull(value, each)


def _errors(name: str, function: Any, sign: float, p: Any, t: Any, weight: Any) -> Pull:
    tally = errors.summed(name, p, t, weight)
    tally.sound()
    value, _ = tally.gradient(function)
    value = 1 - value if sign < 0 else value
    return Pull(value, sign * tally.influence(function, p, t, weight))


def _likelihood(name: str, column: int, p: Any, t: Any, weight: Any, k: int = 1) -> Pull:
    tally = calibration.judged(name, p, t, weight, k=k)
    value, _ = tally.mean(column, None)
    return Pull(value, tally.influence(tally.column(column), p, t, weight))


def _counted(name: str, statistic: Callable[..., Any]) -> Puller:
    return partial(_confusion, name, statistic)


def _of(function: Any) -> Callable[..., Any]:
    return lambda tally: tally.of_table(function)


_PULLS: dict[Callable[..., Score], Puller] = {
    classification.accuracy: _counted("accuracy", lambda tally: tally.hits),
    classification.precision: _counted("precision", _rate(table.PRECISION)),
    classification.recall: _counted("recall", _rate(table.RECALL)),
    classification.specificity: _counted("specificity", _rate(table.SPECIFICITY)),
    classification.f1: _counted("f1", _rate(table.F1)),
    classification.fbeta: _counted("fbeta", _fbeta),
    overlap.jaccard: _counted("jaccard", _rate(table.JACCARD)),
    overlap.dice: _counted("dice", _rate(table.F1)),
    agreement.balanced_accuracy: _counted("balanced_accuracy", _of(table.balanced)),
    agreement.mcc: _counted("mcc", _of(table.matthews)),
    agreement.kappa: _counted("kappa", _kappa),
    agreement.hamming: _counted("hamming", _of(table.misses)),
    curves.auc: partial(_ranking, "auc", "auc"),
    curves.average_precision: partial(_ranking, "average_precision", "ap"),
    calibration.log_loss: partial(_likelihood, "log_loss", 1),
    calibration.brier: partial(_likelihood, "brier", 2),
    calibration.top_k: lambda p, t, w, k=5: _likelihood("top_k", 3, p, t, w, k),
    errors.mse: partial(_errors, "mse", errors.mse_of, 1.0),
    errors.rmse: partial(_errors, "rmse", errors.rmse_of, 1.0),
    errors.mae: partial(_errors, "mae", errors.mae_of, 1.0),
    errors.mape: partial(_errors, "mape", errors.mape_of, 1.0),
    errors.r2: partial(_errors, "r2", errors.unexplained_of, -1.0),
}


def difference(
    metric: Callable[..., Score],
    a: Any,
    b: Any,
    target: Any,
    *,
    weight: Any = None,
    confidence: float = 0.95,
    **options: Any,
) -> Difference:
    """``metric(a) - metric(b)`` on the same samples, with its interval and p-value.

    ``var = sum_i (I_a(i) - I_b(i))^2``, I(i) what sample i adds to the score in first order: what
    both get wrong cancels. For ``auc`` this is DeLong's test, for ``accuracy`` McNemar's: there
    the p-value is the exact one and the interval Bonett and Price's (without weights).
    ``options`` go to the metric (``average``, ``beta``, ``k`` ...).

    Shapes: a and b as the metric's prediction; target, weight as for the metric.

    Raises:
        TypeError: a metric that has no first-order influence (such as ``ece``).
        ValueError: as for the metric.

    Source: E. R. DeLong and others, 1988; D. G. Bonett, R. M. Price, Adjusted Wald confidence
    interval for a difference of binomial proportions based on paired data, 2012.

    >>> import torch
    >>> from deepweave.metrics import accuracy
    >>> y = torch.tensor([0, 1] * 10)
    >>> difference(accuracy, y, torch.zeros_like(y), y).text(3)
    '0.5 [0.211, 0.698]'
    """
    if metric not in _PULLS:
        names = ", ".join(sorted(m.__name__ for m in _PULLS))
        raise TypeError(f"difference: metric must be one of {names}, got {metric!r}")
    first, second = (_PULLS[metric](x, target, weight, **options) for x in (a, b))
    gap = first.value - second.value
    if metric is classification.accuracy and weight is None:
        found = _discordant(a, b, target, options)
        if found is not None:
            return _bonett_price(gap, *found, confidence)
    pulls = first.each - second.each
    n = len(pulls)
    spread = math.sqrt(float((pulls**2).sum()) * n / max(n - 1, 1))
    half = quantile(confidence) * spread
    p = math.erfc(abs(gap) / spread / math.sqrt(2)) if spread > 0 else (1.0 if gap == 0 else 0.0)
    names = {curves.auc: "DeLong"}
    return Difference(gap, gap - half, gap + half, f"paired {names.get(metric, 'delta')}", p)


def _discordant(
    a: Any, b: Any, target: Any, options: dict[str, Any]
) -> tuple[int, int, int] | None:
    """How many samples a alone, and b alone, gets right, and of how many; None for images."""
    right = []
    for prediction in (a, b):
        p, t = inputs.pair("difference", prediction, target)
        task, known = inputs.reading("difference", p, t, options.get("classes"))
        if task == "segmentation":
            return None
        tally = classification.Confusion(
            2 if task == "multilabel" else known,
            labels=known if task == "multilabel" else None,
            threshold=options.get("threshold", 0.5),
        )
        said = tally.hard(p, t)
        right.append(said == t if task != "multilabel" else (said == t).all(1))
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    return only_a, only_b, len(right[0])


def _bonett_price(gap: float, only_a: int, only_b: int, n: int, confidence: float) -> Difference:
    up, down = (only_a + 1) / (n + 2), (only_b + 1) / (n + 2)
    half = quantile(confidence) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = max(up - down - half, -1.0), min(up - down + half, 1.0)
    return Difference(gap, min(low, gap), max(high, gap), "McNemar", mcnemar(only_a, only_b))


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of "both are right equally often", from the discordant counts.

    Under it, ``only_a`` is Binomial(only_a + only_b, 1/2).

    Raises:
        ValueError: a negative count.

    Source: Q. McNemar, Note on the sampling error of the difference between correlated
    proportions or percentages, 1947.

    >>> round(mcnemar(2, 10), 4)
    0.0386
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"mcnemar: counts must not be negative, got {only_a} and {only_b}")
    n, few = only_a + only_b, min(only_a, only_b)
    logs = [
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in range(few + 1)
    ]
    tail = math.fsum(math.exp(x - n * math.log(2)) for x in logs)
    return min(2 * tail, 1.0)
