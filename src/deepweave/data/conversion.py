"""Graphs from and to networkx and PyG. Neither is imported before it is used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from deepweave.functional.graph import Graph, graph


def from_networkx(
    network: Any, features: Sequence[str] | None = None, *, weight: str | None = None,
    edge: Sequence[str] = (), edge_type: str | None = None,
) -> Graph:  # fmt: skip
    """A graph of networkx, its nodes numbered in networkx's order.

    Args:
        network: a Graph, DiGraph or their Multi forms.
        features: names of the nodes' attributes, each a number or a list of them; None: each node
            is known by its number alone, x is the identity matrix.
        weight: the name of the edges' attribute that is their weight.
        edge: names of the edges' attributes that are features.
        edge_type: the name of the edges' attribute that is their type, a number from 0.

    Raises:
        ValueError: no node, or a node or an edge lacks an attribute.

    >>> import networkx
    >>> from_networkx(networkx.path_graph(3)).edges.tolist()
    [[1, 0, 2, 1], [0, 1, 1, 2]]
    """
    nodes = list(network)
    if not nodes:
        raise ValueError("from_networkx: the graph has no nodes")
    number = {node: i for i, node in enumerate(nodes)}
    x = torch.eye(len(nodes))
    if features is not None:
        x = _rows([network.nodes[node] for node in nodes], features, nodes, "node")
    ends = [(u, v) for u, v, *_ in network.edges]
    held = [attributes for *_, attributes in network.edges(data=True)]
    pairs = torch.tensor([[number[u], number[v]] for u, v in ends], dtype=torch.int64)
    given: dict[str, Any] = {}
    if weight is not None:
        given["weight"] = _rows(held, [weight], ends, "edge")[:, 0]
    if edge:
        given["edge"] = _rows(held, edge, ends, "edge")
    if edge_type is not None:
        given["edge_type"] = _rows(held, [edge_type], ends, "edge")[:, 0].long()
    pairs = pairs.view(-1, 2).T
    if not network.is_directed() and network.is_multigraph():  # edges given twice are meant so
        once = (pairs[0] != pairs[1]).nonzero()[:, 0]
        way = torch.cat([torch.arange(pairs.shape[1]), once])
        pairs = torch.cat([pairs, pairs.flip(0)[:, once]], 1)
        given = {name: part[way] for name, part in given.items()}
        return graph(pairs, x, directed=True, **given)
    return graph(pairs, x, directed=network.is_directed(), **given)


def to_networkx(held: Graph, *, directed: bool | None = None) -> Any:
    """A graph of networkx: nodes 0 to N-1 with ``x``, edges with weight, edge and edge_type.

    Undirected (None: where every edge leads both ways) the two ways of an edge become one.

    >>> import networkx
    >>> sorted(to_networkx(from_networkx(networkx.path_graph(3))).edges)
    [(0, 1), (1, 2)]
    """
    import networkx

    if directed is None:
        codes = held.source * held.nodes + held.target
        back = held.target * held.nodes + held.source
        directed = not torch.equal(codes.sort().values, back.sort().values)
    network = networkx.DiGraph() if directed else networkx.Graph()
    network.add_nodes_from((i, {"x": row}) for i, row in enumerate(held.x.tolist()))
    names = [name for name in ("weight", "edge", "edge_type") if getattr(held, name) is not None]
    columns = [getattr(held, name).tolist() for name in names]
    for u, v, *parts in zip(held.source.tolist(), held.target.tolist(), *columns):
        network.add_edge(u, v, **dict(zip(names, parts)))
    return network


def from_pyg(data: Any, asked: Tensor | str | None = None) -> Graph:
    """A graph of PyG's ``Data`` or ``Batch`` (or anything with the same attributes).

    Read are ``edge_index``, ``x``, ``edge_attr``, ``edge_weight``, ``edge_type``, ``node_type`` and
    ``batch``. Edges are as they are listed, one way each. Without ``x`` each node is known by its
    number. ``asked`` is as in :func:`deepweave.functional.graph.graph`; None: the graphs.

    Raises:
        ValueError: no edge_index, or neither x nor num_nodes.
    """
    edges = getattr(data, "edge_index", None)
    if edges is None:
        raise ValueError(f"from_pyg: {type(data).__name__} has no edge_index")
    x = getattr(data, "x", None)
    if x is None:
        count = getattr(data, "num_nodes", None)
        if count is None:
            raise ValueError(f"from_pyg: {type(data).__name__} has neither x nor num_nodes")
        x = torch.eye(int(count))
    x = x if x.dim() == 2 else x.reshape(len(x), -1)
    edge = getattr(data, "edge_attr", None)
    edge = edge if edge is None or edge.dim() == 2 else edge.reshape(len(edge), -1)
    weight = getattr(data, "edge_weight", None)
    return graph(
        edges, x if x.is_floating_point() else x.float(), "graphs" if asked is None else asked,
        directed=True, weight=None if weight is None else weight.reshape(-1),
        edge=edge if edge is None or edge.is_floating_point() else edge.float(),
        edge_type=getattr(data, "edge_type", None), node_type=getattr(data, "node_type", None),
        member=getattr(data, "batch", None),
    )  # fmt: skip


def to_pyg(held: Graph) -> Any:
    """PyG's ``Data`` with edge_index, x, edge_attr, edge_weight, edge_type, node_type and batch.

    Raises:
        ImportError: PyG is not installed.
    """
    try:
        from torch_geometric.data import Data  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("to_pyg: needs PyG: pip install torch_geometric") from None
    parts = {
        "edge_attr": held.edge, "edge_weight": held.weight, "edge_type": held.edge_type,
        "node_type": held.node_type, "batch": held.member if held.graphs > 1 else None,
    }  # fmt: skip
    some = {name: part for name, part in parts.items() if part is not None}
    return Data(x=held.x, edge_index=held.edges, **some)


def _rows(held: list[Any], names: Sequence[str], who: list[Any], what: str) -> Tensor:
    """Attributes as numbers, one row for each node or edge."""
    rows = []
    for attributes, name_of in zip(held, who):
        row: list[float] = []
        for name in names:
            if name not in attributes:
                raise ValueError(f"from_networkx: {what} {name_of!r} has no {name!r}")
            value = attributes[name]
            row += list(value) if isinstance(value, list | tuple) else [value]
        rows.append(row)
    if len({len(row) for row in rows}) > 1:
        raise ValueError(f"from_networkx: the {what}s' attributes are of different lengths")
    return torch.tensor(rows, dtype=torch.float32).view(len(rows), -1 if rows else len(names))
