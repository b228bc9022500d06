"""Inference by reverse KL: a flow learns a distribution of which only a formula is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Logs, Objective


class Importance(NamedTuple):
    """How well a learnt distribution stands for its target, by importance weights."""

    efficiency: float  # effective sample size over n, in (0, 1]
    log_evidence: float  # log of the target's integral, in nats
    low: float  # its 95 % interval, by the delta method: too narrow where efficiency is small
    high: float
    largest: float  # the share of all weight that one sample has; near 1: do not trust the rest


class ReverseKL(Objective):
    """E_q[log q(x) - log p~(x)]: KL(q || p) up to the unknown log evidence of p~.

    Each step draws fresh samples of q; in evaluation mode always the same, so that losses compare.
    The loss is at least -log of the target's integral. Logged is the effective sample size of the
    weights p~ / q as a share of the samples. Reverse KL seeks modes: what q leaves out it does not
    feel, and the weights of its own samples do not tell.

    Args:
        model: has ``draw(n)`` for noise, and ``push(noise)`` or ``push(noise, context)``: samples
            and their log density, such as an autoregressive flow with ``inverse=True``.
        log_density: log p~, x (n, ...) -> (n,); of a model with a context
            ``log_density(x, context)``.
        samples: n of each step; of a model with a context there is one for each row of the batch.

    Shapes: a batch: any tensor, which is only looked at where the model has a context: (B, C) -> ()
    Raises:
        TypeError: a model without draw and push, or a log density that cannot be called.
        ValueError: samples below 1; with the first batch: log densities of another shape, or not
            finite.
    Source: Rezende & Mohamed, Variational inference with normalizing flows, 2015.
    """

    noise: Tensor

    def __init__(self, model: nn.Module, log_density: Callable[..., Tensor], *, samples: int = 256):
        super().__init__()
        for method in ("draw", "push"):
            if not callable(getattr(model, method, None)):
                kind = type(model).__name__
                raise TypeError(f"ReverseKL: model must have draw(n) and push(noise), got {kind}")
        if not callable(log_density):
            raise TypeError(f"ReverseKL: log_density must be a function, got {log_density!r}")
        if samples < 1:
            raise ValueError(f"ReverseKL: samples must be at least 1, got {samples}")
        self.model: Any = model
        self.log_density, self.samples = log_density, samples
        with chance.aside(0):
            self.register_buffer("noise", self.model.draw(samples).detach())

    def _weights(self, z: Tensor, context: Tensor | None) -> Tensor:
        """log p~ - log q of samples. Shapes: (n, ...) -> (n,)"""
        if context is None:
            x, log_q = self.model.push(z)
            return self.log_density(x) - log_q
        x, log_q = self.model.push(z, context)
        return self.log_density(x, context) - log_q

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        context = batch if getattr(self.model, "context", 0) else None
        rows = self.samples if context is None else len(context)
        if self.training:
            z = self.model.draw(rows)
        else:
            z = self.noise.repeat(-(-rows // len(self.noise)), *[1] * (self.noise.dim() - 1))[:rows]
        log_weight = self._weights(z, context)
        return -log_weight.mean(), {"efficiency": efficiency(log_weight.detach())}

    def predict(self, x: Any) -> Tensor:
        """log q of each sample, in nats. Shapes: -> (B,)"""
        return self.model.log_prob(x)

    @torch.no_grad()
    def importance(self, n: int = 4096, context: Tensor | None = None) -> Importance:
        """Weights of n fresh samples: effective size, and the evidence with its interval."""
        if context is not None:
            context = context.expand(n, -1)
        log_weight = self._weights(self.model.draw(n), context).double()
        top = log_weight.max()
        weight = (log_weight - top).exp()
        mean = weight.mean()
        error = 1.96 * float(weight.std() / (mean * math.sqrt(n))) if n > 1 else math.inf
        value = float(top + mean.log())
        share, largest = float(efficiency(log_weight)), float(weight.max() / weight.sum())
        return Importance(share, value, value - error, value + error, largest)

    def check(self, batch: Batch) -> None:
        context = batch if getattr(self.model, "context", 0) else None
        with torch.no_grad(), chance.aside(0):
            z = self.noise if context is None else self.model.draw(len(context))
            given = () if context is None else (context,)
            found = self.log_density(self.model.push(z, *given)[0], *given)
        if found.shape != (len(z),):
            raise ValueError(
                f"ReverseKL: log_density must give one number per sample ({len(z)},), got "
                f"{tuple(found.shape)}"
            )
        if not found.isfinite().all():
            count = int((~found.isfinite()).sum())
            raise ValueError(
                f"ReverseKL: the log density of {count} of {len(z)} samples is not finite: a flow "
                "reaches all of space: give log p~ a value everywhere"
            )


def efficiency(log_weight: Tensor) -> Tensor:
    """(sum w)^2 / (n sum w^2) of importance weights: 1 if all are alike, 1/n if one has all.

    Shapes: log_weight (n,) -> ()
    Source: Kong, A note on importance sampling using standardized weights, 1992.

    >>> efficiency(torch.tensor([0.0, 0.0, -1e9, -1e9]))
    tensor(0.5000)
    """
    two = 2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)
    return (two - math.log(len(log_weight))).exp()
