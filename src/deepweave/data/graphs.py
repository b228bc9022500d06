"""Collections of graphs, of nodes and of pairs of nodes: rows of a split that are no rectangle.

A batch of :class:`Graphs` is the chosen graphs side by side; of :class:`Nodes` and :class:`Pairs`
it is the whole graph, asked about the chosen rows, or a sampled part of it. Whatever the size of
the batch, it is made by index, without a loop over graphs or nodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from deepweave.data.neighbours import sample
from deepweave.data.spec import Kind
from deepweave.data.tables import Table
from deepweave.functional.graph import Graph, side_by_side, some_graphs


class Graphs:
    """Many graphs, stored side by side; a row is a graph.

    >>> from deepweave.functional.graph import graph
    >>> one = graph(torch.tensor([[0], [1]]), torch.ones(2, 3))
    >>> rows = Graphs([one, one, one])
    >>> len(rows), rows.take(torch.tensor([2, 0])).x.shape, len(rows[1:])
    (3, torch.Size([4, 3]), 2)
    """

    def __init__(self, graphs: Graph | Sequence[Graph]):
        held = graphs if isinstance(graphs, Graph) else side_by_side(list(graphs))
        self.graph = held.ask("graphs")

    def __len__(self) -> int:
        return self.graph.graphs

    def __getitem__(self, index: Any) -> Graphs:
        return Graphs(some_graphs(self.graph, _places(index, len(self))))

    def take(self, index: Tensor) -> Graph:
        """These graphs side by side."""
        return some_graphs(self.graph, index)

    def to(self, device: torch.device | str) -> Graphs:
        """The same graphs on a device."""
        return Graphs(self.graph.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """The fields of all graphs side by side."""
        return _named(self.graph)


class Nodes:
    """Some nodes of one graph; a row is a node.

    A batch is the whole graph asked about its rows. With ``fanouts`` it is a part of the graph: of
    the edges into each asked node at most ``fanouts[0]`` are drawn, of those into their sources at
    most ``fanouts[1]``, and so on, one number for each layer of the network.

    Args:
        graph: the graph.
        index: its nodes that are rows; None: all of them.
        fanouts: how many neighbours to draw, layer by layer from the asked nodes outwards.

    Raises:
        ValueError: a node that there is not, or a fanout below 1.

    >>> from deepweave.functional.graph import graph
    >>> path = graph(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.eye(4))
    >>> Nodes(path, torch.tensor([3, 0])).take(torch.tensor([0])).asked.tolist()
    [3]
    >>> Nodes(path, torch.tensor([3, 0]), fanouts=(1,)).take(torch.tensor([0])).nodes
    2
    """

    def __init__(self, graph: Graph, index: Tensor | None = None, fanouts: Sequence[int] = ()):
        self.graph = graph.ask("nodes" if index is None else index)
        self.index = self.graph.asked
        self.fanouts = tuple(fanouts or ())
        if self.index.dim() != 1:
            raise ValueError(f"Nodes: index must be (N,), got {tuple(self.index.shape)}")
        if any(fanout < 1 for fanout in self.fanouts):
            raise ValueError(f"Nodes: fanouts must be at least 1, got {self.fanouts}")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: Any) -> Nodes:
        return Nodes(self.graph, self.index[_places(index, len(self))], self.fanouts)

    def take(self, index: Tensor) -> Graph:
        """The graph, or a sampled part of it, asked about these rows."""
        asked = self.index[index.to(self.index.device)]
        if self.fanouts:
            return sample(self.graph, asked, self.fanouts)
        return self.graph._replace(asked=asked)

    def to(self, device: torch.device | str) -> Nodes:
        """The same nodes on a device."""
        return Nodes(self.graph.to(device), self.index.to(device), self.fanouts)

    def tensors(self) -> dict[str, Tensor]:
        """The graph's fields; what is asked are the rows."""
        return _named(self.graph)


