"""Link prediction: which pairs of nodes are joined, learned without a look at the answers.

A network that predicts an edge must not pass messages along it, in either direction. So the edges
are divided first, each undirected edge as one:

    messages    the edges of the graph that training sees
    train       asked about in training, no messages
    validation  asked about in validation, held out from all else
    test        the same

Training passes messages along the first part; validation and test along the first two, which are
known by then. Pairs that are joined in no part serve as the other class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deepweave.data.dataset import Data
from deepweave.data.graphs import Network, Pairs
from deepweave.data.prepare import Preparation
from deepweave.data.split import Split
from deepweave.data.targets import Target
from deepweave.functional.graph import Graph, arranged
from deepweave.run import derive

PARTS = ("train", "validation", "test")


def links(
    graph: Graph, shares: tuple[float, float, float] = (0.3, 0.1, 0.2), seed: int = 0, *,
    negatives: float = 1.0, name: str = "links", title: str = "Which nodes are joined?",
    source: str = "a graph in memory", licence: str = "not stated",
) -> Data:  # fmt: skip
    """A data set of pairs of nodes, joined or not, without leakage.

    Args:
        graph: undirected: every edge leads both ways.
        shares: of the edges that training, validation and test ask about; the rest are messages.
        seed: fixes the division and the pairs that are not joined.
        negatives: pairs that are not joined, for each that is.

    Raises:
        ValueError: a directed graph, shares that leave no messages, too few edges, or fewer pairs
            that are not joined than are wanted.

    >>> from deepweave.functional.graph import graph
    >>> ring = torch.stack([torch.arange(20), (torch.arange(20) + 1) % 20])
    >>> data = links(graph(ring, torch.eye(20)))
    >>> len(data.train), len(data.validation), len(data.test), data.train.x.graph.edges.shape[1]
    (12, 4, 8, 16)
    """
    if len(shares) != 3 or min(shares) <= 0 or sum(shares) >= 1:
        raise ValueError(f"links: shares must be three positive parts of 1, got {shares}")
    if negatives <= 0:
        raise ValueError(f"links: negatives must be positive, got {negatives}")
    nodes = graph.nodes
    codes, edge_code = _codes(graph)
    random = torch.Generator().manual_seed(derive(seed, "links"))
    order = codes[torch.randperm(len(codes), generator=random)]
    sizes = [round(share * len(codes)) for share in shares]
    if min(sizes) < 1 or sum(sizes) >= len(codes):
        raise ValueError(f"links: {len(codes)} edges are too few to be divided by {shares}")
    *asked, messages = order.split([*sizes, len(codes) - sum(sizes)])
    wanted = [max(1, round(negatives * size)) for size in sizes]
    apart = unjoined(codes, nodes, sum(wanted), random).split(wanted)
    known = {"train": messages, "validation": torch.cat([messages, asked[0]])}
    known["test"] = known["validation"]
    made: dict[str, Split] = {}
    for part, yes, no in zip(PARTS, asked, apart):
        seen = _only(graph, torch.isin(edge_code, known[part]))
        both = torch.cat([yes, no])
        pairs = torch.stack([both // nodes, both % nodes], 1)
        y = torch.cat([torch.ones(len(yes)), torch.zeros(len(no))]).long()
        made[part] = Split(Pairs(seen, pairs), y)
    words = ", ".join(f"{size} {part}" for size, part in zip(sizes, PARTS))
    sentences = [
        f"{len(codes)} undirected edges, divided with seed {seed}: {words}, {len(messages)} to "
        "pass messages along; validation and test also along those of training.",
        "No edge that is asked about carries a message, in either direction. "
        f"{sum(wanted)} pairs that are joined in no part were drawn as the other class.",
    ]
    features = Network(graph.x.shape[1], "pairs")
    target = Target("binary", ("joined",), ("apart", "joined"), (0, 1))
    preparation = Preparation(features, target, sentences)
    parts = made["train"], made["validation"], made["test"]
    return Data(name, title, source, licence, preparation.spec, *parts, preparation)


def unjoined(codes: Tensor, nodes: int, count: int, random: torch.Generator) -> Tensor:
    """Pairs u < v, as u N + v, that are not among ``codes``: drawn alike, none twice.

    Raises:
        ValueError: there are not so many.
    """
    left = nodes * (nodes - 1) // 2 - len(codes)
    if count > left:
        raise ValueError(f"links: {count} pairs that are not joined are wanted, there are {left}")
    if left < 4 * count or nodes < 200:  # a dense graph: all pairs there are
        ends = torch.triu_indices(nodes, nodes, 1)
        every = ends[0] * nodes + ends[1]
        every = every[~torch.isin(every, codes)]
        return every[torch.randperm(len(every), generator=random)[:count]]
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        ends = torch.randint(0, nodes, (2, 2 * count), generator=random)
        drawn = ends.amin(0) * nodes + ends.amax(0)
        drawn = drawn[(ends[0] != ends[1]) & ~torch.isin(drawn, codes)]
        found = torch.cat([found, drawn]).unique()
    return found[torch.randperm(len(found), generator=random)[:count]]


def _codes(graph: Graph) -> tuple[Tensor, Tensor]:
    """Every undirected edge u < v as u N + v, and that of each directed edge."""
    nodes = graph.nodes
    forth = graph.source * nodes + graph.target
    lost = ~torch.isin(graph.target * nodes + graph.source, forth)
    if bool(lost.any()):
        pair = tuple(graph.edges[:, int(lost.nonzero()[0])].tolist())
        raise ValueError(f"links: the graph must be undirected, but edge {pair} leads one way only")
    each = torch.minimum(graph.source, graph.target) * nodes
    each = each + torch.maximum(graph.source, graph.target)
    return each[graph.source != graph.target].unique(), each


def _only(graph: Graph, kept: Tensor) -> Graph:
    """The graph of some of its edges."""

    def at(field: Tensor | None) -> Tensor | None:
        return None if field is None else field[kept]

    made = arranged(
        graph.edges[:, kept], graph.x, graph.starts, weight=at(graph.weight), edge=at(graph.edge),
        edge_type=at(graph.edge_type),
    )  # fmt: skip
    return made._replace(node_type=graph.node_type)
