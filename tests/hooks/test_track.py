from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.hooks import Checkpoint, Log, MLflow, TensorBoard, Validate

pytest.importorskip("tensorboard")
pytest.importorskip("mlflow")


class Stop(Exception): ...


class KillAt(dw.Hook):
    def __init__(self, step):
        self.step = step

    def after_step(self, loop, logs):
        if loop.count == self.step:
            raise Stop


def go(hook: dw.Hook, out, kill: int | None = None, members: int | None = None) -> dw.Run:
    torch.manual_seed(0)
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    data = [(x, x[:, 0])] * 3
    objective = dw.Regress(nn.Linear(2, 1))
    if members:
        step = dw.Population(objective, members, "SGD", lr=0.1, shared=True)
    else:
        step = dw.Descent(objective, "SGD", lr=0.1)
    hooks = [hook, KillAt(kill), Validate(data), Log(every=2), Checkpoint(seconds=0.0)]
    return dw.fit(step, data, epochs=4, hooks=hooks, out=out)


def expected(run: dw.Run) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the history, by name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in run.history:
        for name, value in row.items():
            if name in ("step", "epoch", "seconds"):
                continue
            parts = (
                {f"{name}/{i}": v for i, v in enumerate(value)}
                if isinstance(value, list)
                else {name: value}
            )
            for key, number in parts.items():
                found.setdefault(key, []).append((row["step"], number))
    return found


def same(found: dict[str, list[tuple[int, float]]], run: dw.Run) -> None:
    told = expected(run)
    assert found.keys() == told.keys()
    for name, rows in told.items():
        assert [step for step, _ in found[name]] == [step for step, _ in rows], name
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in rows], rel=1e-6)


def board(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.mark.parametrize("members", [None, 3])
def test_tensorboard_reads_back(tmp_path, members):
    run = go(TensorBoard(), tmp_path / "run", members=members)
    same(board(tmp_path / "run/tensorboard"), run)


def test_tensorboard_after_a_kill_sends_every_line_once(tmp_path):
    with pytest.raises(Stop):
        go(TensorBoard(), tmp_path / "run", kill=8)
    run = go(TensorBoard(), dw.Run(tmp_path / "run", resume=True))
    found = board(tmp_path / "run/tensorboard")
    told = expected(run)
    for name, rows in told.items():
        steps = [step for step, _ in found[name]]
        assert sorted(set(steps)) == [step for step, _ in rows]
        assert len(steps) == len(set(steps)), f"{name}: a line was sent twice"


def test_tensorboard_needs_a_folder():
    step = dw.Descent(dw.Regress(nn.Linear(2, 1)), "SGD", lr=0.1)
    with pytest.raises(ValueError, match=r"TensorBoard: the run has no folder: pass TensorBoard"):
        dw.fit(step, [(torch.ones(2, 2), torch.ones(2))], steps=1, hooks=[TensorBoard()])


def store(address: str):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=address)
    experiment = client.get_experiment_by_name("deepweave")
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id])


@pytest.fixture
def address(tmp_path, monkeypatch) -> str:
    # MLflow wants to be told that files will do; a database needs the whole mlflow, not the skinny.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file://{tmp_path}/mlflow"


@pytest.mark.parametrize("members", [None, 2])
def test_mlflow_reads_back(tmp_path, address, members):
    run = go(MLflow(address), tmp_path / "run", members=members)
    client, (kept,) = store(address)
    assert kept.info.status == "FINISHED"
    assert kept.data.params["seed"] == "0"
    assert kept.data.params["objective"] == "Regress"
    found = {}
    for name in kept.data.metrics:
        rows = client.get_metric_history(kept.info.run_id, name)
        found[name] = sorted((row.step, row.value) for row in rows)
    same(found, run)


def test_mlflow_after_a_kill_goes_on_with_its_run(tmp_path, address):
    with pytest.raises(Stop):
        go(MLflow(address), tmp_path / "run", kill=8)
    run = go(MLflow(address), dw.Run(tmp_path / "run", resume=True))
    client, (kept,) = store(address)
    assert kept.info.status == "FINISHED"
    history = client.get_metric_history(kept.info.run_id, "validation/loss")
    assert sorted(row.step for row in history) == [s for s, _ in expected(run)["validation/loss"]]
