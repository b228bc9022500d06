"""Load a data set: by name, from a file or a folder, or from what is in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepweave.data import edges, images, sequences, tables
from deepweave.data.columns import kinds
from deepweave.data.dataset import Data
from deepweave.data.formats import arrays, checked, nearest, read_frame, values
from deepweave.data.graphs import Network
from deepweave.data.molecules import Molecule, Molecules, fields_of, read_sdf
from deepweave.data.named import NAMED
from deepweave.data.pieces import pieces, published
from deepweave.data.prepare import Preparation
from deepweave.data.ragged import Ragged
from deepweave.data.raw import (
    PARTS,
    Raw,
    from_arrays,
    from_folder,
    from_frame,
    from_npz,
    from_sdf,
    texts,
)
from deepweave.data.rows import Rows, count
from deepweave.data.split import Split, divide
from deepweave.data.targets import decide, one_column
from deepweave.data.text import fit
from deepweave.data.tokens import pairs, stream

if TYPE_CHECKING:
    import pandas

TABLES = (".csv", ".tsv", ".parquet")
MOLECULES = (".sdf", ".sdf.xz")
FILES = (*TABLES, ".npz", ".txt", *MOLECULES, *edges.ENDINGS)


def load(
    source: str | os.PathLike[str] | pandas.DataFrame | tuple[Any, Any],
    *,
    target: str | Sequence[str] | None = None,
    task: str | None = None,
    splits: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    limit: int | None = None,
    tokens: str | None = None,
    vocabulary: int = 8000,
    context: int = 128,
) -> Data:
    """A data set in three splits, prepared by what its training rows say.

    ``source`` is a name (see ``names()``), a path (``.csv``, ``.tsv``, ``.parquet``, ``.npz``, a
    folder of images by class, a ``.txt`` to be continued, molecules in a ``.sdf``, an edge list
    ``.edges`` with or without a table of nodes beside it), a DataFrame, or a pair ``(x, y)`` of
    arrays or tensors; x may be a list of sequences (T, F) or of strings. Without
    ``target`` a table's target is the column target, label, class or y, else the last. Without
    ``task`` the target decides. Rows are divided by ``splits``, class by class, before anything
    is fitted; a set with its own test split keeps it. ``limit`` takes at most so many rows.

    Of texts ``tokens`` says what counts as one: words, characters, symbols (between spaces) or
    byte-pairs; a table then gives its column of text. ``vocabulary`` is how many there are at
    most, ``context`` how many a window of a ``.txt`` has. ``tokens="minilm"``, or the path of a
    ``tokenizer.json``, takes a published tokenizer with all its vocabulary.

    Shapes: train.x ``(N, *spec.shape)`` float32; see ``Split`` for y.

    Raises:
        FileNotFoundError: the path does not exist, or a named set is not on this machine.
        ValueError: the data cannot be learned from; the message says where and what to do.
        TypeError: ``source`` is of no known kind.
        ImportError: the format needs a package that is not installed.

    >>> data = load("digits", limit=300)
    >>> data.spec.shape, len(data.train), len(data.validation), len(data.test)
    ((1, 8, 8), 210, 45, 45)
    """
    if len(splits) != 3 or min(splits) <= 0 or abs(sum(splits) - 1) > 1e-6:
        raise ValueError(f"load: splits must be three positive shares of 1, got {splits}")
    if limit is not None and limit < 3:
        raise ValueError(f"load: limit must be at least 3, one row for each split, got {limit}")
    if _is(source, edges.ENDINGS):
        _exists(Path(source))  # type: ignore[arg-type]
        if tokens is not None or limit is not None:
            raise ValueError("load: a graph comes whole, and has no texts: no limit=, no tokens=")
        return edges.network_data(Path(source), target, task, splits, seed)  # type: ignore[arg-type]
    opened = _opened(source)
    if opened.keys() & {"whole", "text", "pairs"}:
        if target is not None or task is not None:
            raise ValueError(f'load: "{source}" has its own target; leave target= and task= out')
        known = {name: opened[name] for name in ("name", "title", "source", "licence")}
        if "whole" in opened:
            return opened["whole"](known, seed=seed, limit=limit)
        if "text" in opened:
            text = opened["text"] if limit is None else opened["text"][: limit * context]
            how = tokens or opened.get("tokens", "characters")
            return stream(text, known, how=how, size=vocabulary, context=context, splits=splits)
        ways = (tokens, tokens) if tokens else opened["tokens"]
        options: dict[str, Any] = {"splits": splits, "seed": seed, "limit": limit}
        return pairs(opened["pairs"], known, ways=ways, size=vocabulary, **options)
    if opened and target is not None:
        raise ValueError(f'load: "{source}" has its own target; leave target= out')
    raw = Raw(**opened) if opened else _open(source, target, tokens)
    if raw.tokens is None and tokens is not None:
        raise ValueError(f"load: tokens= is for texts, which {raw.source} does not hold")
    raw.tokens = tokens or raw.tokens
    return _build(raw, task, splits, seed, limit, vocabulary)


def read(
    path: str | os.PathLike[str] | pandas.DataFrame, preparation: Preparation
) -> tuple[Rows, Tensor | None, list[Any]]:
    """New rows for a trained model: inputs, targets if they are there, and a name for each row.

    A table's rows are named by a column of names where training left one out as such, else by
    their number from 1; images by their path within the folder. Targets are as in a ``Split``.

    Shapes: x ``(N, *spec.shape)`` float32; y as ``Split.y`` or None; N names.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: the file does not fit the preparation, or has no rows.
    """
    raw: Any
    columns: dict[str, np.ndarray] = {}
    ids: list[Any] = []
    target = preparation.target
    if hasattr(path, "columns"):
        raw, where = checked(path), "the table"  # type: ignore[arg-type]
    else:
        where = Path(path)  # type: ignore[arg-type]
        _exists(where)
        ending = where.suffix.lower()
        if where.is_dir() or ending in images.ENDINGS:
            _fits(preparation, "image", where)
            raw = images.files(where) if where.is_dir() else [where]
            base = where if where.is_dir() else where.parent
            ids = [file.relative_to(base).as_posix() for file in raw]
            labels = [name.rpartition("/")[0] for name in ids]
            if labels and set(labels) <= set(target.classes):
                columns = {target.names[0]: np.asarray(labels, dtype=object)}
        elif ending == ".npz":
            held = arrays(where)
            if "x" not in held:
                raise ValueError(f"read: {where} must hold x, got {', '.join(held) or 'nothing'}")
            raw = (
                Ragged(*map(torch.from_numpy, (held["x"], held["lengths"])))
                if "lengths" in held
                else held["x"]
            )
            if "y" in held and target.task == "segmentation":
                columns = {target.names[0]: held["y"]}
            elif "y" in held:
                y = held["y"].reshape(len(held["y"]), -1)
                columns = {name: y[:, place] for place, name in enumerate(target.names)}
        elif ending in TABLES:
            _fits(preparation, "text" if preparation.kind == "text" else "table", where)
            raw = checked(read_frame(where))
        elif _is(where, MOLECULES):
            _fits(preparation, "graph", where)
            if not isinstance(preparation.features, Molecules):
                raise ValueError(f"read: the model learned from graphs, {where} holds molecules")
            raw = read_sdf(where)
            found = fields_of(raw)
            if all(name in found.columns for name in target.names):
                columns = {name: values(found[name]) for name in target.names}
            ids = [one.name for one in raw]
            ids = ids if all(ids) and len(set(ids)) == len(ids) else []
        elif _is(where, edges.ENDINGS):
            _fits(preparation, "graph", where)
            if not isinstance(preparation.features, Network):
                raise ValueError(f"read: the model learned from molecules, {where} holds edges")
            raw, found, ids = edges.new_nodes(where, preparation.features, target.names)
            if all(name in found.columns and found[name].notna().all() for name in target.names):
                columns = {name: values(found[name]) for name in target.names}
        elif ending == ".txt":
            _fits(preparation, "text", where)
            raw = [line for line in _text(where).splitlines() if line.strip()]
        else:
            raise ValueError(_unknown("read", where))
    if len(raw) == 0:
        raise ValueError(f"read: there are no rows in {where}")
    if hasattr(raw, "columns"):
        if all(name in raw.columns and raw[name].notna().any() for name in target.names):
            columns = {name: values(raw[name]) for name in target.names}
        ids = _names(raw, preparation)
        if preparation.kind == "text":
            raw = texts(raw, target.names)
    x = preparation.inputs(raw)
    y = target.standardise(target.encode(columns)) if columns else None
    return x, y, ids or list(range(1, count(x) + 1))


def names() -> tuple[str, ...]:
    """The named sets that ``load`` knows.

    >>> "digits" in names()
    True
    """
    return tuple(NAMED)


def _text(path: Path) -> str:
    _exists(path)
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"load: {path} is not UTF-8 text: byte {error.start}") from None


def _opened(source: Any) -> dict[str, Any]:
    """What a named set or a text file holds, and what is known of it; empty for all else."""
    if isinstance(source, str) and source in NAMED:
        return NAMED[source].opened()
    if not isinstance(source, str | os.PathLike) or Path(source).suffix.lower() != ".txt":
        return {}
    path = Path(source)
    known = {"name": path.stem, "title": path.stem, "source": str(path), "licence": "not stated"}
    return {**known, "text": _text(path)}


def _open(source: Any, target: Any, tokens: str | None = None) -> Raw:
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        # a bare word that is no file: more likely a name than a path
        word = isinstance(source, str) and path.name == source.strip() and not path.suffix
        if word and not path.exists():
            raise ValueError(
                f'load: "{source}" is neither a named set nor a file'
                f"{nearest(str(source), NAMED) or '; named are ' + ', '.join(NAMED)}"
            )
        _exists(path)
        if path.is_dir():
            if target is not None:
                raise ValueError("load: the target of a folder is its class folders; leave it out")
            return from_folder(path)
        if path.suffix.lower() == ".npz":
            return from_npz(path, target)
        if _is(path, MOLECULES):
            return from_sdf(path, target)
        if path.suffix.lower() in TABLES:
            return from_frame(read_frame(path), target, path.stem, str(path), tokens)
        raise ValueError(_unknown("load", path))
    if hasattr(source, "columns"):
        return from_frame(source, target, "table", "a DataFrame in memory", tokens)
    if isinstance(source, tuple | list) and len(source) == 2:
        return from_arrays(source[0], source[1], target, "arrays", "arrays in memory", tokens)
    raise TypeError(
        "load: source must be a name, a path, a DataFrame or a pair (x, y), "
        f"got {type(source).__name__}"
    )


def _build(
    raw: Raw,
    task: str | None,
    splits: tuple[float, float, float],
    seed: int,
    limit: int | None,
    vocabulary: int = 8000,
) -> Data:
    whole = len(raw)
    if whole == 0:
        raise ValueError(f"load: there are no rows in {raw.source}")
    if task == "multiclass" and len(raw.target) > 1:
        raw.target = one_column(raw.target)
    learned = raw.parts.get("train", np.arange(whole))
    target, said = decide(
        {name: column[learned] for name, column in raw.target.items()},
        task=task,
        classes=raw.classes,
        unit=raw.unit,
    )
    y = target.encode(raw.target)
    codes = y if target.task in ("binary", "multiclass") else None
    if codes is not None and limit is None:
        _refuse_single(codes[learned], target.classes, target.names[0])
    parts = _divided(raw, codes, splits, seed, limit)
    target = target.fitted(y[parts["train"]])
    y = target.standardise(y)
    rows = raw.take(parts["train"].numpy())
    if raw.tokens is not None:
        model = published(raw.tokens)
        if model is None:
            features, more = fit(rows, raw.tokens, vocabulary)
        else:
            features, more = pieces(rows, model, raw.tokens)
    elif isinstance(raw.rows, Ragged):
        features, more = sequences.fit(rows, raw.columns)
    elif isinstance(raw.rows, list) and isinstance(raw.rows[0], Molecule):
        features, more = Molecules.fit(rows)
    elif isinstance(raw.rows, list):
        features, more = images.fit_files(rows)
    elif hasattr(raw.rows, "columns"):
        features, more = tables.fit_frame(rows, kinds(raw.rows), target.names)
    elif raw.rows.ndim == 2:
        features, more = tables.fit_array(rows, raw.columns, target.names)
    else:
        features, more = images.fit_array(rows)
    told = ", ".join(f"{len(parts[part])} {part}" for part in PARTS)
    how = "by class" if codes is not None else "at random"
    own = [part for part in ("validation", "test") if part in raw.parts]
    cut = f"{told} rows, divided {how} with seed {seed} before anything was fitted"
    cut += f"; {' and '.join(own)} as the source has it." if own else "."
    preparation = Preparation(features, target, [*raw.sentences, *said, cut, *more])
    made = {
        part: Split(preparation.inputs(raw.take(index.numpy())), y[index])
        for part, index in parts.items()
    }
    return Data(
        raw.name, raw.title, raw.source, raw.licence, preparation.spec, **made,
        preparation=preparation,
    )  # fmt: skip


def _divided(
    raw: Raw, codes: Tensor | None, splits: Sequence[float], seed: int, limit: int | None
) -> dict[str, Tensor]:
    """Row numbers of the three splits: the source's own where it has them, else cut here."""
    own = {part: torch.from_numpy(index) for part, index in raw.parts.items()}
    own = own or {"train": torch.arange(len(raw))}
    if limit is not None and limit < len(raw):
        share = limit / len(raw)
        own = {part: _cut(index, codes, (share, 1 - share), seed)[0] for part, index in own.items()}
    cut = ["train", *[part for part in PARTS if part not in own]]
    if len(cut) > 1:
        shares = [splits[PARTS.index(part)] for part in cut]
        fractions = tuple(share / sum(shares) for share in shares)
        own |= dict(zip(cut, _cut(own["train"], codes, fractions, seed)))
    for part in PARTS:
        if len(own[part]) == 0:
            raise ValueError(f"load: {len(raw)} rows are too few: the {part} split would be empty")
    return {part: own[part] for part in PARTS}


