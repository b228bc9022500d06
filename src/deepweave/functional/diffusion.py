"""One schedule of noise, from which every target and every sampler of diffusion follows.

Diffusion adds Gaussian noise bit by bit: y = x + s e, e ~ N(0, I), s from ``lowest`` to
``highest``. This is the heat equation: the density of y is that of x after heat has spread for a
time s^2 / 2 (:func:`deepweave.heat` with D = 1). What is often called x_t = alpha x + sigma e is
alpha y with s = sigma / alpha: preserving alpha = 1 / sqrt(1 + s^2), straight alpha = 1 / (1 + s),
exploding alpha = 1. A sampler walks in (y, s) and is the same for all of them; what differs is how
often each s is trained on, and what the network is asked for:

| target | F | data x |
|---|---|---|
| noise | e | y - s F |
| data | x | F |
| velocity | alpha e - sigma x (preserving) | (y - s sqrt(1 + s^2) F) / (1 + s^2) |
| flow | e - x | (y - s F) / (1 + s) |
| balanced | (x - skip y) / out | skip y + out F |

Balanced is velocity for data of standard deviation d: skip = d^2 / (s^2 + d^2),
out = s d / sqrt(s^2 + d^2); its F has variance 1 at every s. The network sees
y / sqrt(s^2 + d^2), and log(s) / 4.

Source: Karras et al., Elucidating the design space of diffusion-based generative models, 2022;
Kingma et al., Variational diffusion models, 2021; Salimans & Ho, 2022 (velocity); Lipman et al.,
Flow matching, 2023; Nichol & Dhariwal, 2021 (cosine).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

DENSITIES = ("cosine", "linear", "straight", "lognormal")
TARGETS = ("noise", "data", "velocity", "flow", "balanced")
SPACINGS = ("karras", "log", "time")
BETAS = (0.1, 20.0)  # of the linear schedule, in the continuous time of Song et al., 2021


@dataclass(frozen=True)
class Schedule:
    """How often each noise level is trained on, and which levels a sampler goes through.

    Args:
        density: ``"cosine"`` (s = tan(pi t / 2), t uniform), ``"linear"`` (that of DDPM),
            ``"straight"`` (s = t / (1 - t), flow matching) or ``"lognormal"``
            (log s ~ N(centre, width^2), EDM).
        lowest, highest: the levels, in units of the data.
        data: the standard deviation of the data.
        centre, width: of the lognormal.

    Raises:
        ValueError: an unknown density, or levels that are not 0 < lowest < highest.

    >>> Schedule("straight").levels(3, "time")
    tensor([80.0000,  1.9334,  0.4938,  0.0000], dtype=torch.float64)
    """

    density: str = "cosine"
    lowest: float = 0.002
    highest: float = 80.0
    data: float = 0.5
    centre: float = -1.2
    width: float = 1.2

    def __post_init__(self) -> None:
        if self.density not in DENSITIES:
            known = ", ".join(DENSITIES)
            raise ValueError(f"Schedule: density must be one of {known}, got {self.density!r}")
        if not 0 < self.lowest < self.highest < math.inf:
            raise ValueError(
                f"Schedule: must have 0 < lowest < highest, got {self.lowest} and {self.highest}"
            )
        if not (self.data > 0 and self.width > 0):
            raise ValueError(
                f"Schedule: data and width must be positive, got {self.data} and {self.width}"
            )

    def level(self, t: Tensor) -> Tensor:
        """The noise level of a time in [0, 1], which rises with it. Shapes: (...) -> (...)"""
        low, high = (self.time(torch.tensor(s, dtype=torch.float64)) for s in
                     (self.lowest, self.highest))  # fmt: skip
        t = (float(low) + (float(high) - float(low)) * t).clamp(1e-12, 1 - 1e-12)
        if self.density == "cosine":
            return torch.tan(math.pi / 2 * t)
        if self.density == "straight":
            return t / (1 - t)
        if self.density == "linear":
            total = BETAS[0] * t + (BETAS[1] - BETAS[0]) * t**2 / 2  # of beta, from 0 to t
            return torch.expm1(total).sqrt()
        return torch.exp(self.centre + self.width * math.sqrt(2) * torch.erfinv(2 * t - 1))

    def time(self, s: Tensor) -> Tensor:
        """Where in its density a level lies, before it is cut to lowest and highest: in (0, 1)."""
        if self.density == "cosine":
            return 2 / math.pi * torch.atan(s)
        if self.density == "straight":
            return s / (1 + s)
        if self.density == "linear":
            total, slope = torch.log1p(s**2), (BETAS[1] - BETAS[0]) / 2
            root = (BETAS[0] ** 2 + 4 * slope * total).sqrt()
            return 2 * total / (BETAS[0] + root)
        return (1 + torch.erf((s.log() - self.centre) / (self.width * math.sqrt(2)))) / 2

    def draw(self, count: int, like: Tensor) -> Tensor:
        """Levels to train on, spread evenly over their density. Shapes: -> (count,)"""
        start = torch.rand((), dtype=like.dtype, device=like.device)
        place = torch.arange(count, dtype=like.dtype, device=like.device)
        return self.level((start + place / count) % 1.0)

    def rate(self, s: Tensor) -> Tensor:
        """The density of levels at s, which integrates to 1 between lowest and highest."""
        with torch.enable_grad():
            point = s.detach().double().requires_grad_()
            (slope,) = torch.autograd.grad(self.time(point).sum(), point)
        ends = [float(self.time(torch.tensor(v, dtype=torch.float64))) for v in
                (self.lowest, self.highest)]  # fmt: skip
        return (slope / (ends[1] - ends[0])).to(s.dtype)

    def levels(self, steps: int, spacing: str = "karras") -> Tensor:
        """The levels of a sampler: from the highest down, and 0 at the end. Shapes: -> (steps + 1,)

        Karras: even in s^(1/7); log: even in log s; time: even in the density's time.
        """
        if steps < 1:
            raise ValueError(f"Schedule: steps must be at least 1, got {steps}")
        if spacing not in SPACINGS:
            raise ValueError(
                f"Schedule: spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}"
            )
        share = torch.linspace(0, 1, steps, dtype=torch.float64) if steps > 1 else torch.zeros(1)
        if spacing == "time":
            found = self.level(1 - torch.arange(steps, dtype=torch.float64) / steps)
        elif spacing == "log":
            found = self.highest * (self.lowest / self.highest) ** share
        else:
            ends = self.highest ** (1 / 7), self.lowest ** (1 / 7)
            found = (ends[0] + share * (ends[1] - ends[0])) ** 7
        return torch.cat([found.double(), torch.zeros(1, dtype=torch.float64)])


def cosine(**options: float) -> Schedule:
    """Preserving variance, evenly in the angle: log SNR = -2 log tan(pi t / 2)."""
    return replace(Schedule("cosine"), **options)


def straight(**options: float) -> Schedule:
    """Straight lines from noise to data, x_t = (1 - t) x + t e: flow matching."""
    return replace(Schedule("straight"), **options)


def lognormal(**options: float) -> Schedule:
    """Levels around e^centre, where there is most to learn: EDM."""
    return replace(Schedule("lognormal"), **options)


def linear(**options: float) -> Schedule:
    """DDPM's: beta rises in a straight line."""
    return replace(Schedule("linear"), **options)


def coefficients(target: str, s: Tensor, data: float) -> tuple[Tensor, Tensor, Tensor]:
    """skip, out and inner: x = skip y + out F(inner y), for a target. Shapes: s (...) -> thrice

    Raises:
        ValueError: an unknown target.
    """
    inner = (s**2 + data**2).rsqrt()
    if target == "noise":
        return torch.ones_like(s), -s, inner
    if target == "data":
        return torch.zeros_like(s), torch.ones_like(s), inner
    if target == "velocity":
        return 1 / (1 + s**2), -s * (1 + s**2).rsqrt(), inner
    if target == "flow":
        return 1 / (1 + s), -s / (1 + s), inner
    if target == "balanced":
        return data**2 * inner**2, s * data * inner, inner
    raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {target!r}")
