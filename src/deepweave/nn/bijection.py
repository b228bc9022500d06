"""Bijections: maps with an exact inverse and the logarithm of how they change volumes."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Bijection(nn.Module, ABC):
    """z = f(x), its inverse, and log |det df/dx| of each sample.

    The one contract of all bijections. ``forward`` goes from data to noise and ``inverse`` from
    noise to data; each gives the log-determinant of the map that it applied, so that those of a
    point there and back add to 0.

    Shapes: x (B, ...), context (B, C) -> z (B, ...), log_det (B,)
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z and log |det dz/dx|."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x and log |det dx/dz|."""


class Composition(Bijection):
    """Bijections one after the other: log-determinants add.

    Shapes: x (B, ...) -> (B, ...), (B,)
    Raises:
        TypeError: a part that is no bijection.

    >>> both = Composition([Permutation(3), Permutation(3, reverse=True)])
    >>> z, log_det = both(torch.tensor([[1.0, 2.0, 3.0]]))
    >>> both.inverse(z)[0]
    tensor([[1., 2., 3.]])
    """

    def __init__(self, parts: Sequence[Bijection]):
        super().__init__()
        for part in parts:
            if not callable(getattr(part, "inverse", None)):
                raise TypeError(f"Composition: every part needs an inverse, got {part!r:.60}")
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(len(x))
        for part in self.parts:
            x, log_det = part(x, context)
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        total = z.new_zeros(len(z))
        for part in reversed(self.parts):
            z, log_det = part.inverse(z, context)  # pyright: ignore[reportCallIssue]
            total = total + log_det
        return z, total


class Reversed(Bijection):
    """A bijection turned round: its inverse is the forward map.

    A masked autoregressive flow turned round is an inverse autoregressive flow: samples in one
    pass, densities one feature after the other.

    Source: Kingma et al., Improving variational inference with inverse autoregressive flow, 2016.
    """

    def __init__(self, inner: Bijection):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.inner(z, context)


class Permutation(Bijection):
    """Features in another order, drawn at random or reversed; volumes stay.

    Shapes: x (B, D) -> (B, D), zeros (B,)

    >>> Permutation(3, reverse=True)(torch.tensor([[1.0, 2.0, 3.0]]))[0]
    tensor([[3., 2., 1.]])
    """

    order: Tensor
    back: Tensor

    def __init__(self, features: int, *, reverse: bool = False):
        super().__init__()
        if features < 1:
            raise ValueError(f"Permutation: features must be at least 1, got {features}")
        order = torch.arange(features).flip(0) if reverse else torch.randperm(features)
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.index_select(1, self.order), x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.index_select(1, self.back), z.new_zeros(len(z))


class Flatten(Bijection):
    """Samples of any shape as vectors.

    Shapes: x (B, *shape) -> (B, D), zeros (B,)
    """

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.flatten(1), x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.unflatten(1, self.shape), z.new_zeros(len(z))

    def extra_repr(self) -> str:
        return str(self.shape)


class Squeeze(Bijection):
    """Blocks of 2 x 2 pixels as channels: half the side, four times the channels.

    Shapes: x (B, C, H, W) -> (B, 4C, H/2, W/2), zeros (B,)
    Raises:
        ValueError: an odd side.
    Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017.
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if x.dim() != 4 or x.shape[2] % 2 or x.shape[3] % 2:
            raise ValueError(f"Squeeze: needs (B, C, H, W) of even sides, got {tuple(x.shape)}")
        blocks = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, H/2, 2, W/2, 2)
        z = blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        return z, x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        blocks = z.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        return blocks.flatten(4, 5).flatten(2, 3), z.new_zeros(len(z))


def checked(name: str, features: int, context: int, **numbers: float) -> None:
    """Raise ValueError for sizes or numbers that no bijection can have."""
    if features < 1:
        raise ValueError(f"{name}: features must be at least 1, got {features}")
    if context < 0:
        raise ValueError(f"{name}: context must be 0 or a number of features, got {context}")
    for what, value in numbers.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name}: {what} must be above 0, got {value}")
