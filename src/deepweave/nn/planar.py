"""Planar and radial bijections: space pushed along one direction, or around one point."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.nn.bijection import Bijection, checked
from deepweave.nn.dense import Dense

ROUNDS = 50  # of Newton's method within a bracket that halves: below rounding long before


class Planar(Bijection):
    """z = x + u tanh(w . x + b), with u moved so that w . u > -1: always invertible.

    u_hat = u + (softplus(w . u + 1/2) - 1 - w . u) w / |w|^2. The inverse is numeric: one monotone
    equation for w . x, by Newton's method within a bracket, to rounding.

    Args:
        features: D.
        context: how many numbers of context, which add to u, w and b; 0 for none.

    Shapes: x (B, D), context (B, C) -> (B, D), (B,)
    Source: Rezende & Mohamed, Variational inference with normalizing flows, 2015.

    >>> layer = Planar(3)
    >>> x = torch.randn(4, 3)
    >>> torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-5)
    True
    """

    def __init__(self, features: int, *, context: int = 0):
        super().__init__()
        checked("Planar", features, context)
        self.features = features
        self.numbers = nn.Parameter(torch.empty(2 * features + 1))
        self.conditioner = Dense(context, 2 * features + 1, gain=0.1) if context else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.numbers, std=1 / math.sqrt(self.features))

    def _numbers(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """u_hat and w (B, D), b and w . u_hat (B,)."""
        numbers = self.numbers.expand(len(x), -1)
        if self.conditioner is not None and context is not None:
            numbers = numbers + self.conditioner(context)
        u, w, b = numbers.split([self.features, self.features, 1], 1)
        along = (w * u).sum(1)
        slope = F.softplus(along + 0.5) - 1
        size = w.square().sum(1).clamp_min(1e-12)
        u = u + ((slope - along) / size).unsqueeze(1) * w
        return u, w, b.squeeze(1), slope

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, w, b, slope = self._numbers(x, context)
        bent = torch.tanh((w * x).sum(1) + b)
        log_det = torch.log1p(slope * (1 - bent.square()))
        return x + u * bent.unsqueeze(1), log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, w, b, slope = self._numbers(z, context)
        goal = (w * z).sum(1)
        with torch.no_grad():
            reach = slope.abs()
            low, high = goal - reach, goal + reach
            at = goal.clone()
            for _ in range(ROUNDS):
                bent = torch.tanh(at + b)
                over = at + slope * bent - goal
                low, high = torch.where(over < 0, at, low), torch.where(over < 0, high, at)
                newton = at - over / (1 + slope * (1 - bent.square()))
                middle = (low + high) / 2
                at = torch.where((newton > low) & (newton < high), newton, middle)
        # One more step of Newton with slopes: it moves nothing, and its slope is the inverse's.
        bent = torch.tanh(at + b)
        rate = 1 + slope * (1 - bent.square())
        at = at - (at + slope * bent - goal) / rate.detach()
        bent = torch.tanh(at + b)
        log_det = torch.log1p(slope * (1 - bent.square()))
        return z - u * bent.unsqueeze(1), -log_det


class Radial(Bijection):
    """z = x + beta h(r) (x - x_0), h = 1 / (alpha + r), r = |x - x_0|, with beta > -alpha.

    The inverse is exact: r is the positive root of a quadratic.

    Args:
        features: D.
        context: how many numbers of context, which add to x_0, alpha and beta; 0 for none.

    Shapes: x (B, D), context (B, C) -> (B, D), (B,)
    Source: Rezende & Mohamed, Variational inference with normalizing flows, 2015.

    >>> layer = Radial(3)
    >>> x = torch.randn(4, 3)
    >>> torch.allclose(layer.inverse(layer(x)[0])[0], x, atol=1e-5)
    True
    """

    def __init__(self, features: int, *, context: int = 0):
        super().__init__()
        checked("Radial", features, context)
        self.features = features
        self.numbers = nn.Parameter(torch.empty(features + 2))
        self.conditioner = Dense(context, features + 2, gain=0.1) if context else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.numbers, std=0.5)

    def _numbers(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        numbers = self.numbers.expand(len(x), -1)
        if self.conditioner is not None and context is not None:
            numbers = numbers + self.conditioner(context)
        centre, alpha, beta = numbers.split([self.features, 1, 1], 1)
        alpha = F.softplus(alpha + 0.5) + 1e-3
        return centre, alpha, F.softplus(beta + 0.5) - alpha  # each with a slope where it is small

    def _log_det(self, r: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        across = torch.log1p(beta / (alpha + r))
        along = torch.log1p(beta * alpha / (alpha + r).square())
        return ((self.features - 1) * across + along).squeeze(1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self._numbers(x, context)
        away = x - centre
        r = _length(away)
        return x + beta / (alpha + r) * away, self._log_det(r, alpha, beta)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centre, alpha, beta = self._numbers(z, context)
        away = z - centre
        far = _length(away)
        half = (alpha + beta - far) / 2  # r^2 + 2 half r - far alpha = 0
        root = (half.square() + far * alpha).sqrt()
        r = torch.where(half > 0, far * alpha / (half + root), root - half)
        x = centre + away * (alpha + r) / (alpha + r + beta)
        return x, -self._log_det(r, alpha, beta)


def _length(x: Tensor) -> Tensor:
    """|x| of each row, with a slope of 0 at 0. Shapes: (B, D) -> (B, 1)"""
    return x.square().sum(1, keepdim=True).clamp_min(1e-24).sqrt()
