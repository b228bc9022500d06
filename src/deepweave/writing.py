"""How a run that writes tokens is scored: text by text, so that memory stays that of a batch."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

BATCH = 64


def scores(objective: Any, split: Any) -> dict[str, Any]:
    """The scores of an objective on a split of tokens; see :func:`deepweave.metrics.tokens`."""
    move = import_module("deepweave.core").move
    was, device = objective.training, next(objective.parameters()).device
    objective.eval()
    parts = []
    try:
        with torch.no_grad():
            for batch in split.batches(BATCH, shuffle=False):
                x, y = move(batch, device)
                target = y if isinstance(y, Tensor) else y.values
                parts.append(_texts(objective.model(x).float().log_softmax(-1), target).cpu())
    finally:
        objective.train(was)
    return import_module("deepweave.metrics").tokens(*torch.cat(parts, 1))


def _texts(log_p: Tensor, y: Tensor) -> Tensor:
    """Loss, hits and tokens of each text, (3, B)."""
    real = y != 0
    # not times zero: padding may be impossible, and infinity times zero is not a number
    loss = torch.where(real, -log_p.gather(-1, y[..., None])[..., 0], 0.0)
    right = (log_p.argmax(-1) == y) & real
    return torch.stack([loss.double().sum(1), right.double().sum(1), real.double().sum(1)])


def baseline(data: Any) -> dict[str, Any]:
    """The same scores of the frequencies of tokens in training, each seen once more than it was."""
    named = import_module("deepweave.data.rows").named
    size = data.spec.outputs
    seen = torch.ones(size, dtype=torch.float64)
    seen[0] = 0
    for _, tensor in _values(named(data.train.y, "y")):
        seen += torch.bincount(tensor.flatten(), minlength=size) * (torch.arange(size) > 0)
    log_p = (seen / seen.sum()).log()
    parts = []
    for _, y in data.test.batches(BATCH, shuffle=False):
        y = y if isinstance(y, Tensor) else y.values
        parts.append(_texts(log_p.expand(*y.shape, -1), y))
    return import_module("deepweave.metrics").tokens(*torch.cat(parts, 1))


def _values(tensors: Any) -> Any:
    return [(name, one) for name, one in tensors if not name.endswith("lengths")]
