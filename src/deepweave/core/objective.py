"""The contracts: an objective maps a batch to a loss, a step learns from a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import Optimizer

Batch = Any  # a tensor or a nested tuple of tensors
Logs = dict[str, Tensor]
Weights = dict[str, Tensor]


def rows(batch: Batch) -> int:
    """How many samples a batch has: the length of the first tensor in it."""
    if isinstance(batch, Tensor):
        return len(batch)
    return rows(next(iter(batch.values() if isinstance(batch, dict) else batch)))


def mapped(change: Callable[[Tensor], Any], tree: Any) -> Any:
    """Change every tensor of a batch: of tuples, named tuples, lists and dictionaries.

    A list becomes a tuple; what is no tensor, such as None, stays as it is.

    >>> mapped(lambda t: t + 1, (torch.zeros(1), [None, torch.ones(1)]))
    (tensor([1.]), (None, tensor([2.])))
    """
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, dict):
        return {name: mapped(change, part) for name, part in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [mapped(change, part) for part in tree]
        named = hasattr(tree, "_fields")
        return type(tree)(*parts) if named else tuple(parts)
    return tree


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in evaluation mode; each of its parts is put back as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


class Objective(nn.Module, ABC):
    """A method as a module: owns what it trains, maps a batch to a loss and to scalars to log.

    An objective without labels may have ``judge(batch)``, numbers (B,) of each sample by name whose
    means over the test set are its scores (``nll`` in nats, ``bits_per_dim``), and ``plain(x)``,
    which makes the same of a baseline fitted to training inputs value by value. One that only makes
    samples has ``sample(count, y=None)``; its samples are then compared with the test set.

    ``comparable`` is False where a lower held-out loss is no better model, as with two sides that
    play against each other: no run stops early by it, or ends with the weights that had it.

    Register each module once: an alias of a registered module is a property, never a second
    attribute, or nested ``functional_call`` breaks.
    """

    comparable: bool = True

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The loss of a batch, a scalar, and detached scalars worth logging."""

    def at(
        self, weights: Weights, buffers: Weights, batch: Batch
    ) -> tuple[Tensor, tuple[Logs, Weights]]:
        """The same loss as a pure function of the weights: ``(loss, (logs, new buffers))``.

        Nothing is changed in place, so ``grad``, ``vmap`` and ``jacrev`` of :mod:`torch.func`
        apply (with ``has_aux=True``). Buffers, such as BatchNorm's running statistics, are state
        that is passed in and returned.
        """
        buffers = {name: value.clone() for name, value in buffers.items()}
        loss, logs = functional_call(self, (weights, buffers), (batch,))
        return loss, (logs, buffers)

    def predict(self, x: Any) -> Tensor:
        """What the trained method says of inputs, in the form that metrics take."""
        raise TypeError(f"{type(self).__name__}: has no predictions of its own")

    def mass(self, batch: Batch) -> float | Tensor:
        """What a batch counts for in a mean over batches: its samples, or the sum of their weights.

        The loss of a batch in parts is sum_r m_r loss_r / sum_r m_r. An objective that weighs
        its samples has ``importance(y, weight)``, as the supervised ones do; one whose loss is
        another kind of mean says here what it is.
        """
        inner = getattr(self, "objective", None)
        if isinstance(inner, Objective):
            return inner.mass(batch)
        weigh = getattr(self, "importance", None)
        if weigh is not None and isinstance(batch, tuple | list) and len(batch) in (2, 3):
            found = weigh(batch[1], batch[2] if len(batch) == 3 else None)
            if found is not None:
                return found.double().sum()
        return rows(batch)

    def check(self, batch: Batch) -> None:
        """Raise ValueError, in one line, for a batch this objective cannot learn from.

        ``fit`` calls it once, with the first batch, before any work is done.
        """


def innermost(objective: Any) -> Any:
    """The objective that others are wrapped around, or the objective itself."""
    while isinstance(getattr(objective, "objective", None), nn.Module):
        objective = objective.objective
    return objective


class Step(ABC):
    """Anything that learns from one batch, in place."""

    objective: Objective
    members: int | None = None  # how many copies learn at once; None: one, without that dimension
    shared: bool = True  # whether all members see the same batch

    @abstractmethod
    def __call__(self, batch: Batch) -> Logs:
        """Learn from one batch; return detached tensors, one per quantity worth logging."""

    @property
    def optimizers(self) -> list[Optimizer]:
        """The optimizers whose ``step`` hooks may watch, clip or schedule."""
        return []

    def check(self, batch: Batch) -> None:
        """Refuse a first batch that cannot be learnt from, in one line, before any work."""
        self.objective.check(batch)

    def evaluate(self, batch: Batch) -> Logs:
        """The loss and logs of a batch without learning from it."""
        with torch.no_grad():
            loss, logs = self.objective(batch)
        return {"loss": loss, **logs}

    def predict(self, x: Any) -> Tensor:
        """What the trained method says of inputs, in evaluation mode: nothing is dropped."""
        with torch.no_grad(), evaluating(self.objective):
            return self.objective.predict(x)

    def chosen(self) -> Objective:
        """The objective that a run hands over once trained."""
        return self.objective

    def weights(self) -> Weights:
        """Everything trained and every buffer, live: changed in place, they change the step."""
        return self.objective.state_dict()

    @torch.no_grad()
    def load_weights(self, weights: Weights) -> None:
        """Copy weights, as of :meth:`weights`, into place."""
        own = self.weights()
        if own.keys() != weights.keys():
            odd = sorted(own.keys() ^ weights.keys())[0]
            raise ValueError(f"fit: these weights are of another model: {odd} is in one only")
        for name, value in own.items():
            if value.shape != weights[name].shape:
                raise ValueError(
                    f"fit: {name} must be {tuple(value.shape)}, got {tuple(weights[name].shape)}"
                )
            value.copy_(weights[name])

    def to(self, device: torch.device | str) -> Step:
        """Move everything that learns to a device."""
        self.objective.to(device)
        return self

    def state(self) -> dict[str, Any]:
        """All that must survive a kill, as nested containers of tensors and plain values."""
        return {
            "weights": self.weights(),
            "optimizers": [one.state_dict() for one in self.optimizers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` gave."""
        self.load_weights(state["weights"])
        for one, saved in zip(self.optimizers, state["optimizers"], strict=True):
            one.load_state_dict(saved)
