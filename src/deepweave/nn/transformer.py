"""Transformers: blocks of attention and position-wise feed-forward networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from deepweave.nn.activations import activation_layer
from deepweave.nn.attention import Attention, Cache
from deepweave.nn.dropout import Dropout

NORMS = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}


class FeedForward(nn.Module):
    """The position-wise feed-forward network: the same two dense layers at every place.

    y = W2 g(W1 x); gated (``"swiglu"``): y = W2 (silu(V x) * W1 x).

    Shapes: x (B, T, features) -> (B, T, features)

    Source: Vaswani et al., 2017; Shazeer, GLU variants improve transformer, 2020.
    """

    def __init__(self, features: int, hidden: int, activation: str = "gelu", bias: bool = True):
        super().__init__()
        self.gated = activation == "swiglu"
        self.inner = nn.Linear(features, hidden * (2 if self.gated else 1), bias=bias)
        self.activation = activation_layer("silu" if self.gated else activation)
        self.out = nn.Linear(hidden, features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        if self.gated:
            x, gate = x.chunk(2, -1)
            return self.out(x * self.activation(gate))
        return self.out(self.activation(x))


class Block(nn.Module):
    """Attention, attention to a memory if there is one, and a feed-forward network, each added.

    pre-norm: x <- x + f(norm(x)) for each part f in turn; post-norm: x <- norm(x + f(x)).

    Shapes: x (B, T, features), memory (B, S, memory) -> (B, T, features)
    """

    def __init__(
        self,
        features: int,
        heads: int,
        hidden: int,
        *,
        memory: int | None = None,
        activation: str = "gelu",
        norm: str = "layer",
        pre: bool = True,
        eps: float | None = None,
        dropout: float = 0.0,
        **attention: Any,
    ):
        super().__init__()
        self.pre = pre
        kind = partial(NORMS[norm], **({} if eps is None else {"eps": eps}))
        self.attention = Attention(features, heads, dropout=dropout, **attention)
        self.norm = kind(features)
        if memory is not None:
            self.across = Attention(features, heads, memory=memory, dropout=dropout)
            self.norm_across = kind(features)
        else:
            self.across = None
        self.forward_net = FeedForward(features, hidden, activation)
        self.norm_forward = kind(features)
        self.drop = Dropout(dropout) if dropout else nn.Identity()

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: tuple[Cache, Cache] | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        own, other = (None, None) if cache is None else cache
        x = self._add(x, self.norm, lambda z: self._look(self.attention, seen, z, None, mask, own))
        if self.across is not None:
            across = self.across
            x = self._add(
                x,
                self.norm_across,
                lambda z: self._look(across, seen, z, memory, memory_mask, other),
            )
        return self._add(x, self.norm_forward, self.forward_net)

    def _add(self, x: Tensor, norm: nn.Module, part: Any) -> Tensor:
        return x + self.drop(part(norm(x))) if self.pre else norm(x + self.drop(part(x)))

    @staticmethod
    def _look(
        attention: Attention,
        seen: list[Tensor] | None,
        x: Tensor,
        memory: Tensor | None,
        mask: Tensor | None,
        cache: Cache | None,
    ) -> Tensor:
        if seen is None:
            return attention(x, memory, mask, cache=cache)
        out, weights = attention(x, memory, mask, cache=cache, weights=True)
        seen.append(weights)
        return out


class Blocks(nn.Module):
    """Blocks one after the other; with pre-norm a last norm.

    Shapes: x (B, T, features) -> (B, T, features)
    """

    def __init__(self, blocks: Sequence[Block], norm: nn.Module):
        super().__init__()
        self.blocks, self.norm = nn.ModuleList(blocks), norm

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
        caches: Sequence[tuple[Cache, Cache]] | None = None,
        seen: list[Tensor] | None = None,
    ) -> Tensor:
        for place, block in enumerate(self.blocks):
            cache = None if caches is None else caches[place]
            x = block(x, mask, memory, memory_mask, cache, seen)
        return self.norm(x)
