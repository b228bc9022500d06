"""What several processes cost: two on this machine, by gloo, beside raw DDP and its peers.

One job of two processes runs every contender in turn, so that the rounds alternate; the rounds of
"one process" are run by the first while the second waits. Two sizes: a small network, where a
message costs more than the step, and one that is busy with its products. Batches are ready-made,
Adam (fused), float32, one thread a process; a round is a model, its wrapping and 240 or 32 steps.
The batch is of both processes together. Before that, bf16 and fp16 beside float32 in one process.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.places
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks import harness

RATE = 1e-3
SIZES = {
    "64-128-128-10, batch 128": ((64, 128, 128, 10), 128, 240),
    "784-1024-1024-10, batch 512": ((784, 1024, 1024, 10), 512, 32),
}
Call = Callable[[], Any]
Pairs = list[tuple[Tensor, Tensor]]


def network(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(widths):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def batches(widths: tuple[int, ...], size: int, count: int) -> Pairs:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4 * size, widths[0], generator=generator)
    y = torch.randint(0, widths[-1], (4 * size,), generator=generator)
    return list(zip(x.split(size), y.split(size))) * (count // 4)


def mine(pairs: Pairs) -> Pairs:
    """This process's rows of every batch."""
    rank, count = dist.get_rank(), dist.get_world_size()
    return [(x.chunk(count)[rank], y.chunk(count)[rank]) for x, y in pairs]


def steps(forward: Any, optimizer: torch.optim.Optimizer, pairs: Pairs) -> None:
    for x, y in pairs:
        F.cross_entropy(forward(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()


def contenders(widths: tuple[int, ...], size: int, count: int, peers: list[str]) -> dict[str, Call]:
    from deepweave.core import Descent, fit
    from deepweave.objectives import Classify

    whole = batches(widths, size, count)
    share = mine(whole)

    def ours(strategy: str) -> None:
        with silent():
            step = Descent(Classify(network(widths)), "Adam", lr=RATE)
            fit(step, whole, epochs=1, strategy=strategy, devices="cpu")

    def raw() -> None:
        model = DistributedDataParallel(network(widths))
        steps(model, torch.optim.Adam(model.parameters(), lr=RATE, fused=True), share)

    def sharded() -> None:
        from torch.distributed.fsdp import fully_shard

        model: Any = fully_shard(network(widths))
        steps(model, torch.optim.Adam(model.parameters(), lr=RATE, fused=True), share)

    def alone() -> None:
        if dist.get_rank() == 0:
            model = network(widths)
            steps(model, torch.optim.Adam(model.parameters(), lr=RATE, fused=True), whole)
        dist.barrier()

    found = {
        "deepweave": lambda: ours("ddp"),
        "raw PyTorch, DDP": raw,
        "raw PyTorch, one process": alone,
        "deepweave, fsdp": lambda: ours("fsdp"),
        "raw PyTorch, fully_shard": sharded,
    }
    for name in peers:
        try:
            found |= PEERS[name](widths, share)
        except Exception as error:  # the peer is not there, or does not run beside this torch
            print(f"{name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
    return found


def fabric(widths: tuple[int, ...], share: Pairs) -> dict[str, Call]:
    from lightning_fabric import Fabric

    with silent():
        engine = Fabric(accelerator="cpu", strategy="ddp", devices=dist.get_world_size())
        engine.launch()

    def train() -> None:
        net = network(widths)
        adam = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
        model, optimizer = engine.setup(net, adam)
        for x, y in share:
            engine.backward(F.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()

    return {"Fabric, DDP": train}


def accelerate(widths: tuple[int, ...], share: Pairs) -> dict[str, Call]:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)

    def train() -> None:
        net = network(widths)
        adam = torch.optim.Adam(net.parameters(), lr=RATE, fused=True)
        model, optimizer = accelerator.prepare(net, adam)
        for x, y in share:
            accelerator.backward(F.cross_entropy(model(x), y))
            optimizer.step()
            optimizer.zero_grad()

    return {"Accelerate, DDP": train}


PEERS = {"fabric": fabric, "accelerate": accelerate}


@contextlib.contextmanager
def silent() -> Any:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def precisions(rounds: int, out: str) -> None:
    """One process: what autocast does to the same two networks on this processor."""
    from deepweave.core import Descent, fit
    from deepweave.objectives import Classify

    torch.set_num_threads(1)
    results = {}
    for name, (widths, size, count) in SIZES.items():
        steps = count // 10  # fp16 takes its time
        whole = batches(widths, size, count)[:steps]

        def train(precision: str, widths: Any = widths, whole: Pairs = whole) -> None:
            step = Descent(Classify(network(widths)), "Adam", lr=RATE)
            fit(step, whole, epochs=1, precision=precision, devices="cpu")

        calls = {
            "deepweave": lambda train=train: train("float32"),
            "bf16": lambda train=train: train("bf16"),
            "fp16": lambda train=train: train("fp16"),
        }
        found = harness.compare(calls, rounds=rounds)
        for row in found.values():
            row["microseconds_per_step"] = row["seconds"] / steps * 1e6
        results[name] = found
        print(name, harness.table(found, 1e6 / steps, "us per step"), sep="\n")
    command = "OMP_NUM_THREADS=1 python -m benchmarks.speed.places"
    print(harness.save(out, results, command=command))


def work(rounds: int, peers: list[str], out: str) -> None:
    """What each of the two processes does; the first keeps the numbers."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = {}
    for name, (widths, size, count) in SIZES.items():
        found = harness.compare(contenders(widths, size, count, peers), rounds=rounds)
        to_raw = harness.against(found, "raw PyTorch, DDP")
        for who, row in found.items():
            row["microseconds_per_step"] = row["seconds"] / count * 1e6
            row |= {key.replace("ratio", "raw_ratio"): v for key, v in to_raw[who].items()}
        results[name] = found
        if dist.get_rank() == 0:
            print(name, harness.table(found, 1e6 / count, "us per step"), sep="\n")
    if dist.get_rank() == 0:
        command = "OMP_NUM_THREADS=1 python -m benchmarks.speed.places"
        print(harness.save(out, results, command=command))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--out", default="places", help="the name in benchmarks/results")
    options = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        work(options.rounds, options.peers, options.out)
        return
    precisions(options.rounds, "precision")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "benchmarks.speed.places", *sys.argv[1:]]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(Path(__file__).parents[2])
    main()
