"""One schedule of noise, from which every target and every sampler of diffusion follows.

Diffusion adds Gaussian noise bit by bit: y = x + s e, e ~ N(0, I), s from ``lowest`` to
``highest``. This is the heat equation: the density of y is that of x after heat has spread for a
time s^2 / 2 (:func:`deepweave.heat` with D = 1). What is often called x_t = alpha x + sigma e is
alpha y with s = sigma / alpha:

| kind | alpha | s over time |
|---|---|---|
| cosine (preserving) | 1 / sqrt(1 + s^2) | tan(pi t / 2) |
| linear (preserving, DDPM) | 1 / sqrt(1 + s^2) | sqrt(e^(b t + (B - b) t^2 / 2) - 1) |
| straight (flow matching) | 1 / (1 + s) | t / (1 - t) |
| lognormal (exploding, EDM) | 1 | e^(centre + width Phi^-1(t)) |
| loguniform (exploding) | 1 | lowest (highest / lowest)^t |

A sampler walks in (y, s) and is the same for all of them; what differs is how often each s is
trained on, and what the network is asked for:

| target | F | data x |
|---|---|---|
| noise | e | y - s F |
| data | x | F |
| velocity | (e - s x) / sqrt(1 + s^2) | (y - s sqrt(1 + s^2) F) / (1 + s^2) |
| flow | e - x | (y - s F) / (1 + s) |
| balanced | (x - skip y) / out | skip y + out F |

Balanced is velocity for data of standard deviation d, its sign turned: skip = d^2 / (s^2 + d^2),
out = s d / sqrt(s^2 + d^2); its F has variance 1 at every s. The network sees
y / sqrt(s^2 + d^2), and log(s) / 4.

Source: Karras et al., Elucidating the design space of diffusion-based generative models, 2022;
Kingma et al., Variational diffusion models, 2021; Salimans & Ho, 2022 (velocity); Lipman et al.,
Flow matching, 2023; Nichol & Dhariwal, 2021 (cosine); Song et al., 2021 (linear, in continuous
time).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

KINDS = ("cosine", "linear", "straight", "lognormal", "loguniform")
TARGETS = ("noise", "data", "velocity", "flow", "balanced")
WEIGHTS = ("simple", "edm", "min-snr", "bound")
SPACINGS = ("karras", "log", "time")
BETAS = (0.1, 20.0)  # of the linear schedule, in the continuous time of Song et al., 2021


@dataclass(frozen=True)
class Schedule:
    """How often each noise level is trained on, and which levels a sampler goes through.

    Args:
        kind: ``"cosine"``, ``"linear"``, ``"straight"``, ``"lognormal"`` or ``"loguniform"``.
        lowest, highest: the levels, in units of the data.
        data: the standard deviation of the data.
        centre, width: of the lognormal.

    Raises:
        ValueError: an unknown kind, or numbers out of range.

    >>> Schedule("straight").levels(3, "time")
    tensor([80.0000,  1.9334,  0.4938,  0.0000], dtype=torch.float64)
    >>> t = torch.tensor(0.5)
    >>> Schedule("cosine").alpha(t), Schedule("cosine").sigma(t)
    (tensor(0.7108), tensor(0.7034))
    """

    kind: str = "lognormal"
    lowest: float = 0.002
    highest: float = 80.0
    data: float = 0.5
    centre: float = -1.2
    width: float = 1.2

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise ValueError(f"Schedule: kind must be one of {known}, got {self.kind!r}")
        if not 0 < self.lowest < self.highest < math.inf:
            raise ValueError(
                f"Schedule: must have 0 < lowest < highest, got {self.lowest} and {self.highest}"
            )
        if not (0 < self.data < math.inf and 0 < self.width < math.inf):
            raise ValueError(
                f"Schedule: data and width must be positive, got {self.data} and {self.width}"
            )
        low, high = self._ends()
        if not (math.isfinite(self.centre) and 0 <= low < high <= 1 and high - low > 1e-6):
            raise ValueError(
                f"Schedule: {self.kind} of centre {self.centre} and width {self.width} has no "
                f"share of levels between {self.lowest} and {self.highest}"
            )

    def level(self, t: Tensor) -> Tensor:
        """The noise level s of a time in [0, 1], which rises with it. Shapes: (...) -> (...)"""
        low, high = self._ends()
        t = low + (high - low) * t
        if self.kind == "cosine":
            found = torch.tan(math.pi / 2 * t)
        elif self.kind == "straight":
            found = t / (1 - t)
        elif self.kind == "linear":
            total = BETAS[0] * t + (BETAS[1] - BETAS[0]) * t**2 / 2  # of beta, from 0 to t
            found = torch.expm1(total).sqrt()
        elif self.kind == "lognormal":
            found = torch.exp(self.centre + self.width * math.sqrt(2) * torch.erfinv(2 * t - 1))
        else:
            found = self.lowest * (self.highest / self.lowest) ** t
        return found.clamp(self.lowest, self.highest)  # what rounding leaves beyond the ends

    def time(self, s: Tensor) -> Tensor:
        """The time of a level, the inverse of :meth:`level`. Shapes: (...) -> (...)"""
        low, high = self._ends()
        return (self._place(s) - low) / (high - low)

    def alpha(self, t: Tensor) -> Tensor:
        """What is left of the data at a time: x_t = alpha x + sigma e. Shapes: (...) -> (...)"""
        return self.scale(self.level(t))

    def sigma(self, t: Tensor) -> Tensor:
        """The noise at a time: x_t = alpha x + sigma e. Shapes: (...) -> (...)"""
        s = self.level(t)
        return s * self.scale(s)

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2) at a time, which falls. Shapes: (...) -> (...)"""
        return -2 * self.level(t).log()

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The inverse of :meth:`log_snr`. Shapes: (...) -> (...)"""
        return self.time(torch.exp(-log_snr / 2))

    def scale(self, s: Tensor) -> Tensor:
        """alpha at a level: x_t = alpha y. Shapes: (...) -> (...)"""
        if self.kind in ("cosine", "linear"):
            return (1 + s**2).rsqrt()
        return 1 / (1 + s) if self.kind == "straight" else torch.ones_like(s)

    def draw(self, count: int, like: Tensor) -> Tensor:
        """Levels to train on, spread evenly over time, so that batches differ little. -> (count,)

        Source: Kingma et al., Variational diffusion models, 2021.
        """
        start = torch.rand((), dtype=like.dtype, device=like.device)
        place = torch.arange(count, dtype=like.dtype, device=like.device)
        return self.level((start + place / count) % 1.0)

    def rate(self, s: Tensor) -> Tensor:
        """The density of levels at s, which integrates to 1 between lowest and highest: dt/ds."""
        low, high = self._ends()
        if self.kind == "cosine":
            slope = 2 / math.pi / (1 + s**2)
        elif self.kind == "straight":
            slope = 1 / (1 + s) ** 2
        elif self.kind == "linear":
            slope = 2 * s / (1 + s**2) / (BETAS[0] + (BETAS[1] - BETAS[0]) * self._place(s))
        elif self.kind == "lognormal":
            z = (s.log() - self.centre) / self.width
            slope = torch.exp(-(z**2) / 2) / (s * self.width * math.sqrt(2 * math.pi))
        else:
            slope = 1 / (s * math.log(self.highest / self.lowest))
        return slope / (high - low)

    def levels(self, steps: int, spacing: str = "karras") -> Tensor:
        """The levels of a sampler: from the highest down, and 0 at the end. Shapes: -> (steps + 1,)

        Karras: even in s^(1/7); log: even in log s, which is log SNR; time: even in time.

        Raises:
            ValueError: fewer than one step, an unknown spacing.
        """
        if steps < 1:
            raise ValueError(f"Schedule: steps must be at least 1, got {steps}")
        if spacing not in SPACINGS:
            raise ValueError(
                f"Schedule: spacing must be one of {', '.join(SPACINGS)}, got {spacing!r}"
            )
        share = torch.arange(steps, dtype=torch.float64) / max(1, steps - 1)
        if spacing == "time":
            found = self.level(1 - torch.arange(steps, dtype=torch.float64) / steps)
        elif spacing == "log":
            found = self.highest * (self.lowest / self.highest) ** share
        else:
            ends = self.highest ** (1 / 7), self.lowest ** (1 / 7)
            found = (ends[0] + share * (ends[1] - ends[0])) ** 7
        return torch.cat([found, torch.zeros(1, dtype=torch.float64)])

    def _place(self, s: Tensor) -> Tensor:
        """The time of a level before it is cut to lowest and highest: in (0, 1)."""
        if self.kind == "cosine":
            return 2 / math.pi * torch.atan(s)
        if self.kind == "straight":
            return s / (1 + s)
        if self.kind == "linear":
            total, slope = torch.log1p(s**2), BETAS[1] - BETAS[0]
            return 2 * total / (BETAS[0] + (BETAS[0] ** 2 + 2 * slope * total).sqrt())
        if self.kind == "lognormal":
            return (1 + torch.erf((s.log() - self.centre) / (self.width * math.sqrt(2)))) / 2
        return (s / self.lowest).log() / math.log(self.highest / self.lowest)

    def _ends(self) -> tuple[float, float]:
        ends = torch.tensor([self.lowest, self.highest], dtype=torch.float64)
        low, high = self._place(ends).tolist()
        return low, high


def cosine(**options: float) -> Schedule:
    """Preserving variance, evenly in the angle: log SNR = -2 log tan(pi t / 2)."""
    return _of("cosine", options)


def linear(**options: float) -> Schedule:
    """DDPM's: beta rises in a straight line."""
    return _of("linear", options)


