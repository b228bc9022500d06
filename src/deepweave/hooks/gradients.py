"""Gradients between their making and their use: clipped, guarded, diagnosed."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.core import Batch, Hook, Loop, Step


def slopes(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The gradients an optimizer is about to use."""
    weights = (w for group in optimizer.param_groups for w in group["params"])
    return [w.grad for w in weights if w.grad is not None]


def norms(grads: list[Tensor], members: int | None) -> Tensor:
    """The Euclidean norm of all gradients together: (), or (n,) for n members."""
    if members is None:
        return torch.stack(torch._foreach_norm(grads)).norm()
    return torch.stack([g.reshape(members, -1).norm(dim=1) for g in grads]).norm(dim=0)


class Clip(Hook):
    """Scale gradients down to a norm, or cut their entries to a range, before each update.

    g <- g min(1, norm / ||g||), for each model; in a Population for each member by itself.

    Source: Pascanu, Mikolov & Bengio, On the difficulty of training recurrent networks, 2013.
    """

    def __init__(self, norm: float | None = None, *, value: float | None = None):
        given = value if norm is None else norm
        if (norm is None) == (value is None) or given is None or not given > 0:
            raise ValueError(f"Clip: give a positive norm or a positive value, got {norm}, {value}")
        self.norm, self.value = norm, value
        self._handles: list[Any] = []

    def begin(self, loop: Loop) -> None:
        members = loop.step.members

        @torch.no_grad()
        def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            grads = slopes(optimizer)
            if not grads:
                return
            if self.value is not None:
                torch._foreach_clamp_min_(grads, -self.value)
                torch._foreach_clamp_max_(grads, self.value)
                return
            scale = (float(self.norm or 0) / (norms(grads, members) + 1e-6)).clamp(max=1.0)
            if members is None:
                torch._foreach_mul_(grads, scale)
            else:
                for grad in grads:
                    grad.mul_(scale.view(-1, *[1] * (grad.dim() - 1)))

        self._handles = [one.register_step_pre_hook(clip) for one in loop.step.optimizers]

    def close(self, loop: Loop) -> None:
        for handle in self._handles:
            handle.remove()


