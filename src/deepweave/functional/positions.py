"""Where a token stands: sine waves, rotations of queries and keys, and biases by distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal(places: Tensor, features: int, base: float = 10000.0) -> Tensor:
    """Sines and cosines of a place at wavelengths from 2 pi to 2 pi base.

    p_2i = sin(t / base^(2i/D)), p_2i+1 = cos(t / base^(2i/D))

    Shapes: places (T,) -> (T, features)

    Source: Vaswani et al., Attention is all you need, 2017.

    >>> sinusoidal(torch.arange(2), 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    if features % 2:
        raise ValueError(f"sinusoidal: features must be even, got {features}")
    turns = _angles(places, features, base)
    return torch.stack([turns.sin(), turns.cos()], -1).flatten(-2)


def _angles(places: Tensor, features: int, base: float) -> Tensor:
    rates = base ** (-torch.arange(0, features, 2, device=places.device) / features)
    return places[..., None].to(rates.dtype) * rates


def rotation(places: Tensor, features: int, base: float = 10000.0) -> Tensor:
    """The turns of :func:`rotate_places` as complex numbers: e^(i t base^(-2j/D)), (T, D/2).

    Raises:
        ValueError: an odd number of features.
    """
    if features % 2:
        raise ValueError(f"rotation: features must be even, got {features}")
    turns = _angles(places, features, base)
    return torch.polar(torch.ones_like(turns), turns)


def rotate_places(x: Tensor, turns: Tensor) -> Tensor:
    """Pairs of features (2j, 2j + 1) turned by the angle t base^(-2j/D) of their place t.

    The product of a turned query and a turned key depends on the distance of their places alone.
    A pair is a complex number, a turn one product.

    Shapes: x (..., T, D), turns (T, D/2) complex -> (..., T, D)

    Source: Su et al., RoFormer, 2021.

    >>> x = torch.randn(3, 8)
    >>> a, b = (rotate_places(x, rotation(torch.arange(3) + shift, 8)) for shift in (0, 5))
    >>> bool(torch.allclose(a @ a.T, b @ b.T, atol=1e-5))
    True
    """
    pairs = x.contiguous().view(*x.shape[:-1], -1, 2)
    if x.dtype in (torch.float16, torch.bfloat16):  # of which there are no complex numbers
        pairs = pairs.float()
    turned = torch.view_as_complex(pairs) * turns
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def turn_places(x: Tensor, turns: Tensor) -> None:
    """What :func:`rotate_places` gives, in the place of x, which may be a part of a tensor.

    Shapes: x (..., T, D), turns (T, D/2) complex

    >>> x, turns = torch.randn(3, 8), rotation(torch.arange(3), 8)
    >>> wanted = rotate_places(x, turns)
    >>> turn_places(x, turns)
    >>> torch.equal(x, wanted)
    True
    """
    if x.dtype in (torch.float16, torch.bfloat16):
        x.copy_(rotate_places(x, turns))
    else:
        torch.view_as_complex(x.view(*x.shape[:-1], -1, 2)).mul_(turns)


def slopes(heads: int) -> Tensor:
    """The slope of each head's bias -m |t - s|: 2^(-8 h / H) for h = 1 to H.

    Shapes: -> (H,)

    Source: Press et al., Train short, test long: ALiBi, 2022.

    >>> slopes(4).tolist()
    [0.25, 0.0625, 0.015625, 0.00390625]
    """
    if heads < 1:
        raise ValueError(f"slopes: heads must be at least 1, got {heads}")
    return 2.0 ** (-8.0 / heads * torch.arange(1, heads + 1))


def distances(length: int, size: int, device: torch.device | None = None) -> Tensor:
    """s - t of the last ``length`` of ``size`` places and all keys: (length, size).

    >>> distances(2, 3).tolist()
    [[-1, 0, 1], [-2, -1, 0]]
    """
    places = torch.arange(size - length, size, device=device)
    return torch.arange(size, device=device) - places[:, None]


def bucketed(distance: Tensor, buckets: int = 32, most: int = 128, causal: bool = False) -> Tensor:
    """Distances as numbers of buckets: near ones each alone, far ones in steps that grow.

    Half of the buckets (all when causal) are for each direction; of those the first half hold one
    distance each, the others grow by a factor up to ``most``, the last takes all beyond.

    Shapes: (T, S) int64 -> (T, S) int64 in 0..buckets-1

    Source: Raffel et al., T5, 2020.

    >>> bucketed(torch.tensor([0, -1, -2, -200, 3]), buckets=8, most=16).tolist()
    [0, 1, 2, 3, 6]
    """
    if buckets < 4 or buckets % 2:
        raise ValueError(f"bucketed: buckets must be even and at least 4, got {buckets}")
    start: Tensor | int = 0
    if causal:
        far = (-distance).clamp_min(0)
    else:
        buckets //= 2
        start, far = (distance > 0) * buckets, distance.abs()
    exact = buckets // 2
    grown = torch.log(far.clamp_min(1) / exact) / math.log(most / exact) * (buckets - exact)
    large = (exact + grown.long()).clamp_max(buckets - 1)
    return start + torch.where(far < exact, far, large)
