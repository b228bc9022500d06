"""A part of a large graph around some nodes: what a network needs for their answers, or a draw."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepweave.functional.graph import Graph, arranged, ranges


def sample(graph: Graph, asked: Tensor, fanouts: Sequence[int]) -> Graph:
    """The graph of drawn edges around the asked nodes, asked about them.

    From each asked node go back along at most ``fanouts[0]`` of the edges into it, drawn without
    replacement, each as likely; from the nodes found so along at most ``fanouts[1]``, and so on.
    A node has its edges drawn once. Draws are torch's: seeded and resumed with everything else.

    Shapes: asked (B,)
    Source: Hamilton, Ying & Leskovec, Inductive representation learning on large graphs, 2017.

    >>> from deepweave.functional.graph import graph
    >>> star = graph(torch.tensor([[0] * 5, [1, 2, 3, 4, 5]]), torch.ones(6, 1))
    >>> sample(star, torch.tensor([0]), (3,)).degree.tolist()
    [3.0, 0.0, 0.0, 0.0]
    """
    seen = torch.zeros(graph.nodes, dtype=torch.bool, device=asked.device)
    front = asked.unique()
    parts = []
    for fanout in fanouts:
        seen[front] = True
        parts.append(drawn_edges(graph, front, fanout))
        sources = graph.source[parts[-1]].unique()
        front = sources[~seen[sources]]
        if not len(front):
            break
    seen[front] = True
    edge = torch.cat(parts)
    kept = seen.nonzero()[:, 0]
    number = torch.empty_like(graph.rows[1:])
    number[kept] = torch.arange(len(kept), device=kept.device)

    def at(field: Tensor | None, place: Tensor) -> Tensor | None:
        return None if field is None else field[place]

    ends = torch.stack([number[graph.source[edge]], number[graph.target[edge]]])
    starts = torch.tensor([0, len(kept)], device=kept.device)
    made = arranged(
        ends, graph.x[kept], starts, weight=at(graph.weight, edge), edge=at(graph.edge, edge),
        edge_type=at(graph.edge_type, edge),
    )  # fmt: skip
    return made._replace(asked=number[asked], node_type=at(graph.node_type, kept))


def drawn_edges(graph: Graph, nodes: Tensor, fanout: int) -> Tensor:
    """At most ``fanout`` of the edges into each node, without replacement: their numbers.

    Where a node has more, they are drawn by Floyd's method, all nodes at once: its j-th draw is
    uniform over one more edge than the one before, and takes that last edge where the draw was
    had already. The work does not depend on how many edges a node has.

    Shapes: nodes (M,) -> (at most M fanout,)
    """
    first, count = graph.rows[:-1][nodes], graph.rows.diff()[nodes]
    few = count <= fanout
    whole = ranges(first[few], count[few])
    first, count = first[~few], count[~few]
    drawn = torch.empty(len(first), fanout, dtype=torch.int64, device=nodes.device)
    for j in range(fanout):
        last = count - fanout + j
        pick = (
            torch.rand(len(first), device=nodes.device, dtype=torch.float64) * (last + 1)
        ).long()
        had = (drawn[:, :j] == pick[:, None]).any(1)
        drawn[:, j] = torch.where(had, last, pick)
    return torch.cat([whole, (drawn + first[:, None]).flatten()])


def around(graph: Graph, asked: Tensor, hops: int) -> Graph:
    """Everything within ``hops`` edges back from the asked nodes, nothing drawn.

    A network of as many layers gives the same answers on it as on the whole graph, but for layers
    that look at the degree of a node at its rim (gcn: take one hop more).
    """
    most = max(1, int(graph.rows.diff().max())) if graph.nodes else 1
    return sample(graph, asked, (most,) * hops)
