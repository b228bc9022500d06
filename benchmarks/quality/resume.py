"""Does a run that is stopped and gone on with end at the same weights as one that is not?

A small network with dropout, shuffled batches, Adam, one thread. Each library runs four epochs at
once; then, in new processes, two epochs, and the other two from what it kept, as its docs say.
The answer is the largest difference between the two sets of weights: 0 means bit for bit.

    OMP_NUM_THREADS=1 python -m benchmarks.quality.resume
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import harness

EPOCHS, HALF, SIZE, SEED = 4, 2, 32, 0
ROOT = Path(__file__).parents[2]


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(512, 20, generator=generator), torch.randint(3, (512,), generator=generator)


def network() -> nn.Sequential:
    torch.manual_seed(SEED)
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 3))


def deepweave(until: int, folder: Path, middle: bool = False) -> list[np.ndarray]:
    """Stopped at an epoch's end, or with ``middle`` after 37 of the 64 steps."""
    from deepweave.core import Descent, Hook, fit
    from deepweave.data import Split
    from deepweave.hooks import Checkpoint
    from deepweave.objectives import Classify
    from deepweave.run import Run

    at = 37 if middle else HALF * len(samples()[0]) // SIZE

    class Kill(Hook):
        """What a power cut does: step ``at`` has a checkpoint, the one after is lost."""

        first = 0

        def after_step(self, loop: Any, logs: Any) -> None:
            self.first = self.first or loop.count
            if until < EPOCHS and loop.count == at + 1:
                raise SystemExit

    resume = (folder / "checkpoint").exists()
    model, kill = network(), Kill()
    step = Descent(Classify(model), "Adam", lr=1e-3)
    hooks = [Checkpoint(seconds=0.0), kill]
    run = Run(folder, resume=resume)
    try:
        fit(step, Split(*samples()), batch=SIZE, epochs=EPOCHS, seed=SEED, out=run, hooks=hooks)
    except SystemExit:
        return []
    if kill.first != (at + 1 if resume else 1):
        raise RuntimeError(f"went on at step {kill.first}, not at {at + 1}")
    return [weight.detach().numpy() for weight in model.parameters()]


def lightning(until: int, folder: Path) -> list[np.ndarray]:
    import pytorch_lightning as pl
    from torch.utils.data import DataLoader, TensorDataset

    class Network(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: Any, index: int) -> Tensor:
            x, y = batch
            return nn.functional.cross_entropy(self.model(x), y)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    pl.seed_everything(SEED, workers=True)
    kept = folder / "kept.ckpt"
    module = Network()
    loader = DataLoader(TensorDataset(*samples()), batch_size=SIZE, shuffle=True)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=until, deterministic=True, default_root_dir=folder,
        enable_progress_bar=False, logger=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(module, loader, ckpt_path=str(kept) if kept.exists() else None, weights_only=False)
    trainer.save_checkpoint(kept)
    return [weight.detach().numpy() for weight in module.model.parameters()]


def keras(until: int, folder: Path) -> list[np.ndarray]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras

    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((20,)),
            layers.Dense(32, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    # delete_checkpoint=False: a fit that ends by itself would else clear what it kept
    keep = keras.callbacks.BackupAndRestore(str(folder / "backup"), delete_checkpoint=False)
    x, y = (part.numpy() for part in samples())
    model.fit(x, y, batch_size=SIZE, epochs=until, callbacks=[keep], verbose=0)
    return [np.asarray(weight) for weight in model.get_weights()]


def middle(until: int, folder: Path) -> list[np.ndarray]:
    return deepweave(until, folder, middle=True)


LIBRARIES = {
    "deepweave, between two epochs": deepweave,
    "deepweave, in the midst of an epoch": middle,
    "Lightning, between two epochs": lightning,
    "Keras, between two epochs": keras,
}


def train(library: str, until: int, folder: Path) -> list[np.ndarray]:
    """One training, in a process of its own."""
    out = folder / f"weights-{until}.npz"
    command = [sys.executable, "-m", "benchmarks.quality.resume", "--library", library]
    command += ["--until", str(until), "--folder", str(folder), "--weights", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{library}: {done.stderr.strip().splitlines()[-1]}")
    with np.load(out) as kept:
        return [kept[name] for name in kept.files]


def difference(library: str) -> float:
    """The largest difference of a weight between four epochs at once and two and two."""
    with tempfile.TemporaryDirectory() as once, tempfile.TemporaryDirectory() as twice:
        whole = train(library, EPOCHS, Path(once))
        train(library, HALF, Path(twice))
        resumed = train(library, EPOCHS, Path(twice))
        again = train(library, EPOCHS, Path(tempfile.mkdtemp(dir=once)))
    if any((a != b).any() for a, b in zip(whole, again, strict=True)):
        print(f"{library}: two whole runs of one seed differ already", file=sys.stderr)
    return max(float(np.abs(a - b).max()) for a, b in zip(whole, resumed, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--library", choices=list(LIBRARIES))
    parser.add_argument("--until", type=int)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.library:
        np.savez(options.weights, *LIBRARIES[options.library](options.until, options.folder))
        return
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = {"largest_difference": difference(library)}
        except RuntimeError as error:
            print(error, file=sys.stderr)
            continue
        print(f"{library:40s} {found[library]['largest_difference']:.3g}")
    command = "OMP_NUM_THREADS=1 python -m benchmarks.quality.resume"
    print(harness.save("resume", found, command=command))


if __name__ == "__main__":
    main()
