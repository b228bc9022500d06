"""Glow: a flow of images at several scales."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.bijection import Bijection, Composition, Squeeze
from deepweave.nn.coupling import ImageCoupling
from deepweave.nn.elementwise import Dequantize, Logit
from deepweave.nn.flow import Flow
from deepweave.nn.flows import shape_of
from deepweave.nn.mixing import ActNorm, InvertibleConvolution
from deepweave.nn.scalar import Kind


class MultiScale(Bijection):
    """Levels of bijections on maps; after each but the last half of the channels are done.

    What is done at a scale is moved and scaled by what the other half says (an affine coupling),
    which is Glow's learnt prior, and becomes noise; the other half goes on.

    Args:
        scales: a bijection of maps each.
        splits: the couplings between them, one fewer; their first channels are done.
        shapes: (C, H, W) of what goes into each scale.

    Shapes: x (B, C, H, W) -> (B, C H W), (B,)
    Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017; Kingma &
    Dhariwal, Glow, 2018.
    """

    def __init__(
        self,
        scales: Sequence[Bijection],
        splits: Sequence[ImageCoupling],
        shapes: Sequence[tuple[int, int, int]],
    ):
        super().__init__()
        if len(splits) != len(scales) - 1 or len(shapes) != len(scales):
            raise ValueError(
                f"MultiScale: {len(scales)} scales need as many shapes and one split fewer, got "
                f"{len(shapes)} and {len(splits)}"
            )
        self.scales, self.splits = nn.ModuleList(scales), nn.ModuleList(splits)
        self.shapes = [(4 * c, h // 2, w // 2) for c, h, w in shapes]  # what comes out

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        done, total = [], x.new_zeros(len(x))
        for i, scale in enumerate(self.scales):
            x, log_det = scale(x, context)
            total = total + log_det
            if i < len(self.splits):
                split: Any = self.splits[i]
                x, log_det = split(x, context)
                total = total + log_det
                done.append(x[:, : split.moves].flatten(1))
                x = x[:, split.moves :]
        return torch.cat([*done, x.flatten(1)], 1), total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        sizes = []
        for split, (_, h, w) in zip(self.splits, self.shapes):
            sizes.append(int(split.moves) * h * w)  # pyright: ignore[reportArgumentType, reportCallIssue]
        parts = list(z.split([*sizes, z.shape[1] - sum(sizes)], 1))
        x = parts.pop().unflatten(1, self.shapes[-1])
        total = z.new_zeros(len(z))
        for i in reversed(range(len(self.scales))):
            if i < len(self.splits):
                split = self.splits[i]
                part = parts.pop().unflatten(1, (-1, *self.shapes[i][1:]))
                x, log_det = split.inverse(torch.cat([part, x], 1), context)  # pyright: ignore
                total = total + log_det
            x, log_det = self.scales[i].inverse(x, context)  # pyright: ignore[reportCallIssue]
            total = total + log_det
        return x, total


@blueprint
def glow(
    features: Any,
    scales: int = 2,
    steps: int = 4,
    *,
    kind: Kind = "affine",
    width: int = 64,
    context: int = 0,
    levels: int | None = None,
    bins: int = 8,
    most: float = 2.0,
) -> Flow:
    """A flow of images: scales of squeezing, steps of ActNorm, 1 x 1 convolution and coupling.

    Args:
        features: the shape (C, H, W), or a data spec of images; sides divided by 2^scales.
        scales: scales; half of the channels are done after each.
        steps: of each scale.
        kind: of the couplings: ``"affine"``, as in the paper, or ``"spline"``.
        width: channels of the couplings' nets.
        context: how many numbers of context; 0 for none.
        levels: the data have so many levels in [0, 1] (256 for bytes): they are dequantised, and
            log densities are of the discrete data. None: the data are any numbers.
        bins: of splines.
        most: the bound of log scales.

    Shapes: x (B, C, H, W) -> log density (B,)
    Raises:
        ValueError: no images, sides that cannot be halved so often, numbers below 1.
    Source: Kingma & Dhariwal, Glow: generative flow with invertible 1x1 convolutions, 2018.

    >>> flow = glow((1, 8, 8), scales=2, steps=1, levels=17)
    >>> flow.sample(3).shape
    torch.Size([3, 1, 8, 8])
    """
    shape = shape_of(features, "glow")
    if len(shape) != 3:
        raise ValueError(f"glow: needs images (C, H, W), got {shape}")
    if scales < 1 or steps < 1 or width < 1:
        raise ValueError(
            f"glow: scales, steps and width must be at least 1, got {scales}, {steps}, {width}"
        )
    channels, height, wide = shape
    if height % 2**scales or wide % 2**scales:
        raise ValueError(
            f"glow: sides must be divided by 2^scales = {2**scales}, got {height} x {wide}"
        )
    parts_of, splits, shapes = [], [], []
    for scale in range(scales):
        shapes.append((channels, height, wide))
        channels, height, wide = 4 * channels, height // 2, wide // 2
        parts: list[Bijection] = [Squeeze()]
        for _ in range(steps):
            coupling = ImageCoupling(channels, kind, width, context=context, bins=bins, most=most)
            parts += [ActNorm(channels), InvertibleConvolution(channels), coupling]
        parts_of.append(Composition(parts))
        if scale < scales - 1:
            split = ImageCoupling(channels, "affine", width, context=context, most=most)
            splits.append(split)
            channels = split.stays
    body = MultiScale(parts_of, splits, shapes)
    first: list[Bijection] = [Dequantize(levels), Logit(0.01)] if levels else []
    return Flow(
        Composition([*first, body]), shape, context=context, noise=(math.prod(shape),),
        levels=levels,
    )  # fmt: skip
