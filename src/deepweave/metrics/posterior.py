"""How many of a model's latent numbers say anything, and how much: the report of a collapse."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class LatentUse(NamedTuple):
    """What each latent number is used for, over samples.

    ``kl`` (L,) nats of each number, ``activity`` (L,) the variance of its mean over samples,
    ``active`` (L,) whether that is above the threshold, ``information`` nats that all of them
    together tell about which sample it was, at most log N.
    """

    kl: Tensor
    activity: Tensor
    active: Tensor
    information: float


def latent_use(
    mean: Tensor, log_var: Tensor, *, threshold: float = 0.01, seed: int = 0
) -> LatentUse:
    """How much each latent number of q(z | x) = N(m, s^2) tells.

    KL_l = E (m^2 + s^2 - log s^2 - 1) / 2, activity_l = Var m_l; a number whose posterior is the
    prior whatever the sample has neither, and is lost (posterior collapse). The information is
    E log q(z_n | x_n) - log 1/N sum_m q(z_n | x_m), z_n drawn once from each posterior: the mean
    KL less what the mixture of all posteriors differs from the prior.

    Shapes: mean, log_var (N, L)

    Raises:
        ValueError: not of one shape (N, L), fewer than two samples.

    Source: Burda, Grosse & Salakhutdinov, Importance weighted autoencoders, 2016 (active units);
    Hoffman & Johnson, ELBO surgery, 2016 (information).

    >>> mean = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
    >>> found = latent_use(mean, torch.tensor([[-4.0, 0.0], [-4.0, 0.0]]))
    >>> found.active.tolist(), round(found.information, 4)  # which of two: log 2
    ([True, False], 0.6931)
    """
    if mean.dim() != 2 or mean.shape != log_var.shape or len(mean) < 2:
        raise ValueError(
            "latent_use: means and log variances must be (N, L) with N at least 2, got "
            f"{tuple(mean.shape)} and {tuple(log_var.shape)}"
        )
    mean, log_var = mean.detach().double(), log_var.detach().double()
    kl = ((mean.square() + log_var.exp() - log_var - 1) / 2).mean(0)
    activity = mean.var(0)
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(mean.shape, generator=random, dtype=torch.float64).to(mean.device)
    z = mean + (log_var / 2).exp() * noise
    own = -(noise.square() + log_var).sum(1) / 2
    rate = torch.exp(-log_var)
    # (z - m)^2 / s^2 summed, by products: no tensor of N x N x L
    far = z.square() @ rate.T - 2 * z @ (mean * rate).T + (mean.square() * rate).sum(1)
    mixed = (-(far + log_var.sum(1)) / 2).logsumexp(1) - math.log(len(mean))
    return LatentUse(kl, activity, activity > threshold, float((own - mixed).mean()))
