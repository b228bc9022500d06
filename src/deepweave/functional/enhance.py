"""Smoothing along edges and not across them, by a diffusivity that is a tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepweave.functional.heat import heat
from deepweave.functional.stencil import widened

LIMIT = 0.25  # the longest stable step


def edge_enhancing(
    u: Tensor, time: float, contrast: float, *, sigma: float = 1.0, steps: int | None = None
) -> Tensor:
    """Images smoothed along their edges: u_t = div(T grad u).

    T has the eigenvectors across and along the gradient of the image smoothed by a Gaussian of
    width sigma. Along it the diffusivity is 1; across it
    1 - exp(-3.315 / (|grad u_sigma| / contrast)^8), which is nearly 0 at edges. Noise at an edge,
    which Perona and Malik's form leaves, is smoothed too.

    Args:
        u: images, their last two axes in space.
        time: how long, in pixels squared.
        contrast: the slope above which there is an edge.
        sigma: of the Gaussian, in pixels.
        steps: explicit steps; None: as few as are stable.

    Shapes: u (..., H, W) -> the same

    Raises:
        ValueError: a negative time, a contrast or sigma that is not positive, steps too long.

    Source: Weickert, Anisotropic diffusion in image processing, 1998.

    >>> edge_enhancing(torch.eye(5), 1.0, 0.1).sum().round()
    tensor(5.)
    """
    for name, value in (("contrast", contrast), ("sigma", sigma)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"edge_enhancing: {name} must be positive, got {value}")
    if not (time >= 0 and math.isfinite(time)):
        raise ValueError(f"edge_enhancing: time must be finite and not negative, got {time}")
    if steps is not None and steps < 1:
        raise ValueError(f"edge_enhancing: steps must be at least 1, got {steps}")
    if u.dim() < 2 or min(u.shape[-2:]) < 2 or not u.is_floating_point():
        raise ValueError(f"edge_enhancing: u must be (..., H, W) of floating-point numbers, got "
                         f"{tuple(u.shape)} of {u.dtype}")  # fmt: skip
    steps = max(1, math.ceil(time / LIMIT - 1e-9)) if steps is None else steps
    if time > steps * LIMIT * (1 + 1e-6):
        raise ValueError(
            f"edge_enhancing: {steps} steps of {time / steps:.3g} are not stable: a step may be at "
            f"most {LIMIT}, so take {math.ceil(time / LIMIT)}"
        )
    for _ in range(steps):
        u = u + time / steps * _growth(u, contrast, sigma)
    return u


def _growth(u: Tensor, contrast: float, sigma: float) -> Tensor:
    """div(T grad u), T = low + (1 - low) t t', t along the edge.

    The even part flows through the faces between cells. The part along edges is taken where four
    cells meet: there both components of a slope are seen by the same four, so that nothing flows
    across an edge, however sharp.
    """
    right, down = _corners(heat(u, sigma**2 / 2))
    square = right**2 + down**2
    ratio = (square / contrast**2).clamp_min(1e-3)
    low = 1 - torch.exp(-3.315 / ratio**4)
    share = (1 - low) / square.clamp_min(torch.finfo(u.dtype).tiny)
    own = _corners(u)
    along = share * (right * own[1] - down * own[0])
    total = torch.zeros_like(u)
    for axis, other, flow in ((-1, -2, -down * along), (-2, -1, right * along)):
        even = _halves(_held(low, other), other) * u.diff(dim=axis)
        flux = even + _halves(widened(flow, other, "neumann"), other)
        total = total + widened(flux, axis, "neumann").diff(dim=axis)
    return total


def _corners(u: Tensor) -> tuple[Tensor, Tensor]:
    """The slopes to the right and down where four cells meet, (..., H - 1, W - 1)."""
    return _halves(u.diff(dim=-1), -2), _halves(u.diff(dim=-2), -1)


def _halves(u: Tensor, axis: int) -> Tensor:
    """The means of neighbours along an axis."""
    size = u.shape[axis] - 1
    return (u.narrow(axis, 0, size) + u.narrow(axis, 1, size)) / 2


def _held(u: Tensor, axis: int) -> Tensor:
    """One more cell at each end of an axis, like the one beside it."""
    last = u.narrow(axis, u.shape[axis] - 1, 1)
    return torch.cat([u.narrow(axis, 0, 1), u, last], axis)
