"""Losses, one number per sample: the mean over the batch comes last, so weights and vmap compose.

Every loss takes logits where there is a choice: the logarithm of a sigmoid or softmax is computed
in one stable expression, never as ``log(sigmoid(x))``. ``reduction="mean"`` is the fused mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def squared_error(prediction: Tensor, target: Tensor, *, reduction: str = "none") -> Tensor:
    """The squared error of each sample, averaged over its further dimensions.

    Shapes: prediction (B, ...), target (B, ...) -> (B,), or () for reduction="mean"

    >>> squared_error(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.0]))
    tensor([1., 4.])
    """
    if reduction == "mean":
        return F.mse_loss(prediction, target)
    return _per_sample((prediction - target).square())


def cross_entropy(
    logits: Tensor, target: Tensor, *, smoothing: float = 0.0, reduction: str = "none"
) -> Tensor:
    """The negative log-probability of the true class, -log softmax(z)_y.

    With smoothing s the target is (1 - s) on the true class plus s / K on every class.

    Shapes: logits (B, K, ...), target (B, ...) of int64 -> (B,), or ()

    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2])).exp()
    tensor([4.])
    """
    loss = F.cross_entropy(logits, target, reduction=reduction, label_smoothing=smoothing)
    return loss if reduction == "mean" else _per_sample(loss)


def binary_cross_entropy(
    logits: Tensor, target: Tensor, *, smoothing: float = 0.0, reduction: str = "none"
) -> Tensor:
    """-[y log p + (1 - y) log(1 - p)] with p = sigmoid(z), averaged over a sample's labels.

    With smoothing s the target is y (1 - s) + s / 2.

    Shapes: logits (B, ...), target (B, ...) in [0, 1] -> (B,), or ()

    >>> binary_cross_entropy(torch.tensor([-1e4, 1e4]), torch.tensor([1.0, 1.0]))
    tensor([10000.,     0.])
    """
    target = target.to(logits.dtype)
    if smoothing:
        target = target * (1 - smoothing) + smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction=reduction)
    return loss if reduction == "mean" else _per_sample(loss)


def dice(probability: Tensor, target: Tensor, *, epsilon: float = 1.0) -> Tensor:
    """1 - (2 sum(p t) + e) / (sum(p) + sum(t) + e), per sample and class, averaged over classes.

    The sums run over pixels; e stands in numerator and denominator, so that an empty mask
    predicted as empty costs nothing.

    Shapes: probability (B, C, ...), target (B, C, ...) in [0, 1] -> (B,)
    Source: Milletari, Navab & Ahmadi, V-Net, 2016.

    >>> dice(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    tensor([0.])
    """
    if probability.shape != target.shape:
        raise ValueError(
            f"dice: target must be {tuple(probability.shape)}, got {tuple(target.shape)}"
        )
    p, t = probability.flatten(2), target.flatten(2).to(probability.dtype)
    overlap = 2 * (p * t).sum(-1) + epsilon
    return (1 - overlap / (p.sum(-1) + t.sum(-1) + epsilon)).mean(1)


def weighted_mean(loss: Tensor, weight: Tensor | None = None) -> Tensor:
    """sum(w l) / sum(w): the mean loss of a batch, with a weight per sample if given.

    Shapes: loss (B,), weight (B,) -> ()

    >>> weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0]))
    tensor(1.5000)
    """
    if weight is None:
        return loss.mean()
    return (loss * weight).sum() / weight.sum().clamp_min(torch.finfo(loss.dtype).tiny)


def _per_sample(loss: Tensor) -> Tensor:
    return loss.flatten(1).mean(1) if loss.dim() > 1 else loss
