"""Recurrent layers beside torch's: one model, ragged batches, many models at once.

- one model: batch 32, 128 steps, 64 features, 128 units; forward alone, or forward and backward;
- ragged: 512 sequences of 16 to 128 steps, 64 features, 128 units, batches of 32, a dense layer on
  the last state, Adam: a pass over all of them. Every contender sees the same sequences, whole, and
  reads the state of the last real step; "packed" is `nn.LSTM` on `pack_padded_sequence`;
- many: n models of H units, each with its own batch, Adam: one step of all. The yardstick is a loop
  over n models of torch's layers with the fused Adam.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.recurrent
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepweave as dw
from benchmarks import harness
from deepweave.data.ragged import Ragged
from deepweave.data.split import Split
from deepweave.functional.ragged import Padded
from deepweave.functional.recurrence import at_end
from deepweave.nn.recurrent import GRU, LSTM, RNN

Call = Callable[[], Any]
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "LSTM": (LSTM, nn.LSTM, dw.nn.lstm),
    "GRU": (GRU, nn.GRU, dw.nn.gru),
    "RNN": (RNN, nn.RNN, dw.nn.rnn),
}


class Peer(nn.Module):
    """A layer of torch and a dense layer on its last state, as a user of torch writes it."""

    def __init__(self, kind: Any, features: int, hidden: int, outputs: int):
        super().__init__()
        self.layer = kind(features, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Any) -> Tensor:
        last = self.layer(x)[1]
        return self.head((last[0] if isinstance(last, tuple) else last)[-1])


def one(kind: str, train: bool) -> dict[str, Call]:
    """One layer, torch's and ours with the same weights."""
    own, peer, _ = KINDS[kind]
    torch.manual_seed(0)
    layers = {"deepweave": own(64, 128), "torch.nn": peer(64, 128, batch_first=True)}
    layers["deepweave"].load_state_dict(layers["torch.nn"].state_dict())
    layers["own loop"] = own(64, 128, fused=False)
    x = torch.randn(32, 128, 64)

    def run(layer: nn.Module) -> None:
        if train:
            layer(x)[0].mean().backward()
            layer.zero_grad()
        else:
            with torch.no_grad():
                layer(x)

    return {name: (lambda layer=layer: run(layer)) for name, layer in layers.items()}


def learn(model: nn.Module, optimizer: Any, batches: Iterable[tuple[Any, Tensor]]) -> None:
    """One step per batch."""
    for x, y in batches:
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


class Packed(nn.Module):
    """Torch's way: sort, pack, run."""

    def __init__(self, model: Peer):
        super().__init__()
        self.model = model

    def forward(self, x: Padded) -> Tensor:
        pack = nn.utils.rnn.pack_padded_sequence
        return self.model(pack(x.values, x.lengths, batch_first=True, enforce_sorted=False))


class Gathered(nn.Module):
    """All steps, padding too, and the output of the last real one."""

    def __init__(self, model: Peer):
        super().__init__()
        self.model = model

    def forward(self, x: Padded) -> Tensor:
        return self.model.head(at_end(self.model.layer(x.values)[0], x.lengths))


def ragged(kind: str) -> dict[str, Call]:
    """A pass over 512 sequences of 16 to 128 steps."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(16, 129, (512,), generator=generator)
    rows = Ragged(torch.randn(int(lengths.sum()), 64, generator=generator), lengths)
    split = Split(rows, torch.randint(10, (512,), generator=generator))
    _, peer, maker = KINDS[kind]

    def train(model: nn.Module, buckets: bool) -> Call:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
        batches = split.batches(32, buckets=buckets)
        return lambda: learn(model, optimizer, batches)

    return {
        "deepweave": train(maker(((128, 64), 10), 128), True),
        "packed": train(Packed(Peer(peer, 64, 128, 10)), False),
        "packed, in our buckets": train(Packed(Peer(peer, 64, 128, 10)), True),
        "padded, last step gathered": train(Gathered(Peer(peer, 64, 128, 10)), False),
    }


def many(kind: str, n: int, size: int, steps: int, hidden: int) -> dict[str, Call]:
    """One step of n models, together and one after the other."""
    _, peer, maker = KINDS[kind]
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, size, steps, 8, generator=generator)
    y = torch.randint(4, (n, size), generator=generator)
    models = [Peer(peer, 8, hidden, 4) for _ in range(n)]
    steps_of = [torch.optim.Adam(model.parameters(), lr=1e-3, fused=True) for model in models]
    net = dw.Classify(maker(((steps, 8), 4), hidden))
    together = dw.Population(net, n, "Adam", lr=1e-3)

    def loop() -> None:
        for model, optimizer, a, b in zip(models, steps_of, x, y):
            learn(model, optimizer, [(a, b)])

    return {"deepweave": lambda: together((x, y)), "a loop of torch.nn": loop}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="sections whose name holds this")
    parser.add_argument("--out", default="recurrent", help="the name in benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sections: dict[tuple[str, str], tuple[Callable[[], dict[str, Call]], int]] = {}
    for kind in KINDS:
        for group in ("training", "inference"):
            make = lambda k=kind, t=group == "training": one(k, t)  # noqa: E731
            sections[f"one model, {group}", kind] = (make, 2)
    for kind in ("LSTM", "GRU"):
        sections["ragged", kind] = (lambda k=kind: ragged(k), 1)
    for sizes in ((64, 4, 16, 16), (256, 1, 16, 16), (16, 8, 32, 32)):
        n, size, steps, hidden = sizes
        for kind in KINDS:
            group = f"{n} models, batch {size}, {steps} steps, {hidden} units"
            sections[group, kind] = (lambda k=kind, s=sizes: many(k, *s), 3)
    results: dict[str, Any] = {}
    for (group, kind), (make, repeats) in sections.items():
        if options.only not in f"{group}, {kind}":
            continue
        rounds = options.rounds if group != "ragged" else max(5, options.rounds // 2)
        found = harness.compare(make(), rounds=rounds, repeats=repeats, warmup=2)
        results.setdefault(group, {})[kind] = found
        print(f"\n{group}, {kind}\n{harness.table(found, 1e3, 'ms')}", flush=True)
    if not options.only:
        command = "OMP_NUM_THREADS=1 python -m benchmarks.speed.recurrent"
        command += f" --rounds {options.rounds}"
        print(harness.save(options.out, results, command=command))


if __name__ == "__main__":
    main()
