"""Networks that take noise off: a U-Net for images, a residual one for rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.attention import attend
from deepweave.nn.dense import sizes_of
from deepweave.nn.dropout import Dropout


class Moment(nn.Module):
    """What a network knows of the noise level, and perhaps the class: a vector for each sample.

    Waves of the level (fixed, a hundredth to ten turns from one to the next whole number), then two
    dense layers.

    Shapes: level (B,), told (B, classes) -> (B, features)
    """

    frequencies: Tensor

    def __init__(self, features: int, classes: int, waves: int = 16):
        super().__init__()
        self.classes = classes
        self.register_buffer("frequencies", _turns(waves), persistent=False)
        self.first = nn.Linear(2 * waves, features)
        self.second = nn.Linear(features, features)
        self.told = nn.Linear(classes, features, bias=False) if classes else None

    def forward(self, level: Tensor, told: Tensor | None = None) -> Tensor:
        found = F.silu(self.first(_waves(level, self.frequencies)))
        if self.told is not None:
            if told is None:
                raise ValueError(f"denoiser: it must be told classes (B, {self.classes})")
            found = found + self.told(told)
        return F.silu(self.second(found))


class Changed(nn.Module):
    """Two convolutions of 3 x 3 on normed input, shifted and scaled by the moment; x is added.

    Shapes: x (B, inputs, H, W), moment (B, features) -> (B, outputs, H, W)
    """

    def __init__(self, inputs: int, outputs: int, features: int, dropout: float):
        super().__init__()
        self.norm = nn.GroupNorm(_groups(inputs), inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.moment = nn.Linear(features, 2 * outputs)
        self.inner = nn.GroupNorm(_groups(outputs), outputs, affine=False)
        self.drop = Dropout(dropout) if dropout else nn.Identity()
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, moment: Tensor) -> Tensor:
        z = self.first(F.silu(self.norm(x)))
        scale, shift = self.moment(moment)[:, :, None, None].chunk(2, 1)
        z = F.silu(torch.addcmul(shift, self.inner(z), 1 + scale))
        return (self.skip(x) + self.second(self.drop(z))) * math.sqrt(0.5)


class Looked(nn.Module):
    """Attention among all places of an image, added to it. Shapes: (B, C, H, W) -> the same"""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(_groups(channels), channels)
        self.project = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        parts = self.project(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = parts.transpose(3, 4).unbind(1)  # (B, heads, places, width)
        found = attend(query, key, value).transpose(2, 3).flatten(1, 2)
        return (x + self.out(found.unflatten(2, (height, width)))) * math.sqrt(0.5)


class UNet(nn.Module):
    """Down by halves and up again, what was seen on the way down beside what comes up.

    Shapes: x (B, C, H, W), level (B,), told (B, classes) -> (B, C, H, W)
    """

    def __init__(
        self, channels: int, widths: Sequence[int], blocks: int, heads: int, dropout: float,
        classes: int,
    ):  # fmt: skip
        super().__init__()
        features = 4 * widths[0]
        self.moment = Moment(features, classes)
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        inputs, kept = widths[0], []
        for width in widths:
            part = nn.ModuleList()
            for _ in range(blocks):
                part.append(Changed(inputs, width, features, dropout))
                inputs = width
                kept.append(width)
            self.down.append(part)
        self.middle = nn.ModuleList([
            Changed(inputs, inputs, features, dropout), Looked(inputs, heads),
            Changed(inputs, inputs, features, dropout),
        ])  # fmt: skip
        for width in reversed(widths):
            part = nn.ModuleList()
            for _ in range(blocks):
                part.append(Changed(inputs + kept.pop(), width, features, dropout))
                inputs = width
            self.up.append(part)
        self.norm = nn.GroupNorm(_groups(inputs), inputs)
        self.leave = nn.Conv2d(inputs, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, level: Tensor, told: Tensor | None = None) -> Tensor:
        if level.shape != x.shape[:1]:
            raise ValueError(f"unet: level must be ({len(x)},), got {tuple(level.shape)}")
        moment = self.moment(level, told)
        x = self.enter(x)
        kept: list[Tensor] = []
        for place, part in enumerate(self.down):
            if place:
                x = F.avg_pool2d(x, 2, ceil_mode=True)
            for block in part:  # type: ignore[union-attr]
                x = block(x, moment)
                kept.append(x)
        first, look, last = self.middle
        x = last(look(first(x, moment)), moment)
        for part in self.up:
            for block in part:  # type: ignore[union-attr]
                beside = kept.pop()
                if beside.shape[2:] != x.shape[2:]:
                    x = F.interpolate(x, size=beside.shape[2:], mode="nearest")
                x = block(torch.cat([x, beside], 1), moment)
        return self.leave(F.silu(self.norm(x)))


class Rows(nn.Module):
    """Dense blocks on rows of numbers, each shifted and scaled by the moment and added.

    Shapes: x (B, D), level (B,), told (B, classes) -> (B, D)
    """

    def __init__(self, inputs: int, width: int, blocks: int, dropout: float, classes: int):
        super().__init__()
        self.moment = Moment(width, classes)
        self.enter = nn.Linear(inputs, width)
        self.norms = nn.ModuleList(
            nn.LayerNorm(width, elementwise_affine=False) for _ in range(blocks)
        )
        self.changes = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.first = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(blocks))
        self.drop = Dropout(dropout) if dropout else nn.Identity()
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, inputs)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor, level: Tensor, told: Tensor | None = None) -> Tensor:
        moment = self.moment(level, told)
        z = self.enter(x)
        for norm, change, first, second in zip(self.norms, self.changes, self.first, self.second):
            scale, shift = change(moment).chunk(2, 1)
            z = z + second(self.drop(F.silu(first(torch.addcmul(shift, norm(z), 1 + scale)))))
        return self.leave(self.norm(z))


class Flat(nn.Module):
    """A network of rows for samples of any shape."""

    def __init__(self, inner: Rows):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, level: Tensor, told: Tensor | None = None) -> Tensor:
        return self.inner(x.flatten(1), level, told).view(x.shape)


@blueprint
class Told(nn.Module):
    """Any network of rows as one that takes noise off: level and class stand beside the inputs.

    Args:
        model: (B, D + 2 waves + classes) -> (B, D), or what has as many values.
        classes: how many classes it is told, one-hot.
        waves: in which the level is written, a cosine and a sine each.

    Shapes: x (B, *shape), level (B,), told (B, classes) -> (B, *shape)

    >>> Told(nn.Linear(2 + 8, 2))(torch.zeros(5, 2), torch.zeros(5)).shape
    torch.Size([5, 2])
    """

    frequencies: Tensor

    def __init__(self, model: nn.Module, classes: int = 0, waves: int = 4):
        super().__init__()
        if classes < 0 or waves < 1:
            raise ValueError(f"Told: needs classes >= 0 and waves >= 1, got {classes} and {waves}")
        self.model, self.classes = model, classes
        self.register_buffer("frequencies", _turns(waves, 0.0), persistent=False)

    def forward(self, x: Tensor, level: Tensor, told: Tensor | None = None) -> Tensor:
        parts = [x.flatten(1), _waves(level, self.frequencies)]
        if self.classes:
            if told is None:
                raise ValueError(f"Told: it must be told classes (B, {self.classes})")
            parts.append(told)
        return self.model(torch.cat(parts, 1)).view(x.shape)


@blueprint
def unet(
    sizes: Any,
    widths: Sequence[int] = (32, 64),
    blocks: int = 1,
    *,
    heads: int = 4,
    dropout: float = 0.0,
    classes: int = 0,
) -> UNet:
    """A U-Net that takes noise off images, of any sides.

    Args:
        sizes: a data spec of images, or ((C, H, W), ...).
        widths: the channels at each size; from one to the next the sides are halved.
        blocks: at each size, on the way down and on the way up.
        heads: of attention among all places at the smallest size.
        dropout: within the blocks.
        classes: how many classes it is told, one-hot.

    Shapes: x (B, C, H, W), level (B,), told (B, classes) -> (B, C, H, W)

    Raises:
        ValueError: no images, or widths that the heads do not divide.

    Source: Ronneberger, Fischer & Brox, U-Net, 2015; Ho, Jain & Abbeel, 2020; Song et al., 2021.

    >>> unet(((1, 7, 9), 1), (8, 16))(torch.zeros(2, 1, 7, 9), torch.zeros(2)).shape
    torch.Size([2, 1, 7, 9])
    """
    shape = sizes_of(sizes, "unet")[0]
    if len(shape) != 3:
        raise ValueError(f"unet: needs images (C, H, W), got {shape}")
    if not widths or min(widths) < 1 or blocks < 1 or heads < 1 or classes < 0:
        raise ValueError(
            f"unet: widths, blocks and heads must be at least 1, got {tuple(widths)}, {blocks} and "
            f"{heads}"
        )
    if widths[-1] % heads:
        raise ValueError(f"unet: {heads} heads do not divide the last width, {widths[-1]}")
    return UNet(shape[0], widths, blocks, heads, dropout, classes)


@blueprint
def denoiser(
    sizes: Any, width: int = 256, blocks: int = 3, *, dropout: float = 0.0, classes: int = 0
) -> Flat:
    """A residual network of dense layers that takes noise off samples of any shape.

    Args:
        sizes: a data spec, or (shape, ...).
        width: of the residual stream.
        blocks: how many are added to it.
        dropout: within the blocks.
        classes: how many classes it is told, one-hot.

    Shapes: x (B, *shape), level (B,), told (B, classes) -> (B, *shape)

    Raises:
        ValueError: a width or blocks below 1.

    Source: Perez et al., FiLM, 2018 (shift and scale); Peebles & Xie, Scalable diffusion models
    with transformers, 2023 (of normed input, by the moment).

    >>> denoiser(((2,), 1), 16, 1)(torch.zeros(5, 2), torch.zeros(5)).shape
    torch.Size([5, 2])
    """
    if width < 1 or blocks < 1 or classes < 0:
        raise ValueError(f"denoiser: width and blocks must be at least 1, got {width} and {blocks}")
    size = math.prod(sizes_of(sizes, "denoiser")[0])
    return Flat(Rows(size, width, blocks, dropout, classes))


def _turns(waves: int, least: float = -2.0) -> Tensor:
    """Angular frequencies from 10^least turns to ten. Shapes: -> (waves,)"""
    return 2 * math.pi * torch.logspace(least, 1, waves) / (1 if least < 0 else 10)


def _waves(level: Tensor, frequencies: Tensor) -> Tensor:
    """Cosines and sines of a number. Shapes: (B,) -> (B, 2 waves)"""
    angle = level[:, None] * frequencies.to(level.dtype)
    return torch.cat([angle.cos(), angle.sin()], 1)


def _groups(channels: int) -> int:
    """Groups of at least four channels, at most eight groups."""
    return next(n for n in (8, 4, 2, 1) if channels % n == 0 and channels // n >= min(4, channels))
