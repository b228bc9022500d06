"""Learning to write: the next token from those before it, with or without a source."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.core import Batch, Logs, Objective
from deepweave.functional.ragged import PAD, Padded
from deepweave.objectives.labelled import unpack

LEFT_OUT = -100  # the target that torch's cross-entropy leaves out


class NextToken(Objective):
    """Cross-entropy of the token at every position: language models, translation, tagging.

    loss = -1/M sum_bt log p(y_bt | x) over the M positions that are not padding (token 0), in
    nats per token. A language model takes x (B, T) and gives logits (B, T, V); a translator takes
    x = (source, target so far); a tagger gives classes 1 to V-1, 0 is no class.

    Args:
        model: gives logits (B, T, V).
        smoothing: label smoothing in [0, 1).

    Shapes: a batch (x, y), y (B, T) int64 or Padded -> ()

    >>> model = nn.Embedding(7, 7)  # a bigram model
    >>> loss, _ = NextToken(model)((torch.tensor([[2, 4, 5]]), torch.tensor([[4, 5, 0]])))
    >>> loss.shape
    torch.Size([])
    """

    def __init__(self, model: nn.Module, *, smoothing: float = 0.0):
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"NextToken: model must be a module, got {type(model).__name__}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"NextToken: smoothing must lie in [0, 1), got {smoothing}")
        self.model, self.smoothing = model, smoothing

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y = _both(batch)
        logits = self.model(x)
        target = torch.where(y == PAD, LEFT_OUT, y).reshape(-1)
        smoothing = self.smoothing if self.training else 0.0
        flat = logits.reshape(-1, logits.shape[-1])
        loss = F.cross_entropy(flat, target, label_smoothing=smoothing)
        if self.training:
            return loss, {}
        right = (flat.detach().argmax(-1) == target) & (target != LEFT_OUT)
        return loss, {"accuracy": right.sum() / (target != LEFT_OUT).sum().clamp_min(1)}

    def predict(self, x: Any) -> Tensor:
        """Probabilities of every token at every position, (B, T, V)."""
        return self.model(x).softmax(-1)

    def mass(self, batch: Batch) -> Tensor:
        """The number of tokens."""
        return (_both(batch)[1] != PAD).sum().double()

    def check(self, batch: Batch) -> None:
        x, y = _both(batch)
        if y.is_floating_point() or y.dim() != 2:
            raise ValueError(
                f"NextToken: targets must be token numbers (B, T) of int64, got {y.dtype} of "
                f"{tuple(y.shape)}"
            )
        with torch.no_grad():
            logits = self.model(x)
        if logits.dim() != 3 or logits.shape[:2] != y.shape:
            raise ValueError(
                f"NextToken: the model must give logits (B, T, V) with (B, T) = {tuple(y.shape)}, "
                f"got {tuple(logits.shape)}"
            )
        low, high = (int(end) for end in torch.aminmax(y))
        if low < 0 or high >= logits.shape[-1]:
            raise ValueError(
                f"NextToken: tokens must lie in 0..{logits.shape[-1] - 1}, got {low}..{high}"
            )
        if high == PAD:
            raise ValueError("NextToken: every target of the first batch is padding")


def _both(batch: Batch) -> tuple[Any, Tensor]:
    x, y, weight = unpack(batch, "NextToken")
    if weight is not None:
        raise ValueError("NextToken: a batch must be (x, y): tokens have no weights of their own")
    target: Any = y
    return x, target.values if isinstance(target, Padded) else target
