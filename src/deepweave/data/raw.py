"""Raw data before any split: the rows, the target's columns, and how files become them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deepweave.data import images
from deepweave.data.formats import array, arrays, checked, nearest, values
from deepweave.data.molecules import fields_of, read_sdf
from deepweave.data.ragged import Ragged
from deepweave.data.sequences import gathered

if TYPE_CHECKING:
    import pandas

TARGETS = ("target", "label", "class", "y")
PARTS = ("train", "validation", "test")


@dataclass
class Raw:
    """Rows as they come and their target: a table, an array, images, texts, sequences, molecules.

    ``tokens`` says that the rows are texts, and what counts as a token of them.

    ``parts`` holds row numbers of splits that the source itself makes; a missing validation or
    test split is cut from its training rows.
    """

    rows: Any
    target: dict[str, np.ndarray]
    name: str
    title: str
    source: str
    licence: str = "not stated"
    columns: tuple[str, ...] = ()  # names of the columns of an array
    classes: tuple[str, ...] = ()
    unit: str = ""
    parts: dict[str, np.ndarray] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)
    tokens: str | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: np.ndarray) -> Any:
        """Some of the rows."""
        if isinstance(self.rows, list):
            return [self.rows[place] for place in index.tolist()]
        return self.rows.iloc[index] if hasattr(self.rows, "iloc") else self.rows[index]


def from_frame(
    frame: pandas.DataFrame, target: Any, name: str, source: str, tokens: str | None = None
) -> Raw:
    """A table with its target among the columns; with ``tokens`` its one column of text."""
    frame = checked(frame)
    chosen, said = choose([str(column) for column in frame.columns], target)
    columns = {column: values(frame[column]) for column in chosen}
    if tokens is not None:
        rows = texts(frame, chosen)
        return Raw(rows, columns, name, name, source, sentences=said, tokens=tokens)
    return Raw(frame.drop(columns=chosen), columns, name, name, source, sentences=said)


def texts(frame: pandas.DataFrame, targets: Sequence[str]) -> np.ndarray:
    """The one column of text of a table, beside its targets.

    Raises:
        ValueError: there is none, or there are several.
    """
    others = [column for column in frame.columns if column not in targets]
    held = [
        column for column in others if all(isinstance(one, str) for one in values(frame[column]))
    ]
    if len(held) != 1:
        known = ", ".join(map(str, held)) or "none"
        raise ValueError(
            f"load: tokens= needs one column of text in every row, there is {known}; "
            "leave the others out"
        )
    return frame[held[0]].to_numpy(dtype=object)


def from_arrays(
    x: Any, y: Any, target: Any, name: str, source: str, tokens: str | None = None
) -> Raw:
    """Arrays or tensors of inputs and targets; or a list of sequences, or of strings."""
    columns = _targets(y, target)
    rows: Any
    if hasattr(x, "columns"):
        rows, names = checked(x), ()
    elif isinstance(x, Ragged):
        rows, names = x, ()
    elif isinstance(x, list | tuple) and len(x) and isinstance(x[0], str):
        rows, names, tokens = np.asarray(x, dtype=object), (), tokens or "words"
    elif isinstance(x, list | tuple) and len(x) and np.ndim(x[0]) == 2 and tokens is None:
        rows, names = gathered(x), ()
    else:
        rows, names = _inputs(x)
    length = len(next(iter(columns.values())))
    if len(rows) != length:
        raise ValueError(f"load: x and y must be of one length, got {len(rows)} and {length}")
    return Raw(rows, columns, name, name, source, columns=names, tokens=tokens)


def from_npz(path: Path, target: Any) -> Raw:
    """Arrays of a ``.npz``: x and y, or train_x, train_y, test_x, test_y, validation_x, ..."""
    held = arrays(path)
    extra = {key: tuple(map(str, held.pop(key, ()))) for key in ("classes", "features")}
    present = [part for part in PARTS if f"{part}_x" in held]
    prefixes = [f"{part}_" for part in present] if "train" in present else [""]
    lost = [key for prefix in prefixes for key in (prefix + "x", prefix + "y") if key not in held]
    if lost:
        raise ValueError(
            f"load: {path} must hold x and y, or train_x, train_y and more, it lacks {lost[0]}; "
            f"it holds {', '.join(sorted(held)) or 'nothing'}"
        )
    raws = []
    for prefix in prefixes:
        x, y = held[prefix + "x"], held[prefix + "y"]
        if prefix + "lengths" in held:
            x = Ragged(torch.from_numpy(x), torch.from_numpy(held[prefix + "lengths"]))
        raws.append(from_arrays(x, y, target, path.stem, str(path)))
    shapes = {_shape(raw.rows)[1:] for raw in raws}
    if len(shapes) > 1:
        told = ", ".join(f"{prefix}x {_shape(raw.rows)}" for prefix, raw in zip(prefixes, raws))
        raise ValueError(f"load: {path} has samples of different shapes: {told}")
    joined = raws[0]
    if len(raws) > 1:
        ends = np.cumsum([len(raw) for raw in raws])
        joined.parts = {
            part: np.arange(end - len(raw), end) for part, end, raw in zip(present, ends, raws)
        }
        joined.rows = _joined([raw.rows for raw in raws])
        joined.target = {
            column: np.concatenate([raw.target[column] for raw in raws]) for column in joined.target
        }
    joined.classes = extra["classes"]
    if extra["features"] and joined.columns:
        if len(extra["features"]) != len(joined.columns):
            raise ValueError(
                f"load: {path} names {len(extra['features'])} features, "
                f"but x has {len(joined.columns)} columns"
            )
        joined.columns = extra["features"]
    return joined


def _shape(rows: Any) -> tuple[int, ...]:
    values = rows.values if isinstance(rows, Ragged) else rows
    return tuple(values.shape)


def _joined(parts: list[Any]) -> Any:
    if not isinstance(parts[0], Ragged):
        return np.concatenate(parts)
    values, lengths = ([getattr(part, name) for part in parts] for name in ("values", "lengths"))
    return Ragged(torch.cat(values), torch.cat(lengths))


def from_sdf(path: Path, target: Any) -> Raw:
    """Molecules and one or several of their fields, as the target; the other fields are left out.

    Raises:
        ValueError: molecules that cannot be read, or none of whose fields is in all of them.
    """
    import pandas

    held = read_sdf(path)
    frame = fields_of(held)
    chosen, said = choose(["structure", *map(str, frame.columns)], target)
    columns = {name: values(pandas.Series(frame[name])) for name in chosen}
    name = path.name.partition(".")[0]
    return Raw(held, columns, name, name, str(path), sentences=said)


def from_folder(folder: Path) -> Raw:
    """Images in one folder per class, with or without folders train, validation and test."""
    paths: list[Path] = []
    labels: list[str] = []
    parts: dict[str, np.ndarray] = {}
    for part, inner in images.parts(folder).items():
        classes = images.by_class(inner)
        if part == "train" and len(classes) == 1:
            raise ValueError(
                f"load: {inner} has one class folder only ({next(iter(classes))}); "
                "at least two are needed to learn from"
            )
        start = len(paths)
        for label, found in classes.items():
            paths += found
            labels += [label] * len(found)
        parts[part] = np.arange(start, len(paths))
    target = {"class": np.asarray(labels, dtype=object)}
    name = folder.resolve().name
    own = parts if len(parts) > 1 else {}
    return Raw(paths, target, name, name, str(folder), parts=own)


def choose(names: list[str], target: Any) -> tuple[list[str], list[str]]:
    """The target's columns, and a sentence when they were not named."""
    if len(names) < 2:
        raise ValueError(
            f"load: a table needs a column to learn from and a target, got {len(names)} column"
        )
    if target is None:
        lowered = {name.lower(): name for name in reversed(names)}
        usual = [lowered[name] for name in TARGETS if name in lowered]
        chosen = usual[0] if usual else names[-1]
        why = "by its name" if usual else "the last column"
        return [chosen], [f'The target is "{chosen}", {why}.']
    chosen = [target] if isinstance(target, str) else [str(name) for name in target]
    for name in chosen:
        if name not in names:
            raise ValueError(f'load: the target "{name}" is not a column{nearest(name, names)}')
    if not chosen or len(chosen) == len(names):
        raise ValueError("load: target must name some, but not all, of the columns")
    return chosen, []


