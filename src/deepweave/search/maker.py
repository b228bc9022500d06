"""From settings to objectives: what the user's function takes, and what is the step's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from deepweave import chance
from deepweave.core import Objective
from deepweave.core.descent import make_optimizer
from deepweave.run import derive
from deepweave.search.space import Settings

OWN = ("lr", "decay", "batch", "optimizer")  # settings of the step, unless the function names them


class Maker:
    """Makes the objectives of trials, and says which settings are left for the step."""

    def __init__(self, make: Callable[..., Objective], fixed: Mapping[str, Any], seed: int):
        self.make, self.fixed, self.seed = make, dict(fixed), seed
        self.takes, self.needs = _takes(make)

    def build(self, settings: Settings, number: int, seed: int) -> Objective:
        """The objective of a trial, its weights drawn for that trial and seed."""
        given = {k: v for k, v in {**self.fixed, **settings}.items() if self._makes(k)}
        with chance.aside(derive(self.seed, "trial", number, "seed", seed)):
            made = self.make(**given)
        if not isinstance(made, Objective):
            raise TypeError(
                "tune: make must give an objective, such as Classify(model), "
                f"got {type(made).__name__}"
            )
        return made

    def _makes(self, name: str) -> bool:
        return name not in OWN if self.takes is None else name in self.takes

    def rates(self, settings: Settings) -> Settings:
        """The learning rate and decay of a trial, where they are given."""
        both = {**self.fixed, **settings}
        found = {k: both[k] for k in ("lr", "decay") if k in both and not self._makes(k)}
        if "decay" in found and "lr" not in found:
            found["lr"] = _default_rate(both.get("optimizer", "AdamW"))
        return found

    def options(self, settings: Settings) -> dict[str, Any]:
        """What is left for the step: batch size, optimizer and its options."""
        both = {**self.fixed, **settings}
        return {k: v for k, v in both.items() if not self._makes(k) and k not in ("lr", "decay")}

    def check(self, settings: Settings) -> None:
        """Raise ValueError for settings that neither the function nor the optimizer takes."""
        options = self.options(settings)
        rest = {k: v for k, v in options.items() if k not in ("batch", "optimizer")}
        weights = [torch.zeros(1, requires_grad=True)]
        rate = self.rates(settings).get("lr")
        make_optimizer(options.get("optimizer", "AdamW"), weights, lr=rate, **rest)


def _takes(make: Callable[..., Objective]) -> tuple[set[str] | None, list[str]]:
    """The settings a maker takes by name (None: any), and those it cannot do without."""
    parameters = inspect.signature(make).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needs = [p.name for p in named if p.default is p.empty]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None, needs
    return {p.name for p in named}, needs


def _default_rate(optimizer: Any) -> float:
    made = make_optimizer(optimizer, [torch.zeros(1, requires_grad=True)])
    return float(made.defaults["lr"])
