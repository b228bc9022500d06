"""Messages along the edges of a graph: sums over neighbours, and what differs from edge to edge.

A sum over neighbours is the sparse product A X. No array of E x F
numbers is made of it (:mod:`deepweave.functional.bags`). The way back is the product with A^T,
whose rows the graph keeps:

    y_i = sum_(j -> i) w_ij x_j            dx_j = sum_(j -> i) w_ij dy_i

Every function here is its own kind on the way back, so that it can be differentiated twice. Under
``vmap`` members go beside the features: n members cost one product with n F columns; they must
share the graph.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.functional.bags import Attend, Dots, Gather, Largest, Product, Sum, like
from deepweave.functional.graph import Graph, spread


def aggregate(graph: Graph, x: Tensor, how: str = "sum") -> Tensor:
    """What each node gets from its neighbours.

    sum: sum_j w_ij x_j;  mean: sum_j w_ij x_j / sum_j w_ij;  max: max_j x_j, element by element;
    gcn: sum_j w_ij x_j / sqrt((d_i + 1)(d_j + 1)) + x_i / (d_i + 1), d the degrees. Without
    weights w = 1; max leaves them out. A node without neighbours gets 0 (gcn: its own x).

    Shapes: x (N, ...) -> (N, ...)

    Raises:
        ValueError: another ``how``, or as many rows as there are no nodes.

    Source of gcn: Kipf & Welling, Semi-supervised classification with graph convolutional
    networks, 2017.

    >>> from deepweave.functional.graph import graph
    >>> path = graph(torch.tensor([[0, 1], [1, 2]]), torch.ones(3, 1))
    >>> aggregate(path, torch.tensor([[1.0], [2.0], [4.0]]), "mean").flatten().tolist()
    [2.0, 2.5, 2.0]
    """
    _fits("aggregate", graph, x)
    if how == "max":
        return segment_max(at_source(graph, x), graph.rows, graph.target)
    if how == "gcn":
        own = 1 / (graph.degree + 1)
        return product(graph, x, graph.norm, graph.back_norm, own)
    if how not in ("sum", "mean"):
        raise ValueError(f"aggregate: how must be sum, mean, max or gcn, got {how!r}")
    weight = graph.weight
    back = None if weight is None else weight[graph.back]
    found = product(graph, x, weight, back)
    if how == "mean":
        share = torch.where(graph.degree > 0, 1 / graph.degree, 0)
        found = found * like(share, found)
    return found


def product(
    graph: Graph, x: Tensor, weight: Tensor | None = None, back_weight: Tensor | None = None,
    own: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A X + diag(own) X for fixed weights of the edges; ``back_weight`` is ``weight[graph.back]``.

    Shapes: x (N, ...), weight and back_weight (E,), own (N,) -> (N, ...)
    """
    structure = (graph.source, graph.rows, graph.back_target, graph.back_rows)
    return Product.apply(x, weight, back_weight, own, *structure)  # pyright: ignore[reportReturnType]


def by_type(graph: Graph, x: Tensor, types: int) -> Tensor:
    """The mean over the neighbours that each type of edge leads from, type by type.

    Shapes: x (N, ...) -> (N, types, ...)

    Raises:
        ValueError: the edges have no types, or one beyond ``types``.
    """
    _fits("by_type", graph, x)
    if graph.edge_type is None:
        raise ValueError("by_type: the edges of this graph have no types: give edge_type=")
    if len(graph.edge_type) and int(graph.edge_type.max()) >= types:
        raise ValueError(
            f"by_type: edge types must lie in 0..{types - 1}, got {int(graph.edge_type.max())}"
        )
    place = graph.target * types + graph.edge_type  # ascending: edges are sorted by both
    count = torch.bincount(place, minlength=graph.nodes * types)
    rows = F.pad(count.cumsum(0), (1, 0))
    share = (1 / count.to(graph.degree.dtype))[place]
    back = graph.back
    found: Any = Product.apply(
        x, share, share[back], None, graph.source, rows, place[back], graph.back_rows
    )
    return found.view(graph.nodes, types, *found.shape[1:])


def at_source(graph: Graph, x: Tensor) -> Tensor:
    """The rows of the nodes that edges come from. Shapes: x (N, ...) -> (E, ...)"""
    return Gather.apply(x, graph.source, graph.back, graph.back_rows)  # pyright: ignore[reportReturnType]


def at_target(graph: Graph, x: Tensor) -> Tensor:
    """The rows of the nodes that edges lead to. Shapes: x (N, ...) -> (E, ...)"""
    return Gather.apply(x, graph.target, None, graph.rows)  # pyright: ignore[reportReturnType]


def attend(graph: Graph, share: Tensor, x: Tensor) -> Tensor:
    """Sums over neighbours whose weights are computed: y_ih = sum_(j -> i) share_ijh x_jh.

    Shapes: share (E, *heads), x (N, *heads, D) -> (N, *heads, D)
    """
    return Attend.apply(share, x, *_structure(graph))  # pyright: ignore[reportReturnType]


