"""Exporters: the history of a run to TensorBoard or MLflow, as it grows."""

from __future__ import annotations

import os
from typing import Any

from deepweave.core import Hook, Loop


class _Exporter(Hook):
    """Sends each new line of the history once, also when a run is gone on with."""

    writes = True

    def __init__(self) -> None:
        self._sent = 0

    def state(self) -> dict[str, Any]:
        return {"sent": self._sent}

    def restore(self, state: dict[str, Any]) -> None:
        self._sent = state["sent"]

    def after_epoch(self, loop: Loop) -> None:
        self._send(loop)

    def _send(self, loop: Loop) -> None:
        for entry in loop.run.history[self._sent :]:
            scalars = {}
            for name, value in entry.items():
                if name in ("step", "epoch", "seconds"):
                    continue
                parts = value if isinstance(value, list) else [value]
                names = [name] if value is parts[0] else [f"{name}/{i}" for i in range(len(parts))]
                scalars |= {n: float(v) for n, v in zip(names, parts) if v is not None}
            self.send(entry["step"], scalars)
        self._sent = len(loop.run.history)

    def send(self, step: int, scalars: dict[str, float]) -> None:
        """Write the scalars of one step."""
        raise TypeError


class TensorBoard(_Exporter):
    """Write event files for TensorBoard (extra ``track``)."""

    def __init__(self, folder: str | os.PathLike[str] | None = None):
        super().__init__()
        self.folder = folder
        self._writer: Any = None

    def begin(self, loop: Loop) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError(
                'TensorBoard: needs the extra track: pip install "deepweave[track]"'
            ) from None
        folder = self.folder or (loop.run.folder and loop.run.folder / "tensorboard")
        if folder is None:
            raise ValueError("TensorBoard: the run has no folder: pass TensorBoard(folder)")
        self._writer = SummaryWriter(str(folder))

    def send(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def end(self, loop: Loop) -> None:
        self._send(loop)
        self._writer.close()


class MLflow(_Exporter):
    """Log metrics and settings to an MLflow tracking store (extra ``track``)."""

    def __init__(self, address: str | None = None, *, experiment: str = "deepweave"):
        super().__init__()
        self.address, self.experiment = address, experiment
        self._client: Any = None
        self._number = self._id = ""
        self._settings: dict[str, Any] = {}

    def begin(self, loop: Loop) -> None:
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise ImportError(
                'MLflow: needs the extra track: pip install "deepweave[track]"'
            ) from None
        self._client = MlflowClient(tracking_uri=self.address)
        found = self._client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else self._client.create_experiment(self.experiment)
        self._number = number
        info = loop.run.info
        own = {"seed": loop.seed, "objective": info["objective"]}
        self._settings = {**info.get("settings", {}), **own}

    def send(self, step: int, scalars: dict[str, float]) -> None:
        if not self._id:  # only now is it known whether a checkpoint holds the run to go on with
            self._id = self._client.create_run(self._number).info.run_id
            for name, value in self._settings.items():
                self._client.log_param(self._id, name, value)
        for name, value in scalars.items():
            self._client.log_metric(self._id, name, value, step=step)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "id": self._id}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._id = state["id"]

    def end(self, loop: Loop) -> None:
        self._send(loop)
        if self._id:
            self._client.set_terminated(self._id)
