"""Graphs as tensors: who sends to whom, kept in both directions, and what is asked about.

Edges are stored as the rows of a sparse matrix A (CSR): sorted by the node they lead to, so that
``source[rows[i] : rows[i + 1]]`` are the nodes with an edge into i, and A X is a sum over
neighbours. The transpose, which the way back of A X needs, and the norm of a graph convolution are
computed once, when the graph is made (:mod:`deepweave.functional.messages` works with them).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Graph(NamedTuple):
    """One graph, or several side by side that share no edge (a batch), and a question about them.

    ``asked`` says what a model is to answer, one row each: nodes, pairs of nodes, or whole graphs.
    Make it with :func:`graph`; all other fields follow from the edges.

    Shapes: asked (B,) nodes, (B, 2) pairs or (G, 0) whole graphs; x (N, F); rows, back_rows
        (N + 1,); source, target, back, back_target (E,); starts (G + 1,); degree (N,); norm,
        back_norm (E,); weight (E,); edge (E, F_e); edge_type (E,); node_type (N,); all numbers of
        nodes are int64

    >>> one = graph(torch.tensor([[0, 1], [1, 2]]), torch.eye(3))
    >>> one.edges.tolist(), one.ask("nodes").asked.tolist(), one.graphs
    ([[1, 0, 2, 1], [0, 1, 1, 2]], [0, 1, 2], 1)
    """

    asked: Tensor
    x: Tensor
    rows: Tensor  # edges rows[i] to rows[i + 1] lead to node i
    source: Tensor  # where each edge comes from
    target: Tensor  # where it leads to, in ascending order
    back_rows: Tensor  # the transpose: places of the edges that leave node i
    back: Tensor  # the edges in the order of their sources
    back_target: Tensor  # where those lead to
    starts: Tensor  # nodes starts[g] to starts[g + 1] are graph g
    degree: Tensor  # the sum of the weights of the edges into a node (their number without)
    norm: Tensor  # w / sqrt((degree of source + 1) (degree of target + 1))
    back_norm: Tensor  # the same in the order of the sources
    weight: Tensor | None = None
    edge: Tensor | None = None  # features of edges
    edge_type: Tensor | None = None
    node_type: Tensor | None = None

    @property
    def nodes(self) -> int:
        """The number of nodes."""
        return len(self.rows) - 1

    @property
    def graphs(self) -> int:
        """The number of graphs."""
        return len(self.starts) - 1

    @property
    def edges(self) -> Tensor:
        """All edges, (2, E): where they come from, and where they lead to."""
        return torch.stack([self.source, self.target])

    @property
    def member(self) -> Tensor:
        """The number of the graph that each node belongs to, (N,)."""
        return spread(self.starts, self.nodes)

    def to(self, device: torch.device | str) -> Graph:
        """The same graph on a device."""
        return Graph(*[None if part is None else part.to(device) for part in self])  # pyright: ignore[reportArgumentType]

    def ask(self, asked: Tensor | str) -> Graph:
        """The same graph, asked about ``"nodes"`` (all), ``"graphs"`` (all), these nodes or pairs.

        Raises:
            ValueError: another word or shape, or a node that there is not.
        """
        if isinstance(asked, str):
            if asked not in ("nodes", "graphs"):
                raise ValueError(f'ask: expected "nodes", "graphs" or a tensor, got {asked!r}')
            whole = self.source.new_empty(self.graphs, 0)
            every = torch.arange(self.nodes, device=self.source.device)
            return self._replace(asked=every if asked == "nodes" else whole)
        if not (asked.dim() == 1 or (asked.dim() == 2 and asked.shape[1] in (0, 2))):
            raise ValueError(f"ask: nodes must be (B,) and pairs (B, 2), got {tuple(asked.shape)}")
        _indices("ask", "asked", asked, self.nodes)
        return self._replace(asked=asked.long())


def graph(
    edges: Tensor,
    x: Tensor,
    asked: Tensor | str = "graphs",
    *,
    directed: bool = False,
    weight: Tensor | None = None,
    edge: Tensor | None = None,
    edge_type: Tensor | None = None,
    node_type: Tensor | None = None,
    member: Tensor | None = None,
) -> Graph:
    """A graph of its edges and the features of its nodes.

    Undirected edges are given once and lead both ways (a loop leads one way); directed edges lead
    from the first row to the second. Nodes without an edge, and graphs without any, are fine: what
    they get from their neighbours is zero.

    Args:
        edges: pairs of nodes, as columns.
        x: the features of each node.
        asked: what is asked about: ``"graphs"``, ``"nodes"``, or these nodes or pairs of nodes.
        directed: whether edges lead one way only; edges listed in both directions are directed.
        weight: a weight of each edge, not negative.
        edge: features of each edge.
        edge_type: the number of each edge's type, from 0.
        node_type: the number of each node's type, from 0.
        member: the graph that each node belongs to, from 0, in ascending order.

    Shapes: edges (2, E) int64; x (N, F); weight (E,); edge (E, F_e); edge_type (E,); node_type
        (N,); member (N,)

    Raises:
        ValueError: another shape, no node, a node that there is not, an undirected edge given
            twice, a negative weight, an edge between two graphs, a graph without nodes.

    >>> pair = graph(torch.tensor([[0], [1]]), torch.ones(3, 2), asked="nodes")
    >>> pair.degree.tolist()
    [1.0, 1.0, 0.0]
    """
    if x.dim() != 2 or not len(x):
        raise ValueError(f"graph: x must be (N, F) with at least one node, got {tuple(x.shape)}")
    if edges.dim() != 2 or edges.shape[0] != 2:
        raise ValueError(f"graph: edges must be (2, E), got {tuple(edges.shape)}")
    nodes, count = len(x), edges.shape[1]
    _indices("graph", "edges", edges, nodes)
    edges = edges.long()
    for name, value, length in (
        ("weight", weight, count), ("edge_type", edge_type, count), ("node_type", node_type, nodes),
        ("member", member, nodes),
    ):  # fmt: skip
        if value is not None and value.shape != (length,):
            raise ValueError(f"graph: {name} must be ({length},), got {tuple(value.shape)}")
    if edge is not None and (edge.dim() != 2 or len(edge) != count):
        raise ValueError(f"graph: edge must be ({count}, F_e), got {tuple(edge.shape)}")
    if weight is not None and not bool(((weight >= 0) & weight.isfinite()).all()):
        raise ValueError("graph: weight must be finite and not negative")
    for name, types in (("edge_type", edge_type), ("node_type", node_type)):
        if types is not None and (types.is_floating_point() or bool((types < 0).any())):
            raise ValueError(f"graph: {name} must be whole numbers from 0")
    starts = _starts(member, edges, nodes)
    if not directed:
        _refuse_twice(edges, nodes)
        way = torch.cat([torch.arange(count), (edges[0] != edges[1]).nonzero()[:, 0].cpu()])
        way = way.to(edges.device)
        edges = torch.cat([edges, edges.flip(0)[:, way[count:]]], 1)
        weight, edge, edge_type = (None if t is None else t[way] for t in (weight, edge, edge_type))
    made = arranged(edges, x, starts, weight=weight, edge=edge, edge_type=edge_type)
    if node_type is not None:
        made = made._replace(node_type=node_type.long())
    return made.ask(asked)


def arranged(
    edges: Tensor, x: Tensor, starts: Tensor, *, weight: Tensor | None = None,
    edge: Tensor | None = None, edge_type: Tensor | None = None,
) -> Graph:  # fmt: skip
    """A graph of directed edges that are known to be right, without a look at them."""
    nodes = len(x)
    kinds = 1 + int(edge_type.max()) if edge_type is not None and len(edge_type) else 1
    first = edges[1] if edge_type is None else edges[1] * kinds + edge_type
    order = torch.argsort(first * nodes + edges[0])  # by target, within it by type
    source, target = edges[0][order], edges[1][order]
    back = torch.argsort(source, stable=True)
    weight, edge, edge_type = (None if t is None else t[order] for t in (weight, edge, edge_type))
    rows = _pointers(target, nodes)
    kind = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    if weight is None:
        degree = rows.diff().to(kind)
    else:
        weight = weight.to(kind)
        degree = torch.zeros(nodes, dtype=kind, device=x.device).index_add_(0, target, weight)
    root = (degree + 1).rsqrt()
    norm = root[source] * root[target]
    norm = norm if weight is None else norm * weight
    return Graph(
        source.new_empty(len(starts) - 1, 0), x, rows, source, target, _pointers(source, nodes),
        back, target[back], starts, degree, norm, norm[back], weight, edge,
        None if edge_type is None else edge_type.long(),
    )  # fmt: skip


def side_by_side(graphs: list[Graph] | tuple[Graph, ...]) -> Graph:
    """Several graphs as one batch, asked about each whole: their nodes are numbered on.

    Raises:
        ValueError: there is none, or some have what others have not.

    >>> one = graph(torch.tensor([[0], [1]]), torch.ones(2, 1))
    >>> side_by_side([one, one]).edges.tolist()
    [[1, 0, 3, 2], [0, 1, 2, 3]]
    """
    if not graphs:
        raise ValueError("side_by_side: there must be at least one graph")
    kept: dict[str, Any] = {}
    for name in Graph._fields[1:]:
        parts = [getattr(one, name) for one in graphs]
        held = [part for part in parts if part is not None]
        if len(held) not in (0, len(parts)):
            raise ValueError(f"side_by_side: some graphs have {name}, others have not")
        if not held:
            continue
        if name in ("source", "target", "back_target", "starts"):
            held = [t + n for t, n in zip(held, _offsets([one.nodes for one in graphs]))]
        elif name in ("rows", "back_rows", "back"):
            held = [t + n for t, n in zip(held, _offsets([len(one.source) for one in graphs]))]
        if name in ("rows", "back_rows", "starts"):
            held = [held[0], *[part[1:] for part in held[1:]]]
        kept[name] = torch.cat(held)
    asked = kept["source"].new_empty(len(kept["starts"]) - 1, 0)
    return Graph(asked=asked, **kept)


def some_graphs(batch: Graph, index: Tensor) -> Graph:
    """These of the graphs of a batch, in this order, as a batch: by index alone, whatever they are.

    Shapes: index (B,) int64

    >>> one, two = graph(torch.tensor([[0], [1]]), torch.ones(2, 1)), graph(torch.empty(2, 0), \
torch.zeros(1, 1))
    >>> some_graphs(side_by_side([one, two]), torch.tensor([1, 0])).x.flatten().tolist()
    [0.0, 1.0, 1.0]
    """
    index = index.to(batch.starts.device)
    first, sizes = batch.starts[:-1][index], batch.starts.diff()[index]
    starts = _summed(sizes)
    node = ranges(first, sizes)
    begin = batch.rows[batch.starts]  # the first edge of each graph: as many leave as arrive
    edges = begin.diff()[index]
    edge = ranges(begin[:-1][index], edges)
    shift = spread(_summed(edges), len(edge))  # which graph an edge is of
    nodes_by, edges_by = (starts[:-1] - first)[shift], (_summed(edges)[:-1] - begin[index])[shift]

    def at(field: Tensor | None, place: Tensor) -> Tensor | None:
        return None if field is None else field.index_select(0, place)

    return Graph(
        index.new_empty(len(index), 0), batch.x.index_select(0, node),
        _summed(batch.rows.diff()[node]), batch.source[edge] + nodes_by,
        batch.target[edge] + nodes_by, _summed(batch.back_rows.diff()[node]),
        batch.back[edge] + edges_by, batch.back_target[edge] + nodes_by, starts,
        batch.degree[node], batch.norm[edge], batch.back_norm[edge], at(batch.weight, edge),
        at(batch.edge, edge), at(batch.edge_type, edge), at(batch.node_type, node),
    )  # fmt: skip


def ranges(first: Tensor, lengths: Tensor) -> Tensor:
    """The numbers first[i] to first[i] + lengths[i] - 1, end to end.

    >>> ranges(torch.tensor([5, 0]), torch.tensor([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = lengths.cumsum(0)
    size = int(ends[-1]) if len(ends) else 0
    shift = torch.repeat_interleave(first - ends + lengths, lengths, output_size=size)
    return shift + torch.arange(size, device=first.device)


def spread(pointers: Tensor, size: int) -> Tensor:
    """The number of the segment that each place lies in. Shapes: pointers (S + 1,) -> (size,)

    >>> spread(torch.tensor([0, 2, 2, 3]), 3).tolist()
    [0, 0, 2]
    """
    number = torch.arange(len(pointers) - 1, device=pointers.device)
    return torch.repeat_interleave(number, pointers.diff(), output_size=size)


def _summed(sizes: Tensor) -> Tensor:
    return torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])


def _pointers(sorted_or_not: Tensor, count: int) -> Tensor:
    return _summed(torch.bincount(sorted_or_not, minlength=count))


def _offsets(sizes: list[int]) -> list[int]:
    return [0, *torch.tensor(sizes).cumsum(0).tolist()[:-1]]


def _indices(who: str, name: str, index: Tensor, nodes: int) -> None:
    if index.is_floating_point() and index.numel():
        raise ValueError(f"{who}: {name} must be numbers of nodes (int64), got {index.dtype}")
    if index.numel():
        low, high = (int(end) for end in torch.aminmax(index))
        if low < 0 or high >= nodes:
            wrong = low if low < 0 else high
            raise ValueError(f"{who}: {name} must lie in 0..{nodes - 1}, got {wrong}")


def _starts(member: Tensor | None, edges: Tensor, nodes: int) -> Tensor:
    if member is None:
        return torch.tensor([0, nodes], device=edges.device)
    if member.is_floating_point() or int(member[0]) != 0 or bool((member.diff() < 0).any()):
        raise ValueError("graph: member must be graph numbers from 0 in ascending order")
    if bool((member.diff() > 1).any()):
        missing = int(member[:-1][member.diff() > 1][0]) + 1
        raise ValueError(f"graph: graph {missing} has no nodes")
    across = (member[edges[0]] != member[edges[1]]).nonzero()[:, 0]
    if len(across):
        pair = tuple(edges[:, int(across[0])].tolist())
        raise ValueError(f"graph: edge {pair} leads from one graph into another")
    return _pointers(member.long(), int(member[-1]) + 1)


def _refuse_twice(edges: Tensor, nodes: int) -> None:
    codes = (edges.amin(0) * nodes + edges.amax(0)).sort().values
    twice = (codes.diff() == 0).nonzero()[:, 0]
    if len(twice):
        pair = divmod(int(codes[int(twice[0])]), nodes)
        raise ValueError(
            f"graph: the undirected edge {pair} is given twice; give it once, or pass "
            "directed=True where both directions are listed"
        )
