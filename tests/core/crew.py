"""What the processes of test_places do; the test itself does the same alone, and compares.

torchrun --standalone --nproc-per-node 2 tests/core/crew.py FOLDER [--die FILE RANK]
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import deepweave as dw
from deepweave import archive, hooks
from deepweave.core import places

RANK = int(os.environ.get("RANK", "0"))


class Stop(Exception):
    """Stands for a kill in the middle of a run."""


class KillAt(dw.Hook):
    def __init__(self, step: int | None, act: Any = None):
        self.step, self.act = step, act

    def after_step(self, loop, logs):
        if loop.count == self.step:
            if self.act is not None:
                self.act()
            raise Stop


class Drawn(dw.Classify):
    """Keeps what it draws at random while training."""

    def __init__(self, model):
        super().__init__(model)
        self.drawn: list[float] = []

    def forward(self, batch):
        if self.training and torch.is_grad_enabled():
            self.drawn.append(float(torch.rand(())))
        return super().forward(batch)


class Noisy(dw.Classify):
    """Draws noise for every row."""

    def forward(self, batch):
        x, y = batch
        return super().forward((x + torch.randn_like(x), y))


class Unchecked(dw.Regress):
    def check(self, batch): ...


class Spare(dw.Classify):
    """Has a layer that no loss reaches."""

    def __init__(self, model):
        super().__init__(model)
        self.spare = nn.Linear(2, 2).double()


def samples(n: int = 41) -> dw.data.Split:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 6, generator=g, dtype=torch.float64)
    return dw.data.Split(x, torch.randint(0, 3, (n,), generator=g))


def weighted(n: int = 41) -> dw.data.Split:
    split = samples(n)
    return dw.data.Split(split.x, split.y, torch.linspace(0, 2, n, dtype=torch.float64))


def net(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(7 + RANK)  # process 0 decides, and alone it is process 0
    between = [nn.BatchNorm1d(9)] if norm else []
    return nn.Sequential(nn.Linear(6, 9), *between, nn.Tanh(), nn.Linear(9, 3)).double()


def step_of(objective: dw.Objective | None = None, optimizer="AdamW", **options) -> dw.Descent:
    options = {"lr": 0.05, **options}
    return dw.Descent(objective or dw.Classify(net()), optimizer, **options)


def told(run: dw.Run) -> dict[str, torch.Tensor]:
    """Everything that must be equal: weights, what validation saw, what was logged."""
    found = {f"weight {k}": v for k, v in run.objective.state_dict().items()}
    for i, line in enumerate(run.history):
        for name, value in line.items():
            if name != "seconds":
                found[f"line {i} {name}"] = torch.tensor(value, dtype=torch.float64)
    for row in run.info.get("diagnostics", []):
        found |= {f"{row['layer']} {k}": torch.tensor(v) for k, v in row.items() if k != "layer"}
    return found


def right(prediction, target):
    return {"right": (prediction.argmax(1) == target).double().mean()}


def all_hooks(*more: dw.Hook) -> list[dw.Hook]:
    return [
        *more,
        hooks.Clip(norm=0.3),
        hooks.Schedule(hooks.cosine, warmup=2),
        hooks.Average(0.9),
        hooks.Validate(samples(30), scores=right),
        hooks.Diagnose(every=2),
        hooks.Log(every=4),
        hooks.Checkpoint(seconds=0.0),
    ]  # fmt: skip


def weights(strategy, out):
    """Weights of samples and of classes, every hook; the last of three batches has 9 rows."""
    objective = dw.Classify(net(), class_weight=[1.0, 2.0, 0.5])
    return dw.fit(step_of(objective, weight_decay=0.1), weighted(), batch=16, epochs=3,
                  hooks=all_hooks(), strategy=strategy, out=out)  # fmt: skip


def uneven(strategy, out):
    """Batches of 5 and a last one of 1 row, of which one process gets none; a spare layer."""
    return dw.fit(step_of(Spare(net()), "AdamW"), samples(), batch=5, epochs=1, strategy=strategy)


def accumulated(strategy, out):
    """Two batches to an update; SGD with momentum; an odd number of batches."""
    step = step_of(optimizer="SGD", momentum=0.9, accumulate=2)
    return dw.fit(step, samples(), batch=9, steps=7, strategy=strategy)


def part(strategy, out):
    """One layer is trained, twice in a row, so that the optimizer's state goes on."""
    model = net()
    step = step_of(dw.Classify(model), "Adam", only=model[2])
    dw.fit(step, samples(), batch=10, steps=3, strategy=strategy)
    assert model[0].weight.requires_grad
    return dw.fit(step, samples(), batch=10, steps=4, strategy=strategy)


