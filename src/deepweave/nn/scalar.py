"""Monotone maps of one number, whose parameters a network gives: affine, or a spline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from deepweave.functional.splines import rational_quadratic

Kind = Literal["affine", "spline"]


@dataclass(frozen=True)
class Affine:
    """z = x e^s + t, with s bounded softly: |s| < ``most``.

    Shapes: x (...), parameters (..., 2) -> (...), log slope (...)
    Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017.
    """

    most: float = 3.0

    @property
    def size(self) -> int:
        """How many parameters a number has."""
        return 2

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(-1)
        scale = self.most * torch.tanh(raw / self.most)
        return x * scale.exp() + shift, scale

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = parameters.unbind(-1)
        log_slope = self.most * torch.tanh(raw / -self.most)
        return (z - shift) * log_slope.exp(), log_slope


@dataclass(frozen=True)
class Spline:
    """A rational-quadratic spline: see :func:`deepweave.functional.rational_quadratic`.

    Shapes: x (...), parameters (..., 3 bins - 1) -> (...), log slope (...)
    """

    bins: int = 8
    bound: float = 5.0

    @property
    def size(self) -> int:
        """How many parameters a number has."""
        return 3 * self.bins - 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic(x, parameters, bound=self.bound)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic(z, parameters, bound=self.bound, inverse=True)


def scalar(name: str, kind: Kind, *, bins: int, bound: float, most: float) -> Affine | Spline:
    """The map of a kind, with the numbers that concern it.

    Raises:
        ValueError: an unknown kind, fewer than 2 bins, or a bound not above 0.
    """
    if kind not in ("affine", "spline"):
        raise ValueError(f"{name}: kind must be 'affine' or 'spline', got {kind!r}")
    if bins < 2:
        raise ValueError(f"{name}: bins must be at least 2, got {bins}")
    for what, value in (("bound", bound), ("most", most)):
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: {what} must be above 0, got {value}")
    return Affine(most) if kind == "affine" else Spline(bins, bound)
