"""Edge lists: a file of edges, perhaps with a table of its nodes beside it.

Each line of ``NAME.edges`` (or ``.edgelist``) names two nodes and perhaps a weight, separated by
spaces, tabs or commas; what follows a ``#`` is a remark. Edges lead both ways, and one that is
listed again, or in the other direction, counts once. ``NAME.nodes.csv`` (or ``.tsv``,
``.parquet``) says what is known of the nodes: their names in the column ``id`` or else the first,
features, and what is to be predicted, empty where it is not known. Without it the question is
which nodes are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepweave.data.columns import kinds
from deepweave.data.dataset import Data
from deepweave.data.formats import checked, read_frame, values
from deepweave.data.graphs import Network, Nodes
from deepweave.data.links import links
from deepweave.data.prepare import Preparation
from deepweave.data.raw import choose
from deepweave.data.split import Split, divide
from deepweave.data.tables import fit_frame
from deepweave.data.targets import decide
from deepweave.functional.graph import Graph, graph
from deepweave.run import derive

ENDINGS = (".edges", ".edgelist")
NODES = (".nodes.csv", ".nodes.tsv", ".nodes.parquet")
MOST = 1024  # nodes that are known by their number alone; of more each has this many / 16 numbers


def network_data(
    path: Path, target: Any, task: str | None, splits: tuple[float, float, float], seed: int
) -> Data:
    """The data set of an edge list: classes or numbers of nodes, or which nodes are joined.

    Raises:
        ValueError: a line that is no edge, a node that the table lacks, nothing to learn from.
    """
    frame = nodes_of(path)
    if frame is None:
        return _joined(path, target, task, splits, seed)
    names, frame = _named(frame, path)
    chosen, said = choose(["the node", *map(str, frame.columns)], target)
    known = frame[chosen].notna().all(axis=1).to_numpy().nonzero()[0]
    if len(known) < 3:
        raise ValueError(f"load: {len(known)} nodes of {path} have a target; three are the least")
    columns = {name: values(frame[name].iloc[known].infer_objects()) for name in chosen}
    columns = {name: _whole(column) for name, column in columns.items()}
    made, told = decide(columns, task=task)
    y = made.encode(columns)
    codes = y if made.task in ("binary", "multiclass") else None
    parts = dict(
        zip(("train", "validation", "test"), divide(len(known), splits, seed, codes), strict=True)
    )
    for part, index in parts.items():
        if not len(index):
            raise ValueError(f"load: {len(known)} nodes are too few: {part} would be empty")
    made = made.fitted(y[parts["train"]])
    given = frame.drop(columns=chosen)
    table, more = None, [f"Each node is known by its number{_numbers(len(frame))}."]
    if len(given.columns):
        learned = given.iloc[known[parts["train"].numpy()]]
        table, more = fit_frame(learned, kinds(given), chosen)
    x = _unknown(len(frame), seed) if table is None else table.inputs(given)
    held = _graph(path, names, x)
    words = ", ".join(f"{len(index)} {part}" for part, index in parts.items())
    cut = (
        f"{held.nodes} nodes, {held.edges.shape[1] // 2} edges; the graph and all features are "
        f"seen in training. {words} nodes of {len(known)} whose target is known, divided with "
        f"seed {seed} before anything was fitted."
    )
    shown = () if table is None else table.names
    features = Network(x.shape[1], "nodes", shown, table)
    preparation = Preparation(features, made, [*said, *told, cut, *more])
    y = made.standardise(y)
    rows = torch.from_numpy(known)
    made_parts = [Split(Nodes(held, rows[index]), y[index]) for index in parts.values()]
    name = path.name.partition(".")[0]
    return Data(
        name, name, str(path), "not stated", preparation.spec, *made_parts, preparation=preparation
    )


def new_nodes(path: Path, network: Network, targets: Sequence[str]) -> tuple[Nodes, Any, list[Any]]:
    """Every node of a new edge list for a trained model: rows, the table's columns, names.

    Raises:
        ValueError: the model answers about other things, or the table of nodes is missing.
    """
    if network.level != "nodes" or network.table is None:
        raise ValueError(
            f"read: {path} holds nodes with features, the model learned from {network.level}"
            + ("" if network.level != "nodes" else " that are known by their number alone")
        )
    frame = nodes_of(path)
    if frame is None:
        raise ValueError(f"read: beside {path} there must be {path.with_suffix(NODES[0]).name}")
    names, frame = _named(frame, path)
    there = [name for name in targets if name in frame.columns]
    x = network.table.inputs(frame.drop(columns=there))
    return Nodes(_graph(path, names, x)), frame, names


def nodes_of(path: Path) -> Any:
    """The table of nodes beside an edge list, or None."""
    for ending in NODES:
        beside = path.with_suffix(ending)
        if beside.is_file():
            return checked(read_frame(beside, _key))
    return None


def read_edges(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The names of both ends of each edge, (E, 2), and the weights if there are any, (E,).

    Raises:
        ValueError: a line that is no edge; it is numbered.
    """
    import pandas

    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"load: {path} is not UTF-8 text: byte {error.start}") from None
    rows = pandas.Series(lines, dtype=object).str.partition("#")[0] if lines else None
    if rows is None or not rows.str.strip().any():
        raise ValueError(f"load: there are no edges in {path}")
    words = rows.str.replace(r"[\s,;]+", " ", regex=True).str.strip().str.split(" ")
    count = words.str.len()
    empty = words.str[0] == ""
    wrong = ~empty & ~count.isin((2, 3))
    if wrong.any():
        at = int(wrong.to_numpy().argmax())
        raise ValueError(
            f"load: line {at + 1} of {path} must be two nodes and perhaps a weight, got "
            f"{lines[at].strip()[:60]!r}"
        )
    words = words[~empty]
    ends = np.stack([words.str[0].to_numpy(str), words.str[1].to_numpy(str)], 1)
    if not (count[~empty] == 3).any():
        return ends, None
    third: Any = pandas.to_numeric(words.str[2], errors="coerce")
    weight = third.to_numpy(float)
    bad = ~(np.isfinite(weight) & (weight >= 0))
    if bad.any():
        at = int(words.index[int(bad.argmax())])
        raise ValueError(
            f"load: line {at + 1} of {path} must end in a weight, finite and not negative, as "
            f"others do, got {lines[at].strip()[:60]!r}"
        )
    return ends, weight


