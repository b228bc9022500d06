"""Learning numbers: their mean, median or quantiles, or a whole distribution of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.functional import (
    gaussian_nll,
    laplace_nll,
    negative_binomial_nll,
    poisson_nll,
    quantile,
    squared_error,
    student_nll,
)
from deepweave.objectives.labelled import Loss, Supervised, plain

Point = Callable[[Tensor], Tensor]


class Regress(Supervised):
    """Numbers: by default least squares, the mean over samples (and targets) of (f(x) - y)^2.

    With a loss that takes several outputs for a target, they stand in the last dimension:
    ``partial(quantile, levels=(0.1, 0.5, 0.9))`` takes three, and predicts the one nearest to the
    median; ``gaussian_nll``, ``laplace_nll`` and ``student_nll`` take two, and predict the centre;
    ``negative_binomial_nll`` takes two and ``poisson_nll`` one, and predict the mean.

    Args:
        model: gives the outputs.
        loss: another one, ``loss(output, target) -> (B,)``.
        per_target: how many outputs a loss of your own takes for a target; None: one.
        point: what to predict of a loss of your own, ``(..., per_target) -> (...)``.

    Shapes: targets (B,) or (B, T); outputs (B,), (B, 1) or (B, T); with P outputs for a target
        (B, P), (B, T P) or (B, T, P).

    >>> loss, _ = Regress(nn.Linear(2, 1))((torch.zeros(3, 2), torch.zeros(3)))
    >>> loss.shape
    torch.Size([])
    >>> Regress(nn.Linear(2, 2), gaussian_nll).predict(torch.zeros(3, 2)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None = None,
        *,
        per_target: int | None = None,
        point: Point | None = None,
    ):
        super().__init__(model, loss)
        known = _known(loss)
        if known is not None and (per_target is not None or point is not None):
            raise ValueError("Regress: per_target and point are for a loss of your own")
        self.per_target, self.point = known or (per_target, point)
        if self.per_target is not None and (self.per_target < 1 or self.point is None):
            raise ValueError(
                f"Regress: per_target must be at least 1 and needs point=, got {per_target}"
            )

    def losses(self, output: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
        if self.loss is None:
            return squared_error(output.reshape(y.shape), y, reduction=reduction)
        loss = self.loss(self._shaped(output, y.shape), y)
        return loss.mean() if reduction == "mean" else loss

    def _shaped(self, output: Tensor, shape: Sequence[int]) -> Tensor:
        """Outputs as the targets are, with a last dimension where there are several for each."""
        each = () if self.per_target is None else (self.per_target,)
        return output.reshape(*shape, *each)

    def _read(self, output: Tensor, shape: Sequence[int]) -> Tensor:
        shaped = self._shaped(output, shape)
        return shaped if self.point is None else self.point(shaped)

    def readings(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        error = (self._read(output, y.shape) - y).abs()
        return {"mae": error.flatten(1).mean(1) if error.dim() > 1 else error}

    def predict(self, x: Any) -> Tensor:
        """The predicted numbers: (B,) for one target, else (B, T)."""
        output = self.model(x)
        if self.per_target is not None:
            output = self._read(output, (len(output), output[0].numel() // self.per_target))
        elif self.point is not None:
            output = self.point(output)
        return output.squeeze(1) if output.dim() == 2 and output.shape[1] == 1 else output

    def fits(self, output: Tensor, y: Tensor) -> None:
        found, shape = tuple(output.shape), tuple(y.shape)
        if self.per_target is not None:
            each, targets = self.per_target, y[0].numel()
            if len(output) != len(y) or output[0].numel() != targets * each:
                wanted = f"({len(y)}, {targets} x {each})"
                raise ValueError(
                    f"Regress: this loss takes {each} outputs for a target: they must be {wanted}, "
                    f"got {found} for targets {shape}"
                )
        elif _bare(output.shape) != _bare(y.shape):
            raise ValueError(f"Regress: outputs must be as the targets, {shape}, got {found}")
        if not y.is_floating_point():
            raise ValueError(f"Regress: targets must be floats, got {y.dtype}")
        if not y.isfinite().all():
            count = int((~y.isfinite()).sum())
            raise ValueError(f"Regress: {count} of the targets are not finite (NaN or Inf)")


def _known(loss: Loss | None) -> tuple[int | None, Point] | None:
    """Of the library's losses: the outputs for a target, and the prediction in them."""
    kind = plain(loss)
    if kind in (gaussian_nll, laplace_nll, student_nll):
        return 2, _centre
    if kind is negative_binomial_nll:
        return 2, _mean
    if kind is poisson_nll:
        return None, torch.exp
    if kind is quantile:
        levels = getattr(loss, "keywords", {}).get("levels", 0.5)
        if isinstance(levels, Sequence):
            middle = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.5))
            return len(levels), lambda output: output[..., middle]
    return None


def _centre(output: Tensor) -> Tensor:
    return output[..., 0]


def _mean(output: Tensor) -> Tensor:
    return output[..., 0].exp()


def _bare(shape: torch.Size) -> torch.Size:
    """A shape without a last dimension of 1: (B, 1) and (B,) say the same."""
    return shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape
