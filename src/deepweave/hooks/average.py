"""Averages of the weights over training: exponential (EMA) or uniform (SWA)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepweave.core import Hook, Logs, Loop


class Average(Hook):
    """Keep an average of the weights; validate and end with it.

    ``decay=0.999`` gives an exponential moving average, w <- d w + (1 - d) w_t, with d ramped up
    as (1 + t) / (10 + t) so that the first steps do not linger; ``decay=None`` gives the plain
    mean of all weights from step ``start`` on (stochastic weight averaging). Integer buffers are
    taken as they are.

    Source: Polyak & Juditsky, Acceleration of stochastic approximation, 1992; Izmailov et al.,
    Averaging weights leads to wider optima, 2018.
    """

    def __init__(self, decay: float | None = 0.999, *, start: int = 0, every: int = 1):
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"Average: decay must lie in [0, 1), got {decay}")
        self.decay, self.start, self.every = decay, start, every
        self.mean: dict[str, Tensor] = {}
        self.taken = 0

    @torch.no_grad()
    def after_step(self, loop: Loop, logs: Logs) -> None:
        if loop.count <= self.start or loop.count % self.every:
            return
        now = loop.step.weights()
        self.taken += 1
        if not self.mean:
            self.mean = {name: value.detach().clone() for name, value in now.items()}
            return
        if self.decay is None:
            share = 1 / self.taken
        else:
            share = 1 - min(self.decay, (1 + self.taken) / (10 + self.taken))
        floats = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self.mean[n] for n in floats], [now[n].detach() for n in floats], share
        )
        for name, value in now.items():
            if not value.is_floating_point():
                self.mean[name].copy_(value)

    def swap(self, loop: Loop) -> None:
        """Exchange the weights in training for their average, or back."""
        if self.mean:
            kept = {name: value.detach().clone() for name, value in loop.step.weights().items()}
            loop.step.load_weights(self.mean)
            self.mean = kept

    def end(self, loop: Loop) -> None:
        if self.mean:
            loop.step.load_weights(self.mean)

    def take(self, members: list[int]) -> None:
        """Go on with these members of a Population."""
        self.mean = {name: value[members] for name, value in self.mean.items()}

    def state(self) -> dict[str, Any]:
        return {"mean": self.mean, "taken": self.taken}

    def restore(self, state: dict[str, Any]) -> None:
        self.mean, self.taken = state["mean"], state["taken"]
