"""Files and arrays as they are read: tables of text, parquet, npz; checked, but not prepared."""

from __future__ import annotations

import csv
import difflib
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    import pandas


def read_frame(path: Path, key: Callable[[list[str]], str] | None = None) -> pandas.DataFrame:
    """A ``.csv``, ``.tsv`` or ``.parquet`` file as a DataFrame.

    The column that ``key`` chooses of all names stays the text that is written: "007" and "NA".

    Raises:
        ValueError: no header, two columns of one name, rows of different lengths, no UTF-8.
        ImportError: ``.parquet`` without pyarrow.
    """
    import pandas

    if path.suffix.lower() == ".parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ImportError(
                'data.load: reading .parquet needs pyarrow: pip install "deepweave[parquet]"'
            ) from None
        try:
            return pandas.read_parquet(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"load: cannot read {path}: {_line(error)}") from None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            if not first.strip():
                raise ValueError(f"load: {path} is empty")
            mark = "\t" if path.suffix.lower() == ".tsv" else ","
            if mark not in first and ";" in first:
                mark = ";"
            names = [name.strip() for name in next(csv.reader([first], delimiter=mark))]
        _unlike(names, str(path))
        if all(_number(name) for name in names):
            raise ValueError(
                f"load: the first line of {path} must name the columns, got {first.strip()[:60]}"
            )
        options: dict[str, Any] = {
            "sep": mark,
            "index_col": False,
            "skipinitialspace": True,
            "encoding": "utf-8-sig",
        }
        with warnings.catch_warnings():
            # rows longer than the header would otherwise lose values with a warning only
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = pandas.read_csv(
                path,
                decimal="," if mark == ";" else ".",
                na_values=["?"],
                low_memory=False,
                **options,
            )
        if key is not None:  # read by itself: a converter's "NA" would be a missing value again
            at = names.index(key(names))
            text = pandas.read_csv(path, usecols=[at], dtype=str, na_filter=False, **options)
            frame[frame.columns[at]] = text.iloc[:, 0].str.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"load: {path} is not UTF-8 text: {error.reason}") from None
    except (pandas.errors.ParserError, pandas.errors.ParserWarning) as error:
        raise ValueError(f"load: cannot read {path}: {_line(error)}") from None
    return frame


def arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` file; objects, which would need pickle, are refused."""
    try:
        # opened here, since numpy leaves the file of a broken archive open
        with path.open("rb") as raw:
            held = np.load(raw, allow_pickle=False)
            if isinstance(held, np.ndarray):
                raise ValueError("it is one array, not a .npz")
            return {key: held[key] for key in held.files}
    except Exception as error:  # a broken archive raises many kinds
        raise ValueError(f"load: cannot read {path}: {_line(error)}") from None


def checked(frame: pandas.DataFrame) -> pandas.DataFrame:
    """A DataFrame with its columns' names as stripped text, no two alike, rows from 0."""
    frame = frame.reset_index(drop=True)
    frame.columns = [str(name).strip() for name in frame.columns]
    _unlike(list(frame.columns), "the table")
    return frame


def values(series: Any) -> np.ndarray:
    """A column as a numpy array of numbers or truth values, or of objects for text."""
    from pandas.api import types

    whole = not series.isna().any()
    if types.is_bool_dtype(series.dtype) and whole:
        return series.to_numpy(dtype=bool)
    if types.is_integer_dtype(series.dtype) and whole:
        return series.to_numpy(dtype=np.int64)
    if types.is_numeric_dtype(series.dtype) and not types.is_bool_dtype(series.dtype):
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return series.to_numpy(dtype=object)


def nearest(word: str, words: Iterable[str]) -> str:
    """``; did you mean "..."?`` for a word that is not among ``words``, or nothing."""
    lowered = {other.lower(): other for other in words}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    return f'; did you mean "{lowered[close[0]]}"?' if close else ""


def array(value: Any) -> np.ndarray:
    """A tensor, list or array as a numpy array."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype.itemsize == 2 else value).numpy()
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError("load: x and y must be regular arrays, got rows of lengths") from None


def _unlike(names: Sequence[str], where: str) -> None:
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise ValueError(f'load: {where} has two columns named "{twice[0]}"')


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
