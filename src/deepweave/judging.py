"""How a run without labels is scored: the numbers of each sample that its objective gives."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from deepweave import chance

BATCH = 256
MOST = 20_000  # training samples that a baseline is fitted to
MOST_MADE = 1000  # samples that are compared: with as many others
Judge = Callable[[Any], dict[str, Tensor]]


def judged(run: Any, objective: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Scores and baseline of a run: what samples cost, or, without a likelihood, what it makes."""
    seed = int(run.info.get("seed", 0))
    run.info["baseline_name"] = "each value by itself"
    if hasattr(objective, "judge"):
        found, plain = scores(objective, run.data, seed)
        run.info.setdefault("main", f"test/{next(iter(found))}")
        return found, plain
    found, plain, real = samples(objective, run.data, seed)
    run.info.setdefault("main", "test/coverage")
    rivals = run.info.setdefault("rivals", {})
    rivals["other real samples"] = {f"test/{k}": score.to_json() for k, score in real.items()}
    return found, plain


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


def samples(objective: Any, data: Any, seed: int = 0) -> tuple[dict[str, Any], ...]:
    """Readings of samples beside test ones: of the objective, of a baseline, of real ones.

    The baseline draws each value by itself from the training values at its place; real ones are
    those of validation. A generator that is told classes is told those of the test set.
    """
    compare = import_module("deepweave.metrics.generative").compare
    test, other, train = (part.x[:MOST] for part in (data.test, data.validation, data.train))
    if not isinstance(test, Tensor):
        raise ValueError("test: samples can be compared with rows of one shape only")
    count = min(len(test), len(other), MOST_MADE)
    test, other = test[:count], other[:count]
    device = next((w.device for w in objective.parameters()), torch.device("cpu"))
    was = objective.training
    objective.eval()
    try:
        with chance.aside(seed):
            classes = getattr(objective, "classes", 0)
            told = (data.test.y[:count].to(device),) if classes else ()
            made = objective.sample(count, *told).cpu()
            rows = torch.randint(len(train), made.shape)
            apart = train.gather(0, rows)
    finally:
        objective.train(was)
    found = compare(made, test, other, train, seed=seed)
    plain = compare(apart, test, other, train, seed=seed)
    ours, real = ({name: pair[i] for name, pair in found.items()} for i in (0, 1))
    return ours, {name: pair[0] for name, pair in plain.items()}, real


def _means(judge: Judge, split: Any, device: Any, seed: int) -> dict[str, Any]:
    move = import_module("deepweave.core").move
    over_samples = import_module("deepweave.metrics").over_samples
    parts: dict[str, list[Tensor]] = {}
    with chance.aside(seed):
        for batch in split.batches(BATCH, shuffle=False):
            for name, values in judge(move(batch, device)).items():
                parts.setdefault(name, []).append(values.double().cpu())
    return {name: over_samples(torch.cat(values)) for name, values in parts.items()}
