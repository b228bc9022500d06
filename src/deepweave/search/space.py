"""Typed search spaces: numbers, logarithms, integers, choices, and those that depend on others.

Every dimension maps the unit interval onto its values, so that a sampler draws points of a unit
cube, all at once, and knows nothing of types.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

Settings = dict[str, Any]


@dataclass(frozen=True)
class Dimension(ABC):
    """One hyperparameter: its values, and when it has a meaning at all."""

    conditions: Mapping[str, tuple[Any, ...]] = field(default_factory=dict, kw_only=True)

    @abstractmethod
    def at(self, unit: float) -> Any:
        """The value at a place in [0, 1]."""

    @abstractmethod
    def place(self, value: Any) -> float:
        """The place of a value in [0, 1], the inverse of :meth:`at`."""

    @abstractmethod
    def grid(self, points: int) -> list[Any]:
        """At most so many values, evenly spaced, both ends among them."""

    def __contains__(self, value: Any) -> bool:
        try:
            return 0 <= self.place(value) <= 1
        except (ValueError, TypeError):
            return False

    def __call__(self, n: int) -> list[Any]:
        """n evenly spaced values: ``Population(..., lr=space.log(1e-4, 1e-1))``."""
        return self.grid(n)

    def when(self, **conditions: Any) -> Dimension:
        """The same dimension, of meaning only where others have these values (one, or a tuple).

        >>> choice("sgd", "adam"), uniform(0.0, 0.99).when(optimizer="sgd").conditions
        (Choice('sgd', 'adam'), {'optimizer': ('sgd',)})
        """
        if not conditions:
            raise ValueError("when: name the dimension it depends on: when(optimizer='SGD')")
        wanted = {k: v if isinstance(v, tuple) else (v,) for k, v in conditions.items()}
        return replace(self, conditions={**self.conditions, **wanted})


@dataclass(frozen=True)
class Real(Dimension):
    """A real number between two others, evenly or on a logarithmic scale."""

    low: float
    high: float
    scale: str = "linear"

    def __post_init__(self) -> None:
        name = "log" if self.scale == "log" else "uniform"
        _refuse_bounds(name, self.low, self.high)
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"log: low must be above 0, got {self.low}")

    def at(self, unit: float) -> float:
        if self.scale == "log":
            value = math.exp(math.log(self.low) + unit * math.log(self.high / self.low))
        else:
            value = self.low + unit * (self.high - self.low)
        return min(max(value, self.low), self.high)  # rounding must not leave the bounds

    def place(self, value: Any) -> float:
        value = float(value)
        if self.scale == "log":
            if value <= 0:
                return -math.inf
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def grid(self, points: int) -> list[float]:
        if points == 1:
            return [self.at(0.5)]
        return [self.at(i / (points - 1)) for i in range(points)]

    def __repr__(self) -> str:
        return f"{'log' if self.scale == 'log' else 'uniform'}({self.low:g}, {self.high:g})"


@dataclass(frozen=True)
class Integer(Dimension):
    """A whole number between two others, both among them."""

    low: int
    high: int
    scale: str = "linear"

    def __post_init__(self) -> None:
        for end in (self.low, self.high):
            if not isinstance(end, int) or isinstance(end, bool):
                raise TypeError(f"integer: bounds must be whole numbers, got {end!r}")
        _refuse_bounds("integer", self.low, self.high)
        if self.scale == "log" and self.low < 1:
            raise ValueError(f"integer: low must be at least 1 for log=True, got {self.low}")

    def _ends(self) -> tuple[float, float]:
        """Half a unit beyond both bounds, so that every number has its share."""
        return (self.low - 0.5, self.high + 0.5)

    def at(self, unit: float) -> int:
        low, high = self._ends()
        if self.scale == "log":
            value = math.exp(math.log(low) + unit * math.log(high / low))
        else:
            value = low + unit * (high - low)
        return min(max(math.floor(value + 0.5), self.low), self.high)

    def place(self, value: Any) -> float:
        if int(value) != value:
            raise ValueError(f"integer: expected a whole number, got {value}")
        low, high = self._ends()
        if self.scale == "log":
            return -1.0 if value < low else math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    def grid(self, points: int) -> list[int]:
        if points == 1:
            return [self.at(0.5)]
        if self.scale == "log":
            ratio = self.high / self.low
            found = [round(self.low * ratio ** (i / (points - 1))) for i in range(points)]
        else:
            step = (self.high - self.low) / (points - 1)
            found = [round(self.low + step * i) for i in range(points)]
        return sorted(set(found))

    def __repr__(self) -> str:
        return f"integer({self.low}, {self.high}{', log=True' if self.scale == 'log' else ''})"


@dataclass(frozen=True, repr=False)
class Choice(Dimension):
    """One of several values of any kind."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("choice: give at least one value")
        if any(a == b and type(a) is type(b) for i, a in enumerate(self.values)
               for b in self.values[:i]):  # fmt: skip
            raise ValueError(f"choice: the values must differ, got {self.values}")

    def at(self, unit: float) -> Any:
        return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]

    def place(self, value: Any) -> float:
        for i, one in enumerate(self.values):
            same = one == value or (isinstance(value, list) and one == tuple(value))
            if same and isinstance(one, bool) == isinstance(value, bool):
                return (i + 0.5) / len(self.values)
        raise ValueError(f"choice: {value!r} is none of {self.values}")

    def grid(self, points: int) -> list[Any]:
        return list(self.values)

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.values))})"


