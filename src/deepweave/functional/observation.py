"""What is observed, given what a decoder says: likelihoods of whole samples, in nats.

A decoder gives P numbers for each value of a sample, (B, P, ...) for x (B, ...); each likelihood
here says what they mean. ``nll`` sums over a sample, so that it stands beside a divergence in the
same unit: nats per sample. ``marginal`` are the numbers that fit the training data value by value,
without any latent: the baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

LOWEST, HIGHEST = -7.0, 5.0  # of a learned log scale, softly


def _summed(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)


def _soft(log_scale: Tensor) -> Tensor:
    """A log scale held between -7 and 5, where it is steep neither forwards nor back."""
    middle, half = (HIGHEST + LOWEST) / 2, (HIGHEST - LOWEST) / 2
    return middle + half * torch.tanh((log_scale - middle) / half)


def _hard(scale: Tensor) -> Tensor:
    """The number that :func:`_soft` turns into the logarithm of a scale."""
    middle, half = (HIGHEST + LOWEST) / 2, (HIGHEST - LOWEST) / 2
    ratio = ((scale.log() - middle) / half).clamp(-0.999, 0.999)
    return middle + half * torch.atanh(ratio)


@dataclass(frozen=True)
class Bernoulli:
    """Values 0 or 1 (or in between, as cross-entropy takes them): a logit each.

    >>> Bernoulli().nll(torch.zeros(2, 1, 3), torch.ones(2, 3))  # 3 log 2
    tensor([2.0794, 2.0794])
    """

    numbers: ClassVar[int] = 1
    levels: ClassVar[int | None] = 2

    def nll(self, said: Tensor, x: Tensor) -> Tensor:
        """Nats of each sample. Shapes: said (B, 1, ...), x (B, ...) -> (B,)"""
        return _summed(F.binary_cross_entropy_with_logits(said[:, 0], x, reduction="none"))

    def mean(self, said: Tensor) -> Tensor:
        """The expected sample. Shapes: said (B, 1, ...) -> (B, ...)"""
        return said[:, 0].sigmoid()

    def sample(self, said: Tensor) -> Tensor:
        """A sample of each. Shapes: said (B, 1, ...) -> (B, ...)"""
        return torch.bernoulli(self.mean(said))

    def marginal(self, x: Tensor) -> Tensor:
        """Logits of frequencies, one more of each seen. Shapes: (N, ...) -> (1, ...)"""
        share = (x.sum(0) + 1) / (len(x) + 2)
        return torch.logit(share)[None]

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless values lie in [0, 1]."""
        _within("Bernoulli", x)


@dataclass(frozen=True)
class Gaussian:
    """Real values: a mean each, with a standard deviation that is given, or learned.

    A learned one is held between about 0.001 and 148: standardise what lies beyond.

    >>> Gaussian(1.0).nll(torch.zeros(1, 1, 2), torch.zeros(1, 2))  # log 2 pi
    tensor([1.8379])
    """

    std: float | None = None
    levels: ClassVar[int | None] = None

    def __post_init__(self) -> None:
        if self.std is not None and not (self.std > 0 and math.isfinite(self.std)):
            raise ValueError(f"Gaussian: std must be positive, got {self.std}")

    @property
    def numbers(self) -> int:
        """Numbers for each value: the mean, and the log of a learned scale."""
        return 1 if self.std is not None else 2

    def _scale(self, said: Tensor) -> Tensor:
        if self.std is not None:
            return said.new_tensor(math.log(self.std))
        return _soft(said[:, 1])

    def nll(self, said: Tensor, x: Tensor) -> Tensor:
        """Nats of each sample. Shapes: said (B, P, ...), x (B, ...) -> (B,)"""
        scale = self._scale(said)
        z = (x - said[:, 0]) * torch.exp(-scale)
        return _summed(z.square() / 2 + scale + math.log(2 * math.pi) / 2)

    def mean(self, said: Tensor) -> Tensor:
        """The expected sample. Shapes: said (B, P, ...) -> (B, ...)"""
        return said[:, 0]

    def sample(self, said: Tensor) -> Tensor:
        """A sample of each. Shapes: said (B, P, ...) -> (B, ...)"""
        return said[:, 0] + self._scale(said).exp() * torch.randn_like(said[:, 0])

    def marginal(self, x: Tensor) -> Tensor:
        """Each value's mean, and the log of its deviation. Shapes: (N, ...) -> (P, ...)"""
        mean = x.mean(0)
        if self.std is not None:
            return mean[None]
        return torch.stack([mean, _hard(x.std(0, correction=0).clamp_min(1e-3))])

    def check(self, x: Tensor) -> None:
        """Any finite values will do."""


