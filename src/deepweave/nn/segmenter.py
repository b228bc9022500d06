"""A small network that says something of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.activations import Activation, activation_layer
from deepweave.nn.dense import sizes_of


class Block(nn.Sequential):
    """Two 3 x 3 convolutions, each normalised within the sample and followed by an activation.

    Shapes: x (B, inputs, H, W) -> (B, width, H, W)
    """

    def __init__(self, inputs: int, width: int, activation: Activation = "relu"):
        layers: list[nn.Module] = []
        groups = next(g for g in (8, 4, 2, 1) if width % g == 0)
        for size in (inputs, width):
            layer = nn.Conv2d(size, width, 3, padding=1, bias=False)
            layers += [layer, nn.GroupNorm(groups, width), activation_layer(activation)]
        super().__init__(*layers)


@blueprint
class Segmenter(nn.Module):
    """An encoder that halves the image at each level, and a decoder with skips back to full size.

    Down: a :class:`Block` per width, then max-pooling by 2. Up: the nearest pixel repeated, beside
    what the encoder had at that size, through a block again. Where a size is odd the decoder takes
    the encoder's, so that any image goes through whole. GroupNorm keeps samples independent of
    their batch.

    Shapes: x (B, C, H, W) -> (B, outputs, H, W)
    Source: Ronneberger, Fischer & Brox, U-Net, 2015.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        widths: Sequence[int] = (16, 32, 64),
        *,
        activation: Activation = "relu",
    ):
        super().__init__()
        if not widths or not all(isinstance(width, int) and width > 0 for width in widths):
            raise ValueError(f"segmenter: widths must be at least 1 each, got {tuple(widths)}")
        ends = [channels, *widths]
        self.down = nn.ModuleList(Block(a, b, activation) for a, b in zip(ends, widths))
        steps = list(zip(reversed(widths[1:]), reversed(widths[:-1])))
        self.up = nn.ModuleList(Block(low + high, high, activation) for low, high in steps)
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        for block, skip in zip(self.up, reversed(kept[:-1])):
            x = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = block(torch.cat([x, skip], 1))
        return self.head(x)


@blueprint
def segmenter(
    sizes: Any, widths: Sequence[int] = (16, 32, 64), activation: Activation = "relu"
) -> Segmenter:
    """A small U-Net for masks: logits for every pixel of an image.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs); one output is one mask.
        widths: the channels at each level; each next one sees the image at half the size.
        activation: a name, function or module.

    Shapes: x (B, C, H, W) -> (B, outputs, H, W)

    Raises:
        ValueError: no image, too small for so many levels, or a width below 1.

    >>> segmenter(((3, 32, 32), 1), widths=(4, 8))(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 1, 32, 32])
    """
    shape, outputs = sizes_of(sizes, "segmenter")
    if len(shape) != 3:
        raise ValueError(f"segmenter: needs images (C, H, W), got {shape}")
    if min(shape[1:]) < 2 ** len(widths):  # two pixels at the lowest level, or no norm is possible
        raise ValueError(
            f"segmenter: {len(widths)} levels need images of at least {2 ** len(widths)} pixels a "
            f"side, got {shape}"
        )
    return Segmenter(shape[0], outputs, widths, activation=activation)
