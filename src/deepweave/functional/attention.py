"""Attention: every query takes a weighted mean of the values, weighted by what its scores say.

    weights = softmax(scores(q, k) + bias) over the keys that may be attended, out = weights v

One convention for masks: True = may attend. A query that may attend to nothing gets zeros. What
PyTorch's fused kernels can do they do: a causal mask is never made, weights are made only when
asked for. Under `vmap` the members of a Population are folded into the batch; under transforms
that take slopes (second derivatives) the formula is written out, since the kernels have none.

Source: Vaswani et al., Attention is all you need, 2017; Luong et al., Effective approaches to
attention-based neural machine translation, 2015; Bahdanau et al., 2015.
"""

from __future__ import annotations

import importlib
import math
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

levels: Any = None
with suppress(ImportError):  # internals of torch.func, read in torch 2.13
    levels = importlib.import_module("torch._functorch.pyfunctorch")


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    weights: bool = False,
) -> Any:
    """Scaled dot-product attention of several heads.

    out_t = sum_s a_ts v_s, a_t = softmax_s(scale q_t . k_s + bias_ts), scale = 1/sqrt(D) unless
    given. With fewer key heads G than query heads H, each serves H/G of them (grouped queries).

    Args:
        query: what asks.
        key: what is asked about.
        value: what is taken.
        mask: True where a query may attend to a key: (B, T, S), (B, 1, S) or (B, H, T, S).
        causal: a query attends to keys up to its own place; with S > T keys the queries are the
            last T places.
        bias: added to the scores, (H, T, S) or (B, H, T, S).
        scale: of the scores.
        dropout: the share of weights that is dropped.
        weights: give the weights too, (B, H, T, S).

    Shapes: query (B, H, T, D), key (B, G, S, D), value (B, G, S, E) -> (B, H, T, E)

    Raises:
        ValueError: shapes that do not fit, a mask that is not True and False.

    >>> q = k = v = torch.randn(1, 2, 3, 4)
    >>> out, weights = attend(q, k, v, causal=True, weights=True)
    >>> out.shape, weights[0, 0, 0].tolist()
    (torch.Size([1, 2, 3, 4]), [1.0, 0.0, 0.0])
    """
    _check(query, key, value)
    (batch, heads, length), size = query.shape[:3], key.shape[2]
    if mask is not None:
        mask = _whole("attend", mask, (batch, heads, length, size))
    if bias is not None:
        bias = bias if bias.dim() == 4 else bias[None]
    if causal and (length > 1 or size > 1):
        if length == 1:
            causal = False
        elif mask is not None or bias is not None or length != size or weights:
            triangle = lower_right(length, size, query.device)[None, None]
            mask = triangle if mask is None else mask & triangle
            causal = False
    else:
        causal = False
    if weights or kind() == "slopes":
        if causal:
            mask = lower_right(length, size, query.device)[None, None]
        out, shares = _written_out(query, key, value, mask, bias, scale, dropout)
        return (out, shares) if weights else out
    added, some = _joined(mask, bias, query.dtype)
    run: Any = _Folded.apply if kind() == "members" else _fused
    return run(query, key, value, added, some, causal, scale, dropout, key.shape[1] != heads)


def kind() -> str:
    """What is being transformed around a call: nothing, members (vmap alone), or slopes too.

    >>> kind(), torch.vmap(lambda t: t * len(kind()))(torch.ones(1)).tolist()
    ('nothing', [7.0])
    """
    if not torch._C._are_functorch_transforms_active():
        return "nothing"
    if levels is None:
        return "slopes"
    stack = levels.retrieve_all_functorch_interpreters()
    return "members" if all(one.key().name == "Vmap" for one in stack) else "slopes"


def lower_right(length: int, size: int, device: torch.device | None = None) -> Tensor:
    """The causal mask of the last ``length`` of ``size`` places: key s <= place of the query.

    >>> lower_right(2, 3).int().tolist()
    [[1, 1, 0], [1, 1, 1]]
    """
    places = torch.arange(size - length, size, device=device)
    return torch.arange(size, device=device) <= places[:, None]


def _check(query: Tensor, key: Tensor, value: Tensor) -> None:
    asked, held, taken = query.shape, key.shape, value.shape
    if not len(asked) == len(held) == len(taken) == 4:
        raise ValueError(
            "attend: query, key and value must be (B, heads, T, D), "
            f"got {tuple(asked)}, {tuple(held)}, {tuple(taken)}"
        )
    if asked[0] != held[0] or held[:3] != taken[:3] or asked[3] != held[3]:
        raise ValueError(
            "attend: query (B, H, T, D), key (B, G, S, D) and value (B, G, S, E) must agree in "
            f"B, G, S and D, got {tuple(asked)}, {tuple(held)}, {tuple(taken)}"
        )
    if asked[1] % held[1]:
        raise ValueError(f"attend: {asked[1]} query heads cannot share {held[1]} key heads evenly")


