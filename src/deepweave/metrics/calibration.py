"""How far probabilities can be believed: log-loss, Brier, top-k, calibration; all of it streams."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepweave.metrics import inputs
from deepweave.metrics.score import Score
from deepweave.metrics.tally import Statistic, Sums
from deepweave.metrics.uncertainty import invert, on_log, quantile, wilson

_WEIGHT, _LOSS, _BRIER, _TOP = range(4)


class Reliability(NamedTuple):
    """A reliability diagram: per bin its edges, weight, mean confidence, frequency, interval."""

    lower: Tensor
    upper: Tensor
    weight: Tensor
    confidence: Tensor
    frequency: Tensor
    low: Tensor
    high: Tensor


class Likelihood(Sums):
    """Sums of log-losses, Brier scores, top-k hits and calibration gaps of probabilities.

    ``task`` as for ``evaluate``. The bins hold the confidence in the class said (multi-class,
    segmentation by classes) or the probability of class 1 (binary, labels).

    Raises:
        ValueError: shapes that do not fit; at the result: labels out of range, probabilities
            outside [0, 1] or rows that do not sum to 1, NaN, negative weights, no samples.

    >>> tally = Likelihood("binary")
    >>> _ = tally.update(torch.tensor([0.5, 0.5]), torch.tensor([0, 1]))
    >>> round(float(tally.log_loss()), 4)
    0.6931
    """

    FLAWS = (
        "targets are not whole numbers from 0 to classes - 1",
        "predictions are no probabilities in [0, 1] (NaN, or logits before sigmoid or softmax?)",
        "rows of the prediction do not sum to 1 (logits before softmax?)",
        "weights are negative or not finite",
    )

    def __init__(
        self,
        task: inputs.Task,
        outputs: int = 1,
        *,
        bins: int = 15,
        k: int = 1,
        name: str = "Likelihood",
    ) -> None:
        if bins < 1:
            raise ValueError(f"{name}: bins must be at least 1, got {bins}")
        self.task, self.outputs, self.bins, self.k = task, outputs, bins, k
        self.wide = task == "multiclass" or (task == "segmentation" and outputs > 1)
        if self.wide and not 1 <= k <= outputs:
            raise ValueError(f"{name}: k must be from 1 to {outputs} classes, got {k}")
        # The features: 4 sums, then of each bin the weight, the confidence and the hits.
        super().__init__(name, 4 + 3 * bins)

    def settings(self) -> tuple[Any, ...]:
        return (*super().settings(), self.task, self.outputs, self.bins, self.k)

    def prepare(self, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
        p, t = inputs.pair(self.name, prediction, target)
        if not p.is_floating_point():
            raise TypeError(f"{self.name}: prediction must be probabilities, got {p.dtype}")
        n, k = len(p), self.outputs
        if self.task == "multiclass":
            inputs.shaped(self.name, "prediction", p, "N, K", (n, k))
            inputs.shaped(self.name, "target", t, "N,", (n,))
            return p[:, None], t[:, None]
        if self.task == "segmentation":
            task, known = inputs.reading(self.name, p, t, k)
            if task != "segmentation" or (k > 1 and (p.ndim == t.ndim or known != k)):
                want = f"(N, {k}, H, W)" if k > 1 else "(N, H, W)"
                raise ValueError(f"{self.name}: prediction must be {want}, got {tuple(p.shape)}")
            return inputs.flat(task, p, t)
        p, t = (x[:, None] if x.ndim == 1 else x for x in (p, t))
        cols = k if self.task == "multilabel" else 1
        inputs.shaped(self.name, "prediction", p, "N, L", (n, cols))
        inputs.shaped(self.name, "target", t, "N, L", (n, cols))
        return p, t

    def features(self, p: Tensor, t: Tensor, v: Tensor | None = None) -> Tensor:
        eps = torch.finfo(p.dtype).eps  # of the dtype that came: what it cannot tell from 0
        true, broken = inputs.labels(t)
        top = self.outputs - 1 if self.wide else 1
        bad = (true < 0) | (true > top)
        flaws = self.sums["flaws"]
        flaws[0] += (bad if broken is None else bad | broken).sum()
        true = true.clamp(0, top)
        p = p.double()
        flaws[1] += (~((p >= 0) & (p <= 1))).sum()
        p = p.nan_to_num(0.0).clamp(0, 1)
        if self.wide:
            flaws[2] += ((p.sum(-1) - 1).abs() > 1e-2).sum()
            chosen = p.gather(-1, true[..., None])[..., 0]
            loss = -chosen.clamp(eps, 1 - eps).log()
            brier = (p * p).sum(-1) - 2 * chosen + 1
            sure, said = p.max(-1)
            hit = (said == true).double()
            classes = torch.arange(p.shape[-1], device=p.device)
            ahead = (p > chosen[..., None]) | (
                (p == chosen[..., None]) & (classes > true[..., None])
            )
            near = (ahead.sum(-1) < self.k).double()
        else:
            hit = true.double()
            safe = p.clamp(eps, 1 - eps)
            loss = -torch.where(true == 1, safe.log(), (1 - safe).log())
            brier = (p - hit) ** 2
            sure, near = p, ((p > 0.5) == (true == 1)).double()
        one = torch.ones_like(loss) if v is None else v
        place = (sure * self.bins).ceil().long().sub_(1).clamp_(0, self.bins - 1)  # (low, high]
        held = torch.zeros(len(p), 3, self.bins, dtype=torch.float64, device=p.device)
        for row, content in enumerate((one, one * sure, one * hit)):
            held[:, row].scatter_add_(1, place, content)
        sums = torch.stack([one, one * loss, one * brier, one * near], 2).sum(1)
        return torch.cat([sums, held.flatten(1)], 1)

    def sound(self, name: str | None = None) -> None:
        super().sound(name)
        if not float(self.sums["total"][_WEIGHT]) > 0:
            raise ValueError(f"{name or self.name}: the weights sum to 0")

    def column(self, column: int) -> Statistic:
        """The weighted mean of one feature as a function of the sums."""
        return lambda total: total[column] / total[_WEIGHT]

    def mean(self, column: int, confidence: float | None) -> tuple[float, float]:
        """The weighted mean of one feature and its variance."""
        self.sound()
        if confidence is None:
            return float(self.column(column)(self.counts())), 0.0
        value, slope = self.gradient(self.column(column))
        square = float(self.sums["outer"][_WEIGHT, _WEIGHT])
        n = float(self.sums["total"][_WEIGHT]) ** 2 / square
        return value, self.variance(slope) * n / (n - 1) if n > 1 + 1e-9 else math.inf

    def _positive(self, column: int, confidence: float | None) -> Score:
        value, variance = self.mean(column, confidence)
        if confidence is None:
            return Score(value)
        if math.isinf(variance):
            return Score(value, 0.0, math.inf, "log-normal")
        return on_log(value, variance, confidence=confidence)

    def log_loss(self, *, confidence: float | None = 0.95) -> Score:
        """Mean ``-ln p(true)``."""
        return self._positive(_LOSS, confidence)

    def brier(self, *, confidence: float | None = 0.95) -> Score:
        """Mean squared error of the probabilities."""
        return self._positive(_BRIER, confidence)

    def top(self, *, confidence: float | None = 0.95) -> Score:
        """The share with the true class among the k likeliest."""
        value, _ = self.mean(_TOP, confidence)
        if confidence is None:
            return Score(value)
        n = float(self.sums["total"][_WEIGHT]) ** 2 / float(self.sums["outer"][_WEIGHT, _WEIGHT])
        return wilson(value * n, n, confidence=confidence)

    def ece(self, *, confidence: float | None = 0.95) -> Score:
        """The expected calibration error: the mean over the bins of |confidence - frequency|."""
        self.sound()
        total, outer = self.sums["total"].cpu(), self.sums["outer"].cpu()
        size, none = float(total[_WEIGHT]), torch.zeros(self.bins, 4 + self.bins)
        gap = torch.cat([none, torch.eye(self.bins), -torch.eye(self.bins)], 1).double()
        mean = gap @ total / size
        value = float(mean.abs().sum())
        if confidence is None:
            return Score(value)
        # Covariance of a ratio of sums: that of gap - mean * weight.
        gap[:, _WEIGHT] = -mean
        spread = gap @ outer @ gap.T
        low, high = invert(mean, spread / size**2, confidence=confidence)
        return Score(value, min(low, value), min(max(high, value), 1.0), "test inversion")

    def reliability(self, *, confidence: float = 0.95) -> Reliability:
        """The reliability diagram; empty bins have NaN confidence and frequency."""
        self.sound()
        weight, sure, hit = self.sums["total"].cpu()[4:].view(3, -1)
        square = self.sums["outer"].cpu().diagonal()[4 : 4 + self.bins]
        z = quantile(confidence)
        edges = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64)
        n = weight**2 / square
        share = hit / weight
        shrink = 1 + z * z / n
        centre = (share + z * z / (2 * n)) / shrink
        half = z / shrink * ((share * (1 - share)).clamp_min(0) / n + (z / (2 * n)) ** 2).sqrt()
        low, high = (centre - half).clamp(0, 1), (centre + half).clamp(0, 1)
        return Reliability(edges[:-1], edges[1:], weight, sure / weight, share, low, high)


def judged(
    name: str, prediction: Any, target: Any, weight: Any = None, *, bins: int = 15, k: int = 1
) -> Likelihood:
    """The likelihood tally of one whole set, under the metric's name."""
    p, t = inputs.pair(name, prediction, target)
    if not p.is_floating_point():
        raise TypeError(f"{name}: prediction must be probabilities, got {p.dtype}")
    task, outputs = inputs.reading(name, p, t)
    if task == "binary" or (task == "segmentation" and p.ndim == t.ndim):
        outputs = 1
    return Likelihood(task, outputs, bins=bins, k=k, name=name).update(p, t, weight)


