"""The first weights of any model: by a draw, layer by layer, or by the data (LSUV)."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from deepweave.functional.initial import Fans, fans, orthogonal
from deepweave.nn.recurrent import GRU, LSTM, RNN

Draw = Callable[..., Tensor]
Only = Callable[[str, nn.Module], bool] | str | Iterable[str] | None

# layers that hold the matrices of several gates, or of query, key and value, in one tensor
_STACKED: dict[type[nn.Module], int] = {
    nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3, nn.RNN: 1, nn.RNNCell: 1,
    LSTM: 4, GRU: 3, RNN: 1, nn.MultiheadAttention: 3,
}  # fmt: skip


@dataclass(frozen=True)
class _Rule:
    """How a layer's weights are drawn, kept with the layer."""

    draw: Draw
    gain: float | None
    bias: float

    def __call__(self, like: Tensor, ends: Fans, generator: Generator | None) -> Any:
        """A draw for one matrix or kernel (out, in, *k), told what it can take."""
        takes = _takes(self.draw)
        known: dict[str, Any] = {"fans": ends, "generator": generator}
        if self.gain is not None:
            known["gain"] = self.gain
        return self.draw(like, **{k: v for k, v in known.items() if {"*", k} & takes})


def _takes(draw: Draw) -> set[str]:
    """The keywords of a draw; ``*`` among them where it takes any."""
    try:
        known = inspect.signature(draw).parameters.values()
    except ValueError:  # torch.zeros_like and the like have none to read
        return set()
    names = {p.name for p in known if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    return names | {"*"} if any(p.kind is p.VAR_KEYWORD for p in known) else names


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers whose weights mix inputs: dense, convolutional, recurrent, attention."""
    kinds = (nn.Linear, nn.Bilinear, _ConvNd, *_STACKED)
    return ((name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds))


def _taken(model: nn.Module, only: Only, name: str) -> list[nn.Module]:
    """The layers that ``only`` means.

    Raises:
        ValueError: it means none.
    """
    layers = list(_layers(model))
    if only is None:
        found = [layer for _, layer in layers]
    elif callable(only):
        found = [layer for label, layer in layers if only(label, layer)]
    else:
        wanted = [only] if isinstance(only, str) else list(only)
        found = [
            layer
            for label, layer in layers
            if any(not one or label == one or label.startswith(f"{one}.") for one in wanted)
        ]
    if not found:
        known = ", ".join(repr(label) for label, _ in layers[:8]) or "no layer with weights"
        raise ValueError(f"{name}: only={only!r} means none of the layers; there is {known}")
    return found


def initialize(
    model: nn.Module,
    draw: Draw,
    *,
    gain: float | None = None,
    only: Only = None,
    bias: float = 0.0,
    generator: Generator | None = None,
) -> nn.Module:
    """Draw a model's weights anew, in place, and remember how: the model, drawn.

    Linear, bilinear, convolutional (grouped and transposed too), recurrent layers and attention
    get weights by the draw, gate by gate and group by group, and constant biases. Norms and
    embeddings stay as they are. A layer's ``reset_parameters`` is the same draw from then on, so
    that a Population of the model, and a copy of it, are drawn anew by it.

    Args:
        model: any module, or an objective that holds it.
        draw: such as :func:`deepweave.functional.he`: a tensor (out, in, *kernel) in, one like it
            out; of the keywords ``gain``, ``fans`` and ``generator`` it is told what it takes.
        gain: for the draw, such as ``gain("tanh")``; None: the draw's own.
        only: which layers: a name, several (a name means all inside it too), or a predicate of
            name and layer. A second call may give other layers another draw.
        bias: what the biases start from.
        generator: of this first draw; redraws use torch's global generator.

    Raises:
        ValueError: ``only`` means no layer, or the draw takes no gain.

    >>> from deepweave.functional import he
    >>> net = initialize(nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 3)), he)
    >>> net = initialize(net, torch.zeros_like, only="2")
    >>> bool(net[0].weight.any()), bool(net[2].weight.any()), bool(net[0].bias.any())
    (True, False, False)
    """
    if gain is not None and not {"*", "gain"} & _takes(draw):
        raise ValueError(f"initialize: {getattr(draw, '__name__', draw)} takes no gain")
    rule = _Rule(draw, gain, bias)
    for layer in _taken(model, only, "initialize"):
        _redraw(layer, rule, generator)
        # an attribute of the layer, which deepcopy binds to the copy
        layer.reset_parameters = functools.partial(_redraw, layer, rule)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return model


@torch.no_grad()
def _redraw(layer: nn.Module, rule: _Rule, generator: Generator | None = None) -> None:
    for name, weight in layer.named_parameters(recurse=False):
        if "bias" in name:
            weight.fill_(rule.bias)
        elif weight.dim() > 1:
            for part, ends in _parts(layer, name, weight):
                part.copy_(_checked(rule(part, ends, generator), part))


def _checked(drawn: Any, part: Tensor) -> Tensor:
    if not isinstance(drawn, Tensor) or drawn.shape != part.shape:
        found = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
        raise ValueError(f"initialize: the draw must give {tuple(part.shape)}, got {found}")
    return drawn


def _parts(layer: nn.Module, name: str, weight: Tensor) -> Iterator[tuple[Tensor, Fans]]:
    """The matrices or kernels (out, in, *k) inside a weight, as views, each with its fans."""
    if isinstance(layer, _ConvNd):
        crossed = isinstance(layer, _ConvTransposeNd)
        for part in weight.chunk(layer.groups):
            ends = fans(part.shape, transposed=crossed, stride=layer.stride)
            yield part.transpose(0, 1) if crossed else part, ends
        return
    gates = next((n for kind, n in _STACKED.items() if isinstance(layer, kind)), 1)
    if name.startswith(("weight_hr", "q_proj", "k_proj", "v_proj")):
        gates = 1  # a projection of its own
    for part in weight.chunk(gates):
        yield part, fans(part.shape)


@contextmanager
def _calm(model: nn.Module) -> Iterator[None]:
    """Dropout off, batch norms by the batch at hand; modes and running statistics come back."""
    modes = [(module, module.training) for module in model.modules()]
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        for module in model.modules():
            module.training = isinstance(module, _BatchNorm)
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for buffer, value in kept:
            buffer.copy_(value)


@torch.no_grad()
def lsuv(
    model: nn.Module,
    batch: Any,
    *,
    only: Only = None,
    tolerance: float = 0.02,
    passes: int = 10,
    generator: Generator | None = None,
) -> nn.Module:
    """Layer-sequential unit variance: orthonormal weights, scaled until outputs have variance 1.

    Going forward through the layers, W <- W / std(z), z the layer's outputs over the batch and
    all units, with the biases at zero. Since a layer is linear in its weights one pass sets all
    layers; further passes are for layers that are used more than once. Linear and convolutional
    layers of any module, in the order in which they are called.

    A Population draws its members anew: give it members that are each set by this.

    Args:
        model: any module, or an objective that holds it (its batch is then (x, y)).
        batch: what the model takes: some hundred training samples.
        tolerance: how far the variances may be from 1.
        passes: at most.

    Raises:
        ValueError: a layer's outputs do not vary, or the passes do not suffice; the weights are
            as before.

    Source: Mishkin & Matas, All you need is a good init, 2016.

    >>> net = nn.Sequential(nn.Linear(10, 50), nn.Tanh(), nn.Linear(50, 50), nn.Linear(50, 3))
    >>> x = torch.randn(200, 10)
    >>> bool((lsuv(net, x)(x).var() - 1).abs() < 0.02)
    True
    """
    layers = [one for one in _taken(model, only, "lsuv") if isinstance(one, nn.Linear | _ConvNd)]
    names = {module: name for name, module in model.named_modules()}
    before = [(weight, weight.clone()) for layer in layers for weight in layer.parameters()]
    rule, found = _Rule(orthogonal, None, 0.0), {}

    def scale(layer: nn.Module, _: Any, z: Tensor) -> Tensor:
        variance = float(z.var())
        found[names[layer]] = variance
        if not math.isfinite(variance) or variance < 1e-20:
            raise ValueError(f"lsuv: the outputs of layer {names[layer]} have variance {variance}")
        layer.weight.mul_(variance**-0.5)  # pyright: ignore[reportCallIssue]
        return z * variance**-0.5

    handles = [layer.register_forward_hook(scale) for layer in layers]
    try:
        for layer in layers:
            _redraw(layer, rule, generator)
        for _ in range(passes):
            found.clear()
            with _calm(model):
                model(batch)
            if found and all(abs(value - 1) <= tolerance for value in found.values()):
                return model
        if not found:
            raise ValueError("lsuv: the model calls none of these layers")
        worst = max(found, key=lambda name: abs(found[name] - 1))
        raise ValueError(
            f"lsuv: layer {worst} has variance {found[worst]:.3g} after {passes} "
            "passes; a layer that is used more than once may have no common scale"
        )
    except BaseException:
        for weight, value in before:
            weight.copy_(value)
        raise
    finally:
        for handle in handles:
            handle.remove()
