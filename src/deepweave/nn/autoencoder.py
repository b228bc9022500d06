"""Encoders to few numbers, and decoders from them: dense, or of convolutions for images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.activations import activation_layer
from deepweave.nn.dense import sizes_of


class GaussianEncoder(nn.Module):
    """What a network reads from a sample, as means and log variances of ``latent`` numbers.

    Shapes: x (B, *shape), told (B, classes) -> (B, 2 latent)
    """

    def __init__(self, body: nn.Module, features: int, latent: int, classes: int):
        super().__init__()
        self.latent, self.classes = latent, classes
        self.body, self.head = body, nn.Linear(features + classes, 2 * latent)

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        return self.head(joined(self.body(x), told, self.classes, "encoder"))


class Decoder(nn.Module):
    """A sample, or what a likelihood needs for its values, from few numbers.

    Shapes: z (B, latent), told (B, classes) -> (B, numbers, *shape)
    """

    def __init__(self, body: nn.Module, latent: int, numbers: int, classes: int):
        super().__init__()
        self.latent, self.numbers, self.classes = latent, numbers, classes
        self.body = body

    def forward(self, z: Tensor, told: Tensor | None = None) -> Tensor:
        if z.dim() != 2 or z.shape[1] != self.latent:
            raise ValueError(f"decoder: z must be (B, {self.latent}), got {tuple(z.shape)}")
        return self.body(joined(z, told, self.classes, "decoder"))


class Enlarge(nn.Module):
    """A transposed convolution of 4 x 4 that doubles the sides; cut to a size where that is odd.

    Every place hears as many others, so there is no checkerboard by construction; and it is ten
    times as fast as a convolution of 3 x 3 over repeated places where few channels come out.
    """

    def __init__(self, inputs: int, outputs: int, size: Sequence[int]):
        super().__init__()
        self.size = tuple(size)
        self.conv = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = self.size
        return self.conv(x)[..., :height, :width]


@blueprint
def gaussian_encoder(
    sizes: Any,
    latent: int = 16,
    hidden: Sequence[int] = (256,),
    *,
    widths: Sequence[int] = (),
    activation: str = "silu",
    classes: int = 0,
) -> GaussianEncoder:
    """The encoder of a variational autoencoder: means and log variances of ``latent`` numbers.

    Args:
        sizes: a data spec, or (shape, ...).
        latent: how many numbers.
        hidden: dense layers; after the convolutions where there are any.
        widths: of images: channels of convolutions of 3 x 3, each of which halves the sides.
        activation: between layers.
        classes: how many classes it is told, one-hot, as a second input.

    Shapes: x (B, *shape) -> (B, 2 latent)

    Raises:
        ValueError: latent below 1, convolutions of what is no image.

    >>> gaussian_encoder(((1, 8, 8), 10), 3, widths=(8, 16))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 6])
    """
    shape = shaped(sizes, latent, widths, "gaussian_encoder")
    body, features = reading(shape, hidden, widths, lambda: activation_layer(activation))
    return GaussianEncoder(body, features, latent, classes)


def reading(
    shape: Sequence[int], hidden: Sequence[int], widths: Sequence[int], activation: Any
) -> tuple[nn.Sequential, int]:
    """Convolutions that halve, then dense layers, and how many numbers come out of them."""
    layers: list[nn.Module] = []
    size, inputs = list(shape[1:]), shape[0]
    for width in widths:
        layers += [nn.Conv2d(inputs, width, 3, 2, 1), activation()]
        size, inputs = [(side + 1) // 2 for side in size], width
    features = inputs * math.prod(size) if widths else math.prod(shape)
    layers.append(nn.Flatten())
    for width in hidden:
        layers += [nn.Linear(features, width), activation()]
        features = width
    return nn.Sequential(*layers), features


@blueprint
def decoder(
    sizes: Any,
    latent: int = 16,
    hidden: Sequence[int] = (256,),
    *,
    numbers: int = 1,
    widths: Sequence[int] = (),
    activation: str = "silu",
    output: str | None = None,
    classes: int = 0,
) -> Decoder:
    """A network from ``latent`` numbers to samples; the mirror of :func:`gaussian_encoder`.

    Args:
        sizes, latent, activation, classes: as of the encoder.
        hidden: dense layers, from the latent numbers on.
        numbers: for each value of a sample: what the likelihood needs.
        widths: of images: channels after the dense layers, each doubling the sides.
        output: an activation at the end, such as ``"sigmoid"`` for a generator of images.

    Shapes: z (B, latent) -> (B, numbers, *shape)

    Raises:
        ValueError: latent or numbers below 1, convolutions of what is no image.

    >>> decoder(((1, 8, 8), 10), 3, numbers=2, widths=(16, 8))(torch.zeros(2, 3)).shape
    torch.Size([2, 2, 1, 8, 8])
    """
    shape = shaped(sizes, latent, widths, "decoder")
    if numbers < 1:
        raise ValueError(f"decoder: numbers must be at least 1, got {numbers}")
    layers: list[nn.Module] = []
    features = latent + classes
    for width in hidden:
        layers += [nn.Linear(features, width), activation_layer(activation)]
        features = width
    last = [] if output is None else [activation_layer(output)]
    if not widths:
        layers.append(nn.Linear(features, numbers * math.prod(shape)))
        layers += [nn.Unflatten(1, (numbers, *shape)), *last]
        return Decoder(nn.Sequential(*layers), latent, numbers, classes)
    halves = [tuple(shape[1:])]
    for _ in widths:
        halves.append(tuple((side + 1) // 2 for side in halves[-1]))
    layers.append(nn.Linear(features, widths[0] * math.prod(halves[-1])))
    layers += [nn.Unflatten(1, (widths[0], *halves[-1])), activation_layer(activation)]
    after = [*widths[1:], shape[0] * numbers]
    for inputs, outputs, size in zip(widths, after, halves[-2::-1]):
        layers += [Enlarge(inputs, outputs, size), activation_layer(activation)]
    layers[-1] = nn.Unflatten(1, (numbers, shape[0]))  # no activation of the hidden ones
    return Decoder(nn.Sequential(*layers, *last), latent, numbers, classes)


def shaped(sizes: Any, latent: int, widths: Sequence[int], name: str) -> tuple[int, ...]:
    """The shape of one sample, where the numbers fit it."""
    shape = tuple(sizes_of(sizes, name)[0])
    if latent < 1:
        raise ValueError(f"{name}: latent must be at least 1, got {latent}")
    if widths and len(shape) != 3:
        raise ValueError(f"{name}: widths are for images (C, H, W), got {shape}")
    return shape


def joined(x: Tensor, told: Tensor | None, classes: int, name: str) -> Tensor:
    """Features with what the network is told beside them."""
    if not classes:
        if told is not None:
            raise ValueError(f"{name}: made with classes=0, but told {tuple(told.shape)}")
        return x
    if told is None or told.shape != (len(x), classes):
        got = None if told is None else tuple(told.shape)
        raise ValueError(f"{name}: it must be told ({len(x)}, {classes}), got {got}")
    return torch.cat([x, told], 1)
