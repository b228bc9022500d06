"""Which weights a rule takes: those that multiply inputs, or those that are asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)

Only = Callable[[str, Tensor], bool] | str | Iterable[str] | None


def selected(module: nn.Module, only: Only = None, name: str = "selected") -> list[str]:
    """The names of the weights in a module that a penalty or constraint is for.

    Without ``only``: every parameter that learns, has two or more dimensions, and is no part of a
    norm; so biases, norms and the slopes of PReLU are left out. ``only`` is a predicate of name
    and weight, or a name or several: a name means the weight, or all that the rule would take
    inside the module, of that name. A leading ``model.`` may be left out.

    Raises:
        ValueError: no weight is meant, or a name means none.

    >>> selected(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))
    ['0.weight', '2.weight']
    """
    weights = {n: w for n, w in module.named_parameters() if w.requires_grad}
    norms = {
        f"{prefix}.{own}" if prefix else own
        for prefix, layer in module.named_modules()
        if isinstance(layer, NORMS)
        for own, _ in layer.named_parameters(recurse=False)
    }
    usual = [n for n, w in weights.items() if w.dim() > 1 and n not in norms]
    if only is None:
        found = usual
    elif callable(only):
        found = [n for n, w in weights.items() if only(n, w)]
    else:
        wanted = [only] if isinstance(only, str) else list(only)
        taken: set[str] = set()
        for one in wanted:
            exact = {n for n in weights if one in (n, _short(n))}
            inside = {n for n in usual if f"{_short(n)}.".startswith(f"{one}.")}
            inside |= {n for n in usual if n.startswith(f"{one}.")}
            if not exact | inside:
                known = ", ".join(map(_short, weights))
                raise ValueError(f"{name}: no weight is named {one!r}; there are {known}")
            taken |= exact or inside
        found = [n for n in weights if n in taken]
    if not found:
        raise ValueError(f"{name}: there are no weights to take")
    return found


def _short(name: str) -> str:
    """A name as the model has it: what wraps the model is left out."""
    for part in ("objective.", "model."):
        while name.startswith(part):
            name = name.removeprefix(part)
    return name
