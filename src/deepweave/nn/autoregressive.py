"""Autoregressive bijections: each feature is moved by what the features before it say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.nn.activations import Activation
from deepweave.nn.bijection import Bijection
from deepweave.nn.made import MADE
from deepweave.nn.scalar import Kind, scalar


class Autoregressive(Bijection):
    """z_i = g(x_i; parameters of x_1 .. x_i-1): densities in one pass, samples feature by feature.

    With ``kind="affine"`` it is a masked autoregressive flow, with ``"spline"`` an autoregressive
    neural spline flow. The inverse computes each hidden unit once: see :meth:`MADE.unroll`.

    Args:
        features: D.
        kind: the map g of one number.
        hidden: widths of the masked network.
        context: how many numbers of context; 0 for none.
        bins, bound: of a spline: its bins, and B of its interval [-B, B].
        most: of an affine map: the bound of its log scale.
        net: another autoregressive network, (B, D) and maybe context -> (B, D, P); its inverse is
            found by :func:`jacobi`.
        tolerance: of that.

    Shapes: x (B, D), context (B, C) -> (B, D), (B,)
    Raises:
        ValueError: sizes or numbers out of range.
    Source: Papamakarios, Pavlakou & Murray, Masked autoregressive flow for density estimation,
    2017; Durkan et al., Neural spline flows, 2019.

    >>> layer = Autoregressive(4, "spline")
    >>> z, _ = layer(torch.randn(2, 4))
    >>> layer.inverse(z)[0].shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        features: int,
        kind: Kind = "spline",
        hidden: Sequence[int] = (64, 64),
        *,
        context: int = 0,
        activation: Activation = "relu",
        bins: int = 8,
        bound: float = 5.0,
        most: float = 3.0,
        net: nn.Module | None = None,
        tolerance: float = 1e-6,
    ):
        super().__init__()
        self.scalar = scalar("Autoregressive", kind, bins=bins, bound=bound, most=most)
        self.features, self.tolerance = features, tolerance
        self.net = net or MADE(
            features, self.scalar.size, hidden, context=context, activation=activation
        )

    def _conditioned(self, x: Tensor, context: Tensor | None) -> Tensor:
        return self.net(x) if context is None else self.net(x, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.scalar.forward(x, self._conditioned(x, context))
        return z, log_slope.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not isinstance(self.net, MADE):

            def better(x: Tensor) -> Tensor:
                return self.scalar.inverse(z, self._conditioned(x, context))[0]

            x, _ = jacobi(better, torch.zeros_like(z), tolerance=self.tolerance)
            return x, -self(x, context)[1]
        slopes: list[Tensor] = []

        def step(one: Tensor, parameters: Tensor) -> Tensor:
            x, log_slope = self.scalar.inverse(one, parameters)
            slopes.append(log_slope)
            return x

        return self.net.unroll(z, step, context), torch.stack(slopes).sum(0)


def jacobi(
    better: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    tolerance: float = 1e-6,
    most: int | None = None,
    every: int = 1,
) -> tuple[Tensor, int]:
    """The fixed point x = better(x) of a map whose feature i hears of those before it alone.

    All features are improved at once, until none moves by more than ``tolerance``. After k rounds
    the first k features are exact, so that D rounds always suffice; trained networks need far
    fewer. Any autoregressive network of any library can be turned round with it: ``better`` inverts
    the elementwise maps with the parameters that the guess gives.

    Args:
        better: (B, D) -> (B, D).
        start: the first guess.
        most: rounds at most; None: D.
        every: rounds between two looks at the largest move; each look waits for the device.

    Shapes: start (B, D) -> (B, D), and how many rounds it took
    Raises:
        ValueError: a tolerance or numbers out of range.
    Source: Song, Meng, Liao & Ermon, Accelerating feedforward computation via parallel nonlinear
    equation solving, 2021.

    >>> weight = torch.randn(8, 8).tril(-1)
    >>> x, rounds = jacobi(lambda x: 1 - x @ weight.T, torch.zeros(2, 8))
    >>> rounds <= 8, torch.allclose(x + x @ weight.T, torch.ones(2, 8), atol=1e-4)
    (True, True)
    """
    if not tolerance >= 0 or every < 1 or (most is not None and most < 1):
        raise ValueError(
            "jacobi: tolerance must not be below 0, most and every at least 1, got "
            f"{tolerance}, {most}, {every}"
        )
    x, rounds = start, 0
    blind: Any = torch._C._are_functorch_transforms_active()  # then no value may be looked at
    for rounds in range(1, (most or start.shape[1]) + 1):
        new = better(x)
        move, x = new - x, new
        if not blind and rounds % every == 0 and float(move.detach().abs().max()) <= tolerance:
            break
    return x, rounds
