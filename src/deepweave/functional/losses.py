"""Losses of numbers: squared, absolute, Huber's, quantiles.

All losses share one form, ``loss(prediction, target, *, ..., weight, mask, reduction)``; what the
last three mean is said once, in :mod:`deepweave.functional.reduction`. Classes:
:mod:`deepweave.functional.entropy`; margins and pairs: ``margins``; overlaps of regions:
``overlap``; between distributions: ``divergences``; of distributions: ``likelihoods``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.functional.entropy import (
    binary_cross_entropy as binary_cross_entropy,
    cross_entropy as cross_entropy,
)
from deepweave.functional.reduction import (
    expect,
    filled,
    reduced,
    weighted_mean as weighted_mean,
)


def squared_error(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """The squared error of each sample, averaged over its further dimensions.

    (f - y)^2; the mean over samples is the MSE.

    Shapes: prediction (B, ...), target (B, ...), weight (B,), mask (B, ...) -> (B,), or ()

    >>> squared_error(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]))
    tensor([1., 4.])
    """
    expect("squared_error", "target", target, prediction.shape)
    if reduction == "mean" and weight is None and mask is None:
        return F.mse_loss(prediction, target)
    error = prediction - filled("squared_error", target, mask)
    return reduced("squared_error", error.square(), weight, mask, reduction)


def absolute_error(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """|f - y|, averaged over a sample's further dimensions; least for the median, slope 0 at 0.

    Shapes: as for :func:`squared_error`

    >>> absolute_error(torch.tensor([1.0, -2.0]), torch.tensor([0.0, 0.0]), reduction="mean")
    tensor(1.5000)
    """
    expect("absolute_error", "target", target, prediction.shape)
    error = prediction - filled("absolute_error", target, mask)
    return reduced("absolute_error", error.abs(), weight, mask, reduction)


def huber(
    prediction: Tensor,
    target: Tensor,
    *,
    delta: float = 1.0,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """e^2 / 2 where the error |e| is below delta, else delta (|e| - delta / 2).

    Squared near zero, absolute for outliers. Divided by delta it is the "smooth L1" loss.

    Shapes: as for :func:`squared_error`; delta in the unit of the target
    Raises:
        ValueError: delta not above 0, or shapes that do not fit.
    Source: Huber, Robust estimation of a location parameter, 1964.

    >>> huber(torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0]))
    tensor([0.1250, 2.5000])
    """
    if not delta > 0:
        raise ValueError(f"huber: delta must be above 0, got {delta}")
    expect("huber", "target", target, prediction.shape)
    target = filled("huber", target, mask)
    loss = F.huber_loss(prediction, target, reduction="none", delta=delta)
    return reduced("huber", loss, weight, mask, reduction)


def quantile(
    prediction: Tensor,
    target: Tensor,
    *,
    levels: float | Sequence[float] = 0.5,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """The pinball loss max(q e, (q - 1) e) of the error e = y - f: least for the q-quantile.

    With several levels the last dimension of the prediction holds one quantile for each, and the
    loss is their mean.

    Shapes: target (B, ...); prediction the same for one level, (B, ..., Q) for Q -> (B,), or ()
    Raises:
        ValueError: a level not inside (0, 1), or shapes that do not fit.
    Source: Koenker & Bassett, Regression quantiles, 1978.

    >>> quantile(torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0]), levels=0.9)
    tensor([0.9000, 0.1000])
    """
    many = isinstance(levels, Sequence)
    asked = tuple(levels) if isinstance(levels, Sequence) else (levels,)
    if not asked or not all(0 < q < 1 for q in asked):
        raise ValueError(f"quantile: levels must lie inside (0, 1), got {levels}")
    shape = (*target.shape, len(asked)) if many else tuple(target.shape)
    expect("quantile", "prediction", prediction, shape)
    target = filled("quantile", target, mask)
    error = (target.unsqueeze(-1) if many else target) - prediction
    q = prediction.new_tensor(asked) if many else asked[0]
    loss = torch.maximum(q * error, (q - 1) * error)
    return reduced("quantile", loss.mean(-1) if many else loss, weight, mask, reduction)
