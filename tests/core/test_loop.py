from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import deepweave as dw
from deepweave.hooks import Checkpoint, Validate


class Stop(Exception):
    """Stands for a kill in the middle of a run."""


class KillAt(dw.Hook):
    def __init__(self, step: int | None):
        self.step = step

    def after_step(self, loop, logs):
        if loop.count == self.step:
            raise Stop


class Noisy(dw.Classify):
    """Draws from every global generator that a user's method might."""

    def forward(self, batch):
        x, y = batch
        x = x + 0.1 * torch.randn_like(x) + 0.01 * float(np.random.rand())
        return super().forward((x, y))


def samples(n: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=g), torch.randint(0, 3, (n,), generator=g)


def sources():
    x, y = samples()
    return {
        "split": lambda: dw.data.Split(x, y).batches(16),
        "list": lambda: [(x[i : i + 16], y[i : i + 16]) for i in range(0, 90, 16)],
        "loader": lambda: DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True),
    }


def step_of(kind: str, accumulate: int = 1) -> dw.Step:
    torch.manual_seed(0)
    net = dw.nn.mlp((6, 3), hidden=(8,), dropout=0.3, norm="batch")
    if kind == "population":
        return dw.Population(Noisy(net), 3, shared=True, lr=[1e-3, 1e-2, 1e-1])
    return dw.Descent(Noisy(net), "AdamW", lr=1e-2, accumulate=accumulate)


def hooks_for(kind: str, kill: int | None = None) -> list[dw.Hook]:
    validation = dw.data.Split(*samples()[:2])
    return [
        KillAt(kill),
        dw.hooks.Clip(norm=1.0),
        dw.hooks.Schedule(dw.hooks.one_cycle, warmup=3),
        dw.hooks.Average(0.9),
        Validate(validation, patience=50),
        dw.hooks.Log(every=4),
        dw.hooks.Checkpoint(seconds=0.0),
    ]


@pytest.mark.parametrize("source", ["split", "list", "loader"])
@pytest.mark.parametrize(
    ("kind", "accumulate"), [("descent", 1), ("descent", 4), ("population", 1)]
)
@pytest.mark.parametrize("kill", [1, 6, 7, 17])
def test_resume_gives_the_same_bytes(tmp_path, source, kind, accumulate, kill):
    make = sources()[source]
    whole = dw.fit(step_of(kind, accumulate), make(), epochs=4, seed=3, hooks=hooks_for(kind),
                   out=tmp_path / "whole")  # fmt: skip
    with pytest.raises(Stop):
        dw.fit(step_of(kind, accumulate), make(), epochs=4, seed=3, hooks=hooks_for(kind, kill),
               out=tmp_path / "cut")  # fmt: skip
    torch.rand(7)  # whatever happens in between
    np.random.rand(3)
    again = dw.fit(step_of(kind, accumulate), make(), epochs=4, seed=3, hooks=hooks_for(kind),
                   out=dw.Run(tmp_path / "cut", resume=True))  # fmt: skip
    for name, value in whole.step.weights().items():
        assert torch.equal(again.step.weights()[name], value), name
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (
        tmp_path / "whole/model.safetensors"
    ).read_bytes()
    drop = ("seconds",)
    lines = [
        [{k: v for k, v in json.loads(row).items() if k not in drop}
         for row in (tmp_path / where / "log.jsonl").read_text().splitlines()]
        for where in ("whole", "cut")
    ]  # fmt: skip
    assert lines[0] == lines[1]
    assert again.history[-1]["step"] == whole.history[-1]["step"]


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    make = sources()["split"]
    one = dw.fit(step_of("descent"), make(), epochs=2, hooks=hooks_for(""), out=tmp_path / "a")
    weights = {k: v.clone() for k, v in one.step.weights().items()}
    two = dw.fit(step_of("descent"), make(), epochs=2, hooks=hooks_for(""),
                 out=dw.Run(tmp_path / "a", resume=True))  # fmt: skip
    assert all(torch.equal(two.step.weights()[k], v) for k, v in weights.items())


@pytest.mark.parametrize("source", ["split", "loader"])
def test_the_seed_alone_decides(source):
    torch.manual_seed(5)
    runs = []
    for seed in (0, 0, 1):
        torch.rand(3)  # the state outside must not matter
        runs.append(dw.fit(step_of("descent"), sources()[source](), epochs=2, seed=seed))
    first, second, third = (run.step.weights()["model.0.weight"] for run in runs)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_validation_does_not_disturb_training():
    make = sources()["loader"]
    x, y = samples(30)
    plain = dw.fit(step_of("descent"), make(), epochs=3)
    loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    watched = dw.fit(step_of("descent"), make(), epochs=3, hooks=[Validate(loader, restore=False)])
    for name, value in plain.step.weights().items():
        assert torch.equal(watched.step.weights()[name], value), name


def test_fit_leaves_the_outer_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    step = dw.Descent(dw.Classify(nn.Linear(6, 3)))
    torch.manual_seed(1)
    dw.fit(step, sources()["list"](), epochs=1)
    assert torch.equal(torch.rand(2), expected)


def test_steps_end_mid_epoch_and_are_validated():
    seen = Validate(dw.data.Split(*samples()))
    run = dw.fit(step_of("descent"), sources()["split"](), steps=10, hooks=[seen])
    assert run.history[-1]["step"] == 10
    assert seen.seen == 10
    assert run.info["steps"] == 10


