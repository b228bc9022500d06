"""Convolution, pooling and norms over one to three axes, and what all nets of them share."""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepweave.functional.convolution import Sizes, output_size, spread
from deepweave.functional.initial import he
from deepweave.nn.dense import sizes_of

Norm = Literal["batch", "group", "layer"] | None
Pool = Literal["max", "mean"]

inside: Any = None
with suppress(ImportError):  # internals of torch.func, read in torch 2.13
    inside = importlib.import_module("torch._C._functorch")
_LEVEL = getattr(inside, "maybe_current_level", None)


class _Drawn(nn.Module):
    """Weights normal with standard deviation gain / sqrt(inputs of one output), biases zero."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, *args: Any, gain: float = math.sqrt(2), **options: Any):
        self.gain = gain  # before the layer below draws its weights
        super().__init__(*args, **options)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.copy_(he(self.weight, gain=self.gain))
        if self.bias is not None:
            self.bias.zero_()


class Convolution1d(_Drawn, nn.Conv1d):
    """:class:`torch.nn.Conv1d` with He's weights for the activation that follows.

    Shapes: x (B, C, T) -> (B, outputs, T')
    """


class Convolution2d(_Drawn, nn.Conv2d):
    """:class:`torch.nn.Conv2d` with He's weights for the activation that follows.

    Shapes: x (B, C, H, W) -> (B, outputs, H', W')
    """


class Convolution3d(_Drawn, nn.Conv3d):
    """:class:`torch.nn.Conv3d` with He's weights for the activation that follows.

    Shapes: x (B, C, D, H, W) -> (B, outputs, D', H', W')
    """


def convolution(
    inputs: int,
    outputs: int,
    kernel: Sizes = 3,
    *,
    dims: int = 2,
    stride: Sizes = 1,
    padding: Sizes | None = None,
    dilation: Sizes = 1,
    groups: int = 1,
    bias: bool = True,
    gain: float = math.sqrt(2),
) -> nn.Module:
    """A convolution over one, two or three axes, its weights drawn for what follows it.

    Args:
        padding: None: as much as keeps the size at stride 1 (odd kernels).
        gain: of the activation that follows, see :func:`deepweave.functional.gain`; 1 for none.

    Shapes: x (B, inputs, *sizes) -> (B, outputs, *places)

    Raises:
        ValueError: not one to three axes, numbers below 1, groups that do not divide the channels,
            or an even kernel whose padding is left open.

    Source: He et al., Delving deep into rectifiers, 2015.

    >>> convolution(3, 8, stride=2)(torch.zeros(2, 3, 9, 9)).shape
    torch.Size([2, 8, 5, 5])
    """
    kinds: dict[int, Any] = {1: Convolution1d, 2: Convolution2d, 3: Convolution3d}
    if dims not in kinds:
        raise ValueError(f"convolution: dims must be 1, 2 or 3, got {dims}")
    size = spread(kernel, dims, "convolution: kernel")
    step = spread(stride, dims, "convolution: stride")
    gaps = spread(dilation, dims, "convolution: dilation")
    spread((inputs, outputs, groups), 3, "convolution: inputs, outputs and groups")
    if inputs % groups or outputs % groups:
        raise ValueError(
            f"convolution: {groups} groups must divide the channels, got {inputs} -> {outputs}"
        )
    if padding is None:
        if not all(k % 2 for k in size):
            raise ValueError(f"convolution: an even kernel needs its padding told, got {kernel}")
        padding = tuple(gap * (k - 1) // 2 for gap, k in zip(gaps, size))
    sides = spread(padding, dims, "convolution: padding", 0)
    return kinds[dims](
        inputs, outputs, size, step, sides, gaps, groups=groups, bias=bias, gain=gain
    )


def norm_layer(kind: Norm, channels: int, dims: int = 2) -> nn.Module:
    """A norm over channels first: ``"batch"``, ``"group"`` (of 8 channels or so), ``"layer"``.

    Group and layer norms work on each sample by itself; in batches of a few samples, in
    Populations and inside meta-learning they have no statistics that could be wrong.

    Raises:
        ValueError: an unknown kind.
    """
    if kind is None:
        return nn.Identity()
    if kind == "batch":
        return {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](channels)
    if kind == "group":
        return nn.GroupNorm(next(g for g in (8, 4, 3, 2, 1) if channels % g == 0), channels)
    if kind == "layer":
        return nn.GroupNorm(1, channels)
    raise ValueError(f"norm: expected 'batch', 'group', 'layer' or None, got {kind!r}")


def pool_layer(kind: Pool, kernel: int = 2, dims: int = 2, **options: Any) -> nn.Module:
    """Pooling by the largest or the mean over one to three axes.

    Raises:
        ValueError: an unknown kind.
    """
    kinds: dict[str, tuple[Any, Any, Any]] = {
        "max": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        "mean": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    }
    if kind not in kinds:
        raise ValueError(f"pool: expected 'max' or 'mean', got {kind!r}")
    return kinds[kind][dims - 1](kernel, **options)


class Mean(nn.Module):
    """The mean over all places of each channel: global average pooling.

    Shapes: x (B, C, *sizes) -> (B, C)
    Source: Lin, Chen & Yan, Network in network, 2014.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


def channels_last(x: Tensor) -> Tensor:
    """The same images, laid out in memory with the channels of a pixel side by side.

    Convolutions on a CPU then take 0.55 to 0.65 of the time, and what follows keeps the layout.
    The weights stay as they are, so that nothing that reads them by memory is misled. Inside
    ``torch.func``'s transforms, which have no such layout, x is given back as it is.
    """
    if x.dim() != 4 or x.device.type != "cpu" or _LEVEL is None or _LEVEL() is not None:
        return x
    if x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.clone(memory_format=torch.channels_last)


def image_sizes(
    sizes: Any, name: str, dims: tuple[int, ...] = (2,)
) -> tuple[int, tuple[int, ...], int]:
    """Channels, sizes and outputs, from a spec or ((C, *sizes), outputs).

    Raises:
        ValueError: not so many axes.
    """
    shape, outputs = sizes_of(sizes, name)
    if len(shape) - 1 not in dims:
        kinds = {1: "sequences (C, T)", 2: "images (C, H, W)", 3: "volumes (C, D, H, W)"}
        known = " or ".join(kinds[d] for d in dims)
        raise ValueError(f"{name}: needs {known}, got {shape}")
    return shape[0], shape[1:], outputs


def need(name: str, sizes: tuple[int, ...], least: int) -> None:
    """Refuse images too small for a net.

    Raises:
        ValueError: a side is below ``least``.
    """
    if min(sizes) < least:
        told = " x ".join(map(str, sizes))
        raise ValueError(f"{name}: needs images of at least {least} pixels a side, got {told}")


class ConvolutionalNet(nn.Module, ABC):
    """What nets of convolutions share: they refuse what they cannot take, in one line.

    A subclass says in :meth:`score` what it makes of a batch that fits.

    Args:
        name: of the net, in errors.
        channels: of its images.
        least: the smallest side that it can take.
        exact: the sizes that it takes, where it is made for one alone.
        dims: how many axes beside the channels.

    Shapes: x (B, C, *sizes) -> (B, outputs)
    """

    def __init__(
        self,
        name: str,
        channels: int,
        least: int = 1,
        *,
        exact: tuple[int, ...] | None = None,
        dims: int = 2,
    ):
        super().__init__()
        self.name, self.channels, self.least = name, channels, least
        self.exact, self.dims = exact, dims

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """The outputs of a batch that fits."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != self.dims + 2 or x.shape[1] != self.channels:
            axes = {1: "T", 2: "H, W", 3: "D, H, W"}[self.dims]
            raise ValueError(
                f"{self.name}: x must be (B, {self.channels}, {axes}), got {tuple(x.shape)}"
            )
        if self.exact is not None and tuple(x.shape[2:]) != self.exact:
            told = ", ".join(map(str, (self.channels, *self.exact)))
            raise ValueError(f"{self.name}: x must be (B, {told}), got {tuple(x.shape)}")
        if min(x.shape[2:]) < self.least:
            raise ValueError(
                f"{self.name}: needs images of at least {self.least} pixels a side, "
                f"got {tuple(x.shape)}"
            )
        return self.score(channels_last(x))


def after(size: int, *layers: tuple[int, int, int]) -> int:
    """What is left of a side after layers (kernel, stride, padding); 0 if a window does not fit."""
    for kernel, stride, padding in layers:
        if size + 2 * padding < kernel:
            return 0
        size = output_size(size, kernel, stride=stride, padding=padding)
    return size
