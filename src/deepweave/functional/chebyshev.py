"""Functions of a large symmetric matrix that is known by its products alone, by Chebyshev's sums.

The bounds of the spectrum are known beforehand for diffusion, so the number of products is too: no
inner products, no test of convergence, nothing that a derivative or a ``vmap`` would stumble over.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
MOST = 20_000  # products; beyond that a mistake in the units is likelier than a wish


def exponential(
    twice: Product, u: Tensor, time: Tensor, bound: float, tolerance: float | None = None
) -> Tensor:
    """exp(-t L) u for a symmetric L with eigenvalues in [0, bound].

    With z = t bound / 2 and X = 1 - 2 L / bound: exp(-t L) = sum_k c_k T_k(X),
    c_k = (2 - [k = 0]) e^-z I_k(z), T_(k+1) = 2 X T_k - T_(k-1), summed until the rest is below the
    tolerance: about sqrt(2 z log(1 / tolerance)) products. The slope in t goes through the
    coefficients.

    Args:
        twice: 2 X u = 2 u - 4 L u / bound, in as few passes as its owner can.
        u: any shape.
        time: t, a scalar, not negative.
        bound: no eigenvalue is above it.
        tolerance: of the rest of the sum; None: the rounding of u's numbers.

    Raises:
        ValueError: more than 20,000 products would be needed.

    Source: Druskin & Knizhnerman, Two polynomial methods of calculating functions of symmetric
    matrices, 1989.

    >>> u = torch.tensor([1.0, 2.0], dtype=torch.float64)
    >>> exponential(lambda v: v * torch.tensor([2.0, -2.0]), u, torch.tensor(1.0), 1.0)
    tensor([1.0000, 0.7358], dtype=torch.float64)
    """
    tolerance = 8 * torch.finfo(u.dtype).eps if tolerance is None else tolerance
    z = time.double() * (bound / 2)
    rough = number(z)
    reach = math.log(8 / tolerance)
    count = math.ceil(math.sqrt(2 * rough * reach + reach**2)) + 2
    if count > MOST:
        raise ValueError(
            f"heat: {count:,} products would be needed for time times the largest rate, "
            f"{2 * rough:.3g}: take a shorter time, a coarser grid, or method='implicit'"
        )
    factors = _coefficients(z, count)
    sizes = factors.detach().abs().flip(0).cumsum(0).flip(0)  # what is left from each on
    count = max(2, int((sizes > tolerance).sum()))
    factors = factors[:count].to(u.dtype)
    before, now = u, twice(u) / 2
    total = factors[0] * before + factors[1] * now
    for factor in factors[2:]:
        before, now = now, twice(now) - before
        total = torch.addcmul(total, factor, now)
    return total


def number(value: Tensor) -> float:
    """A tensor's value, where the number of products hangs on it.

    Raises:
        ValueError: it differs among the members of a ``vmap``.
    """
    try:
        return float(value.detach())
    except RuntimeError:
        raise ValueError(
            "heat: under vmap a field of diffusivities (unless highest= is said), and the time of "
            "a field or a graph, may not differ from member to member: how many products are "
            "needed hangs on it"
        ) from None


def _coefficients(z: Tensor, count: int) -> Tensor:
    """c_0 to c_(count - 1) by the trapezoid rule, exact to rounding: (count,) float64."""
    points = 2 * count + 2
    angle = torch.arange(2 * points, dtype=torch.float64, device=z.device) * (math.pi / points)
    found = torch.fft.rfft(torch.exp(z * (angle.cos() - 1))).real[:count] / points
    return torch.cat([found[:1] / 2, found[1:]])


def solve(product: Product, b: Tensor, low: float, high: float, tolerance: float) -> Tensor:
    """The solution of A x = b for a symmetric A with eigenvalues in [low, high], low above 0.

    Chebyshev's iteration: about sqrt(high / low) log(2 / tolerance) / 2 products.

    Raises:
        ValueError: more than 20,000 products would be needed.

    Source: Golub & Varga, Chebyshev semi-iterative methods, 1961.

    >>> a = torch.tensor([1.0, 3.0])
    >>> solve(lambda v: a * v, torch.ones(2), 1.0, 3.0, 1e-6)
    tensor([1.0000, 0.3333])
    """
    ratio = high / low
    if ratio <= 1 + 1e-12:
        return b / high
    count = math.ceil(math.log(2 / tolerance) / math.acosh((ratio + 1) / (ratio - 1)))
    if count > MOST:
        raise ValueError(f"heat: {count:,} products would be needed in a step: take more steps")
    middle, spread = (high + low) / 2, (high - low) / (high + low)
    x = step = b / middle
    weight = 2.0
    for _ in range(count):
        weight = 1 / (1 - spread**2 * weight / 4)
        step = weight / middle * (b - product(x)) + (weight - 1) * step
        x = x + step
    return x
