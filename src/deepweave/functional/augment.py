"""Random changes of whole batches that keep what a sample means: each sample is drawn its own.

Every function takes images (B, C, H, W) (or any (B, ...), where it says so) and gives the same
shape. All samples are changed in a few tensor operations, nothing is done in place, and all work
under ``torch.func.vmap`` with ``randomness="different"``. Randomness is torch's global generator.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

Amount = float | Tensor


def _images(x: Tensor, name: str) -> tuple[int, int, int, int]:
    """The sizes of a batch of images.

    Raises:
        ValueError: it is none.
    """
    if x.dim() != 4:
        raise ValueError(f"{name}: images must be (B, C, H, W), got {tuple(x.shape)}")
    count, channels, height, width = x.shape
    return count, channels, height, width


def _draw(x: Tensor, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1) for each sample, (B, *shape)."""
    return torch.rand(len(x), *shape, dtype=x.dtype, device=x.device)


def _spread(x: Tensor, most: Amount, *shape: int) -> Tensor:
    """Uniform numbers in [-most, most] for each sample."""
    return (2 * _draw(x, *shape) - 1) * most


def _over(value: Tensor, x: Tensor) -> Tensor:
    """One number per sample, (B,), shaped to broadcast over x."""
    return value.view(-1, *[1] * (x.dim() - 1))


def flip(x: Tensor, *, share: Amount = 0.5, dim: int = -1) -> Tensor:
    """Mirror a share of the samples, left to right (``dim=-1``) or upside down (``dim=-2``).

    Shapes: x (B, ...) -> (B, ...)

    >>> flip(torch.tensor([[[[1.0, 2.0]]]]), share=1.0)
    tensor([[[[2., 1.]]]])
    """
    return torch.where(_over(_draw(x), x) < share, x.flip(dim), x)


def shift(x: Tensor, most: int = 2, *, fill: float = 0.0) -> Tensor:
    """Move each image by whole pixels, up to ``most`` each way: a random crop of the padded one.

    Shapes: x (B, C, H, W) -> (B, C, H, W); what comes in from outside is ``fill``.

    >>> shift(torch.ones(2, 1, 4, 4), 0).sum()
    tensor(32.)
    """
    count, _, height, width = _images(x, "shift")
    if most < 0:
        raise ValueError(f"shift: most must be at least 0, got {most}")
    for dim, size in ((2, height), (3, width)):
        by = torch.randint(-most, most + 1, (count, 1), device=x.device)
        place = torch.arange(size, device=x.device) + by  # (B, size): where each pixel is from
        inside = (place >= 0) & (place < size)
        shape = (count, 1, size, 1) if dim == 2 else (count, 1, 1, size)
        index = place.clamp(0, size - 1).view(shape).expand(x.shape)
        x = torch.where(inside.view(shape), x.gather(dim, index), fill)
    return x


def affine(
    x: Tensor,
    *,
    degrees: Amount = 0.0,
    scale: Amount = 0.0,
    translate: Amount = 0.0,
    shear: Amount = 0.0,
    border: bool = False,
) -> Tensor:
    """Turn, zoom, move and shear each image, by bilinear interpolation.

    Each amount is the largest, drawn uniformly both ways: degrees of the turn, share of the size
    by which it is zoomed (a factor in exp(+-scale)) and moved, tangent of the shear.

    Args:
        border: what lies outside: False: zeros; True: the nearest pixel.

    Shapes: x (B, C, H, W) -> (B, C, H, W)
    """
    _, _, height, width = _images(x, "affine")
    angle = _spread(x, degrees) * (math.pi / 180)
    zoom = _spread(x, scale).exp()
    lean = _spread(x, shear)
    move = _spread(x, translate, 2) * 2  # the picture is 2 wide in the grid's units
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    across = (torch.arange(width, dtype=x.dtype, device=x.device) + 0.5) * (2 / width) - 1
    down = (torch.arange(height, dtype=x.dtype, device=x.device) + 0.5) * (2 / height) - 1
    # the turn is in pixels, so that it stays one where the sides differ
    ratio = height / width
    u, v = across.view(1, 1, -1), (down * ratio).view(1, -1, 1)
    cos, sin, lean = (part.view(-1, 1, 1) for part in (cos, sin, lean))
    left = cos * (u + lean * v) - sin * v + move[:, 0].view(-1, 1, 1)
    top = (sin * (u + lean * v) + cos * v) / ratio + move[:, 1].view(-1, 1, 1)
    grid = torch.stack([left, top], -1)
    outside = "border" if border else "zeros"
    return F.grid_sample(x, grid, padding_mode=outside, align_corners=False)


