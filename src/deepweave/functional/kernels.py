"""The steps of recurrent layers, forward and backward, written out for many networks at once.

Buffers have the steps in front and the members next, (T, n, B, ...), so that a step is one
contiguous block. The input products ``a`` of all steps come in and become the gates, in place.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

ATEN: Any = torch.ops.aten  # d g(y) with g' told by its value: y (1 - y), 1 - y^2, y > 0


class Run(NamedTuple):
    """What a forward pass leaves: states (T+1, n, B, H), the last cell, and what backward needs."""

    states: Tensor
    cell: Tensor | None
    kept: tuple[Tensor, ...]


class Slopes(NamedTuple):
    """Slopes of the input products, of what was multiplied by which rows, and of the start."""

    inputs: Tensor
    products: tuple[tuple[Tensor, Tensor], ...]  # (slope (T, n, B, g), what the weight multiplied)
    h0: Tensor
    c0: Tensor | None = None


def _begin(a: Tensor, h0: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    states = a.new_empty(len(a) + 1, *h0.shape)
    states[0].copy_(h0)
    return states, states.unbind()


class Rnn:
    """h = g(a + U h); g is tanh or relu."""

    def __init__(self, activation: str):
        self.relu = activation == "relu"

    def forward(self, a: Tensor, h0: Tensor, c0: Any, u: Tensor, b: Tensor) -> Run:
        states, h = _begin(a, h0)
        u, act = u.mT, torch.Tensor.relu_ if self.relu else torch.Tensor.tanh_
        for t, at in enumerate(a.unbind()):
            act(torch.baddbmm(at, h[t], u, out=h[t + 1]))
        return Run(states, None, ())

    def backward(self, u: Tensor, states: Tensor, c0: Any, kept: Any, dout: Tensor, _: Any):
        """Slopes: da = dh g'(a), dh <- U^T da."""
        da, h, dh = torch.empty_like(states[1:]), states[1:].unbind(), dout[-1]
        for t in range(len(da) - 1, -1, -1):
            if self.relu:
                ATEN.threshold_backward(dh, h[t], 0, grad_input=da[t])
            else:
                ATEN.tanh_backward(dh, h[t], grad_input=da[t])
            dh = torch.baddbmm(dout[t - 1], da[t], u) if t else torch.bmm(da[t], u)
        return Slopes(da, ((da, states[:-1]),), dh)


class Lstm:
    """Gates i, f, g, o; the equations of `gates.lstm_cell`."""

    def forward(self, a: Tensor, h0: Tensor, c0: Tensor, u: Tensor, b: Tensor) -> Run:
        states, h = _begin(a, h0)
        cells, c = _begin(a, c0)
        size, u = h0.shape[-1], u.mT
        shown = torch.empty_like(cells[1:])
        both, i, f, g, o = (
            a.narrow(-1, k * size, n * size).unbind()
            for k, n in ((0, 2), (0, 1), (1, 1), (2, 1), (3, 1))
        )
        for t, (at, tanh_c) in enumerate(zip(a.unbind(), shown.unbind())):
            at.baddbmm_(h[t], u)
            both[t].sigmoid_()
            g[t].tanh_()
            o[t].sigmoid_()
            torch.mul(f[t], c[t], out=c[t + 1]).addcmul_(i[t], g[t])
            torch.tanh(c[t + 1], out=tanh_c)
            torch.mul(o[t], tanh_c, out=h[t + 1])
        return Run(states, c[-1], (a, cells, shown))

    def backward(self, u: Tensor, states: Tensor, c0: Any, kept: Any, dout: Tensor, dc: Tensor):
        """Slopes: dc += dh o (1 - tanh^2 c), then each gate's, dh <- U^T da, dc <- f dc."""
        a, cells, shown = kept
        i, f, g, o = a.chunk(4, -1)
        da = torch.empty_like(a)
        by_gate = da.unflatten(-1, (4, -1))
        ATEN.sigmoid_backward(g, i, grad_input=by_gate[..., 0, :])
        ATEN.sigmoid_backward(cells[:-1], f, grad_input=by_gate[..., 1, :])
        ATEN.tanh_backward(i, g, grad_input=by_gate[..., 2, :])
        ATEN.sigmoid_backward(shown, o, grad_input=by_gate[..., 3, :])
        into = ATEN.tanh_backward(o, shown).unbind()
        steps, keeps = da.unbind(), f.unbind()
        written, output = by_gate[..., :3, :].unbind(), by_gate[..., 3, :].unbind()
        dh, dc = dout[-1], dc.clone()
        for t in range(len(steps) - 1, -1, -1):
            dc.addcmul_(dh, into[t])
            written[t].mul_(dc.unsqueeze(-2))
            output[t].mul_(dh)
            dc.mul_(keeps[t])
            dh = torch.baddbmm(dout[t - 1], steps[t], u) if t else torch.bmm(steps[t], u)
        return Slopes(da, ((da, states[:-1]),), dh, dc)


