"""Texts to be written: a stream of tokens in windows, and pairs of texts for translation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepweave.data.dataset import Data
from deepweave.data.prepare import Preparation
from deepweave.data.ragged import Ragged
from deepweave.data.split import Split, divide
from deepweave.data.targets import Target
from deepweave.data.text import Pair, Text, fit
from deepweave.functional.ragged import BEGIN, END

PARTS = ("train", "validation", "test")


def stream(
    text: str,
    known: dict[str, str],
    *,
    how: str = "characters",
    size: int = 8000,
    context: int = 128,
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Data:
    """One long text: each window of ``context`` tokens, and the same one token further on.

    The parts follow each other in the text, so that what is tested comes after all that was
    learned from. Each loses what does not fill a window.

    Shapes: x and y (N, context) int64

    Raises:
        ValueError: the text is too short for a window in every part.

    >>> known = {"name": "a", "title": "A", "source": "-", "licence": "-"}
    >>> data = stream("to be or not to be " * 10, known, context=8)
    >>> data.train.x.shape, bool((data.train.x[:, 1:] == data.train.y[:, :-1]).all())
    (torch.Size([18, 8]), True)
    """
    if context < 1:
        raise ValueError(f"load: context must be at least 1, got {context}")
    edges = [round(len(text) * share) for share in (0.0, splits[0], splits[0] + splits[1], 1.0)]
    parts = {name: text[a:b] for name, a, b in zip(PARTS, edges, edges[1:])}
    if not all(part.strip() for part in parts.values()):
        raise ValueError(f"load: {len(text)} characters are too few for three parts")
    form, _ = fit([parts["train"]], how, size)
    form = Text(form.how, form.vocabulary, context, form.model)
    whole = Text(form.how, form.vocabulary, 2**31, form.model)
    made = {}
    for name, part in parts.items():
        codes = whole.inputs([part]).values
        count = (len(codes) - 1) // context
        if count < 1:
            raise ValueError(
                f"load: the {name} part has {len(codes)} tokens, too few for a window of {context}"
            )
        x, y = (codes[at : at + count * context].view(count, context) for at in (0, 1))
        made[name] = Split(x, y.clone())
    sizes = ", ".join(f"{len(parts[name])} characters to {_role(name)}" for name in PARTS)
    told = [
        f"A vocabulary of {len(form.vocabulary)} {how.replace('-', ' ')}, from the training part.",
        f"Windows of {context} tokens; {sizes}, in the order of the text.",
    ]
    target = Target("tokens", ("next token",), classes=form.vocabulary)
    return _data(known, Preparation(form, target, told), made)


def _role(name: str) -> str:
    return {"train": "learn from", "validation": "validate", "test": "test"}[name]


def pairs(
    rows: Sequence[tuple[str, str]],
    known: dict[str, str],
    *,
    ways: tuple[str, str] = ("words", "words"),
    size: int = 8000,
    splits: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    limit: int | None = None,
) -> Data:
    """Pairs of texts: from the source, and the target so far, to the target's next token.

    A source that occurs several times is in one split alone.

    Shapes: x = (source (T_i,), begin and target (S_i + 1,)), y = target and end (S_i + 1,)
    """
    if limit is not None and limit < len(rows):
        chosen = np.random.default_rng(seed).permutation(len(rows))[:limit]
        rows = [rows[place] for place in np.sort(chosen)]
    if len(rows) < 3:
        raise ValueError(f"load: {len(rows)} pairs are too few for three parts")
    index = _by_source([source for source, _ in rows], splits, seed)
    sides = [[row[side] for row in rows] for side in (0, 1)]
    train = index["train"].tolist()
    forms = [
        fit([side[place] for place in train], how, size, longest=0)[0]
        for side, how in zip(sides, ways)
    ]
    made = {}
    for name, places in index.items():
        source, target = (
            form.inputs([side[place] for place in places.tolist()])
            for form, side in zip(forms, sides)
        )
        made[name] = Split((source, _framed(target, BEGIN, None)), _framed(target, None, END))
    told = [
        f"{side}: {form.how.replace('-', ' ')} of a vocabulary of {len(form.vocabulary)}, at most "
        f"{form.longest} a text."
        for side, form in zip(("Source", "Target"), forms)
    ]
    counts = ", ".join(f"{len(places)} {name}" for name, places in index.items())
    told.append(f"{counts} pairs, divided by source text with seed {seed}.")
    target = Target("tokens", ("next token",), classes=forms[1].vocabulary)
    return _data(known, Preparation(Pair(*forms), target, told), made)


def _by_source(
    sources: Sequence[str], splits: tuple[float, float, float], seed: int
) -> dict[str, Tensor]:
    _, group = np.unique(np.asarray(sources, dtype=object), return_inverse=True)
    group = torch.from_numpy(group.reshape(-1))
    parts = divide(int(group.max()) + 1, splits, seed)
    found = {name: torch.isin(group, part).nonzero()[:, 0] for name, part in zip(PARTS, parts)}
    for name, places in found.items():
        if not len(places):
            raise ValueError(f"load: {len(sources)} pairs are too few: the {name} part is empty")
    return found


def _framed(rows: Ragged, first: int | None, last: int | None) -> Ragged:
    """Every sequence with a token before or after it."""
    lengths = rows.lengths + (first is not None) + (last is not None)
    mark = last if first is None else first
    values = rows.values.new_full((int(lengths.sum()),), mark or 0)
    shift = torch.arange(len(rows)) + (first is not None)
    place = torch.arange(len(rows.values)) + torch.repeat_interleave(shift, rows.lengths)
    values[place] = rows.values
    return Ragged(values, lengths)


def _data(known: dict[str, str], preparation: Preparation, made: dict[str, Split]) -> Data:
    told: dict[str, Any] = {k: known[k] for k in ("name", "title", "source", "licence")}
    told |= {**made, "spec": preparation.spec, "preparation": preparation}
    return Data(**told)
