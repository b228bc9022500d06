"""Diffusion as a network: a diffusivity that is learned from fields before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.heat import heat


@blueprint
class Heat(nn.Module):
    """What a field becomes after some time, of a diffusivity D that is a weight.

    One D for all is e^theta; a D for each cell is ``highest`` sigmoid(theta). Fitted to fields
    before and after, it solves the inverse problem: what do they flow through?

    Args:
        grid: the field's shape in space, 1 to 3 axes.
        time: how long.
        field: a D of its own for each cell.
        start: D at first.
        highest: no D of a field gets above it.
        boundary, spacing: as of :func:`deepweave.functional.heat`.

    Shapes: u (B, *grid) -> (B, *grid)

    Raises:
        ValueError: a field without ``highest`` or with a start above it, another grid.

    >>> Heat((4, 5), 1.0)(torch.zeros(2, 4, 5)).shape
    torch.Size([2, 4, 5])
    """

    def __init__(
        self,
        grid: Sequence[int],
        time: float,
        field: bool = False,
        *,
        start: float = 1.0,
        highest: float | None = None,
        boundary: str = "neumann",
        spacing: float = 1.0,
    ):
        super().__init__()
        if not 1 <= len(grid) <= 3 or min(grid) < 1:
            raise ValueError(f"Heat: grid must have 1 to 3 axes of at least 1, got {tuple(grid)}")
        if field and (highest is None or not 0 < start < highest):
            raise ValueError(
                f"Heat: a field needs 0 < start < highest, got start {start}, highest {highest}"
            )
        if not start > 0:
            raise ValueError(f"Heat: start must be positive, got {start}")
        self.grid, self.time, self.highest = tuple(grid), time, highest if field else None
        self.boundary, self.spacing, self.start = boundary, spacing, start
        self.theta = nn.Parameter(torch.empty(self.grid if field else ()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Begin with D at ``start`` everywhere."""
        first = math.log(self.start)
        if self.highest is not None:
            first -= math.log(self.highest - self.start)
        nn.init.constant_(self.theta, first)

    @property
    def diffusivity(self) -> Tensor:
        """D as it is now, () or the grid."""
        if self.highest is None:
            return self.theta.exp()
        return self.highest * self.theta.sigmoid()

    def forward(self, u: Tensor) -> Tensor:
        if tuple(u.shape[1:]) != self.grid:
            raise ValueError(f"Heat: u must be (B, {self.grid}), got {tuple(u.shape)}")
        found = self.diffusivity if self.highest is None else self.diffusivity[None]
        return heat(
            u, self.time, found, axes=len(self.grid), boundary=self.boundary,
            spacing=self.spacing, highest=self.highest,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.grid}, time={self.time}, boundary={self.boundary}"
