"""Layers on graphs: each node's features become a function of its own and its neighbours'.

All are called ``layer(graph, x)`` with the features x (N, inputs) of the nodes and give
(N, outputs). They differ in what a message is and how messages are brought together.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.functional.graph import Graph
from deepweave.functional.messages import aggregate, at_source, at_target, by_type, segment_sum
from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.dense import Dense


class GCN(Dense):
    """Graph convolution: y = D^-1/2 (A + I) D^-1/2 x W + b, D the degrees of A + I.

    Shapes: x (N, inputs) -> (N, outputs)
    Source: Kipf & Welling, Semi-supervised classification with graph convolutional networks, 2017.
    """

    def forward(self, graph: Graph, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.out_features < self.in_features:  # a product with A costs by the columns
            return aggregate(graph, F.linear(x, self.weight), "gcn") + self.bias
        return F.linear(aggregate(graph, x, "gcn"), self.weight, self.bias)


class SAGE(nn.Module):
    """Sample and aggregate: y_i = W x_i + V (mean, sum or largest of x_j over neighbours) + b.

    Shapes: x (N, inputs) -> (N, outputs)
    Source: Hamilton, Ying & Leskovec, Inductive representation learning on large graphs, 2017.
    """

    def __init__(self, inputs: int, outputs: int, how: str = "mean", *, gain: float = math.sqrt(2)):
        super().__init__()
        if how not in ("mean", "sum", "max"):
            raise ValueError(f"SAGE: how must be mean, sum or max, got {how!r}")
        self.how = how
        self.own = Dense(inputs, outputs, gain=gain)
        self.near = _plain(inputs, outputs, gain)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        near = self.near.weight
        if near.shape[0] < near.shape[1] and self.how != "max":
            return self.own(x) + aggregate(graph, F.linear(x, near), self.how)
        return self.own(x) + F.linear(aggregate(graph, x, self.how), near)


class GIN(nn.Module):
    """Graph isomorphism network: y_i = MLP((1 + eps) x_i + sum_j x_j), eps learned.

    With features of edges: sum_j relu(x_j + W e_ij), as Hu et al. have it.

    Shapes: x (N, inputs) -> (N, outputs)
    Sources: Xu, Hu, Leskovec & Jegelka, How powerful are graph neural networks?, 2019; Hu et al.,
        Strategies for pre-training graph neural networks, 2020.
    """

    def __init__(
        self, inputs: int, outputs: int, edges: int = 0, *, activation: Activation = "relu",
        gain: float = math.sqrt(2),
    ):  # fmt: skip
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.edge = Dense(edges, inputs, gain=1.0) if edges else None
        inner = Dense(inputs, outputs, gain=gain_of(activation))
        self.mlp = nn.Sequential(
            inner, activation_layer(activation), Dense(outputs, outputs, gain=gain)
        )

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        if self.edge is None:
            near = aggregate(graph, x, "sum")
        else:
            message = (at_source(graph, x) + self.edge(_edge("GIN", graph, self.edge))).relu()
            near = segment_sum(_weighed(graph, message), graph.rows, graph.target)
        return self.mlp(near + (1 + self.eps) * x)


class MPNN(nn.Module):
    """Message passing: m_i = sum_j V g(W_1 x_j + W_2 x_i + W_3 e_ij), y_i = W_4 x_i + m_i + b.

    A message is a network of both ends of an edge and of the edge's own features; its last layer V
    is linear and is taken after the sum, once per node.

    Shapes: x (N, inputs) -> (N, outputs)
    Source: Gilmer et al., Neural message passing for quantum chemistry, 2017.
    """

    def __init__(
        self, inputs: int, outputs: int, edges: int = 0, *, activation: Activation = "relu",
        gain: float = math.sqrt(2),
    ):  # fmt: skip
        super().__init__()
        part = gain_of(activation) / math.sqrt(3 if edges else 2)
        self.near = _plain(inputs, outputs, part)
        self.own = Dense(inputs, outputs, gain=part)
        self.edge = _plain(edges, outputs, part) if edges else None
        self.activation = activation_layer(activation)
        self.message = _plain(outputs, outputs, 1.0)
        self.stay = Dense(inputs, outputs, gain=gain)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        inner = at_source(graph, self.near(x)) + at_target(graph, self.own(x))
        if self.edge is not None:
            inner = inner + self.edge(_edge("MPNN", graph, self.edge))
        message = _weighed(graph, self.activation(inner))
        return self.stay(x) + self.message(segment_sum(message, graph.rows, graph.target))


class RGCN(nn.Module):
    """Relational graph convolution: y_i = W x_i + sum_r V_r (mean of x_j over edges of type r) + b.

    With ``bases`` the matrices share what they are made of: V_r = sum_b a_rb U_b.

    Shapes: x (N, inputs) -> (N, outputs)

    Raises:
        ValueError: no type of edge, or less than one basis.

    Source: Schlichtkrull et al., Modeling relational data with graph convolutional networks, 2018.
    """

    def __init__(
        self, inputs: int, outputs: int, types: int, *, bases: int | None = None,
        gain: float = math.sqrt(2),
    ):  # fmt: skip
        super().__init__()
        if types < 1 or (bases is not None and bases < 1):
            raise ValueError(f"RGCN: types and bases must be at least 1, got {types} and {bases}")
        self.types, self.gain = types, gain
        self.own = Dense(inputs, outputs, gain=gain)
        self.bases = nn.Parameter(torch.empty(bases or types, outputs, inputs))
        self.mix = None if bases is None else nn.Parameter(torch.empty(types, bases))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        spread = self.gain / math.sqrt(self.bases.shape[-1] * self.types)
        nn.init.normal_(self.bases, std=spread)
        if self.mix is not None:
            nn.init.normal_(self.mix, std=1 / math.sqrt(self.mix.shape[1]))

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        weight = self.bases
        if self.mix is not None:
            weight = torch.einsum("rb,boi->roi", self.mix, weight)
        near = by_type(graph, x, self.types)  # (N, types, inputs)
        # one product: the inputs of all types side by side
        return self.own(x) + F.linear(near.flatten(1), weight.movedim(0, 1).flatten(1))


class _Plain(Dense):
    """A dense layer without a bias."""

    def __init__(self, inputs: int, outputs: int, *, gain: float):
        super().__init__(inputs, outputs, gain=gain)
        self.register_parameter("bias", None)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.gain / math.sqrt(self.in_features))


def _plain(inputs: int, outputs: int, gain: float) -> _Plain:
    return _Plain(inputs, outputs, gain=gain)


def _edge(name: str, graph: Graph, layer: nn.Linear) -> Tensor:
    """The features of the edges, which must be as many as the layer was made for."""
    size = layer.in_features
    if graph.edge is None or graph.edge.shape[1] != size:
        found = "none" if graph.edge is None else str(graph.edge.shape[1])
        raise ValueError(f"{name}: needs {size} features at every edge, the graph has {found}")
    return graph.edge


def _weighed(graph: Graph, message: Tensor) -> Tensor:
    return message if graph.weight is None else message * graph.weight.unsqueeze(1)
