"""Networks that tell real samples from made ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from deepweave.blueprint import blueprint
from deepweave.nn.autoencoder import reading
from deepweave.nn.dense import sizes_of

ROUNDS = 8


class Spectral(nn.Module):
    """A weight divided by the largest singular value of its flattened form: a dense layer then
    stretches by about 1 at most, a convolution by what its places add up to.

    The value is found by rounds of power iteration from a fixed start. Nothing is kept from step
    to step: it works under ``vmap`` and ``functional_call``.

    Shapes: w (out, ...) -> the same

    Source: Miyato et al., Spectral normalization for generative adversarial networks, 2018.

    >>> Spectral()(torch.diag(torch.tensor([4.0, 2.0])))
    tensor([[1.0000, 0.0000],
            [0.0000, 0.5000]])
    """

    def forward(self, w: Tensor) -> Tensor:
        flat = w.flatten(1)
        held = flat.detach()
        place = torch.arange(flat.shape[0], dtype=flat.dtype, device=flat.device)
        u = torch.cos(place * 1.7 + 0.3)  # any start that is not at right angles to the answer
        v = F.normalize(held.mT @ u, dim=0)
        for _ in range(ROUNDS):
            u = F.normalize(held @ v, dim=0)
            v = F.normalize(held.mT @ u, dim=0)
        return w / (u @ (flat @ v)).clamp_min(1e-12)


class Discriminator(nn.Module):
    """A logit of each sample: above 0 it is taken for real.

    Told a class, it adds the product of the features with a vector of that class: whether a sample
    is one of its class. A class that merely stood beside the features would shift all logits alike.

    Shapes: x (B, *shape), told (B, classes) -> (B, 1)

    Source: Miyato & Koyama, cGANs with projection discriminator, 2018.
    """

    def __init__(self, body: nn.Module, features: int, classes: int):
        super().__init__()
        self.body, self.classes = body, classes
        self.head = nn.Linear(features, 1)
        self.match = nn.Linear(classes, features, bias=False) if classes else None

    def forward(self, x: Tensor, told: Tensor | None = None) -> Tensor:
        found = self.body(x)
        if self.match is None:
            return self.head(found)
        if told is None or told.shape != (len(x), self.classes):
            got = None if told is None else tuple(told.shape)
            raise ValueError(
                f"discriminator: it must be told ({len(x)}, {self.classes}), got {got}"
            )
        return self.head(found) + (found * self.match(told)).sum(1, keepdim=True)


@blueprint
def discriminator(
    sizes: Any,
    hidden: Sequence[int] = (256,),
    *,
    widths: Sequence[int] = (),
    slope: float = 0.2,
    spectral: bool = False,
    classes: int = 0,
) -> Discriminator:
    """The discriminator of a GAN: convolutions that halve, dense layers, one logit.

    Args:
        sizes: a data spec, or (shape, ...).
        hidden: dense layers; after the convolutions where there are any.
        widths: of images: channels of convolutions of 3 x 3, each of which halves the sides.
        slope: of the leaky rectifiers below zero.
        spectral: divide each weight by its largest singular value.
        classes: how many classes it is told, one-hot, as a second input: it then judges whether a
            sample is one of its class.

    Shapes: x (B, *shape) -> (B, 1)

    Raises:
        ValueError: convolutions of what is no image.

    >>> discriminator(((1, 8, 8), 10), widths=(8,))(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 1])
    """
    shape = tuple(sizes_of(sizes, "discriminator")[0])
    if widths and len(shape) != 3:
        raise ValueError(f"discriminator: widths are for images (C, H, W), got {shape}")
    body, features = reading(shape, hidden, widths, lambda: nn.LeakyReLU(slope))
    made = Discriminator(body, features, classes)
    if spectral:
        for layer in made.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                register_parametrization(layer, "weight", Spectral())
    return made
