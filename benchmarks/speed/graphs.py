"""Training steps of graph networks on a large graph, beside PyG in its fastest form.

A graph of 100,000 nodes and 1,000,000 edges whose degrees follow a power law, 64 features, two
layers of 64, ten classes: one full-batch step is forward, cross-entropy over all nodes, backward
and Adam. PyG gets the adjacency as ``torch.sparse_csr`` (its advice for CPUs), and, beside it,
the ``edge_index`` of its first examples. Its GCN norm is cached, as ours is. Both start from the
same weights, and their outputs and slopes are compared before anything is timed.

Runs in an environment with torch 2.13.0 and torch_geometric:

    OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.speed.graphs [--rounds 7]
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.harness import compare, save
from deepweave.functional.graph import Graph, graph
from deepweave.nn.graph import GCN, GIN, SAGE
from deepweave.nn.neighbours import GAT

COMMAND = "OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.speed.graphs"
NODES, EDGES, WIDTH, CLASSES, HEADS = 100_000, 1_000_000, 64, 10, 4


def power_law(nodes: int, edges: int, exponent: float = 0.8, seed: int = 0) -> Tensor:
    """Edges whose ends are drawn by rank^-exponent, in two orders; no loops, none twice."""
    random = torch.Generator().manual_seed(seed)
    weight = torch.arange(1, nodes + 1).double() ** -exponent
    codes = torch.empty(0, dtype=torch.int64)
    orders = [torch.randperm(nodes, generator=random) for _ in range(2)]
    while len(codes) < edges:
        ends = [
            o[torch.multinomial(weight, edges, replacement=True, generator=random)] for o in orders
        ]
        fresh = (ends[0] * nodes + ends[1])[ends[0] != ends[1]]
        codes = torch.cat([codes, fresh]).unique()
    codes = codes[torch.randperm(len(codes), generator=random)[:edges]]
    return torch.stack([codes // nodes, codes % nodes])


class Ours(nn.Module):
    """Two layers with a ReLU between."""

    def __init__(self, kind: str):
        super().__init__()
        if kind == "GCN":
            self.layers = nn.ModuleList([GCN(WIDTH, WIDTH), GCN(WIDTH, CLASSES)])
        elif kind == "SAGE":
            self.layers = nn.ModuleList([SAGE(WIDTH, WIDTH), SAGE(WIDTH, CLASSES)])
        elif kind == "GIN":
            self.layers = nn.ModuleList([GIN(WIDTH, WIDTH), GIN(WIDTH, CLASSES)])
        else:
            dynamic = kind == "GATv2"
            first = GAT(WIDTH, WIDTH, HEADS, dynamic=dynamic)
            self.layers = nn.ModuleList([first, GAT(WIDTH, CLASSES, 1, dynamic=dynamic)])

    def forward(self, g: Graph) -> Tensor:
        first, second = self.layers
        return second(g, first(g, g.x).relu())


def theirs(kind: str) -> nn.Module:
    """The same two layers of PyG."""
    from torch_geometric.nn import GATConv, GATv2Conv, GCNConv, GINConv, SAGEConv

    def inner(outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(WIDTH, outputs), nn.ReLU(), nn.Linear(outputs, outputs))

    class Theirs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            made: dict[str, Any] = {
                "GCN": lambda o, h: GCNConv(WIDTH, o, cached=True),
                "SAGE": lambda o, h: SAGEConv(WIDTH, o),
                "GIN": lambda o, h: GINConv(inner(o), train_eps=True),
                "GAT": lambda o, h: GATConv(WIDTH, o // h, heads=h),
                "GATv2": lambda o, h: GATv2Conv(WIDTH, o // h, heads=h, bias=True),
            }
            self.one, self.two = made[kind](WIDTH, HEADS), made[kind](CLASSES, 1)

        def forward(self, x: Tensor, adj: Any) -> Tensor:
            return self.two(self.one(x, adj).relu(), adj)

    return Theirs()


def same_weights(ours: Ours, other: Any, kind: str) -> None:
    """Give our network the weights of theirs."""
    with torch.no_grad():
        for layer, conv in zip(ours.layers, (other.one, other.two)):
            parts: Any = layer
            if kind == "GCN":
                parts.weight.copy_(conv.lin.weight)
                parts.bias.copy_(conv.bias)
            elif kind == "SAGE":
                parts.near.weight.copy_(conv.lin_l.weight)
                parts.own.weight.copy_(conv.lin_r.weight)
                parts.own.bias.copy_(conv.lin_l.bias)
            elif kind == "GIN":
                parts.mlp.load_state_dict(conv.nn.state_dict())
            else:
                parts.bias.copy_(conv.bias)
                if kind == "GAT":
                    parts.value.weight.copy_(conv.lin.weight)
                    parts.score.copy_(torch.cat([conv.att_src, conv.att_dst]))
                else:
                    parts.value.weight.copy_(conv.lin_l.weight)
                    parts.query.weight.copy_(conv.lin_r.weight)
                    parts.score.copy_(conv.att)
                    for bias in (conv.lin_l.bias, conv.lin_r.bias):
                        bias.zero_().requires_grad_(False)  # ours has none beside the layer's own


def stepper(net: nn.Module, forward: Any, y: Tensor) -> Any:
    """One step of training."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(), y).backward()
        optimizer.step()

    return step


