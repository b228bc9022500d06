"""Diffusion on a grid whose diffusivity differs from place to place: fluxes through the faces.

The middle of cell i is at (i + 1/2) h. Through the face between i and i + 1 flows
D_(i+1/2) (u_(i+1) - u_i) / h, D at a face the mean of both cells; through a wall nothing
(neumann), or, the wall held at zero, D_i (0 - u_i) / (h / 2) (dirichlet). What flows in, divided by
h, is how fast u_i grows. Whatever D is, nothing is lost between cells.

N cells in a row have N + 1 faces; the conductance of each, D / h^2, is kept axis by axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def widened(u: Tensor, axis: int, boundary: str) -> Tensor:
    """One more cell at each end of an axis: zero, or (periodic) that of the other end."""
    if boundary != "periodic":
        return F.pad(u, [*[0, 0] * (-axis - 1), 1, 1])
    last = u.narrow(axis, u.shape[axis] - 1, 1)
    return torch.cat([last, u, u.narrow(axis, 0, 1)], axis)


def conductances(
    diffusivity: Tensor, axes: int, boundary: str, spacing: Sequence[float]
) -> list[Tensor]:
    """The conductances of the faces along each of the last ``axes`` axes.

    Shapes: diffusivity (..., *grid) -> for each axis the same, one longer along it
    """
    found = []
    for axis, width in zip(range(-axes, 0), spacing):
        wide, size = widened(diffusivity, axis, boundary), diffusivity.shape[axis] + 1
        sum_ = wide.narrow(axis, 0, size) + wide.narrow(axis, 1, size)
        if boundary == "periodic":
            inner = sum_ / 2
        else:  # at a wall the sum is D of the one cell there
            inner = F.pad(sum_.narrow(axis, 1, size - 2) / 2, [*[0, 0] * (-axis - 1), 1, 1])
            if boundary == "dirichlet":
                place = torch.arange(size, device=sum_.device)
                wall = (place == 0) | (place == size - 1)
                wall = wall.view(-1, *[1] * (-axis - 1))
                inner = torch.where(wall, 2 * sum_, inner)
        found.append(inner / width**2)
    return found


def through_slopes(
    u: Tensor, diffusivity: object, axes: int, boundary: str, spacing: Sequence[float]
) -> list[Tensor]:
    """Conductances where D depends on the slope at each face: D(|u_(i+1) - u_i| / h).

    A wall that is held at zero is half a cell away. Shapes: as of :func:`conductances`
    """
    found = []
    for axis, width in zip(range(-axes, 0), spacing):
        slope = widened(u, axis, boundary).diff(dim=axis).abs() / width
        wall = None
        if boundary == "dirichlet":
            place = torch.arange(slope.shape[axis], device=slope.device)
            wall = (place == 0) | (place == slope.shape[axis] - 1)
            wall = wall.view(-1, *[1] * (-axis - 1))
            slope = torch.where(wall, 2 * slope, slope)
        inner: Tensor = diffusivity(slope)  # type: ignore[operator]
        inner = inner if wall is None else torch.where(wall, 2 * inner, inner)
        if boundary == "neumann":
            size = inner.shape[axis]
            inner = F.pad(inner.narrow(axis, 1, size - 2), [*[0, 0] * (-axis - 1), 1, 1])
        found.append(inner / width**2)
    return found


def laplacian(u: Tensor, across: Sequence[Tensor], boundary: str) -> Tensor:
    """div(D grad u), how fast each cell grows.

    Shapes: u (..., *grid), conductances ``across`` of each axis -> u's shape
    """
    axes = len(across)
    parts = [
        (conductance * widened(u, axis, boundary).diff(dim=axis)).diff(dim=axis)
        for axis, conductance in zip(range(-axes, 0), across)
    ]
    return torch.stack(parts).sum(0) if axes > 2 else sum(parts[1:], parts[0])


def outflow(across: Sequence[Tensor]) -> Tensor:
    """The sum of the conductances around each cell, (..., *grid).

    An explicit step is stable, and makes no new extremes, up to 1 / its largest. No eigenvalue of
    the Laplacian is above twice its largest (Gershgorin).
    """
    around = []
    for axis, one in zip(range(-len(across), 0), across):
        size = one.shape[axis] - 1
        around.append(one.narrow(axis, 0, size) + one.narrow(axis, 1, size))
    return sum(around[1:], around[0])
