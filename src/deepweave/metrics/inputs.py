"""What a metric accepts: arrays made tensors, the task read from shapes, shapes checked."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

Task = Literal["binary", "multiclass", "multilabel", "regression", "segmentation"]
TASKS = ("binary", "multiclass", "multilabel", "regression", "segmentation")


def tensor(name: str, role: str, value: Any) -> Tensor:
    """A detached tensor of a tensor, array or list; on a device with float64."""
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            kind = type(value).__name__
            raise TypeError(
                f"{name}: {role} must be a tensor or an array of numbers, got {kind}"
            ) from error
    if value.is_complex():
        raise TypeError(f"{name}: {role} must be real, got {value.dtype}")
    if value.requires_grad:
        value = value.detach()
    return value.cpu() if value.device.type == "mps" else value  # MPS has no float64


def shaped(name: str, role: str, value: Tensor, letters: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor, or an error that shows the shape as letters, as numbers, and what came."""
    if value.shape != shape:
        raise ValueError(f"{name}: {role} must be ({letters}) = {shape}, got {tuple(value.shape)}")
    return value


def pair(name: str, prediction: Any, target: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target as tensors on one device, not empty, with the same first size."""
    p, t = tensor(name, "prediction", prediction), tensor(name, "target", target)
    if p.ndim == 0 or t.ndim == 0:
        raise ValueError(
            f"{name}: prediction and target must have a first dimension N, got scalars"
        )
    if p.ndim == 2 and p.shape[1] == 1:
        p = p[:, 0]
    if t.ndim == 2 and t.shape[1] == 1:
        t = t[:, 0]
    if p.shape[0] != t.shape[0]:
        raise ValueError(f"{name}: target must be (N,) = ({len(p)},), got {tuple(t.shape)}")
    if p.numel() == 0:
        raise ValueError(f"{name}: no samples: prediction is {tuple(p.shape)}")
    return p, t if t.device == p.device else t.to(p.device)


def reading(name: str, p: Tensor, t: Tensor, classes: int | None = None) -> tuple[Task, int]:
    """The task and its number of classes (or labels), read from the shapes by one rule.

    Probabilities (floats): (N,) against (N,) is binary, (N, K) against (N,) multi-class, (N, L)
    against (N, L) multi-label, (N, H, W) or (N, C, H, W) against (N, H, W) segmentation. Hard
    labels (integers, bools) have the target's shape; their number of classes is ``classes`` or
    else one more than the largest label, at least 2.
    """
    if p.ndim == 1 and t.ndim == 1:
        if p.is_floating_point():
            return "binary", 2
        known = classes or max(int(torch.maximum(p.max(), t.max())) + 1, 2)
        return ("binary" if known == 2 else "multiclass"), known
    if p.ndim == 2 and t.ndim == 1:
        return "multiclass", p.shape[1]
    if p.ndim == 2 and p.shape == t.shape:
        return "multilabel", p.shape[1]
    if p.ndim >= 3 and p.shape == t.shape:
        if p.is_floating_point():
            return "segmentation", 2
        return "segmentation", classes or max(int(torch.maximum(p.max(), t.max())) + 1, 2)
    if p.ndim >= 4 and t.ndim == p.ndim - 1 and p.shape[2:] == t.shape[1:]:
        return "segmentation", p.shape[1]
    want = "(N,)" if p.ndim <= 2 else "(N, H, W)"
    like = (len(p),) if p.ndim <= 2 else (len(p), *p.shape[2 if p.ndim > 3 else 1 :])
    raise ValueError(
        f"{name}: target must be {want} = {like} for a prediction {tuple(p.shape)}, "
        f"got {tuple(t.shape)}"
    )


def flat(task: Task, p: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Segmentation's cells in one row per image: p (N, P) or (N, P, C), t (N, P)."""
    if task != "segmentation":
        return p, t
    if p.ndim == t.ndim + 1:
        p = p.movedim(1, -1).reshape(len(p), -1, p.shape[1])
    else:
        p = p.reshape(len(p), -1)
    return p, t.reshape(len(t), -1)


def weights(name: str, weight: Any, p: Tensor) -> Tensor:
    """Weights (N,) as float64 on the prediction's device; their values are checked by the tally."""
    w = tensor(name, "weight", weight).to(p.device, torch.float64)
    return shaped(name, "weight", w, "N,", (len(p),))


def labels(t: Tensor) -> tuple[Tensor, Tensor | None]:
    """Targets as int64, and a mask of those that were no whole numbers (floats alone can be)."""
    if t.dtype == torch.int64:
        return t, None
    if t.is_floating_point():
        whole = t.to(torch.int64)
        return whole, whole != t
    return t.to(torch.int64), None
