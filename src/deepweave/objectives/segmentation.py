"""A class for every pixel."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepweave.functional import (
    binary_cross_entropy,
    cross_entropy,
    dice,
    jaccard,
    one_hot,
    tversky,
)
from deepweave.objectives.labelled import Loss, Supervised, plain

OVERLAPS = (dice, jaccard, tversky)  # on probabilities; all other losses take logits


class Segment(Supervised):
    """A class for every pixel: cross-entropy, Dice, their mixture, or any other loss.

    loss = (1 - share) L + share Dice; L is cross-entropy where no other loss is given, and Dice
    works on probabilities, per class.

    Args:
        model: gives logits (B, C, H, W), or (B, 1, H, W) for one mask.
        loss: L, ``loss(logits, target) -> (B,)``, such as ``focal``; ``dice``, ``jaccard`` and
            ``tversky`` get probabilities and a mask per class instead. For one mask logits and
            target are both (B, 1, H, W).
        share: of Dice in the loss, in [0, 1]; by default a half without ``loss``, none with it.

    Shapes: targets (B, H, W) of int64 in 0..C-1 (0 and 1 for one mask).
    """

    def __init__(self, model: nn.Module, loss: Loss | None = None, *, share: float | None = None):
        super().__init__(model, loss)
        share = (0.5 if loss is None else 0.0) if share is None else share
        if not 0 <= share <= 1:
            raise ValueError(f"Segment: share must lie in [0, 1], got {share}")
        self.share = share

    def losses(self, output: Tensor, y: Tensor, reduction: str = "none") -> Tensor:
        one = output.shape[1] == 1
        target = y.unsqueeze(1).to(output.dtype) if one else y
        loss = output.new_zeros(len(output))
        if self.share < 1:
            if self.loss is None:
                loss = (binary_cross_entropy if one else cross_entropy)(output, target)
            elif plain(self.loss) in OVERLAPS:
                loss = self.loss(*self._regions(output, target, one))
            else:
                loss = self.loss(output, target)
        if self.share > 0:
            overlap = dice(*self._regions(output, target, one))
            loss = (1 - self.share) * loss + self.share * overlap
        return loss.mean() if reduction == "mean" else loss

    def _regions(self, output: Tensor, target: Tensor, one: bool) -> tuple[Tensor, Tensor]:
        """Probabilities and truth of each class, (B, C, H, W)."""
        if one:
            return output.sigmoid(), target
        return output.softmax(1), one_hot(target, output.shape[1]).to(output.dtype)

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
