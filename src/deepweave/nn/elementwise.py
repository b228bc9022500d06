"""Bijections of each number by itself: logit, softplus, and noise that makes steps continuous."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.nn.bijection import Bijection


class Logit(Bijection):
    """z = log(p / (1 - p)), p = a + (1 - 2a) x: numbers in [0, 1] onto the line.

    Args:
        margin: a, which keeps the ends 0 and 1 finite.

    Shapes: x (B, ...) in [0, 1] -> (B, ...), (B,)
    Raises:
        ValueError: a margin outside [0, 1/2).
    Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017.

    >>> Logit()(torch.tensor([[0.5]]))[0]
    tensor([[0.]])
    """

    def __init__(self, margin: float = 1e-3):
        super().__init__()
        if not 0 <= margin < 0.5:
            raise ValueError(f"Logit: margin must lie in [0, 1/2), got {margin}")
        self.margin = margin

    def _log_det(self, z: Tensor) -> Tensor:
        slopes = math.log(1 - 2 * self.margin) - F.logsigmoid(z) - F.logsigmoid(-z)
        return slopes.flatten(1).sum(1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z = torch.logit(self.margin + (1 - 2 * self.margin) * x)
        return z, self._log_det(z)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = (torch.sigmoid(z) - self.margin) / (1 - 2 * self.margin)
        return x, -self._log_det(z)


class Softplus(Bijection):
    """z with log(1 + e^z) = x: numbers above 0 onto the line.

    z = x + log(1 - e^-x), whose slope is 1 / (1 - e^-x).

    Shapes: x (B, ...) above 0 -> (B, ...), (B,)

    >>> Softplus().inverse(torch.tensor([[0.0]]))[0].exp()
    tensor([[2.]])
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gap = torch.log(-torch.expm1(-x))
        return x + gap, -gap.flatten(1).sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.softplus(z), F.logsigmoid(z).flatten(1).sum(1)


class Dequantize(Bijection):
    """x of L levels 0, 1/(L-1), .. 1 with uniform noise: z = (k + u) / L, k = (L - 1) x.

    A density of z then bounds the probability of the level from below, so that the flow's log
    density is in nats of the discrete data: log P(x) >= E_u log p(z) - D log L, which is what the
    log-determinant stands for. The noise is drawn in evaluation mode, too: without it the bound
    would not hold. The inverse takes z to its level; it is exact for levels only.

    Args:
        levels: L, at least 2.

    Shapes: x (B, ...) in [0, 1] -> (B, ...) in [0, 1), (B,)
    Raises:
        ValueError: fewer than 2 levels.
    Source: Theis, van den Oord & Bethge, A note on the evaluation of generative models, 2016.

    >>> layer = Dequantize(256)
    >>> x = torch.tensor([[0.0, 1.0, 10 / 255]])
    >>> torch.equal(layer.inverse(layer(x)[0])[0], x)
    True
    """

    def __init__(self, levels: int):
        super().__init__()
        if levels < 2:
            raise ValueError(f"Dequantize: levels must be at least 2, got {levels}")
        self.levels = levels

    def _log_det(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), -math.log(self.levels) * x[0].numel())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        noise = torch.rand_like(x)
        return (x * (self.levels - 1) + noise) / self.levels, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        level = (z * self.levels).floor().clamp(0, self.levels - 1)
        return level / (self.levels - 1), -self._log_det(z)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"
