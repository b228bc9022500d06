"""What a training loop costs: ten epochs of a small network, by each library as its docs say.

Network 64-128-128-10 with ReLU, batches of 128, Adam, float32, 12,800 random samples, one thread.
"as shipped" is the form of a library's own first page, with its bar, log and checkpoints; "bare"
has all of that switched off and gets the batches ready-made. A call is everything from data in
memory to a trained network: model, optimizer, loader, ten epochs. Progress goes to /dev/null.

Each peer lives in a process of its own, kept alive and told through a pipe to run one round, so
that what a library patches stays with it and the rounds alternate all the same.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.loop
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import harness

SAMPLES, SIZE, EPOCHS, RATE = 12_800, 128, 10, 1e-3
STEPS = EPOCHS * SAMPLES // SIZE
Call = Callable[[], Any]


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, 64, generator=generator)
    return x, torch.randint(0, 10, (SAMPLES,), generator=generator)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def batches() -> list[tuple[Tensor, Tensor]]:
    x, y = samples()
    return list(zip(x.split(SIZE), y.split(SIZE)))


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(*samples()), batch_size=SIZE, shuffle=True)


def plain() -> dict[str, Call]:
    """The yardstick: the loop that everybody writes by hand."""
    ready, shuffled = batches(), loader()

    def train(source: Any) -> None:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
        for _ in range(EPOCHS):
            for x, y in source:
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

    return {
        "raw PyTorch, ready batches": lambda: train(ready),
        "raw PyTorch, DataLoader": lambda: train(shuffled),
    }


def deepweave() -> dict[str, Call]:
    from deepweave.core import Descent, fit
    from deepweave.data import Split
    from deepweave.hooks import Log, Progress
    from deepweave.objectives import Classify

    ready, split = batches(), Split(*samples())

    def full() -> None:
        step = Descent(Classify(network()), "Adam", lr=RATE)
        fit(step, split, batch=SIZE, epochs=EPOCHS, hooks=[Log(), Progress()])  # Guard by default

    def bare() -> None:
        fit(Descent(Classify(network()), "Adam", lr=RATE), ready, epochs=EPOCHS)

    return {"deepweave": full, "deepweave, bare": bare}


def lightning() -> dict[str, Call]:
    import pytorch_lightning as pl

    class Ready:  # a bare list would be taken for one loader per entry
        parts = batches()

        def __iter__(self) -> Any:
            return iter(self.parts)

        def __len__(self) -> int:
            return len(self.parts)

    shuffled = loader()
    folder = tempfile.mkdtemp()

    class Network(pl.LightningModule):
        def __init__(self, tell: bool):
            super().__init__()
            self.tell, self.model = tell, network()

        def training_step(self, batch: Any, index: int) -> Tensor:
            x, y = batch
            loss = F.cross_entropy(self.model(x), y)
            if self.tell:
                self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=RATE, fused=True)

    def shipped() -> None:
        trainer = pl.Trainer(accelerator="cpu", max_epochs=EPOCHS, default_root_dir=folder)
        trainer.fit(Network(True), shuffled)

    def bare() -> None:
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=EPOCHS, logger=False, enable_progress_bar=False,
            enable_checkpointing=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(Network(False), Ready())

    return {"Lightning, as shipped": shipped, "Lightning, bare": bare}


def keras() -> dict[str, Call]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    x, y = (part.numpy() for part in samples())

    def train() -> None:
        model = keras.Sequential(
            [
                keras.Input((64,)),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=keras.optimizers.Adam(RATE), loss=loss)
        model.fit(x, y, batch_size=SIZE, epochs=EPOCHS)

    return {"Keras, as shipped": train}


def skorch() -> dict[str, Call]:
    from skorch import NeuralNetClassifier

    x, y = (part.numpy() for part in samples())

    def train() -> None:
        net = NeuralNetClassifier(
            network, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, lr=RATE,
            optimizer__fused=True, max_epochs=EPOCHS, batch_size=SIZE,
            iterator_train__shuffle=True, train_split=None,
        )  # fmt: skip
        net.fit(x, y)

    return {"skorch, as shipped": train}


def accelerate() -> dict[str, Call]:
    from accelerate import Accelerator

    def train() -> None:
        accelerator = Accelerator(cpu=True)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
        model, optimizer, source = accelerator.prepare(model, optimizer, loader())
        for _ in range(EPOCHS):
            for x, y in source:
                optimizer.zero_grad()
                accelerator.backward(F.cross_entropy(model(x), y))
                optimizer.step()

    return {"Accelerate, DataLoader": train}


def fastai() -> dict[str, Call]:
    from fastai.basics import DataLoaders, Learner
    from fastai.callback import progress
    from fastai.data.core import DataLoader as FastLoader

    assert progress is not None  # its import adds the bar, as fastai.vision and others do
    data = TensorDataset(*samples())
    few = TensorDataset(*(part[:SIZE] for part in samples()))

    def train() -> None:
        both = DataLoaders(FastLoader(data, bs=SIZE, shuffle=True), FastLoader(few, bs=SIZE))
        Learner(both, network(), loss_func=F.cross_entropy).fit(EPOCHS, RATE)

    return {"fastai, as shipped": train}


PEERS = {
    "lightning": lightning, "keras": keras, "skorch": skorch, "accelerate": accelerate,
    "fastai": fastai,
}  # fmt: skip


def serve(library: str, pipe: Connection) -> None:
    """A peer's process: build its contenders, then run what the pipe names until it closes."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        calls = PEERS[library]()
        pipe.send(list(calls))
    except Exception as error:  # the peer is not there, or does not run beside this torch
        pipe.send(f"{type(error).__name__}: {error}")
        return
    with contextlib.suppress(EOFError):
        while name := pipe.recv():
            calls[name]()
            pipe.send("done")


def start(library: str) -> tuple[dict[str, Call], Any]:
    """The contenders of a peer, each of which makes its process run once; and the process."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(library, there), daemon=True)
    process.start()
    there.close()
    try:
        names = here.recv()
    except EOFError:
        names = "it ended"
    if isinstance(names, str):
        print(f"{library} is left out: {names}", file=sys.stderr)
        return {}, process

    def ask(name: str) -> None:
        here.send(name)
        if here.recv() != "done":
            raise RuntimeError(f"{library} failed")

    return {name: (lambda name=name: ask(name)) for name in names}, process


@contextlib.contextmanager
def silent() -> Any:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def quietly(call: Call) -> Call:
    def run() -> None:
        with silent():
            call()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--out", default="loop", help="the name in benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    calls = {name: quietly(call) for name, call in {**plain(), **deepweave()}.items()}
    processes = []
    for library in options.peers:
        more, process = start(library)
        calls |= more
        processes.append(process)
    found = harness.compare(calls, rounds=options.rounds)
    to_raw = harness.against(found, "raw PyTorch, ready batches")
    for name, row in found.items():
        row["microseconds_per_step"] = row["seconds"] / STEPS * 1e6
        row |= {key.replace("ratio", "raw_ratio"): value for key, value in to_raw[name].items()}
    for process in processes:
        process.terminate()
    command = "OMP_NUM_THREADS=1 python -m benchmarks.speed.loop"
    print(harness.table(found, 1e6 / STEPS, "us per step"))
    print(harness.save(options.out, found, command=command))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(Path(__file__).parents[2])
    main()