class Gru:
    """Gates r, z and candidate n; the reset acts after the product, as in torch."""

    def forward(self, a: Tensor, h0: Tensor, c0: Any, u: Tensor, b: Tensor) -> Run:
        states, h = _begin(a, h0)
        size, u, b = h0.shape[-1], u.mT, b.unsqueeze(1)
        m = torch.empty_like(a)
        gates, r, z, n = (
            a.narrow(-1, k * size, w * size).unbind() for k, w in ((0, 2), (0, 1), (1, 1), (2, 1))
        )
        own, last = m.narrow(-1, 0, 2 * size).unbind(), m.narrow(-1, 2 * size, size).unbind()
        for t, mt in enumerate(m.unbind()):
            torch.baddbmm(b, h[t], u, out=mt)
            gates[t].add_(own[t]).sigmoid_()
            n[t].addcmul_(r[t], last[t]).tanh_()
            torch.lerp(n[t], h[t], z[t], out=h[t + 1])
        return Run(states, None, (a, m.narrow(-1, 2 * size, size)))

    def backward(self, u: Tensor, states: Tensor, c0: Any, kept: Any, dout: Tensor, _: Any):
        """All slopes of a step are multiples of dh; dh <- z dh + U^T (dr, dz, r dn)."""
        a, m = kept
        r, z, n = a.chunk(3, -1)
        candidate = ATEN.tanh_backward(1 - z, n)
        dm = torch.empty_like(a)
        by_gate = dm.unflatten(-1, (3, -1))
        ATEN.sigmoid_backward(candidate * m, r, grad_input=by_gate[..., 0, :])
        ATEN.sigmoid_backward(states[:-1] - n, z, grad_input=by_gate[..., 1, :])
        torch.mul(candidate, r, out=by_gate[..., 2, :])
        slopes = torch.empty_like(states)
        dh, keeps, steps = slopes.unbind(), z.unbind(), dm.unbind()
        rows, back = by_gate.unbind(), dout.unbind()
        dh[-1].copy_(back[-1])
        for t in range(len(steps) - 1, -1, -1):
            rows[t].mul_(dh[t + 1].unsqueeze(-2))
            torch.mul(dh[t + 1], keeps[t], out=dh[t])
            if t:
                dh[t].add_(back[t - 1])
            dh[t].baddbmm_(steps[t], u)
        da = dm.clone()
        torch.mul(slopes[1:], candidate, out=da.unflatten(-1, (3, -1))[..., 2, :])
        return Slopes(da, ((dm, states[:-1]),), dh[0])


class GruBefore:
    """Gates r, z and candidate n; the reset acts on the state, before the product."""

    def forward(self, a: Tensor, h0: Tensor, c0: Any, u: Tensor, b: Tensor) -> Run:
        states, h = _begin(a, h0)
        size = h0.shape[-1]
        gates = a.narrow(-1, 0, 2 * size).contiguous()
        new = a.narrow(-1, 2 * size, size).contiguous()
        first, last = u.split((2 * size, size), 1)
        first, last = first.mT, last.mT
        held = torch.empty_like(new)
        r, z = (part.unbind() for part in gates.chunk(2, -1))
        for t, (both, n, rh) in enumerate(zip(gates.unbind(), new.unbind(), held.unbind())):
            both.baddbmm_(h[t], first).sigmoid_()
            torch.mul(r[t], h[t], out=rh)
            n.baddbmm_(rh, last).tanh_()
            torch.lerp(n, h[t], z[t], out=h[t + 1])
        return Run(states, None, (gates, new, held))

    def backward(self, u: Tensor, states: Tensor, c0: Any, kept: Any, dout: Tensor, _: Any):
        """Slopes: dn, then d(r h) = U_n^T dn, dr, dz; dh <- z dh + r d(r h) + U^T (dr, dz)."""
        gates, new, held = kept
        size = new.shape[-1]
        first, last = u.split((2 * size, size), 1)
        r, z = gates.chunk(2, -1)
        dn = ATEN.tanh_backward(1 - z, new)
        both = torch.empty_like(gates)
        dr, dz = both.chunk(2, -1)
        ATEN.sigmoid_backward(states[:-1], r, grad_input=dr)
        ATEN.sigmoid_backward(states[:-1] - new, z, grad_input=dz)
        dh = dout[-1]
        for t in range(len(dn) - 1, -1, -1):
            dheld = torch.bmm(dn[t].mul_(dh), last)
            dr[t].mul_(dheld)
            dz[t].mul_(dh)
            before = torch.mul(dh, z[t]).addcmul_(dheld, r[t]).baddbmm_(both[t], first)
            dh = before.add_(dout[t - 1]) if t else before
        return Slopes(torch.cat([both, dn], -1), ((both, states[:-1]), (dn, held)), dh)


KERNELS: dict[str, Any] = {
    "rnn_tanh": Rnn("tanh"), "rnn_relu": Rnn("relu"), "lstm": Lstm(), "gru": Gru(),
    "gru_before": GruBefore(),
}  # fmt: skip