def straight(**options: float) -> Schedule:
    """Straight lines from data to noise, x_t = (1 - t) x + t e: flow matching."""
    return _of("straight", options)


def lognormal(**options: float) -> Schedule:
    """Levels around e^centre, where there is most to learn: EDM."""
    return _of("lognormal", options)


def loguniform(**options: float) -> Schedule:
    """Exploding variance, each factor of the level alike."""
    return _of("loguniform", options)


def _of(kind: str, options: dict[str, Any]) -> Schedule:
    return replace(Schedule(kind), **options)


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


def convert(
    found: Tensor, y: Tensor, s: Tensor, source: str, target: str, *, data: float = 0.5
) -> Tensor:
    """What was predicted as one target, as another: through the data, x = skip y + out F.

    Shapes: found and y (B, ...), s (B,) or () -> (B, ...)

    >>> x, e, s = torch.randn(3, 2), torch.randn(3, 2), torch.tensor(2.0)
    >>> flow = convert(e, x + s * e, s, "noise", "flow")
    >>> torch.allclose(flow, e - x, atol=1e-5)
    True
    """
    s = s.to(y.dtype).reshape(-1, *[1] * (y.dim() - 1))
    skip, out, _ = coefficients(source, s, data)
    other, wide, _ = coefficients(target, s, data)
    return (skip * y + out * found - other * y) / wide


