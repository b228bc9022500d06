"""MobileNetV2: inverted residual blocks of cheap, depthwise convolutions."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.convolution import ConvolutionalNet, Mean, convolution, image_sizes, norm_layer
from deepweave.nn.dense import Dense

# expansion, channels, blocks, stride of the first
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def _eighths(width: float) -> int:
    """The nearest multiple of 8 that is not below nine tenths of the width.

    >>> _eighths(33.6), _eighths(24), _eighths(3)
    (32, 24, 8)
    """
    found = max(8, int(width + 4) // 8 * 8)
    return found + 8 if found < 0.9 * width else found


class Unit(nn.Sequential):
    """A convolution, its batch norm, and ReLU6.

    Shapes: x (B, inputs, H, W) -> (B, outputs, H', W')
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
    ):
        super().__init__(
            convolution(inputs, outputs, kernel, stride=stride, groups=groups, bias=False),
            norm_layer("batch", outputs),
            nn.ReLU6(inplace=True),
        )


class InvertedResidual(nn.Module):
    """Widen by 1 x 1, filter each channel by 3 x 3, narrow by 1 x 1 without an activation.

    x + F(x) where the shapes agree, else F(x): the shortcut joins the narrow ends.

    Shapes: x (B, inputs, H, W) -> (B, outputs, H', W')
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        width = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *([Unit(inputs, width, 1)] if expansion != 1 else []),
            Unit(width, width, stride=stride, groups=width),
            convolution(width, outputs, 1, bias=False, gain=1.0),
            norm_layer("batch", outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(ConvolutionalNet):
    """Nineteen layers of features and one that judges; named as in torchvision."""

    def __init__(self, channels: int, outputs: int, width: float = 1.0, *, dropout: float = 0.2):
        super().__init__("mobilenet_v2", channels)
        size = _eighths(32 * width)
        layers: list[nn.Module] = [Unit(channels, size, stride=2)]
        for expansion, stage, count, stride in _STAGES:
            for i in range(count):
                out = _eighths(stage * width)
                layers.append(InvertedResidual(size, out, 1 if i else stride, expansion))
                size = out
        last = _eighths(1280 * max(1.0, width))
        self.features = nn.Sequential(*layers, Unit(size, last, 1))
        self.mean = Mean()
        # torch's dropout, since ours would add the name of its rate to the weights
        self.classifier = nn.Sequential(nn.Dropout(dropout), Dense(last, outputs, gain=1.0))

    def score(self, x: Tensor) -> Tensor:
        return self.classifier(self.mean(self.features(x)))


@blueprint
def mobilenet_v2(sizes: Any, width: float = 1.0, *, dropout: float = 0.2) -> MobileNetV2:
    """MobileNetV2, with torchvision's names and shapes, so that its weights load as they are.

    The sides are halved five times, with padding: images of any size go through.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs).
        width: a factor of all channels.
        dropout: the share of features dropped before the last layer.

    Shapes: x (B, C, H, W) -> (B, outputs)

    Raises:
        ValueError: no images, a width that is not above 0, or a dropout outside [0, 1).

    Source: Sandler, Howard, Zhu, Zhmoginov & Chen, MobileNetV2: inverted residuals and linear
    bottlenecks, 2018.

    >>> net = mobilenet_v2(((3, 224, 224), 1000))
    >>> sum(weight.numel() for weight in net.parameters())
    3504872
    """
    channels, _, outputs = image_sizes(sizes, "mobilenet_v2")
    if not width > 0:
        raise ValueError(f"mobilenet_v2: width must be above 0, got {width}")
    if not 0 <= dropout < 1:
        raise ValueError(f"mobilenet_v2: dropout must lie in [0, 1), got {dropout}")
    return MobileNetV2(channels, outputs, width, dropout=dropout)