def loader(strategy, out):
    """A loader that shuffles with the global generator; batches in dicts and lists do as well."""
    split = samples()
    feed = DataLoader(TensorDataset(split.x, split.y), batch_size=7, shuffle=True)
    return dw.fit(step_of(), feed, epochs=2, seed=3, strategy=strategy)


def cut(strategy, out, kill: int | None = None, act: Any = None):
    """A run that is killed and gone on with."""
    return dw.fit(step_of(accumulate=2), weighted(), batch=16, epochs=4, strategy=strategy,
                  hooks=all_hooks(KillAt(kill, act)), out=dw.Run(out, resume=True))  # fmt: skip


def resumed(strategy, out):
    try:
        cut(strategy, out, 7)
    except Stop:
        return cut(strategy, out)
    raise AssertionError("it was not killed")


def noisy(strategy, out, kill: int | None = None) -> dict[str, torch.Tensor]:
    run = dw.fit(step_of(Noisy(net())), samples(), batch=16, epochs=3, strategy=strategy,
                 hooks=[KillAt(kill), hooks.Checkpoint(seconds=0.0)],
                 out=dw.Run(out, resume=True))  # fmt: skip
    return dict(run.model.state_dict())


def sweep(strategy, out):
    """A finder of rates, which decides by the loss of every step."""
    with dw.place(strategy=strategy):
        found = dw.find_lr(dw.Classify(net()), samples(), steps=12, batch=16)
    return {"rates": torch.tensor(found.rates), "losses": torch.tensor(found.losses)}


SAME = (weights, uneven, accumulated, part, loader, resumed, sweep)  # to 1e-10 of one process


def blocks(out: Path) -> dw.Run:
    """fsdp with parts of their own, and an optimizer state that is divided."""
    from deepweave.core import sharding

    was, sharding.BLOCK = sharding.BLOCK, 10
    try:
        return dw.fit(step_of(), samples(), batch=16, epochs=2, strategy="fsdp")
    finally:
        sharding.BLOCK = was


def normed(strategy: str) -> dict[str, torch.Tensor]:
    """BatchNorm: statistics of the process's own rows; one step of SGD."""
    step = step_of(dw.Classify(net(norm=True)), "SGD", lr=0.5)
    batch = samples(13).x, samples(13).y
    run = dw.fit(step, [batch], epochs=1, strategy=strategy)
    return dict(run.model.state_dict())


def drawn() -> list[float]:
    objective = Drawn(net())
    dw.fit(step_of(objective), samples(), batch=16, epochs=1)
    return objective.drawn


def refused() -> dict[str, str]:
    """What two processes cannot do, each in one line."""
    population = dw.Population(dw.Classify(net()), 2)
    calls = {
        "devices": lambda: dw.fit(step_of(), samples(), epochs=1, devices=3),
        "batch": lambda: dw.fit(step_of(), samples(), epochs=1, batch=1),
        "muon": lambda: dw.fit(
            step_of(dw.Regress(nn.Linear(2, 1, bias=False)), "Muon"), samples(), epochs=1,
            strategy="fsdp"),
        "population": lambda: dw.fit(population, samples(), epochs=1, strategy="ddp"),
        "rows": lambda: dw.fit(
            step_of(Unchecked(nn.Linear(1, 1))), [(torch.ones(4, 1), torch.ones(4), torch.ones(3))],
            epochs=1),
    }  # fmt: skip
    found = {}
    for name, call in calls.items():
        try:
            call()
        except ValueError as error:
            found[name] = str(error)
    return found