def _inputs(x: Any) -> tuple[np.ndarray, tuple[str, ...]]:
    rows = array(x)
    if rows.ndim < 2:
        raise ValueError(
            f"load: x must be (N, D) or images, got {rows.shape}; for one column give x[:, None]"
        )
    if rows.dtype.kind not in "biuf":
        raise ValueError(f"load: x must be numbers, got {rows.dtype}; give text as a DataFrame")
    if rows.dtype.kind == "f":
        wrong = ~np.isfinite(rows.reshape(len(rows), int(np.prod(rows.shape[1:])))).all(axis=1)
        if wrong.any():
            raise ValueError(
                f"load: x has NaN or Inf in {int(wrong.sum())} of {len(rows)} rows, the first is "
                f"row {int(np.argmax(wrong)) + 1}; mend them, or give a DataFrame to fill NaN"
            )
    names = tuple(f"x{place}" for place in range(rows.shape[1])) if rows.ndim == 2 else ()
    return rows, names


def _targets(y: Any, target: Any) -> dict[str, np.ndarray]:
    named = [target] if isinstance(target, str) else list(target or ())
    if hasattr(y, "columns"):
        return {str(column): values(y[column]) for column in y.columns}
    if hasattr(y, "to_numpy"):
        return {str(y.name or "y"): values(y)}
    held = array(y)
    if held.ndim == 2 and held.shape[1] == 1:
        held = held[:, 0]
    if held.ndim == 1:
        return {named[0] if named else "y": held}
    if held.ndim == 3 and held.dtype.kind in "biu":
        return {named[0] if named else "mask": held}
    if held.ndim != 2 or held.shape[1] == 0:
        raise ValueError(
            "load: y must be (N,) or (N, T), or masks (N, H, W) of whole numbers, "
            f"got {held.shape} of {held.dtype}"
        )
    names = named if len(named) == held.shape[1] else [f"y{i}" for i in range(held.shape[1])]
    return {name: held[:, place] for place, name in enumerate(names)}