def log_loss(
    prediction: Any, target: Any, *, weight: Any = None, confidence: float | None = 0.95
) -> Score:
    """The mean of ``-ln p(true class)``, in nats per sample (cross-entropy, the classifier's loss).

    Probabilities are kept ``eps`` of their dtype away from 0 and 1, so a sure mistake costs 36
    nats in float64 and 16 in float32, not infinity. Labels and pixels count by their mean.
    Interval: delta method on the log scale.

    Shapes: prediction (N,), (N, K), (N, L), (N, C, H, W), (N, H, W) probabilities; target (N,),
    (N, L), (N, H, W).

    Raises:
        ValueError: shapes that do not fit, labels out of range, no probabilities, negative
            weights, no samples.
        TypeError: hard labels.

    >>> log_loss(torch.tensor([0.25, 0.5]), torch.tensor([1, 0]), confidence=None)
    Score(1.03972, '')
    """
    return judged("log_loss", prediction, target, weight).log_loss(confidence=confidence)


def brier(
    prediction: Any, target: Any, *, weight: Any = None, confidence: float | None = 0.95
) -> Score:
    """The mean squared error of the probabilities: ``(p - y)^2``, or ``sum_k (p_k - [y = k])^2``.

    Of class 1 for two classes, binary (0 to 1), the sum over K classes (0 to 2), the mean over
    labels. Interval: delta method on the log scale.

    Shapes: as for ``log_loss``.

    Raises:
        ValueError, TypeError: as for ``log_loss``.

    Source: G. W. Brier, Verification of forecasts expressed in terms of probability, 1950.

    >>> brier(torch.tensor([0.25, 0.5]), torch.tensor([1, 0]), confidence=None)
    Score(0.40625, '')
    """
    return judged("brier", prediction, target, weight).brier(confidence=confidence)


