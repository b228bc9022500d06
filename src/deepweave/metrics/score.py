"""A number with its interval."""

from __future__ import annotations

import math
from typing import Any, Self


class Score(float):
    """A float that knows how sure it is: the value, the ends of its interval, and the method.

    It adds, compares and formats as the plain float it is; ``str`` shows the interval. ``low``
    and ``high`` are NaN where no interval was asked for.

    >>> s = Score(0.5, 0.25, 0.75, "Wilson")
    >>> s + 1, str(s), f"{s:.1f}"
    (1.5, '0.5 [0.25, 0.75]', '0.5')
    >>> s.to_json()
    {'value': 0.5, 'low': 0.25, 'high': 0.75, 'method': 'Wilson'}
    """

    low: float
    high: float
    method: str

    def __new__(
        cls, value: float, low: float = math.nan, high: float = math.nan, method: str = ""
    ) -> Self:
        self = super().__new__(cls, value)
        self.low, self.high, self.method = float(low), float(high), method
        return self

    def text(self, digits: int = 4, *, percent: bool = False) -> str:
        """The value and its interval, at most ``digits`` significant digits.

        >>> Score(0.98123, 0.97, 0.99).text(3), Score(0.98123, 0.97, 0.99).text(3, percent=True)
        ('0.981 [0.97, 0.99]', '98.1 % [97, 99]')
        """
        scale, unit = (100.0, " %") if percent else (1.0, "")
        value = f"{self * scale:.{digits}g}{unit}"
        if math.isnan(self.low) or math.isnan(self.high):
            return value
        return f"{value} [{self.low * scale:.{digits}g}, {self.high * scale:.{digits}g}]"

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"Score({self.text(6)}, {self.method!r})"

    def __getnewargs__(self) -> tuple[float, float, float, str]:  # pyright: ignore
        return float(self), self.low, self.high, self.method

    def to_json(self) -> dict[str, Any]:
        """``{"value", "low", "high", "method"}``; what is not a finite number becomes None."""
        numbers = {"value": float(self), "low": self.low, "high": self.high}
        safe = {key: x if math.isfinite(x) else None for key, x in numbers.items()}
        return {**safe, "method": self.method}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Score:
        """The score that ``to_json`` wrote; None reads as NaN."""
        value, low, high = (
            math.nan if record[key] is None else record[key] for key in ("value", "low", "high")
        )
        return cls(value, low, high, record["method"])


class Difference(Score):
    """A paired difference between two predictors: a Score with the p-value of "no difference".

    ``p`` is NaN, and not printed, where it was not asked for.

    >>> d = Difference(0.02, 0.01, 0.03, "paired", 0.004)
    >>> d.p, str(d)
    (0.004, '0.02 [0.01, 0.03], p = 0.004')
    """

    p: float

    def __new__(
        cls,
        value: float,
        low: float = math.nan,
        high: float = math.nan,
        method: str = "",
        p: float = math.nan,
    ) -> Self:
        self = super().__new__(cls, value, low, high, method)
        self.p = float(p)
        return self

    def __str__(self) -> str:
        return self.text() if math.isnan(self.p) else f"{self.text()}, p = {self.p:.2g}"

    def __getnewargs__(self) -> tuple[float, float, float, str, float]:  # pyright: ignore
        return float(self), self.low, self.high, self.method, self.p

    def to_json(self) -> dict[str, Any]:
        """As for a Score, with ``"p"``."""
        return {**super().to_json(), "p": self.p if math.isfinite(self.p) else None}
