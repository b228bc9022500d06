"""Graph networks: layers of messages between neighbours, and what is asked read off at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.graph import Graph
from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.dense import Dense, sizes_of
from deepweave.nn.dropout import Dropout
from deepweave.nn.graph import GCN, GIN, MPNN, RGCN, SAGE
from deepweave.nn.neighbours import GAT, GraphTransformer
from deepweave.nn.readout import POOLS, GraphNorm, Readout

KINDS = ("gcn", "sage", "gat", "gatv1", "gin", "mpnn", "transformer", "rgcn")
EDGED = ("gat", "gatv1", "gin", "mpnn", "transformer")  # that take features of edges
NORMS: dict[str | None, Any] = {
    None: None, "layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "graph": GraphNorm
}  # fmt: skip


class Block(nn.Module):
    """One layer of a graph network: messages, norm, activation, dropout, and the way around it."""

    def __init__(
        self, layer: nn.Module, norm: nn.Module | None, activation: nn.Module,
        dropout: nn.Module, residual: bool,
    ):  # fmt: skip
        super().__init__()
        self.layer, self.norm = layer, norm
        self.activation, self.dropout, self.residual = activation, dropout, residual

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        found = self.layer(graph, x)
        if isinstance(self.norm, GraphNorm):
            found = self.norm(graph, found)
        elif self.norm is not None:
            found = self.norm(found)
        found = self.dropout(self.activation(found))
        return x + found if self.residual else found


class Enter(nn.Module):
    """The first layer where nodes have types: each type its own weights, y_i = W_t(i) x_i + b_t(i).

    Shapes: x (N, inputs) -> (N, outputs)
    """

    def __init__(self, inputs: int, outputs: int, types: int):
        super().__init__()
        self.types = types
        self.dense = Dense(inputs, outputs * types, gain=1.0)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        if graph.node_type is None:
            raise ValueError("gnn: the nodes of this graph have no types: give node_type=")
        every = self.dense(x).unflatten(1, (self.types, -1))
        index = graph.node_type.view(-1, 1, 1).expand(-1, 1, every.shape[2])
        return every.gather(1, index).squeeze(1)


class GNN(nn.Module):
    """A stack of layers on a graph and a readout; made by :func:`gnn`.

    Shapes: a Graph that asks B things -> (B, outputs)
    """

    def __init__(self, inputs: int, enter: nn.Module | None, blocks: Sequence[nn.Module],
                 readout: Readout):  # fmt: skip
        super().__init__()
        self.inputs, self.enter = inputs, enter
        self.blocks = nn.ModuleList(blocks)
        self.readout = readout

    def encode(self, graph: Graph) -> Tensor:
        """The features of every node after the last layer, (N, hidden[-1])."""
        if not isinstance(graph, Graph):
            raise TypeError(f"gnn: the input must be a Graph, got {type(graph).__name__}")
        if graph.x.shape[1] != self.inputs:
            raise ValueError(f"gnn: nodes must have {self.inputs} features, got {graph.x.shape[1]}")
        x = graph.x if self.enter is None else self.enter(graph, graph.x)
        for block in self.blocks:
            x = block(graph, x)
        return x

    def forward(self, graph: Graph) -> Tensor:
        return self.readout(graph, self.encode(graph))


@blueprint
def gnn(
    sizes: Any,
    hidden: Sequence[int] = (64, 64),
    kind: str = "gcn",
    *,
    heads: int = 4,
    edges: int = 0,
    edge_types: int = 0,
    node_types: int = 0,
    pool: str = "mean",
    norm: str | None = None,
    activation: Activation = "relu",
    dropout: float = 0.0,
    residual: bool = False,
) -> GNN:
    """A graph network; the same for questions about nodes, pairs of nodes and whole graphs.

    h_0 = x, h_l = dropout(g(norm(layer_l(graph, h_(l-1))))), and what is asked is read off h_L by a
    dense layer. With L layers a node knows what is at most L edges away.

    Args:
        sizes: a data spec of graphs, or (features of a node, outputs).
        hidden: the width of each layer.
        kind: gcn, sage, gat (version 2), gatv1, gin, mpnn, transformer (whose layers have their
            own norms and paths around), or rgcn (which needs edge_types).
        heads: of gat and transformer; the widths must be multiples of it.
        edges: features of each edge, for gat, gin, mpnn and transformer.
        edge_types, node_types: how many types of edges (rgcn) and of nodes there are.
        pool: of whole graphs: sum, mean, max, attention or topk.
        norm: None, "layer", "batch" or "graph".
        residual: add a layer's input to its output where the widths agree.

    Shapes: a Graph that asks B things -> (B, outputs)

    Raises:
        ValueError: an unknown name, a width below 1 or no multiple of the heads, features of edges
            for a kind that takes none.

    >>> import torch
    >>> from deepweave.functional.graph import graph
    >>> ring = graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.ones(3, 4))
    >>> net = gnn((4, 2), hidden=(8,), kind="sage")
    >>> net(ring).shape, net(ring.ask("nodes")).shape, net(ring.ask(torch.tensor([[0, 1]]))).shape
    (torch.Size([1, 2]), torch.Size([3, 2]), torch.Size([1, 2]))
    """
    shape, outputs = sizes_of(sizes, "gnn")
    if len(shape) != 1:
        raise ValueError(f"gnn: sizes must be ((features of a node,), outputs), got {shape}")
    if not hidden or not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(f"gnn: hidden must be widths of at least 1, got {tuple(hidden)}")
    for name, value, known in (("kind", kind, KINDS), ("norm", norm, NORMS), ("pool", pool, POOLS)):
        if value not in known:
            words = ", ".join(map(str, known))
            raise ValueError(f"gnn: {name} must be one of {words}, got {value!r}")
    if edges and kind not in EDGED:
        raise ValueError(f"gnn: {kind} takes no features of edges; take {', '.join(EDGED)}")
    if (kind == "rgcn") != bool(edge_types):
        raise ValueError(f"gnn: edge_types is for rgcn, which needs it; got {kind}, {edge_types}")
    width, enter = shape[0], None
    if node_types:
        enter, width = Enter(width, hidden[0], node_types), hidden[0]
    blocks: list[nn.Module] = []
    for size in hidden:
        layer = _layer(kind, width, size, heads, edges, edge_types, activation, dropout)
        if kind == "transformer":
            blocks.append(layer)
        else:
            made = None if norm is None else NORMS[norm](size)
            drop = Dropout(dropout) if dropout else nn.Identity()
            way = residual and size == width
            blocks.append(Block(layer, made, activation_layer(activation), drop, way))
        width = size
    return GNN(shape[0], enter, blocks, Readout(width, outputs, pool))


def _layer(
    kind: str, inputs: int, outputs: int, heads: int, edges: int, types: int,
    activation: Activation, dropout: float,
) -> nn.Module:  # fmt: skip
    gain = gain_of(activation)
    made: dict[str, Any] = {
        "gcn": lambda: GCN(inputs, outputs, gain=gain),
        "sage": lambda: SAGE(inputs, outputs, gain=gain / 2**0.5),
        "gat": lambda: GAT(inputs, outputs, heads, edges=edges, gain=gain),
        "gatv1": lambda: GAT(inputs, outputs, heads, edges=edges, dynamic=False, gain=gain),
        "gin": lambda: GIN(inputs, outputs, edges, activation=activation, gain=gain),
        "mpnn": lambda: MPNN(inputs, outputs, edges, activation=activation, gain=gain / 2**0.5),
        "transformer": lambda: GraphTransformer(
            inputs, outputs, heads, edges=edges, dropout=dropout, activation=activation
        ),
        "rgcn": lambda: RGCN(inputs, outputs, types, gain=gain / 2**0.5),
    }
    return made[kind]()
