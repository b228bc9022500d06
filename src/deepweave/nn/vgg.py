"""VGG: plain stacks of 3 x 3 convolutions and three wide dense layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.convolution import ConvolutionalNet, convolution, image_sizes, need, norm_layer
from deepweave.nn.dense import Dense

# convolutions in each of the five stages, whose channels are 64, 128, 256, 512, 512
_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


class VGG(ConvolutionalNet):
    """Features, brought to 7 x 7 places, and three dense layers; named as in torchvision."""

    def __init__(
        self, channels: int, outputs: int, depth: int, *, norm: bool = False, dropout: float = 0.5
    ):
        super().__init__("vgg", channels, 32)
        layers: list[nn.Module] = []
        width = channels
        for count, size in zip(_DEPTHS[depth], (64, 128, 256, 512, 512)):
            for _ in range(count):
                layers.append(convolution(width, size, 3))
                layers += [norm_layer("batch", size)] if norm else []
                layers.append(nn.ReLU(inplace=True))
                width = size
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        # torch's dropout, since ours would add the name of its rate to the weights
        self.classifier = nn.Sequential(
            Dense(512 * 7 * 7, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout),
            Dense(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(dropout),
            Dense(4096, outputs, gain=1.0),
        )  # fmt: skip

    def score(self, x: Tensor) -> Tensor:
        # flattened channel by channel, as the published weights have it
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


@blueprint
def vgg(sizes: Any, depth: int = 16, *, norm: bool = False, dropout: float = 0.5) -> VGG:
    """VGG of 11, 13, 16 or 19 layers, with torchvision's names and shapes.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs), 32 pixels a side and more.
        depth: 11, 13, 16 or 19.
        norm: batch norm behind each convolution.
        dropout: the share of units dropped in the two wide dense layers.

    Shapes: x (B, C, H, W) -> (B, outputs)

    Raises:
        ValueError: another depth, no images, too small ones, or a dropout outside [0, 1).

    Source: Simonyan & Zisserman, Very deep convolutional networks for large-scale image
    recognition, 2015.

    >>> import torch
    >>> with torch.device("meta"):  # sizes alone, no memory
    ...     net = vgg(((3, 224, 224), 1000), 16)
    >>> sum(weight.numel() for weight in net.parameters())
    138357544
    """
    channels, space, outputs = image_sizes(sizes, "vgg")
    need("vgg", space, 32)
    if depth not in _DEPTHS:
        raise ValueError(f"vgg: depth must be one of {', '.join(map(str, _DEPTHS))}, got {depth}")
    if not 0 <= dropout < 1:
        raise ValueError(f"vgg: dropout must lie in [0, 1), got {dropout}")
    return VGG(channels, outputs, depth, norm=norm, dropout=dropout)