class Guard(Hook):
    """Stop at the first gradient that is not finite, before it reaches the weights.

    On a CPU every update is checked. On a GPU a check would wait for the device, so the fused
    optimizers are told to skip a bad update by themselves, and the host looks every ``every``
    steps; without a fused optimizer the checkpoint before is the last good state.

    In a Population a member that fails stands still from then on and the others learn on; the run
    stops when none is left. ``run.json`` lists those that failed.
    """

    def __init__(self, *, every: int = 16):
        self.every = every
        self._handles: list[Any] = []

    def begin(self, loop: Loop) -> None:
        flags: dict[torch.device, tuple[Tensor, Tensor]] = {}

        def check(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            grads = slopes(optimizer)
            if not grads:
                return
            device = grads[0].device
            if device not in flags:
                flags[device] = torch.zeros((), device=device), torch.ones((), device=device)
            bad, one = flags[device]
            # What a gradient scaler uses: one pass over all gradients, no new memory.
            torch._amp_foreach_non_finite_check_and_unscale_(grads, bad, one)
            if loop.step.members is not None:
                if device.type != "cpu" or bad:
                    bad.zero_()
                    _still(loop, optimizer, grads, loop.step.members)
                return
            if device.type != "cpu":
                if optimizer.defaults.get("fused"):
                    optimizer.found_inf = bad  # pyright: ignore[reportAttributeAccessIssue]
                if loop.count % self.every:
                    return
            if bad:
                raise FloatingPointError(explain(loop, optimizer))

        self._handles = [one.register_step_pre_hook(check) for one in loop.step.optimizers]

    def close(self, loop: Loop) -> None:
        for handle in self._handles:
            handle.remove()


def _still(loop: Loop, optimizer: torch.optim.Optimizer, grads: list[Tensor], members: int) -> None:
    """Zero the slopes of members that have one that is not finite."""
    bad = torch.stack([~g.reshape(members, -1).isfinite().all(1) for g in grads]).any(0)
    if bad.device.type == "cpu":
        if bad.all():
            raise FloatingPointError(explain(loop, optimizer))
        loop.run.info["failed_members"] = bad.nonzero().flatten().tolist()
    for grad in grads:
        grad.masked_fill_(bad.view(-1, *[1] * (grad.dim() - 1)), 0.0)


def explain(loop: Loop, optimizer: torch.optim.Optimizer) -> str:
    """One line on where a number that is not finite came from: the input, a layer, a slope."""
    step = loop.step
    start = f"fit: step {loop.count + 1}: "
    ending = "; the weights are as they were before it"
    named = {id(w): name for name, w in step.objective.named_parameters()}
    stacked = getattr(step, "stacked", {})
    named |= {id(w): name for name, w in stacked.items()}
    batch = loop.current
    flaw = _flaw(batch)
    if flaw:
        return f"{start}the batch has {flaw}: clean the data{ending}"
    layer = _first_bad_layer(step, batch) if step.members is None else None
    if layer:
        return f"{start}{layer}: take a lower learning rate, or Clip(norm=1.0){ending}"
    for weight in (w for group in optimizer.param_groups for w in group["params"]):
        if weight.grad is not None and not weight.grad.isfinite().all():
            name = named.get(id(weight), "a weight")
            if step.members is not None:
                bad = ~weight.grad.reshape(step.members, -1).isfinite()
                name += f" (members {bad.any(1).nonzero().flatten().tolist()[:5]})"
            return f"{start}the gradient of {name} is not finite: take Clip(norm=1.0){ending}"
    return f"{start}the gradients overflow: take a lower learning rate{ending}"


def _flaw(batch: Batch, name: str = "inputs") -> str | None:
    if isinstance(batch, Tensor):
        if batch.is_floating_point() and not batch.isfinite().all():
            count = int((~batch.isfinite()).sum())
            numbers = "1 number" if count == 1 else f"{count} numbers"
            return f"{numbers} in its {name} not finite"
        return None
    if isinstance(batch, tuple | list):
        names = [name, "targets", "weights"] if name == "inputs" else [name] * len(batch)
        for part, label in zip(batch, names + ["further parts"] * len(batch)):
            found = _flaw(part, label)
            if found:
                return found
    return None


def _first_bad_layer(step: Step, batch: Batch) -> str | None:
    """Run the batch once more and name the first layer, or the loss, that is not finite."""
    found: list[str] = []

    def look(name: str) -> Any:
        def see(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all() and not found:
                found.append(f"{name} ({type(module).__name__}) gave numbers that are not finite")

        return see

    leaves = [(n, m) for n, m in step.objective.named_modules() if n and not any(m.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        with torch.no_grad():
            loss, logs = step.objective(batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, value in {"loss": loss, **logs}.items():
        if not value.isfinite().all() and not found:
            found.append(f"the term {name!r} is {value.item()}")
    return found[0] if found else None


class Diagnose(Hook):
    """Watch the health of gradients and activations, and say in plain words what to do.

    The norm of each weight's gradient is kept at the steps 1, 2, 3, 5, 9, ... of its optimizer and
    every ``every`` steps; at the end one forward pass measures each layer's activations. The first
    step counts only where there was no other: behind a layer that starts at zeros, as the last one
    of a U-Net does, no slope can be seen then. The findings stand in run.json as ``diagnostics``
    and ``advice``.
    """

    def __init__(self, *, every: int = 50):
        self.every = every
        self.first: dict[str, Tensor] = {}  # norms at the first step
        self.sums: dict[str, Tensor] = {}  # of norms at those after it
        self.counts: list[int] = []  # steps of each optimizer
        self.taken: dict[str, int] = {}  # how many there are in each sum
        self.rows: list[dict[str, Any]] = []  # kept for a resume after the last step
        self._handles: list[Any] = []

    def begin(self, loop: Loop) -> None:
        if loop.step.members is not None:
            return
        named = dict(loop.step.objective.named_parameters())
        optimizers = loop.step.optimizers
        if len(self.counts) != len(optimizers):
            self.counts = [0] * len(optimizers)

        @torch.no_grad()
        def watch(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            # each optimizer has weights and steps of its own, such as those of one of two sides
            at = next(i for i, one in enumerate(optimizers) if one is optimizer)
            count = self.counts[at]
            self.counts[at] += 1
            early = count < self.every and not count & (count - 1)  # 0 and powers of two
            if count % self.every and not early:
                return
            now = {n: w.grad.norm() for n, w in named.items() if w.grad is not None}
            if not count:
                self.first |= now
                return
            self.sums |= {n: self.sums.get(n, 0.0) + value for n, value in now.items()}
            self.taken |= {n: self.taken.get(n, 0) + 1 for n in now}

        self._handles = [one.register_step_pre_hook(watch) for one in optimizers]

    def close(self, loop: Loop) -> None:
        for handle in self._handles:
            handle.remove()

    def end(self, loop: Loop) -> None:
        if loop.step.members is None and self.counts and loop.current is not None:
            self.rows = self._rows(loop)
        if self.rows:
            loop.run.info["diagnostics"] = self.rows
            loop.run.info["advice"] = advise(self.rows, later=set(self.first) <= set(self.sums))

    def _rows(self, loop: Loop) -> list[dict[str, Any]]:
        activity = _activations(loop.step, loop.current)
        means = {name: value / self.taken[name] for name, value in self.sums.items()}
        slopes = self.first | means
        rows = []
        for name, weight in loop.step.objective.named_parameters():
            if name not in slopes or weight.dim() < 2:
                continue
            layer = name.rpartition(".")[0]
            rows.append(
                {
                    "layer": re.sub(r"^(objective\.)*(model\.)?", "", layer),
                    "gradient_norm": float(slopes[name]),
                    "weight_norm": float(weight.detach().norm()),
                    **activity.get(layer, {}),
                }
            )
        return rows

    def state(self) -> dict[str, Any]:
        names = ("first", "sums", "counts", "taken", "rows")
        return {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


def _activations(step: Step, batch: Batch) -> dict[str, dict[str, float]]:
    """What each layer with weights passes on, after the activation that follows it."""
    order: list[tuple[str, nn.Module, Tensor]] = []

    def look(name: str) -> Any:
        def see(module: nn.Module, _: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                order.append((name, module, output))

        return see

    leaves = [(n, m) for n, m in step.objective.named_modules() if n and not any(m.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    was = step.objective.training
    step.objective.eval()
    try:
        with torch.no_grad():
            step.objective(batch)
    finally:
        step.objective.train(was)
        for handle in handles:
            handle.remove()
    found: dict[str, dict[str, float]] = {}
    layer = None
    for name, module, output in order:
        if any(w.dim() > 1 for w in module.parameters(recurse=False)):
            layer = name
        if layer is None:
            continue
        units = output.movedim(1, -1).flatten(0, -2) if output.dim() > 1 else output[:, None]
        # a share that is 0 to the last digit, such as a black border, is what a sigmoid was to say
        share = isinstance(module, nn.Sigmoid | nn.Softmax)
        dead = torch.zeros_like(units, dtype=torch.bool) if share else units == 0
        found[layer] = {
            "activation_std": float(units.std()), "dead": float(dead.all(0).float().mean())
        }  # fmt: skip
    return found


def advise(rows: list[dict[str, Any]], *, later: bool = True) -> list[str]:
    """Plain sentences on vanishing and exploding gradients and on dead units.

    Without ``later`` the slopes are those of a first step, of which an exact 0 says nothing: a
    layer nearer to the loss may start at zeros.

    >>> advise([{"layer": "0", "gradient_norm": 1e-7, "dead": 0.9},
    ...         {"layer": "2", "gradient_norm": 1.0}])[0]
    'Gradients vanish: layer 0 gets 1e-07, layer 2 gets 1: try ReLU-like activations, He ...'
    """
    said = []
    slope = {row["layer"]: row["gradient_norm"] for row in rows}
    if not later:
        slope = {layer: norm for layer, norm in slope.items() if norm}
    if slope:
        low, high = min(slope, key=slope.__getitem__), max(slope, key=slope.__getitem__)
        pair = f"layer {low} gets {slope[low]:.2g}, layer {high} gets {slope[high]:.2g}"
        if slope[high] > 1e3 or not math.isfinite(slope[high]):
            said.append(f"Gradients explode: {pair}: clip their norm, or lower the learning rate.")
        elif slope[low] < 1e-4 * slope[high]:
            said.append(
                f"Gradients vanish: {pair}: try ReLU-like activations, He initialisation, "
                "normalisation or residual connections."
            )
    for row in rows:
        if row.get("dead", 0) > 0.3:
            share = f"{100 * row['dead']:.0f} %"
            said.append(
                f"{share} of the units after layer {row['layer']} are dead (zero for every "
                "sample): lower the learning rate or use a leaky activation."
            )
    return said or ["Gradients and activations look healthy."]
