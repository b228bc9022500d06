"""All steps of a recurrent layer: the fast form, and the plain loop it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from deepweave.functional.bptt import KERNELS, unrolled
from deepweave.functional.gates import gru_gates, lstm_update, standardized
from deepweave.functional.ragged import within

COUNTS = {"rnn_tanh": 1, "rnn_relu": 1, "lstm": 4, "gru": 3, "gru_before": 3}  # gates
CLOSED = 1e4  # sigmoid(-1e4) is 0 in every precision
State = tuple[Tensor, ...]


class Norm(NamedTuple):
    """The gains and the shift of a layer's normalised products and, of an LSTM, its cell."""

    gain_ih: Tensor
    gain_hh: Tensor
    gain_c: Tensor | None = None
    bias_c: Tensor | None = None


def unroll(
    kind: str,
    x: Tensor,
    state: Sequence[Tensor] | None,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    norm: Norm | None = None,
    zoneout: tuple[Tensor, bool] | None = None,
) -> tuple[Tensor, State]:
    """Every output of a recurrent layer in one direction, and its last state.

    The same cell (`gates.rnn_cell`, `lstm_cell`, `gru_cell`) step after step. Differentiable twice,
    under ``vmap`` as one batched loop over all members, and in forward mode.

    Args:
        kind: ``"rnn_tanh"``, ``"rnn_relu"``, ``"lstm"``, ``"gru"`` or ``"gru_before"`` (the reset
            before the product).
        state: (h,), for an LSTM (h, c); None: zeros.
        lengths: of each sequence: the last state is that of the last real step. What stands beyond
            it in the outputs means nothing.
        norm: normalise both products, and the cell of an LSTM.
        zoneout: the share of units that keep their state at a step, and whether they are drawn (in
            training) or taken in the mean.

    Shapes: x (B, T, F), h and c (B, H), weight_ih (G H, F), weight_hh (G H, H), biases (G H,),
    lengths (B,) -> (B, T, H), state

    Raises:
        ValueError: another kind, or shapes that do not fit.

    >>> w, u = torch.ones(1, 1), torch.ones(1, 1)
    >>> out, (h,) = unroll("rnn_relu", torch.ones(1, 3, 1), None, w, u)
    >>> out.flatten().tolist(), h.tolist()
    ([1.0, 2.0, 3.0], [[3.0]])
    """
    if kind not in KERNELS:
        raise ValueError(f"unroll: kind must be one of {', '.join(KERNELS)}, got {kind!r}")
    size, count = weight_hh.shape[-1], COUNTS[kind]
    if x.dim() != 3 or weight_ih.shape != (count * size, x.shape[-1]):
        raise ValueError(
            f"unroll: x must be (B, T, {weight_ih.shape[-1]}) and weight_ih ({count * size}, F), "
            f"got {tuple(x.shape)} and {tuple(weight_ih.shape)}"
        )
    if weight_hh.shape != (count * size, size):
        raise ValueError(
            f"unroll: weight_hh must be {(count * size, size)}, got {tuple(weight_hh.shape)}"
        )
    if state is None:
        state = [x.new_zeros(len(x), size)] * (2 if kind == "lstm" else 1)
    zero = weight_hh.new_zeros(count * size)
    biases = [zero if bias is None else bias for bias in (bias_ih, bias_hh)]
    tensors = [x, *state, weight_ih, weight_hh, *biases]
    device = x.device.type
    if not torch.is_autocast_enabled(device):
        return _run(kind, tensors, lengths, norm, zoneout)
    with torch.autocast(device, enabled=False):  # the loop runs in the precision of its weights
        tensors = [one.to(weight_hh.dtype) for one in tensors]
        return _run(kind, tensors, lengths, norm, zoneout)


def _run(
    kind: str,
    tensors: list[Tensor],
    lengths: Tensor | None,
    norm: Norm | None,
    zoneout: tuple[Tensor, bool] | None,
) -> tuple[Tensor, State]:
    if norm is not None or zoneout is not None or torch.autograd.forward_ad._current_level >= 0:
        out, *cell = plain(kind, *tensors, lengths=lengths, norm=norm, zoneout=zoneout)
        return out, (out[:, -1], *cell)
    if lengths is not None and kind == "lstm":
        tensors[0], tensors[3] = closing(tensors[0], tensors[3], lengths)
    whole = unrolled(kind, partial(plain, kind), *[one.unsqueeze(0) for one in tensors])
    out, *cell = [one.squeeze(0) for one in whole]
    return out, (at_end(out, lengths), *cell)


