"""How the epochs of a search are spent: on all trials alike, or more on the better ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """What lies ahead of a trial: its bracket, and the epochs after which it is judged."""

    bracket: int
    rungs: tuple[int, ...]


class Budget(ABC):
    """Which trials are judged when, and how many of them go on."""

    eta: float = 1.0

    @abstractmethod
    def paths(self, trials: int, epochs: int) -> list[Path]:
        """The path of every trial of a wave; the last rung is the whole budget."""

    def keep(self, alive: int) -> int:
        """How many of those judged at a rung go on."""
        return max(1, math.floor(alive / self.eta + 1e-9))


@dataclass(frozen=True)
class Whole(Budget):
    """Every trial is trained to the end."""

    def paths(self, trials: int, epochs: int) -> list[Path]:
        return [Path(0, (epochs,))] * trials


def ladder(least: int, eta: float, epochs: int) -> tuple[int, ...]:
    """Rungs at least, least eta, least eta^2, ... and the whole budget.

    >>> ladder(1, 3, 20)
    (1, 3, 9, 20)
    """
    rungs, rung = [], float(least)
    while round(rung) < epochs:
        rungs.append(round(rung))
        rung *= eta
    return (*rungs, epochs)


def _refuse(name: str, eta: float, least: int) -> None:
    if not eta > 1:
        raise ValueError(f"{name}: eta must be above 1, got {eta}")
    if least < 1:
        raise ValueError(f"{name}: least must be at least 1 epoch, got {least}")


@dataclass(frozen=True)
class Halving(Budget):
    """Successive halving: after each rung the best 1 / eta go on, to an eta times longer budget.

    Args:
        eta: how much is cut away; the rungs lie ``least * eta**k`` epochs from the start.
        least: epochs before the first judgement.

    Source: Jamieson & Talwalkar, Non-stochastic best arm identification, 2016.
    """

    eta: float = 3.0  # pyright: ignore[reportIncompatibleVariableOverride]
    least: int = 1

    def __post_init__(self) -> None:
        _refuse("Halving", self.eta, self.least)

    def paths(self, trials: int, epochs: int) -> list[Path]:
        return [Path(0, ladder(self.least, self.eta, epochs))] * trials


@dataclass(frozen=True)
class Hyperband(Budget):
    """Halving from several starts at once: many trials cut early, and fewer cut late or never.

    Bracket s begins at ``epochs / eta**s`` epochs and has a share of the trials proportional to
    eta**s / (s + 1), as in the paper. All brackets learn in the same program.

    Source: Li et al., Hyperband, 2018.

    >>> sorted({(path.bracket, path.rungs) for path in Hyperband().paths(30, 9)})
    [(0, (9,)), (1, (3, 9)), (2, (1, 3, 9))]
    """

    eta: float = 3.0  # pyright: ignore[reportIncompatibleVariableOverride]
    least: int = 1

    def __post_init__(self) -> None:
        _refuse("Hyperband", self.eta, self.least)

    def paths(self, trials: int, epochs: int) -> list[Path]:
        rungs = ladder(self.least, self.eta, epochs)
        brackets = list(range(len(rungs)))
        rights = [self.eta**s / (s + 1) for s in brackets]
        shares = [trials * right / sum(rights) for right in rights]
        counts = [math.floor(share) for share in shares]
        for s in sorted(brackets, key=lambda s: counts[s] - shares[s])[: trials - sum(counts)]:
            counts[s] += 1  # the largest remainders
        found: list[Path] = []
        for s in reversed(brackets):
            found += [Path(s, rungs[len(rungs) - 1 - s :])] * counts[s]
        return found
