"""Attention as a layer: projections into heads, a way to score, a way to tell places apart."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.attention import additive, attend, cosine, lower_right, mix
from deepweave.functional.local import linear_attention, windowed
from deepweave.functional.positions import (
    bucketed,
    distances,
    rotate_places,
    rotation,
    slopes,
    turn_places,
)

_TABLES: dict[tuple[int, torch.device], Tensor] = {}  # rotations, made once


def _turns(start: int, end: int, width: int, device: torch.device) -> Tensor:
    """The rotations of places start to end, from a table that grows by doubling."""
    table = _TABLES.get((width, device))
    if table is None or len(table) < end:
        size = 1 << max(end - 1, 127).bit_length()
        with torch.inference_mode(False):
            table = rotation(torch.arange(size, device=device), width)
        if type(table) is Tensor and not torch.compiler.is_compiling():  # not a fake one
            _TABLES[width, device] = table
    return table[start:end]


SCORES = ("scaled", "dot", "cosine", "multiplicative", "additive", "linear")
POSITIONS = (None, "rotary", "alibi", "relative")


class Cache:
    """Keys and values of what was seen, so that the next token asks for its own alone.

    Room for ``size`` tokens is made once and filled from the front. Keys and values are one tensor,
    which one copy fills.

    Shapes: both (B, 2G, size, D), keys and values its halves, (B, G, size, D)
    """

    def __init__(self, size: int):
        self.size, self.filled = size, 0
        self.held: tuple[Tensor, Tensor, Tensor] | None = None  # both, the keys, the values

    def add(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values so far, with new ones at the end.

        Shapes: both (B, 2G, t, D), keys before values -> (B, G, filled, D), (B, G, filled, D)

        Raises:
            ValueError: there is no room.
        """
        length = both.shape[2]
        end = self.filled + length
        if end > self.size:
            raise ValueError(f"Cache: {end} tokens do not fit into {self.size} places")
        if self.held is None:
            room = both.new_empty(*both.shape[:2], self.size, both.shape[3])
            keys, values = self.hold(room)
        else:
            room, keys, values = self.held
        room.narrow(2, self.filled, length).copy_(both)
        self.filled = end
        return keys.narrow(2, 0, end), values.narrow(2, 0, end)

    def hold(self, both: Tensor) -> tuple[Tensor, Tensor]:
        """Keep these keys and values as they are, those of a memory, and give them apart.

        Shapes: both (B, 2G, S, D) -> (B, G, S, D), (B, G, S, D)
        """
        half = both.shape[1] // 2  # not by `chunk`, whose parts autograd lets nobody write to
        self.held = both, both[:, :half], both[:, half:]
        return self.held[1:]

    def select(self, rows: Tensor) -> None:
        """Go on with these rows of the batch: a beam keeps some and copies others."""
        if self.held is not None:
            self.hold(self.held[0].index_select(0, rows))


