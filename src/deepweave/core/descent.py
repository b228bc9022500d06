"""Descent: one optimizer on one objective."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from deepweave.core.objective import Batch, Logs, Objective, Step, Weights


def make_optimizer(
    optimizer: str | Optimizer | Callable[..., Optimizer], weights: Sequence[Tensor], **options: Any
) -> Optimizer:
    """An optimizer over weights, from a name of ``torch.optim``, a class, or an instance.

    Options that are None are left to the optimizer's own defaults. Where the optimizer has a
    fused form it is used (on a CPU, too, the default form costs a quarter more per step).

    >>> make_optimizer("sgd", [torch.zeros(1, requires_grad=True)], lr=0.1).defaults["lr"]
    0.1
    """
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(optimizer, Optimizer):
        if options:
            raise ValueError(f"optimizer: an instance takes no further options, got {options}")
        return optimizer
    if isinstance(optimizer, str):
        names = {n.lower(): n for n in dir(torch.optim) if inspect.isclass(getattr(torch.optim, n))}
        if optimizer.lower() not in names or optimizer.lower() == "optimizer":
            known = ", ".join(sorted(set(names.values()) - {"Optimizer"}))
            raise ValueError(f"optimizer: expected one of {known}, got {optimizer!r}")
        optimizer = getattr(torch.optim, names[optimizer.lower()])
    make: Any = optimizer
    takes = inspect.signature(make).parameters
    unknown = [n for n in options if n not in takes]
    if unknown and not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        name = getattr(make, "__name__", repr(make))
        raise ValueError(f"{name}: takes {', '.join(list(takes)[1:])}, got {', '.join(unknown)}")
    plain = all(w.is_floating_point() and w.device.type in ("cpu", "cuda") for w in weights)
    if "fused" in takes and "fused" not in options and plain:
        options["fused"] = True
    return make(list(weights), **options)


class Descent(Step):
    """One optimizer on one objective, or on one part of it.

    Args:
        objective: what is minimised.
        optimizer: a name in ``torch.optim``, a class or callable of parameters, or an instance.
        only: a module inside the objective (or its parameters) to train; all else stays.
        lr, **options: the optimizer's own.
        accumulate: how many batches make one update; their mean gradient is used.

    >>> from deepweave.objectives import Regress
    >>> step = Descent(Regress(nn.Linear(2, 1)), "SGD", lr=0.1)
    >>> float(step((torch.ones(4, 2), torch.ones(4)))["loss"]) >= 0
    True
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: str | Optimizer | Callable[..., Optimizer] = "AdamW",
        only: nn.Module | Iterable[Tensor] | None = None,
        *,
        lr: float | None = None,
        accumulate: int = 1,
        **options: Any,
    ):
        if accumulate < 1:
            raise ValueError(f"Descent: accumulate must be at least 1, got {accumulate}")
        part = objective if only is None else only
        weights = list(part.parameters() if isinstance(part, nn.Module) else part)
        weights = [w for w in weights if w.requires_grad]
        if not weights:
            raise ValueError("Descent: nothing to train: no parameter requires a gradient")
        self.objective = objective
        self.optimizer = make_optimizer(optimizer, weights, lr=lr, **options)
        self.accumulate = accumulate
        self.engine: Any = None  # how several processes or fp16 learn, while fit runs
        self._weights = self.trained
        self._inputs = None if only is None else weights
        self._waiting = 0  # batches whose gradients wait for the update

    @property
    def optimizers(self) -> list[Optimizer]:
        return [self.optimizer]

    @property
    def trained(self) -> list[Tensor]:
        """The weights the optimizer changes."""
        return [w for group in self.optimizer.param_groups for w in group["params"]]

    def __call__(self, batch: Batch) -> Logs:
        if self.engine is not None:
            return self.engine(batch)
        loss, logs = self.objective(batch)
        scaled = loss if self.accumulate == 1 else loss / self.accumulate
        scaled.backward(inputs=self._inputs)
        if self.ready():
            self.optimizer.step()
            for weight in self._weights:  # what zero_grad does, in a tenth of its time
                weight.grad = None
        return {"loss": loss.detach(), **logs}

    def ready(self) -> bool:
        """Count a batch; whether the slopes that wait are enough for an update."""
        self._waiting = (self._waiting + 1) % self.accumulate
        return self._waiting == 0

    def weights(self) -> Weights:
        return super().weights() if self.engine is None else self.engine.weights()

    def state(self) -> dict[str, Any]:
        slopes = {n: w.grad for n, w in self.objective.named_parameters() if w.grad is not None}
        return {**super().state(), "waiting": self._waiting, "slopes": slopes}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._waiting = state["waiting"]
        for name, weight in self.objective.named_parameters():
            weight.grad = state["slopes"].get(name)
