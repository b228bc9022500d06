"""Functions of a confusion table: the rates and their averages, MCC, kappa, balanced accuracy.

A table is (K, K), row = true class, column = said, or (L, 2, 2) for L yes/no labels. Every
function is differentiable and unchanged when the table is scaled, which is what the delta method
needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Average = Literal["binary", "micro", "macro", "weighted"]


class Rate(NamedTuple):
    """A ratio of sums of (true positives, false positives, false negatives, true negatives)."""

    above: tuple[float, float, float, float]
    below: tuple[float, float, float, float]

    def sums(self, parts: Tensor) -> tuple[Tensor, Tensor]:
        """Numerator and denominator of parts (4, K)."""
        above, below = torch.tensor([self.above, self.below]).to(parts) @ parts
        return above, below


PRECISION = Rate((1, 0, 0, 0), (1, 1, 0, 0))
RECALL = Rate((1, 0, 0, 0), (1, 0, 1, 0))
SPECIFICITY = Rate((0, 0, 0, 1), (0, 1, 0, 1))
JACCARD = Rate((1, 0, 0, 0), (1, 1, 1, 0))
F1 = Rate((2, 0, 0, 0), (2, 1, 1, 0))


def f_rate(beta: float) -> Rate:
    """F-beta: ``(1 + b^2) TP / ((1 + b^2) TP + b^2 FN + FP)``."""
    if not 0 < beta < float("inf"):
        raise ValueError(f"fbeta: beta must be positive, got {beta}")
    return Rate((1 + beta**2, 0, 0, 0), (1 + beta**2, 1, beta**2, 0))


def ratio(above: Tensor, below: Tensor, empty: float = 0.0) -> Tensor:
    """``above / below``, and ``empty`` where below is 0; its gradient is finite there."""
    hollow = below == 0
    return torch.where(hollow, empty, above / torch.where(hollow, 1.0, below))


def quarters(table: Tensor) -> Tensor:
    """TP, FP, FN, TN of each class against the rest, or of each label: (4, K)."""
    if table.ndim == 3:
        return torch.stack([table[:, 1, 1], table[:, 0, 1], table[:, 1, 0], table[:, 0, 0]])
    hit, true = table.diagonal(), table.sum(1)
    # Sums of the cells off the diagonal rather than differences: an empty class stays exactly 0.
    off = table - torch.diag_embed(hit)
    wrong, missed = off.sum(0), off.sum(1)
    return torch.stack([hit, wrong, missed, (true.sum() - true) - wrong])


def averaged(rate: Rate, average: Average, empty: float = 0.0) -> Callable[[Tensor], Tensor]:
    """The average of a rate as a function of the table."""

    def statistic(table: Tensor) -> Tensor:
        parts = quarters(table)
        above, below = rate.sums(parts)
        if average == "binary":
            return ratio(above[1], below[1], empty)
        if average == "micro":
            return ratio(above.sum(), below.sum(), empty)
        each, support = ratio(above, below, empty), parts[0] + parts[2]
        share = support if average == "weighted" else torch.ones_like(support)
        if average == "macro" and table.ndim == 2:
            share = (parts[:3].sum(0) > 0).to(each.dtype)  # seen in truth or prediction
        share = torch.where(each.isnan(), 0.0, share)
        return ratio((share * torch.where(share > 0, each, 0.0)).sum(), share.sum(), empty)

    return statistic


def hits(table: Tensor) -> Tensor:
    """The share on the diagonal."""
    return table.diagonal(dim1=-2, dim2=-1).sum() / table.sum()


def misses(table: Tensor) -> Tensor:
    """The share off the diagonal: with labels, the Hamming loss."""
    off = table - torch.diag_embed(table.diagonal(dim1=-2, dim2=-1))
    return off.sum() / table.sum()


def balanced(table: Tensor) -> Tensor:
    """The mean recall of the classes that occur."""
    support = table.sum(1)
    there = (support > 0).to(table.dtype)
    return (ratio(table.diagonal(), support) * there).sum() / there.sum()


def matthews(table: Tensor) -> Tensor:
    """MCC; 0 where truth or prediction is one class alone."""
    true, said = table.sum(1), table.sum(0)
    joint = table.diagonal().sum() * said.sum() - (true * said).sum()
    # n - t rather than n^2 - sum t^2: one class alone gives an exact 0.
    spread = (true * (true.sum() - true)).sum() * (said * (said.sum() - said)).sum()
    hollow = spread <= 0
    return torch.where(hollow, 0.0, joint / torch.where(hollow, 1.0, spread).sqrt())


def cohen(power: int) -> Callable[[Tensor], Tensor]:
    """Kappa with costs ``|i - j|^power`` (1 off the diagonal for power 0); 0 where undefined."""

    def statistic(table: Tensor) -> Tensor:
        rank = torch.arange(len(table), dtype=table.dtype, device=table.device)
        gap = (rank[:, None] - rank).abs()
        cost = gap**power if power else (gap > 0).to(table.dtype)
        below = (cost * (table.sum(1)[:, None] * table.sum(0) / table.sum())).sum()
        hollow = below <= 0
        lost = (cost * table).sum() / torch.where(hollow, 1.0, below)
        return torch.where(hollow, 0.0, 1 - lost)

    return statistic
