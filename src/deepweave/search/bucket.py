"""Trials that learn together: one Population, paused between rungs, thinned, gone on with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from deepweave.core import Descent, Hook, Loop, Objective, Population, Step, fit
from deepweave.hooks import Checkpoint, Validate
from deepweave.search import shapes

NEVER = 2**62


@dataclass(frozen=True)
class Plan:
    """What all trials of a search share: the data, how long, how they are judged."""

    train: Any
    validation: Any
    epochs: int
    seeds: int
    seed: int
    goal: str
    scores: Callable[..., Any] | None
    hooks: Callable[[], Sequence[Hook]]
    devices: Any


@dataclass(frozen=True)
class Member:
    """One network: a trial under one seed."""

    trial: int
    seed: int
    settings: dict[str, Any]  # lr and decay, where they are given
    objective: Objective = field(compare=False)


class Pause(Checkpoint):
    """Stop after so many epochs with everything kept in memory, and go on from there.

    What is kept is the state before any hook ends its work: an average of the weights, say, is
    put in their place for the judgement, and training goes on from the weights themselves.
    """

    def __init__(self) -> None:
        super().__init__()
        self.until = 0
        self.loop: Loop | None = None
        self.kept: dict[str, Any] | None = None
        self.watch: Callable[[], None] = lambda: None  # called after every epoch

    def begin(self, loop: Loop) -> None:
        self.loop = loop
        if self.kept is not None:
            loop.restore(self.kept)
            self.kept = None

    def after_step(self, loop: Loop, logs: Any) -> None: ...

    def after_epoch(self, loop: Loop) -> None:
        if loop.epochs is not None and self.until <= loop.epoch < loop.epochs:
            self.kept = _clone(loop.state())
            loop.stop = "paused"
        else:
            self.watch()

    def end(self, loop: Loop) -> None: ...


def _clone(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _clone(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_clone(part) for part in value)
    return value


def alone(
    objective: Objective, lr: float | None = None, decay: float | None = None, **options: Any
) -> Step:
    """The step of one member by itself; its decay is decoupled, as in a Population."""
    if decay is None:
        return Descent(objective, lr=lr, **options)
    if options.get("optimizer", "AdamW") == "AdamW":
        return Descent(objective, lr=lr, weight_decay=decay, **options)
    return Population([objective], shared=True, lr=[lr], decay=[decay], **options)  # pyright: ignore[reportArgumentType]


class Bucket:
    """Members that one program trains: a Population, or a Descent for one alone."""

    def __init__(self, plan: Plan, members: Sequence[Member], options: dict[str, Any]):
        self.plan, self.members, self.given = plan, list(members), options
        self.options = {k: v for k, v in options.items() if k != "batch"}
        self.batch = options.get("batch")
        self.reached = 0  # epochs trained
        self.values: list[float] = []  # of the goal, by member, when they were last judged
        self.failed: dict[int, str] = {}  # members that failed, and why
        self.pause = Pause()
        self.judge = Validate(
            plan.validation, every=NEVER, restore=False, monitor=plan.goal, scores=plan.scores
        )
        self.hooks = [*plan.hooks(), self.judge, self.pause]
        self.step = self._step(len(self.members) == 1)

    def _step(self, single: bool, sizes: dict[str, tuple[int, ...]] | None = None) -> Step:
        """A Descent for one member alone; else a Population, padded to the sizes."""
        rates: Any = [one.settings.get("lr") for one in self.members]
        decays: Any = [one.settings.get("decay") for one in self.members]
        if single:
            return alone(self.members[0].objective, rates[0], decays[0], **self.options)
        objectives = shapes.pad([one.objective for one in self.members], sizes)
        # under one seed all see the same batches: one product for the first layer of all
        return Population(
            objectives,
            shared=self.plan.seeds == 1,
            lr=None if rates[0] is None else rates,
            decay=None if decays[0] is None else decays,
            **self.options,
        )

    def advance(self, until: int) -> None:
        """Train up to an epoch, and judge every member.

        Raises:
            RuntimeError, ValueError: the members cannot learn so; no member has changed.
        """
        self.pause.until = until
        self.judge.best = None  # members may be fewer than when it judged last
        try:
            run = fit(
                self.step,
                self.plan.train,
                epochs=self.plan.epochs,
                hooks=self.hooks,
                seed=self.plan.seed,
                devices=self.plan.devices,
                out=False,
                **({} if self.batch is None else {"batch": self.batch}),
            )
        except FloatingPointError as error:
            self.reached = until
            self.values = [math.nan] * len(self.members)
            self.failed = dict.fromkeys(range(len(self.members)), str(error).splitlines()[0])
            return
        found = run.history[-1][f"validation/{self.plan.goal}"]
        many = found if isinstance(found, list) else [found]
        self.reached = until
        self.values = [math.nan if value is None else value for value in many]
        self.failed = dict.fromkeys(
            run.info.get("failed_members", []), "its slopes were not finite (NaN or Inf)"
        )
        for i, value in enumerate(self.values):
            if not math.isfinite(value):
                self.failed[i] = f"its validation {self.plan.goal} is not finite (NaN or Inf)"

    def take(self, members: Sequence[int]) -> None:
        """Go on with these members only; one taken twice goes on as two."""
        self.members = [self.members[i] for i in members]
        self.values = [self.values[i] for i in members]
        self.failed = {}
        if not self.members:
            return
        if not isinstance(self.step, Population):
            return
        kept = self.pause.kept
        if kept is not None:
            self.step.restore(kept["step"])
        self.step.take(members)
        if kept is not None:
            hooks = [[name, self._taken(name, state, members)] for name, state in kept["hooks"]]
            self.pause.kept = {**kept, "step": self.step.state(), "hooks": hooks}

    def _taken(self, name: str, state: dict[str, Any], members: Sequence[int]) -> dict[str, Any]:
        """The state of a hook for these members: of one that holds something for each."""
        for hook in self.hooks:
            if type(hook).__name__ == name and hasattr(hook, "take"):
                hook.restore(state)
                hook.take(members)  # pyright: ignore[reportAttributeAccessIssue]
                return hook.state()
        return state

    def trained(self, i: int) -> Objective:
        """Member i with the weights it has now, in its own size."""
        one = self.members[i].objective
        if isinstance(self.step, Population):
            shapes.cut({k: v[i] for k, v in self.step.weights().items()}, one)
        return one

    def state(self) -> dict[str, Any]:
        """Everything to go on from, as plain containers and tensors."""
        return {
            "members": [(one.trial, one.seed) for one in self.members],
            "reached": self.reached,
            "values": self.values,
            "failed": self.failed,
            "loop": self._where(),
            # a bucket keeps its kind and its padding when others have left it
            "sizes": None if self.step.members is None else self._sizes(),
        }

    def _sizes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(value.shape[1:]) for name, value in self.step.weights().items()}

    def _where(self) -> dict[str, Any] | None:
        if self.pause.kept is not None or self.pause.loop is None:
            return self.pause.kept
        return self.pause.loop.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` gave, in a bucket of the same members."""
        sizes = state["sizes"]
        if sizes != (None if self.step.members is None else self._sizes()):
            self.step = self._step(sizes is None, sizes)
        self.reached, self.values = state["reached"], state["values"]
        self.failed = state["failed"]
        self.pause.kept = state["loop"]
        if state["loop"] is not None:
            self.step.restore(state["loop"]["step"])
