"""Accuracy on the karate club and the graph of digits, beside PyG on the same labels and nodes.

Two layers of 32, a dense output layer, Adam at 0.01, 100 full-batch epochs, the weights of the
lowest validation loss; the same splits for both, a seed for each draw of labels and weights.
deepweave trains with ``fit``, PyG with the loop of its first example. Runs in an environment with
torch 2.13.0, torch_geometric, scikit-learn and networkx:

    OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.quality.graphs [--seeds 10]
"""

from __future__ import annotations

import argparse
import copy
from typing import Any

import torch
from torch import Tensor, nn

import deepweave as dw
from benchmarks.harness import save

COMMAND = "OMP_NUM_THREADS=1 PYTHONPATH=src python -m benchmarks.quality.graphs"
WIDTH, EPOCHS = 32, 100


def ours(data: Any, kind: str, seed: int, dropout: float) -> Tensor:
    """Test outputs of deepweave."""
    dw.chance.seed_all(seed)
    net = dw.nn.gnn(data.spec, (WIDTH, WIDTH), kind, dropout=dropout)
    step = dw.Descent(dw.supervise(net, data.spec), "Adam", lr=0.01)
    hooks = [dw.hooks.Validate(data.validation)]
    run = dw.fit(step, data, epochs=EPOCHS, seed=seed, hooks=hooks, out=False)
    return run.predict(data.test.x)


def theirs(data: Any, kind: str, seed: int, dropout: float) -> Tensor:
    """Test outputs of PyG."""
    from torch_geometric.nn import GATv2Conv, GCNConv, SAGEConv

    make: dict[str, Any] = {
        "gcn": lambda i: GCNConv(i, WIDTH),
        "sage": lambda i: SAGEConv(i, WIDTH),
        "gat": lambda i: GATv2Conv(i, WIDTH // 4, heads=4),
    }
    torch.manual_seed(seed)
    g = data.train.x.graph

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = make[kind](g.x.shape[1]), make[kind](WIDTH)
            self.out = nn.Linear(WIDTH, data.spec.outputs)
            self.drop = nn.Dropout(dropout)

        def forward(self) -> Tensor:
            weight = () if g.weight is None or kind != "gcn" else (g.weight,)
            x = self.drop(self.one(g.x, g.edges, *weight).relu())
            return self.out(self.drop(self.two(x, g.edges, *weight).relu()))

    def loss(out: Tensor, split: Any) -> Tensor:
        if data.spec.task == "binary":
            y = split.y.float()
            return nn.functional.binary_cross_entropy_with_logits(out[split.x.index, 0], y)
        return nn.functional.cross_entropy(out[split.x.index], split.y)

    net = Net()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    best: tuple[float, Any] = (float("inf"), None)
    for _ in range(EPOCHS):
        net.train()
        optimizer.zero_grad()
        loss(net(), data.train).backward()
        optimizer.step()
        net.eval()
        with torch.no_grad():
            now = float(loss(net(), data.validation))
        if now < best[0]:
            best = now, copy.deepcopy(net.state_dict())
    net.load_state_dict(best[1])
    with torch.no_grad():
        out = net()[data.test.x.index]
    return out.sigmoid()[:, 0] if data.spec.task == "binary" else out


def accuracy(said: Tensor, y: Tensor) -> float:
    """The share that is right."""
    found = said > 0.5 if said.dim() == 1 else said.argmax(1)
    return float((found == y).float().mean())


def converted() -> None:
    """PyG's own objects come over and go back unchanged.

    Raises:
        RuntimeError: something differs.
    """
    from torch_geometric.data import Batch, Data

    random = torch.Generator().manual_seed(0)
    parts = [
        Data(
            x=torch.randn(n, 3, generator=random),
            edge_index=torch.randint(0, n, (2, 2 * n), generator=random),
            edge_attr=torch.randn(2 * n, 2, generator=random),
        )
        for n in (4, 7)
    ]
    held: Any = Batch.from_data_list(parts)
    graph = dw.data.from_pyg(held)
    back = dw.data.to_pyg(graph)
    order = (held.edge_index[1] * held.num_nodes + held.edge_index[0]).argsort()
    again = (back.edge_index[1] * held.num_nodes + back.edge_index[0]).argsort()
    same = (
        torch.equal(back.x, held.x)
        and torch.equal(back.batch, held.batch)
        and torch.equal(back.edge_index[:, again], held.edge_index[:, order])
        and torch.equal(
            back.edge_attr[again].sum(1).sort().values, held.edge_attr.sum(1).sort().values
        )
    )
    if not same:
        raise RuntimeError("graphs: what came back from deepweave is not what PyG gave")
    print("PyG's objects come over and go back unchanged")


def measure(seeds: int) -> None:
    torch.set_num_threads(1)
    converted()
    results: dict[str, Any] = {}
    for name, dropout in (("karate", 0.0), ("digits_graph", 0.5)):
        for kind in ("gcn", "sage", "gat"):
            pairs = []
            for seed in range(seeds):
                data = dw.data.load(name, seed=seed)
                pairs.append([
                    accuracy(how(data, kind, seed, dropout), data.test.y) for how in (ours, theirs)
                ])  # fmt: skip
            scores = torch.tensor(pairs, dtype=torch.float64).T
            gap = dw.metrics.over_seeds(scores[0] - scores[1])
            results[f"{name}, {kind}"] = {
                "deepweave": float(scores[0].mean()),
                "PyG": float(scores[1].mean()),
                "difference": float(gap),
                "low": float(gap.low or 0.0),
                "high": float(gap.high or 0.0),
            }
            print(f"{name}, {kind}", results[f"{name}, {kind}"], flush=True)
    print(save("graphs_quality", results, command=f"{COMMAND} --seeds {seeds}"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    measure(parser.parse_args().seeds)
