"""What is done to weights after an update: proximal steps of penalties, and projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from deepweave.core import Hook, Logs, Loop, Step
from deepweave.core.selection import Only, selected


def live(step: Step) -> dict[str, Tensor]:
    """The weights that a step trains, by name; of a Population with the members in front."""
    stacked = getattr(step, "stacked", None)
    return dict(step.objective.named_parameters()) if stacked is None else stacked


class Proximal(Hook):
    """Take the proximal steps of ``Penalize(..., proximal=True)`` after each update.

    w <- prox(w - lr g), with the threshold of the very rate of that update: schedules, parameter
    groups and the rates of a Population's members count. With momentum m and dampening d the
    threshold is of rate lr (1 - d) / (1 - m), the length of a step that lasts, so that the weights
    at rest are those of the penalised loss. ``fit`` brings this hook along; where no objective
    asks for it, it does nothing.

    Raises:
        ValueError: the optimizer is not SGD (an adaptive one scales each weight's step, and a
            threshold of one rate would solve another problem), two penalties take the same
            weight, or the weights are not trained.

    Source: Parikh & Boyd, Proximal algorithms, 2014.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[str, Any, dict[str, Tensor]]] = []
        self._rates: dict[int, float] = {}  # of the update just made, by weight
        self._handles: list[Any] = []

    def begin(self, loop: Loop) -> None:
        objective = loop.step.objective
        asking: list[tuple[str, Any]] = [
            (f"{name}." if name else "", module)
            for name, module in objective.named_modules()
            if getattr(module, "proximal", False) and hasattr(module, "shrink")
        ]
        self._parts = []
        if not asking:
            return
        for one in loop.step.optimizers:
            if not isinstance(one, torch.optim.SGD):
                raise ValueError(
                    f"Proximal: needs SGD, got {type(one).__name__}: the threshold is of one rate "
                    "for all weights; take SGD or Penalize(proximal=False)"
                )
        weights = live(loop.step)
        optimizers = loop.step.optimizers
        learnt = {id(w) for one in optimizers for g in one.param_groups for w in g["params"]}
        taken: dict[str, str] = {}
        for prefix, module in asking:
            names = {name: weights[prefix + name] for name in module.taken}
            names = {name: weight for name, weight in names.items() if id(weight) in learnt}
            if not names:
                raise ValueError(f"Proximal: none of {', '.join(module.taken)} is trained")
            for name in names:
                if prefix + name in taken:
                    raise ValueError(f"Proximal: two proximal penalties take {prefix}{name}")
                taken[prefix + name] = prefix
            self._parts.append((prefix, module, names))
            module.attend(True)
        self._handles = [one.register_step_pre_hook(self._note) for one in optimizers]

    def _note(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        # now, since a schedule sets the rate of the next update before this hook's turn comes
        for group in optimizer.param_groups:
            momentum = group.get("momentum", 0.0)
            rate = group["lr"] * ((1 - group["dampening"]) / (1 - momentum) if momentum else 1.0)
            self._rates |= {id(weight): float(rate) for weight in group["params"]}

    @torch.no_grad()
    def after_step(self, loop: Loop, logs: Logs) -> None:
        if not self._rates:  # nothing to do, or batches that still wait for their update
            return
        step = loop.step
        buffers = getattr(step, "buffers", None)
        buffers = dict(step.objective.named_buffers()) if buffers is None else buffers
        for prefix, module, weights in self._parts:
            own = [name for name, _ in module.named_buffers(recurse=False)]
            strengths = {name: buffers[prefix + name] for name in own}
            rates = {name: self._rate(loop, weight) for name, weight in weights.items()}
            shrink = module.shrink if step.members is None else vmap(module.shrink)
            for name, value in shrink(weights, strengths, rates).items():
                weights[name].copy_(value)
        self._rates = {}

    def _rate(self, loop: Loop, weight: Tensor) -> Tensor:
        step, rate = loop.step, torch.tensor(self._rates[id(weight)])
        rate = rate.to(weight)
        if step.members is None:
            return rate
        each: Tensor | None = getattr(step, "rates", None)
        rate = rate.expand(step.members) if each is None else rate * each.to(weight)
        failed = loop.run.info.get("failed_members")  # those stand still
        if failed:
            rate = rate.clone()
            rate[failed] = 0.0
        return rate

    def close(self, loop: Loop) -> None:
        for handle in self._handles:
            handle.remove()
        for _, module, _ in self._parts:
            module.attend(False)


class MaxNorm(Hook):
    """Scale every unit's incoming weights down to a norm after each update.

    W_g <- W_g min(1, limit / |W_g|_2), for each row (``dim=0``: a unit, a filter) or column
    (``dim=1``) of each weight; in a Population for each member.

    Args:
        limit: the largest norm, or one for each member of a Population.
        only: which weights: a name, several, or a predicate of name and weight; by default all
            that multiply inputs.
        dim: the dimension along which groups lie.

    Raises:
        ValueError: a limit that is not above 0, limits that do not fit the members, or no weight.

    Source: Srivastava et al., Dropout, 2014; Srebro, Rennie & Jaakkola, 2005.
    """

    def __init__(self, limit: float | Sequence[float] | Tensor, *, only: Only = None, dim: int = 0):
        self.limit = torch.as_tensor(limit, dtype=torch.float64)
        if self.limit.dim() > 1 or not bool((self.limit > 0).all()):
            raise ValueError(f"MaxNorm: limit must be above 0, got {limit}")
        if dim not in (0, 1):
            raise ValueError(f"MaxNorm: dim must be 0 (rows) or 1 (columns), got {dim}")
        self.only, self.dim = only, dim
        self._names: list[str] = []

    def begin(self, loop: Loop) -> None:
        members = loop.step.members
        if self.limit.dim() and self.limit.shape != (members,):
            raise ValueError(
                f"MaxNorm: limit must be one number or one for each of {members or 'no'} members, "
                f"got {len(self.limit)}"
            )
        self._names = selected(loop.step.objective, self.only, "MaxNorm")
        weights = dict(loop.step.objective.named_parameters())
        flat = [name for name in self._names if weights[name].dim() < 2]
        if flat:
            raise ValueError(f"MaxNorm: {flat[0]} has one dimension, it has no rows")

    @torch.no_grad()
    def after_step(self, loop: Loop, logs: Logs) -> None:
        weights, first = live(loop.step), int(loop.step.members is not None)
        for name in self._names:
            weight = weights[name]
            keep = (0, self.dim + 1) if first else (self.dim,)
            rest = [d for d in range(weight.dim()) if d not in keep]
            size = torch.linalg.vector_norm(weight, dim=rest, keepdim=True)
            limit = self.limit.to(weight)
            if limit.dim():
                limit = limit.view(-1, *[1] * (weight.dim() - 1))
            weight.mul_((limit / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp_(max=1.0))