@dataclass(frozen=True)
class Logistic:
    """Values k / (levels - 1) of so many levels, such as 256 greys: a discretised logistic.

    P(x) = s((x + d - m) / e^l) - s((x - d - m) / e^l), s the sigmoid, d half a step between
    levels; the lowest and the highest level reach to infinity. True probabilities: their nats
    compare with those of a categorical, and with a dequantised density's bound.

    Source: Kingma et al., Improved variational inference with inverse autoregressive flow, 2016.

    >>> likelihood = Logistic(4)
    >>> said = torch.tensor([[0.3, -1.0]]).expand(4, 2)[..., None]
    >>> likelihood.nll(said, torch.arange(4)[:, None] / 3).neg().exp().sum()
    tensor(1.)
    """

    levels: int = 256
    numbers: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or self.levels < 2:
            raise ValueError(f"Logistic: levels must be at least 2, got {self.levels}")

    def nll(self, said: Tensor, x: Tensor) -> Tensor:
        """Nats of each sample. Shapes: said (B, 2, ...), x (B, ...) -> (B,)"""
        half = 0.5 / (self.levels - 1)
        scale = torch.exp(-_soft(said[:, 1]))
        above, below = ((x + d - said[:, 0]) * scale for d in (half, -half))
        # log(s(a) - s(b)) = log s(a) + log s(-b) + log(1 - e^(b - a)), of which nothing cancels
        inside = F.logsigmoid(above) + F.logsigmoid(-below)
        inside = inside + torch.log(-torch.expm1(-2 * half * scale))
        log_p = torch.where(
            x < half, F.logsigmoid(above), torch.where(x > 1 - half, F.logsigmoid(-below), inside)
        )
        return -_summed(log_p)

    def mean(self, said: Tensor) -> Tensor:
        """The centre of each, within [0, 1]. Shapes: said (B, 2, ...) -> (B, ...)"""
        return said[:, 0].clamp(0, 1)

    def sample(self, said: Tensor) -> Tensor:
        """A sample of each, on the levels. Shapes: said (B, 2, ...) -> (B, ...)"""
        u = torch.rand_like(said[:, 0]).clamp(1e-6, 1 - 1e-6)
        x = said[:, 0] + _soft(said[:, 1]).exp() * torch.logit(u)
        return (x.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)

    def marginal(self, x: Tensor) -> Tensor:
        """Each value's mean and the log of its scale. Shapes: (N, ...) -> (2, ...)"""
        scale = x.std(0, correction=0) * math.sqrt(3) / math.pi
        return torch.stack([x.mean(0), _hard(scale.clamp_min(0.1 / (self.levels - 1)))])

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless values lie on the levels in [0, 1]."""
        _within("Logistic", x)
        _on_levels("Logistic", x, self.levels)


@dataclass(frozen=True)
class Categorical:
    """Values k / (levels - 1) of so many levels, in no order: a logit for each level.

    >>> Categorical(4).nll(torch.zeros(1, 4, 2), torch.tensor([[0.0, 1.0]]))  # 2 log 4
    tensor([2.7726])
    """

    levels: int

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or self.levels < 2:
            raise ValueError(f"Categorical: levels must be at least 2, got {self.levels}")

    @property
    def numbers(self) -> int:
        """Numbers for each value: a logit for each level."""
        return self.levels

    def nll(self, said: Tensor, x: Tensor) -> Tensor:
        """Nats of each sample. Shapes: said (B, levels, ...), x (B, ...) -> (B,)"""
        code = (x * (self.levels - 1)).round().long().clamp(0, self.levels - 1)
        return -_summed(said.log_softmax(1).gather(1, code[:, None]).squeeze(1))

    def mean(self, said: Tensor) -> Tensor:
        """The expected value of each. Shapes: said (B, levels, ...) -> (B, ...)"""
        share = said.softmax(1)
        value = torch.arange(self.levels, device=said.device, dtype=said.dtype)
        return torch.einsum("bl...,l->b...", share, value / (self.levels - 1))

    def sample(self, said: Tensor) -> Tensor:
        """A sample of each. Shapes: said (B, levels, ...) -> (B, ...)"""
        noise = -torch.log(-torch.log(torch.rand_like(said).clamp(1e-9, 1 - 1e-7)))
        return (said + noise).argmax(1).to(said.dtype) / (self.levels - 1)

    def marginal(self, x: Tensor) -> Tensor:
        """The logs of how often each level is seen, and once more. Shapes: (N, ...) -> (L, ...)"""
        code = (x * (self.levels - 1)).round().long()
        seen = torch.stack([(code == level).sum(0) + 1.0 for level in range(self.levels)])
        return (seen / seen.sum(0)).log()

    def check(self, x: Tensor) -> None:
        """Raise ValueError unless values lie on the levels in [0, 1]."""
        _within("Categorical", x)
        _on_levels("Categorical", x, self.levels)


Observation = Bernoulli | Gaussian | Logistic | Categorical


def _within(name: str, x: Tensor) -> None:
    low, high = (float(end) for end in torch.aminmax(x))
    if low < 0 or high > 1:
        raise ValueError(f"{name}: values must lie in [0, 1], got {low:.4g}..{high:.4g}")


def _on_levels(name: str, x: Tensor, levels: int) -> None:
    place = x * (levels - 1)
    off = float((place - place.round()).abs().max())
    if off > 0.01:
        raise ValueError(
            f"{name}: values must be k / {levels - 1} of {levels} levels, some are {off:.2f} of a "
            "step beside"
        )
