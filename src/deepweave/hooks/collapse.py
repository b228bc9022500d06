"""Mode collapse: seen while a generator trains, named, and what to do about it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepweave import chance
from deepweave.core import Hook, Loop, innermost
from deepweave.hooks.average import Average
from deepweave.run import derive

MARK = "Mode collapse: "
REMEDY = (
    "lower the learning rates (the discriminator's first, unless the generator's is the higher), "
    "take the relativistic loss with R1 and R2, Adam without momentum, or larger batches."
)


class Collapse(Hook):
    """Draw samples while a generator trains, and say so when it makes a part of the data only.

    Each ``every`` steps as many samples as there are held-out ones give their coverage and
    precision (:func:`deepweave.metrics.generative.manifold`) and their variety, the variance of
    samples over that of real ones; all three are logged. The losses of a GAN tell none of it.

    Collapse is noted at the first of two measurements in a row whose coverage is surely less than
    ``fall`` times the best so far, or at the end when coverage is surely below ``least`` while
    most samples are good, or all are alike that were not before or lie among the data. Samples that
    merely are no good are not a collapse, and neither is a generator that has not learned yet: of
    them the advice says that they lie away from the data. What was seen stands in run.json as
    ``collapse``, in words under ``advice``. With an average of weights that is what is measured.

    Args:
        real: held-out inputs (N, ...), or (x, y) for a generator that is told classes, or a split.
        every: steps between measurements.
        samples: the most real samples taken, the first ones.
        fall: the share of the best coverage below which it has collapsed.
        least: coverage that a generator must reach by the end.
        neighbours: the real neighbour to which the ball around each real sample reaches.
        stop: whether collapse ends the run.

    Raises:
        ValueError: numbers out of range, too few real samples.
        ValueError: with the first step: x alone for a generator that is told classes.
        TypeError: with the first step: an objective that has no ``sample``, or a Population.

    Source: Naeem et al., Reliable fidelity and diversity metrics for generative models, 2020.
    """

    def __init__(
        self,
        real: Any,
        *,
        every: int = 200,
        samples: int = 500,
        fall: float = 0.5,
        least: float = 0.25,
        neighbours: int = 5,
        stop: bool = False,
    ):
        x = real if isinstance(real, Tensor) else getattr(real, "x", None)
        y = None if isinstance(real, Tensor) else getattr(real, "y", None)
        if isinstance(real, tuple | list):
            x, y = [*real, None][:2]
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise ValueError("Collapse: real must be a tensor of floats, (x, y) or a split")
        if y is not None and len(y) != len(x):
            raise ValueError(f"Collapse: real has {len(x)} inputs and {len(y)} classes")
        self.x, self.y = x[:samples], None if y is None else y[:samples]
        if not 1 <= neighbours < len(self.x):
            raise ValueError(
                f"Collapse: neighbours must lie in 1..{len(self.x) - 1}, got {neighbours}"
            )
        if every < 1 or not 0 < fall < 1 or not 0 <= least < 1:
            raise ValueError(
                "Collapse: every must be at least 1, fall in (0, 1) and least in [0, 1), got "
                f"{every}, {fall} and {least}"
            )
        self.every, self.fall, self.least = every, fall, least
        self.neighbours, self.stopping = neighbours, stop
        self.best, self.best_step = 0.0, 0
        self.widest = 0.0  # the most variety so far
        self.low = 0  # measurements in a row that were too low
        self.fallen: dict[str, Any] | None = None  # the first collapse
        self.last: dict[str, Any] = {}

    def begin(self, loop: Loop) -> None:
        if loop.step.members is not None:
            raise TypeError("Collapse: takes one model, got a Population: measure its members")
        objective: Any = innermost(loop.step.objective)
        if not callable(getattr(objective, "sample", None)):
            kind = type(loop.step.objective).__name__
            raise TypeError(f"Collapse: the objective must have sample(count), got {kind}")
        if getattr(objective, "classes", 0) and self.y is None:
            raise ValueError(
                f"Collapse: {type(objective).__name__} is told classes: real must be (x, y) or a "
                "split, got x alone"
            )

    def after_step(self, loop: Loop, logs: dict[str, Tensor]) -> None:
        if loop.count % self.every:
            return
        average = loop.find(Average)
        if average is not None:
            average.swap(loop)
        try:
            self._look(loop)
        finally:
            if average is not None:
                average.swap(loop)

    def measure(self, loop: Loop) -> dict[str, Any]:
        """Coverage, precision and variety of samples drawn now; scores with intervals."""
        from deepweave.metrics.generative import manifold

        objective, device = innermost(loop.step.objective), loop.device
        was = objective.training
        objective.eval()
        try:
            with chance.aside(derive(loop.seed, "collapse", loop.count)):
                told = (
                    ()
                    if self.y is None or not getattr(objective, "classes", 0)
                    else (self.y.to(device),)
                )
                made = objective.sample(len(self.x), *told).float().cpu()
        finally:
            objective.train(was)
        real = self.x.float().cpu()
        if not made.isfinite().all():
            made = torch.zeros_like(real)
        near = manifold(made, real, neighbours=self.neighbours)
        spread = [float(one.flatten(1).var(0).sum()) for one in (made, real)]
        variety = spread[0] / max(spread[1], 1e-30)
        return {"coverage": near.coverage, "precision": near.precision, "variety": variety}

    def _look(self, loop: Loop) -> None:
        found = self.measure(loop)
        loop.note({f"samples/{name}": float(value) for name, value in found.items()})
        coverage = found["coverage"]
        if float(coverage) > self.best:
            self.best, self.best_step = float(coverage), loop.count
        self.widest = max(self.widest, float(found["variety"]))
        self.last = {
            "step": loop.count,
            **{name: float(value) for name, value in found.items()},
            "low": float(coverage.low),
            "high": float(coverage.high),
        }
        self.low = self.low + 1 if self._fell() else 0
        if self.low == 2 and self.fallen is None:
            self.fallen = self._told()
            if self.stopping:
                loop.stop = "mode collapse"

    def _fell(self) -> bool:
        return self.best >= self.least and self.last["high"] < self.fall * self.best

    def _told(self) -> dict[str, Any]:
        kept = {name: self.last[name] for name in ("step", "coverage", "precision", "variety")}
        return {**kept, "best": self.best, "best_step": self.best_step}

    def end(self, loop: Loop) -> None:
        if self.last.get("step") != loop.count:
            self._look(loop)  # an average is in place by now: its end came before
        now = self.last
        run, said = loop.run, []
        small, fell = now["high"] < self.least, self._fell()
        # before it learns, a generator makes all alike too, but nothing that is near the data
        alike = now["variety"] < 0.25 and (self.widest >= 0.25 or now["precision"] > 0.05)
        if fell or (small and (alike or now["precision"] > 0.5)):
            self.fallen = self.fallen or self._told()
            line = f"samples cover {_percent(now['coverage'])} of the held-out data at the end"
            if fell:
                line += f", {_percent(self.best)} at step {self.best_step}"
            said.append(f"{MARK}{line}: {REMEDY}")
        elif self.fallen is not None:
            seen = self.fallen
            said.append(
                f"{MARK}at step {seen['step']} samples covered {_percent(seen['coverage'])} of "
                f"the held-out data, {_percent(seen['best'])} before; it recovered to "
                f"{_percent(now['coverage'])}: {REMEDY}"
            )
        elif small:
            said.append(
                f"Samples lie away from the data: {_percent(now['precision'])} are near any, and "
                f"{_percent(now['coverage'])} of the data near one: train longer, or take a larger "
                "generator."
            )
        run.info["collapse"] = {"found": self.fallen is not None, "end": now, "first": self.fallen}
        ours = (MARK, "Samples lie away")
        rest = [line for line in run.info.get("advice", []) if not str(line).startswith(ours)]
        if rest or said:
            run.info["advice"] = [*said, *rest]

    def state(self) -> dict[str, Any]:
        names = ("best", "best_step", "widest", "low", "fallen", "last")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or not share else f"{100 * share:.1f} %"
