"""Attention between neighbours: each node decides how much each of its neighbours counts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepweave.functional.graph import Graph
from deepweave.functional.messages import (
    at_source,
    at_target,
    attention,
    attention_weights,
    edge_dots,
)
from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.dense import Dense
from deepweave.nn.dropout import Dropout
from deepweave.nn.graph import _edge, _plain


class GAT(nn.Module):
    """Graph attention: y_i = sum_j p_ij V x_j, over the neighbours of i and i itself.

    p_ij = softmax_j(s_ij), each head with its own. Dynamic (version 2, the default):
    s_ij = a . leaky(V x_j + U x_i + W e_ij), which can prefer other neighbours for other i;
    static (version 1): s_ij = leaky(a . V x_j + b . V x_i + c . W e_ij), where all nodes rank
    their neighbours alike. For itself a node has no features of an edge. Heads stand side by side.

    Args:
        heads: must divide ``outputs``.
        edges: features of each edge.
        dynamic: version 2, else version 1.
        slope: of the leaky ReLU, below 0.

    Shapes: x (N, inputs) -> (N, outputs)

    Raises:
        ValueError: heads that do not divide the outputs.

    Sources: Veličković et al., Graph attention networks, 2018; Brody, Alon & Yahav, How attentive
        are graph attention networks?, 2022.
    """

    def __init__(
        self, inputs: int, outputs: int, heads: int = 4, *, edges: int = 0, dynamic: bool = True,
        slope: float = 0.2, gain: float = math.sqrt(2),
    ):  # fmt: skip
        super().__init__()
        _divides("GAT", heads, outputs)
        self.heads, self.dynamic, self.slope = heads, dynamic, slope
        self.value = _plain(inputs, outputs, gain)
        self.query = _plain(inputs, outputs, gain) if dynamic else None
        self.edge = _plain(edges, outputs, gain) if edges else None
        count = 1 if dynamic else 3 if edges else 2
        self.score = nn.Parameter(torch.empty(count, heads, outputs // heads))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.normal_(self.score, std=1 / math.sqrt(self.score.shape[-1]))
        nn.init.zeros_(self.bias)

    def scores(self, graph: Graph, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (N, heads, D), and the scores of edges (E, heads) and of nodes for themselves."""
        values = self._heads(self.value(x))
        edge = None
        if self.edge is not None:
            edge = self._heads(self.edge(_edge("GAT", graph, self.edge)))
        leaky = nn.functional.leaky_relu
        if self.query is None:
            sent, met = (values * self.score[0]).sum(-1), (values * self.score[1]).sum(-1)
            inner = at_source(graph, sent) + at_target(graph, met)
            if edge is not None:
                inner = inner + (edge * self.score[2]).sum(-1)
            return values, leaky(inner, self.slope), leaky(sent + met, self.slope)
        query = self._heads(self.query(x))
        inner = at_source(graph, values) + at_target(graph, query)
        inner = inner if edge is None else inner + edge
        both = [leaky(one, self.slope) * self.score[0] for one in (inner, values + query)]
        return values, both[0].sum(-1), both[1].sum(-1)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        values, scores, own = self.scores(graph, x)
        return attention(graph, scores, values, own).flatten(1) + self.bias

    def weights(self, graph: Graph, x: Tensor) -> tuple[Tensor, Tensor]:
        """How much each edge counts, (E, heads), and each node for itself, (N, heads)."""
        _, scores, own = self.scores(graph, x)
        return attention_weights(graph, scores, own)  # pyright: ignore[reportReturnType]

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1))


class GraphTransformer(nn.Module):
    """A transformer layer whose attention is between neighbours.

    z = x + O attention(norm x), y = z + MLP(norm z), with the scores
    s_ij = q_i . k_j / sqrt(D) + W e_ij over the neighbours of i and i itself. Where inputs and
    outputs differ, x is brought to the
    outputs' width first.

    Shapes: x (N, inputs) -> (N, outputs)

    Raises:
        ValueError: heads that do not divide the outputs.

    Source: Dwivedi & Bresson, A generalization of transformer networks to graphs, 2021 (here with
        the norm first).
    """

    whole = True  # has its own activation, norm and residual path

    def __init__(
        self, inputs: int, outputs: int, heads: int = 4, *, edges: int = 0, dropout: float = 0.0,
        activation: Activation = "gelu",
    ):  # fmt: skip
        super().__init__()
        _divides("GraphTransformer", heads, outputs)
        self.heads = heads
        self.enter = Dense(inputs, outputs, gain=1.0) if inputs != outputs else nn.Identity()
        self.first, self.second = nn.LayerNorm(outputs), nn.LayerNorm(outputs)
        self.ends = Dense(outputs, 3 * outputs, gain=1.0)  # query, key, value
        self.edge = Dense(edges, heads, gain=1.0) if edges else None
        self.out = Dense(outputs, outputs, gain=1.0)
        self.mlp = nn.Sequential(
            Dense(outputs, 2 * outputs, gain=gain_of(activation)),
            activation_layer(activation),
            Dense(2 * outputs, outputs, gain=1.0),
        )
        self.dropout = Dropout(dropout) if dropout else nn.Identity()

    def scores(self, graph: Graph, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values (N, heads, D), and the scores of edges (E, heads) and of nodes for themselves."""
        query, key, values = self.ends(self.first(x)).unflatten(1, (3, self.heads, -1)).unbind(1)
        query = query / math.sqrt(query.shape[-1])
        scores = edge_dots(graph, query, key)
        if self.edge is not None:
            scores = scores + self.edge(_edge("GraphTransformer", graph, self.edge))
        return values, scores, (query * key).sum(-1)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        x = self.enter(x)
        values, scores, own = self.scores(graph, x)
        x = x + self.dropout(self.out(attention(graph, scores, values, own).flatten(1)))
        return x + self.dropout(self.mlp(self.second(x)))

    def weights(self, graph: Graph, x: Tensor) -> tuple[Tensor, Tensor]:
        """How much each edge counts, (E, heads), and each node for itself, (N, heads)."""
        _, scores, own = self.scores(graph, self.enter(x))
        return attention_weights(graph, scores, own)  # pyright: ignore[reportReturnType]


def _divides(name: str, heads: int, outputs: int) -> None:
    if heads < 1 or outputs % heads:
        raise ValueError(f"{name}: heads must divide the outputs, got {heads} and {outputs}")
