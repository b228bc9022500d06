"""The heat kernel of a box, axis by axis: exact for a constant diffusivity.

On N cells of width h with their middles at (i + 1/2) h, L = N h, the solution of u_t = D u_xx is a
sum of waves that each decay by themselves, exp(-D t k^2):

    walls that let nothing through  u_x = 0   cos(k x), k = pi n / L, n = 0, 1, ...
    walls that are held at zero     u = 0     sin(k x), k = pi n / L, n = 1, 2, ...
    a ring                                    exp(i k x), k = 2 pi n / L

The cosine transform of N numbers is one real Fourier transform of the same numbers in another
order: the even places forwards, then the odd ones backwards. With V its transform and
w_n = exp(-i pi n / 2N), w_n V_n = C_n - i C_(N-n). So the decay multiplies the real part of w V by
that of n, and the imaginary part by that of N - n: there is no need to take C apart. A sine
transform is a cosine transform of (-1)^i u_i, read from the end.

Source: Makhoul, A fast cosine transform in one and two dimensions, 1980.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

BOUNDARIES = ("neumann", "dirichlet", "periodic")


def decay(u: Tensor, amount: Tensor, dim: int, boundary: str, spacing: float, *,
          discrete: bool = False) -> Tensor:  # fmt: skip
    """exp(amount d^2/dx^2) u along one axis; ``amount`` is D t.

    ``discrete`` takes the eigenvalues of the second difference, (2 - 2 cos(k h)) / h^2, in place of
    k^2: the exact solution of the equation on a lattice.

    Shapes: u (..., N, ...), amount () or shaped to broadcast over u, 1 along ``dim`` -> u's shape
    """
    dim = dim % u.dim()
    size, along = u.shape[dim], [-1] + [1] * (u.dim() - 1 - dim)
    amount = amount.to(dtype=u.dtype, device=u.device)
    half = size // 2 + 1
    if boundary == "periodic":
        rate = _rates(size, 2.0, spacing, discrete, u)[:half].view(along)
        wave = torch.fft.rfft(u, dim=dim) * torch.exp(-amount * rate)
        return torch.fft.irfft(wave, n=size, dim=dim)
    order, back, turn, sign = _tables(size, u.dtype, u.device)
    turn, sign = turn.view(along), sign.view(along)
    rate = _rates(size, 1.0, spacing, discrete, u)
    if boundary == "dirichlet":  # the sine of n + 1 half waves stands in the place of N - 1 - n
        u, rate = u * sign, rate.flip(0)
    both = torch.stack([rate[:half], rate.flip(0)[:half]], -1)  # of n, and of N - n
    factor = torch.exp(-amount.unsqueeze(-1) * both.view([*along, 2]))
    wave = torch.fft.rfft(u.index_select(dim, order), dim=dim) * turn
    wave = torch.view_as_complex(torch.view_as_real(wave) * factor) * turn.conj()
    found = torch.fft.irfft(wave, n=size, dim=dim).index_select(dim, back)
    return found * sign if boundary == "dirichlet" else found


def _rates(size: int, waves: float, spacing: float, discrete: bool, like: Tensor) -> Tensor:
    """k^2 of n = 0 to N, or of the second difference, (N + 1,)."""
    turns = torch.arange(size + 1, dtype=torch.float64) * (waves * math.pi / size)  # k h
    rate = 2 - 2 * torch.cos(turns) if discrete else turns**2
    return (rate / spacing**2).to(dtype=like.dtype, device=like.device)


@lru_cache(maxsize=64)
def _tables(
    size: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The order of places, its inverse, the turns w_n, and the signs (-1)^i."""
    with torch.inference_mode(False):
        place = torch.arange(size)
        order = torch.cat([place[::2], place[1::2].flip(0)])
        angle = place[: size // 2 + 1].double() * (-math.pi / (2 * size))
        turn = torch.polar(torch.ones_like(angle), angle)
        kind = torch.complex64 if dtype == torch.float32 else torch.complex128
        sign = (1 - 2 * (place % 2)).to(dtype=dtype, device=device)
        return order.to(device), order.argsort().to(device), turn.to(device, kind), sign
