"""Learning densities: by maximum likelihood from samples, or by reverse KL from a formula."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.functional.entropy import one_hot
from deepweave.functional.reduction import weighted_mean
from deepweave.objectives.unlabelled import costs, parts, sound


class Density(Protocol):
    """What gives log densities: ``log_prob(x)``, or of a context ``log_prob(x, context)``."""

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Nats. Shapes: x (B, ...), context (B, C) -> (B,)"""
        ...


class Likelihood(Objective):
    """The mean of -log p(x), or of -log p(x | y), in nats per sample.

    loss = -1/B sum_b log p(x_b). Of a model whose data have levels (``model.levels``), such as a
    flow that dequantises, bits per dimension are logged too: loss / (D log 2).

    Args:
        model: has ``log_prob(x)``, such as :func:`deepweave.nn.spline_flow`.
        context: None: a batch is x, or (x, ...) of which x counts. ``"target"``: a batch is (x, y)
            and the model is asked for log p(x | y); classes go in one-hot, of as many as
            ``model.context`` says, numbers as they are.

    Shapes: a batch x (B, ...), (x, y) or (x, y, weight) -> ()
    Raises:
        TypeError: a model without ``log_prob``.
        ValueError: an unknown context; with the first batch: inputs that are not finite or do not
            fit, a context that is missing or does not fit, a log density that is not finite.

    >>> from torch.distributions import Normal
    >>> class Bell(nn.Module):
    ...     def log_prob(self, x):
    ...         return Normal(0.0, 1.0).log_prob(x).sum(1)
    >>> Likelihood(Bell())(torch.zeros(5, 2))[0]  # log(2 pi)
    tensor(1.8379)
    """

    def __init__(self, model: nn.Module, *, context: Literal["target"] | None = None):
        super().__init__()
        if not isinstance(model, nn.Module) or not callable(getattr(model, "log_prob", None)):
            raise TypeError(f"Likelihood: model must have log_prob(x), got {type(model).__name__}")
        if context not in (None, "target"):
            raise ValueError(f"Likelihood: context must be None or 'target', got {context!r}")
        self.model: Any = model
        self.context = context

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, weight = parts(batch, "Likelihood")
        log_prob = self._log_prob(x, y)
        loss = -(log_prob.mean() if weight is None else weighted_mean(log_prob, weight))
        if getattr(self.model, "levels", None) is None:
            return loss, {}
        return loss, {"bits_per_dim": loss.detach() / (x[0].numel() * math.log(2))}

    def predict(self, x: Any) -> Tensor:
        """log p(x) of each sample, in nats; with a context of (x, y). Shapes: -> (B,)"""
        x, y, _ = parts(x, "Likelihood")
        return self._log_prob(x, y)

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """-log p(x) of each sample, in nats, and in bits per dimension of data with levels."""
        x, y, _ = parts(batch, "Likelihood")
        return costs(-self._log_prob(x, y), x, getattr(self.model, "levels", None))

    def plain(self, x: Tensor) -> Callable[[Batch], dict[str, Tensor]]:
        """The baseline: a Gaussian for each value by itself."""
        return independent(x, getattr(self.model, "levels", None))

    def importance(self, y: Tensor, weight: Tensor | None) -> Tensor | None:
        """The weight of each sample in the loss, (B,), or None where all count alike."""
        return weight

    def check(self, batch: Batch) -> None:
        x, y, _ = sound(batch, "Likelihood")
        levels = getattr(self.model, "levels", None)
        if levels is not None and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"Likelihood: data of {levels} levels must lie in [0, 1], got "
                f"{float(x.min()):.3g}..{float(x.max()):.3g}"
            )
        if self.context is not None and (y is None or len(y) != len(x)):
            found = "none" if y is None else f"{len(y)}"
            raise ValueError(
                f"Likelihood: with context='target' a batch must be (x, y) with {len(x)} targets, "
                f"got {found}"
            )
        was = self.training
        self.eval()
        try:
            with chance.aside(0), torch.no_grad():
                log_prob = self._log_prob(x, y)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"Likelihood: the model cannot take inputs of {tuple(x.shape)}: {reason}"
            ) from None
        finally:
            self.train(was)
        if log_prob.shape != (len(x),):
            raise ValueError(
                f"Likelihood: log_prob must give one number per sample ({len(x)},), got "
                f"{tuple(log_prob.shape)}"
            )
        if not log_prob.isfinite().all():
            count = int((~log_prob.isfinite()).sum())
            raise ValueError(
                f"Likelihood: the log density of {count} of {len(x)} samples is not finite: do "
                "the data lie where the model has a density?"
            )

    def _log_prob(self, x: Tensor, y: Tensor | None) -> Tensor:
        if self.context is None:
            return self.model.log_prob(x)
        if y is None:
            raise ValueError("Likelihood: with context='target' a batch must be (x, y), got x")
        return self.model.log_prob(x, self._told(x, y))

    def _told(self, x: Tensor, y: Tensor) -> Tensor:
        """Targets as the numbers that a model hears: classes one-hot."""
        if y.is_floating_point():
            return y.reshape(len(y), -1).to(x.dtype)
        return one_hot(y, int(self.model.context)).to(x.dtype)


def independent(x: Tensor, levels: int | None = None) -> Callable[[Batch], dict[str, Tensor]]:
    """What samples cost by a Gaussian for each value by itself, fitted to x.

    Of data with levels k / (levels - 1) it is the density of k + u, u uniform in [0, 1), which
    bounds the probability of k as a dequantised density does.

    >>> costs = independent(torch.randn(500, 3))(torch.zeros(4, 3))
    >>> costs["nll"].shape
    torch.Size([4])
    """

    def spread(x: Tensor) -> Tensor:
        return x if levels is None else x * (levels - 1) + torch.rand_like(x)

    known = spread(x)
    mean, scale = known.mean(0), known.std(0, correction=0).clamp_min(1e-3)

    def judge(batch: Batch) -> dict[str, Tensor]:
        x = parts(batch, "Likelihood")[0]
        each = ((spread(x) - mean) / scale).square() / 2 + scale.log() + math.log(2 * math.pi) / 2
        return costs(each.flatten(1).sum(1), x, levels)

    return judge
