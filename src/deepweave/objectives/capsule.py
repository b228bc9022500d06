"""Learning capsules: a margin on their lengths, and images made again from their poses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.functional.entropy import one_hot
from deepweave.functional.reduction import weighted_mean
from deepweave.functional.routing import length_margin, lengths, log_odds
from deepweave.objectives.labelled import unpack


class MarginReconstruct(Objective):
    """The margin loss of capsules' lengths, and some of the error of the image made from them.

    loss = sum_k T_k max(0, m+ - |v_k|)^2 + lambda (1 - T_k) max(0, |v_k| - m-)^2
           + share sum_pixels (x - decoder(poses of the true classes))^2

    Multi-class: targets (B,) of int64. Binary, one capsule: targets (B,) of 0 and 1. Multi-label
    (``multilabel=True``): targets (B, K), and the image is made from the poses of all labels.

    Args:
        model: has ``poses(x) -> (B, K, E)``, and, where ``share`` is above 0,
            ``reconstruct(poses, mask) -> x``; such as :func:`deepweave.nn.capsnet`.
        multilabel: whether a sample may have several labels.
        share: of the reconstruction, a sum over pixels: 0.0005 for the 784 of MNIST; 0 for none.
        upper, lower, down: m+, m- and lambda, see :func:`deepweave.functional.length_margin`.

    Raises:
        TypeError: a model without poses, or without reconstruct where it is needed.
        ValueError: numbers out of range; with the first batch: inputs outside [0, 1], which the
            decoder's sigmoid could not give, or targets that do not fit.
    Source: Sabour, Frosst & Hinton, Dynamic routing between capsules, 2017.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        multilabel: bool = False,
        share: float = 0.0005,
        upper: float = 0.9,
        lower: float = 0.1,
        down: float = 0.5,
    ):
        super().__init__()
        if not isinstance(model, nn.Module) or not callable(getattr(model, "poses", None)):
            kind = type(model).__name__
            raise TypeError(f"MarginReconstruct: model must have poses(x), got {kind}")
        if not 0 <= share < float("inf"):
            raise ValueError(f"MarginReconstruct: share must be finite, not below 0, got {share}")
        if share and not callable(getattr(model, "reconstruct", None)):
            raise TypeError(
                "MarginReconstruct: model must have reconstruct(poses, mask), or set share=0"
            )
        if share and getattr(model, "decoder", model) is None:
            raise TypeError("MarginReconstruct: the model has no decoder: make one, or set share=0")
        self.model: Any = model
        self.multilabel, self.share = multilabel, share
        self.margins: dict[str, Any] = {"upper": upper, "lower": lower, "down": down}
        length_margin(torch.zeros(1, 1), torch.zeros(1, 1), **self.margins)  # numbers out of range

    def _there(self, poses: Tensor, y: Tensor) -> Tensor:
        """Which classes are there, (B, K)."""
        if self.multilabel or poses.shape[1] == 1:
            return y.reshape(len(poses), -1).to(poses.dtype)
        return one_hot(y, poses.shape[1]).to(poses.dtype)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, weight = unpack(batch, "MarginReconstruct")
        poses = self.model.poses(x)
        there, long = self._there(poses, y), lengths(poses)
        loss = length_margin(long, there, **self.margins)
        logs = {}
        if self.share:
            error = (self.model.reconstruct(poses, there) - x).square().flatten(1).sum(1)
            loss = loss + self.share * error
            logs["reconstruction"] = weighted_mean(error.detach(), weight)
        if not self.training:
            one = poses.shape[1] == 1 and not self.multilabel
            right = ((long > 0.5) == (there > 0.5)).to(long.dtype).mean(1)
            if not (self.multilabel or one):
                right = (long.argmax(1) == y).to(long.dtype)
            logs["accuracy"] = weighted_mean(right, weight)
        return weighted_mean(loss, weight), logs

    def predict(self, x: Any) -> Tensor:
        """Probabilities: (B, K) over classes, (B,) of class 1, or (B, L) of each label.

        Of labels, and of one class, the lengths; over classes each one's share of the odds
        l / (1 - l), which is 0.9 where a length of 0.9 stands beside nine of 0.1.
        """
        found = lengths(self.model.poses(x))
        if self.multilabel:
            return found
        return found.reshape(-1) if found.shape[1] == 1 else log_odds(found).softmax(1)

    def check(self, batch: Batch) -> None:
        name = "MarginReconstruct"
        x, y, weight = unpack(batch, name)
        if isinstance(x, Tensor) and x.is_floating_point() and not x.isfinite().all():
            count = int((~x.isfinite()).sum())
            raise ValueError(f"{name}: {count} of the inputs are not finite (NaN or Inf)")
        if self.share and not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"{name}: to be made again inputs must lie in [0, 1], got {float(x.min()):.3g}.."
                f"{float(x.max()):.3g}: scale them, or set share=0"
            )
        if weight is not None and weight.shape != (len(y),):
            raise ValueError(f"{name}: weight must be ({len(y)},), got {tuple(weight.shape)}")
        was = self.training
        self.eval()
        try:
            with chance.aside(0), torch.no_grad():
                poses = self.model.poses(x)
        finally:
            self.train(was)
        if poses.dim() != 3 or len(poses) != len(y):
            raise ValueError(
                f"{name}: poses must be (B, K, E) for {len(y)} targets, got {tuple(poses.shape)}"
            )
        wanted = tuple(poses.shape[:2])
        several = self.multilabel and y.shape != wanted
        if several or (not self.multilabel and y.numel() != len(poses)):
            shape = wanted if self.multilabel else wanted[:1]
            hint = "" if self.multilabel else "; for several labels pass multilabel=True"
            raise ValueError(f"{name}: targets must be {shape}, got {tuple(y.shape)}{hint}")
        if not self.multilabel and wanted[1] > 1 and y.is_floating_point():
            raise ValueError(f"{name}: targets must be (B,) of int64, got {y.dtype}")
        plain = self.multilabel or wanted[1] == 1
        length_margin(lengths(poses).cpu(), (self._there(poses, y) if plain else y).cpu())
