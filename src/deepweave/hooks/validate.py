"""Validation while training: the best weights are kept, and training stops in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from deepweave import chance
from deepweave.core import Batch, Hook, Loop, move
from deepweave.hooks.average import Average
from deepweave.run import derive


class Validate(Hook):
    """Evaluate on held-out batches; keep the best weights; stop early.

    In a Population every member keeps its own best weights. Of several processes each evaluates
    the whole source, and the numbers of the first decide for all.

    Args:
        source: batches, or a split of a data set.
        patience: how many validations without improvement end the run; None: never.
        every: validate each so many steps; None: after each epoch.
        monitor: the quantity that decides, ``"loss"`` or a log or score; lower is better unless
            ``maximise``.
        scores: ``f(prediction, target) -> {name: number}`` over the whole source, also logged; in
            a Population for each member.
        restore: end with the best weights.
    """

    def __init__(
        self,
        source: Iterable[Batch] | Any,
        *,
        patience: int | None = None,
        every: int | None = None,
        monitor: str = "loss",
        maximise: bool = False,
        scores: Callable[[Tensor, Tensor], dict[str, Any]] | None = None,
        restore: bool = True,
    ):
        if patience is not None and patience < 1:
            raise ValueError(f"Validate: patience must be at least 1, got {patience}")
        batches = getattr(source, "batches", None)
        self.source: Any = batches(_rows(source), shuffle=False) if callable(batches) else source
        self.patience, self.every, self.monitor = patience, every, monitor
        self.sign = -1.0 if maximise else 1.0
        self.scores, self.restoring = scores, restore
        self.best: Tensor | None = None  # of the monitored quantity, times sign: () or (n,)
        self.best_weights: dict[str, Tensor] = {}
        self.best_note: dict[str, Any] = {}
        self.waited: Tensor | None = None
        self.seen = -1  # the step of the last validation

    def after_step(self, loop: Loop, logs: dict[str, Tensor]) -> None:
        if self.every is not None and loop.count % self.every == 0:
            self._validate(loop)

    def after_epoch(self, loop: Loop) -> None:
        if self.every is None:
            self._validate(loop)

    def end(self, loop: Loop) -> None:
        if self.seen != loop.count:
            self._validate(loop)
        if self.restoring and self.best_weights:
            loop.step.load_weights(self.best_weights)
        if loop.step.members is not None and self.best is not None:
            loop.step.best = int(self.best.argmin())  # pyright: ignore[reportAttributeAccessIssue]
        if loop.step.objective.comparable or self.monitor != "loss":
            loop.run.info["best"] = self.best_note

    def measure(self, loop: Loop) -> dict[str, Tensor]:
        """The weighted means of loss and logs over the source, and the scores."""
        loop.place.level()
        step, total, sums = loop.step, 0, {}
        outputs, targets = [], []
        was = step.objective.training
        step.objective.eval()
        with chance.aside(derive(loop.seed, "validation")):
            for batch in self.source:
                batch = move(batch, loop.device) if loop.device.type != "cpu" else batch
                size = float(step.objective.mass(batch))
                for name, value in step.evaluate(batch).items():
                    sums[name] = sums.get(name, 0) + value * size
                total += size
                if self.scores is not None:
                    outputs.append(step.predict(batch[0]))
                    targets.append(batch[1])
        step.objective.train(was)
        if not total:
            raise ValueError("Validate: the source gave no batches")
        found = {name: value / total for name, value in sums.items()}
        if self.scores is not None:
            target = torch.cat(targets)
            if step.members is None:
                many = [self.scores(torch.cat(outputs), target)]
            else:
                many = [self.scores(one, target) for one in torch.cat(outputs, 1)]
            for name in many[0]:
                values = torch.tensor([float(scores[name]) for scores in many])
                found[name] = values[0] if step.members is None else values
        return loop.place.same(found)

    def _validate(self, loop: Loop) -> None:
        average = loop.find(Average)
        if average is not None:
            average.swap(loop)
        try:
            found = self.measure(loop)
            self._compare(loop, found)
        finally:
            if average is not None:
                average.swap(loop)
        self.seen = loop.count
        loop.note({f"validation/{name}": value for name, value in found.items()})

    def _compare(self, loop: Loop, found: dict[str, Tensor]) -> None:
        if self.monitor not in found:
            raise ValueError(
                f"Validate: monitor must be one of {sorted(found)}, got {self.monitor!r}"
            )
        value = found[self.monitor].detach() * self.sign
        if self.best is None:
            self.best = torch.full_like(value, torch.inf)
            self.waited = torch.zeros_like(value, dtype=torch.long)
        better = value < self.best
        self.waited = torch.where(better, 0, self.waited + 1)  # pyright: ignore[reportOptionalOperand]
        self.best = torch.where(better, value, self.best)
        if bool(better.any()):
            now = loop.step.weights() if self.restoring else {}
            if not self.best_weights or better.dim() == 0:
                self.best_weights = {name: part.detach().clone() for name, part in now.items()}
            else:
                for name, part in now.items():
                    mask = better.view(-1, *[1] * (part.dim() - 1))
                    self.best_weights[name] = torch.where(mask, part, self.best_weights[name])
            lead = int(self.best.argmin())
            if bool(better.reshape(-1)[lead]):
                parts = {k: float(v.reshape(-1)[lead if v.dim() else 0]) for k, v in found.items()}
                scores = {f"validation/{k}": v for k, v in parts.items()}
                self.best_note = {"step": loop.count, "epoch": loop.epoch, "scores": scores}
        if self.patience is not None and bool((self.waited >= self.patience).all()):
            loop.stop = f"no better validation {self.monitor} for {self.patience} validations"

    def state(self) -> dict[str, Any]:
        names = ("best", "best_weights", "best_note", "waited", "seen")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _rows(split: Any) -> int:
    """Samples at once: fewer where each gives a distribution for every token."""
    y = getattr(split, "y", None)
    plain = isinstance(y, Tensor) and (y.dim() != 2 or y.is_floating_point())
    return 1024 if plain else 64
