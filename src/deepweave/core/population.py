"""Population: n copies of one objective that learn at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer

from deepweave import chance
from deepweave.core.descent import make_optimizer
from deepweave.core.objective import Batch, Logs, Objective, Step, Weights, evaluating, mapped
from deepweave.core.stacked import over_members, stacked
from deepweave.run import derive


class Population(Step):
    """n copies of one objective that learn at once: one vmapped forward, one optimizer.

    Ensembles, seeds, folds, trials of one shape and studies are populations. A member learns
    what it would learn alone; the numbers agree to rounding.

    Args:
        objective: one objective, of which each member gets freshly drawn weights, or a sequence
            of n alike objectives whose weights are taken as they are.
        n: how many members.
        optimizer: any optimizer of ``torch.optim`` that works element by element.
        shared: True: every member sees the same batch (B, ...); False: each has its own, and a
            batch is (n, B, ...).
        lr: one learning rate, or n of them, or a callable ``n -> n rates``.
        decay: the same for decoupled weight decay (units: per unit of learning rate).
        seed: of the fresh weights.
    """

    def __init__(
        self,
        objective: Objective | Sequence[Objective],
        n: int | None = None,
        optimizer: str | Callable[..., Optimizer] = "AdamW",
        *,
        shared: bool = False,
        lr: float | Sequence[float] | Tensor | Callable[[int], Any] | None = None,
        decay: float | Sequence[float] | Tensor | Callable[[int], Any] | None = None,
        seed: int = 0,
        **options: Any,
    ):
        if isinstance(objective, Objective):
            if n is None or n < 1:
                raise ValueError(f"Population: n must be at least 1, got {n}")
            copies = [_fresh(objective, derive(seed, "member", i)) for i in range(n)]
        else:
            copies = list(objective)
            if not copies or n not in (None, len(copies)):
                raise ValueError(f"Population: expected n = {n} objectives, got {len(copies)}")
        self.members = len(copies)
        self.shared = shared
        self.objective = copies[0]
        try:
            params, buffers = torch.func.stack_module_state(copies)  # pyright: ignore[reportArgumentType]
        except RuntimeError as error:
            raise ValueError(f"Population: the members differ in shape: {error}") from None
        except KeyError as error:
            raise ValueError(f"Population: not all members have {error.args[0]}") from None
        self.stacked: Weights = {k: v.detach().requires_grad_() for k, v in params.items()}
        self.buffers: Weights = buffers
        self.best = 0  # the member to hand over; validation says which
        self.rates = self._each("lr", lr)
        self.decays = self._each("decay", decay)
        if self.decays is not None:
            options["weight_decay"] = 0.0
            if self.rates is None:
                raise ValueError("Population: a decay per member needs an lr per member")
        elif decay is not None:
            options["weight_decay"] = decay
        # With rates per member the optimizer runs at lr 1, and its change is scaled afterwards:
        # exact for every update that is linear in lr, as those of torch.optim are.
        rate = lr if self.rates is None else 1.0
        self.optimizer = make_optimizer(optimizer, list(self.stacked.values()), lr=rate, **options)

    def _each(self, name: str, value: Any) -> Tensor | None:
        if callable(value):
            value = value(self.members)
        if value is None or isinstance(value, int | float):
            return None
        value = torch.as_tensor(value, dtype=torch.float64)
        if value.shape != (self.members,):
            raise ValueError(
                f"Population: {name} must be one number or ({self.members},), "
                f"got {tuple(value.shape)}"
            )
        return value

    @property
    def optimizers(self) -> list[Optimizer]:
        return [self.optimizer]

    def check(self, batch: Batch) -> None:
        self.objective.check(batch if self.shared else _first(batch, self.members or 1))

    def _losses(self, batch: Batch, shared: bool) -> tuple[Tensor, Logs, Weights]:
        def one(weights: Weights, buffers: Weights, own: Batch, all_: Batch) -> Any:
            return self.objective.at(weights, buffers, all_ if shared else own)

        own = (self.stacked, self.buffers, () if shared else batch)
        with stacked():
            losses, (logs, buffers) = over_members(one, self.members or 1, own, batch)
        return losses, logs, buffers

    def __call__(self, batch: Batch) -> Logs:
        losses, logs, self.buffers = self._losses(batch, self.shared)
        losses.sum().backward()  # members do not mix, so each gets the slope of its own loss
        if self.rates is None:
            self.optimizer.step()
        else:
            self._step_at_rates()
        for weight in self.stacked.values():
            weight.grad = None
        return {"loss": losses.detach(), **logs}

    @torch.no_grad()
    def _step_at_rates(self) -> None:
        weights = list(self.stacked.values())
        before = torch._foreach_clone(weights)
        self.optimizer.step()
        factor = self.optimizer.param_groups[0]["lr"]
        kinds = {weight.dtype for weight in weights}
        rates = {kind: self.rates.to(kind) for kind in kinds}  # pyright: ignore[reportOptionalMemberAccess]
        shrink = {}
        if self.decays is not None:
            shrink = {k: self.decays.to(k) * rate * factor for k, rate in rates.items()}
        for old, new in zip(before, weights):
            shape = (-1, *[1] * (new.dim() - 1))
            torch.lerp(old, new, rates[new.dtype].view(shape), out=new)
            if shrink:
                new.addcmul_(old, shrink[new.dtype].view(shape), value=-1)

    def evaluate(self, batch: Batch) -> Logs:
        """Every member's loss and logs on the same batch, (B, ...)."""
        with torch.no_grad():
            losses, logs, _ = self._losses(batch, shared=True)
        return {"loss": losses, **logs}

    def predict(self, x: Any) -> Tensor:
        """Every member's predictions of the same inputs, in evaluation mode: (n, B, ...)."""

        def one(weights: Weights, buffers: Weights) -> Tensor:
            return functional_call(
                _Predict(self.objective), (_under(weights), _under(buffers)), (x,)
            )

        with torch.no_grad(), evaluating(self.objective):
            return vmap(one, randomness="different")(self.stacked, self.buffers)

    def member(self, i: int) -> Objective:
        """Member i as an objective of its own, with its weights and buffers."""
        if not -(self.members or 0) <= i < (self.members or 0):
            raise IndexError(f"Population: member must be below {self.members}, got {i}")
        one = copy.deepcopy(self.objective)
        one.load_state_dict({k: v[i] for k, v in self.weights().items()}, False)
        return one

    @torch.no_grad()
    def take(self, members: Sequence[int]) -> None:
        """Go on with these members, in this order; one taken twice goes on as two.

        Weights, buffers, rates and the optimizer's state go with them: halving keeps the best
        half, population-based training puts copies of the good in place of the bad.
        """
        n = self.members or 0
        if not members or not all(0 <= i < n for i in members):
            raise ValueError(f"Population: take needs members in 0..{n - 1}, got {list(members)}")
        device = next(iter(self.stacked.values())).device
        index = torch.tensor(list(members), device=device)
        for weight in self.stacked.values():
            state = self.optimizer.state.get(weight, {})
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    state[name] = value.index_select(0, index)
            weight.data = weight.data.index_select(0, index)
        self.buffers = {k: v.index_select(0, index) for k, v in self.buffers.items()}
        self.rates = None if self.rates is None else self.rates[index]
        self.decays = None if self.decays is None else self.decays[index]
        self.members, self.best = len(members), 0

    def to(self, device: torch.device | str) -> Step:
        for weight in self.stacked.values():
            weight.data = weight.data.to(device)
        self.buffers = {name: value.to(device) for name, value in self.buffers.items()}
        self.rates = None if self.rates is None else self.rates.to(device)
        self.decays = None if self.decays is None else self.decays.to(device)
        return super().to(device)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "rates": self.rates, "decays": self.decays}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        for name in ("rates", "decays"):
            own, kept = getattr(self, name), state[name]
            setattr(self, name, None if own is None else kept.to(own.device))

    def chosen(self) -> Objective:
        """The member whose loss, of validation if there is one, is the lowest."""
        return self.member(self.best)

    def weights(self) -> Weights:
        return {**{name: value.detach() for name, value in self.stacked.items()}, **self.buffers}


class _Predict(nn.Module):
    """``objective.predict`` as a forward, so that ``functional_call`` reaches it."""

    def __init__(self, objective: Objective):
        super().__init__()
        self.objective = objective

    def forward(self, x: Any) -> Tensor:
        return self.objective.predict(x)


def _first(batch: Batch, n: int) -> Batch:
    """The first member's part of a batch (n, B, ...)."""

    def first(part: Tensor) -> Tensor:
        if part.dim() == 0 or len(part) != n:
            raise ValueError(
                f"Population: a batch must be (n, B, ...) with n = {n}, got {tuple(part.shape)}; "
                "pass shared=True for one batch that every member sees"
            )
        return part[0]

    return mapped(first, batch)


def _under(weights: Weights) -> Weights:
    return {f"objective.{name}": value for name, value in weights.items()}


def _fresh(objective: Objective, seed: int) -> Objective:
    """A copy whose layers have drawn their weights anew."""
    one = copy.deepcopy(objective)
    with chance.aside(seed):
        for module in one.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return one
