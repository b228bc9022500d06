"""Capsules: vectors whose length says whether something is there, and how they vote for a whole.

A capsule i of a lower layer has D components u_i and says what each of K wholes would be by it:
its vote u_hat[k, i] = W[k, i] u_i, of E components. Routing finds how much of each capsule goes to
each whole: a softmax over the *wholes*, since a part belongs to one whole; over the parts, as some
published code has it, each whole would take a full share of something whether it is there or not.

All of it is one form, and its four slopes are what the rounds, and the way back, are made of:

    F(c, u, W, v) = sum_{b k i} c[k, b, i] u_hat[b, k, i] . v[k, b]

dF / dv is the weighted sum of votes, dF / dc their agreement with v. None of them needs the votes
themselves, which are the largest thing there is (B K I E numbers, 24 MB where the weights have 6):
they are two matrix products for each whole. What is held at a time is B K I numbers for the
couplings, and B I D for one whole's share.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor

from deepweave.functional.entropy import one_hot
from deepweave.functional.reduction import expect, labels, reduced, shares

Gradient = Literal["detached", "full"]


def lengths(v: Tensor) -> Tensor:
    """|v| over the last dimension; its slope is taken as 0 where v is 0.

    Shapes: v (..., D) -> (...)

    >>> lengths(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([5., 0.])
    """
    square = v.square().sum(-1)
    there = square > 0
    return torch.where(there, square, 1).sqrt() * there


def squash(s: Tensor) -> Tensor:
    """|s|^2 / (1 + |s|^2) s / |s|: the same direction, a length in [0, 1).

    Written s |s| / (1 + |s|^2), so that nothing is divided by 0: at s = 0 both the value and the
    slope are 0.

    Shapes: s (..., D) -> (..., D)
    Source: Sabour, Frosst & Hinton, Dynamic routing between capsules, 2017.

    >>> squash(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) * 26
    tensor([[15., 20.],
            [ 0.,  0.]])
    """
    length = lengths(s).unsqueeze(-1)
    return s * (length / (1 + length.square()))


def log_odds(lengths: Tensor, *, floor: float = 1e-4) -> Tensor:
    """log(l / (1 - l)), both sides not below ``floor``: class scores that lengths amount to.

    The sigmoid of a score is the length again. Of a squashed s it is log |s|^2, so that a softmax
    over classes gives each its share of the squared norms before squashing.

    Shapes: lengths (...) in [0, 1] -> (...)
    Raises:
        ValueError: a floor outside (0, 1).

    >>> log_odds(torch.tensor([0.0, 0.5, 0.9])).sigmoid()
    tensor([9.9980e-05, 5.0000e-01, 8.9992e-01])
    """
    if not 0 < floor < 1:
        raise ValueError(f"log_odds: floor must lie in (0, 1), got {floor}")
    return (lengths + floor).log() - (1 - lengths + floor).log()


def length_margin(
    lengths: Tensor,
    target: Tensor,
    *,
    upper: float = 0.9,
    lower: float = 0.1,
    down: float = 0.5,
    weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """sum_k T_k max(0, m+ - l_k)^2 + lambda (1 - T_k) max(0, l_k - m-)^2 on capsules' lengths.

    Each class is judged by itself, so that several may be there at once.

    Args:
        target: class numbers, or for each class whether it is there.
        upper: m+, what the length of a class that is there should reach.
        lower: m-, below which the length of another should stay.
        down: lambda, the weight of classes that are not there.

    Shapes: lengths (B, K), target (B,) of int64 or (B, K) in [0, 1], weight (B,) -> (B,), or ()
    Raises:
        ValueError: margins that are not 0 <= m- < m+ <= 1, labels or shapes that do not fit.
    Source: Sabour, Frosst & Hinton, Dynamic routing between capsules, 2017.

    >>> length_margin(torch.tensor([[0.9, 0.3], [0.5, 0.1]]), torch.tensor([0, 0]))
    tensor([0.0200, 0.1600])
    """
    name = "length_margin"
    if not 0 <= lower < upper <= 1:
        raise ValueError(f"{name}: needs 0 <= lower < upper <= 1, got {lower} and {upper}")
    if not (down >= 0 and math.isfinite(down)):
        raise ValueError(f"{name}: down must be finite and not below 0, got {down}")
    if lengths.dim() != 2:
        raise ValueError(f"{name}: lengths must be (B, K), got {tuple(lengths.shape)}")
    if target.dim() == 1:
        expect(name, "target", target, lengths.shape[:1])
        labels(name, target, lengths.shape[1])
        there = one_hot(target, lengths.shape[1]).to(lengths.dtype)
    else:
        expect(name, "target", target, lengths.shape)
        there = target.to(lengths.dtype)
        shares(name, "target", there)
    short = (upper - lengths).clamp_min(0).square()
    long = (lengths - lower).clamp_min(0).square()
    loss = (there * short + down * (1 - there) * long).sum(1)
    return reduced(name, loss, weight, None, reduction)


def couple(u: Tensor, weight: Tensor, rounds: int = 3) -> Tensor:
    """The shares c[b, i, k] of dynamic routing: how much of capsule i goes to the whole k.

    They sum to 1 over the wholes k. Round one shares alike; each further one adds the agreement
    u_hat . v of the votes with what they came to, and takes the softmax.

    Shapes: u (B, I, D), weight (K, D, I, E) -> (B, I, K)
    Raises:
        ValueError: shapes that do not fit, or less than one round.

    >>> u, weight = torch.randn(2, 5, 3), torch.randn(4, 3, 5, 6)
    >>> couple(u, weight).sum(2).allclose(torch.ones(2, 5))
    True
    """
    u, weight, free = _ready("couple", u, weight, rounds)
    with free:
        return _couple(u, weight, rounds).movedim(0, 2)


def route(u: Tensor, weight: Tensor, rounds: int = 3, *, gradient: Gradient = "detached") -> Tensor:
    """Dynamic routing by agreement: v_k = squash(sum_i c_ik W_ik u_i), c by :func:`couple`.

    Args:
        u: capsules below, squashed.
        weight: laid out so that every product reads it as it lies: a vote has the components
            u_hat[b, i, k, e] = sum_d u[b, i, d] weight[k, d, i, e].
        rounds: of routing; 1 shares alike.
        gradient: ``"detached"``: the couplings count as constants on the way back, as in the
            paper's code; ``"full"``: slopes go through all rounds, at about twice the time. They
            are different slopes of the same numbers.

    For the way back the capsules, the weights and B K I couplings are kept (in full: for every
    round), besides B I D numbers at work. Under ``torch.func`` and when differentiated twice the
    share of each whole is built, K B I D numbers.

    Shapes: u (B, I, D), weight (K, D, I, E) -> (B, K, E)
    Raises:
        ValueError: shapes that do not fit, less than one round, or an unknown gradient.
    Source: Sabour, Frosst & Hinton, Dynamic routing between capsules, 2017.

    >>> u, weight = torch.randn(2, 5, 3), torch.randn(4, 3, 5, 6)
    >>> v = route(u, weight)
    >>> v.shape, bool((lengths(v) < 1).all())
    (torch.Size([2, 4, 6]), True)
    """
    if gradient not in ("detached", "full"):
        raise ValueError(f"route: gradient must be 'detached' or 'full', got {gradient!r}")
    u, weight, free = _ready("route", u, weight, rounds)
    with free:
        with torch.no_grad() if gradient == "detached" else nullcontext():
            c = _couple(u, weight, rounds)
        return squash(_gather(c, u, weight)).transpose(0, 1)


def self_route(u: Tensor, weight: Tensor, router: Tensor) -> Tensor:
    """Self-routing: each capsule says by itself to which whole it belongs; no rounds.

    c_ik = softmax_k(R_ik . u_i), and with a_i = |u_i|, the activation of a capsule:

        activation a_k = sum_i c_ik a_i / sum_i a_i,   pose p_k = sum_i c_ik a_i W_ik u_i

    What is given back is a_k p_k / |p_k|: the pose's direction, with the activation as length.
    Activations sum to 1 over the wholes, so this is for one class of several. In the paper the
    activation of a capsule below is a number beside its pose; here it is its length.

    Shapes: u (B, I, D), weight (K, D, I, E), router (K, D, I) -> (B, K, E)
    Raises:
        ValueError: shapes that do not fit.
    Source: Hahn, Pyeon & Kim, Self-routing capsule networks, 2019.

    >>> u, weight, router = torch.randn(2, 5, 3), torch.randn(4, 3, 5, 6), torch.randn(4, 3, 5)
    >>> lengths(self_route(u, weight, router)).sum(1).allclose(torch.ones(2))
    True
    """
    expect("self_route", "router", router, weight.shape[:3])
    u, weight, free = _ready("self_route", u, weight, 1)
    with free:
        a = lengths(u.transpose(1, 2))
        c = _self_couple(u, router.to(u.dtype)) * a
        tiny = torch.finfo(u.dtype).tiny
        there = c.sum(2) / a.sum(1).clamp_min(tiny)
        pose = _gather(c, u, weight)
        norm = (pose.square().sum(2) + 1e-12).sqrt()
        return (pose * (there / norm).unsqueeze(2)).transpose(0, 1)


def self_couple(u: Tensor, router: Tensor) -> Tensor:
    """The shares of self-routing, softmax_k(R_ik . u_i).

    Shapes: u (B, I, D), router (K, D, I) -> (B, I, K)
    """
    return _self_couple(u.transpose(1, 2), router).movedim(0, 2)


def _self_couple(u: Tensor, router: Tensor) -> Tensor:
    """Shares (K, B, I) of capsules (B, D, I)."""
    return torch.einsum("bdi,kdi->kbi", u, router).softmax(0)


def _ready(name: str, u: Tensor, weight: Tensor, rounds: int) -> tuple[Tensor, Tensor, Any]:
    """Capsules as (B, D, I), both of one type, and a place where autocast leaves them alone."""
    if weight.dim() != 4:
        raise ValueError(f"{name}: weight must be (K, D, I, E), got {tuple(weight.shape)}")
    size, capsules = weight.shape[1:3]
    if u.dim() != 3 or u.shape[1:] != (capsules, size):
        raise ValueError(f"{name}: u must be (B, I, D) = (B, {capsules}, {size}) for a weight "
                         f"of {tuple(weight.shape)}, got {tuple(u.shape)}")  # fmt: skip
    if rounds < 1:
        raise ValueError(f"{name}: rounds must be at least 1, got {rounds}")
    kind, free = u.device.type, nullcontext()
    dtype = torch.promote_types(u.dtype, weight.dtype)
    if torch.is_autocast_enabled(kind):
        free, dtype = torch.autocast(kind, enabled=False), torch.float32
    return u.transpose(1, 2).to(dtype).contiguous(), weight.to(dtype), free


def _couple(u: Tensor, weight: Tensor, rounds: int) -> Tensor:
    """Couplings (K, B, I) for capsules (B, D, I).

    Agreements add up over the rounds, and the sum of them is the agreement with the sum of v.
    """
    wholes = len(weight)
    c = u.new_full((), 1 / wholes).expand(wholes, u.shape[0], u.shape[2])
    total: Tensor | None = None
    for number in range(rounds - 1):
        s = _gather(None, u, weight) / wholes if number == 0 else _gather(c, u, weight)
        total = squash(s) if total is None else total + squash(s)
        c = _agree(u, weight, total).softmax(0)
    return c


def _plain() -> bool:
    """Whether plain operations are needed: inside transforms and graphs."""
    return torch._C._are_functorch_transforms_active() or torch.compiler.is_compiling()


def _gather(c: Tensor | None, u: Tensor, weight: Tensor) -> Tensor:
    """dF / dv: the sums of votes weighted by c, or by 1. Shapes: -> (K, B, E)"""
    if not _plain():
        return _Gather.apply(c, u, weight)  # pyright: ignore[reportReturnType]
    flat = weight.flatten(1, 2)
    share = u.flatten(1) if c is None else (c.unsqueeze(2) * u).flatten(2)
    return share @ flat


def _agree(u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
    """dF / dc: the agreement of each vote with v. Shapes: v (K, B, E) -> (K, B, I)"""
    if not _plain():
        return _Agree.apply(u, weight, v)  # pyright: ignore[reportReturnType]
    back = (v @ weight.flatten(1, 2).mT).unflatten(2, u.shape[1:])
    return (back * u).sum(2)


class _Gather(torch.autograd.Function):
    """The weighted sums of votes; its slopes are those of the form."""

    @staticmethod
    def forward(ctx: Any, c: Tensor | None, u: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(c, u, weight)
        s = u.new_empty(len(weight), len(u), weight.shape[3])
        share = torch.empty_like(u) if c is not None else u
        for k, own in enumerate(weight.flatten(1, 2)):
            if c is not None:
                torch.mul(u, c[k].unsqueeze(1), out=share)
            torch.mm(share.flatten(1), own, out=s[k])
        return s

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        c, u, weight = ctx.saved_tensors
        need_c, need_u, need_weight = ctx.needs_input_grad
        found = _slopes(c, u, weight, slopes[0], (need_c, need_u, need_weight, False))
        return found[:3]


class _Agree(torch.autograd.Function):
    """The agreement of votes with v; its slopes are those of the form."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(u, weight, v)
        a = u.new_empty(len(weight), u.shape[0], u.shape[2])
        back = torch.empty_like(u)
        for k, own in enumerate(weight.flatten(1, 2)):
            torch.mm(v[k], own.mT, out=back.flatten(1))
            torch.sum(back.mul_(u), 1, out=a[k])
        return a

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Any:
        u, weight, v = ctx.saved_tensors
        return _slopes(slopes[0], u, weight, v, (False, *ctx.needs_input_grad))[1:]


def _slopes(
    c: Tensor | None, u: Tensor, weight: Tensor, v: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The slopes of F in c, u, W and v, those that are needed; a slope of their own if asked."""
    need_c, need_u, need_weight, need_v = needed
    flat = weight.flatten(1, 2)
    if torch.is_grad_enabled():  # differentiated again: plain operations, at K B I D numbers
        full = u.unsqueeze(0) if c is None else c.unsqueeze(2) * u
        share = full.flatten(2)
        back = (v @ flat.mT).unflatten(2, u.shape[1:])
        return (
            (back * u).sum(2) if need_c else None,
            (back if c is None else back * c.unsqueeze(2)).sum(0) if need_u else None,
            (share.mT @ v).view_as(weight) if need_weight else None,
            share @ flat if need_v else None,
        )
    dc = u.new_empty(len(weight), u.shape[0], u.shape[2]) if need_c else None
    du = torch.zeros_like(u) if need_u else None
    dw = torch.empty_like(weight) if need_weight else None
    dv = torch.empty_like(v) if need_v else None
    share = torch.empty_like(u) if c is not None and (dw is not None or dv is not None) else u
    back, spare = torch.empty_like(u), torch.empty_like(u) if dc is not None else u
    for k, own in enumerate(flat):
        if share is not u and c is not None:
            torch.mul(u, c[k].unsqueeze(1), out=share)
        if dw is not None:
            torch.mm(share.flatten(1).mT, v[k], out=dw[k].flatten(0, 1))
        if dv is not None:
            torch.mm(share.flatten(1), own, out=dv[k])
        if du is None and dc is None:
            continue
        torch.mm(v[k], own.mT, out=back.flatten(1))
        if dc is not None:
            torch.sum(torch.mul(back, u, out=spare), 1, out=dc[k])
        if du is not None:
            du = du.add_(back) if c is None else du.addcmul_(back, c[k].unsqueeze(1))
    return dc, du, dw, dv