@blueprint
class Attention(nn.Module):
    """Multi-head attention of a sequence to itself, or to a memory.

    Head h: out_h = attend(x Wq_h, m Wk_h, m Wv_h), output [out_1 ... out_H] Wo, m the memory or x.

    Args:
        features: of the input and the output.
        heads: how many; each has features / heads.
        groups: heads of keys and values, each shared by heads / groups queries; None: ``heads``.
        memory: features of the memory, for attention to another sequence; None: to itself.
        score: ``"scaled"`` q.k / sqrt(D); ``"dot"`` q.k; ``"cosine"`` cos(q, k) times a learnt
            factor; ``"multiplicative"`` q W k (Luong); ``"additive"`` v.tanh(q + k) (Bahdanau);
            ``"linear"`` phi(q).phi(k) without a softmax.
        position: ``"rotary"``, ``"alibi"``, ``"relative"`` (a learnt bias by distance) or None.
        window: attend to so many nearest places alone.
        causal: attend to places up to one's own.
        dropout: the share of weights dropped in training.
        bias: whether the projections have biases.

    Shapes: x (B, T, features), memory (B, S, memory) -> (B, T, features)

    Raises:
        ValueError: numbers that do not fit, or options that exclude each other.

    >>> Attention(16, 4, causal=True)(torch.zeros(2, 5, 16)).shape
    torch.Size([2, 5, 16])
    """

    def __init__(
        self,
        features: int,
        heads: int = 8,
        *,
        groups: int | None = None,
        memory: int | None = None,
        score: str = "scaled",
        position: str | None = None,
        window: int | None = None,
        causal: bool = False,
        dropout: float = 0.0,
        bias: bool = False,
    ):
        super().__init__()
        groups = heads if groups is None else groups
        _fits(features, heads, groups, memory, score, position, window)
        if not 0 <= dropout < 1:
            raise ValueError(f"Attention: dropout must lie in [0, 1), got {dropout}")
        self.features, self.width = features, features // heads
        self.heads, self.groups = heads, groups
        self.score, self.position, self.window = score, position, window
        self.causal, self.dropout, self.crossed = causal, dropout, memory is not None
        inner, shared = features, groups * self.width
        if memory is None:
            self.project = nn.Linear(features, inner + 2 * shared, bias=bias)
        else:
            self.query = nn.Linear(features, inner, bias=bias)
            self.memory = nn.Linear(memory, 2 * shared, bias=bias)
        self.out = nn.Linear(inner, features, bias=bias)
        if score == "cosine":
            self.factor = nn.Parameter(torch.empty(heads, 1, 1))
        elif score == "multiplicative":
            self.metric = nn.Parameter(torch.empty(heads, self.width, self.width))
        elif score == "additive":
            self.direction = nn.Parameter(torch.empty(self.width))
        if position == "relative":
            self.near = nn.Embedding(32, heads)
        elif position == "alibi":
            self.register_buffer("slopes", slopes(heads), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw what is not in a layer of its own."""
        with torch.no_grad():
            if self.score == "cosine":
                self.factor.fill_(math.log(10.0))
            elif self.score == "multiplicative":
                self.metric.copy_(torch.eye(self.width).expand_as(self.metric))
                self.metric.add_(torch.randn_like(self.metric), alpha=0.1 / math.sqrt(self.width))
            elif self.score == "additive":
                self.direction.normal_(std=1 / math.sqrt(self.width))
            if self.position == "relative":
                self.near.weight.normal_(std=0.02)

    def forward(
        self,
        x: Tensor,
        memory: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        cache: Cache | None = None,
        weights: bool = False,
    ) -> Any:
        """Attend; with ``weights`` also the weights (B, H, T, S).

        Args:
            x: what asks, (B, T, features).
            memory: what is asked, (B, S, memory); it must be given where the layer has one.
            mask: True where a query may attend to a key, (B, T, S) or (B, 1, S).
            cache: of the sequence so far, of which x is what follows. For a memory it keeps the
                memory's keys and values.
            weights: give the weights too.
        """
        self._check(x, memory)
        query, key, value = self._heads(x, memory, cache)
        out, shares = self._attend(query, key, value, mask, weights)
        out = self.out(out.transpose(1, 2).flatten(2))
        return (out, shares) if weights else out

    def _heads(
        self, x: Tensor, memory: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, T, D), keys and values (B, G, S, D)."""
        if self.crossed:
            query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            if cache is not None and cache.held is not None:
                return query, *cache.held[1:]
            both = self.memory(memory).unflatten(-1, (2 * self.groups, -1)).transpose(1, 2)
            key, value = both.chunk(2, 1) if cache is None else cache.hold(both)
            return query, key, value
        heads, groups, length = self.heads, self.groups, x.shape[1]
        every = self.project(x).view(x.shape[0], length, heads + 2 * groups, self.width)
        every = every.transpose(1, 2)
        turns = None
        if self.position == "rotary":
            start = 0 if cache is None else cache.filled
            turns = _turns(start, start + length, self.width, x.device)
        if cache is not None:  # a token that is written costs its calls: the fewest, in place
            if turns is not None:
                turn_places(every.narrow(1, 0, heads + groups), turns)
            query, both = every.split_with_sizes([heads, 2 * groups], 1)
            return query, *cache.add(both)
        if turns is None:
            query, key, value = every.split_with_sizes([heads, groups, groups], 1)
            return query, key, value
        both, value = every.split_with_sizes([heads + groups, groups], 1)
        query, key = rotate_places(both, turns).split_with_sizes([heads, groups], 1)
        return query, key, value

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        length, size = query.shape[2], key.shape[2]
        dropout = self.dropout if self.training else 0.0
        if self.score == "linear":
            if weights:
                raise ValueError("Attention: linear scores have no weights to show")
            key, value = (self._spread(one) for one in (key, value))
            keep = None if mask is None else mask[:, 0]
            before = size - length
            if not self.causal or length == 1:
                return linear_attention(query, key, value, keep), None
            query = torch.nn.functional.pad(query, (0, 0, before, 0))  # its sums run from the start
            out = linear_attention(query, key, value, keep, causal=True)
            return out[:, :, before:], None
        tilted = (
            self.position == "alibi" and self.causal and self.score != "additive"
            and length > 1 and not weights
        )  # fmt: skip
        bias = None if tilted else self._bias(length, size, query.device)
        if self.score == "additive":
            scores = additive(query, self._spread(key), self.direction)
            allowed = None if mask is None else mask.unsqueeze(1)
            if self.causal:
                triangle = lower_right(length, size, query.device)
                allowed = triangle if allowed is None else allowed & triangle
            scores = scores if bias is None else scores + bias
            return mix(scores, self._spread(value), allowed, dropout)
        scale = 1 / math.sqrt(self.width) if self.score == "scaled" else 1.0
        if self.score == "cosine":
            query, key = cosine(query, key)
            query = query * self.factor.clamp_max(math.log(100.0)).exp()
        elif self.score == "multiplicative":
            query = query @ self.metric
        if tilted:
            query, key, value = self._tilt(query, key, value, scale)
        if self.window is not None:
            if length == size and bias is None and not (weights or dropout):
                keep = None if mask is None else mask[:, 0]
                out = windowed(
                    query, key, value, self.window, keep, causal=self.causal, scale=scale
                )
                return (out[..., : self.width] if tilted else out), None
            away = distances(length, size, query.device)
            near = (away > -self.window) & (away < self.window)
            mask = near[None] if mask is None else mask & near
        found = attend(
            query, key, value, mask, causal=self.causal, bias=bias, scale=scale, dropout=dropout,
            weights=weights,
        )  # fmt: skip
        if weights:
            return found
        return (found[..., : self.width] if tilted else found), None

    def _bias(self, length: int, size: int, device: torch.device) -> Tensor | None:
        """What is added to the scores, (H, T, S)."""
        if self.position == "relative":
            away = bucketed(distances(length, size, device), causal=self.causal)
            return self.near(away).movedim(-1, 0)
        if self.position == "alibi":
            away = distances(length, size, device).abs()
            return -self._slopes()[:, None, None] * away
        return None

    def _slopes(self) -> Tensor:
        found: Any = self.slopes
        return found

    def _tilt(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """ALiBi without a bias (T, S): of -m (t - s) the softmax over s sees m s alone.

        One more feature holds it, m / scale of a query and s of a key, so that the kernels add it.
        """
        size = key.shape[2]
        slope = (self._slopes() / scale).to(query.dtype)[:, None, None]
        place = torch.arange(1 - size, 1, device=key.device, dtype=key.dtype)[:, None]
        query = torch.cat([query, slope.expand(*query.shape[:3], 1)], -1)
        key = torch.cat([key, place.expand(*key.shape[:3], 1)], -1)
        return query, key, torch.nn.functional.pad(value, (0, 1))

    def _spread(self, one: Tensor) -> Tensor:
        """Keys or values of groups, repeated for each of their heads."""
        times = self.heads // self.groups
        return one if times == 1 else one.repeat_interleave(times, 1)

    def _check(self, x: Tensor, memory: Tensor | None) -> None:
        if self.crossed == (memory is None):
            told = "needs a memory" if self.crossed else "attends to its input: give no memory"
            raise ValueError(f"Attention: this layer {told}")
        if x.dim() != 3 or x.shape[-1] != self.features or x.shape[1] == 0:
            raise ValueError(
                f"Attention: x must be (B, T, {self.features}) with T at least 1, "
                f"got {tuple(x.shape)}"
            )


def _fits(
    features: int,
    heads: int,
    groups: int,
    memory: int | None,
    score: str,
    position: str | None,
    window: int | None,
) -> None:
    if heads < 1 or features % heads:
        raise ValueError(f"Attention: {features} features do not divide among {heads} heads")
    if groups < 1 or heads % groups:
        raise ValueError(f"Attention: {heads} heads do not divide among {groups} groups")
    for name, value, known in (("score", score, SCORES), ("position", position, POSITIONS)):
        if value not in known:
            told = ", ".join(map(str, known))
            raise ValueError(f"Attention: {name} must be one of {told}, got {value!r}")
    if memory is not None and (position is not None or window is not None):
        raise ValueError("Attention: places of a memory have no distance: leave position out")
    if window is not None and (
        window < 1 or score in ("additive", "linear") or position == "relative"
    ):
        raise ValueError(
            f"Attention: a window must be at least 1, with scores of products, got {window}"
        )
    if score == "linear" and position in ("alibi", "relative"):
        raise ValueError("Attention: linear scores take no bias: position may be rotary or None")
    if position == "rotary" and (features // heads) % 2:
        raise ValueError(f"Attention: rotary needs even heads, got {features // heads} features")
