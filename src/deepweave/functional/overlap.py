"""Losses of how far a region, given as probabilities, covers the true one: for segmentation.

For each sample and class, with p the probabilities, t the truth and sums over the pixels,

    TP = sum(p t),   FP = sum(p (1 - t)),   FN = sum((1 - p) t),

the overlap is a ratio of these with a small number epsilon in numerator and denominator, outside
the sums, so that an empty mask predicted as empty costs nothing. A sample's loss is the mean over
its classes. Since a ratio over the whole region counts, a small object weighs as much as a large
one, and the background hardly at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepweave.functional.reduction import expect, fits, reduced, shares


def dice(
    probability: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1.0,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """1 - (2 sum(p t) + e) / (sum(p) + sum(t) + e), per sample and class, averaged over classes.

    The sums run over pixels; e stands in numerator and denominator, so that an empty mask
    predicted as empty costs nothing.

    Shapes: probability (B, C, ...), target (B, C, ...) in [0, 1], class_weight (C,), weight (B,),
        mask (B, ...) without the classes -> (B,), or ()
    Raises:
        ValueError: numbers outside [0, 1], epsilon not above 0, shapes that do not fit.
    Source: Milletari, Navab & Ahmadi, V-Net, 2016.

    >>> dice(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    tensor([0.])
    """
    both, said, true = _sums("dice", probability, target, mask, epsilon)
    loss = 1 - (2 * both + epsilon) / (said + true + epsilon)
    return _over_classes("dice", loss, class_weight, weight, mask, reduction)


def jaccard(
    probability: Tensor,
    target: Tensor,
    *,
    epsilon: float = 1.0,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """1 - (TP + e) / (TP + FP + FN + e): one minus the overlap over the union (IoU).

    Shapes and errors: as for :func:`dice`
    Source: Rahman & Wang, Optimizing intersection-over-union in deep neural networks, 2016.

    >>> jaccard(torch.ones(1, 1, 4), torch.tensor([[[1.0, 1.0, 1.0, 0.0]]]))
    tensor([0.2000])
    """
    both, said, true = _sums("jaccard", probability, target, mask, epsilon)
    loss = 1 - (both + epsilon) / (said + true - both + epsilon)
    return _over_classes("jaccard", loss, class_weight, weight, mask, reduction)


def tversky(
    probability: Tensor,
    target: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 1.0,
    epsilon: float = 1.0,
    class_weight: Tensor | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """(1 - (TP + e) / (TP + alpha FP + beta FN + e))^gamma: misses may cost more than false finds.

    alpha = beta = 1/2 is Dice with twice the epsilon, alpha = beta = 1 is Jaccard. gamma other
    than 1 is the focal Tversky loss: above 1 what is nearly right counts less, below 1 more.

    Shapes and errors: as for :func:`dice`; alpha, beta at least 0 and not both 0, gamma above 0
    Source: Salehi, Erdogmus & Gholipour, Tversky loss function, 2017; Abraham & Khan, A novel focal
    Tversky loss function, 2019 (whose exponent is 1 / gamma).

    >>> tversky(torch.zeros(1, 1, 4), torch.ones(1, 1, 4), alpha=0.5, beta=0.5, epsilon=0.5)
    tensor([0.8000])
    """
    if not (alpha >= 0 and beta >= 0 and alpha + beta > 0):
        raise ValueError(
            f"tversky: alpha and beta must not be below 0, nor both 0, got {alpha}, {beta}"
        )
    if not (gamma > 0 and math.isfinite(gamma)):
        raise ValueError(f"tversky: gamma must be above 0, got {gamma}")
    both, said, true = _sums("tversky", probability, target, mask, epsilon)
    wrong = alpha * (said - both) + beta * (true - both)
    loss = wrong / (both + wrong + epsilon)
    if gamma != 1:  # a root has an infinite slope at 0, where nothing is left to learn
        tiny = torch.finfo(loss.dtype).eps
        loss = loss.clamp_min(tiny) ** gamma if gamma < 1 else loss.clamp_min(0) ** gamma
    return _over_classes("tversky", loss, class_weight, weight, mask, reduction)


def _sums(
    name: str, probability: Tensor, target: Tensor, mask: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """sum(p t), sum(p) and sum(t) over the pixels that the mask leaves: three of (B, C)."""
    if not epsilon > 0:
        raise ValueError(f"{name}: epsilon must be above 0, got {epsilon}")
    if probability.dim() < 3:
        raise ValueError(
            f"{name}: probability must be (B, C, pixels ...), got {tuple(probability.shape)}"
        )
    expect(name, "target", target, probability.shape)
    p, t = probability, target.to(probability.dtype)
    if mask is not None:
        fits(name, mask, (target.shape[0], *target.shape[2:]))
        out = (mask == 0).unsqueeze(1)
        p, t = p.masked_fill(out, 0), t.masked_fill(out, 0)
    shares(name, "probability", p)
    shares(name, "target", t)
    both = p * t
    if mask is not None:
        part = mask.to(p.dtype).unsqueeze(1)
        both, p, t = both * part, p * part, t * part
    both, p, t = (one.flatten(2).sum(-1) for one in (both, p, t))
    return both, p, t


def _over_classes(
    name: str,
    loss: Tensor,
    class_weight: Tensor | None,
    weight: Tensor | None,
    mask: Tensor | None,
    reduction: str,
) -> Tensor:
    """The mean over classes, (B, C) -> (B,); a sample without a pixel left counts for nothing."""
    if class_weight is None:
        loss = loss.mean(1)
    else:
        expect(name, "class_weight", class_weight, (loss.shape[1],))
        share = class_weight.to(loss.dtype)
        loss = (loss * share).sum(1) / share.sum()
    counted = None if mask is None else (mask > 0).flatten(1).any(1)
    return reduced(name, loss, weight, counted, reduction)