def _graph(path: Path, names: Sequence[str], x: Tensor | None, seed: int = 0) -> Graph:
    """The graph of a file of edges; without names its nodes are those that the edges name."""
    import pandas

    ends, weight = read_edges(path)
    known = pandas.Index(names if len(names) else pandas.unique(ends.ravel()))
    place = torch.from_numpy(known.get_indexer(ends.ravel()).reshape(-1, 2).astype(np.int64))
    lost = (place < 0).any(1)
    if bool(lost.any()):
        pair = ends[int(lost.nonzero()[0])]
        raise ValueError(f"load: {path} joins '{pair[0]}' and '{pair[1]}', but the table of nodes "
                         "does not name both")  # fmt: skip
    low, high = place.amin(1), place.amax(1)
    code = low * len(known) + high
    _, first = np.unique(code.numpy(), return_index=True)  # an edge listed again counts once
    first = torch.from_numpy(np.sort(first))
    edges = torch.stack([low[first], high[first]])
    given = None if weight is None else torch.from_numpy(weight).float()[first]
    return graph(edges, _unknown(len(known), seed) if x is None else x, "nodes", weight=given)


def _joined(
    path: Path, target: Any, task: str | None, splits: tuple[float, float, float], seed: int
) -> Data:
    if target is not None or task is not None:
        raise ValueError(
            f"load: without a table of nodes ({path.with_suffix(NODES[0]).name}) {path} asks which "
            "nodes are joined; leave target= and task= out"
        )
    held = _graph(path, (), None, seed)
    name = path.name.partition(".")[0]
    shares = (splits[0] / 2, splits[1], splits[2])  # the other half carries messages
    made = links(held, shares, seed, name=name, title=f"Which nodes of {name} are joined?",
                 source=str(path))  # fmt: skip
    said = f"Each node is known by its number{_numbers(held.nodes)}."
    form = replace(made.preparation, sentences=[*made.preparation.sentences, said])
    return replace(made, preparation=form)


def _named(frame: Any, path: Path) -> tuple[list[str], Any]:
    """The names of nodes, and the table without them."""
    column = _key(list(frame.columns))
    names = [str(name) for name in frame[column]]
    if frame[column].isna().any() or "" in names or len(set(names)) < len(names):
        raise ValueError(
            f'load: the column "{column}" of the nodes of {path} must name each node once'
        )
    return names, frame.drop(columns=[column])


def _key(columns: list[str]) -> str:
    """The column of the names of nodes."""
    return next((name for name in columns if name.lower() == "id"), columns[0])


def _whole(column: np.ndarray) -> np.ndarray:
    """Numbers that became fractions because other rows are empty, as whole numbers again."""
    whole = column.dtype.kind == "f" and bool((column == np.round(column)).all())
    return column.astype(np.int64) if whole else column


def _unknown(nodes: int, seed: int) -> Tensor:
    """Features of nodes of which nothing is known: their number, or random numbers for many."""
    if nodes <= MOST:
        return torch.eye(nodes)
    random = torch.Generator().manual_seed(derive(seed, "nodes"))
    return torch.randn(nodes, MOST // 16, generator=random)


def _numbers(nodes: int) -> str:
    return " alone" if nodes <= MOST else f" alone, as {MOST // 16} random numbers"