def at_end(out: Tensor, lengths: Tensor | None) -> Tensor:
    """The output of each sequence's last real step. Shapes: (B, T, H), (B,) -> (B, H)"""
    if lengths is None:
        return out[:, -1]
    index = (lengths - 1).view(-1, 1, 1).expand(-1, 1, out.shape[2])
    return out.gather(1, index).squeeze(1)


def closing(x: Tensor, weight_ih: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs and weights of an LSTM whose cell stands still beyond each length.

    One more input is 0 at real steps and 1 beyond; it closes the input gate and opens the forget
    gate, both to the last bit, so that the last cell is that of the last real step in any kernel.

    Shapes: x (B, T, F), weight_ih (4H, F), lengths (B,) -> (B, T, F + 1), (4H, F + 1)
    """
    beyond = ~within(lengths, x.shape[1])
    size = weight_ih.shape[0] // 4
    column = weight_ih.new_zeros(4 * size, 1)
    column[:size], column[size : 2 * size] = -CLOSED, CLOSED
    x = torch.cat([x, beyond.unsqueeze(2).to(x.dtype)], 2)
    return x, torch.cat([weight_ih, column], 1)


def plain(
    kind: str,
    *tensors: Tensor,
    lengths: Tensor | None = None,
    norm: Norm | None = None,
    zoneout: tuple[Tensor, bool] | None = None,
) -> tuple[Tensor, ...]:
    """The loop of ordinary operations: outputs, and for an LSTM the last cell.

    With lengths a state stands still beyond them.

    Shapes: x (..., B, T, F), h and c (..., B, H), weights (..., G H, F), biases (..., G H)
    """
    x, h, *cell, w, u, b, d = tensors
    size, u = u.shape[-1], u.mT
    b, d = b.unsqueeze(-2), d.unsqueeze(-2)
    rows = x.flatten(-3, -2) @ w.mT
    rows = rows + b if norm is None else standardized(rows, norm.gain_ih, b)
    steps = rows.unflatten(-2, x.shape[-3:-1]).unbind(-2)

    def product(v: Tensor, rows: slice = slice(None)) -> Tensor:
        found = v @ u[..., rows]
        if norm is not None:
            return standardized(found, norm.gain_hh[rows], d[..., rows])
        return found + d[..., rows]

    shown = None if norm is None or norm.gain_c is None else (norm.gain_c, norm.bias_c)
    real = None if lengths is None else within(lengths, len(steps)).unsqueeze(2).unbind(1)
    outputs = []
    for t, a in enumerate(steps):
        before = (h, *cell)
        if kind == "lstm":
            h, cell[0] = lstm_update(a + product(h), cell[0], shown)
        elif kind == "gru":
            _, z, n = gru_gates(a, product(h))
            h = n + z * (h - n)
        elif kind == "gru_before":
            first, last = slice(2 * size), slice(2 * size, None)
            r, z = (a[..., first] + product(h, first)).sigmoid().chunk(2, -1)
            n = (a[..., last] + product(r * h, last)).tanh()
            h = n + z * (h - n)
        else:
            h = a + product(h)
            h = h.relu() if kind == "rnn_relu" else h.tanh()
        if zoneout is not None:
            h, *cell = [_mixed(new, old, *zoneout) for new, old in zip((h, *cell), before)]
        if real is not None:
            h, *cell = [torch.where(real[t], new, old) for new, old in zip((h, *cell), before)]
        outputs.append(h)
    return torch.stack(outputs, -2), *cell


def _mixed(new: Tensor, old: Tensor, rate: Tensor, drawn: bool) -> Tensor:
    """Zoneout: a share of the units as it was. Source: Krueger et al., Zoneout, 2017."""
    if not drawn:
        return new + rate * (old - new)
    return torch.where(torch.rand_like(new) < rate, old, new)
