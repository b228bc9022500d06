"""Inception v3: several convolutions side by side, their outputs put together."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.convolution import ConvolutionalNet, Mean, convolution, image_sizes, need
from deepweave.nn.dense import Dense


class Unit(nn.Module):
    """A convolution without bias, batch norm (epsilon 0.001) and ReLU.

    Shapes: x (B, inputs, H, W) -> (B, outputs, H', W')
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int] = 1,
        *,
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        options: dict[str, Any] = {"stride": stride, "padding": padding, "bias": False}
        self.conv = convolution(inputs, outputs, kernel, **options)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionA(nn.Module):
    """1 x 1; 5 x 5; 3 x 3 twice; pooling: at 35 x 35 places of a photograph of 299.

    Shapes: x (B, C, H, W) -> (B, 224 + pool, H, W)
    """

    def __init__(self, inputs: int, pool: int):
        super().__init__()
        self.branch1x1 = Unit(inputs, 64)
        self.branch5x5_1 = Unit(inputs, 48)
        self.branch5x5_2 = Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Unit(inputs, 64)
        self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(inputs, pool)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.branch1x1(x), five, three, pooled], 1)


class InceptionB(nn.Module):
    """Halve the sides: 3 x 3; 3 x 3 twice; max-pooling.

    Shapes: x (B, C, H, W) -> (B, 480 + C, H', W')
    """

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = Unit(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Unit(inputs, 64)
        self.branch3x3dbl_2 = Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), twice, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """7 x 7 taken apart into 1 x 7 and 7 x 1, once and twice: at 17 x 17 places.

    Shapes: x (B, C, H, W) -> (B, 768, H, W)
    """

    def __init__(self, inputs: int, width: int):
        super().__init__()
        across: dict[str, Any] = {"kernel": (1, 7), "padding": (0, 3)}
        down: dict[str, Any] = {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = Unit(inputs, 192)
        self.branch7x7_1 = Unit(inputs, width)
        self.branch7x7_2 = Unit(width, width, **across)
        self.branch7x7_3 = Unit(width, 192, **down)
        self.branch7x7dbl_1 = Unit(inputs, width)
        self.branch7x7dbl_2 = Unit(width, width, **down)
        self.branch7x7dbl_3 = Unit(width, width, **across)
        self.branch7x7dbl_4 = Unit(width, width, **down)
        self.branch7x7dbl_5 = Unit(width, 192, **across)
        self.branch_pool = Unit(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([self.branch1x1(x), once, twice, pooled], 1)


class InceptionD(nn.Module):
    """Halve the sides: 3 x 3; 7 x 7 taken apart, then 3 x 3; max-pooling.

    Shapes: x (B, C, H, W) -> (B, 512 + C, H', W')
    """

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1 = Unit(inputs, 192)
        self.branch3x3_2 = Unit(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Unit(inputs, 192)
        self.branch7x7x3_2 = Unit(192, 192, (1, 7), padding=(0, 3))
        self.branch7x7x3_3 = Unit(192, 192, (7, 1), padding=(3, 0))
        self.branch7x7x3_4 = Unit(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    """3 x 3 as 1 x 3 beside 3 x 1: the widest, at 8 x 8 places.

    Shapes: x (B, C, H, W) -> (B, 2048, H, W)
    """

    def __init__(self, inputs: int):
        super().__init__()
        across: dict[str, Any] = {"kernel": (1, 3), "padding": (0, 1)}
        down: dict[str, Any] = {"kernel": (3, 1), "padding": (1, 0)}
        self.branch1x1 = Unit(inputs, 320)
        self.branch3x3_1 = Unit(inputs, 384)
        self.branch3x3_2a = Unit(384, 384, **across)
        self.branch3x3_2b = Unit(384, 384, **down)
        self.branch3x3dbl_1 = Unit(inputs, 448)
        self.branch3x3dbl_2 = Unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Unit(384, 384, **across)
        self.branch3x3dbl_3b = Unit(384, 384, **down)
        self.branch_pool = Unit(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [self.branch1x1(x), self.branch3x3_2a(once), self.branch3x3_2b(once)]
        parts += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([*parts, self.branch_pool(F.avg_pool2d(x, 3, 1, 1))], 1)


class Auxiliary(nn.Module):
    """A second judge in the middle of the net, for training: it wants 17 x 17 places.

    Shapes: x (B, C, H, W) -> (B, outputs)
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv0 = Unit(inputs, 128)
        self.conv1 = Unit(128, 768, 5)
        self.mean = Mean()
        self.fc = Dense(768, outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.mean(self.conv1(self.conv0(F.avg_pool2d(x, 5, 3)))))


class InceptionV3(ConvolutionalNet):
    """Stem, eleven inception blocks, the mean over all places; named as in torchvision."""

    def __init__(
        self, channels: int, outputs: int, auxiliary: bool = False, *, dropout: float = 0.5
    ):
        super().__init__("inception_v3", channels, 75)
        self.Conv2d_1a_3x3 = Unit(channels, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = Unit(64, 80)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        self.Mixed_5b = InceptionA(192, 32)
        self.Mixed_5c = InceptionA(256, 64)
        self.Mixed_5d = InceptionA(288, 64)
        self.Mixed_6a = InceptionB(288)
        self.Mixed_6b = InceptionC(768, 128)
        self.Mixed_6c = InceptionC(768, 160)
        self.Mixed_6d = InceptionC(768, 160)
        self.Mixed_6e = InceptionC(768, 192)
        self.AuxLogits = Auxiliary(768, outputs) if auxiliary else None
        self.Mixed_7a = InceptionD(768)
        self.Mixed_7b = InceptionE(1280)
        self.Mixed_7c = InceptionE(2048)
        self.avgpool = Mean()
        # torch's dropout, since ours would add the name of its rate to the weights
        self.dropout = nn.Dropout(dropout)
        self.fc = Dense(2048, outputs, gain=1.0)

    def middle(self, x: Tensor) -> Tensor:
        """The map where the second judge reads: (B, 768, 17, 17) of a photograph of 299."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(self.maxpool1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(self.maxpool2(x))))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        return self.Mixed_6e(self.Mixed_6d(x))

    def _judge(self, x: Tensor) -> Tensor:
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return self.fc(self.dropout(self.avgpool(x)))

    def score(self, x: Tensor) -> Tensor:
        return self._judge(self.middle(x))

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs, and those of the auxiliary judge, for a loss that wants both.

        Raises:
            ValueError: the net was made without one, or the images are too small for it.
        """
        if self.AuxLogits is None:
            raise ValueError("inception_v3: make it with auxiliary=True to have both outputs")
        x = self.middle(x)
        if min(x.shape[2:]) < 17:
            raise ValueError(
                "inception_v3: the auxiliary judge needs 17 x 17 places, as of images of 299 "
                f"pixels, got {' x '.join(map(str, x.shape[2:]))}"
            )
        return self._judge(x), self.AuxLogits(x)


@blueprint
def inception_v3(sizes: Any, auxiliary: bool = False, *, dropout: float = 0.5) -> InceptionV3:
    """Inception v3, with torchvision's names and shapes, so that its weights load as they are.

    Those weights hold the auxiliary judge too (``auxiliary=True``) and want the pixels of
    photographs in [-1, 1]. The net's output is that of the main judge alone, also in training;
    ``net.both(x)`` gives the two.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs), 75 pixels a side and more.
        auxiliary: whether it has the second judge in its middle.
        dropout: the share of features dropped before the last layer.

    Shapes: x (B, C, H, W) -> (B, outputs)

    Raises:
        ValueError: no images, too small ones, or a dropout outside [0, 1).

    Source: Szegedy, Vanhoucke, Ioffe, Shlens & Wojna, Rethinking the inception architecture for
    computer vision, 2016.

    >>> with torch.device("meta"):  # sizes alone, no memory
    ...     net = inception_v3(((3, 299, 299), 1000), auxiliary=True)
    >>> sum(weight.numel() for weight in net.parameters())
    27161264
    """
    channels, space, outputs = image_sizes(sizes, "inception_v3")
    need("inception_v3", space, 75)
    if not 0 <= dropout < 1:
        raise ValueError(f"inception_v3: dropout must lie in [0, 1), got {dropout}")
    return InceptionV3(channels, outputs, auxiliary, dropout=dropout)
