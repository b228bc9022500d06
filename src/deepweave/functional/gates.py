"""Recurrent cells, one step each, with the weights of torch, and what turns them into each other.

Weights hold their gates one under the other, as in torch: `weight_ih` (G H, F), `weight_hh`
(G H, H), biases (G H,). `split_gates` and `join_gates` take them apart by name and put them
together.

GRUs go by one name in several conventions, which differ in two places (`gru_cell`): whether the
reset gate acts before or after the product with the recurrent matrix, and which state the update
gate multiplies. The second is a matter of sign (`flip_update`), the first is not: there is no
conversion, but where the recurrent matrix of the candidate is diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

GATES: dict[str, tuple[str, ...]] = {
    "rnn": ("hidden",),
    "lstm": ("input", "forget", "cell", "output"),
    "gru": ("reset", "update", "candidate"),
}


def rnn_cell(
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    activation: str = "tanh",
) -> Tensor:
    """One step of a plain recurrent network: h_t = g(W x_t + U h_{t-1} + b).

    The two biases are one: b = b_ih + b_hh. What a network says of a step, y_t = W_y h_t + b_y, is
    a dense layer on h_t.

    Args:
        activation: g, ``"tanh"`` or ``"relu"``.

    Shapes: x (B, F), h (B, H), weight_ih (H, F), weight_hh (H, H) -> (B, H)

    Raises:
        ValueError: shapes that do not fit, or another activation.

    Source: Elman, Finding structure in time, 1990.

    >>> x, h, w, u = torch.ones(1, 1), torch.ones(1, 1), torch.eye(1), -torch.eye(1)
    >>> rnn_cell(x, h, w, u)
    tensor([[0.]])
    """
    if activation not in ("tanh", "relu"):
        raise ValueError(f"rnn_cell: activation must be tanh or relu, got {activation!r}")
    fit("rnn_cell", "rnn", x, h, weight_ih, weight_hh)
    a = F.linear(x, weight_ih, bias_ih) + F.linear(h, weight_hh, bias_hh)
    return a.tanh() if activation == "tanh" else a.relu()


def lstm_cell(
    x: Tensor,
    state: tuple[Tensor, Tensor],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of long short-term memory: (h_t, c_t) from x_t and (h_{t-1}, c_{t-1}).

        f = sigmoid(W_f x + U_f h + b_f)        what of the old cell is kept
        i = sigmoid(W_i x + U_i h + b_i)        how much of the new is written
        o = sigmoid(W_o x + U_o h + b_o)        how much of the cell is shown
        c = f c + i tanh(W_c x + U_c h + b_c)
        h = o tanh(c)

    Gates stand in the order input, forget, cell, output.

    Shapes: x (B, F), h and c (B, H), weight_ih (4H, F), weight_hh (4H, H) -> (B, H), (B, H)

    Raises:
        ValueError: shapes that do not fit.

    Source: Hochreiter & Schmidhuber, Long short-term memory, 1997; Gers et al., Learning to forget,
    2000 (the forget gate).

    >>> zero = torch.zeros(1, 2)
    >>> h, c = lstm_cell(torch.ones(1, 3), (zero, zero + 1), torch.zeros(8, 3), torch.zeros(8, 2))
    >>> c  # a gate of weight 0 is half open
    tensor([[0.5000, 0.5000]])
    """
    h, c = state
    fit("lstm_cell", "lstm", x, h, weight_ih, weight_hh)
    return lstm_update(F.linear(x, weight_ih, bias_ih) + F.linear(h, weight_hh, bias_hh), c)


