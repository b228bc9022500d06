"""Which settings to try next: grid, random and quasi-random draws, whole waves at once.

A sampler is a pure function of what was tried so far: the same seed and the same history give the
same proposals, so that a killed search goes on as if nothing had happened.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deepweave.run import derive
from deepweave.search.space import Settings, Space


@dataclass(frozen=True)
class Told:
    """What became of a trial: its settings, its value (lower is better), how far it was trained."""

    settings: Settings
    value: float | None  # None: it failed
    complete: bool = True  # False: stopped before its whole budget
    epochs: int = 1


class Sampler(ABC):
    """Proposes settings, as a pure function of the history."""

    wave: int | None = None  # trials proposed before their values are needed; None: all

    @abstractmethod
    def propose(self, space: Space, count: int, told: Sequence[Told], seed: int) -> list[Settings]:
        """So many settings after those told already."""

    def check(self, space: Space, trials: int) -> int:
        """How many trials there will be; ValueError if this sampler cannot draw from the space."""
        return trials


@dataclass(frozen=True)
class Random(Sampler):
    """Independent uniform draws.

    Source: Bergstra & Bengio, Random search for hyper-parameter optimization, 2012.
    """

    def propose(self, space: Space, count: int, told: Sequence[Told], seed: int) -> list[Settings]:
        generator = torch.Generator().manual_seed(derive(seed, "random"))
        units = torch.rand(len(told) + count, len(space), dtype=torch.float64, generator=generator)
        return space.settings(units[len(told) :])


@dataclass(frozen=True)
class Sobol(Sampler):
    """Quasi-random draws: a scrambled Sobol sequence, which leaves no gaps and no clumps.

    Source: Sobol, On the distribution of points in a cube, 1967; Owen, Scrambled nets, 1997.
    """

    def propose(self, space: Space, count: int, told: Sequence[Told], seed: int) -> list[Settings]:
        engine = torch.quasirandom.SobolEngine(
            len(space), scramble=True, seed=derive(seed, "sobol") % 2**32
        )
        engine.fast_forward(len(told))
        return space.settings(engine.draw(count, dtype=torch.float64))


@dataclass(frozen=True)
class Grid(Sampler):
    """Every combination of evenly spaced values.

    Args:
        points: values of each number; choices are taken whole.
    """

    points: int = 3

    def _all(self, space: Space) -> list[Settings]:
        columns = [one.grid(self.points) for one in space.dimensions.values()]
        found: list[Settings] = []
        for values in itertools.product(*columns):
            given = dict(zip(space.dimensions, values))
            one: Settings = {}
            for name in space.order:  # what has no meaning beside the others is left out
                if space.active(name, one):
                    one[name] = given[name]
            one = {name: one[name] for name in space.dimensions if name in one}
            if one not in found:
                found.append(one)
        return found

    def check(self, space: Space, trials: int) -> int:
        if self.points < 1:
            raise ValueError(f"Grid: points must be at least 1, got {self.points}")
        size = 1
        for one in space.dimensions.values():
            size *= len(one.grid(self.points))
        if size > 100_000:
            raise ValueError(f"Grid: {size:,} combinations: take fewer points, or another sampler")
        size = len(self._all(space))
        if size > trials:
            raise ValueError(
                f"Grid: {size} combinations do not fit into {trials} trials: take trials={size}, "
                "fewer points, or another sampler"
            )
        return size

    def propose(self, space: Space, count: int, told: Sequence[Told], seed: int) -> list[Settings]:
        return self._all(space)[len(told) : len(told) + count]
