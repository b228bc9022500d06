"""What a discriminator and a generator lose, from logits; and what a discriminator may not be.

Each loss takes the discriminator's logits of real and of generated samples, and gives both sides'
losses. log(1 - d) is softplus of a logit, never the logarithm of a sigmoid.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Sides = tuple[Tensor, Tensor]


def nonsaturating(real: Tensor, fake: Tensor) -> Sides:
    """L_D = -mean log d - mean log(1 - d'), L_G = -mean log d', d = sigmoid(logit).

    Shapes: real, fake (B,) -> (), ()

    Source: Goodfellow et al., Generative adversarial nets, 2014.

    >>> nonsaturating(torch.zeros(2), torch.zeros(2))[0]  # 2 log 2
    tensor(1.3863)
    """
    return F.softplus(-real).mean() + F.softplus(fake).mean(), F.softplus(-fake).mean()


def least_squares(real: Tensor, fake: Tensor) -> Sides:
    """L_D = (mean (d - 1)^2 + mean d'^2) / 2, L_G = mean (d' - 1)^2 / 2, of logits as they are.

    Source: Mao et al., Least squares generative adversarial networks, 2017.
    """
    return ((real - 1).square().mean() + fake.square().mean()) / 2, (fake - 1).square().mean() / 2


def hinge_gan(real: Tensor, fake: Tensor) -> Sides:
    """L_D = mean max(0, 1 - d) + mean max(0, 1 + d'), L_G = -mean d'.

    Source: Lim & Ye, Geometric GAN, 2017.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean(), -fake.mean()


def wasserstein(real: Tensor, fake: Tensor) -> Sides:
    """L_D = mean d' - mean d, L_G = -mean d'; the discriminator must be held to a slope of 1.

    Source: Arjovsky, Chintala & Bottou, Wasserstein generative adversarial networks, 2017.
    """
    return fake.mean() - real.mean(), -fake.mean()


def relativistic(real: Tensor, fake: Tensor) -> Sides:
    """L_D = -mean log s(d - d'), L_G = -mean log s(d' - d): each real one against a fake one.

    With R1 and R2 penalties it converges, and no mode can be dropped for nothing.

    Source: Jolicoeur-Martineau, The relativistic discriminator, 2019; Huang et al., The GAN is
    dead; long live the GAN! A modern baseline GAN, 2024.
    """
    return F.softplus(fake - real).mean(), F.softplus(real - fake).mean()


def squared_slope(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """|grad_x critic(x)|^2 of each sample: of real ones R1, of generated ones R2.

    Shapes: x (B, ...) -> (B,)

    Source: Mescheder, Geiger & Nowozin, Which training methods for GANs do actually converge,
    2018.

    >>> squared_slope(lambda x: 3 * x[:, 0], torch.zeros(2, 4))
    tensor([9., 9.])
    """
    return steepness(critic, x)[1]


def steepness(critic: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """critic(x) and :func:`squared_slope` of each sample, in one pass. Shapes: x (B, ...) -> (B,)

    >>> steepness(lambda x: 3 * x[:, 0], torch.ones(2, 4))
    (tensor([3., 3.]), tensor([9., 9.]))
    """

    def summed(v: Tensor) -> tuple[Tensor, Tensor]:
        said = critic(v)
        return said.sum(), said

    slope, said = torch.func.grad(summed, has_aux=True)(x)
    return said, slope.square().flatten(1).sum(1)


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """(|grad critic| - 1)^2 of each point drawn between a real and a generated sample.

    Shapes: real, fake (B, ...) -> (B,)

    Source: Gulrajani et al., Improved training of Wasserstein GANs, 2017.
    """
    share = torch.rand(len(real), *[1] * (real.dim() - 1), dtype=real.dtype, device=real.device)
    between = torch.lerp(fake, real, share)
    return (squared_slope(critic, between).clamp_min(1e-12).sqrt() - 1).square()
