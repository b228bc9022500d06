"""Activations as layers: by name, by function, and one of several for a study of them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional import activations

Activation = str | Callable[[Tensor], Tensor]

inside: Any = None
with suppress(ImportError):  # internals of torch.func, read in torch 2.13
    inside = importlib.import_module("torch._C._functorch")
_NEEDED = ("is_batchedtensor", "is_functorch_wrapped_tensor", "get_interpreter_stack")
KNOWN = all(hasattr(inside, name) for name in _NEEDED)


class Lambda(nn.Module):
    """A function of one tensor as a module, so that it stands in the layer list by name."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return getattr(self.function, "__name__", repr(self.function))


def activation_layer(activation: Activation) -> nn.Module:
    """A layer of its own for an activation, by the field's name, a function or a module class.

    Names are those of :mod:`deepweave.functional.activations` and of the layers of torch, in any
    case, with or without underscores. What has a learned slope (``prelu``) becomes torch's layer.

    Raises:
        ValueError: an unknown name.

    >>> activation_layer("relu"), activation_layer("gelu_tanh")
    (ReLU(), GELU(approximate='tanh'))
    """
    if isinstance(activation, nn.Module):
        return activation
    if isinstance(activation, type):
        return activation()
    if callable(activation):
        return nn.PReLU() if activation is activations.prelu else Lambda(activation)
    name = activation.lower()
    if name in ("identity", "linear"):
        return nn.Identity()
    short = name.replace("_", "")
    if short == "gelutanh":
        return nn.GELU(approximate="tanh")
    known = {n.lower(): getattr(nn.modules.activation, n) for n in nn.modules.activation.__all__}
    known |= {"hardswish": nn.Hardswish, "swish": nn.SiLU}
    if short not in known or short in ("softmax", "multiheadattention"):
        raise ValueError(
            f"activation: expected a name such as relu, tanh, sigmoid, gelu, silu, elu, "
            f"leaky_relu, prelu or mish, got {activation!r}"
        )
    return known[short]()


def gain_of(activation: Activation) -> float:
    """The factor that keeps the scale of a normal signal, 1 / sqrt(E g(z)^2), for most g."""
    if isinstance(activation, Choice):
        activation = activation.activations[int(activation.index)]
    kind = type(activation).__name__
    name = activation if isinstance(activation, str) else getattr(activation, "__name__", kind)
    table = {"tanh": 5 / 3, "sigmoid": 1.0, "identity": 1.0, "linear": 1.0, "selu": 0.75}
    table |= {"gelu": 1.532, "gelu_tanh": 1.532, "silu": 1.675, "mish": 1.486, "elu": 1.245}
    return table.get(name.lower(), math.sqrt(2))


@blueprint
class Choice(nn.Module):
    """One of several activations, chosen by a number in which members of a Population differ.

    Networks with different activations have the same weights, so that a study of activations is
    one Population: a member per activation, all trained at once. Under ``vmap`` neighbouring
    members of one activation are taken together, and each activation is computed only for those
    that have it. The slope of ``prelu`` is learned.

    Args:
        activations: their names.
        index: which one, from 0.

    Raises:
        ValueError: no such activation.

    >>> Choice(("relu", "tanh"), 1)(torch.tensor([-1.0, 0.0]))
    tensor([-0.7616,  0.0000])
    """

    index: Tensor

    def __init__(self, activations: Sequence[str], index: int):
        super().__init__()
        self.activations = tuple(activations)
        if not 0 <= index < len(self.activations):
            raise ValueError(
                f"Choice: index must be in 0..{len(self.activations) - 1}, got {index}"
            )
        learned = "prelu" in self.activations
        self.kinds = [None if a == "prelu" else activation_layer(a) for a in self.activations]
        self.register_buffer("index", torch.tensor(index))
        self.slope = nn.Parameter(torch.full((1,), 0.25)) if learned else None

    def forward(self, x: Tensor) -> Tensor:
        if not KNOWN or not inside.is_functorch_wrapped_tensor(self.index):
            return self._apply_one(int(self.index), x, self.slope)
        if len(inside.get_interpreter_stack()) == 1 and inside.is_batchedtensor(self.index):
            return _Grouped.apply(x, self.index, self.slope, self._apply_one)  # pyright: ignore[reportReturnType]
        found = torch.zeros_like(x)  # under further transforms: all of them, one counts
        for k in range(len(self.kinds)):
            found = torch.where(self.index == k, self._apply_one(k, x, self.slope), found)
        return found

    def _apply_one(self, k: int, x: Tensor, slope: Tensor | None) -> Tensor:
        layer = self.kinds[k]
        if layer is None and slope is not None:
            return x.clamp_min(0) + slope * x.clamp_max(0)
        return layer(x)  # pyright: ignore[reportOptionalCall]

    def extra_repr(self) -> str:
        return self.activations[int(self.index)] if self.index.dim() == 0 else ""


class _Grouped(torch.autograd.Function):
    """Each member's own activation; ``vmap`` below is the way it is taken, with ordinary slopes."""

    @staticmethod
    def forward(x: Tensor, index: Tensor, slope: Tensor | None, one: Any) -> Tensor:
        return one(int(index), x, slope)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        (x, index, slope, one), dims, n = args, in_dims, info.batch_size
        x = x.expand(n, *x.shape) if dims[0] is None else x.movedim(dims[0], 0)
        flipped = x.dim() == 3 and not x.is_contiguous() and x.mT.is_contiguous()
        x = x.mT if flipped else x  # members side by side in memory, as the stacked layers give
        if slope is not None:
            slope = slope.expand(n, 1) if dims[2] is None else slope
            slope = slope.view(n, *[1] * (x.dim() - 1))
        which, counts = torch.unique_consecutive(index.movedim(dims[1], 0), return_counts=True)
        sizes = counts.tolist()  # one split has one slope; slices would each have one as large as x
        slopes = [None] * len(sizes) if slope is None else slope.split(sizes)
        parts = [one(k, *part) for k, *part in zip(which.tolist(), x.split(sizes), slopes)]
        found = torch.cat(parts)
        return found.mT if flipped else found, 0