def edge_dots(graph: Graph, query: Tensor, key: Tensor) -> Tensor:
    """Products of both ends of each edge: s_ijh = query_ih . key_jh for j -> i.

    Shapes: query, key (N, *heads, D) -> (E, *heads)
    """
    return Dots.apply(query, key, *_structure(graph))  # pyright: ignore[reportReturnType]


def attention(graph: Graph, scores: Tensor, values: Tensor, own: Tensor | None = None) -> Tensor:
    """Means over neighbours weighted by the softmax of the scores: y_i = sum_j p_ij v_j.

    p_ij = exp(s_ij) / sum_j' exp(s_ij'), over the edges into i. With ``own`` scores each node is a
    neighbour of itself. A node with nobody to attend to gets 0.

    Shapes: scores (E, *heads), values (N, *heads, D), own (N, *heads) -> (N, *heads, D)
    """
    top = largest(scores, graph.rows)
    if own is not None:
        top = torch.maximum(top, own.detach())
    risen = (scores - top.index_select(0, graph.target)).exp()
    total = segment_sum(risen, graph.rows, graph.target)
    # divided after the sum, node by node: there are far fewer nodes than edges
    found = attend(graph, risen, values)
    if own is not None:
        risen_own = (own - top).exp()
        return (found + risen_own.unsqueeze(-1) * values) / (total + risen_own).unsqueeze(-1)
    return found / torch.where(total > 0, total, 1).unsqueeze(-1)


def attention_weights(
    graph: Graph, scores: Tensor, own: Tensor | None = None
) -> tuple[Tensor, Tensor | None]:
    """The weights of :func:`attention`: of every edge, and of each node for itself.

    Shapes: scores (E, *heads), own (N, *heads) -> (E, *heads) and (N, *heads)
    """
    top = largest(scores, graph.rows)
    top = top if own is None else torch.maximum(top, own.detach())
    risen = (scores - at_target(graph, top)).exp()
    total = segment_sum(risen, graph.rows, graph.target)
    if own is None:
        return risen / at_target(graph, total), None
    itself = (own - top).exp()
    return risen / at_target(graph, total + itself), itself / (total + itself)


def segment_sum(values: Tensor, pointers: Tensor, place: Tensor | None = None) -> Tensor:
    """The sum over each segment of rows; an empty one gives 0.

    Segment s is rows ``pointers[s]`` to ``pointers[s + 1]``; ``place`` is the segment of each row,
    where it is known.

    Shapes: values (M, ...), pointers (S + 1,) -> (S, ...)

    >>> segment_sum(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 1, 1, 3])).tolist()
    [1.0, 0.0, 5.0]
    """
    return Sum.apply(values, None, pointers, _place(values, pointers, place))  # pyright: ignore[reportReturnType]


def segment_mean(values: Tensor, pointers: Tensor, place: Tensor | None = None) -> Tensor:
    """The mean over each segment of rows; an empty one gives 0.

    Shapes: values (M, ...), pointers (S + 1,) -> (S, ...)
    """
    count = pointers.diff().clamp_min(1).to(values.dtype)
    found = segment_sum(values, pointers, place)
    return found / like(count, found)


def segment_max(values: Tensor, pointers: Tensor, place: Tensor | None = None) -> Tensor:
    """The largest of each segment, element by element; an empty one gives 0.

    Equal largest values share the slope, as in ``torch.amax``.

    Shapes: values (M, ...), pointers (S + 1,) -> (S, ...)
    """
    place = _place(values, pointers, place)
    top = largest(values, pointers)
    hit = values == top.index_select(0, place)
    count = segment_sum(hit.to(values.dtype), pointers, place)
    share = torch.where(hit, values / count.index_select(0, place), 0)
    return segment_sum(share, pointers, place)


def segment_softmax(scores: Tensor, pointers: Tensor, place: Tensor | None = None) -> Tensor:
    """Softmax over each segment: p_e = exp(s_e) / sum_(e' in its segment) exp(s_e').

    Shapes: scores (M, ...), pointers (S + 1,) -> (M, ...)

    >>> segment_softmax(torch.zeros(3), torch.tensor([0, 1, 3])).tolist()
    [1.0, 0.5, 0.5]
    """
    place = _place(scores, pointers, place)
    top = largest(scores, pointers)
    risen = (scores - top.index_select(0, place)).exp()
    total = segment_sum(risen, pointers, place)
    # at least 1 where there is a row: its own largest is exp(0)
    return risen / Gather.apply(total, place, None, pointers)


def largest(values: Tensor, pointers: Tensor) -> Tensor:
    """The largest of each segment as numbers to compare with, without a slope."""
    return Largest.apply(values.detach(), pointers)  # pyright: ignore[reportReturnType]


def _place(values: Tensor, pointers: Tensor, place: Tensor | None) -> Tensor:
    return spread(pointers, len(values)) if place is None else place


def _structure(graph: Graph) -> tuple[Tensor, ...]:
    return (graph.source, graph.rows, graph.target, graph.back_target, graph.back_rows, graph.back)


def _fits(name: str, graph: Graph, x: Tensor) -> None:
    if len(x) != graph.nodes:
        raise ValueError(f"{name}: x must be ({graph.nodes}, ...), got {tuple(x.shape)}")
