"""How far off a number is: MSE, RMSE, MAE, MAPE, R2, in sums that stream."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor

from deepweave.metrics import inputs
from deepweave.metrics.score import Score
from deepweave.metrics.tally import Statistic, Sums, Tally
from deepweave.metrics.uncertainty import on_log

_EPSILON = torch.finfo(torch.float64).eps
# Per target: 1, y - c, (y - c)^2, (p - y)^2, |p - y|, |p - y| / |y|. c keeps large offsets from
# eating the digits of the variance.
_ONE, _SHIFT, _SQUARE, _ERROR2, _ERROR, _RELATIVE = range(6)


def _columns(total: Tensor) -> Tensor:
    return total.view(-1, 6).T


def mse_of(total: Tensor) -> Tensor:
    """The mean squared error, averaged over targets."""
    s = _columns(total)
    return (s[_ERROR2] / s[_ONE]).mean()


def rmse_of(total: Tensor) -> Tensor:
    """The root of each target's mean squared error, averaged over targets."""
    s = _columns(total)
    ratio = s[_ERROR2] / s[_ONE]
    return torch.where(ratio > 0, torch.where(ratio > 0, ratio, 1.0).sqrt(), 0.0).mean()


def mae_of(total: Tensor) -> Tensor:
    """The mean absolute error, averaged over targets."""
    s = _columns(total)
    return (s[_ERROR] / s[_ONE]).mean()


def mape_of(total: Tensor) -> Tensor:
    """The mean of |p - y| / |y|, averaged over targets."""
    s = _columns(total)
    return (s[_RELATIVE] / s[_ONE]).mean()


def unexplained_of(total: Tensor) -> Tensor:
    """1 - R2: the mean over the targets of squared error over squared deviation."""
    s = _columns(total)
    spread = s[_SQUARE] - s[_SHIFT] ** 2 / s[_ONE]
    flat = spread <= 8 * _EPSILON * s[_SQUARE]  # a constant target, up to rounding
    none = torch.where(s[_ERROR2] > 0, 1.0, 0.0)
    return torch.where(flat, none, s[_ERROR2] / torch.where(flat, 1.0, spread)).mean()


