"""Penalties on the weights of any objective: L1, L2, elastic net, group lasso."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from deepweave.core import Batch, Logs, Objective, Weights
from deepweave.core.selection import Only, selected
from deepweave.functional import penalties
from deepweave.objectives.wrapper import Wrapper

TERMS = ("l1", "l2", "group")
GROUPS = {"rows": 0, "columns": 1}


class Penalize(Wrapper):
    """Any objective with penalties on its weights.

    loss + l1 |W|_1 + l2 |W|_2^2 + group sum_g sqrt(p_g) |W_g|_2, each strength once. While
    training the loss has the penalty in it; in evaluation the loss is the bare one, so that
    validation compares like with like. The logs show the ``penalty`` in both.

    The strengths are buffers: objectives that differ in them alone are members of one Population
    (:meth:`path`). A strength that is not given is no part of the program.

    With ``proximal=True`` the loss stays bare in training too, and the whole penalty is taken
    after each update by its proximal map: weights that the penalty holds at zero are exactly zero,
    which slopes never give. It needs plain SGD (with or without momentum) and the hook
    :class:`deepweave.hooks.Proximal`, which ``fit`` brings along; without the hook a training
    step is refused.

    Args:
        objective: any objective.
        l1, l2, group: strengths, at least 0; l1 with l2 is the elastic net.
        groups: of the group lasso: ``"rows"`` (a unit's incoming weights, a filter) or
            ``"columns"`` (an input's or a channel's outgoing weights).
        only: which weights: a name, several, or a predicate of name and weight. By default all
            that multiply inputs: biases and norms are left out. ``taken`` says which they are.
        proximal: exact zeros by proximal steps.

    Raises:
        ValueError: a strength below 0 or not finite, none at all, or ``only`` means no weight.

    >>> from torch import nn
    >>> from deepweave.objectives.supervised import Regress
    >>> objective = Penalize(Regress(nn.Linear(2, 1)), l1=0.1)
    >>> objective.taken, sorted(objective((torch.zeros(3, 2), torch.zeros(3)))[1])
    (('objective.model.weight',), ['penalty'])
    """

    l1: Tensor
    l2: Tensor
    group: Tensor

    def __init__(
        self,
        objective: Objective,
        *,
        l1: float | None = None,
        l2: float | None = None,
        group: float | None = None,
        groups: str = "rows",
        only: Only = None,
        proximal: bool = False,
    ):
        super().__init__(objective)
        if groups not in GROUPS:
            raise ValueError(f"Penalize: groups must be 'rows' or 'columns', got {groups!r}")
        given = {"l1": l1, "l2": l2, "group": group}
        if all(value is None for value in given.values()):
            raise ValueError("Penalize: give a strength: l1=, l2= or group=")
        for name, value in given.items():
            # A term that is not given is an empty buffer: were it none at all, or zero, a
            # Population could mix programs with and without it, and would run the first for all.
            self.register_buffer(name, torch.zeros(0) if value is None else _strength(name, value))
        self.groups, self.proximal = groups, proximal
        names = selected(objective, only, "Penalize")
        if group is not None:
            weights = dict(objective.named_parameters())
            flat = [name for name in names if weights[name].dim() < 2]
            if flat:
                raise ValueError(f"Penalize: {flat[0]} has one dimension, it has no groups")
        self.taken = tuple(f"objective.{name}" for name in names)
        self._attended: int | None = None  # who it is whose proximal steps a hook takes

    def attend(self, taken: bool) -> None:
        """Say whether somebody takes the proximal steps of this very object, not of a copy."""
        self._attended = id(self) if taken else None

    def penalty(self) -> Tensor:
        """The penalty of the weights as they are, a scalar."""
        weights = dict(self.named_parameters())
        return self._penalty([weights[name] for name in self.taken])

    def _penalty(self, weights: list[Tensor]) -> Tensor:
        terms = []
        if self.l1.numel():
            terms.append(self.l1 * penalties.l1(weights))
        if self.l2.numel():
            terms.append(self.l2 * penalties.l2(weights))
        if self.group.numel():
            terms.append(self.group * penalties.group_lasso(weights, dim=GROUPS[self.groups]))
        return torch.stack(terms).sum()

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        loss, logs = self.objective(batch)
        if not self.training or self.proximal:
            if self.training and self._attended != id(self):
                raise ValueError(
                    "Penalize: proximal=True needs the hook Proximal, which takes the steps: "
                    "train with fit, or pass proximal=False"
                )
            with torch.no_grad():
                penalty = self.penalty()
        else:
            penalty = self.penalty()
            loss = loss + penalty
        told = penalty.detach()
        return loss, {**logs, "penalty": logs["penalty"] + told if "penalty" in logs else told}

    def shrink(self, weights: Weights, strengths: Weights, rates: Weights) -> Weights:
        """The proximal step: argmin_v |v - w|^2 / (2 rate) + penalty(v), for each weight.

        A pure function, which :class:`deepweave.hooks.Proximal` calls after each update, under
        ``vmap`` for the members of a Population.
        """
        found = {}
        for name, weight in weights.items():
            rate = rates[name]
            if strengths["l1"].numel():
                weight = penalties.soft_threshold(weight, rate * strengths["l1"])
            if strengths["group"].numel():
                weight = penalties.group_soft_threshold(
                    weight, rate * strengths["group"], dim=GROUPS[self.groups]
                )
            if strengths["l2"].numel():
                weight = weight / (1 + 2 * rate * strengths["l2"])
            found[name] = weight
        return found

    def path(self, **strengths: Iterable[float] | Tensor) -> list[Penalize]:
        """Copies with the same weights, one per strength: the members of a Population.

        ``Population(Penalize(objective, l1=0).path(l1=[0.001, 0.01, 0.1]), ...)``

        Raises:
            ValueError: a term this objective has not, or lists of different lengths.
        """
        own = [name for name in TERMS if getattr(self, name).numel()]
        odd = strengths.keys() - set(own)
        if odd or not strengths:
            raise ValueError(f"Penalize: path takes {', '.join(own)}, got {sorted(odd) or 'none'}")
        lists = {name: [float(v) for v in values] for name, values in strengths.items()}
        lengths = {len(values) for values in lists.values()}
        if len(lengths) > 1:
            raise ValueError(f"Penalize: path needs lists of one length, got {sorted(lengths)}")
        copies = []
        for i in range(lengths.pop()):
            one = copy.deepcopy(self)
            for name, values in lists.items():
                getattr(one, name).copy_(_strength(name, values[i]))
            copies.append(one)
        return copies

    def extra_repr(self) -> str:
        told = [f"{n}={_told(getattr(self, n))}" for n in TERMS if getattr(self, n).numel()]
        weights = [name.removeprefix("objective.").removeprefix("model.") for name in self.taken]
        kind = ["proximal=True"] if self.proximal else []
        return ", ".join([*told, *kind, f"weights={weights}"])


def _strength(name: str, value: float) -> Tensor:
    """A strength as a number in a tensor.

    Raises:
        ValueError: it is below 0 or not finite.
    """
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"Penalize: {name} must be finite and not below 0, got {value}")
    return torch.tensor(float(value))


def _told(strength: Tensor) -> Any:
    return f"{strength.item():.3g}" if strength.dim() == 0 else "of each member"
