"""How alike two texts are by the runs of characters that they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from deepweave.metrics.score import Score
from deepweave.metrics.uncertainty import bootstrap


def chrf(
    said: Sequence[str],
    true: Sequence[str],
    *,
    order: int = 6,
    beta: float = 2.0,
    confidence: float = 0.95,
) -> Score:
    """chrF of a set of translations, in [0, 1]: the F-score of their runs of characters.

    F = (1 + b^2) P R / (b^2 P + R), P and R the means, over runs of 1 to ``order`` characters, of
    the share of said runs that are true and of true runs that are said; each occurrence counts
    once, spaces do not count. The counts are of all texts together; the bootstrap draws texts.

    Args:
        said: the translations.
        true: one reference for each.
        order: the longest runs.
        beta: how many times recall matters as much as precision.

    Raises:
        ValueError: other numbers of texts, or none.

    Source: Popovic, chrF: character n-gram F-score for automatic MT evaluation, 2015.

    >>> round(chrf(["the cat"], ["the cat"]), 3), round(chrf(["abc"], ["abd"], order=2), 3)
    (1.0, 0.583)
    """
    if len(said) != len(true) or not len(said):
        raise ValueError(
            f"chrf: said and true must be as many texts, got {len(said)} and {len(true)}"
        )
    if order < 1:
        raise ValueError(f"chrf: order must be at least 1, got {order}")
    counts = torch.tensor([_shared(a, b, order) for a, b in zip(said, true)])

    def score(mean: Tensor) -> Tensor:
        met, ours, theirs = mean.unflatten(1, (3, order)).unbind(1)
        some = (ours > 0) & (theirs > 0)  # runs longer than every text say nothing
        parts = [torch.where(some, met / of.clamp_min(1e-12), 0.0) for of in (ours, theirs)]
        share, found = (part.sum(1) / some.sum(1).clamp_min(1) for part in parts)
        below = beta**2 * share + found
        return torch.where(below > 0, (1 + beta**2) * share * found / below.clamp_min(1e-12), 0.0)

    return bootstrap(score, counts, confidence=confidence)


def _shared(said: str, true: str, order: int) -> list[int]:
    """Of each length: runs that both have, runs of the one, runs of the other."""
    sides = ["".join(text.split()) for text in (said, true)]
    met = []
    for n in range(1, order + 1):
        ours, theirs = (Counter(s[i : i + n] for i in range(len(s) - n + 1)) for s in sides)
        met.append((ours & theirs).total())
    sizes = [[max(len(side) - n, 0) for n in range(order)] for side in sides]
    return [*met, *sizes[0], *sizes[1]]
