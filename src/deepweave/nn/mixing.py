"""Linear bijections: activation normalisation with a data-dependent start, and LU mixing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepweave.nn.bijection import Bijection, checked


class ActNorm(Bijection):
    """z = e^s (x - m) / d + t for each feature or channel; m and d come from the first batch.

    In the first forward pass of training m and d become the mean and the deviation of that batch
    and stay so; s and t are learnt. Before it the map is the identity. A feature that is constant
    in the first batch keeps d = 1. |s| is softly held below ``most``.

    Args:
        features: D, or channels.
        most: the bound of the learnt log scale.

    Shapes: x (B, D) or (B, C, H, W) -> the same, (B,)
    Source: Kingma & Dhariwal, Glow: generative flow with invertible 1x1 convolutions, 2018.

    >>> layer = ActNorm(2)
    >>> z = layer(torch.randn(4096, 2) * 5 + 3)[0].detach()
    >>> torch.allclose(z.mean(0), torch.zeros(2), atol=1e-4), round(float(z.std()), 2)
    (True, 1.0)
    """

    mean: Tensor
    deviation: Tensor
    started: Tensor

    def __init__(self, features: int, *, most: float = 3.0):
        super().__init__()
        checked("ActNorm", features, 0, most=most)
        self.most = most
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.register_buffer("started", torch.zeros(features))
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.log_scale.zero_()
            self.shift.zero_()
            self.mean.zero_()
            self.deviation.fill_(1)
            self.started.zero_()

    def _start(self, x: Tensor) -> None:
        """The statistics of a batch, unless there are some already: no branch, so that it vmaps."""
        rows = x.detach().transpose(0, 1).flatten(1)
        spread, mean = torch.var_mean(rows, 1, correction=0)
        deviation = spread.sqrt()
        flat = deviation < 1e-6 * (1 + mean.abs())
        deviation = torch.where(flat, 1.0, deviation)
        begun = self.started > 0
        self.mean.copy_(torch.where(begun, self.mean, mean))
        self.deviation.copy_(torch.where(begun, self.deviation, deviation))
        self.started.copy_(torch.ones_like(self.started))

    def _numbers(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scale, shift and the log-determinant of each sample."""
        log_scale = self.most * torch.tanh(self.log_scale / self.most)
        places = math.prod(x.shape[2:])
        log_det = (log_scale - self.deviation.log()).sum() * places
        shape = (-1, *[1] * (x.dim() - 2))
        scale = log_scale.exp() / self.deviation
        return scale.view(shape), (self.shift - scale * self.mean).view(shape), log_det

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training:
            self._start(x)
        scale, shift, log_det = self._numbers(x)
        return x * scale + shift, log_det.expand(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale, shift, log_det = self._numbers(z)
        return (z - shift) / scale, -log_det.expand(len(z))


class LUMixing(Bijection):
    """z = W x + b with W = P L (U + diag(e^s)): all features mixed, the determinant at hand.

    P is a permutation drawn once, or the reversal, L is lower and U upper triangular; at first
    W = P. The inverse solves two triangular systems. |s| is softly held below ``most``.

    Args:
        features: D.
        reverse: whether P turns the order of features round, instead of a draw.
        most: the bound of the log scale.

    Shapes: x (B, D) -> (B, D), (B,)
    Source: Kingma & Dhariwal, Glow, 2018; Oliva et al., Transformation autoregressive networks,
    2018.

    >>> layer, x = LUMixing(3), torch.randn(2, 3)
    >>> z, log_det = layer(x)
    >>> torch.allclose(layer.inverse(z)[0], x), log_det.tolist()
    (True, [0.0, 0.0])
    """

    order: Tensor

    def __init__(self, features: int, *, reverse: bool = False, most: float = 3.0):
        super().__init__()
        checked("LUMixing", features, 0, most=most)
        self.features, self.most = features, most
        order = torch.arange(features).flip(0) if reverse else torch.randperm(features)
        self.register_buffer("order", order)
        pairs = torch.tril_indices(features, features, -1)
        self.pairs = features * (features - 1) // 2
        self.register_buffer("place", pairs[0] * features + pairs[1], persistent=False)
        self.lower = nn.Parameter(torch.zeros(self.pairs)) if self.pairs else None
        self.upper = nn.Parameter(torch.zeros(self.pairs)) if self.pairs else None
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for weight in self.parameters(recurse=False):
                weight.zero_()

    def _triangle(self, entries: Tensor) -> Tensor:
        """A square with the entries below its diagonal."""
        place: Tensor = self.place  # pyright: ignore[reportAssignmentType]
        flat = entries.new_zeros(self.features**2).index_put((place,), entries)
        return flat.view(self.features, self.features)

    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        log_scale = self.most * torch.tanh(self.log_scale / self.most)
        upper = torch.diag_embed(log_scale.exp())
        lower = torch.eye(self.features, dtype=upper.dtype, device=upper.device)
        if self.lower is not None and self.upper is not None:
            lower = lower + self._triangle(self.lower)
            upper = upper + self._triangle(self.upper).t()
        return lower, upper, log_scale.sum()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_det = self._factors()
        weight = (lower @ upper).index_select(0, self.order)
        places = math.prod(x.shape[2:])
        if x.dim() == 2:
            return nn.functional.linear(x, weight, self.shift), log_det.expand(len(x))
        z = torch.einsum("dc,bc...->bd...", weight, x)
        shift = self.shift.view(-1, *[1] * (x.dim() - 2))
        return z + shift, (log_det * places).expand(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        lower, upper, log_det = self._factors()
        places = math.prod(z.shape[2:])
        rows = z.transpose(0, 1).flatten(1) - self.shift.unsqueeze(1)
        rows = rows.index_select(0, self.order.argsort())
        half = torch.linalg.solve_triangular(lower, rows, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(upper, half, upper=True)
        x = x.unflatten(1, (len(z), *z.shape[2:])).transpose(0, 1)
        return x, -(log_det * places).expand(len(z))


class InvertibleConvolution(LUMixing):
    """A 1 x 1 convolution that mixes channels invertibly: LU mixing at every place.

    Shapes: x (B, C, H, W) -> (B, C, H, W), (B,)
    Source: Kingma & Dhariwal, Glow: generative flow with invertible 1x1 convolutions, 2018.
    """
