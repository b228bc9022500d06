"""What objectives that hold another objective share."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepweave.core import Batch, Objective


class Wrapper(Objective):
    """An objective around another: its model, its predictions and its checks pass through."""

    def __init__(self, objective: Objective):
        super().__init__()
        if not isinstance(objective, Objective):
            kind = type(objective).__name__
            hint = ": wrap the model in one first" if isinstance(objective, nn.Module) else ""
            raise TypeError(f"{type(self).__name__}: expected an objective, got {kind}{hint}")
        self.objective = objective

    @property
    def model(self) -> Any:
        """The model inside, for objectives that have one."""
        return self.objective.model

    @property
    def comparable(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether a lower held-out loss is a better model: as of what is inside."""
        return self.objective.comparable

    def predict(self, x: Any) -> Tensor:
        return self.objective.predict(x)

    def check(self, batch: Batch) -> None:
        self.objective.check(batch)