class Errors(Sums):
    """Sums of errors, from which MSE, RMSE, MAE, MAPE and R2 follow, each with its interval.

    Shapes: prediction (N,) or (N, T), target alike, in the target's unit; weight (N,).

    Raises:
        ValueError: shapes that do not fit; at the result: NaN, negative weights, no samples.

    >>> tally = Errors()
    >>> _ = tally.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    >>> float(tally.update(torch.tensor([5.0]), torch.tensor([5.0])).r2(confidence=None))
    0.875
    """

    FLAWS = ("predictions or targets are not finite", "weights are negative or not finite")

    def __init__(self, targets: int = 1, *, name: str = "Errors") -> None:
        super().__init__(name, 6 * targets)
        self.targets = targets
        self.sums["seen"] = torch.zeros(1, dtype=torch.float64)  # is the origin set?
        self.sums["origin"] = torch.zeros(targets, dtype=torch.float64)

    def prepare(self, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
        p, t = inputs.pair(self.name, prediction, target)
        p, t = (x[:, None] if x.ndim == 1 else x for x in (p.double(), t.double()))
        letters = "N," if self.targets == 1 else "N, T"
        shape = (len(p),) if self.targets == 1 else (len(p), self.targets)
        for role, x in (("prediction", p), ("target", t)):
            if x.shape != (len(p), self.targets):
                got = tuple(x.squeeze(1).shape if x.shape[1] == 1 else x.shape)
                raise ValueError(f"{self.name}: {role} must be ({letters}) = {shape}, got {got}")
        return p, t

    def features(self, p: Tensor, t: Tensor, v: Tensor | None = None) -> Tensor:
        self.sums["flaws"][0] += (~(p.isfinite() & t.isfinite())).sum()
        off = (p - t).abs()
        d = t - self.sums["origin"]
        relative = off / t.abs().clamp_min(_EPSILON)
        return torch.stack([torch.ones_like(d), d, d * d, off * off, off, relative], 2).flatten(1)

    def update(self, prediction: Any, target: Any, weight: Any = None) -> Self:
        p, t = self.prepare(prediction, target)
        self._reach(p)
        if self.size == 0:
            self.sums["origin"] = t.mean(0).nan_to_num(0.0, 0.0, 0.0)
            self.sums["seen"] += 1
        return super().update(p, t, weight)

    def rebase(self, origin: Tensor) -> None:
        """Write the sums about another origin: a linear map of the features, so exact."""
        step = self.sums["origin"] - origin  # y - new = (y - old) + step
        parts = torch.eye(6, dtype=torch.float64, device=step.device).repeat(self.targets, 1, 1)
        parts[:, _SHIFT, _ONE] = step
        parts[:, _SQUARE, _ONE] = step * step
        parts[:, _SQUARE, _SHIFT] = 2 * step
        change = torch.block_diag(*parts)
        self.sums["total"] = change @ self.sums["total"]
        self.sums["outer"] = change @ self.sums["outer"] @ change.T
        self.sums["origin"] = origin

    def align(self, group: Any = None, other: Tally | None = None) -> None:
        if other is not None:
            if self.size == 0:
                self.rebase(other.sums["origin"])
            elif isinstance(other, Errors):
                other.rebase(self.sums["origin"].clone())
            other.sums["origin"] = torch.zeros_like(other.sums["origin"])  # added, so nothing
            return
        both = torch.cat([self.sums["origin"] * self.sums["seen"], self.sums["seen"]])
        dist.all_reduce(both, group=group)
        self.rebase(both[:-1] / both[-1].clamp_min(1))
        # all_reduce adds the origins and the flags: leave one share of each to add up.
        ranks = dist.get_world_size(group)
        self.sums["origin"] = self.sums["origin"] / ranks

    def sound(self, name: str | None = None) -> None:
        super().sound(name)
        if not float(self.sums["total"][_ONE]) > 0:
            raise ValueError(f"{name or self.name}: the weights sum to 0")

    def _small(self) -> float:
        """n / (n - 1) at Kish's effective n: the delta method's variance is a little small."""
        square = float(self.sums["outer"][_ONE, _ONE])
        n = float(self.sums["total"][_ONE]) ** 2 / square
        return n / (n - 1) if n > 1 else math.inf

    def mean(self, statistic: Statistic, confidence: float | None = 0.95) -> Score:
        """A positive mean with an interval on the log scale."""
        self.sound()
        if confidence is None:
            return Score(float(statistic(self.counts())))
        value, slope = self.gradient(statistic)
        variance = self.variance(slope)
        variance = variance * self._small() if variance > 0 else 0.0
        if self._small() == math.inf:  # one sample says nothing about its spread
            return Score(value, 0.0, math.inf, "log-normal")
        return on_log(value, variance, confidence=confidence)

    def mse(self, *, confidence: float | None = 0.95) -> Score:
        return self.mean(mse_of, confidence)

    def rmse(self, *, confidence: float | None = 0.95) -> Score:
        return self.mean(rmse_of, confidence)

    def mae(self, *, confidence: float | None = 0.95) -> Score:
        return self.mean(mae_of, confidence)

    def mape(self, *, confidence: float | None = 0.95) -> Score:
        return self.mean(mape_of, confidence)

    def r2(self, *, confidence: float | None = 0.95) -> Score:
        self.sound()
        if self.size < 2:
            return Score(math.nan, -math.inf, 1.0, "undefined")
        lost = self.mean(unexplained_of, confidence)
        return Score(1 - lost, 1 - lost.high, 1 - lost.low, lost.method)


def summed(name: str, prediction: Any, target: Any, weight: Any = None) -> Errors:
    """The error tally of one whole set, under the metric's name."""
    t = inputs.tensor(name, "target", target)
    tally = Errors(t.shape[1] if t.ndim == 2 else 1, name=name)
    return tally.update(prediction, target, weight)


def mse(
    prediction: Any, target: Any, *, weight: Any = None, confidence: float | None = 0.95
) -> Score:
    """Mean squared error ``sum w (p - y)^2 / sum w``, in the target's unit squared.

    Several targets count equally. Interval: delta method on the log scale.

    Shapes: prediction and target (N,) or (N, T); weight (N,).

    Raises:
        ValueError: shapes that do not fit, NaN, negative weights, no samples.

    >>> mse([1.0, 2.0, 5.0], [1.0, 3.0, 5.0], confidence=None)
    Score(0.333333, '')
    """
    return summed("mse", prediction, target, weight).mse(confidence=confidence)


def rmse(
    prediction: Any, target: Any, *, weight: Any = None, confidence: float | None = 0.95
) -> Score:
    """Root of the mean squared error, in the target's unit; the mean of the roots of T targets.

    Interval: delta method on the log scale.

    Shapes: prediction and target (N,) or (N, T); weight (N,).

    Raises:
        ValueError: as for ``mse``.

    >>> rmse([1.0, 1.0], [3.0, 3.0], confidence=None)
    Score(2, '')
    """
    return summed("rmse", prediction, target, weight).rmse(confidence=confidence)


def mae(
    prediction: Any, target: Any, *, weight: Any = None, confidence: float | None = 0.95
) -> Score:
    """Mean absolute error ``sum w |p - y| / sum w``, in the target's unit.

    Interval: delta method on the log scale.

    Shapes: prediction and target (N,) or (N, T); weight (N,).

    Raises:
        ValueError: as for ``mse``.

    >>> mae([1.0, 2.0], [2.0, 4.0], confidence=None)
    Score(1.5, '')
    """
    return summed("mae", prediction, target, weight).mae(confidence=confidence)


def mape(
    prediction: Any, target: Any, *, weight: Any = None, confidence: float | None = 0.95
) -> Score:
    """Mean absolute error as a share of the target: ``mean |p - y| / max(|y|, 2.2e-16)``.

    A share, not percent. A target of 0 makes it huge, never infinite. Interval: as for ``mae``.

    Shapes: prediction and target (N,) or (N, T); weight (N,).

    Raises:
        ValueError: as for ``mse``.

    >>> mape([1.0, 3.0], [2.0, 4.0], confidence=None)
    Score(0.375, '')
    """
    return summed("mape", prediction, target, weight).mape(confidence=confidence)


def r2(
    prediction: Any, target: Any, *, weight: Any = None, confidence: float | None = 0.95
) -> Score:
    """The share of variance explained: ``1 - sum w (p - y)^2 / sum w (y - mean y)^2``.

    Several targets count equally. A constant target gives 1 if met exactly and else 0; a single
    sample has no variance and gives NaN. Interval: delta method on the log of 1 - R2.

    Shapes: prediction and target (N,) or (N, T); weight (N,).

    Raises:
        ValueError: as for ``mse``.

    >>> r2([1.0, 2.0, 5.0], [1.0, 3.0, 5.0], confidence=None)
    Score(0.875, '')
    """
    return summed("r2", prediction, target, weight).r2(confidence=confidence)
