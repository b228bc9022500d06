"""Population-based training: the good take the place of the bad, their settings moved a little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from deepweave.core import Population
from deepweave.run import derive
from deepweave.search import shapes
from deepweave.search.bucket import Bucket, Member
from deepweave.search.budgets import Path
from deepweave.search.space import Real, Settings

if TYPE_CHECKING:
    from deepweave.search.engine import Engine


@dataclass(frozen=True)
class Evolve:
    """Every so many epochs the worst share takes over weights and settings from the best share.

    The copied settings are multiplied by one of ``factors``, within their bounds. What can move is
    what members of one Population may differ in: the learning rate, the decay, dropout, penalties
    and other buffers. All else stays as it was drawn.

    Args:
        every: epochs between two selections.
        share: of the members that are replaced, and of those copied.
        factors: by which a setting is perturbed.

    Source: Jaderberg et al., Population based training of neural networks, 2017.
    """

    every: int = 2
    share: float = 0.25
    factors: tuple[float, ...] = (0.8, 1.25)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"Evolve: every must be at least 1 epoch, got {self.every}")
        if not 0 < self.share <= 0.5:
            raise ValueError(f"Evolve: share must lie in (0, 0.5], got {self.share}")
        if not self.factors or min(self.factors) <= 0:
            raise ValueError(f"Evolve: factors must be above 0, got {self.factors}")

    def paths(self, trials: int, epochs: int) -> list[Path]:
        """Every trial is judged every so many epochs, and goes on to the end."""
        return [Path(0, (*range(self.every, epochs, self.every), epochs))] * trials

    def act(self, engine: Engine, bucket: Bucket, rung: int) -> None:
        """Copy and perturb within one bucket."""
        count = int(len(bucket.members) * self.share)
        if count < 1 or not isinstance(bucket.step, Population):
            return
        study = engine.study
        order = sorted(range(len(bucket.members)), key=lambda i: (study.sign(bucket.values[i]), i))
        generator = torch.Generator().manual_seed(derive(engine.plan.seed, "evolve", rung))
        sources = list(range(len(order)))
        for loser in order[-count:]:
            sources[loser] = order[int(torch.randint(count, (), generator=generator))]
        own = list(bucket.members)
        bucket.take(sources)
        for slot, source in enumerate(sources):
            if slot == source:
                bucket.members[slot] = own[slot]
                continue
            parent, trial = study.trials[own[source].trial], study.trials[own[slot].trial]
            moved = self._moved(engine, parent.settings, generator)
            fixed = self._apply(engine, bucket, slot, own[slot], parent.settings, moved)
            changed = {k: v for k, v in fixed.items() if v != trial.settings.get(k)}
            trial.settings = fixed
            trial.story.append((rung, changed))

    def _moved(self, engine: Engine, settings: Settings, generator: torch.Generator) -> Settings:
        found: Settings = {}
        for name, value in settings.items():
            one = engine.study.space.dimensions[name]
            factor = self.factors[int(torch.randint(len(self.factors), (), generator=generator))]
            if isinstance(one, Real):
                value = min(max(value * factor, one.low), one.high)
            found[name] = value
        return found

    def _apply(
        self,
        engine: Engine,
        bucket: Bucket,
        slot: int,
        own: Member,
        parent: Settings,
        moved: Settings,
    ) -> Settings:
        """Give a member the settings that can move; the settings it has then."""
        step: Any = bucket.step
        settings = dict(parent)
        rates = engine.maker.rates(moved)
        for name, tensor in (("lr", step.rates), ("decay", step.decays)):
            if name in rates and tensor is not None:
                tensor[slot] = rates[name]
                if name in moved:
                    settings[name] = moved[name]
        before = engine.maker.build(parent, own.trial, 0)
        kind, sizes = shapes.structure(before), shapes.shape(before)
        old = dict(before.named_buffers())
        for name in [k for k in moved if moved[k] != settings[k]]:
            after = engine.maker.build({**parent, name: moved[name]}, own.trial, 0)
            if shapes.structure(after) != kind or shapes.shape(after) != sizes:
                continue
            changed = {k: v for k, v in after.named_buffers() if not torch.equal(v, old[k])}
            for key, value in changed.items():
                step.buffers[key][slot] = value
            if changed:
                settings[name] = moved[name]
        bucket.members[slot] = Member(
            own.trial, own.seed, {**own.settings, **engine.maker.rates(settings)}, before
        )
        return settings
