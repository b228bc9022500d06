"""What every objective must hold."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import stack_module_state, vmap

from deepweave import chance
from deepweave.core import Batch, Descent, Objective, Population
from deepweave.testing.models import expect, near, reached, seeded, stirred


def check_objective(
    make: Callable[[], Objective],
    batch: Batch,
    *,
    lr: float = 1e-2,
    steps: int = 30,
    random: bool = False,
) -> None:
    """Check an objective: a scalar loss, detached logs, exact slopes, purity, members, learning.

    Args:
        make: draws a new objective each time it is called.
        batch: a batch it can learn from.
        lr, steps: of the descent that must lower the loss of this batch.
        random: whether the loss draws random numbers also in evaluation mode, as that of a
            variational autoencoder does.

    Raises:
        AssertionError: names the first check that fails.
    """
    objective = seeded(make)
    objective.check(batch)
    with chance.aside(0):
        loss, logs = objective(batch)
    expect(loss.shape == (), f"the loss must be a scalar, got {tuple(loss.shape)}")
    expect(bool(loss.isfinite()), "the loss must be finite")
    for mode in (objective.train, objective.eval):
        mode()
        logs = objective(batch)[1]
        for name, value in logs.items():
            alone = isinstance(value, Tensor) and value.shape == () and not value.requires_grad
            expect(alone, f"the log {name!r} must be a detached scalar")
    objective = stirred(make)
    reached(objective, lambda: objective(batch)[0])
    _pure(stirred(make), batch)
    _slopes(stirred(make), batch)
    if random:
        _together(make, batch)
    else:
        _members(make, batch, lr)
    _learns(stirred(make), batch, lr, steps)


def _pure(objective: Objective, batch: Batch) -> None:
    """``at`` gives the loss of ``forward`` and changes nothing."""
    before = copy.deepcopy(objective.state_dict())
    weights = {k: v.detach() for k, v in objective.named_parameters()}
    with chance.aside(0):
        pure, _ = objective.at(weights, dict(objective.named_buffers()), batch)
    for name, value in objective.state_dict().items():
        expect(torch.equal(value, before[name]), f"at must not change {name}")
    with chance.aside(0):
        loss, _ = objective(batch)
    near(pure.detach(), loss.detach(), "at must give the loss of forward")


def _slopes(objective: Objective, batch: Batch) -> None:
    """The slope along a random direction, in float64, against a central difference."""
    fine = objective.double().eval()
    batch = _double(batch)
    with chance.aside(2):
        fine(batch)[0].backward()
    weights = [w for w in fine.parameters() if w.grad is not None]
    with chance.aside(1):
        ways = [torch.randn_like(w) for w in weights]
    slopes: list[Any] = [w.grad for w in weights]
    slope = sum(float((slope * way).sum()) for slope, way in zip(slopes, ways))
    losses = []
    with torch.no_grad():
        for sign in (1, -2):
            for weight, way in zip(weights, ways):
                weight.add_(way, alpha=sign * 1e-6)
            with chance.aside(2):
                losses.append(float(fine(batch)[0]))
    found = (losses[0] - losses[1]) / 2e-6
    gap = abs(found - slope) / max(1e-3, abs(slope))
    expect(gap < 1e-3, f"the slope is {slope:.6g}, the difference quotient {found:.6g}")


def _members(make: Callable[[], Objective], batch: Batch, lr: float) -> None:
    """A population learns what its members learn alone (in float64, evaluation mode)."""
    batch = _double(batch)
    alone = [stirred(make, seed).double().eval() for seed in (1, 2)]
    many = Population(copy.deepcopy(alone), optimizer="SGD", shared=True, lr=lr)
    steps = [Descent(one, "SGD", lr=lr) for one in alone]
    for _ in range(3):
        many(batch)
        for step in steps:
            step(batch)
    for i, one in enumerate(alone):
        for name, value in one.state_dict().items():
            near(many.weights()[name][i], value, f"member {i} must learn {name} as it would alone")


def _together(make: Callable[[], Objective], batch: Batch) -> None:
    """Two at once, under the same draws, lose what each loses alone (in float64)."""
    batch = _double(batch)
    alone = [stirred(make, seed).double().eval() for seed in (1, 2)]
    weights, buffers = stack_module_state(alone)  # pyright: ignore[reportArgumentType]

    def one(w: Any, b: Any) -> Tensor:
        return alone[0].at(w, b, batch)[0]

    with chance.aside(3), torch.no_grad():
        both = vmap(one, randomness="same")(weights, buffers)
    for found, objective in zip(both, alone):
        with chance.aside(3), torch.no_grad():
            near(found, objective(batch)[0], "members must lose what they lose alone")


def _learns(objective: Objective, batch: Batch, lr: float, steps: int) -> None:
    """The loss of one batch goes down."""
    step = Descent(objective, "Adam", lr=lr)
    with chance.aside(0):
        first = step.evaluate(batch)["loss"]
        for _ in range(steps):
            step(batch)
    with chance.aside(0):
        last = step.evaluate(batch)["loss"]
    expect(bool(last < first), f"{steps} steps must lower the loss: {first:.4g} to {last:.4g}")


def _double(batch: Batch) -> Any:
    if isinstance(batch, Tensor):
        return batch.double() if batch.is_floating_point() else batch
    return tuple(_double(part) for part in batch)
