"""Learning from labelled samples: classify, regress, segment; over any model."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.functional import (
    binary_cross_entropy,
    cross_entropy,
    dice,
    squared_error,
    weighted_mean,
)


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
    """What the three share: a model, a loss per sample, and checks before the first step."""

    def __init__(self, model: nn.Module):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(
                f"{type(self).__name__}: model must be a module, got {type(model).__name__}"
            )
        self.model = model

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

    def fits(self, output: Tensor, y: Tensor) -> None:
        """Raise ValueError where outputs and targets do not fit together."""


class Classify(Supervised):
    """Binary, multi-class or multi-label classification with a stable loss on logits.

    Binary: outputs (B,) or (B, 1), targets (B,) of 0 and 1; the loss is binary cross-entropy.
    Multi-class: outputs (B, K), targets (B,) of int64 in 0..K-1; cross-entropy.
    Multi-label (``multilabel=True``): outputs and targets (B, L); binary cross-entropy per label.

    Args:
        model: gives logits.
        multilabel: whether a sample may have several labels.
        smoothing: label smoothing in [0, 1).
        class_weight: a weight per class (multi-class and binary); the loss is the mean over
            samples weighted by their class, and by their own weight where the batch has one.

    >>> loss, logs = Classify(nn.Linear(3, 4))((torch.zeros(5, 3), torch.zeros(5).long()))
    >>> loss.shape
    torch.Size([])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        multilabel: bool = False,
        smoothing: float = 0.0,
        class_weight: Sequence[float] | Tensor | None = None,
    ):
        super().__init__(model)
        if not 0 <= smoothing < 1:
            raise ValueError(f"Classify: smoothing must lie in [0, 1), got {smoothing}")
        self.multilabel, self.smoothing = multilabel, smoothing
        if multilabel and class_weight is not None:
            raise ValueError("Classify: class_weight is for one class per sample, not multilabel")
        weight = None if class_weight is None else torch.as_tensor(class_weight).float()
        self.register_buffer("class_weight", weight)

    def _binary(self, output: Tensor) -> bool:
        return not self.multilabel and (output.dim() == 1 or output.shape[1:] == (1,))

    def losses(self, output: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
        how: Any = {"smoothing": self.smoothing, "reduction": reduction}
        if self.multilabel:
            return binary_cross_entropy(output, y, **how)
        if self._binary(output):
            return binary_cross_entropy(output.reshape(-1), y.reshape(-1), **how)
        try:
            return cross_entropy(output, y, **how)
        except IndexError:  # only the first batch was checked, and this costs nothing
            raise ValueError(_beyond(y, output.shape[1])) from None

    def importance(self, y: Tensor, weight: Tensor | None) -> Tensor | None:
        if self.class_weight is None:
            return weight
        own: Tensor = self.class_weight[y.reshape(-1).long()]  # pyright: ignore[reportIndexIssue, reportAssignmentType]
        return own if weight is None else own * weight

    def readings(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        if self.multilabel:
            return {"accuracy": ((output > 0) == (y > 0.5)).float().mean(1)}
        if self._binary(output):
            return {"accuracy": (output.reshape(-1) > 0) == (y.reshape(-1) > 0.5)}
        return {"accuracy": output.argmax(1) == y}

    def predict(self, x: Any) -> Tensor:
        """Probabilities: (B,) of class 1, (B, K) over classes, or (B, L) of each label."""
        output = self.model(x)
        if self.multilabel:
            return output.sigmoid()
        return output.reshape(-1).sigmoid() if self._binary(output) else output.softmax(1)

    def fits(self, output: Tensor, y: Tensor) -> None:
        shapes = f"outputs {tuple(output.shape)}, targets {tuple(y.shape)}"
        if self.multilabel:
            if output.shape != y.shape:
                raise ValueError(
                    f"Classify: multi-label targets must be as the outputs, got {shapes}"
                )
            return
        if y.dim() == 2 and y.shape[1] > 1:
            raise ValueError(f"Classify: for several labels pass multilabel=True, got {shapes}")
        classes = 2 if self._binary(output) else output.shape[1]
        if self.class_weight is not None and self.class_weight.shape != (classes,):
            found = tuple(self.class_weight.shape)  # pyright: ignore[reportArgumentType]
            raise ValueError(f"Classify: class_weight must be ({classes},), got {found}")
        if self._binary(output):
            if y.numel() != output.numel() or not ((y == 0) | (y == 1)).all():
                found = y.unique()[:5].tolist()
                raise ValueError(f"Classify: targets of one output must be 0 or 1, got {found}")
            return
        if y.dim() != 1 or y.is_floating_point():
            raise ValueError(f"Classify: targets must be (B,) of int64, got {y.dtype}, {shapes}")
        if int(y.min()) < 0 or int(y.max()) >= classes:
            raise ValueError(_beyond(y, classes))


def _beyond(y: Tensor, classes: int) -> str:
    found = f"{int(y.min())}..{int(y.max())}"
    return f"Classify: labels must lie in 0..{classes - 1}, got {found}"


class Regress(Supervised):
    """Least squares: mean over samples (and targets) of (f(x) - y)^2.

    Shapes: outputs (B,), (B, 1) or (B, T); targets (B,) or (B, T).

    >>> loss, _ = Regress(nn.Linear(2, 1))((torch.zeros(3, 2), torch.zeros(3)))
    >>> loss.shape
    torch.Size([])
    """

    def losses(self, output: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
        return squared_error(output.reshape(y.shape), y, reduction=reduction)

    def readings(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        error = (output.reshape(y.shape) - y).abs()
        return {"mae": error.flatten(1).mean(1) if error.dim() > 1 else error}

    def predict(self, x: Any) -> Tensor:
        """The predicted numbers: (B,) for one target, else (B, T)."""
        output = self.model(x)
        return output.squeeze(1) if output.dim() == 2 and output.shape[1] == 1 else output

    def fits(self, output: Tensor, y: Tensor) -> None:
        if _bare(output.shape) != _bare(y.shape):
            raise ValueError(
                f"Regress: outputs must be as the targets, {tuple(y.shape)}, "
                f"got {tuple(output.shape)}"
            )
        if not y.is_floating_point():
            raise ValueError(f"Regress: targets must be floats, got {y.dtype}")
        if not y.isfinite().all():
            count = int((~y.isfinite()).sum())
            raise ValueError(f"Regress: {count} of the targets are not finite (NaN or Inf)")


def _bare(shape: torch.Size) -> torch.Size:
    """A shape without a last dimension of 1: (B, 1) and (B,) say the same."""
    return shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape


class Segment(Supervised):
    """A class for every pixel: cross-entropy, Dice, or their mixture.

    loss = (1 - share) CE + share Dice; Dice works on probabilities, per class.

    Args:
        model: gives logits (B, C, H, W), or (B, 1, H, W) for one mask.
        share: of Dice in the loss, in [0, 1].

    Shapes: targets (B, H, W) of int64 in 0..C-1 (0 and 1 for one mask).
    """

    def __init__(self, model: nn.Module, *, share: float = 0.5):
        super().__init__(model)
        if not 0 <= share <= 1:
            raise ValueError(f"Segment: share must lie in [0, 1], got {share}")
        self.share = share

    def losses(self, output: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
        if output.shape[1] == 1:
            mask = y.unsqueeze(1)
            entropy = binary_cross_entropy(output, mask)
            overlap = dice(output.sigmoid(), mask)
        else:
            entropy = cross_entropy(output, y)
            classes = torch.arange(output.shape[1], device=y.device).view(1, -1, 1, 1)
            overlap = dice(output.softmax(1), (y.unsqueeze(1) == classes).to(output.dtype))
        loss = (1 - self.share) * entropy + self.share * overlap
        return loss.mean() if reduction == "mean" else loss

    def readings(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        guess = (output.squeeze(1) > 0).long() if output.shape[1] == 1 else output.argmax(1)
        return {"accuracy": (guess == y).float().flatten(1).mean(1)}

    def predict(self, x: Any) -> Tensor:
        """Probabilities per pixel: (B, H, W) for one mask, else (B, C, H, W)."""
        output = self.model(x)
        return output.squeeze(1).sigmoid() if output.shape[1] == 1 else output.softmax(1)

    def fits(self, output: Tensor, y: Tensor) -> None:
        if output.dim() != 4 or y.shape != (output.shape[0], *output.shape[2:]):
            raise ValueError(
                "Segment: outputs must be (B, C, H, W) and targets (B, H, W), "
                f"got {tuple(output.shape)} and {tuple(y.shape)}"
            )
        high = max(2, output.shape[1]) - 1
        if int(y.min()) < 0 or int(y.max()) > high:
            raise ValueError(
                f"Segment: labels must lie in 0..{high}, got {int(y.min())}..{int(y.max())}"
            )


def supervise(model: nn.Module, spec: Any, **options: Any) -> Supervised:
    """The objective that fits a data set's task; options go to it.

    >>> from types import SimpleNamespace
    >>> type(supervise(nn.Linear(2, 1), SimpleNamespace(task="regression"))).__name__
    'Regress'
    """
    task = spec.task
    if task in ("binary", "multiclass"):
        return Classify(model, **options)
    if task == "multilabel":
        return Classify(model, multilabel=True, **options)
    if task == "regression":
        return Regress(model, **options)
    if task == "segmentation":
        return Segment(model, **options)
    raise ValueError(f"supervise: no objective for the task {task!r}")