def main(folder: Path) -> None:
    """Everything two processes do, each result in a file of its own."""
    for strategy in ("ddp", "fsdp"):
        for case in SAME:
            result = case(strategy, folder / f"{case.__name__} {strategy} {RANK}")
            if isinstance(result, dw.Run):
                assert (result.folder is None) == (
                    RANK > 0 or result.info.get("hooks", [])[-1] != "Checkpoint"
                )
                assert type(result.step.objective).__name__ in ("Classify", "Spare")
                assert result.step.engine is None
                result = told(result)
            archive.save(folder / f"{case.__name__} {strategy} {RANK}.safetensors", result)
        with contextlib.suppress(Stop):  # left for one process to go on with
            cut(strategy, folder / f"cut {strategy}", 7)
        again = cut(strategy, folder / f"alone {strategy}")  # begun by one process
        archive.save(folder / f"again {strategy} {RANK}.safetensors", told(again))
        whole = noisy(strategy, folder / f"noisy {strategy}")
        with contextlib.suppress(Stop):
            noisy(strategy, folder / f"noisy again {strategy}", 4)
        again = noisy(strategy, folder / f"noisy again {strategy}")
        archive.save(folder / f"noisy {strategy} {RANK}.safetensors", whole)
        archive.save(folder / f"noisy again {strategy} {RANK}.safetensors", again)
        archive.save(folder / f"normed {strategy} {RANK}.safetensors", normed(strategy))
    archive.save(folder / f"blocks {RANK}.safetensors", told(blocks(folder)))
    archive.save(folder / f"drawn {RANK}.safetensors", drawn())
    archive.save(folder / f"refused {RANK}.safetensors", refused())

    split = samples()
    sampler = DistributedSampler(split.y, shuffle=True, seed=5)
    feed = DataLoader(TensorDataset(split.x, split.y), batch_size=6, sampler=sampler)
    own = dw.fit(step_of(dw.Classify(net(), class_weight=[1.0, 2.0, 0.5])), feed, epochs=2)
    archive.save(folder / f"own {RANK}.safetensors", told(own))

    half = dw.fit(
        step_of(dw.Classify(net().float())), data32(), batch=16, epochs=2, precision="bf16"
    )
    archive.save(folder / f"bf16 {RANK}.safetensors", dict(half.model.state_dict()))
    scaled = dw.fit(step_of(dw.Classify(net().float())), data32(), batch=16, epochs=2,
                    precision="fp16", strategy="fsdp")  # fmt: skip
    archive.save(folder / f"fp16 {RANK}.safetensors", dict(scaled.model.state_dict()))

    many = dw.Population(dw.Classify(net()), 3, shared=True, lr=0.05)
    run = dw.fit(many, samples(), batch=16, epochs=2, out=folder / f"many {RANK}")
    archive.save(folder / f"many {RANK}.safetensors", run.step.weights())
    assert places.ASKED.get() == {}


def data32() -> dw.data.Split:
    split = samples()
    return dw.data.Split(split.x.float(), split.y)


def die(folder: Path, file: str, rank: int) -> None:
    """Two processes that no launcher watches; one of them is killed."""
    dist.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)

    def act() -> None:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    hook = KillAt(5, act)
    hook.after_step = lambda loop, logs: act() if loop.count == 5 else None
    try:
        dw.fit(step_of(accumulate=2), weighted(), batch=16, epochs=4,
               hooks=all_hooks(hook), out=folder / "died")  # fmt: skip
    except ConnectionError as error:
        print(error, file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if "--die" in sys.argv:
        RANK = int(sys.argv[4])
        die(Path(sys.argv[1]), sys.argv[3], RANK)
    else:
        main(Path(sys.argv[1]))