def _cut(
    index: Tensor, codes: Tensor | None, fractions: tuple[float, ...], seed: int
) -> list[Tensor]:
    held = None if codes is None else codes[index]
    return [index[part] for part in divide(len(index), fractions, seed, held)]


def _refuse_single(codes: Tensor, classes: Sequence[str], name: str) -> None:
    alone = (torch.bincount(codes, minlength=len(classes)) == 1).nonzero().flatten().tolist()
    if alone:
        raise ValueError(
            f'load: class "{classes[alone[0]]}" of target "{name}" has one row only, which cannot '
            "be both learned and tested; leave it out or join it with another class"
        )


def _names(frame: Any, preparation: Preparation) -> list[Any]:
    if isinstance(preparation.features, tables.Table):
        for column in preparation.features.columns:
            if column.kind == "dropped" and column.name in frame.columns:
                named = frame[column.name]
                if named.notna().all() and named.is_unique and len(named) > 1:
                    return named.tolist()
    return list(range(1, len(frame) + 1))


def _fits(preparation: Preparation, kind: str, where: Path) -> None:
    if preparation.kind != kind:
        raise ValueError(
            f"read: the model learned from {preparation.kind}s, but {where} holds {kind}s"
        )


def _is(source: Any, endings: Sequence[str]) -> bool:
    """Whether a source is a path with one of these endings."""
    return isinstance(source, str | os.PathLike) and str(source).lower().endswith(tuple(endings))


def _exists(path: Path) -> None:
    if not path.exists():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        hint = nearest(path.name, [other.name for other in beside])
        raise FileNotFoundError(f"load: there is no file or folder {path}{hint}")


def _unknown(who: str, path: Path) -> str:
    return (
        f'{who}: cannot tell what {path} is from its ending "{path.suffix}"; '
        f"known are {', '.join(FILES)} and folders of images"
    )
