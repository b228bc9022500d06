"""From the features of nodes to answers: of nodes, of pairs, or of whole graphs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepweave.functional.graph import Graph
from deepweave.functional.messages import (
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)
from deepweave.nn.dense import Dense

POOLS = ("sum", "mean", "max", "attention", "topk")


class Pool(nn.Module):
    """One row for each graph, of the rows of its nodes.

    sum, mean, max: of each feature; attention: sum_i p_i x_i with p the softmax of w . x_i over
    the graph; topk: the mean of tanh(s_i) x_i over the share of nodes with the largest
    s_i = w . x_i / |w|, at least one.

    Args:
        inputs: features of a node.
        how: one of those.
        share: of the nodes that topk keeps.

    Shapes: x (N, inputs) -> (G, inputs)

    Raises:
        ValueError: another ``how``, or a share outside (0, 1].

    Sources: Li et al., Gated graph sequence neural networks, 2016 (attention); Gao & Ji, Graph
        U-Nets, 2019 (topk; here for a readout, the graph stays whole).
    """

    def __init__(self, inputs: int, how: str = "mean", share: float = 0.5):
        super().__init__()
        if how not in POOLS:
            raise ValueError(f"Pool: how must be one of {', '.join(POOLS)}, got {how!r}")
        if not 0 < share <= 1:
            raise ValueError(f"Pool: share must lie in (0, 1], got {share}")
        self.how, self.share = how, share
        learned = how in ("attention", "topk")
        self.score = nn.Parameter(torch.empty(inputs)) if learned else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        if self.score is not None:
            nn.init.normal_(self.score, std=1 / math.sqrt(len(self.score)))

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        member = graph.member
        if self.score is None:
            pools = {"sum": segment_sum, "mean": segment_mean, "max": segment_max}
            return pools[self.how](x, graph.starts, member)
        score = x @ self.score
        if self.how == "attention":
            share = segment_softmax(score, graph.starts, member)
            return segment_sum(share.unsqueeze(1) * x, graph.starts, member)
        score = score / self.score.norm()
        sizes = graph.starts.diff()
        most = (sizes * self.share).ceil().clamp_min(1)[member]
        # by score, then, stably, by graph: a node's rank within its graph
        order = score.detach().argsort(descending=True)
        order = order.gather(0, member[order].argsort(stable=True))
        rank = order.argsort() - graph.starts[:-1][member]
        kept = (rank < most).to(x.dtype)
        return segment_sum((kept / most * score.tanh()).unsqueeze(1) * x, graph.starts, member)

    def extra_repr(self) -> str:
        return self.how if self.how != "topk" else f"topk, share={self.share}"


class Readout(nn.Module):
    """What is asked, from the features h of the nodes: the question says which of the three.

    A node i: W h_i + b. A pair (i, j): W (h_i * h_j) + b, the same for (j, i). A whole graph:
    W pool(h) + b.

    Shapes: x (N, inputs) -> (B, outputs)
    """

    def __init__(self, inputs: int, outputs: int, pool: str = "mean"):
        super().__init__()
        self.pool = Pool(inputs, pool)
        # a sum grows with the graph, and so would the first answers, were the weights not small
        self.out = Dense(inputs, outputs, gain=0.05 if pool == "sum" else 1.0)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        asked = graph.asked
        if asked.dim() == 1:
            if 2 * len(asked) > graph.nodes:  # most of them: choose among the few outputs
                return self.out(x).index_select(0, asked)
            return self.out(x.index_select(0, asked))
        if asked.shape[1] == 2:
            first, second = (x.index_select(0, asked[:, end]) for end in (0, 1))
            return self.out(first * second)
        return self.out(self.pool(graph, x))


class GraphNorm(nn.Module):
    """Each feature normalised over the nodes of a graph: y = gamma (x - alpha mean) / std + beta.

    alpha is learned: how much of the graph's mean is taken off.

    Shapes: x (N, features) -> (N, features)
    Source: Cai et al., GraphNorm, 2021.
    """

    def __init__(self, features: int, *, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight, self.bias = (nn.Parameter(torch.empty(features)) for _ in range(2))
        self.alpha = nn.Parameter(torch.empty(features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start as a plain normalisation."""
        nn.init.ones_(self.weight)
        nn.init.ones_(self.alpha)
        nn.init.zeros_(self.bias)

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        member = graph.member
        mean = segment_mean(x, graph.starts, member)
        rest = x - (self.alpha * mean).index_select(0, member)
        scale = (segment_mean(rest.square(), graph.starts, member) + self.eps).rsqrt()
        return self.weight * rest * scale.index_select(0, member) + self.bias
