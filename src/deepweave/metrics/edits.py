"""How far what was said is from what is true: insertions, deletions and exchanges."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from deepweave.metrics.score import Score
from deepweave.metrics.uncertainty import bootstrap

Texts = Sequence[Sequence[Hashable]]


def edit_distance(said: Texts, true: Texts) -> Tensor:
    """The fewest insertions, deletions and exchanges of tokens from each true text to what is said.

    d_ij = min(d_i-1,j + 1, d_i,j-1 + 1, d_i-1,j-1 + [s_i != t_j]); all texts at once, row by row.

    Args:
        said: N sequences of tokens, or strings (of characters).
        true: as many.

    Shapes: N and N sequences -> (N,) int64

    Raises:
        ValueError: other numbers of texts.

    Source: Levenshtein, Binary codes capable of correcting deletions, insertions, and reversals,
    1966.

    >>> edit_distance(["kitten", ""], ["sitting", "ab"]).tolist()
    [3, 2]
    """
    if len(said) != len(true):
        raise ValueError(
            f"edit_distance: said and true must be as many texts, got {len(said)} and {len(true)}"
        )
    if not len(said):
        return torch.zeros(0, dtype=torch.int64)
    numbers: dict[Hashable, int] = {}
    (a, lengths), (b, sizes) = (_numbered(side, numbers) for side in (said, true))
    place = torch.arange(b.shape[1] + 1)
    row = place.expand(len(b), -1).clone()  # of a text of nothing: all inserted
    found = row.gather(1, sizes[:, None])[:, 0]
    for i in range(a.shape[1]):
        cheap = torch.minimum(row[:, 1:] + 1, row[:, :-1] + (a[:, i : i + 1] != b))
        cheap = torch.cat([row[:, :1] + 1, cheap], 1)
        row = (cheap - place).cummin(1).values + place  # what comes from the left, all at once
        found = torch.where(lengths == i + 1, row.gather(1, sizes[:, None])[:, 0], found)
    return found


def _numbered(side: Texts, numbers: dict[Hashable, int]) -> tuple[Tensor, Tensor]:
    """Tokens as numbers (N, longest), and the lengths."""
    rows = [[numbers.setdefault(token, len(numbers)) for token in text] for text in side]
    lengths = torch.tensor([len(row) for row in rows])
    longest = max(int(lengths.max()), 1)
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows]), lengths


def error_rate(said: Texts, true: Texts, *, confidence: float = 0.95) -> Score:
    """Edits per true token: the word error rate of words, the phoneme error rate of phonemes.

    rate = sum_n d(said_n, true_n) / sum_n |true_n|; the bootstrap draws whole texts.

    Raises:
        ValueError: other numbers of texts, or no true token.

    >>> round(error_rate(["abc", "d"], ["abd", "de"]), 3)
    0.4
    """
    distance = edit_distance(said, true)
    sizes = torch.tensor([len(text) for text in true])
    if not int(sizes.sum()):
        raise ValueError("error_rate: there is no true token")
    columns = torch.stack([distance, sizes], 1)
    return bootstrap(lambda mean: mean[:, 0] / mean[:, 1], columns, confidence=confidence)