def _refuse_bounds(name: str, low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name}: bounds must be finite, got {low} and {high}")
    if not low < high:
        raise ValueError(f"{name}: low must be below high, got {low} and {high}")


def uniform(low: float, high: float) -> Real:
    """A real number in [low, high].

    >>> uniform(0.0, 0.5).at(0.5)
    0.25
    """
    return Real(low, high)


def log(low: float, high: float) -> Real:
    """A positive number whose logarithm is uniform: learning rates, penalties.

    >>> [round(rate, 4) for rate in log(1e-4, 1e-2)(3)]
    [0.0001, 0.001, 0.01]
    """
    return Real(low, high, "log")


def integer(low: int, high: int, *, log: bool = False) -> Integer:
    """A whole number in low..high, both among them.

    >>> [integer(1, 3).at(u) for u in (0.0, 0.5, 1.0)]
    [1, 2, 3]
    """
    return Integer(low, high, "log" if log else "linear")


def choice(*values: Any) -> Choice:
    """One of these values.

    >>> choice("relu", "tanh").at(0.7)
    'tanh'
    """
    return Choice(values)


class Space:
    """Named dimensions, checked as a whole.

    Raises:
        TypeError: something that is no dimension.
        ValueError: an empty space, a condition on a name that is not there or on a value it
            cannot take, conditions that go in a circle.

    >>> space = Space({"lr": log(1e-4, 1e-1), "kind": choice("a", "b")})
    >>> space.settings(torch.tensor([[1.0, 0.9]]))
    [{'lr': 0.1, 'kind': 'b'}]
    """

    def __init__(self, dimensions: Mapping[str, Dimension] | Space):
        if isinstance(dimensions, Space):
            dimensions = dimensions.dimensions
        if not isinstance(dimensions, Mapping):
            raise TypeError(f"space: expected names with dimensions, got {dimensions!r:.80}")
        if not dimensions:
            raise ValueError("space: it is empty: give at least one dimension")
        for name, one in dimensions.items():
            if not isinstance(one, Dimension):
                raise TypeError(
                    f"space: {name} must be a dimension such as log(1e-4, 1e-1), got {one!r:.60}; "
                    f"for one fixed value take choice(...)"
                )
            for other, values in one.conditions.items():
                if other not in dimensions or other == name:
                    raise ValueError(f"space: {name} depends on {other!r}, which is not there")
                lost = [value for value in values if value not in dimensions[other]]
                if lost:
                    raise ValueError(
                        f"space: {name} waits for {other} = {lost[0]!r}, "
                        f"but {other} is {dimensions[other]!r}"
                    )
        self.dimensions = dict(dimensions)
        self.order = self._ordered()

    def _ordered(self) -> list[str]:
        """Names so that each comes after those it depends on."""
        order: list[str] = []
        while len(order) < len(self.dimensions):
            ready = [
                name
                for name, one in self.dimensions.items()
                if name not in order and all(other in order for other in one.conditions)
            ]
            if not ready:
                stuck = [name for name in self.dimensions if name not in order]
                raise ValueError(f"space: the conditions of {', '.join(stuck)} go in a circle")
            order += ready
        return order

    def __len__(self) -> int:
        return len(self.dimensions)

    def active(self, name: str, settings: Settings) -> bool:
        """Whether a dimension has a meaning beside these settings."""
        conditions = self.dimensions[name].conditions
        return all(
            other in settings and settings[other] in values for other, values in conditions.items()
        )

    def settings(self, units: Tensor) -> list[Settings]:
        """The settings at points of the unit cube; dimensions without meaning are left out.

        Shapes: units (N, D) in [0, 1] -> N settings
        """
        column = {name: i for i, name in enumerate(self.dimensions)}
        found: list[Settings] = []
        for row in units.tolist():
            one: Settings = {}
            for name in self.order:
                if self.active(name, one):
                    one[name] = self.dimensions[name].at(row[column[name]])
            found.append({name: one[name] for name in self.dimensions if name in one})
        return found

    def places(self, many: Sequence[Settings]) -> Tensor:
        """The points of settings in the unit cube, NaN where a dimension has no meaning: (N, D)."""
        rows = [
            [one.place(each[name]) if name in each else math.nan
             for name, one in self.dimensions.items()]
            for each in many
        ]  # fmt: skip
        return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), len(self))

    def check(self, settings: Settings) -> None:
        """Raise ValueError for settings outside the space."""
        for name in settings:
            if name not in self.dimensions:
                raise ValueError(f"space: there is no {name!r}: it has {', '.join(self.order)}")
        for name, one in self.dimensions.items():
            if name in settings and settings[name] not in one:
                raise ValueError(f"space: {name} must lie in {one!r}, got {settings[name]!r}")
            if self.active(name, settings) and name not in settings:
                raise ValueError(f"space: {name} is missing in {settings}")

    def __repr__(self) -> str:
        return f"Space({self.dimensions!r})"
