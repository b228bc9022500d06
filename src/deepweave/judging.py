"""How a run without labels is scored: the numbers of each sample that its objective gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from deepweave import chance

BATCH = 256
MOST = 20_000  # training samples that a baseline is fitted to
Judge = Callable[[Any], dict[str, Tensor]]


def scores(objective: Any, data: Any, seed: int = 0) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means over the test samples with normal intervals, and the same of the baseline.

    What ``objective.judge`` draws is fixed by the seed; weights of samples are left out.
    """
    device = next((w.device for w in objective.parameters()), torch.device("cpu"))
    was = objective.training
    objective.eval()
    try:
        with torch.no_grad():
            found = _means(objective.judge, data.test, device, seed)
            plain: Any = getattr(objective, "plain", None)
            if plain is None:
                return found, {}
            rows = import_module("deepweave.data.rows")
            some = slice(0, min(MOST, len(data.train)))
            known = import_module("deepweave.core").move(rows.some(data.train.x, some), device)
            with chance.aside(seed):
                judge = plain(known)
            return found, _means(judge, data.test, device, seed)
    finally:
        objective.train(was)


def _means(judge: Judge, split: Any, device: Any, seed: int) -> dict[str, Any]:
    move, made = import_module("deepweave.core").move, import_module("deepweave.metrics").Score
    parts: dict[str, list[Tensor]] = {}
    with chance.aside(seed):
        for batch in split.batches(BATCH, shuffle=False):
            for name, values in judge(move(batch, device)).items():
                parts.setdefault(name, []).append(values.double().cpu())
    found = {}
    for name, values in parts.items():
        each = torch.cat(values)
        mean = float(each.mean())
        half = 1.959964 * float(each.std()) / math.sqrt(len(each)) if len(each) > 1 else math.nan
        found[name] = made(mean, mean - half, mean + half, "normal")
    return found
