"""Residual networks: those of the paper for photographs, and small ones for 28 to 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.convolution import (
    ConvolutionalNet,
    Mean,
    Norm,
    convolution,
    image_sizes,
    norm_layer,
)
from deepweave.nn.dense import Dense
from deepweave.nn.shortcuts import BasicBlock, Block, Bottleneck, Preactivation, Trim

Kind = Literal["basic", "bottleneck", "preactivation"]

_KINDS: dict[str, type[Block]] = {
    "basic": BasicBlock,
    "bottleneck": Bottleneck,
    "preactivation": Preactivation,
}
_DEPTHS: dict[int, tuple[Kind, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}


class ResNet(ConvolutionalNet):
    """A stem, stages of blocks, the mean over all places, and a dense layer.

    Each stage after the first halves the sides. Parameters are named as in torchvision.

    Args:
        channels, outputs: of the images, and of the net.
        kind: of the blocks.
        blocks, widths: for each stage how many, and how wide.
        stem: ``"photograph"``: 7 x 7 with stride 2, then max-pooling by 2; ``"pooled"``: 3 x 3,
            then max-pooling by 2; ``"small"``: 3 x 3.
        trim: what the blocks have in common.
        drop: the share of samples that skip the last block while training; earlier ones less,
            in proportion to their place.
        name: in errors.

    Shapes: x (B, C, H, W) -> (B, outputs)
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        kind: Kind,
        *,
        blocks: Sequence[int],
        widths: Sequence[int],
        stem: Literal["photograph", "pooled", "small"] = "photograph",
        trim: Trim | None = None,
        drop: float = 0.0,
        name: str = "resnet",
    ):
        super().__init__(name, channels)
        trim = Trim() if trim is None else trim
        for what, numbers in (("blocks", blocks), ("widths", widths)):
            if not numbers or not all(isinstance(n, int) and n > 0 for n in numbers):
                raise ValueError(f"{name}: {what} must be at least 1, got {tuple(numbers)}")
        if len(blocks) != len(widths):
            raise ValueError(f"{name}: {len(blocks)} stages of blocks, but {len(widths)} widths")
        if kind not in _KINDS:
            raise ValueError(f"{name}: kind must be one of {', '.join(_KINDS)}, got {kind!r}")
        if not 0 <= drop < 1:
            raise ValueError(f"{name}: drop must lie in [0, 1), got {drop}")
        block = _KINDS[kind]
        ahead = kind == "preactivation"  # its blocks begin with a norm, and the last end without
        gain = 1.0 if ahead else gain_of(trim.activation)
        kernel, stride = (7, 2) if stem == "photograph" else (3, 1)
        bias, width = trim.norm is None, widths[0]
        self.conv1 = convolution(channels, width, kernel, stride=stride, bias=bias, gain=gain)
        last = widths[-1] * block.expansion
        self.bn1 = norm_layer(trim.norm, last if ahead else width)
        self.relu = activation_layer(trim.activation)
        self.maxpool = nn.Identity() if stem == "small" else nn.MaxPool2d(3, 2, 1)
        self.ahead, self.stages = ahead, len(blocks)
        done, whole = 0, sum(blocks)
        for stage, (count, size) in enumerate(zip(blocks, widths)):
            layers = []
            for i in range(count):
                done += 1
                step = 2 if stage and i == 0 else 1
                layers.append(block(width, size, step, trim, drop * done / whole))
                width = size * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.avgpool = Mean()
        self.fc = Dense(width, outputs, gain=1.0)

    def score(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if not self.ahead:
            x = self.relu(self.bn1(x))
        x = self.maxpool(x)
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        if self.ahead:
            x = self.relu(self.bn1(x))
        return self.fc(self.avgpool(x))


@blueprint
def resnet(
    sizes: Any,
    depth: int = 18,
    *,
    squeeze: int = 0,
    drop: float = 0.0,
    residual: bool = True,
) -> ResNet:
    """The residual nets of the paper, of 18, 34, 50, 101 or 152 layers, for photographs.

    Two convolutions a block for 18 and 34 layers, bottlenecks of three for the others. The names
    and shapes of parameters are those of torchvision (squeeze and drop add theirs), so that its
    weights load as they are.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs).
        depth: 18, 34, 50, 101 or 152.
        squeeze: the reduction of squeeze-and-excitation in each block; 0: none.
        drop: stochastic depth: the share of samples that skip the last block.
        residual: False: the same net without its shortcuts.

    Shapes: x (B, C, H, W) -> (B, outputs)

    Raises:
        ValueError: another depth, no images, or a number out of range.

    Source: He, Zhang, Ren & Sun, Deep residual learning for image recognition, 2016.

    >>> net = resnet(((3, 224, 224), 1000), 18)
    >>> sum(weight.numel() for weight in net.parameters())
    11689512
    """
    channels, _, outputs = image_sizes(sizes, "resnet")
    if depth not in _DEPTHS:
        raise ValueError(
            f"resnet: depth must be one of {', '.join(map(str, _DEPTHS))}, got {depth}"
        )
    kind, blocks = _DEPTHS[depth]
    trim = Trim(squeeze=squeeze, residual=residual)
    options: dict[str, Any] = {"trim": trim, "drop": drop}
    return ResNet(channels, outputs, kind, blocks=blocks, widths=(64, 128, 256, 512), **options)


@blueprint
def resnet_small(
    sizes: Any,
    blocks: int | Sequence[int] = 3,
    widths: Sequence[int] = (16, 32, 64),
    *,
    kind: Kind = "basic",
    norm: Norm = "batch",
    activation: Activation = "relu",
    pooled: bool = False,
    squeeze: int = 0,
    drop: float = 0.0,
    residual: bool = True,
) -> ResNet:
    """A residual net for images of 8 to 64 pixels: stages of n blocks behind a 3 x 3 convolution.

    With three stages of n basic blocks it has 6 n + 2 layers: n = 3 is the paper's ResNet-20 for
    32 pixels, n = 8 its 50 layers.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs).
        blocks: in each stage; one number for all of them, or one for each.
        widths: the channels of each stage.
        kind: ``"basic"``, ``"bottleneck"`` (four times the widths come out) or
            ``"preactivation"``.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or None.
        activation: a name or function.
        pooled: halve the sides by max-pooling before the first stage: a quarter of the work.
        squeeze: the reduction of squeeze-and-excitation in each block; 0: none.
        drop: stochastic depth: the share of samples that skip the last block.
        residual: False: the plain twin: the same layers without shortcuts.

    Shapes: x (B, C, H, W) -> (B, outputs)

    Raises:
        ValueError: no images, unknown names, or numbers out of range.

    Source: He, Zhang, Ren & Sun, Deep residual learning for image recognition, 2016, section 4.2.

    >>> net = resnet_small(((3, 32, 32), 10), 3)
    >>> sum(w.numel() for name, w in net.named_parameters() if "downsample" not in name)
    269722
    """
    channels, _, outputs = image_sizes(sizes, "resnet_small")
    counts = (blocks,) * len(widths) if isinstance(blocks, int) else tuple(blocks)
    return ResNet(
        channels,
        outputs,
        kind,
        blocks=counts,
        widths=tuple(widths),
        stem="pooled" if pooled else "small",
        trim=Trim(norm, activation, squeeze, residual),
        drop=drop,
        name="resnet_small",
    )
