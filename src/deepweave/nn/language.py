"""Language models: what comes next, from all that came before."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.ragged import Padded
from deepweave.nn.attention import Cache
from deepweave.nn.dense import sizes_of, vocabulary_of
from deepweave.nn.sequence import Embedding
from deepweave.nn.transformer import NORMS, Block, Blocks


class State:
    """What a model keeps while it writes: a pair of caches for each block, and what it reads."""

    def __init__(self, layers: int, size: int, memory: Any = None, mask: Tensor | None = None):
        self.caches = [(Cache(size), Cache(size)) for _ in range(layers)]
        self.memory, self.mask = memory, mask

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch."""
        for pair in self.caches:
            for cache in pair:
                cache.select(rows)
        self.memory = None if self.memory is None else self.memory.index_select(0, rows)
        self.mask = None if self.mask is None else self.mask.index_select(0, rows)


class LanguageModel(nn.Module):
    """Embedding, a stack of causal blocks, and logits of the next token at every place.

    Shapes: tokens (B, T) int64, or Padded -> logits (B, T, vocabulary)
    """

    def __init__(self, vocabulary: int, outputs: int, stack: Blocks, features: int, tied: bool):
        super().__init__()
        self.embedding, self.stack = Embedding(vocabulary, features), stack
        self.head = None if tied else nn.Linear(features, outputs, bias=False)

    def forward(self, tokens: Any, state: State | None = None, seen: Any = None) -> Tensor:
        tokens = tokens.values if isinstance(tokens, Padded) else tokens
        # places after a text's end see it, not the other way round: no mask is needed
        x = self.embedding(tokens)
        x = self.stack(x, caches=None if state is None else state.caches, seen=seen)
        if self.head is None:
            return nn.functional.linear(x * x.shape[-1] ** -0.5, self.embedding.weight)
        return self.head(x)

    def begin(self, size: int, source: None = None) -> State:
        """A fresh state with room for so many tokens."""
        if source is not None:
            raise ValueError("generate: a language model reads no source, only a prompt")
        return State(len(self.stack.blocks), size)

    def go_on(self, tokens: Tensor, state: State) -> Tensor:
        """The logits after the last of more tokens (B, t): (B, vocabulary)."""
        return self(tokens, state)[:, -1]


@blueprint
def language_model(
    sizes: Any,
    features: int = 128,
    layers: int = 4,
    *,
    heads: int = 4,
    hidden: int | None = None,
    position: str = "rotary",
    activation: str = "gelu",
    norm: str = "layer",
    pre: bool = True,
    tied: bool = False,
    dropout: float = 0.0,
    groups: int | None = None,
    window: int | None = None,
) -> LanguageModel:
    """A transformer that predicts each next token (GPT).

    x = E[tokens]; each block adds causal attention and a feed-forward network to x, each of its
    norm; logits = W norm(x).

    E starts with variance 1. A residual stream that begins small beside what the blocks add to it
    learns slowly: with a standard deviation of 0.02 a small model is half a bit a character behind
    after 100 steps, and so is one that shares E with the logits.

    Args:
        sizes: a data spec of tokens, or ((T,), outputs, vocabulary).
        features: of the residual stream.
        layers: how many blocks.
        heads: of attention.
        hidden: of the feed-forward networks; None: 4 features (8/3 for ``"swiglu"``).
        position: ``"rotary"``, ``"alibi"`` or ``"relative"``.
        activation: such as ``"gelu"``, ``"relu"``, ``"swiglu"``.
        norm: ``"layer"`` or ``"rms"``.
        pre: norms before each part, else after each sum.
        tied: one matrix for embedding and logits.
        dropout: of attention weights and of what is added.
        groups: heads of keys and values; None: as many as heads.
        window: attend to so many last places alone.

    Shapes: tokens (B, T) int64 -> logits (B, T, outputs)

    Raises:
        ValueError: no vocabulary, or numbers that do not fit.

    >>> import torch
    >>> language_model(((16,), 50, 50), 32, 2)(torch.zeros(1, 7, dtype=torch.long)).shape
    torch.Size([1, 7, 50])
    """
    _, outputs = sizes_of(sizes, "language_model")
    vocabulary = needed(sizes, "language_model")
    if tied and outputs != vocabulary:
        raise ValueError(
            f"language_model: tied needs as many outputs as tokens, got {outputs} and {vocabulary}"
        )
    blocks = [
        Block(
            features, heads, hidden_of(features, hidden, activation), activation=activation,
            norm=norm, pre=pre, dropout=dropout, causal=True, position=position, groups=groups,
            window=window,
        )
        for _ in range(layers)
    ]  # fmt: skip
    stack = Blocks(blocks, NORMS[norm](features) if pre else nn.Identity())
    return LanguageModel(vocabulary, outputs, stack, features, tied)


def hidden_of(features: int, hidden: int | None, activation: str) -> int:
    """The width of a feed-forward network where none is said: four times, gated a third less."""
    if hidden is not None:
        return hidden
    return int(8 * features / 3) if activation == "swiglu" else 4 * features


def needed(sizes: Any, name: str) -> int:
    """The vocabulary of sizes.

    Raises:
        ValueError: they are not of tokens.
    """
    found = vocabulary_of(sizes)
    if found < 1:
        raise ValueError(f"{name}: sizes must be of tokens, ((T,), outputs, vocabulary)")
    return found