def _whole(name: str, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A mask (B, T, S) or (B, H, T, S) with four dimensions."""
    if mask.dtype != torch.bool:
        raise ValueError(
            f"{name}: mask must be True (may attend) and False, got {mask.dtype}; "
            "numbers that are added to the scores are a bias"
        )
    batch, _, length, size = shape
    fits = mask.dim() == 3 and _spreads(mask.shape, (batch, length, size))
    if not fits and not (mask.dim() == 4 and _spreads(mask.shape, shape)):
        raise ValueError(
            f"{name}: mask must be (B, T, S) = {(batch, length, size)} or (B, H, T, S) = {shape}, "
            f"got {tuple(mask.shape)}"
        )
    return mask.unsqueeze(1) if mask.dim() == 3 else mask


def _spreads(found: torch.Size, shape: tuple[int, ...]) -> bool:
    return all(have in (1, want) for have, want in zip(found, shape))


def _joined(mask: Tensor | None, bias: Tensor | None, dtype: torch.dtype) -> tuple[Any, Any]:
    """What the kernel adds, and which queries may attend to something where that is in doubt."""
    if mask is None:
        return (None if bias is None else bias.to(dtype)), None
    if bias is None:
        return mask, None
    added = bias.to(dtype).masked_fill(~mask, -math.inf)
    # a row of -inf alone is NaN in some kernels and zero in others
    some = mask.any(-1, keepdim=True)
    return added.masked_fill(~some, 0.0), some


def _fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    added: Tensor | None,
    some: Tensor | None,
    causal: bool,
    scale: float | None,
    dropout: float,
    grouped: bool,
) -> Tensor:
    options: dict[str, Any] = {"enable_gqa": True} if grouped else {}
    out = F.scaled_dot_product_attention(
        query, key, value, added, dropout, causal, scale=scale, **options
    )
    return out if some is None else torch.where(some, out, 0.0)


class _Folded(torch.autograd.Function):
    """The kernel under vmap: it has no rule for members, so they become part of the batch.

    Applied under vmap alone, where its rule runs on plain tensors and autograd follows those.
    """

    @staticmethod
    def forward(*parts: Any) -> Tensor:
        return _fused(*parts)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *parts: Any) -> tuple[Tensor, int]:
        n, size = info.batch_size, 1
        for part, dim in zip(parts[:3], in_dims):
            size = max(size, part.shape[0 if dim is None or dim > 0 else 1])
        folded: Any = [_fold(part, dim, n, size) for part, dim in zip(parts[:5], in_dims)]
        run: Any = _Folded.apply if kind() == "members" else _fused
        out = run(*folded, *parts[5:])
        return out.unflatten(0, (n, size)), 0


def _fold(part: Tensor | None, dim: int | None, n: int, size: int) -> Tensor | None:
    """(n, B, ...) or (B, ...) as (n B, ...)."""
    if part is None:
        return None
    part = part.expand(n, *part.shape) if dim is None else part.movedim(dim, 0)
    part = part.expand(n, size, *part.shape[2:]) if part.shape[1] == 1 else part
    return part.flatten(0, 1)


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float | None,
    dropout: float,
) -> tuple[Tensor, Tensor]:
    """The formula: output and weights."""
    if key.shape[1] != query.shape[1]:
        times = query.shape[1] // key.shape[1]
        key, value = (one.repeat_interleave(times, 1) for one in (key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * scale) @ key.mT
    return mix(scores if bias is None else scores + bias, value, mask, dropout)


def mix(
    scores: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The mean of values under the softmax of scores, and the weights; zeros where none may be.

    Shapes: scores (..., T, S), value (..., S, E), mask (..., T, S) -> (..., T, E), (..., T, S)

    >>> mask = torch.tensor([[True, False], [False, False]])
    >>> mix(torch.zeros(2, 2), torch.ones(2, 1), mask)[0].tolist()
    [[1.0], [0.0]]
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    shares = scores.softmax(-1)
    if mask is not None:
        shares = shares.masked_fill(~mask, 0.0)
    used = F.dropout(shares, dropout) if dropout else shares
    return used @ value, shares


def cosine(query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
    """Queries and keys of length 1, whose product is the cosine of the angle between them."""
    return F.normalize(query, dim=-1), F.normalize(key, dim=-1)


def additive(query: Tensor, key: Tensor, direction: Tensor) -> Tensor:
    """Bahdanau's scores: v . tanh(q + k), of queries and keys that are projected already.

    Shapes: query (..., T, A), key (..., S, A), direction (A,) -> (..., T, S)

    >>> additive(torch.zeros(2, 3), torch.ones(4, 3), torch.ones(3)).shape
    torch.Size([2, 4])
    """
    return (query.unsqueeze(-2) + key.unsqueeze(-3)).tanh() @ direction
