"""Capsule networks: parts found by convolutions, which vote for wholes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional import one_hot, routing
from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.convolution import (
    ConvolutionalNet,
    Norm,
    after,
    convolution,
    image_sizes,
    need,
    norm_layer,
)
from deepweave.nn.dense import Dense

Routing = Literal["dynamic", "full", "self"]


class PrimaryCapsules(nn.Module):
    """Capsules out of maps: ``size`` channels of one place are one vector, squashed.

    Args:
        features: any module that gives maps (B, C, *places); its channels are C / size kinds of
            capsule.
        size: components of a capsule.

    Shapes: x -> (B, I, size), I = kinds x places, the places of one kind side by side
    Raises:
        ValueError: a size below 1, or maps whose channels it does not divide.
    Source: Sabour, Frosst & Hinton, Dynamic routing between capsules, 2017.

    >>> PrimaryCapsules(nn.Conv2d(3, 16, 3), size=8)(torch.zeros(2, 3, 5, 5)).shape
    torch.Size([2, 18, 8])
    """

    def __init__(self, features: nn.Module, size: int = 8):
        super().__init__()
        if size < 1:
            raise ValueError(f"PrimaryCapsules: size must be at least 1, got {size}")
        self.features = features
        self.size = size

    def forward(self, x: Any) -> Tensor:
        maps = self.features(x)
        if maps.dim() < 3 or maps.shape[1] % self.size:
            raise ValueError(
                f"PrimaryCapsules: maps must be (B, channels divided by {self.size}, *places), "
                f"got {tuple(maps.shape)}"
            )
        parts = maps.flatten(2).unflatten(1, (-1, self.size))  # (B, kinds, D, places)
        return routing.squash(parts.transpose(2, 3).flatten(1, 2))

    def extra_repr(self) -> str:
        return f"size={self.size}"


class Capsules(nn.Module):
    """Capsules that get their vectors by routing the votes of those below.

    The weights are normal with standard deviation K / sqrt(E I), so that before any training the
    K wholes have lengths between 0 and 1 that differ; with a deviation of 1, as is often written,
    all lengths lie near 1, where squashing is flat, and nothing is learnt.

    Args:
        inputs: how many capsules there are below, and their components: (I, D).
        outputs: how many wholes, and their components: (K, E).
        routing: ``"dynamic"``: by agreement, the couplings constant on the way back; ``"full"``:
            the same with slopes through all rounds; ``"self"``: self-routing, no rounds.
        rounds: of dynamic routing.
        gain: a factor for the first weights.

    Shapes: u (B, I, D) -> (B, K, E)
    Raises:
        ValueError: sizes or rounds below 1, an unknown routing, or one whole for self-routing.

    >>> layer = Capsules((6, 4), (3, 8))
    >>> layer(torch.randn(2, 6, 4)).shape, layer.coupling(torch.randn(2, 6, 4)).shape
    (torch.Size([2, 3, 8]), torch.Size([2, 6, 3]))
    """

    def __init__(
        self,
        inputs: tuple[int, int],
        outputs: tuple[int, int],
        routing: Routing = "dynamic",
        *,
        rounds: int = 3,
        gain: float = 1.0,
    ):
        super().__init__()
        if min(*inputs, *outputs, rounds) < 1:
            raise ValueError(
                f"Capsules: sizes and rounds must be at least 1, got {inputs}, {outputs}, {rounds}"
            )
        if routing not in ("dynamic", "full", "self"):
            raise ValueError(
                f"Capsules: routing must be 'dynamic', 'full' or 'self', got {routing!r}"
            )
        if routing == "self" and outputs[0] == 1:
            raise ValueError(
                "Capsules: self-routing needs two wholes or more, for one would get everything: "
                "take 'dynamic'"
            )
        (self.count, self.size), (self.wholes, self.pose) = inputs, outputs
        self.routing, self.rounds, self.gain = routing, rounds, gain
        self.weight = nn.Parameter(torch.empty(self.wholes, self.size, self.count, self.pose))
        self.router = (
            nn.Parameter(torch.empty(self.weight.shape[:3])) if routing == "self" else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        std = self.gain * self.wholes / math.sqrt(self.pose * self.count)
        nn.init.normal_(self.weight, std=std)
        if self.router is not None:  # softmax of it: at first every capsule shares nearly alike
            nn.init.normal_(self.router, std=1 / math.sqrt(self.size))

    def forward(self, u: Tensor) -> Tensor:
        if self.router is not None:
            return routing.self_route(u, self.weight, self.router)
        gradient = "full" if self.routing == "full" else "detached"
        return routing.route(u, self.weight, self.rounds, gradient=gradient)

    def coupling(self, u: Tensor) -> Tensor:
        """How much of each capsule goes to each whole. Shapes: u (B, I, D) -> (B, I, K)"""
        if self.router is not None:
            return routing.self_couple(u, self.router)
        return routing.couple(u, self.weight, self.rounds)

    def extra_repr(self) -> str:
        told = f"({self.count}, {self.size}), ({self.wholes}, {self.pose}), {self.routing}"
        return told if self.routing == "self" else f"{told}, rounds={self.rounds}"


class Primary(ConvolutionalNet):
    """Convolutions with capsules at their end, for images of one size."""

    def __init__(self, layers: nn.Module, channels: int, space: tuple[int, ...]):
        super().__init__("capsnet", channels, exact=space)
        self.layers = layers

    def score(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CapsNet(nn.Module):
    """Primary capsules, one capsule for each class, and maybe a decoder of poses.

    Called, it gives class scores, the log odds of the lengths: so that it is a classifier like
    any other, its sigmoid the lengths. :meth:`poses` gives the vectors, :meth:`reconstruct` the
    images that they stand for.

    Args:
        primary: gives capsules (B, I, D) of its input.
        capsules: routes them to (B, K, E).
        decoder: makes (B, *shape) of (B, K E), with all but some poses masked; or None.

    Shapes: x (B, *shape) -> (B, K)
    """

    def __init__(self, primary: nn.Module, capsules: nn.Module, decoder: nn.Module | None = None):
        super().__init__()
        self.primary, self.capsules, self.decoder = primary, capsules, decoder

    def poses(self, x: Any) -> Tensor:
        """The vector of each class, its length in [0, 1). Shapes: x -> (B, K, E)"""
        return self.capsules(self.primary(x))

    def lengths(self, x: Any) -> Tensor:
        """How sure the net is that each class is there, by itself. Shapes: x -> (B, K)"""
        return routing.lengths(self.poses(x))

    def forward(self, x: Any) -> Tensor:
        return routing.log_odds(self.lengths(x))

    def coupling(self, x: Any) -> Tensor:
        """How much of each primary capsule goes to each class. Shapes: x -> (B, I, K)"""
        layer: Any = self.capsules
        return layer.coupling(self.primary(x))

    def reconstruct(self, poses: Tensor, mask: Tensor | None = None) -> Tensor:
        """The image that poses stand for, those masked out left out.

        Args:
            mask: which classes count; None: the longest vector of each sample.

        Shapes: poses (B, K, E), mask (B, K) -> (B, *shape)
        Raises:
            ValueError: there is no decoder, or shapes do not fit.
        """
        if self.decoder is None:
            raise ValueError("CapsNet: there is no decoder: make it with decoder=(64, 128)")
        if poses.dim() != 3 or (mask is not None and mask.shape != poses.shape[:2]):
            found = "" if mask is None else f" and a mask of {tuple(mask.shape)}"
            raise ValueError(f"CapsNet: poses must be (B, K, E) and a mask (B, K), "
                             f"got {tuple(poses.shape)}{found}")  # fmt: skip
        if mask is None:
            mask = one_hot(routing.lengths(poses).argmax(1), poses.shape[1])
        return self.decoder((poses * mask.to(poses.dtype).unsqueeze(2)).flatten(1))


@blueprint
def capsnet(
    sizes: Any,
    widths: Sequence[int] = (32,),
    routing: Routing = "dynamic",
    *,
    kinds: int = 8,
    size: int = 8,
    pose: int = 16,
    rounds: int = 3,
    kernel: int = 5,
    stride: int | None = None,
    activation: Activation = "relu",
    norm: Norm = None,
    decoder: Sequence[int] = (),
) -> CapsNet:
    """A capsule network for images, of any measure.

    Convolutions, one more to primary capsules at every second place, and routing to one capsule
    for each class. The net of the paper has ``widths=(256,), kinds=32, kernel=9,
    decoder=(512, 1024)`` without padding, and takes a CPU about a second for a batch of 32; the
    sizes here are meant for one.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs).
        widths: the channels of each convolution before the capsules.
        routing: ``"dynamic"``, ``"full"`` or ``"self"``, see :class:`Capsules`.
        kinds: of primary capsules at each place.
        size: components of a primary capsule.
        pose: components of a class capsule.
        rounds: of dynamic routing.
        kernel: of all convolutions, odd.
        stride: of the first convolution; None: 2 for images of 16 or more pixels a side, else 1.
        activation: of the convolutions before the capsules, and of the decoder.
        norm: ``"batch"``, ``"group"``, ``"layer"`` or None, behind each of these convolutions.
        decoder: hidden widths of a decoder of the masked poses, its last layer a sigmoid; () for
            none, and then there is nothing to reconstruct with.

    Shapes: x (B, C, H, W) -> (B, outputs), the log odds of the capsules' lengths
    Raises:
        ValueError: no images, numbers below 1, an even kernel, or unknown names.
    Source: Sabour, Frosst & Hinton, Dynamic routing between capsules, 2017.

    >>> net = capsnet(((1, 8, 8), 10), decoder=(32,))
    >>> poses = net.poses(torch.zeros(2, 1, 8, 8))
    >>> poses.shape, net.reconstruct(poses).shape
    (torch.Size([2, 10, 16]), torch.Size([2, 1, 8, 8]))
    """
    channels, space, outputs = image_sizes(sizes, "capsnet")
    numbers = {"kinds": (kinds,), "size": (size,), "pose": (pose,), "rounds": (rounds,)}
    for name, found in {"widths": widths, "decoder": decoder, **numbers}.items():
        if not all(isinstance(n, int) and n > 0 for n in found):
            raise ValueError(f"capsnet: {name} must be at least 1, got {tuple(found)}")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"capsnet: kernel must be odd, got {kernel}")
    if stride is None:
        stride = 2 if min(space) >= 16 and widths else 1
    need("capsnet", space, 2)
    gain, layers, width, left = gain_of(activation), [], channels, list(space)
    for i, wide in enumerate(widths):
        step = stride if i == 0 else 1
        layers.append(convolution(width, wide, kernel, stride=step, bias=norm is None, gain=gain))
        if norm is not None:
            layers.append(norm_layer(norm, wide))
        layers.append(activation_layer(activation))
        width, left = wide, [after(n, (kernel, step, kernel // 2)) for n in left]
    layers.append(convolution(width, kinds * size, kernel, stride=2, gain=1.0))
    left = [after(n, (kernel, 2, kernel // 2)) for n in left]
    primary = Primary(PrimaryCapsules(nn.Sequential(*layers), size), channels, space)
    below = (kinds * math.prod(left), size)
    wholes = Capsules(below, (outputs, pose), routing, rounds=rounds)
    drawn = None
    if decoder:
        parts: list[nn.Module] = []
        width = outputs * pose
        for wide in decoder:
            parts += [Dense(width, wide, gain=gain), activation_layer(activation)]
            width = wide
        shape = (channels, *space)
        parts += [Dense(width, math.prod(shape), gain=1.0), nn.Sigmoid(), nn.Unflatten(1, shape)]
        drawn = nn.Sequential(*parts)
    return CapsNet(primary, wholes, drawn)