class Pairs:
    """Some pairs of nodes of one graph; a row is a pair.

    Shapes: pairs (N, 2)

    Raises:
        ValueError: another shape, or a node that there is not.
    """

    def __init__(self, graph: Graph, pairs: Tensor):
        self.graph = graph.ask(pairs)
        self.pairs = self.graph.asked
        if pairs.dim() != 2 or pairs.shape[1] != 2:
            raise ValueError(f"Pairs: pairs must be (N, 2), got {tuple(pairs.shape)}")

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: Any) -> Pairs:
        return Pairs(self.graph, self.pairs[_places(index, len(self))])

    def take(self, index: Tensor) -> Graph:
        """The graph asked about these pairs."""
        return self.graph._replace(asked=self.pairs[index.to(self.pairs.device)])

    def to(self, device: torch.device | str) -> Pairs:
        """The same pairs on a device."""
        return Pairs(self.graph.to(device), self.pairs.to(device))

    def tensors(self) -> dict[str, Tensor]:
        """The graph's fields; what is asked are the rows."""
        return _named(self.graph)


Level = Literal["graphs", "nodes", "pairs"]


@dataclass(frozen=True)
class Network:
    """The preparation of graphs, whose features are used as they are.

    ``level`` says what a row is: a graph, a node, or a pair of nodes. ``table`` is how the
    features were made of a table of nodes, where they were.
    """

    width: int
    level: Level = "graphs"
    names: tuple[str, ...] = ()
    table: Table | None = None
    kind: Kind = "graph"

    @property
    def shape(self) -> tuple[int, ...]:
        """The features of a node."""
        return (self.width,)

    def inputs(self, raw: Any) -> Graphs | Nodes | Pairs:
        """A graph that asks about nodes or pairs, or one or several graphs, as rows.

        Raises:
            TypeError: no graph.
            ValueError: another number of features, or another question.
        """
        if isinstance(raw, Graphs | Nodes | Pairs):
            rows = raw
        elif isinstance(raw, Graph) and self.level == "nodes":
            rows = Nodes(raw, raw.asked if raw.asked.dim() == 1 else None)
        elif isinstance(raw, Graph) and self.level == "pairs":
            rows = Pairs(raw, raw.asked)
        elif isinstance(raw, Graph) or (isinstance(raw, list | tuple) and len(raw)):
            rows = Graphs(raw)
        else:
            raise TypeError(
                f"inputs: expected a Graph, or a list of them, got {type(raw).__name__}"
            )
        if rows.graph.x.shape[1] != self.width:
            raise ValueError(
                f"inputs: nodes must have {self.width} features, got {rows.graph.x.shape[1]}"
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        """The preparation as plain numbers and strings."""
        table = None if self.table is None else self.table.to_json()
        made = {"width": self.width, "level": self.level, "names": list(self.names)}
        return made | {"table": table}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Network:
        """The preparation that ``to_json`` wrote."""
        held = record.get("table")
        table = None if held is None else Table.from_json(held)
        return cls(record["width"], record["level"], tuple(record["names"]), table)


def nearest_graph(x: Tensor, neighbours: int = 8, *, step: int = 1024) -> Tensor:
    """Edges between each row and its nearest others, each undirected edge once.

    Shapes: x (N, F) -> (2, E)

    Raises:
        ValueError: as many neighbours as there are rows, or less than one.

    >>> nearest_graph(torch.tensor([[0.0], [1.0], [5.0]]), 1).tolist()
    [[0, 1], [1, 2]]
    """
    if not 1 <= neighbours < len(x):
        raise ValueError(f"nearest_graph: neighbours must lie in 1..{len(x) - 1}, got {neighbours}")
    found = []
    for low in range(0, len(x), step):
        far = torch.cdist(x[low : low + step], x)
        far[torch.arange(len(far)), torch.arange(low, low + len(far))] = torch.inf
        found.append(far.topk(neighbours, largest=False).indices)
    near = torch.cat(found)
    ends = torch.stack([torch.arange(len(x))[:, None].expand_as(near), near]).flatten(1)
    return torch.stack([ends.amin(0), ends.amax(0)]).unique(dim=1)


def _places(index: Any, count: int) -> Tensor:
    """Row numbers of a slice, a tensor or an array of numbers or truth values."""
    if isinstance(index, slice):
        return torch.arange(count)[index]
    place = torch.as_tensor(index)
    return place.nonzero()[:, 0] if place.dtype == torch.bool else place


def _named(graph: Graph) -> dict[str, Tensor]:
    parts = zip(graph._fields, graph)
    return {name: part for name, part in parts if part is not None and part.numel()}
