"""Blocks with a shortcut: y = f(F(x) + x); basic, bottleneck, pre-activation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.convolution import Mean, Norm, convolution, norm_layer


@dataclass(frozen=True)
class Trim:
    """What the blocks of one net have in common."""

    norm: Norm = "batch"
    activation: Activation = "relu"
    squeeze: int = 0  # the reduction of squeeze-and-excitation; 0: none
    residual: bool = True  # False: the plain twin, without shortcuts


class Block(nn.Module, ABC):
    """y = f(F(x) + s(x)): s is the identity, or, where shapes differ, a projection by 1 x 1.

    F is :meth:`branch`, f the activation (the identity in pre-activation blocks).

    Args:
        inputs, width: channels of x, and of the branch.
        stride: of the branch; 2 halves the sides.
        trim: norm, activation, squeeze-excitation, and whether there are shortcuts at all.
        drop: the share of samples that go without the branch while training.

    Shapes: x (B, inputs, H, W) -> (B, width * expansion, H', W')
    Source: He, Zhang, Ren & Sun, Deep residual learning for image recognition, 2016.
    """

    expansion: ClassVar[int] = 1
    downsample: nn.Module | None

    def __init__(self, inputs: int, width: int, stride: int, trim: Trim, drop: float = 0.0):
        super().__init__()
        self.residual = trim.residual
        self.gain = gain_of(trim.activation)
        self.build(inputs, width, stride, trim)
        outputs = width * self.expansion
        self.squeeze = SqueezeExcitation(outputs, trim.squeeze) if trim.squeeze else None
        # a plain net has nothing left of a sample whose branch is left out
        self.drop = StochasticDepth(drop) if drop and trim.residual else None
        self.downsample = None
        if trim.residual and (stride != 1 or inputs != outputs):
            self.downsample = self.projection(inputs, outputs, stride, trim)

    @abstractmethod
    def build(self, inputs: int, width: int, stride: int, trim: Trim) -> None:
        """Make the layers of the branch."""

    @abstractmethod
    def branch(self, x: Tensor) -> Tensor:
        """F(x)."""

    def projection(self, inputs: int, outputs: int, stride: int, trim: Trim) -> nn.Module:
        """s(x) where shapes differ."""
        bias = trim.norm is None
        layer = convolution(inputs, outputs, 1, stride=stride, bias=bias, gain=1.0)
        return nn.Sequential(layer, norm_layer(trim.norm, outputs))

    def last(self, y: Tensor) -> Tensor:
        """f."""
        return self.relu(y)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.squeeze is not None:
            y = self.squeeze(y)
        if self.drop is not None:
            y = self.drop(y)
        if self.residual:
            y = y + (x if self.downsample is None else self.downsample(x))
        return self.last(y)

    def layer(self, inputs: int, outputs: int, kernel: int, trim: Trim, stride: int = 1):
        """A convolution drawn for the activation, with a bias where no norm follows."""
        options = {"stride": stride, "bias": trim.norm is None, "gain": self.gain}
        return convolution(inputs, outputs, kernel, **options)


class BasicBlock(Block):
    """Two convolutions of 3 x 3: conv, norm, f, conv, norm; then the sum, then f."""

    def build(self, inputs: int, width: int, stride: int, trim: Trim) -> None:
        self.conv1 = self.layer(inputs, width, 3, trim, stride)
        self.bn1 = norm_layer(trim.norm, width)
        self.relu = activation_layer(trim.activation)
        self.conv2 = self.layer(width, width, 3, trim)
        self.bn2 = norm_layer(trim.norm, width)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    """1 x 1 down, 3 x 3, 1 x 1 up to four times the width; the stride stands at the 3 x 3."""

    expansion = 4

    def build(self, inputs: int, width: int, stride: int, trim: Trim) -> None:
        self.conv1 = self.layer(inputs, width, 1, trim)
        self.bn1 = norm_layer(trim.norm, width)
        self.conv2 = self.layer(width, width, 3, trim, stride)
        self.bn2 = norm_layer(trim.norm, width)
        self.conv3 = self.layer(width, 4 * width, 1, trim)
        self.bn3 = norm_layer(trim.norm, 4 * width)
        self.relu = activation_layer(trim.activation)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class Preactivation(Block):
    """norm, f, conv, norm, f, conv, then the sum and nothing after it: an open way through.

    Source: He, Zhang, Ren & Sun, Identity mappings in deep residual networks, 2016.
    """

    def build(self, inputs: int, width: int, stride: int, trim: Trim) -> None:
        self.bn1 = norm_layer(trim.norm, inputs)
        self.conv1 = self.layer(inputs, width, 3, trim, stride)
        self.bn2 = norm_layer(trim.norm, width)
        self.conv2 = self.layer(width, width, 3, trim)
        self.relu = activation_layer(trim.activation)

    def projection(self, inputs: int, outputs: int, stride: int, trim: Trim) -> nn.Module:
        return convolution(inputs, outputs, 1, stride=stride, bias=False, gain=1.0)

    def branch(self, x: Tensor) -> Tensor:
        x = self.conv1(self.relu(self.bn1(x)))
        return self.conv2(self.relu(self.bn2(x)))

    def last(self, y: Tensor) -> Tensor:
        return y


class StochasticDepth(nn.Module):
    """Leave out a block's branch for a share of the samples while training.

    y = m x / (1 - rate), one m of each sample, 0 with probability rate, else 1; in evaluation
    y = x. The rate is a buffer, as that of :class:`~deepweave.nn.Dropout`: saved with the model,
    and different for each member of a Population.

    Shapes: x (B, ...) -> (B, ...)

    Raises:
        ValueError: a rate outside [0, 1).

    Source: Huang, Sun, Liu, Sedra & Weinberger, Deep networks with stochastic depth, 2016.

    >>> layer = StochasticDepth(0.5)
    >>> sorted(set(layer(torch.ones(100, 2)).sum(1).tolist())), layer.eval()(torch.ones(1))
    ([0.0, 4.0], tensor([1.]))
    """

    rate: Tensor

    def __init__(self, rate: float = 0.1):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"StochasticDepth: rate must lie in [0, 1), got {rate}")
        self.register_buffer("rate", torch.tensor(float(rate)))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # in bf16 the draws would be rounded to eight bits, and a small rate be off by a fifth
        keep = 1 - self.rate.to(torch.promote_types(x.dtype, torch.float32))
        drawn = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device, dtype=keep.dtype)
        return x * ((drawn + keep).floor() / keep).to(x.dtype)

    def extra_repr(self) -> str:
        return f"rate={self.rate.item():.3g}" if self.rate.dim() == 0 else "rate of each member"


class SqueezeExcitation(nn.Module):
    """Weigh each channel by what all of them say: y = x sigmoid(W2 relu(W1 mean(x))).

    Args:
        channels: of x.
        reduction: how many times narrower the layer between W1 and W2 is.

    Shapes: x (B, C, *sizes) -> (B, C, *sizes)
    Source: Hu, Shen & Sun, Squeeze-and-excitation networks, 2018.
    """

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        if reduction < 1:
            raise ValueError(f"SqueezeExcitation: reduction must be at least 1, got {reduction}")
        width = max(1, channels // reduction)
        self.mean = Mean()
        self.squeeze = nn.Linear(channels, width)
        self.relu = nn.ReLU()
        self.excite = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.excite(self.relu(self.squeeze(self.mean(x)))).sigmoid()
        return x * weight.view(*weight.shape, *[1] * (x.dim() - 2))