def layer_norm_lstm_cell(
    x: Tensor,
    state: tuple[Tensor, Tensor],
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor,
    bias_hh: Tensor,
    gains: tuple[Tensor, Tensor, Tensor],
    bias_c: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step of an LSTM whose two products and whose cell are normalised, each over its units.

        a = g1 LN(W x) + b_ih + g2 LN(U h) + b_hh,    LN(v) = (v - mean v) / sd v
        c = f c + i tanh(a_c),    h = o tanh(g3 LN(c) + b_c)

    The means are over all 4H entries of a product, as in the paper, not gate by gate.

    Shapes: gains (4H,), (4H,), (H,), bias_c (H,), all else as in `lstm_cell` -> (B, H), (B, H)

    Raises:
        ValueError: shapes that do not fit.

    Source: Ba, Kiros & Hinton, Layer normalization, 2016.
    """
    h, c = state
    fit("layer_norm_lstm_cell", "lstm", x, h, weight_ih, weight_hh)
    a = standardized(F.linear(x, weight_ih), gains[0], bias_ih)
    a = a + standardized(F.linear(h, weight_hh), gains[1], bias_hh)
    return lstm_update(a, c, (gains[2], bias_c))


def gru_cell(
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    *,
    reset: str = "after",
    update: str = "old",
) -> Tensor:
    """One step of a gated recurrent unit: h_t from x_t and h_{t-1}.

        r = sigmoid(W_r x + U_r h + b_r)
        z = sigmoid(W_z x + U_z h + b_z)
        reset="after":  n = tanh(W_n x + b_in + r (U_n h + b_hn))
        reset="before": n = tanh(W_n x + b_in + U_n (r h) + b_hn)
        update="old":   h = z h + (1 - z) n
        update="new":   h = (1 - z) h + z n

    torch is ("after", "old"); Keras calls the first ``reset_after=True``. Cho et al. are ("before",
    "old"), Chung et al. ("before", "new"). ("after", "new") with b_hn = 0 is the other form in use.
    Gates stand in the order reset, update, candidate.

    Shapes: x (B, F), h (B, H), weight_ih (3H, F), weight_hh (3H, H) -> (B, H)

    Raises:
        ValueError: shapes that do not fit, or another convention.

    Source: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014; Chung et
    al., Empirical evaluation of gated recurrent neural networks, 2014.

    >>> w, u = torch.zeros(3, 1), torch.zeros(3, 1)
    >>> gru_cell(torch.ones(1, 1), torch.ones(1, 1), w, u)  # half of the old, half of tanh(0)
    tensor([[0.5000]])
    """
    if reset not in ("after", "before"):
        raise ValueError(f"gru_cell: reset must be after or before, got {reset!r}")
    if update not in ("old", "new"):
        raise ValueError(f"gru_cell: update must be old or new, got {update!r}")
    fit("gru_cell", "gru", x, h, weight_ih, weight_hh)
    a = F.linear(x, weight_ih, bias_ih)
    if reset == "after":
        r, z, n = gru_gates(a, F.linear(h, weight_hh, bias_hh))
    else:
        size = 2 * h.shape[-1]
        first, last = (None, None) if bias_hh is None else (bias_hh[:size], bias_hh[size:])
        gates = (a[..., :size] + F.linear(h, weight_hh[:size], first)).sigmoid()
        r, z = gates.chunk(2, -1)
        n = (a[..., size:] + F.linear(r * h, weight_hh[size:], last)).tanh()
    return n + z * (h - n) if update == "old" else h + z * (n - h)


def lstm_update(
    a: Tensor, c: Tensor, norm: tuple[Tensor, Tensor | None] | None = None
) -> tuple[Tensor, Tensor]:
    """What follows the products of an LSTM. Shapes: a (..., 4H), c (..., H) -> h, c"""
    i, f, g, o = a.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    shown = c if norm is None else standardized(c, *norm)
    return o.sigmoid() * shown.tanh(), c


def gru_gates(a: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gates and candidate after the products of input and state. Shapes: (..., 3H), (..., 3H)"""
    size = 2 * (a.shape[-1] // 3)
    r, z = (a[..., :size] + m[..., :size]).sigmoid().chunk(2, -1)
    return r, z, (a[..., size:] + r * m[..., size:]).tanh()


def standardized(v: Tensor, gain: Tensor, shift: Tensor | None = None) -> Tensor:
    """gain (v - mean v) / sd v + shift over the last dimension. Shapes: v (..., D), gain (D,)"""
    v = F.layer_norm(v, v.shape[-1:]) * gain
    return v if shift is None else v + shift


def split_gates(weight: Tensor, kind: str) -> dict[str, Tensor]:
    """A weight or bias by gate, as views.

    ``kind`` is ``"rnn"``, ``"lstm"`` (input, forget, cell, output) or ``"gru"`` (reset, update,
    candidate).

    Shapes: weight (G H, ...) -> G times (H, ...)

    Raises:
        ValueError: another kind, or rows that do not divide by its gates.

    >>> {name: part.tolist() for name, part in split_gates(torch.arange(3), "gru").items()}
    {'reset': [0], 'update': [1], 'candidate': [2]}
    """
    names = _names("split_gates", kind)
    if weight.dim() == 0 or len(weight) % len(names):
        raise ValueError(
            f"split_gates: the rows of a {kind} must divide by {len(names)}, got "
            f"{tuple(weight.shape)}"
        )
    return dict(zip(names, weight.chunk(len(names))))


def join_gates(parts: Mapping[str, Tensor], kind: str) -> Tensor:
    """One weight or bias of the parts that belong to its gates, in torch's order.

    Shapes: G times (H, ...) -> (G H, ...)

    Raises:
        ValueError: another kind, or other gates than its own.

    >>> one = {"update": torch.tensor([1]), "reset": torch.tensor([0]), "candidate": torch.ones(1)}
    >>> join_gates(one, "gru").tolist()
    [0.0, 1.0, 1.0]
    """
    names = _names("join_gates", kind)
    if set(names) != set(parts):
        raise ValueError(f"join_gates: a {kind} has the gates {names}, got {tuple(parts)}")
    return torch.cat([parts[name] for name in names])


def flip_update(weight: Tensor) -> Tensor:
    """A GRU's weight or bias for the other side of its update gate.

    Since sigmoid(-a) = 1 - sigmoid(a), a GRU with the update gate's rows negated, in both weights
    and both biases, gives with ``update="new"`` what it gave with ``"old"``, and the other way
    round.

    Shapes: (3H, ...) -> (3H, ...)

    >>> flip_update(torch.tensor([1.0, 2.0, 3.0]))
    tensor([ 1., -2.,  3.])
    """
    parts = split_gates(weight, "gru")
    return join_gates({**parts, "update": -parts["update"]}, "gru")


def _names(name: str, kind: str) -> tuple[str, ...]:
    if kind not in GATES:
        raise ValueError(f"{name}: kind must be one of {', '.join(GATES)}, got {kind!r}")
    return GATES[kind]


def fit(name: str, kind: str, x: Tensor, h: Tensor, weight_ih: Tensor, weight_hh: Tensor) -> None:
    """Raise ValueError unless input, state and weights of a cell belong together."""
    size, count = h.shape[-1], len(GATES[kind])
    if x.shape[:-1] != h.shape[:-1]:
        raise ValueError(
            f"{name}: x and h must be of one batch, got {tuple(x.shape)} and {tuple(h.shape)}"
        )
    for what, weight, columns in (("ih", weight_ih, x.shape[-1]), ("hh", weight_hh, size)):
        if weight.shape != (count * size, columns):
            raise ValueError(
                f"{name}: weight_{what} must be {(count * size, columns)}, "
                f"got {tuple(weight.shape)}"
            )
