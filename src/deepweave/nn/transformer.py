"""Transformers: blocks of attention and position-wise feed-forward networks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.nn.activations import activation_layer
from deepweave.nn.attention import Attention, Cache
from deepweave.nn.dropout import Dropout

FEW = 1 << 14  # numbers of the inner layer for which a call counts more than they do
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
        return self.out(_active(self.activation, x))


def _active(activation: nn.Module, x: Tensor) -> Tensor:
    """An activation of x, by the kernel that is faster for the few numbers of a token.

    On a CPU GELU of contiguous numbers is oneDNN's, whose call takes longer than a token's numbers;
    of a view across them it is PyTorch's own, to rounding the same.
    """
    if type(activation) is not nn.GELU or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return activation(x)
    if x.numel() > FEW or x.numel() % 2:  # not asked of a graph: its batch may have any size
        return activation(x)
    return activation(x.reshape(2, -1).mT).mT.reshape(x.shape)


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
        self.drop = Dropout(dropout) if dropout else None

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
        x = self._add(x, self.norm, _shown(self.attention, seen), None, mask, cache=own)
        if self.across is not None:
            across = _shown(self.across, seen)
            x = self._add(x, self.norm_across, across, memory, memory_mask, cache=other)
        return self._add(x, self.norm_forward, self.forward_net)

    def _add(self, x: Tensor, norm: nn.Module, part: Any, *given: Any, **more: Any) -> Tensor:
        out = part(norm(x) if self.pre else x, *given, **more)
        x = x + (out if self.drop is None else self.drop(out))
        return x if self.pre else norm(x)


def _shown(attention: Attention, seen: list[Tensor] | None) -> Any:
    """Attention that leaves its weights in ``seen``, where there is such a list."""
    if seen is None:
        return attention

    def look(*given: Any, **more: Any) -> Tensor:
        out, weights = attention(*given, weights=True, **more)
        seen.append(weights)
        return out

    return look


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
