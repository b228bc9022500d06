"""A continuous bijection: samples flow along a learnt velocity, in fixed Runge-Kutta steps."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.nn.bijection import Bijection, checked
from deepweave.nn.dense import Dense


class Velocity(nn.Module):
    """v(x, t, context) of tanh layers, and the derivative of v along given directions.

    The directions go through the layers beside x (forward mode), so that the trace of dv/dx is
    exact or estimated without a second graph, and everything vmaps.

    Shapes: x (B, D), t (), directions (B, K, D) -> (B, D), (B, K, D)
    """

    def __init__(self, features: int, hidden: Sequence[int], context: int):
        super().__init__()
        widths = [features, *hidden]
        self.layers = nn.ModuleList(Dense(a, b, gain=1.0) for a, b in pairwise(widths))
        self.clocks = nn.ModuleList(Dense(1 + context, b, gain=1.0) for b in hidden)
        self.out = Dense(widths[-1], features, gain=0.1)

    def forward(
        self, x: Tensor, t: Tensor, directions: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        clock = t.expand(len(x), 1)
        if context is not None:
            clock = torch.cat([clock, context], 1)
        for layer, timing in zip(self.layers, self.clocks):
            x = torch.tanh(layer(x) + timing(clock))
            directions = (1 - x.square()).unsqueeze(1) * (directions @ layer.weight.t())  # pyright: ignore
        return self.out(x), directions @ self.out.weight.t()


class Continuous(Bijection):
    """z = x(1) of dx/dt = v(x, t), x(0) = x; the log-determinant is the integral of tr dv/dx.

    Fixed steps of the classical Runge-Kutta method of order four carry x and the trace together.
    The trace is exact with up to ``exact`` features and in evaluation mode; in training with more
    it is Hutchinson's estimate e . (dv/dx) e with one random sign vector for each sample and pass.
    The inverse runs the same steps back. Both, and the log-determinant, are exact up to the error
    of the steps, of order ``steps``^-4: with the default steps about 1e-4 for the velocities of
    trained flows; see :meth:`deepweave.nn.Flow.inversion_error`.

    Args:
        features: D.
        hidden: widths of the velocity's layers.
        steps: how many.
        context: how many numbers of context; 0 for none.
        exact: up to so many features the trace is exact in training, too.

    Shapes: x (B, D), context (B, C) -> (B, D), (B,)
    Source: Grathwohl et al., FFJORD: free-form continuous dynamics for scalable reversible
    generative models, 2019; Chen et al., Neural ordinary differential equations, 2018.

    >>> layer = Continuous(2)
    >>> x = torch.randn(4, 2)
    >>> torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-4)
    True
    """

    def __init__(
        self,
        features: int,
        hidden: Sequence[int] = (64, 64),
        *,
        steps: int = 8,
        context: int = 0,
        exact: int = 8,
    ):
        super().__init__()
        checked("Continuous", features, context, steps=steps)
        if not hidden or not all(isinstance(width, int) and width > 0 for width in hidden):
            raise ValueError(f"Continuous: hidden must be widths of at least 1, got {hidden}")
        self.features, self.steps, self.exact = features, steps, exact
        self.velocity = Velocity(features, hidden, context)

    def _flow(self, x: Tensor, context: Tensor | None, back: bool) -> tuple[Tensor, Tensor]:
        step = (-1.0 if back else 1.0) / self.steps
        begin = 1.0 if back else 0.0
        estimated = self.training and self.features > self.exact
        if estimated:
            ways = (torch.rand_like(x) < 0.5).to(x.dtype).mul(2).sub(1).unsqueeze(1)
        else:
            ways = torch.eye(self.features, dtype=x.dtype, device=x.device).expand(len(x), -1, -1)

        def rate(x: Tensor, t: float) -> tuple[Tensor, Tensor]:
            v, along = self.velocity(x, x.new_tensor(t), ways, context)
            return v, (along * ways).flatten(1).sum(1)

        total: Any = x.new_zeros(len(x))
        for i in range(self.steps):
            t = begin + i * step
            v1, d1 = rate(x, t)
            v2, d2 = rate(x + step / 2 * v1, t + step / 2)
            v3, d3 = rate(x + step / 2 * v2, t + step / 2)
            v4, d4 = rate(x + step * v3, t + step)
            x = x + step / 6 * (v1 + 2 * v2 + 2 * v3 + v4)
            total = total + step / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
        return x, total

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._flow(x, context, back=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._flow(z, context, back=True)