def importance(weight: str, target: str, schedule: Schedule, s: Tensor) -> Tensor:
    """The weight of |F - target|^2 at a level. Shapes: s (...) -> (...)

    With r = (d / s)^2, the data's variance over that of the noise, and |x - x'|^2 = out^2 |F|^2:
    simple 1; edm, of the data's error, (s^2 + d^2) / (s d)^2; min-snr, of the data's error,
    min(r, 5) / d^2; bound 1 / (s^3 p(s)), p how often a level is drawn, which makes of the sum of
    squared errors nats.

    Raises:
        ValueError: an unknown weight or target.

    Source: Hang et al., Efficient diffusion training via min-SNR weighting strategy, 2023; Kingma
    et al., Variational diffusion models, 2021.
    """
    out = coefficients(target, s, schedule.data)[1]
    ratio = (schedule.data / s).square()
    if weight == "simple":
        return torch.ones_like(s)
    if weight == "edm":
        return out.square() * (1 + ratio) / schedule.data**2
    if weight == "min-snr":
        return out.square() * ratio.clamp_max(5.0) / schedule.data**2
    if weight == "bound":  # d(1 / s^2) / 2 of the data's error, over how often s is drawn
        return out.square() / (s**3 * schedule.rate(s))
    raise ValueError(f"weight must be one of {', '.join(WEIGHTS)}, got {weight!r}")
