"""Tables: columns of numbers, categories and dates become numbers of one scale."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from deepweave.data.columns import MISSING, Column, dates, numbers, texts

if TYPE_CHECKING:
    import pandas

RARE = 0.005  # a category is rare below this share of the training rows
MOST = 64  # the most categories that one column may have
ROW_NAMES = frozenset({"id", "index", "row", "row_id", "rowid", "uid", "unnamed: 0", ""})


@dataclass(frozen=True)
class Table:
    """How raw rows become tensors, column by column; fitted on the training rows alone.

    Shapes: N raw rows -> ``(N, D)`` float32, D the number of prepared columns.
    """

    columns: tuple[Column, ...]
    ignored: tuple[str, ...] = ()  # the target, which new rows may carry or not
    kind: ClassVar[Literal["table"]] = "table"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the prepared columns."""
        return tuple(name for column in self.columns for name in column.names)

    @property
    def shape(self) -> tuple[int]:
        """The shape of one prepared row."""
        return (sum(len(column.names) for column in self.columns),)

    def inputs(self, raw: Any) -> Tensor:
        """Raw rows as the model sees them.

        Raises:
            ValueError: a column is missing, or text stands in a column of numbers.
        """
        used = [(place, c) for place, c in enumerate(self.columns) if c.kind != "dropped"]
        if hasattr(raw, "columns"):
            pick = self._by_name(raw, [column.name for _, column in used])
        else:
            pick = self._by_place(np.asarray(raw))
        out = np.empty((len(raw), self.shape[0]), dtype=np.float32)
        start = 0
        for place, column in used:
            stop = start + len(column.names)
            column.write(pick(place, column.name), out[:, start:stop])
            start = stop
        return torch.from_numpy(out)

    def _by_name(self, frame: Any, needed: list[str]) -> Any:
        there = {str(name).strip(): name for name in frame.columns}
        lost = [name for name in needed if name not in there]
        if lost:
            raise ValueError(f"inputs: the rows lack {_listed(lost, 'column')}")
        known = {column.name for column in self.columns} | set(self.ignored)
        extra = [name for name in there if name not in known]
        if extra:
            warnings.warn(
                f"inputs: {_listed(extra, 'column')} not seen in training: ignored.", stacklevel=4
            )
        return lambda place, name: frame[there[name]]

    def _by_place(self, array: np.ndarray) -> Any:
        if array.ndim != 2 or array.shape[1] != len(self.columns):
            raise ValueError(
                f"inputs: rows must be (N, {len(self.columns)}), got {tuple(array.shape)}"
            )
        return lambda place, name: array[:, place]

    def to_json(self) -> dict[str, Any]:
        """The preparation of tables as plain lists, numbers and strings."""
        columns = [asdict(c) | {"categories": list(c.categories)} for c in self.columns]
        return {"columns": columns, "ignored": list(self.ignored)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Table:
        """The preparation that ``to_json`` wrote."""
        columns = [
            Column(**{**column, "categories": tuple(column["categories"])})
            for column in record["columns"]
        ]
        return cls(tuple(columns), tuple(record["ignored"]))


def fit_array(
    train: np.ndarray, names: Sequence[str], ignored: Sequence[str] = ()
) -> tuple[Table, list[str]]:
    """The preparation of an array ``(N, D)``: every column stays, constant ones become zero."""
    rows = train.astype(np.float64)
    mean, scale = rows.mean(0), rows.std(0)
    constant = np.ptp(rows, axis=0) == 0
    mean[constant], scale[constant] = rows[0, constant], 1.0
    columns = [
        Column(name, "number", fill=center, mean=center, scale=width)
        for name, center, width in zip(names, mean.tolist(), scale.tolist())
    ]
    said = [_standardised(len(columns))]
    if constant.any():
        listed = _listed([n for n, still in zip(names, constant) if still], "column")
        said.append(f"Constant in training, so zero: {listed}.")
    return Table(tuple(columns), tuple(ignored)), said


def fit_frame(
    train: pandas.DataFrame, kinds: Mapping[str, str], ignored: Sequence[str] = ()
) -> tuple[Table, list[str]]:
    """The preparation that training rows ask for, and what it does in plain sentences.

    Raises:
        ValueError: no column is left to learn from.
    """
    columns: list[Column] = []
    dropped: dict[str, list[str]] = {}
    for name in train.columns:
        series = train[name]
        if kinds[name] == "category":
            column, reason = _fit_category(name, series)
        else:
            column, reason = _fit_number(name, series, kinds[name])
        columns.append(column)
        if reason:
            dropped.setdefault(reason, []).append(name)
    table = Table(tuple(columns), tuple(ignored))
    if not table.names:
        why = "; ".join(f"{_listed(names, 'column')} {why}" for why, names in dropped.items())
        raise ValueError(f"load: no column is left to learn from: {why or 'there is none'}")
    said = []
    if numeric := sum(column.kind == "number" for column in columns):
        said.append(_standardised(numeric))
    if days := [column.name for column in columns if column.kind == "date"]:
        said.append(f"As days, then standardised: {_listed(days, 'column')}.")
    if marked := [column.name for column in columns if column.marked]:
        said.append(
            "Missing numbers filled with the training median and marked in a column of their "
            f"own: {_listed(marked, 'column')}."
        )
    if coded := [column.name for column in columns if column.kind == "category"]:
        said.append(f"One column per category: {_listed(coded, 'column')}.")
    if other := [column.name for column in columns if column.other]:
        said.append(
            f"Categories in fewer than {RARE:.1%} of the training rows (or beyond the {MOST} "
            f'most frequent) and unseen ones become "other": {_listed(other, "column")}.'
        )
    said += [f"Left out, {why}: {_listed(names, 'column')}." for why, names in dropped.items()]
    return table, said


def _fit_number(name: str, series: Any, kind: str) -> tuple[Column, str]:
    values = dates(series) if kind == "date" else numbers(name, series)
    empty = np.isnan(values)
    if empty.all():
        return Column(name, "dropped"), "empty in training"
    there = values[~empty]
    constant = bool(np.ptp(there) == 0)
    if constant and not empty.any():
        return Column(name, "dropped"), "constant in training"
    if name.lower() in ROW_NAMES and len(there) > 2 and len(np.unique(there)) == len(values):
        return Column(name, "dropped"), "a name of the row and no property"
    fill = float(np.median(there))
    filled = np.where(empty, fill, values)
    mean, scale = float(filled.mean()), 1.0 if constant else float(filled.std())
    return Column(name, kind, fill, mean, scale, marked=bool(empty.any())), ""


def _fit_category(name: str, series: Any) -> tuple[Column, str]:
    import pandas

    held = pandas.Series(texts(series))
    counts: Any = held.value_counts()
    if len(counts) == 1:
        empty = counts.index[0] == MISSING
        return Column(name, "dropped"), "empty in training" if empty else "constant in training"
    if len(counts) == len(held):
        return Column(name, "dropped"), "different in every row (a name, not a property)"
    # by count, then by name, so that the order of the rows plays no part
    order = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    kept = [str(value) for value, n in order[:MOST] if n >= RARE * len(held)]
    if not kept:
        return Column(name, "dropped"), "every value is rare"
    other = len(kept) < len(counts)
    return Column(name, "category", categories=tuple(sorted(kept)), other=other), ""


def _standardised(count: int) -> str:
    columns = "1 column" if count == 1 else f"{count} columns"
    return f"{columns} of numbers, standardised by the training mean and deviation."


def _listed(names: Sequence[str], noun: str) -> str:
    shown = ", ".join(f'"{name}"' for name in names[:5])
    rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{noun}{'s' * (len(names) > 1)} {shown}{rest}"
