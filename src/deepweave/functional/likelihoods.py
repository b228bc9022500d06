"""Negative log-likelihoods of distributions whose parameters a network gives, in nats.

The last dimension of the prediction holds the parameters of one distribution for each target, all
unconstrained: what must be positive is given by its logarithm. Constants are kept, so that the
numbers are true log-densities and can be compared between distributions.

| target | loss | parameters |
|---|---|---|
| 0 or 1 | ``binary_cross_entropy`` (Bernoulli) | logit |
| a class | ``cross_entropy`` (categorical) | K logits |
| a number | ``gaussian_nll``, ``laplace_nll``, ``student_nll`` | centre, log of the scale |
| a count | ``poisson_nll`` | log of the rate |
| a count | ``negative_binomial_nll`` | log of the mean, log of the dispersion |
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.functional.reduction import expect, filled, looking, reduced

STRAIGHT = 30.0  # above e^30 = 1e13 a Poisson rate counts along its tangent, which stays finite
LARGE = 50.0  # from here on Stirling's series is exact to 1e-12


def gaussian_nll(
    prediction: Tensor,
    target: Tensor,
    *,
    floor: float = 1e-6,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """log s + ((y - m) / s)^2 / 2 + log(2 pi) / 2 of a normal distribution with learned scale s.

    Shapes: prediction (B, ..., 2) of m and log s, target (B, ...), weight (B,), mask (B, ...)
        -> (B,), or (); a scale below ``floor`` (in the target's unit) counts as ``floor``
    Raises:
        ValueError: floor not above 0, shapes that do not fit.
    Source: Nix & Weigend, Estimating the mean and variance of the target probability distribution,
    1994.

    >>> gaussian_nll(torch.zeros(1, 2), torch.zeros(1))  # log(2 pi) / 2
    tensor([0.9189])
    """
    name = "gaussian_nll"
    target, centre, log_scale = _located(name, prediction, target, mask, floor)
    z = (target - centre) * torch.exp(-log_scale)
    loss = log_scale + z.square() / 2 + math.log(2 * math.pi) / 2
    return reduced(name, loss, weight, mask, reduction)


def laplace_nll(
    prediction: Tensor,
    target: Tensor,
    *,
    floor: float = 1e-6,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """log(2 s) + |y - m| / s: absolute errors with a learned scale; m is the median.

    Shapes and errors: as for :func:`gaussian_nll`

    >>> laplace_nll(torch.zeros(1, 2), torch.tensor([3.0]))  # log 2 + 3
    tensor([3.6931])
    """
    name = "laplace_nll"
    target, centre, log_scale = _located(name, prediction, target, mask, floor)
    loss = math.log(2) + log_scale + (target - centre).abs() * torch.exp(-log_scale)
    return reduced(name, loss, weight, mask, reduction)


def student_nll(
    prediction: Tensor,
    target: Tensor,
    *,
    degrees: float = 4.0,
    floor: float = 1e-6,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """-log of Student's t with n degrees of freedom, centre m and scale s: bounded by outliers.

    log s + (n + 1)/2 log(1 + ((y - m) / s)^2 / n) + log B(n/2, 1/2) + log(n) / 2

    Shapes: as for :func:`gaussian_nll`
    Raises:
        ValueError: degrees or floor not above 0, shapes that do not fit.
    Source: Lange, Little & Taylor, Robust statistical modeling using the t distribution, 1989.

    >>> student_nll(torch.zeros(1, 2), torch.zeros(1), degrees=1.0)  # Cauchy's: log pi
    tensor([1.1447])
    """
    name = "student_nll"
    if not (degrees > 0 and math.isfinite(degrees)):
        raise ValueError(f"{name}: degrees must be above 0, got {degrees}")
    target, centre, log_scale = _located(name, prediction, target, mask, floor)
    z = (target - centre) * torch.exp(-log_scale)
    beta = math.lgamma(degrees / 2) + math.lgamma(0.5) - math.lgamma(degrees / 2 + 0.5)
    tail = (degrees + 1) / 2 * torch.log1p(z.square() / degrees)
    loss = log_scale + tail + beta + math.log(degrees) / 2
    return reduced(name, loss, weight, mask, reduction)


def poisson_nll(
    log_rate: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """e^z - y z + log y! of a count y with rate e^z.

    Above z = 30 e^z goes on along its tangent, so that loss and slope stay finite.

    Shapes: log_rate (B, ...), target (B, ...) of counts, weight (B,), mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: counts below 0, shapes that do not fit.

    >>> poisson_nll(torch.zeros(1), torch.tensor([0.0]))
    tensor([1.])
    """
    name = "poisson_nll"
    expect(name, "target", target, log_rate.shape)
    y = _counts(name, target, mask, log_rate)
    tangent = math.exp(STRAIGHT) * (log_rate - STRAIGHT + 1)
    rate = torch.where(log_rate > STRAIGHT, tangent, log_rate.clamp_max(STRAIGHT).exp())
    return reduced(name, rate - y * log_rate + torch.lgamma(y + 1), weight, mask, reduction)


def negative_binomial_nll(
    prediction: Tensor,
    target: Tensor,
    *,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    """-log of a count y with mean m and variance m + a m^2: counts that scatter more than Poisson.

    With r = 1 / a: log G(r) + log y! - log G(y + r) + (y + r) log(1 + a m) - y log(a m). As a goes
    to 0 it is Poisson's; a is kept within e^-30 and e^30.

    Shapes: prediction (B, ..., 2) of log m and log a, target (B, ...) of counts, weight (B,),
        mask (B, ...) -> (B,), or ()
    Raises:
        ValueError: counts below 0, shapes that do not fit.
    Source: Hilbe, Negative binomial regression, 2011.

    >>> negative_binomial_nll(torch.zeros(1, 2), torch.tensor([0.0])).exp()  # geometric, p = 1/2
    tensor([2.])
    """
    name = "negative_binomial_nll"
    expect(name, "prediction", prediction, (*target.shape, 2))
    y = _counts(name, target, mask, prediction)
    mean, spread = prediction.unbind(-1)
    spread = spread.clamp(-STRAIGHT, STRAIGHT)
    r, odds = torch.exp(-spread), mean + spread
    loss = torch.lgamma(y + 1) - _rising(r, y) + (y + r) * -F.logsigmoid(-odds) - y * odds
    return reduced(name, loss, weight, mask, reduction)


def _rising(r: Tensor, y: Tensor) -> Tensor:
    """log G(r + y) - log G(r); for large r by Stirling's series, where both would cancel."""
    exact = torch.lgamma(r + y) - torch.lgamma(r)
    low = r.clamp_min(LARGE)
    high = low + y
    series = (high - 0.5) * torch.log1p(y / low) + y * low.log() - y
    series = series + 1 / (12 * high) - 1 / (12 * low)
    series = series - 1 / (360 * high**3) + 1 / (360 * low**3)
    return torch.where(r > LARGE, series, exact)


def _located(
    name: str, prediction: Tensor, target: Tensor, mask: Tensor | None, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Target, centre and log of the scale, all of one shape."""
    if not floor > 0:
        raise ValueError(f"{name}: floor must be above 0, got {floor}")
    expect(name, "prediction", prediction, (*target.shape, 2))
    centre, log_scale = prediction.unbind(-1)
    return filled(name, target, mask), centre, log_scale.clamp_min(math.log(floor))


def _counts(name: str, target: Tensor, mask: Tensor | None, like: Tensor) -> Tensor:
    y = filled(name, target, mask).to(like.dtype)
    if looking(y) and y.numel() and not bool((y >= 0).all()):
        raise ValueError(
            f"{name}: target must be counts of at least 0, got {float(y.min()):.4g} "
            "(targets that were standardised are no counts)"
        )
    return y
