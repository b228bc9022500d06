"""Convolution and pooling as the formula has them, window by window, and their arithmetic.

The references to read and to test against: the layers of networks call torch's kernels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Sizes = int | Sequence[int]  # one number for every axis, or one for each


def spread(value: Sizes, axes: int, name: str, least: int = 1) -> tuple[int, ...]:
    """One number for each of so many axes.

    Raises:
        ValueError: another count of numbers, or one below ``least``.

    >>> spread(3, 2, "kernel"), spread((1, 2), 2, "kernel")
    ((3, 3), (1, 2))
    """
    numbers = (value,) * axes if isinstance(value, int) else tuple(value)
    if len(numbers) != axes or not all(isinstance(n, int) and n >= least for n in numbers):
        raise ValueError(f"{name}: expected {axes} whole numbers of at least {least}, got {value}")
    return numbers


def output_size(
    size: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    ceil: bool = False,
) -> int:
    """How many places a window of ``kernel`` has: floor((H + 2 p - d (K - 1) - 1) / s) + 1.

    H - K + 1 without padding, stride and dilation. With ``ceil`` a last window may reach over the
    end, as pooling layers allow; it must begin inside the image or its left padding.

    Raises:
        ValueError: there is no place at all.

    >>> output_size(28, 5), output_size(224, 7, stride=2, padding=3)
    (24, 112)
    """
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    count = (-(-room // stride) if ceil else room // stride) + 1
    if ceil and (count - 1) * stride >= size + padding:
        count -= 1
    if room < 0 or count < 1:
        reach = dilation * (kernel - 1) + 1
        raise ValueError(
            f"output_size: a window of {reach} does not fit into {size} and twice {padding}"
        )
    return count


class Reach(NamedTuple):
    """What one unit sees along an axis: how many places, and how far its neighbour is from it."""

    size: int
    jump: int


def receptive_field(layers: Iterable[Sequence[int]]) -> Reach:
    """The inputs that one output of a chain of layers depends on: r += (K - 1) d j, j *= s.

    Args:
        layers: (kernel, stride) or (kernel, stride, dilation) of each convolution or pooling, in
            order. Padding moves the field and does not widen it.

    Source: Araujo, Norris & Sim, Computing receptive fields of convolutional neural networks, 2019.

    >>> receptive_field([(3, 1), (3, 1)]), receptive_field([(7, 2), (3, 2)])
    (Reach(size=5, jump=1), Reach(size=11, jump=4))
    """
    size, jump = 1, 1
    for layer in layers:
        kernel, stride, dilation = (*layer, 1)[:3]
        size += (kernel - 1) * dilation * jump
        jump *= stride
    return Reach(size, jump)


def windows(
    x: Tensor, kernel: Sizes, *, stride: Sizes = 1, dilation: Sizes = 1, dims: int = 2
) -> Tensor:
    """Every window that lies whole inside the last ``dims`` axes: a view, nothing is copied.

    window[i, k] = x[i s + k d], i = 0 .. floor((H - d (K - 1) - 1) / s).

    Shapes: x (..., *sizes) -> (..., *places, *kernel)

    >>> windows(torch.arange(5), 3, dims=1)
    tensor([[0, 1, 2],
            [1, 2, 3],
            [2, 3, 4]])
    """
    kernels, strides = spread(kernel, dims, "windows: kernel"), spread(stride, dims, "stride")
    gaps, first = spread(dilation, dims, "windows: dilation"), x.dim() - dims
    for axis, (size, step, gap) in enumerate(zip(kernels, strides, gaps)):
        output_size(x.shape[first + axis], size, stride=step, dilation=gap)
        x = x.unfold(first + axis, gap * (size - 1) + 1, step)[..., ::gap]
    return x


def _padded(x: Tensor, padding: Sizes, dims: int, name: str, fill: float = 0.0) -> Tensor:
    sides = spread(padding, dims, f"{name}: padding", 0)
    if not any(sides):
        return x
    return F.pad(x, [side for size in reversed(sides) for side in (size, size)], value=fill)


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Convolution over one to three axes, as the sum over every window.

    output[o, i, j] = bias[o] + sum_c sum_k sum_l x[c, i s + k d, j s + l d] weight[o, c, k, l]

    The kernel is not turned round: it is a cross-correlation, as in every library of networks.
    With groups each part of the outputs sees its own part of the channels.

    Shapes: x (B, C, *sizes), weight (O, C / groups, *kernel), bias (O,) -> (B, O, *places)

    Raises:
        ValueError: shapes that do not fit together.

    >>> edges = torch.tensor([[[[1.0, -1.0]]]])
    >>> convolve(torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]]), edges)
    tensor([[[[ 0., -1.,  0.]]]])
    """
    dims = weight.dim() - 2
    if not 1 <= dims <= 3 or x.dim() != dims + 2:
        raise ValueError(
            "convolve: x must be (B, C, *sizes) and weight (O, C / groups, *kernel) over one to "
            f"three axes, got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    outputs, each = weight.shape[:2]
    if groups < 1 or outputs % groups or x.shape[1] != each * groups:
        raise ValueError(
            f"convolve: {groups} groups of {each} channels need {each * groups} channels and a "
            f"multiple of {groups} outputs, got {x.shape[1]} and {outputs}"
        )
    if bias is not None and bias.shape != (outputs,):
        raise ValueError(f"convolve: bias must be ({outputs},), got {tuple(bias.shape)}")
    cut = windows(
        _padded(x, padding, dims, "convolve"),
        weight.shape[2:],
        stride=stride,
        dilation=dilation,
        dims=dims,
    )
    places = cut.shape[2 : 2 + dims]
    cut = cut.reshape(len(x), groups, each, places.numel(), -1)
    kernels = weight.reshape(groups, outputs // groups, each, -1)
    found = torch.einsum("bgcpk,gock->bgop", cut, kernels).reshape(len(x), outputs, *places)
    return found if bias is None else found + bias.view(-1, *[1] * dims)


def pool(
    x: Tensor,
    kernel: Sizes,
    kind: str = "max",
    *,
    stride: Sizes | None = None,
    padding: Sizes = 0,
) -> Tensor:
    """The largest, or the mean, of every window of one to three axes, channel by channel.

    output[c, i, j] = max_k max_l x[c, i s + k, j s + l]

    Args:
        kind: ``"max"`` or ``"mean"``.
        stride: None: as the kernel, so that windows do not overlap.
        padding: on both sides: places of -inf for the maximum, zeros that count for the mean.

    Shapes: x (B, C, *sizes) -> (B, C, *places)

    Raises:
        ValueError: an unknown kind, or a window that does not fit.

    >>> pool(torch.tensor([[[1.0, 5.0, 2.0, 3.0]]]), 2)
    tensor([[[5., 3.]]])
    """
    dims = x.dim() - 2
    if kind not in ("max", "mean"):
        raise ValueError(f"pool: kind must be 'max' or 'mean', got {kind!r}")
    if not 1 <= dims <= 3:
        raise ValueError(f"pool: x must be (B, C, *sizes) over 1 to 3 axes, got {tuple(x.shape)}")
    step = kernel if stride is None else stride
    fill = float("-inf") if kind == "max" else 0.0
    cut = windows(_padded(x, padding, dims, "pool", fill), kernel, stride=step, dims=dims)
    axes = tuple(range(-dims, 0))
    return cut.amax(axes) if kind == "max" else cut.mean(axes)
