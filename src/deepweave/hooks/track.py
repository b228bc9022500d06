"""Exporters: the history of a run to TensorBoard or MLflow, as it grows."""

from __future__ import annotations

import os
from typing import Any

from deepweave.core import Hook, Loop


class _Exporter(Hook):
    """Sends each new line of the history once."""

    def __init__(self) -> None:
        self._sent = 0

    def begin(self, loop: Loop) -> None:
        self._sent = len(loop.run.history)

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
        super().begin(loop)
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
        self._id = ""

    def begin(self, loop: Loop) -> None:
        super().begin(loop)
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise ImportError(
                'MLflow: needs the extra track: pip install "deepweave[track]"'
            ) from None
        self._client = MlflowClient(tracking_uri=self.address)
        found = self._client.get_experiment_by_name(self.experiment)
        number = found.experiment_id if found else self._client.create_experiment(self.experiment)
        self._id = self._client.create_run(number).info.run_id
        info = loop.run.info
        settings = {**info.get("settings", {}), "seed": loop.seed, "objective": info["objective"]}
        for name, value in settings.items():
            self._client.log_param(self._id, name, value)

    def send(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._client.log_metric(self._id, name, value, step=step)

    def end(self, loop: Loop) -> None:
        self._send(loop)
        self._client.set_terminated(self._id)
