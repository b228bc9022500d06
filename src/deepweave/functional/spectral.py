"""The heat kernel of a box, axis by axis: exact for a constant diffusivity.

On N cells of width h with their middles at (i + 1/2) h, L = N h, the solution of u_t = D u_xx is a
sum of waves that each decay by themselves, by a = exp(-D t k^2):

    walls that let nothing through  u_x = 0   cos(k x), k = pi n / L, n = 0, 1, ...
    walls that are held at zero     u = 0     sin(k x), k = pi n / L, n = 1, 2, ...
    a ring                                    exp(i k x), k = 2 pi n / L

The cosine transform C of N numbers is one Fourier transform V of the same numbers in another
order: the even places forwards, then the odd ones backwards. For real numbers, with
w_n = exp(-i pi n / 2N), w_n V_n = C_n - i C_(N-n). So along one axis, whose transform is real, the
real part of w V decays as n does, and the imaginary part as N - n: there is no need to take C
apart. The other axes act on complex numbers, where real and imaginary parts may not be mixed; but
the same map, written without them,

    V_n  ->  (a_n + a_(N-n)) / 2  V_n  +  (a_n - a_(N-n)) / 2  w_n^-2  V_(-n)

is linear. A sine transform is a cosine transform of (-1)^i u_i, read from the end.

Source: Makhoul, A fast cosine transform in one and two dimensions, 1980.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from deepweave.functional.reduction import looking

BOUNDARIES = ("neumann", "dirichlet", "periodic")


def decay(u: Tensor, amount: Tensor, boundary: str, widths: Sequence[float], *,
          discrete: bool = False) -> Tensor:  # fmt: skip
    """exp(amount laplacian) u along the last axes, one for each width of a cell.

    ``amount`` is D t. ``discrete`` takes the eigenvalues of the second difference,
    (2 - 2 cos(k h)) / h^2, in place of k^2: the exact solution of the equation on a lattice.

    Where values may be looked at, waves that decay to less than rounding squared are left out, so
    that a long time costs less.

    Shapes: u (..., *grid), amount () or shaped to broadcast over u, 1 along the grid -> u's shape
    """
    if not u.numel():  # of which a Fourier transform may be refused
        return u.clone()
    amount = amount.to(dtype=u.dtype, device=u.device)
    axes = [_axis(size, boundary, discrete, u) for size in u.shape[-len(widths) :]]
    amounts = [amount / width**2 for width in widths]
    if boundary == "periodic":
        return _around(u, axes, amounts)
    rows = _count(u, -2) if len(axes) > 1 else 1
    wave = _within(u, axes[-1], amounts[-1], rows)
    for dim, axis, own in zip(range(-len(axes), -1), axes, amounts):
        wave = _across(wave, axis, own, dim)

    def back(part: Tensor) -> Tensor:
        return _ordered(torch.fft.irfft(part, n=u.shape[-1]), axes[-1], -1, back=True)

    return _piecewise(back, wave, -2, rows)


class _Axis(NamedTuple):
    """What depends on the size of an axis alone."""

    discrete: bool
    turn: float  # k of the first wave, for cells of width 1
    rate: Tensor  # -k^2 of n and of N - n, or their eigenvalues, (N, 2)
    mirror: Tensor  # -n modulo N, (N,)
    order: Tensor  # of the places
    back: Tensor  # its inverse
    sign: Tensor | None  # (-1)^i, for sines alone
    phase: Tensor  # w_n
    twice: Tensor  # w_n^-2 / 2


def _axis(size: int, boundary: str, discrete: bool, like: Tensor) -> _Axis:
    """An axis, remembered; but what is made within a mode or a transform belongs to it alone."""
    make = _remembered if looking() else _made
    return make(size, boundary, discrete, like.dtype, like.device)


def _made(
    size: int, boundary: str, discrete: bool, dtype: torch.dtype, device: torch.device
) -> _Axis:
    with torch.inference_mode(False):  # or slopes could never go through it
        place, turn = torch.arange(size), (2 if boundary == "periodic" else 1) * math.pi / size
        turns = torch.arange(size + 1, dtype=torch.float64) * turn
        rate = 2 * turns.cos() - 2 if discrete else -turns.square()
        if boundary == "dirichlet":  # the sine of n + 1 half waves stands in the place of N - 1 - n
            rate = rate.flip(0)
        rate = torch.stack([rate, rate.flip(0)], 1)[:-1]
        order = torch.cat([place[::2], place[1::2].flip(0)])
        sign = (1 - 2 * (place % 2)).to(device, dtype) if boundary == "dirichlet" else None
        angle = place.double() * (-math.pi / (2 * size))
        phase, one = torch.polar(torch.ones_like(angle), angle), torch.ones_like(angle)
        twice = torch.polar(one / 2, -2 * angle)
        kind = torch.complex64 if dtype == torch.float32 else torch.complex128
        return _Axis(
            discrete, turn, rate.to(device, dtype), (-place % size).to(device), order.to(device),
            order.argsort().to(device), sign, phase.to(device, kind), twice.to(device, kind),
        )  # fmt: skip


_remembered = lru_cache(maxsize=64)(_made)


def _alive(size: int, axis: _Axis, amount: Tensor) -> int:
    """How many waves of a real transform, the first, decay to more than rounding squared."""
    most = size // 2 + 1
    if not looking(amount) or not amount.numel():
        return most
    least = float(amount.detach().amin())
    reach = -2 * math.log(torch.finfo(amount.dtype).eps) / least if least > 0 else math.inf
    if axis.discrete:
        reach = math.acos(1 - reach / 2) ** 2 if reach < 4 else math.inf
    count = math.sqrt(reach) / axis.turn
    return math.ceil(count) if count < most else most


def _around(u: Tensor, axes: Sequence[_Axis], amounts: Sequence[Tensor]) -> Tensor:
    """The decay on a ring, or a torus: n and n - N are one wave on the cells, the slower."""
    size, dims = u.shape[-1], tuple(range(-len(axes), 0))
    wave = torch.fft.rfft(u)[..., : _alive(size, axes[-1], amounts[-1])]
    if len(axes) > 1:
        wave = torch.fft.fftn(wave, dim=dims[:-1])
    for dim, axis, own in zip(dims, axes, amounts):
        rate = _along(axis.rate[: wave.shape[dim]].amax(1), dim)
        wave = wave * torch.exp(own * rate)
    if len(axes) > 1:
        wave = torch.fft.ifftn(wave, dim=dims[:-1])
    return torch.fft.irfft(wave, n=size)


def _within(u: Tensor, axis: _Axis, amount: Tensor, rows: int) -> Tensor:
    """The real transform along the last axis, its waves decayed."""
    size = _alive(u.shape[-1], axis, amount)
    kept = torch.exp(amount.unsqueeze(-1) * _along(axis.rate[:size], -1))
    phase = axis.phase[:size]

    def decayed(part: Tensor) -> Tensor:
        wave = torch.fft.rfft(_ordered(part, axis, -1))[..., :size]
        parts = torch.view_as_real(wave * phase) * kept
        return torch.view_as_complex(parts).mul_(phase.conj())

    return _piecewise(decayed, u, -2, rows)


def _across(wave: Tensor, axis: _Axis, amount: Tensor, dim: int) -> Tensor:
    """The decay along another axis, of complex numbers."""
    one, two = torch.exp(amount.unsqueeze(-1) * _along(axis.rate, dim)).unbind(-1)
    own, other = (one + two) / 2, (one - two) * _along(axis.twice, dim)

    def decayed(part: Tensor) -> Tensor:
        # A transform leaves its axis innermost in memory, where rows are slow to exchange.
        found = torch.fft.fft(_ordered(part, axis, dim), dim=dim).contiguous()
        found = torch.addcmul(found * own, other, found.index_select(dim, axis.mirror))
        return _ordered(torch.fft.ifft(found, dim=dim).contiguous(), axis, dim, back=True)

    return _piecewise(decayed, wave, -1, _count(wave, -1))


def _count(u: Tensor, dim: int) -> int:
    """Into how many pieces to cut an axis of space.

    On a processor pieces of some 65,000 numbers stay in the cache, and their memory is used again:
    fresh memory costs more than the arithmetic.
    """
    return min(u.numel() >> 16, u.shape[dim] >> 6) if u.device.type == "cpu" else 1


def _piecewise(function: Callable[[Tensor], Tensor], u: Tensor, dim: int, count: int) -> Tensor:
    """A function that does not mix an axis, on one piece of that axis after the other."""
    if count < 2:
        return function(u)
    return torch.cat([function(part) for part in u.chunk(count, dim)], dim)


def _along(values: Tensor, dim: int) -> Tensor:
    """Numbers to multiply with along one axis, (N, 1, ..., rest)."""
    return values.view(len(values), *[1] * (-1 - dim), *values.shape[1:])


def _ordered(u: Tensor, axis: _Axis, dim: int, *, back: bool = False) -> Tensor:
    """Numbers in the order that the transform wants, or in their own again."""
    sign = None if axis.sign is None else _along(axis.sign, dim)
    u = u if back or sign is None else u * sign
    index = axis.back if back else axis.order
    if dim == -1:  # there gather is up to five times as fast
        u = u.gather(-1, index.expand(u.shape))
    else:
        u = u.index_select(dim, index)
    return u * sign if back and sign is not None else u
