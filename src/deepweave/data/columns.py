"""Columns of a table: what each holds, and how it becomes numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas

NUMERIC = 0.8  # a column of text is one of numbers when at least this share of it reads as such
MISSING = "(missing)"
DAY = 86_400.0  # seconds


@dataclass(frozen=True)
class Column:
    """What is done to one raw column; ``kind`` is number, date, category or dropped."""

    name: str
    kind: str
    fill: float = 0.0
    mean: float = 0.0
    scale: float = 1.0
    marked: bool = False  # a column of its own says where the number was missing
    categories: tuple[str, ...] = ()
    other: bool = False  # rare categories, and those never seen, share a column

    @property
    def names(self) -> list[str]:
        """The names of the prepared columns that it makes."""
        if self.kind == "dropped":
            return []
        if self.kind != "category":
            return [self.name, f"{self.name} missing"] if self.marked else [self.name]
        values = [*self.categories, "other"] if self.other else self.categories
        return [f"{self.name} = {value}" for value in values]

    def write(self, series: Any, out: np.ndarray) -> None:
        """Fill ``out`` (N, len(names)) from the raw column."""
        if self.kind == "category":
            import pandas

            known_texts = pandas.Index(list(self.categories), dtype=object)
            codes = np.asarray(known_texts.get_indexer(pandas.Index(texts(series), dtype=object)))
            out[:] = 0
            known = np.flatnonzero(codes >= 0)
            out[known, codes[known]] = 1
            if self.other:
                out[codes < 0, -1] = 1
            return
        values = dates(series) if self.kind == "date" else numbers(self.name, series, "inputs")
        empty = np.isnan(values)
        if empty.any():
            values = np.where(empty, self.fill, values)
        out[:, 0] = (values - self.mean) / self.scale
        if self.marked:
            out[:, 1] = empty


def kinds(frame: pandas.DataFrame) -> dict[str, str]:
    """Each column's kind, from its values: number, date or category.

    A column of text is one of numbers when at least 80 % of its values read as such; the rest
    is then an error, named. Below that it is a column of categories. Dates are written
    year-month-day.

    Raises:
        ValueError: text or an infinite value in a column of numbers.
    """
    found = {}
    for name in frame.columns:
        found[name] = _kind(name, frame[name])
        if found[name] == "number":
            numbers(name, frame[name])  # text or infinity, if any, is refused here
    return found


def _kind(name: str, series: Any) -> str:
    import pandas
    from pandas.api import types

    if types.is_datetime64_any_dtype(series.dtype):
        return "date"
    if isinstance(series.dtype, pandas.CategoricalDtype):
        return "category"
    if types.is_numeric_dtype(series.dtype) or types.is_bool_dtype(series.dtype):
        if series.dtype.kind == "c":
            raise ValueError(f'load: column "{name}" is complex; give its parts as two columns')
        return "number"
    there = series.dropna()
    if there.empty:
        return "number"
    parsed: Any = pandas.to_numeric(there, errors="coerce")
    parsed = parsed.notna().to_numpy(dtype=bool)
    if parsed.mean() >= NUMERIC:
        return "number"
    written: Any = there.astype(str)
    if written.str.match(r"\d{4}-\d{1,2}-\d{1,2}").all() and not np.isnan(dates(there)).any():
        return "date"
    return "category"


def numbers(name: str, series: Any, who: str = "load") -> np.ndarray:
    """A column as float64 with NaN where it is missing.

    Raises:
        ValueError: text or an infinite value in it; the column and the row are named.
    """
    values = _float64(name, series, who)
    infinite = np.isinf(values)
    if infinite.any():
        row = int(np.argmax(infinite)) + 1
        raise ValueError(f'{who}: column "{name}" is infinite in row {row}')
    return values


def _float64(name: str, series: Any, who: str) -> np.ndarray:
    if isinstance(series, np.ndarray) and series.dtype.kind in "biuf":
        return series.astype(np.float64)
    import pandas

    held: Any = pandas.Series(series)
    if held.dtype.kind in "iuf" and isinstance(held.dtype, np.dtype):
        return held.to_numpy(dtype=np.float64)
    values: Any = pandas.to_numeric(held, errors="coerce")
    wrong = (values.isna() & held.notna()).to_numpy(dtype=bool)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(
            f'{who}: column "{name}" holds numbers, but row {place + 1} has '
            f"{held.iloc[place]!r}; "
            "mend it, leave it empty, or write every value as text"
        )
    return values.to_numpy(dtype=np.float64, na_value=np.nan)


def dates(series: Any) -> np.ndarray:
    """A column of dates as days since 1970, NaN where it is missing."""
    import pandas

    held: Any = pandas.Series(series)
    if not pandas.api.types.is_datetime64_any_dtype(held.dtype):
        written = held.astype(str).where(held.notna())
        held = pandas.to_datetime(written, errors="coerce", format="ISO8601", utc=True)
    elif getattr(held.dtype, "tz", None) is None:
        held = held.dt.tz_localize("UTC")
    since = held - pandas.Timestamp(0, tz="UTC")
    return (since.dt.total_seconds() / DAY).to_numpy(dtype=np.float64)


def texts(series: Any) -> np.ndarray:
    """A column as texts, with a text of its own where it is missing."""
    import pandas

    held: Any = pandas.Series(series)
    held = held.astype(object).where(held.notna(), MISSING)
    return held.astype(str).to_numpy(dtype=object)
