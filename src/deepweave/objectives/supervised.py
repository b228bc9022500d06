"""Learning from labelled samples: classify, regress, segment; over any model, with any loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.functional import binary_cross_entropy, cross_entropy, hinge
from deepweave.objectives.labelled import (
    Loss as Loss,
    Supervised as Supervised,
    plain,
    unpack as unpack,
)
from deepweave.objectives.regression import Regress as Regress
from deepweave.objectives.segmentation import Segment as Segment
from deepweave.objectives.tokens import NextToken


class Classify(Supervised):
    """Binary, multi-class or multi-label classification with a stable loss on logits.

    Binary: outputs (B,) or (B, 1), targets (B,) of 0 and 1; the loss is binary cross-entropy.
    Multi-class: outputs (B, K), targets (B,) of int64 in 0..K-1; cross-entropy.
    Multi-label (``multilabel=True``): outputs and targets (B, L); binary cross-entropy per label.

    Args:
        model: gives logits.
        loss: another one, ``loss(logits, target) -> (B,)``: such as ``focal``,
            ``multiclass_hinge``, or, for one output, ``hinge``, which gets the labels as -1 and +1;
            its numbers are set by ``functools.partial``. Margins are no log-odds: what ``predict``
            makes of a hinge loss's outputs is in order and right in its decisions, but not
            calibrated (read accuracy and AUC, not log-loss).
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
        loss: Loss | None = None,
        *,
        multilabel: bool = False,
        smoothing: float = 0.0,
        class_weight: Sequence[float] | Tensor | None = None,
    ):
        super().__init__(model, loss)
        if not 0 <= smoothing < 1:
            raise ValueError(f"Classify: smoothing must lie in [0, 1), got {smoothing}")
        if smoothing and loss is not None:
            raise ValueError("Classify: smoothing is of the loss: set it there, by partial")
        self.multilabel, self.smoothing = multilabel, smoothing
        if multilabel and class_weight is not None:
            raise ValueError("Classify: class_weight is for one class per sample, not multilabel")
        weight = None if class_weight is None else torch.as_tensor(class_weight).float()
        self.register_buffer("class_weight", weight)

    def _binary(self, output: Tensor) -> bool:
        return not self.multilabel and (output.dim() == 1 or output.shape[1:] == (1,))

    def losses(self, output: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
        if self._binary(output):
            output, y = output.reshape(-1), y.reshape(-1)
        if self.loss is not None:
            if output.shape == y.shape:
                y = y.to(output.dtype)
                y = 2 * y - 1 if plain(self.loss) is hinge else y
            loss = self.loss(output, y)
            return loss.mean() if reduction == "mean" else loss
        entropy = binary_cross_entropy if output.shape == y.shape else cross_entropy
        return entropy(output, y, smoothing=self.smoothing, reduction=reduction)

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
        """Probabilities: (B,) of class 1, (B, K) over classes, or (B, L) of each label.

        Sigmoid or softmax of the outputs; of a margin loss's outputs a score between 0 and 1 that
        decides and ranks as the margin does, at 1/2 where the margin is 0.
        """
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


def supervise(model: nn.Module, spec: Any, **options: Any) -> Supervised | NextToken:
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
    if task == "tokens":
        return NextToken(model, **options)
    raise ValueError(f"supervise: no objective for the task {task!r}")
