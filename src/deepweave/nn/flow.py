"""Normalizing flows: a simple distribution seen through a bijection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepweave.nn.bijection import Bijection


class StandardNormal(nn.Module):
    """Independent normal numbers of mean 0 and variance 1: the usual noise of a flow.

    Shapes: z (B, ...) -> log density (B,)
    """

    def log_prob(self, z: Tensor) -> Tensor:
        numbers = math.prod(z.shape[1:])
        return -(z.flatten(1).square().sum(1) + numbers * math.log(2 * math.pi)) / 2

    def draw(self, like: Tensor) -> Tensor:
        """Numbers of a tensor's shape, type and place."""
        return torch.randn_like(like)


class InversionError(NamedTuple):
    """How far samples come back from where they went: rounding, or the steps of a solver."""

    largest: float  # max |x - f^-1(f(x))|
    median: float  # over samples, of their largest
    log_det: float  # max |log det there + log det back|, in nats
    finite: float  # the share of samples for which all of it is finite


class Flow(nn.Module):
    """A density: log p(x) = log p_Z(f(x)) + log |det df/dx|, from which one also samples.

    Called, it gives the log density of each sample, in nats.

    Args:
        bijection: f, from data to noise.
        shape: of one sample.
        context: how many numbers of context the bijection hears; 0 for none.
        base: the noise: a module with ``log_prob(z)`` and ``draw(like)``; None: normal.
        noise: the shape of one sample's z; None: as ``shape``.
        levels: of data with so many levels in [0, 1], that the bijection dequantises.

    Shapes: x (B, *shape), context (B, C) -> (B,)
    Raises:
        TypeError: no bijection.
        ValueError: with data: shapes that do not fit, a context that is missing or not wanted.
    Source: Papamakarios et al., Normalizing flows for probabilistic modeling and inference, 2021.

    >>> from deepweave.nn import Autoregressive
    >>> flow = Flow(Autoregressive(2), (2,))
    >>> flow(torch.zeros(1, 2))  # at first nearly the base: -log(2 pi)
    tensor([-1.8379], grad_fn=<AddBackward0>)
    >>> flow.sample(5).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        bijection: Bijection,
        shape: Sequence[int],
        *,
        context: int = 0,
        base: nn.Module | None = None,
        noise: Sequence[int] | None = None,
        levels: int | None = None,
    ):
        super().__init__()
        if not callable(getattr(bijection, "inverse", None)):
            raise TypeError(f"Flow: bijection must have an inverse, got {type(bijection).__name__}")
        self.bijection = bijection
        self.shape, self.context, self.levels = tuple(shape), context, levels
        self.noise = tuple(shape if noise is None else noise)
        self.base = StandardNormal() if base is None else base

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.log_prob(x, context)

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """log p(x), or log p(x | context), in nats. Shapes: x (B, *shape) -> (B,)"""
        z, log_det = self.encode(x, context)
        base: Any = self.base
        return base.log_prob(z) + log_det

    def encode(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The noise of samples, and log |det dz/dx|. Shapes: x (B, *shape) -> (B, ...), (B,)"""
        if x.shape[1:] != self.shape or x.dim() != len(self.shape) + 1:
            raise ValueError(f"Flow: x must be (B, {_told(self.shape)}), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise TypeError(f"Flow: x must be floating-point numbers, got {x.dtype}")
        return self.bijection(x, self._context(context, len(x)))

    def decode(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Samples of noise, and log |det dx/dz|. Shapes: z (B, ...) -> (B, *shape), (B,)"""
        if z.shape[1:] != self.noise or z.dim() != len(self.noise) + 1:
            raise ValueError(f"Flow: z must be (B, {_told(self.noise)}), got {tuple(z.shape)}")
        return self.bijection.inverse(z, self._context(context, len(z)))

    def push(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Samples of noise, with slopes, and their log density. Shapes: -> (B, *shape), (B,)"""
        x, log_det = self.decode(z, context)
        base: Any = self.base
        return x, base.log_prob(z) - log_det

    def draw(self, n: int) -> Tensor:
        """Noise for n samples. Shapes: -> (n, ...)"""
        if n < 1:
            raise ValueError(f"Flow: n must be at least 1, got {n}")
        like = next((w for w in self.parameters()), torch.empty(0))
        base: Any = self.base
        return base.draw(like.new_empty(n, *self.noise))

    def sample(self, n: int, context: Tensor | None = None) -> Tensor:
        """n samples, without slopes; given a context (C,), or one for each, (n, C).

        Shapes: -> (n, *shape)
        """
        with torch.no_grad():
            return self.decode(self.draw(n), _each(context, n))[0]

    def sample_and_log_prob(self, n: int, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """n samples and their log density in one pass, with slopes: what reverse KL needs.

        Shapes: -> (n, *shape), (n,)
        """
        return self.push(self.draw(n), _each(context, n))

    @torch.no_grad()
    def inversion_error(self, x: Tensor, context: Tensor | None = None) -> InversionError:
        """What is lost from data to noise and back, in the data's unit.

        >>> from deepweave.nn import Planar
        >>> flow = Flow(Planar(2), (2,))
        >>> flow.inversion_error(torch.randn(64, 2)).largest < 1e-5
        True
        """
        was = self.training
        self.eval()
        try:
            z, there = self.encode(x, context)
            again, back = self.decode(z, context)
        finally:
            self.train(was)
        gap = (x - again).abs().flatten(1).amax(1)
        turn = (there + back).abs()
        finite = gap.isfinite() & turn.isfinite()
        gap, turn = gap[finite], turn[finite]
        if not len(gap):
            return InversionError(math.inf, math.inf, math.inf, 0.0)
        share = float(finite.double().mean())
        return InversionError(float(gap.max()), float(gap.median()), float(turn.max()), share)

    def _context(self, context: Tensor | None, rows: int) -> Tensor | None:
        if self.context == 0:
            if context is not None:
                raise ValueError(
                    f"Flow: this flow takes no context, got {tuple(context.shape)}: make it with "
                    "context="
                )
            return None
        if context is None:
            raise ValueError(f"Flow: a context (B, {self.context}) is needed, got none")
        if context.shape != (rows, self.context):
            raise ValueError(
                f"Flow: context must be {(rows, self.context)}, got {tuple(context.shape)}"
            )
        return context

    def extra_repr(self) -> str:
        told = f"shape={self.shape}"
        told += f", context={self.context}" if self.context else ""
        return told + (f", levels={self.levels}" if self.levels else "")


def _each(context: Tensor | None, n: int) -> Tensor | None:
    """One context for all, or one for each."""
    return context.expand(n, -1) if context is not None and context.dim() == 1 else context


def _told(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
