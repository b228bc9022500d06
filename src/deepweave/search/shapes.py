"""Which trials may learn in one Population: those that differ in nothing but tensors.

Networks of different widths share one, too, the narrower padded with zeros: where an activation
keeps zero at zero, a padded unit gives nothing, gets no slope and stays at zero, so that the
narrow network learns exactly what it would learn alone. A probe of one batch checks that before.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Objective

SIZES = {"in_features", "out_features", "num_features"}  # follow from the shapes of the weights
# What a program of its own costs per step, in padded weights times samples: 1.5 ms of one core,
# which pass 1e7 of them (benchmarks/speed/tuning.py).
WASTE = 1e7


def structure(objective: nn.Module) -> tuple[Any, ...]:
    """Everything about a module but the sizes and values of its tensors, to compare by."""
    return tuple(
        (name, type(module), _attributes(module), _tensors(module))
        for name, module in objective.named_modules()
    )


def _attributes(module: nn.Module) -> tuple[Any, ...]:
    plain = vars(nn.Module()).keys() | {"_blueprint"} | SIZES
    return tuple(sorted((k, _words(v)) for k, v in vars(module).items() if k not in plain))


def _tensors(module: nn.Module) -> tuple[Any, ...]:
    own = [*module._parameters.items(), *module._buffers.items()]
    return tuple((k, None if v is None else (v.dtype, v.dim(), v.requires_grad)) for k, v in own)


def _words(value: Any) -> str:
    """A plain value in words; anything else is itself alone."""
    if isinstance(value, bool | int | float | str | torch.dtype | torch.device) or value is None:
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_words, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {_words(v)}' for k, v in value.items())}}}"
    if isinstance(value, functools.partial):
        return f"{_words(value.func)}{_words(value.args)}{_words(value.keywords)}"
    if callable(value) and getattr(value, "__closure__", 0) is None and not isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return f"{type(value)} at {id(value)}"


def shape(objective: nn.Module) -> tuple[Any, ...]:
    """The shapes of all weights and buffers."""
    return tuple((k, tuple(v.shape)) for k, v in objective.state_dict().items())


def group(objectives: Sequence[Objective], batch: Batch, samples: int = 128) -> list[list[int]]:
    """The members of each bucket, by number: alike, and of sizes that padding can bridge.

    From the largest down, a network joins while all padding together costs less than a program
    of its own would.

    Args:
        objectives: of any kinds.
        batch: one they can learn from, for the probe.
        samples: in a batch of the training to come.
    """
    kinds: dict[Any, list[int]] = {}
    for i, one in enumerate(objectives):
        kinds.setdefault(structure(one), []).append(i)
    found: list[list[int]] = []
    for members in kinds.values():
        members = sorted(members, key=lambda i: (-_count(objectives[i]), i))
        while members:
            first = objectives[members[0]]
            bucket, rest, top = [members[0]], [], _largest([first])
            bridged: dict[Any, bool] = {shape(first): True}
            for i in members[1:]:
                one, grown = objectives[i], _largest([objectives[i]], top)
                total = sum(value.numel() for value in grown.values())
                own = sum(_count(objectives[j]) for j in (*bucket, i))
                fits = (total * (len(bucket) + 1) - own) * samples <= WASTE
                if fits and shape(one) not in bridged:
                    bridged[shape(one)] = _bridges(one, first, grown, batch)
                if fits and bridged[shape(one)]:
                    bucket.append(i)
                    top = grown
                else:
                    rest.append(i)
            found.append(sorted(bucket))
            members = rest
    return sorted(found)


def same(objectives: Sequence[Objective]) -> list[list[int]]:
    """Buckets of members that differ in nothing but the values of their tensors."""
    kinds: dict[Any, list[int]] = {}
    for i, one in enumerate(objectives):
        kinds.setdefault((structure(one), shape(one)), []).append(i)
    return list(kinds.values())


def _count(objective: nn.Module) -> int:
    return sum(value.numel() for value in objective.state_dict().values())


def _largest(
    objectives: Sequence[nn.Module], start: dict[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Empty tensors with the largest size of every weight and buffer along every dimension."""
    top = dict(start or {})
    for one in objectives:
        for name, value in one.state_dict().items():
            sizes = tuple(value.shape)
            if name in top:
                sizes = tuple(map(max, sizes, top[name].shape))
            top[name] = torch.empty(sizes, device="meta")
    return top


def pad(
    objectives: Sequence[Objective], sizes: dict[str, tuple[int, ...]] | None = None
) -> list[Objective]:
    """Copies of one size: of these sizes, or of the largest along each dimension."""
    if sizes is None:
        top = _largest(objectives)
    else:
        top = {name: torch.empty(each, device="meta") for name, each in sizes.items()}
    wanted = tuple((name, tuple(value.shape)) for name, value in top.items())
    if all(set(shape(one)) == set(wanted) for one in objectives):
        return list(objectives)
    return [_padded(one, objectives[0], top) for one in objectives]


def _padded(one: Objective, template: Objective, top: dict[str, Tensor]) -> Objective:
    wide = copy.deepcopy(template)
    own = one.state_dict()
    for name, module in wide.named_modules():
        stem = f"{name}." if name else ""
        for table in (module._parameters, module._buffers):
            for key, value in table.items():
                if value is None or stem + key not in own:
                    continue
                old = own[stem + key]
                new = old.new_zeros(top[stem + key].shape)
                new[tuple(slice(0, n) for n in old.shape)] = old
                grown = nn.Parameter(new, value.requires_grad)
                table[key] = grown if isinstance(value, nn.Parameter) else new
        for key in SIZES & vars(module).keys():
            if key != "num_features" and isinstance(module, nn.Linear):
                shown = top[f"{stem}weight"].shape
                setattr(module, key, shown[1] if key == "in_features" else shown[0])
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                setattr(module, key, _features(module))
    return wide


def _features(norm: Any) -> int:
    return len(next(v for v in (norm.weight, norm.running_mean) if v is not None))


def cut(wide: dict[str, Tensor], one: Objective) -> None:
    """Copy the part of padded weights that is a narrow network's own into it."""
    own = one.state_dict()
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(wide[name][tuple(slice(0, n) for n in value.shape)])


def _bridges(one: Objective, template: Objective, top: dict[str, Tensor], batch: Batch) -> bool:
    """Whether padding changes nothing: the same loss, and no slope in the padding."""
    try:
        wide = _padded(one, template, top)
        losses = [_slopes(each, batch) for each in (one, wide)]
    except (RuntimeError, ValueError, IndexError):
        return False  # a layer that knows its size, such as a layer norm
    (loss, narrow), (other, slopes) = losses
    if not torch.allclose(loss, other, rtol=1e-4, atol=1e-6):
        return False
    for name, slope in slopes.items():
        own = narrow[name]
        inner = tuple(slice(0, n) for n in own.shape)
        scale = float(own.abs().max()) if own.numel() else 0.0
        if not torch.allclose(slope[inner], own, rtol=1e-3, atol=1e-5 * scale + 1e-9):
            return False
        slope = slope.clone()
        slope[inner] = 0
        if bool(slope.any()):
            return False
    return True


def _slopes(objective: Objective, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    was = objective.training
    objective.eval()
    try:
        with chance.aside(0):
            loss = objective(batch)[0]
            named = dict(objective.named_parameters())
            found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    finally:
        objective.train(was)
    return loss.detach(), {
        k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(named.items(), found)
    }