def agree(ours: Ours, other: nn.Module, calls: list[Any], y: Tensor) -> float:
    """The largest difference of outputs and slopes of the inputs' weights, relative."""
    outs, slopes = [], []
    for net, call in zip((ours, other), calls):
        out = call()
        nn.functional.cross_entropy(out, y).backward()
        outs.append(out.detach())
        slopes.append(sum(float(w.grad.square().sum()) for w in net.parameters()
                          if w.grad is not None) ** 0.5)  # fmt: skip
        net.zero_grad()
    gap = float((outs[0] - outs[1]).abs().max() / outs[1].abs().max())
    slope = abs(slopes[0] / slopes[1] - 1)
    if max(gap, slope) > 1e-3:
        raise RuntimeError(f"graphs: the networks differ: outputs {gap:.1e}, slopes {slope:.1e}")
    return max(gap, slope)


def measure(rounds: int, kinds: list[str], threads: int, nodes: int, edges: int) -> None:
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", message="Sparse (CSR|invariant)")
    ends = power_law(nodes, edges)
    random = torch.Generator().manual_seed(1)
    x = torch.randn(nodes, WIDTH, generator=random)
    y = torch.randint(0, CLASSES, (nodes,), generator=random)
    g = graph(ends, x, "nodes", directed=True)
    try:
        from torch_geometric.utils import to_torch_csr_tensor

        order = (ends[1] * nodes + ends[0]).argsort()
        adj = to_torch_csr_tensor(ends.flip(0)[:, order], size=(nodes, nodes))
    except ImportError:
        print("torch_geometric is not installed: deepweave alone")
        adj = None
    results: dict[str, Any] = {}
    for kind in kinds:
        torch.manual_seed(0)
        ours = Ours(kind)
        contenders = {"deepweave": stepper(ours, lambda net=ours: net(g), y)}
        if adj is not None:
            for name, how in (("PyG, sparse CSR", adj), ("PyG, edge_index", ends)):
                torch.manual_seed(1)
                other = theirs(kind)
                same_weights(ours, other, kind)
                calls = [lambda net=ours: net(g), lambda net=other, a=how: net(x, a)]
                gap = agree(ours, other, calls, y)
                contenders[name] = stepper(other, calls[1], y)
                print(f"{kind}, {name}: the same to {gap:.1e}")
        results[kind] = compare(contenders, rounds=rounds)
        told = {who: f"{1e3 * row['seconds']:.0f} ms, {row['ratio']:.2f}"
                for who, row in results[kind].items()}  # fmt: skip
        print(kind, told, flush=True)
    if (nodes, edges) == (NODES, EDGES):
        words = f"{COMMAND} --rounds {rounds} --threads {threads}"
        suffix = "" if threads == 1 else f"_{threads}_threads"
        print(save(f"graphs{suffix}", results, command=words))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--kinds", nargs="+", default=["GCN", "GAT", "GATv2", "SAGE", "GIN"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=NODES)
    parser.add_argument("--edges", type=int, default=EDGES)
    options = parser.parse_args()
    measure(options.rounds, options.kinds, options.threads, options.nodes, options.edges)
