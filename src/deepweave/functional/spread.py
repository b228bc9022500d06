"""What spreads from node to node by chance: news, infections; many runs at once.

Heat on a graph (:func:`deepweave.functional.heat`) is the mean of what wanders at random; here
something is passed on, and the one who passes it keeps it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from deepweave.functional.graph import Graph
from deepweave.functional.messages import product

KINDS = ("SI", "SIS", "SIR")


class Spread(NamedTuple):
    """How many nodes were susceptible, infected and removed after each step, and the end.

    Shapes: counts (steps + 1, runs, 3) int64; state (N, runs) int8 of 0, 1 and 2
    """

    counts: Tensor
    state: Tensor


def spread(
    graph: Graph,
    infected: Tensor,
    infect: float,
    recover: float = 0.0,
    *,
    steps: int = 100,
    runs: int = 1,
    kind: str = "SIR",
    generator: torch.Generator | None = None,
) -> Spread:
    """Infections along the edges of a graph, ``runs`` of them at once.

    In each step every infected node infects each susceptible neighbour with probability
    ``infect`` (an edge of weight w as w edges), so that a node with k of them catches it with
    1 - (1 - infect)^k; and those who were infected recover with probability ``recover``: they are
    removed (SIR), susceptible again (SIS), or never recover (SI). All runs are one sparse product
    and one draw a step.

    Args:
        graph: who can infect whom; edges lead from the one to the other.
        infected: the nodes that have it at first, (k,), or a mask (N,) or (N, runs).
        infect: the probability for an edge and a step.
        recover: the probability for a node and a step.
        steps: how many.
        runs: how many runs, each with draws of its own.
        kind: ``"SI"``, ``"SIS"`` or ``"SIR"``.
        generator: of the draws.

    Raises:
        ValueError: probabilities outside [0, 1], nodes that there are not, an unknown kind.

    Source: Kermack & McKendrick, A contribution to the mathematical theory of epidemics, 1927.

    >>> from deepweave.functional.graph import graph
    >>> path = graph(torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.zeros(4, 1))
    >>> spread(path, torch.tensor([0]), 1.0, 1.0, steps=3).counts[:, 0].tolist()
    [[3, 1, 0], [2, 1, 1], [1, 1, 2], [0, 1, 3]]
    """
    for name, value in (("infect", infect), ("recover", recover)):
        if not 0 <= value <= 1:
            raise ValueError(f"spread: {name} must lie in [0, 1], got {value}")
    if kind not in KINDS:
        raise ValueError(f"spread: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind == "SI" and recover:
        raise ValueError(f"spread: nobody recovers in SI, got recover={recover}")
    if steps < 0 or runs < 1:
        raise ValueError(f"spread: steps must not be negative and runs at least 1, got {steps} and "
                         f"{runs}")  # fmt: skip
    state = _first(graph, infected, runs)
    device, weight = graph.source.device, graph.weight
    back = None if weight is None else weight[graph.back]
    escape = math.log1p(-infect) if infect < 1 else -math.inf  # 0 of it is NaN: never below
    counts = [_count(state)]
    draws = torch.empty(state.shape, device=device)
    for _ in range(steps):
        ill = state == 1
        chance = product(graph, ill.float(), weight, back)
        chance.mul_(escape).expm1_().neg_().masked_fill_(state != 0, 0.0)
        chance.masked_fill_(ill, recover)
        happens = draws.uniform_(generator=generator) < chance
        if kind == "SIS":
            state = state ^ happens
        else:
            state = state + happens
        counts.append(_count(state))
    return Spread(torch.stack(counts), state)


def _count(state: Tensor) -> Tensor:
    """Nodes in each of the three states, (runs, 3)."""
    ill, gone = (state == 1).sum(0), (state == 2).sum(0)
    return torch.stack([len(state) - ill - gone, ill, gone], 1)


def _first(graph: Graph, infected: Tensor, runs: int) -> Tensor:
    nodes = graph.nodes
    if infected.dtype == torch.bool:
        if infected.shape not in ((nodes,), (nodes, runs)):
            raise ValueError(f"spread: a mask must be ({nodes},) or ({nodes}, {runs}), got "
                             f"{tuple(infected.shape)}")  # fmt: skip
        mask = infected if infected.dim() == 2 else infected[:, None].expand(-1, runs)
        return mask.to(torch.int8).clone()
    if infected.dim() != 1 or infected.is_floating_point() or infected.dtype == torch.uint8:
        raise ValueError(
            "spread: infected must be a mask, or numbers of nodes (k,) of int64, got "
            f"{tuple(infected.shape)} of {infected.dtype}"
        )
    if len(infected) and not 0 <= int(infected.min()) <= int(infected.max()) < nodes:
        raise ValueError(f"spread: nodes must lie in 0..{nodes - 1}, got {infected.tolist()[:5]}")
    state = torch.zeros(nodes, runs, dtype=torch.int8, device=graph.source.device)
    state[infected] = 1
    return state