def rotate(x: Tensor, degrees: Amount = 15.0) -> Tensor:
    """Turn each image about its centre by up to so many degrees, either way.

    Shapes: x (B, C, H, W) -> (B, C, H, W)
    """
    return affine(x, degrees=degrees)


def box(x: Tensor, area: Tensor) -> Tensor:
    """A box in each image, with so large a share of its area, cut where it leaves the image.

    Shapes: x (B, C, H, W), area (B,) in [0, 1] -> (B, 1, H, W) of bool, True inside
    """
    _, _, height, width = _images(x, "box")
    side = area.clamp(0, 1).sqrt()
    inside = []
    for size in (height, width):
        centre, half = _draw(x) * size, side * size / 2
        place = torch.arange(size, dtype=x.dtype, device=x.device) + 0.5
        inside.append((place - centre[:, None]).abs() < half[:, None])
    return (inside[0][:, :, None] & inside[1][:, None, :]).unsqueeze(1)


def erase(
    x: Tensor, *, area: Amount = 0.15, share: Amount = 1.0, fill: float | Tensor = 0.0
) -> Tensor:
    """Fill a random box in a share of the images: cutout.

    Args:
        area: the largest share of an image that a box takes; drawn uniformly from 0.
        share: of the images.
        fill: what the box holds.

    Shapes: x (B, C, H, W) -> (B, C, H, W)
    Source: DeVries & Taylor, Improved regularization of convolutional networks with cutout, 2017.
    """
    taken = box(x, _draw(x) * area) & _over(_draw(x) < share, x)
    return torch.where(taken, fill, x)


def brightness(x: Tensor, most: Amount = 0.2) -> Tensor:
    """Add one number to each sample, in +-most.

    Shapes: x (B, ...) -> (B, ...)
    """
    return x + _over(_spread(x, most), x)


def contrast(x: Tensor, most: Amount = 0.2) -> Tensor:
    """Scale each sample about its own mean, by a factor in exp(+-most).

    Shapes: x (B, ...) -> (B, ...)
    """
    mean = x.flatten(1).mean(1)
    return _over(mean, x) + (x - _over(mean, x)) * _over(_spread(x, most).exp(), x)


def noise(x: Tensor, std: Amount = 0.1) -> Tensor:
    """x + std e, e ~ N(0, 1) for each entry.

    Shapes: x (B, ...) -> (B, ...)
    Source: Bishop, Training with noise is equivalent to Tikhonov regularization, 1995.

    >>> noise(torch.ones(2, 3), 0.0).sum()
    tensor(6.)
    """
    return x + std * torch.randn_like(x)


def forget(tokens: Tensor, share: Amount = 0.1) -> Tensor:
    """Each token becomes unknown (number 1) with probability ``share``; padding (0) stays.

    Shapes: tokens (B, T) int64 -> (B, T)
    Source: Iyyer et al., Deep unordered composition rivals syntactic methods, 2015 (word dropout).

    >>> forget(torch.tensor([[5, 6, 0]]), 1.0)
    tensor([[1, 1, 0]])
    """
    drawn = torch.rand(tokens.shape, device=tokens.device) < share
    return torch.where(drawn & (tokens != 0), 1, tokens)


def beta(alpha: Amount, x: Tensor) -> Tensor:
    """A draw from Beta(alpha, alpha) for each sample of x, also for an alpha that vmaps.

    With u, v uniform, q = u^(1 / alpha) and c = cos(2 pi v):

        (1 + c sqrt((1 - q) / (q + (1 - q) c^2))) / 2

    which is Bailey's polar draw of Student's t with 2 alpha degrees of freedom, mapped to [0, 1].
    It needs no rejection, so that it works under ``vmap``.

    Shapes: alpha () above 0, x (B, ...) -> (B,)
    Source: Bailey, Polar generation of random variates with the t-distribution, 1994.
    """
    u, c = _draw(x), torch.cos(2 * math.pi * _draw(x))
    q = u ** (1 / alpha)
    tiny = torch.finfo(x.dtype).tiny
    ratio = (1 - q) / (q + (1 - q) * c.square()).clamp_min(tiny)
    return ((1 + c * ratio.sqrt()) / 2).clamp(0, 1)
