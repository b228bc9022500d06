"""Coupling bijections: one part of the features moves the other, in one pass both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.bijection import Bijection, checked
from deepweave.nn.convolution import convolution
from deepweave.nn.dense import mlp
from deepweave.nn.scalar import Kind, scalar


class Coupling(Bijection):
    """The features b stay, the others move: z_a = g(x_a; net(x_b)), z_b = x_b.

    With ``kind="affine"`` a layer of RealNVP, with ``"spline"`` of a neural spline flow.

    Args:
        features: D. With D = 1 nothing stays, and the map hears of the context alone.
        kind: the map g of one number.
        hidden: widths of the network.
        swap: whether the first half stays, instead of the second.
        context: how many numbers of context; 0 for none.
        bins, bound: of a spline.
        most: of an affine map: the bound of its log scale.

    Shapes: x (B, D), context (B, C) -> (B, D), (B,)
    Raises:
        ValueError: sizes or numbers out of range.
    Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017; Durkan et al.,
    Neural spline flows, 2019.

    >>> layer = Coupling(5, "affine")
    >>> z, log_det = layer(torch.randn(2, 5))
    >>> z.shape, log_det.shape
    (torch.Size([2, 5]), torch.Size([2]))
    """

    def __init__(
        self,
        features: int,
        kind: Kind = "spline",
        hidden: Sequence[int] = (64, 64),
        *,
        swap: bool = False,
        context: int = 0,
        activation: Activation = "relu",
        bins: int = 8,
        bound: float = 5.0,
        most: float = 3.0,
    ):
        super().__init__()
        checked("Coupling", features, context)
        self.scalar = scalar("Coupling", kind, bins=bins, bound=bound, most=most)
        half = features // 2
        self.stays = features - half if swap and half else half
        self.swap = swap
        self.moves = features - self.stays
        seen = self.stays + context
        # With nothing to see the parameters are free numbers: those of a constant input.
        self.net = mlp((max(seen, 1), self.moves * self.scalar.size), hidden, activation)
        _quiet(self.net)
        self.blind = seen == 0

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What stays and what moves."""
        if self.swap:
            return x[:, : self.stays], x[:, self.stays :]
        return x[:, self.moves :], x[:, : self.moves]

    def _join(self, stays: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([stays, moved] if self.swap else [moved, stays], 1)

    def _conditioned(self, stays: Tensor, context: Tensor | None) -> Tensor:
        seen = stays if context is None else torch.cat([stays, context], 1)
        seen = seen.new_ones(len(seen), 1) if self.blind else seen
        return self.net(seen).unflatten(1, (self.moves, self.scalar.size))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        stays, moves = self._split(x)
        moved, log_slope = self.scalar.forward(moves, self._conditioned(stays, context))
        return self._join(stays, moved), log_slope.sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        stays, moves = self._split(z)
        moved, log_slope = self.scalar.inverse(moves, self._conditioned(stays, context))
        return self._join(stays, moved), log_slope.sum(1)


class ImageCoupling(Bijection):
    """The same for maps: the last channels stay, the first move, by a small convolutional net.

    Args:
        channels: C, at least 2.
        kind: the map of one number.
        width: channels of the net: 3 x 3, 1 x 1 and 3 x 3 convolutions.
        context: how many numbers of context, spread over all places; 0 for none.

    Shapes: x (B, C, H, W), context (B, K) -> (B, C, H, W), (B,)
    Raises:
        ValueError: fewer than 2 channels, or numbers out of range.
    Source: Kingma & Dhariwal, Glow: generative flow with invertible 1x1 convolutions, 2018.
    """

    def __init__(
        self,
        channels: int,
        kind: Kind = "affine",
        width: int = 64,
        *,
        context: int = 0,
        activation: Activation = "relu",
        bins: int = 8,
        bound: float = 5.0,
        most: float = 3.0,
    ):
        super().__init__()
        checked("ImageCoupling", channels, context, width=width)
        if channels < 2:
            raise ValueError(f"ImageCoupling: channels must be at least 2, got {channels}: Squeeze")
        self.scalar = scalar("ImageCoupling", kind, bins=bins, bound=bound, most=most)
        self.stays = channels // 2
        self.moves = channels - self.stays
        gain = gain_of(activation)
        self.net = nn.Sequential(
            convolution(self.stays + context, width, 3, gain=gain),
            activation_layer(activation),
            convolution(width, width, 1, gain=gain),
            activation_layer(activation),
            convolution(width, self.moves * self.scalar.size, 3, gain=0.0),
        )

    def _conditioned(self, stays: Tensor, context: Tensor | None) -> Tensor:
        if context is not None:
            spread = context[:, :, None, None].expand(-1, -1, *stays.shape[2:])
            stays = torch.cat([stays, spread], 1)
        found = self.net(stays).unflatten(1, (self.moves, self.scalar.size))
        return found.movedim(2, -1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moves, stays = x[:, : self.moves], x[:, self.moves :]
        moved, log_slope = self.scalar.forward(moves, self._conditioned(stays, context))
        return torch.cat([moved, stays], 1), log_slope.flatten(1).sum(1)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        moves, stays = z[:, : self.moves], z[:, self.moves :]
        moved, log_slope = self.scalar.inverse(moves, self._conditioned(stays, context))
        return torch.cat([moved, stays], 1), log_slope.flatten(1).sum(1)


def _quiet(net: nn.Sequential) -> None:
    """Let the last layer start at 0, also when its weights are drawn anew: the identity."""
    last: Any = net[-1]
    last.gain = 0.0
    last.reset_parameters()
