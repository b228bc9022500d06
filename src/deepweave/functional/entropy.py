"""Losses of classes: cross-entropy, of one class, of labels, to probabilities; and focal.

All take logits: the logarithm of a sigmoid or softmax is computed in one stable expression, never
as ``log(sigmoid(x))``. ``reduction="mean"`` without weights is the fused mean.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.functional.reduction import expect, filled, fits, labels, reduced, shares


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.0,
    ignore: int | None = None,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """The negative log-probability of the true class, -log softmax(z)_y, or -sum_k t_k log p_k.

    With smoothing s the target is (1 - s) on the true class plus s / K on every class. A sample's
    loss is the mean over its further dimensions. ``ignore`` is a label that does not count. With
    a weight per class the mean is sum(c_y l) / sum(c_y), as in torch.

    Shapes: logits (B, K, ...), target (B, ...) of int64, or probabilities (B, K, ...);
        class_weight (K,), weight (B,), mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: labels not in 0..K-1, a smoothing outside [0, 1], shapes that do not fit.

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([4.])
    """
    name = "cross_entropy"
    if not 0 <= smoothing <= 1:
        raise ValueError(f"{name}: smoothing must lie in [0, 1], got {smoothing}")
    plain = ignore is None and class_weight is None and weight is None and mask is None
    soft = target.is_floating_point() and target.dim() == logits.dim()
    if plain and reduction == "mean" and not soft:  # the hot loop: one kernel, checked by itself
        try:
            return F.cross_entropy(logits, target, reduction="mean", label_smoothing=smoothing)
        except (IndexError, RuntimeError, ValueError):
            _grid(name, logits, target, soft)
            labels(name, target, logits.shape[1])
            raise
    _grid(name, logits, target, soft)
    if class_weight is not None:
        expect(name, "class_weight", class_weight, (logits.shape[1],))
        class_weight = class_weight.to(logits.dtype)
    if soft:
        return _soft(logits, target, smoothing, class_weight, weight, mask, reduction)
    mask = _counted(target, ignore, mask)
    target = filled(name, target, mask)
    labels(name, target, logits.shape[1])
    loss = F.cross_entropy(
        logits, target, class_weight, reduction="none", label_smoothing=smoothing
    )
    share = None if class_weight is None else class_weight[target]
    return reduced(name, loss, weight, mask, reduction, share)


def _soft(
    logits: Tensor,
    target: Tensor,
    smoothing: float,
    class_weight: Tensor | None,
    weight: Tensor | None,
    mask: Tensor | None,
    reduction: str,
) -> Tensor:
    """Cross-entropy to probabilities: 0 log 0 is 0, also where a logit is minus infinity."""
    if mask is not None:
        fits("cross_entropy", mask, (target.shape[0], *target.shape[2:]))
        target = target.masked_fill(mask.unsqueeze(1) == 0, 0)
    shares("cross_entropy", "probabilities", target)
    goal = target * (1 - smoothing) + smoothing / logits.shape[1] if smoothing else target
    share = None
    if class_weight is not None:
        class_weight = class_weight.view(-1, *[1] * (logits.dim() - 2))
        goal, share = goal * class_weight, (target * class_weight).sum(1)
    loss = -(goal * logits.log_softmax(1).masked_fill(goal == 0, 0)).sum(1)
    return reduced("cross_entropy", loss, weight, mask, reduction, share)


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.0,
    positive_weight: float | Tensor | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """-[y log p + (1 - y) log(1 - p)] with p = sigmoid(z), averaged over a sample's labels.

    With smoothing s the target is y (1 - s) + s / 2. ``positive_weight`` multiplies the term of
    y, one number or one for each of the last dimension (as torch's ``pos_weight``).

    Shapes: logits (B, ...), target (B, ...) in [0, 1], weight (B,), mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: targets outside [0, 1], a smoothing outside [0, 1], shapes that do not fit.

    >>> binary_cross_entropy(torch.tensor([-1e4, 1e4]), torch.tensor([1.0, 1.0]))
    tensor([10000.,     0.])
    """
    name = "binary_cross_entropy"
    if not 0 <= smoothing <= 1:
        raise ValueError(f"{name}: smoothing must lie in [0, 1], got {smoothing}")
    expect(name, "target", target, logits.shape)
    target = target.to(logits.dtype)
    factor = None if positive_weight is None else torch.as_tensor(positive_weight).to(logits)
    plain = weight is None and mask is None and reduction == "mean"
    if not plain:  # the hot loop's own targets are looked at by the objective's check
        target = filled(name, target, mask)
        shares(name, "target", target)
    if smoothing:
        target = target * (1 - smoothing) + smoothing / 2
    how = "mean" if plain else "none"
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction=how, pos_weight=factor)
    return loss if plain else reduced(name, loss, weight, mask, reduction)


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    gamma: float = 2.0,
    class_weight: Tensor | None = None,
    ignore: int | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """-(1 - p_y)^gamma log p_y: cross-entropy in which what is right already counts little.

    With the cross-entropy l = -log p_y from logits it is (1 - e^-l)^gamma l, which keeps its digits
    where p_y is nearly 1. gamma = 0 is cross-entropy. Logits of the target's own shape are two
    classes, or labels, each.

    Shapes: multi-class: logits (B, K, ...), target (B, ...) of int64, class_weight (K,);
        binary and labels: logits (B, ...), target (B, ...) in [0, 1], class_weight (2,) of 0 and
        1; weight (B,), mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: gamma below 0, labels not in 0..K-1, shapes that do not fit.
    Source: Lin et al., Focal loss for dense object detection, 2017 (its alpha is class_weight).

    >>> focal(torch.zeros(1), torch.ones(1), gamma=1.0)  # half of log 2
    tensor([0.3466])
    """
    if not (gamma >= 0 and math.isfinite(gamma)):
        raise ValueError(f"focal: gamma must be at least 0, got {gamma}")
    two = logits.shape == target.shape
    if two and ignore is not None:
        raise ValueError("focal: ignore is for class numbers; take mask= for two classes")
    if not two:
        _grid("focal", logits, target, False)
    mask = _counted(target, ignore, mask)
    target = filled("focal", target, mask)
    if two:
        target = target.to(logits.dtype)
        shares("focal", "target", target)
        entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    else:
        labels("focal", target, logits.shape[1])
        entropy = F.cross_entropy(logits, target, reduction="none")
    # where nothing is left to learn a root (gamma below 1) would have an infinite slope
    wrong = -torch.expm1(-entropy).clamp_max(-torch.finfo(entropy.dtype).tiny)
    loss, share = wrong**gamma * entropy, None
    if class_weight is not None:
        expect("focal", "class_weight", class_weight, (2 if two else logits.shape[1],))
        own = class_weight.to(logits.dtype)
        share = own[0] + (own[1] - own[0]) * target if two else own[target]
        loss = loss * share
    return reduced("focal", loss, weight, mask, reduction, share)


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Where each class is the true one. Shapes: target (B, ...) of int64 -> (B, K, ...) bool

    >>> one_hot(torch.tensor([2, 0]), 3).int()
    tensor([[0, 0, 1],
            [1, 0, 0]], dtype=torch.int32)
    """
    every = torch.arange(classes, device=target.device).view(-1, *[1] * (target.dim() - 1))
    return target.unsqueeze(1) == every


def _counted(target: Tensor, ignore: int | None, mask: Tensor | None) -> Tensor | None:
    if ignore is None:
        return mask
    return target != ignore if mask is None else mask * (target != ignore)


def _grid(name: str, logits: Tensor, target: Tensor, soft: bool) -> None:
    """Raise ValueError unless logits (B, K, ...) and targets are of one grid."""
    if logits.dim() < 2:
        raise ValueError(f"{name}: logits must be (B, K, ...), got {tuple(logits.shape)}")
    shape = logits.shape if soft else (logits.shape[0], *logits.shape[2:])
    if target.shape != shape:
        raise ValueError(
            f"{name}: target must be {tuple(shape)} for logits {tuple(logits.shape)}, "
            f"got {tuple(target.shape)}"
        )
