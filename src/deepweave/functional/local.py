"""Attention that is cheaper than all pairs: within a window, and linear in the length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.functional.attention import attend


def windowed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    window: int,
    mask: Tensor | None = None,
    *,
    causal: bool = True,
    scale: float | None = None,
) -> Tensor:
    """Attention to the nearest keys: the last ``window`` places, or as many on both sides.

    A query at t attends to keys s with 0 <= t - s < window (causal), else |t - s| < window. Blocks
    of ``window`` queries meet the two or three blocks of keys that they can reach, so that time
    and memory grow with T window instead of T^2.

    Args:
        mask: which keys are real, (B, T).

    Shapes: query (B, H, T, D), key (B, G, T, D), value (B, G, T, E) -> (B, H, T, E)

    Raises:
        ValueError: a window below 1, or other numbers of queries and keys.

    >>> x = torch.randn(1, 1, 10, 4)
    >>> bool(torch.allclose(windowed(x, x, x, 10), attend(x, x, x, causal=True), atol=1e-6))
    True
    """
    if window < 1:
        raise ValueError(f"windowed: window must be at least 1, got {window}")
    length = query.shape[2]
    if key.shape[2] != length:
        raise ValueError(f"windowed: {length} queries need as many keys, got {key.shape[2]}")
    if window >= length:
        keep = None if mask is None else mask[:, None]
        return attend(query, key, value, keep, causal=causal, scale=scale)
    blocks = -(-length // window)
    rest = blocks * window - length
    query, reach = F.pad(query, (0, 0, 0, rest)), 0 if causal else window
    key, value = (F.pad(one, (0, 0, window, rest + reach)) for one in (key, value))
    span = 2 * window + reach
    parts = [one.unfold(2, span, window).movedim(-1, -2) for one in (key, value)]
    parts = [query.unflatten(2, (blocks, window)), *parts]
    own, near_key, near_value = (one.transpose(1, 2).flatten(0, 1) for one in parts)  # as a batch
    near = torch.arange(window, device=query.device)[:, None] + window
    near = near - torch.arange(span, device=query.device)  # t - s
    band = ((near >= 0) if causal else (near > -window)) & (near < window)
    real = F.pad(torch.ones(1, length, dtype=torch.bool, device=query.device) if mask is None
                 else mask, (window, rest + reach))  # fmt: skip
    real = real.unfold(1, span, window)  # (B or 1, blocks, span)
    real = real.expand(query.shape[0], -1, -1).flatten(0, 1)
    out = attend(own, near_key, near_value, real[:, None] & band, scale=scale)
    out = out.unflatten(0, (query.shape[0], blocks)).transpose(1, 2).flatten(2, 3)
    return out[:, :, :length]


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    chunk: int = 128,
) -> Tensor:
    """Attention with the kernel phi(q) . phi(k), phi = elu + 1, in time linear in the length.

    out_t = phi(q_t)^T sum_s phi(k_s) v_s^T / phi(q_t)^T sum_s phi(k_s). The sums are over all s, or
    (causal) over s <= t: within chunks by a triangle of products, between them by running sums.

    Args:
        mask: which keys are real, (B, S).

    Shapes: query (B, H, T, D), key (B, H, S, D), value (B, H, S, E) -> (B, H, T, E)

    Raises:
        ValueError: causal with other numbers of queries and keys.

    Source: Katharopoulos et al., Transformers are RNNs, 2020.

    >>> x = torch.randn(1, 2, 5, 4)
    >>> linear_attention(x, x, x, causal=True).shape
    torch.Size([1, 2, 5, 4])
    """
    query, key = F.elu(query) + 1, F.elu(key) + 1
    if mask is not None:
        key = key.masked_fill(~mask[:, None, :, None], 0.0)
    value = F.pad(value, (0, 1), value=1.0)  # the last column sums the weights
    if not causal:
        return _shared(query @ (key.mT @ value))
    length = query.shape[2]
    if key.shape[2] != length:
        raise ValueError(f"linear_attention: {length} queries, {key.shape[2]} keys: not causal")
    chunk = min(chunk, length)
    rest = -length % chunk
    query, key, value = (
        F.pad(one, (0, 0, 0, rest)).unflatten(2, (-1, chunk)) for one in (query, key, value)
    )
    each = key.mT @ value  # (B, H, chunks, D, E + 1)
    before = each.cumsum(2) - each
    out = query @ before + (query @ key.mT).tril() @ value
    return _shared(out.flatten(2, 3)[:, :, :length])


def _shared(out: Tensor) -> Tensor:
    total = out[..., -1:]
    return out[..., :-1] / torch.where(total > 0, total, 1.0)