def test_generators_and_populations_with_own_orders():
    def stream():
        yield from sources()["list"]()

    run = dw.fit(step_of("descent"), stream(), steps=4)
    assert run.info["steps"] == 4
    torch.manual_seed(0)
    net = dw.nn.mlp((6, 3), hidden=(8,))
    own = dw.Population(dw.Classify(net), 3, lr=1e-2)
    run = dw.fit(own, dw.data.Split(*samples()), batch=16, epochs=2)
    assert run.info["steps"] == 12
    assert torch.isfinite(own.weights()["model.0.weight"]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "give epochs= or steps="),
        ({"epochs": 0}, ValueError, "epochs must be at least 1, got 0"),
        ({"steps": -1}, ValueError, "steps must be at least 1, got -1"),
        ({"epochs": 1, "batch": 5}, TypeError, "these batches come ready-made"),
        ({"epochs": 1, "lr": 0.1}, TypeError, "lr: options go to the step itself"),
    ],
)
def test_bad_fits(arguments, error, message):
    with pytest.raises(error, match=message):
        dw.fit(step_of("descent"), sources()["list"](), **arguments)


def test_no_batches():
    with pytest.raises(ValueError, match="gave no batches"):
        dw.fit(step_of("descent"), [], epochs=3)
    used = iter(sources()["list"]())
    list(used)
    with pytest.raises(ValueError, match="gave no batches"):
        dw.fit(step_of("descent"), used, epochs=3)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(4, 6), torch.tensor([0, 1, 2, 3]), r"labels must lie in 0..2, got 0..3"),
        (torch.zeros(4, 6), torch.tensor([0, 1, -1, 2]), r"labels must lie in 0..2, got -1..2"),
        (torch.full((4, 6), torch.nan), torch.zeros(4).long(), "24 of the inputs are not finite"),
        (torch.zeros(4, 5), torch.zeros(4).long(), r"cannot take inputs of \(4, 5\)"),
        (torch.zeros(4, 6), torch.zeros(3).long(), "4 inputs and 3 targets"),
        (torch.zeros(4, 6), torch.zeros(4), "targets must be .* of int64"),
    ],
)
def test_a_bad_first_batch_is_refused_before_any_work(tmp_path, x, y, message):
    step = dw.Descent(dw.Classify(dw.nn.mlp((6, 3))))
    before = {k: v.clone() for k, v in step.weights().items()}
    with pytest.raises(ValueError, match=message):
        dw.fit(step, [(x, y)], epochs=1, out=tmp_path / "run")
    assert all(torch.equal(step.weights()[k], v) for k, v in before.items())
    assert json.loads((tmp_path / "run/run.json").read_text())["status"] == "failed"


def test_a_taken_folder_is_refused(tmp_path):
    make = sources()["list"]
    dw.fit(step_of("descent"), make(), epochs=1, out=tmp_path / "a")
    with pytest.raises(ValueError, match="holds a run already"):
        dw.fit(step_of("descent"), make(), epochs=1, out=tmp_path / "a")


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    make = sources()["list"]
    dw.fit(step_of("descent"), make(), epochs=1, out=tmp_path / "a")
    other = dw.Descent(Noisy(dw.nn.mlp((6, 3), hidden=(9,))), lr=1e-2)
    with pytest.raises(ValueError, match="is of another run: its weights"):
        dw.fit(other, make(), epochs=1, out=dw.Run(tmp_path / "a", resume=True))
    with pytest.raises(ValueError, match="is of another run: its seed is 0, here it is 1"):
        dw.fit(step_of("descent"), make(), epochs=1, seed=1,
               out=dw.Run(tmp_path / "a", resume=True))  # fmt: skip


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    make = sources()["list"]
    dw.fit(step_of("descent"), make(), epochs=1, out=tmp_path / "a")
    path = tmp_path / "a/checkpoint/last.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        content[-3] ^= 0xFF
    elif damage == "foreign":
        from safetensors.torch import save

        content = save({"a": torch.zeros(2)})
    else:
        content = b""
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"archive: .*last.safetensors.*(damaged|expected)"):
        dw.fit(step_of("descent"), make(), epochs=1, out=dw.Run(tmp_path / "a", resume=True))


def test_a_full_disk_leaves_the_earlier_checkpoint(tmp_path, monkeypatch):
    import os

    make, hooks = sources()["list"], [KillAt(5), Checkpoint(seconds=0.0)]
    with pytest.raises(Stop):
        dw.fit(step_of("descent"), make(), epochs=4, hooks=hooks, out=tmp_path / "a")
    path = tmp_path / "a/checkpoint/last.safetensors"
    before = path.read_bytes()
    real = os.fsync

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        dw.run.write_whole(path, b"new")
    monkeypatch.setattr(os, "fsync", real)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_after_an_error_the_same_step_learns_on(batch):
    """Half a step must not leak: no stale slopes, no hook left on the optimizer."""
    x, y = batch
    bad = x.clone()
    bad[0, 0] = torch.nan
    step = dw.Descent(dw.Classify(dw.nn.mlp((6, 3))), "SGD", lr=0.1, accumulate=2)
    with pytest.raises(FloatingPointError, match="step 4: the batch has 1 number in its inputs"):
        dw.fit(step, [(x, y), (x, y), (x, y), (bad, y)], epochs=1)
    assert not step.optimizer._optimizer_step_pre_hooks
    before = {k: v.clone() for k, v in step.weights().items()}
    dw.fit(step, [(x, y)], steps=2)
    after = step.weights()
    assert all(after[k].isfinite().all() for k in after)
    assert not torch.equal(before["model.0.weight"], after["model.0.weight"])
