"""Losses of margins: of a class over the others, of what is alike over what is not, of an order.

Scores and embeddings are compared with each other; a loss that reaches 0 once the margin is wide
enough stops learning from what is right.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.functional.entropy import cross_entropy, one_hot
from deepweave.functional.reduction import expect, filled, labels, reduced, shares, signs


def hinge(
    score: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    squared: bool = False,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """max(0, m - t s) for labels t of -1 and +1, or its square.

    Shapes: score (B, ...), target (B, ...) of -1 and +1, weight (B,), mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: labels other than -1 and +1, a margin not above 0, shapes that do not fit.
    Source: Cortes & Vapnik, Support-vector networks, 1995.

    >>> hinge(torch.tensor([2.0, 0.5, -1.0]), torch.tensor([1, 1, 1]))
    tensor([0.0000, 0.5000, 2.0000])
    """
    _width("hinge", margin)
    expect("hinge", "target", target, score.shape)
    target = filled("hinge", target, mask, 1)
    signs("hinge", target)
    loss = (margin - target * score).clamp_min(0)
    return reduced("hinge", loss.square() if squared else loss, weight, mask, reduction)


def multiclass_hinge(
    logits: Tensor,
    target: Tensor,
    *,
    margin: float = 1.0,
    kind: Literal["crammer_singer", "weston_watkins"] = "crammer_singer",
    squared: bool = False,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """The margin of the true class over the others, where it is narrower than m.

    Crammer and Singer: max(0, m + max_{j != y} z_j - z_y), the worst rival alone (scikit-learn's
    ``hinge_loss``). Weston and Watkins: sum_{j != y} max(0, m + z_j - z_y), every rival (torch's
    ``multi_margin_loss`` is this divided by K). Squared: each term.

    Shapes: logits (B, K, ...), target (B, ...) of int64, weight (B,), mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: labels not in 0..K-1, an unknown kind, shapes that do not fit.
    Source: Crammer & Singer, On the algorithmic implementation of multiclass kernel-based vector
    machines, 2001; Weston & Watkins, Support vector machines for multi-class pattern
    recognition, 1999.

    >>> multiclass_hinge(torch.tensor([[1.0, 0.5, 0.7]]), torch.tensor([0]))
    tensor([0.7000])
    """
    name = "multiclass_hinge"
    _width(name, margin)
    if kind not in ("crammer_singer", "weston_watkins"):
        raise ValueError(f"{name}: kind must be crammer_singer or weston_watkins, got {kind!r}")
    if logits.dim() < 2 or logits.shape[1] < 2:
        raise ValueError(f"{name}: logits must be (B, K >= 2, ...), got {tuple(logits.shape)}")
    expect(name, "target", target, (logits.shape[0], *logits.shape[2:]))
    target = filled(name, target, mask)
    labels(name, target, logits.shape[1])
    own = logits.gather(1, target.unsqueeze(1))
    gap = (logits - own + margin).masked_fill(one_hot(target, logits.shape[1]), -torch.inf)
    gap = (gap.amax(1, keepdim=True) if kind == "crammer_singer" else gap).clamp_min(0)
    loss = (gap.square() if squared else gap).sum(1)
    return reduced(name, loss, weight, mask, reduction)


def triplet(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    margin: float = 1.0,
    squared: bool = False,
    weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """max(0, d(a, p) - d(a, n) + m): what is alike lies nearer than what is not, by a margin.

    d is the Euclidean distance, or its square as in the paper.

    Shapes: anchor, positive, negative (B, D), weight (B,) -> (B,), or ()
    Raises:
        ValueError: a margin not above 0, shapes that do not fit.
    Source: Schroff, Kalenichenko & Philbin, FaceNet, 2015.

    >>> a = torch.zeros(1, 2)
    >>> triplet(a, a + torch.tensor([0.0, 1.0]), a + torch.tensor([0.0, 1.5]))
    tensor([0.5000])
    """
    _width("triplet", margin)
    near = _distance("triplet", anchor, positive, "positive", squared)
    far = _distance("triplet", anchor, negative, "negative", squared)
    return reduced("triplet", (near - far + margin).clamp_min(0), weight, None, reduction)


def contrastive(
    first: Tensor,
    second: Tensor,
    alike: Tensor,
    *,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """y d^2 / 2 + (1 - y) max(0, m - d)^2 / 2 for pairs that are alike (y = 1) or not (y = 0).

    Shapes: first, second (B, D), alike (B,) in [0, 1], weight (B,) -> (B,), or ()
    Raises:
        ValueError: a margin not above 0, ``alike`` outside [0, 1], shapes that do not fit.
    Source: Hadsell, Chopra & LeCun, Dimensionality reduction by learning an invariant mapping, 2006
    (whose Y is 1 - y).

    >>> x = torch.zeros(2, 1)
    >>> contrastive(x, x + 0.5, torch.tensor([1, 0]))
    tensor([0.1250, 0.1250])
    """
    _width("contrastive", margin)
    distance = _distance("contrastive", first, second, "second", False)
    expect("contrastive", "alike", alike, distance.shape)
    y = alike.to(distance.dtype)
    shares("contrastive", "alike", y)
    apart = (margin - distance).clamp_min(0).square()
    together = (first - second).square().sum(-1)
    return reduced("contrastive", (y * together + (1 - y) * apart) / 2, weight, None, reduction)


def info_nce(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.1,
    weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """-log softmax_j(cos(a_i, b_j) / T) at j = i: find the partner among those of the batch.

    A sample of weight 0 is not asked for its partner, but remains among those of the others.

    Shapes: first, second (B, D), weight (B,) -> (B,), or ()
    Raises:
        ValueError: a temperature not above 0, shapes that do not fit.
    Source: van den Oord, Li & Vinyals, Representation learning with contrastive predictive coding,
    2018.

    >>> info_nce(torch.eye(2), torch.eye(2), temperature=1.0).exp() - 1  # 1 / e
    tensor([0.3679, 0.3679])
    """
    a, b = _directions("info_nce", first, second, temperature)
    partner = torch.arange(len(a), device=a.device)
    loss = cross_entropy(a @ b.mT / temperature, partner)
    return reduced("info_nce", loss, weight, None, reduction)


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float = 0.5,
    weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """InfoNCE from both sides, among all 2B views but oneself: the loss of SimCLR.

    A sample's loss is the mean over its two views.

    Shapes: first, second (B, D), weight (B,) -> (B,), or ()
    Raises:
        ValueError: a temperature not above 0, shapes that do not fit.
    Source: Chen et al., A simple framework for contrastive learning of visual representations,
    2020.

    >>> nt_xent(torch.eye(2), torch.eye(2), temperature=1.0).exp()  # 1 + 2 / e
    tensor([1.7358, 1.7358])
    """
    a, b = _directions("nt_xent", first, second, temperature)
    count = len(a)
    views = torch.cat([a, b])
    itself = torch.eye(2 * count, dtype=torch.bool, device=a.device)
    alike = (views @ views.mT / temperature).masked_fill(itself, -torch.inf)
    partner = torch.arange(2 * count, device=a.device).roll(count)
    loss = cross_entropy(alike, partner).view(2, count).mean(0)
    return reduced("nt_xent", loss, weight, None, reduction)


def ranking(
    first: Tensor,
    second: Tensor,
    order: Tensor,
    *,
    margin: float | None = None,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """log(1 + e^{-t (s1 - s2)}) for pairs whose order t is known, or max(0, m - t (s1 - s2)).

    t = +1: the first should score higher, -1: the second.

    Shapes: first, second (B, ...), order (B, ...) of -1 and +1 -> (B,), or ()
    Raises:
        ValueError: an order other than -1 and +1, a margin below 0, shapes that do not fit.
    Source: Burges et al., Learning to rank using gradient descent, 2005; with a margin: Herbrich,
    Graepel & Obermayer, Large margin rank boundaries for ordinal regression, 2000.

    >>> ranking(torch.tensor([3.0]), torch.tensor([1.0]), torch.tensor([1]), margin=2.5)
    tensor([0.5000])
    """
    expect("ranking", "second", second, first.shape)
    expect("ranking", "order", order, first.shape)
    if margin is not None and not margin >= 0:
        raise ValueError(f"ranking: margin must be at least 0, got {margin}")
    order = filled("ranking", order, mask, 1)
    signs("ranking", order)
    ahead = order * (first - second)
    loss = -F.logsigmoid(ahead) if margin is None else (margin - ahead).clamp_min(0)
    return reduced("ranking", loss, weight, mask, reduction)


def _width(name: str, margin: float) -> None:
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"{name}: margin must be above 0, got {margin}")


def _distance(name: str, a: Tensor, b: Tensor, what: str, squared: bool) -> Tensor:
    """Between rows; the slope of the Euclidean distance is taken as 0 where both are equal."""
    _rows(name, a)
    expect(name, what, b, a.shape)
    return (a - b).square().sum(-1) if squared else torch.linalg.vector_norm(a - b, dim=-1)


def _directions(name: str, a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both as unit vectors; what is shorter than 1e-6 is taken as nothing, not blown up."""
    if not temperature > 0:
        raise ValueError(f"{name}: temperature must be above 0, got {temperature}")
    _rows(name, a)
    expect(name, "second", b, a.shape)
    return F.normalize(a, dim=-1, eps=1e-6), F.normalize(b, dim=-1, eps=1e-6)


def _rows(name: str, a: Tensor) -> None:
    if a.dim() != 2:
        raise ValueError(f"{name}: embeddings must be (B, D), got {tuple(a.shape)}")
