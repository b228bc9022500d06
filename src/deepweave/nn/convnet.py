"""Convolutional nets of one's own measure, and the first of them, LeNet."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.convolution import (
    ConvolutionalNet,
    Mean,
    Norm,
    Pool,
    after,
    convolution,
    image_sizes,
    need,
    norm_layer,
    pool_layer,
)
from deepweave.nn.dense import Dense
from deepweave.nn.dropout import Dropout


class Stacked(ConvolutionalNet):
    """Layers that find features, and layers that judge by them."""

    def __init__(self, features: nn.Module, classifier: nn.Module, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.features = features
        self.classifier = classifier

    def score(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x))


def _activation(kind: Activation) -> nn.Module:
    # a module given once for all layers becomes one of its own in each
    return activation_layer(copy.deepcopy(kind) if isinstance(kind, nn.Module) else kind)


@blueprint
def lenet(
    sizes: Any,
    activation: Activation = "tanh",
    pool: Pool = "mean",
    *,
    padding: int = 2,
) -> Stacked:
    """LeNet-5: two convolutions of 5 x 5, each followed by pooling, and three dense layers.

    Channels 6 and 16, dense layers of 120 and 84. Of the first net this has the sizes; its
    trainable pooling and partial connections are left out, as is usual. The padding of 2 makes
    the 28 pixels of MNIST the 32 of the paper.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs).
        activation: of all hidden layers.
        pool: ``"mean"`` as in the paper, or ``"max"``.
        padding: of the first convolution.

    Shapes: x (B, C, H, W) -> (B, outputs)

    Raises:
        ValueError: no images, or too small ones.

    Source: LeCun, Bottou, Bengio & Haffner, Gradient-based learning applied to document
    recognition, 1998.

    >>> net = lenet(((1, 28, 28), 10))
    >>> sum(weight.numel() for weight in net.parameters())
    61706
    """
    channels, space, outputs = image_sizes(sizes, "lenet")
    need("lenet", space, 16 - 2 * padding)
    gain, layers, width = gain_of(activation), [], channels
    for size, side in ((6, padding), (16, 0)):
        layers.append(convolution(width, size, 5, padding=side, gain=gain))
        layers += [_activation(activation), pool_layer(pool)]
        width = size
    left = [after(size, (5, 1, padding), (2, 2, 0), (5, 1, 0), (2, 2, 0)) for size in space]
    head: list[nn.Module] = [nn.Flatten()]
    width = 16 * left[0] * left[1]
    for size in (120, 84):
        head += [Dense(width, size, gain=gain), _activation(activation)]
        width = size
    head.append(Dense(width, outputs, gain=1.0))
    features, classifier = nn.Sequential(*layers), nn.Sequential(*head)
    return Stacked(features, classifier, "lenet", channels, exact=space)


@blueprint
def convnet(
    sizes: Any,
    widths: Sequence[int] = (32, 64, 128),
    activation: Activation = "relu",
    *,
    depth: int = 1,
    kernel: int = 3,
    norm: Norm = "batch",
    pool: Literal["max", "mean", "stride"] = "max",
    hidden: Sequence[int] = (),
    dropout: float = 0.0,
) -> Stacked:
    """A convolutional net of any measure, over sequences, images or volumes.

    For every width ``depth`` times convolution, norm, activation; between widths the sides are
    halved. Then the mean over all places, or, with ``hidden``, the flattened map and dense
    layers; then the outputs.

    Args:
        sizes: a data spec, or ((C, *sizes), outputs) with one to three sizes.
        widths: the channels of each stage.
        activation: a name, function or module.
        depth: convolutions in each stage.
        kernel: of the convolutions, odd.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or None.
        pool: how sides are halved: pooling by ``"max"`` or ``"mean"``, or ``"stride"``: the first
            convolution of the next stage takes every second place.
        hidden: widths of dense layers; () reads the mean over all places, and then images of any
            size go through.
        dropout: the share of features dropped before each dense layer while training.

    Shapes: x (B, C, *sizes) -> (B, outputs)

    Raises:
        ValueError: sizes that can not be halved so often, an even kernel, an unknown name, or a
            number out of range.

    >>> import torch
    >>> convnet(((1, 8, 8), 10), widths=(4, 8))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    >>> convnet(((3, 50), 4), widths=(8, 16), pool="stride")(torch.zeros(2, 3, 50)).shape
    torch.Size([2, 4])
    """
    channels, space, outputs = image_sizes(sizes, "convnet", (1, 2, 3))
    for name, numbers in (("widths", widths), ("hidden", hidden), ("depth", (depth,))):
        if not all(isinstance(n, int) and n > 0 for n in numbers) or (
            name == "widths" and not numbers
        ):
            raise ValueError(f"convnet: {name} must be at least 1, got {tuple(numbers)}")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"convnet: kernel must be odd, got {kernel}")
    if pool not in ("max", "mean", "stride"):
        raise ValueError(f"convnet: pool must be 'max', 'mean' or 'stride', got {pool!r}")
    least = 2 ** (len(widths) - 1) if pool != "stride" else 1
    if least > 1:
        need(f"convnet of {len(widths)} widths", space, least)
    dims, gain, layers, width = len(space), gain_of(activation), [], channels
    left = list(space)
    for stage, size in enumerate(widths):
        halve = stage > 0
        if halve and pool != "stride":
            layers.append(pool_layer(pool, 2, dims))
        if halve:
            left = [after(n, (2, 2, 0) if pool != "stride" else (1, 2, 0)) for n in left]
        for i in range(depth):
            step = 2 if halve and pool == "stride" and i == 0 else 1
            options = {"stride": step, "bias": norm is None, "gain": gain}
            layers.append(convolution(width, size, kernel, dims=dims, **options))
            if norm is not None:
                layers.append(norm_layer(norm, size, dims))
            layers.append(_activation(activation))
            width = size
    head: list[nn.Module] = [nn.Flatten() if hidden else Mean()]
    width *= math.prod(left) if hidden else 1
    dropped = [Dropout(dropout)] if dropout else []
    for size in hidden:
        head += [*dropped, Dense(width, size, gain=gain), _activation(activation)]
        dropped, width = [Dropout(dropout)] if dropout else [], size
    head += [*dropped, Dense(width, outputs, gain=1.0)]
    return Stacked(
        nn.Sequential(*layers),
        nn.Sequential(*head),
        "convnet",
        channels,
        least,
        exact=space if hidden else None,
        dims=dims,
    )
