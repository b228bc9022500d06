"""What learning from labelled samples has in common: a model, a loss per sample, and checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.functional import weighted_mean

Loss = Callable[[Tensor, Tensor], Tensor]  # outputs and targets -> one number per sample, (B,)


def unpack(batch: Batch, name: str) -> tuple[Any, Tensor, Tensor | None]:
    """Inputs, targets and weights of a batch (x, y) or (x, y, weight).

    Raises:
        ValueError: the batch is something else.
    """
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        kind = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise ValueError(f"{name}: a batch must be (x, y) or (x, y, weight), got {kind}")
    return batch[0], batch[1], batch[2] if len(batch) == 3 else None


class Supervised(Objective):
    """What the three share: a model, a loss per sample, and checks before the first step.

    ``loss`` is None for the objective's own, or any ``loss(outputs, targets) -> (B,)``.
    """

    def __init__(self, model: nn.Module, loss: Loss | None = None):
        super().__init__()
        name = type(self).__name__
        if not isinstance(model, nn.Module):
            raise TypeError(f"{name}: model must be a module, got {type(model).__name__}")
        if loss is not None and not callable(loss):
            raise TypeError(
                f"{name}: loss must be a function of outputs and targets, such as "
                f"deepweave.functional.focal, got {loss!r}"
            )
        self.model = model
        self.loss = loss

    @abstractmethod
    def losses(self, output: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
        """The loss of each sample, (B,), or their mean in one kernel."""

    def readings(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Further numbers per sample, logged in evaluation only."""
        return {}

    def importance(self, y: Tensor, weight: Tensor | None) -> Tensor | None:
        """The weight of each sample in the loss, (B,), or None where all count alike."""
        return weight

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, weight = unpack(batch, type(self).__name__)
        output = self.model(x)
        importance = self.importance(y, weight)
        if importance is None:  # the fused mean saves two kernels in a small step
            loss = self.losses(output, y, "mean")
        else:
            loss = weighted_mean(self.losses(output, y), importance)
        if self.training:
            return loss, {}
        logs = {
            name: weighted_mean(value.float(), weight)
            for name, value in self.readings(output.detach(), y).items()
        }
        return loss, logs

    def check(self, batch: Batch) -> None:
        name = type(self).__name__
        x, y, weight = unpack(batch, name)
        if isinstance(x, Tensor) and x.is_floating_point() and not x.isfinite().all():
            count = int((~x.isfinite()).sum())
            raise ValueError(f"{name}: {count} of the inputs are not finite (NaN or Inf)")
        if isinstance(x, Tensor) and len(x) != len(y):
            raise ValueError(f"{name}: {len(x)} inputs and {len(y)} targets in one batch")
        if weight is not None and weight.shape != (len(y),):
            raise ValueError(f"{name}: weight must be ({len(y)},), got {tuple(weight.shape)}")
        if weight is not None and not (weight.isfinite().all() and (weight >= 0).all()):
            raise ValueError(f"{name}: weight must be finite and not below 0")
        was = self.training
        self.eval()
        try:
            with chance.aside(0), torch.no_grad():
                output = self.model(x)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{name}: the model cannot take inputs of {shape}: {reason}") from None
        finally:
            self.train(was)
        self.fits(output, y)
        self._tried(output.cpu(), y.cpu())

    def _tried(self, output: Tensor, y: Tensor) -> None:
        """The loss once, on the CPU, where the library's losses look at the values of a batch."""
        name, shapes = (
            type(self).__name__,
            f"outputs {tuple(output.shape)}, targets {tuple(y.shape)}",
        )
        try:
            found = self.losses(output, y)
        except (RuntimeError, IndexError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{name}: the loss cannot take {shapes}: {reason}") from None
        if not isinstance(found, Tensor) or found.shape != (len(y),):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"{name}: loss must give one number per sample ({len(y)},), got {shape}"
            )

    def fits(self, output: Tensor, y: Tensor) -> None:
        """Raise ValueError where outputs and targets do not fit together."""


def plain(loss: Any) -> Any:
    """The function itself, where some of its arguments are set by ``functools.partial``."""
    return getattr(loss, "func", loss)
