"""Learning rates over time: a warm-up, then a shape; or lower at each plateau; or found."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deepweave.core import Descent, Hook, Logs, Loop, Objective, fit
from deepweave.hooks.validate import Validate

Shape = Callable[[float], float]  # share of the run done, in [0, 1] -> factor of the learning rate


def constant(t: float) -> float:
    """1 throughout."""
    return 1.0


def linear(t: float) -> float:
    """From 1 down to 0 along a line."""
    return 1.0 - t


def cosine(t: float) -> float:
    """From 1 down to 0 along half a cosine: (1 + cos(pi t)) / 2.

    Source: Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts, 2017.

    >>> round(cosine(0.5), 3)
    0.5
    """
    return (1 + math.cos(math.pi * t)) / 2


def one_cycle(t: float, *, rise: float = 0.3, start: float = 1 / 25, final: float = 1e-4) -> float:
    """Up from ``start`` to 1 in the first ``rise`` of the run, then down to ``final``, by cosines.

    Source: Smith & Topin, Super-convergence, 2018.

    >>> one_cycle(0.3)
    1.0
    """
    if t < rise:
        return start + (1 - start) * (1 - cosine(t / rise))
    return final + (1 - final) * cosine((t - rise) / (1 - rise))


class Schedule(Hook):
    """Multiply every learning rate by a factor that changes with each step.

    Args:
        shape: factor over the share of the run that is done, such as :func:`cosine`.
        warmup: a linear rise from 0 before it: steps (an int) or a share of the run (a float).

    Raises:
        ValueError: the run has no known length and the shape is not constant.
    """

    def __init__(self, shape: Shape = cosine, *, warmup: int | float = 0):
        if warmup < 0 or (isinstance(warmup, float) and warmup >= 1):
            raise ValueError(f"Schedule: warmup must be steps >= 0 or a share < 1, got {warmup}")
        self.shape, self.warmup = shape, warmup
        self.base: list[list[float]] = []

    def begin(self, loop: Loop) -> None:
        if loop.steps is None and (self.shape is not constant or isinstance(self.warmup, float)):
            raise ValueError("Schedule: the run has no known length: pass steps= to fit")
        self.base = [[g["lr"] for g in one.param_groups] for one in loop.step.optimizers]
        self._set(loop)

    def after_step(self, loop: Loop, logs: Logs) -> None:
        self._set(loop)

    def factor(self, count: int, steps: int | None) -> float:
        """The factor of the step after ``count`` steps."""
        warmup = self.warmup
        if isinstance(warmup, float):
            warmup = round(warmup * (steps or 0))
        if count < warmup:
            return (count + 1) / (warmup + 1)
        if steps is None:
            return self.shape(0.0)
        return self.shape(min(1.0, (count - warmup) / max(1, steps - warmup)))

    def _set(self, loop: Loop) -> None:
        factor = self.factor(loop.count, loop.steps)
        for one, rates in zip(loop.step.optimizers, self.base):
            for group, rate in zip(one.param_groups, rates):
                group["lr"] = rate * factor

    def state(self) -> dict[str, Any]:
        return {"base": self.base}

    def restore(self, state: dict[str, Any]) -> None:
        self.base = state["base"]


class Plateau(Hook):
    """Lower every learning rate when validation has not improved for a while.

    Put it behind a :class:`Validate`; it watches that hook's quantity.
    """

    def __init__(self, *, factor: float = 0.3, patience: int = 3, least: float = 0.0):
        if not 0 < factor < 1:
            raise ValueError(f"Plateau: factor must lie in (0, 1), got {factor}")
        self.factor, self.patience, self.least = factor, patience, least
        self.lowered = 0  # the value of `waited` at the last cut

    def begin(self, loop: Loop) -> None:
        if loop.find(Validate) is None:
            raise ValueError("Plateau: needs a Validate hook to watch")
        if loop.find(Schedule) is not None:
            raise ValueError(
                "Plateau: a Schedule sets the rates at every step: take one of the two"
            )

    def after_epoch(self, loop: Loop) -> None:
        waited = loop.find(Validate).waited
        waited = 0 if waited is None else int(waited.min())
        if waited < self.lowered:
            self.lowered = 0
        if waited - self.lowered >= self.patience:
            self.lowered = waited
            for one in loop.step.optimizers:
                for group in one.param_groups:
                    group["lr"] = max(self.least, group["lr"] * self.factor)

    def state(self) -> dict[str, Any]:
        return {"lowered": self.lowered}

    def restore(self, state: dict[str, Any]) -> None:
        self.lowered = state["lowered"]


@dataclass
class LearningRates:
    """The sweep of :func:`find_lr`: rates tried, smoothed losses, and the rate to take."""

    rates: list[float]
    losses: list[float]
    suggestion: float


class _Sweep(Hook):
    """Raise the rate by a constant factor each step; stop once the loss has blown up."""

    def __init__(self, low: float, high: float, steps: int):
        self.low, self.ratio = low, (high / low) ** (1 / (steps - 1))
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.mean = 0.0

    def begin(self, loop: Loop) -> None:
        self._set(loop)

    def after_step(self, loop: Loop, logs: Logs) -> None:
        loss: Tensor = loop.place.mean({"loss": logs["loss"]})["loss"]
        self.mean = 0.9 * self.mean + 0.1 * float(loss)
        smooth = self.mean / (1 - 0.9**loop.count)
        if not math.isfinite(smooth) or (self.losses and smooth > 4 * min(self.losses)):
            loop.stop = "the loss blew up"
            return
        self.rates.append(self.low * self.ratio ** (loop.count - 1))
        self.losses.append(smooth)
        self._set(loop)

    def _set(self, loop: Loop) -> None:
        for one in loop.step.optimizers:
            for group in one.param_groups:
                group["lr"] = self.low * self.ratio**loop.count


def find_lr(
    objective: Objective,
    source: Any,
    *,
    optimizer: str = "AdamW",
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    seed: int = 0,
    batch: int | None = None,
) -> LearningRates:
    """Sweep the learning rate from low to high on a copy of the objective, and suggest one.

    The suggestion is the rate where the smoothed loss falls fastest per decade.

    Source: Smith, Cyclical learning rates for training neural networks, 2017.

    Raises:
        ValueError: not 0 < low < high, or fewer than 10 steps.
    """
    if not 0 < low < high or steps < 10:
        raise ValueError(
            f"find_lr: expected 0 < low < high, steps >= 10, got {low}, {high}, {steps}"
        )
    source = getattr(source, "train", source)
    sweep = _Sweep(low, high, steps)
    step = Descent(copy.deepcopy(objective), optimizer, lr=low)
    with contextlib.suppress(FloatingPointError):  # what the sweep looks for: too high a rate
        fit(step, source, steps=steps, hooks=[sweep], seed=seed, batch=batch, out=False)
    if len(sweep.losses) < 3:
        raise ValueError(f"find_lr: the loss blew up at once: take low below {low}")
    falls = [b - a for a, b in zip(sweep.losses[1:-1], sweep.losses[2:])]
    best = min(range(len(falls)), key=falls.__getitem__) + 1
    return LearningRates(sweep.rates, sweep.losses, sweep.rates[best])
