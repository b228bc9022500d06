"""Recurrent networks that translate with attention: for each token they write they look back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.ragged import Padded, unpad, within
from deepweave.nn.attention import Attention, Cache
from deepweave.nn.dense import sizes_of
from deepweave.nn.dropout import Dropout
from deepweave.nn.language import needed
from deepweave.nn.recurrent import GRU
from deepweave.nn.sequence import Embedding


class Reading:
    """What an :class:`Aligner` keeps while it writes: what it read, and its own state."""

    def __init__(self, memory: Tensor, mask: Tensor | None, hidden: Tensor):
        self.memory, self.mask, self.hidden, self.cache = memory, mask, hidden, Cache(0)
        self.first = hidden[-1]  # what is handed on where there is no attention

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch."""
        self.memory = self.memory.index_select(0, rows)
        self.mask = None if self.mask is None else self.mask.index_select(0, rows)
        self.hidden = self.hidden.index_select(1, rows)
        self.first = self.first.index_select(0, rows)
        self.cache.select(rows)


class Aligner(nn.Module):
    """An encoder that reads both ways, a decoder, and attention of the one to the other.

    m = GRU(source) in both directions; s_t = GRU(target so far); c_t = attend(s_t, m, m);
    logits_t = W tanh(V [s_t, c_t]). Without attention c_t is the encoder's last state for all t.

    Shapes: (source (B, S), target so far (B, T)), tensors or Padded -> logits (B, T, outputs)
    """

    def __init__(
        self, vocabulary: int, outputs: int, features: int, score: str | None, dropout: float
    ):
        super().__init__()
        if features % 2:
            raise ValueError(f"seq2seq: features must be even, for two directions, got {features}")
        self.source, self.target = Embedding(vocabulary, features), Embedding(outputs, features)
        self.encoder = GRU(features, features // 2, bidirectional=True)
        self.decoder = GRU(features, features)
        self.bridge = nn.Linear(features, features)
        self.attention = (
            None if score is None else Attention(features, 1, memory=features, score=score)
        )
        self.join = nn.Linear(2 * features, features)
        self.drop = Dropout(dropout) if dropout else nn.Identity()
        self.head = nn.Linear(features, outputs)

    def forward(self, x: Any, seen: list[Tensor] | None = None) -> Tensor:
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise ValueError("seq2seq: x must be (source, target so far)")
        target, _ = unpad(x[1], "seq2seq")
        return self.head(self._write(target, self.read(x[0]), seen))

    def read(self, source: Any) -> Reading:
        """What the encoder makes of the source, and the decoder's first state."""
        values, lengths = unpad(source, "seq2seq")
        z = self.drop(self.source(values))
        memory, last = self.encoder(z if lengths is None else Padded(z, lengths))
        mask = None if lengths is None else within(lengths, values.shape[1])[:, None]
        hidden = self.bridge(torch.cat([last[0], last[1]], -1)).tanh()
        return Reading(memory, mask, hidden[None])

    def _write(self, target: Tensor, state: Reading, seen: list[Tensor] | None = None) -> Tensor:
        out, state.hidden = self.decoder(self.drop(self.target(target)), state.hidden)
        if self.attention is None:
            found = state.first[:, None].expand_as(out)
        elif seen is None:
            found = self.attention(out, state.memory, state.mask, cache=state.cache)
        else:
            found, weights = self.attention(out, state.memory, state.mask, weights=True)
            seen.append(weights)
        return self.drop(self.join(torch.cat([out, found], -1)).tanh())

    def begin(self, size: int, source: Any = None) -> Reading:
        """A state that has read the source."""
        if source is None:
            raise ValueError("generate: seq2seq needs a source")
        return self.read(source)

    def go_on(self, tokens: Tensor, state: Reading) -> Tensor:
        """The logits after the last of more tokens (B, t): (B, outputs)."""
        return self.head(self._write(tokens, state)[:, -1])


@blueprint
def seq2seq(
    sizes: Any, features: int = 128, score: str | None = "additive", *, dropout: float = 0.2
) -> Aligner:
    """A recurrent translator with attention, and none for ``score=None``.

    Args:
        sizes: a data spec of pairs of texts, or ((S,), target tokens, source tokens).
        features: of embeddings and states; an even number.
        score: how a state of the decoder and one of the encoder are compared, see
            :class:`deepweave.nn.Attention`: ``"additive"`` (Bahdanau), ``"multiplicative"``,
            ``"dot"`` (Luong), ``"scaled"``, ``"cosine"``; None: all is handed on in one state.
        dropout: of embeddings and of what the logits are made of.

    Shapes: (source (B, S), target so far (B, T)) -> logits (B, T, outputs)

    Source: Bahdanau, Cho & Bengio, Neural machine translation by jointly learning to align and
    translate, 2015; Luong, Pham & Manning, 2015.

    >>> import torch
    >>> model = seq2seq(((5,), 20, 30), 16)
    >>> model((torch.ones(2, 5, dtype=torch.long), torch.ones(2, 7, dtype=torch.long))).shape
    torch.Size([2, 7, 20])
    """
    _, outputs = sizes_of(sizes, "seq2seq")
    return Aligner(needed(sizes, "seq2seq"), outputs, features, score, dropout)
