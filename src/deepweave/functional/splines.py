"""Monotone rational-quadratic splines: elementwise maps that are exactly invertible."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 0.08  # a bin's width and height are at least this share of 2B / K
FLAT = 0.01  # the least slope at a knot; with less than both the inverse drowns in rounding


def rational_quadratic(
    x: Tensor, shape: Tensor, *, bound: float = 5.0, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """A monotone rational-quadratic spline on [-B, B], the identity outside; and its log slope.

    In the bin from (x_k, y_k) to (x_k+1, y_k+1), with xi = (x - x_k) / (x_k+1 - x_k), mean slope s
    and slopes d_k, d_k+1 at the knots,

        y = y_k + (y_k+1 - y_k) (s xi^2 + d_k xi (1 - xi)) / (s + (d_k + d_k+1 - 2 s) xi (1 - xi))

    ``shape`` holds, unconstrained, K widths, K heights and the K - 1 slopes inside; zeros give the
    identity. There is no branch on data: it vmaps, and its slopes are finite everywhere.

    Args:
        bound: B.
        inverse: whether to give x of y, and the log slope of that map.

    Shapes: x (...), shape (..., 3K - 1) -> (...), (...)
    Raises:
        ValueError: shapes that do not fit, or a bound not above 0.
    Source: Durkan, Bekasov, Murray & Papamakarios, Neural spline flows, 2019.

    >>> x = torch.tensor([-9.0, 0.5, 2.0])
    >>> y, log_slope = rational_quadratic(x, torch.randn(3, 23))
    >>> back, log_back = rational_quadratic(y, torch.zeros(3, 23), inverse=True)
    >>> rational_quadratic(x, torch.zeros(3, 23))[0]
    tensor([-9.0000,  0.5000,  2.0000])
    """
    bins, rest = divmod(shape.shape[-1] + 1, 3)
    if rest or bins < 2:
        raise ValueError(
            "rational_quadratic: shape must have 3K - 1 numbers, K at least 2, "
            f"got {shape.shape[-1]}"
        )
    if shape.shape[:-1] != x.shape:
        raise ValueError(
            f"rational_quadratic: shape must be {(*x.shape, 3 * bins - 1)}, "
            f"got {tuple(shape.shape)}"
        )
    if not (bound > 0 and math.isfinite(bound)):
        raise ValueError(f"rational_quadratic: bound must be above 0, got {bound}")
    inside = (x > -bound) & (x < bound)
    near = x.clamp(-bound, bound)
    (x0, y0), (width, height), (d0, d1) = _bin(near, shape, bins, bound, inverse)
    offset = (near - (y0 if inverse else x0)).to(x.dtype)
    mean = height / width
    bend = d0 + d1 - 2 * mean
    if inverse:
        a = height * (mean - d0) + offset * bend
        b = height * d0 - offset * bend
        c = -mean * offset
        root = (b.square() - 4 * a * c).clamp_min(1e-30).sqrt()
        # The same root in two forms: each is free of cancellation for one sign of b.
        turn = b < 0
        above = torch.where(turn, root - b, -2 * c)
        xi = (above / torch.where(turn, 2 * a, root + b)).clamp(0, 1)
    else:
        xi = (offset / width).clamp(0, 1)
    rest_of = 1 - xi
    both = xi * rest_of
    below = mean + bend * both
    above = d1 * xi.square() + 2 * mean * both + d0 * rest_of.square()
    log_slope = 2 * (mean.log() - below.log()) + above.log()
    if inverse:
        moved, log_slope = x0 + xi * width, -log_slope
    else:
        moved = y0 + height * (mean * xi.square() + d0 * both) / below
    return torch.where(inside, moved.to(x.dtype), x), torch.where(inside, log_slope, 0.0)


def _bin(
    x: Tensor, shape: Tensor, bins: int, bound: float, inverse: bool
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The bin that each element lies in: its lower corner, its sizes, the slopes at both ends.

    Knots have 64 bits: what a knot is off by is multiplied by the slope, and there and back the
    parameters of an autoregressive network are not the same to the last digit, which moves knots
    of 32 bits by jumps. Differences are then given in the bits of x.
    """
    wide = x.dtype if x.device.type == "mps" else torch.float64  # there is no float64 on mps
    parts = shape[..., : 2 * bins].unflatten(-1, (2, bins)).to(wide)
    # A softmax but for its sum: along so short an axis that of torch takes five times as long.
    parts = (parts - parts.detach().amax(-1, keepdim=True)).exp()
    least, rest = LEAST / bins, 1 - LEAST  # of 2B, knot k lies at k least + rest (first k shares)
    order = torch.arange(bins, dtype=wide, device=x.device)
    sums = parts[..., int(inverse), :].detach().cumsum(-1)
    knots = order[1:] * least + sums[..., :-1] * (rest / sums[..., -1:])
    level = x.detach().to(wide) / (2 * bound) + 0.5
    place = (level.unsqueeze(-1) >= knots).sum(-1, keepdim=True)
    total = parts.sum(-1)
    at = place.unsqueeze(-1).expand(*parts.shape[:-1], 1)
    share = parts.gather(-1, at).squeeze(-1) / total
    upto = (parts * (order < place).to(wide).unsqueeze(-2)).sum(-1) / total
    corner = 2 * bound * (least * place.to(wide) + rest * upto) - bound
    sizes = (2 * bound * (least + rest * share)).to(x.dtype)
    one = math.log(math.expm1(1 - FLAT))  # softplus of it is 1 - FLAT
    slopes = F.pad(FLAT + F.softplus(shape[..., 2 * bins :] + one), (1, 1), value=1.0)
    slopes = slopes.gather(-1, torch.cat([place, place + 1], -1))
    return corner.unbind(-1), sizes.unbind(-1), slopes.unbind(-1)
