"""How a model was made, as plain values, so that a folder can make it again without a pickle.

A maker (a function that returns a module, or a module class) marked with :func:`blueprint` notes
its arguments on what it makes. :func:`build` makes the same model from the note. A note can only
call marked makers of deepweave and the layers of ``torch.nn``: reading one runs no foreign code.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

Maker = TypeVar("Maker", bound=Callable[..., Any])
_NAMED = ("deepweave.functional.", "deepweave.nn.", "torch.nn.functional.", "torch.nn.modules.")


def blueprint(maker: Maker) -> Maker:
    """Mark a function or class whose modules remember their making.

    >>> @blueprint
    ... def line(features: int) -> nn.Module:
    ...     return nn.Linear(features, 1)
    >>> describe(line(3))["with"]
    {'features': 3}
    """
    if inspect.isclass(maker):
        make = maker.__init__

        @functools.wraps(make)
        def remember(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            make(self, *args, **kwargs)
            if type(self) is maker:
                _note(self, maker, make, (self, *args), kwargs)

        made: Any = maker
        made.__init__ = remember
        made._makes_models = True
        return made

    @functools.wraps(maker)
    def noted(*args: Any, **kwargs: Any) -> Any:
        model = maker(*args, **kwargs)
        _note(model, maker, maker, args, kwargs)
        return model

    noted._makes_models = True  # pyright: ignore[reportAttributeAccessIssue]
    return noted  # pyright: ignore[reportReturnType]


def _note(model: nn.Module, maker: Any, signature: Any, args: Any, kwargs: Any) -> None:
    bound = inspect.signature(signature).bind(*args, **kwargs)
    bound.apply_defaults()
    given = {k: v for k, v in bound.arguments.items() if v is not model}
    try:
        values = {name: _plain(value) for name, value in given.items()}
    except TypeError:
        return  # an argument that no plain value describes: load with model= instead
    note = {"make": f"{maker.__module__}.{maker.__qualname__}", "with": values}
    object.__setattr__(model, "_blueprint", note)


def describe(model: nn.Module) -> dict[str, Any] | None:
    """The note on a model, or None if it was made otherwise."""
    return getattr(model, "_blueprint", None)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, nn.Module):
        note = describe(value)
        if note is not None:
            return {"blueprint": note}
    elif hasattr(value, "shape") and hasattr(value, "outputs"):  # a Spec: only its sizes matter
        tokens = getattr(value, "vocabulary", 0)
        return {"sizes": [list(value.shape), int(value.outputs), *([tokens] if tokens else [])]}
    elif callable(value) and getattr(value, "__qualname__", "<").isidentifier():
        name = f"{value.__module__}.{value.__qualname__}"
        if name.startswith(_NAMED):
            return {"name": name}
    raise TypeError


def build(note: dict[str, Any]) -> nn.Module:
    """Make the model of a note, with freshly drawn weights.

    Raises:
        ValueError: the note names something else than a maker, or nothing at all.

    >>> build({"make": "torch.nn.Linear", "with": {"in_features": 2, "out_features": 1}})
    Linear(in_features=2, out_features=1, bias=True)
    """
    if not isinstance(note, dict) or not isinstance(note.get("make"), str):
        raise ValueError(f"build: a note says what to make and with what, got {note!r:.80}")
    maker = _find(note["make"])
    layer = inspect.isclass(maker) and issubclass(maker, nn.Module)
    if not (layer and maker.__module__.startswith("torch.nn.modules.")) and not getattr(
        maker, "_makes_models", False
    ):
        raise ValueError(f"build: {note['make']!r} is not a maker of models")
    given = {name: _value(part) for name, part in note.get("with", {}).items()}
    make: Any = maker
    try:
        made: nn.Module = make(**given)
    except TypeError as error:
        raise ValueError(f"build: {note['make']} cannot be made so: {error}") from None
    return made


def _value(part: Any) -> Any:
    if isinstance(part, list):
        return tuple(_value(one) for one in part)
    if isinstance(part, dict):
        if set(part) == {"blueprint"}:
            return build(part["blueprint"])
        if set(part) == {"name"}:
            return _layer(part["name"])
        if set(part) == {"sizes"}:
            return tuple(part["sizes"][0]), *part["sizes"][1:]
        return {name: _value(one) for name, one in part.items()}
    return part


def _layer(name: Any) -> Any:
    """A function or class by the very name that :func:`describe` gave it."""
    if isinstance(name, str) and name.startswith(_NAMED):
        found = _find(name)
        if callable(found) and f"{found.__module__}.{found.__qualname__}" == name:
            return found
    raise ValueError(f"build: {name!r} is not a function of layers")


def _find(name: str) -> Any:
    module, _, last = name.rpartition(".")
    if not name.startswith(("deepweave.", "torch.nn.")) or not last.isidentifier():
        raise ValueError(f"build: expected a name inside deepweave or torch.nn, got {name!r}")
    try:
        return getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError):
        raise ValueError(f"build: this version of deepweave has no {name!r}") from None