def top_k(
    prediction: Any,
    target: Any,
    *,
    k: int = 5,
    weight: Any = None,
    confidence: float | None = 0.95,
) -> Score:
    """The share of samples whose true class is among the k likeliest; interval: Wilson's.

    Ties go to the later class, as in scikit-learn (``accuracy`` gives them to the first).

    Shapes: prediction (N, K) probabilities, target (N,).

    Raises:
        ValueError, TypeError: as for ``log_loss``; k not from 1 to K.

    >>> p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    >>> top_k(p, torch.tensor([1, 0]), k=2, confidence=None)
    Score(0.5, '')
    """
    tally = judged("top_k", prediction, target, weight, k=k)
    if tally.task != "multiclass":
        raise ValueError(f"top_k: prediction must be (N, K), got a {tally.task} prediction")
    return tally.top(confidence=confidence)


def ece(
    prediction: Any,
    target: Any,
    *,
    bins: int = 15,
    weight: Any = None,
    confidence: float | None = 0.95,
) -> Score:
    """The expected calibration error: ``sum_b |sum_(i in b) w_i (p_i - y_i)| / sum w``.

    Equal bins (low, high]. p is the confidence in the class said and y whether it is right (K
    classes), or p the probability and y the occurrence of class 1 (two classes, labels).
    Interval: a test turned round, as the estimate is biased upwards and the truth may be 0.

    Shapes: as for ``log_loss``.

    Raises:
        ValueError, TypeError: as for ``log_loss``; fewer than one bin.

    Source: M. P. Naeini and others, Obtaining well calibrated probabilities using Bayesian
    binning, 2015; C. Guo and others, On calibration of modern neural networks, 2017.

    >>> ece(torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([1, 1, 0, 1]), confidence=None)
    Score(0.25, '')
    """
    return judged("ece", prediction, target, weight, bins=bins).ece(confidence=confidence)


def reliability(
    prediction: Any,
    target: Any,
    *,
    bins: int = 15,
    weight: Any = None,
    confidence: float = 0.95,
) -> Reliability:
    """The data of a reliability diagram; frequencies with Wilson's interval.

    Shapes: as for ``log_loss`` -> seven (bins,) float64; an empty bin holds NaN.

    Raises:
        ValueError, TypeError: as for ``ece``.

    >>> p, y = torch.tensor([0.9, 0.9, 0.1, 0.1]), torch.tensor([1, 1, 0, 1])
    >>> reliability(p, y, bins=2).frequency.tolist()
    [0.5, 1.0]
    """
    tally = judged("reliability", prediction, target, weight, bins=bins)
    return tally.reliability(confidence=confidence)
