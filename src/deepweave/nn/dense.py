"""Shallow and deep networks of dense layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.dropout import Dropout


def sizes_of(sizes: Any, name: str) -> tuple[tuple[int, ...], int]:
    """The shape of one input and the number of outputs, from a spec or a pair.

    Raises:
        TypeError: neither a spec (``shape``, ``outputs``) nor a pair.
        ValueError: a size below 1.
    """
    if hasattr(sizes, "shape") and hasattr(sizes, "outputs"):
        shape, outputs = tuple(sizes.shape), int(sizes.outputs)
    elif isinstance(sizes, tuple | list) and (
        len(sizes) == 2 or (len(sizes) == 3 and isinstance(sizes[0], tuple | list))
    ):
        shape = tuple(sizes[0]) if isinstance(sizes[0], tuple | list) else (int(sizes[0]),)
        outputs = int(sizes[1])
    else:
        raise TypeError(f"{name}: sizes must be a data spec or (inputs, outputs), got {sizes!r}")
    if min((*shape, outputs)) < 1:
        raise ValueError(f"{name}: sizes must be at least 1, got {shape} -> {outputs}")
    return shape, outputs


def vocabulary_of(sizes: Any) -> int:
    """How many tokens there are, from a spec or ((T,), outputs, vocabulary); 0: not of tokens."""
    if isinstance(sizes, tuple | list):
        return int(sizes[2]) if len(sizes) == 3 else 0
    return int(getattr(sizes, "vocabulary", 0))


class Dense(nn.Linear):
    """A dense layer z = W x + b, its weights drawn for the activation that follows it.

    The weights are normal with standard deviation gain / sqrt(inputs), the biases zero.

    Shapes: x (B, inputs) -> (B, outputs)
    Source: He et al., Delving deep into rectifiers, 2015.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = math.sqrt(2)):
        self.gain = gain
        super().__init__(inputs, outputs)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.gain / math.sqrt(self.in_features))
        nn.init.zeros_(self.bias)


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


@blueprint
def shallow(sizes: Any) -> nn.Sequential:
    """One dense layer: logistic, softmax or linear regression, depending on the objective.

    z = W x + b. The activation g of the output belongs to the objective, where it is fused with
    the loss: sigmoid or softmax for classes, the identity for numbers. The weights start at zero:
    with one layer there is no symmetry to break, and the loss is convex.

    Args:
        sizes: a data spec, or (inputs, outputs).

    Shapes: x (B, *shape) -> (B, outputs)

    >>> import torch
    >>> shallow((3, 2))(torch.ones(5, 3)).shape
    torch.Size([5, 2])
    """
    shape, outputs = sizes_of(sizes, "shallow")
    layer = Dense(math.prod(shape), outputs, gain=0.0)
    return nn.Sequential(*([nn.Flatten()] if len(shape) > 1 else []), layer)


@blueprint
def mlp(
    sizes: Any,
    hidden: Sequence[int] = (128, 128),
    activation: Activation | Sequence[Activation] = "relu",
    *,
    dropout: float = 0.0,
    norm: str | None = None,
    residual: bool = False,
) -> nn.Sequential:
    """A deep network: dense layers with an activation each, and a dense output layer.

    a[l] = g[l](W[l] a[l-1] + b[l]), output z[L] = W[L] a[L-1] + b[L]; the output's activation is
    fused into the objective's loss.

    Args:
        sizes: a data spec, or (inputs, outputs).
        hidden: the width of each hidden layer.
        activation: one for all hidden layers, or one per layer; names, functions or modules.
        dropout: the share of hidden units dropped while training.
        norm: ``"batch"`` or ``"layer"``, before each activation.
        residual: add a layer's input to its output where the widths agree.

    Shapes: x (B, *shape) -> (B, outputs)

    Raises:
        ValueError: a width below 1, a dropout outside [0, 1), an unknown name, or as many
            activations as do not fit the hidden layers.

    >>> mlp((4, 3), hidden=(8,), activation="tanh")
    Sequential(
      (0): Dense(in_features=4, out_features=8, bias=True)
      (1): Tanh()
      (2): Dense(in_features=8, out_features=3, bias=True)
    )
    """
    shape, outputs = sizes_of(sizes, "mlp")
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise ValueError(f"mlp: hidden must be widths of at least 1, got {tuple(hidden)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"mlp: dropout must lie in [0, 1), got {dropout}")
    if norm not in (None, "batch", "layer"):
        raise ValueError(f"mlp: norm must be None, 'batch' or 'layer', got {norm!r}")
    many = isinstance(activation, list | tuple)
    kinds: list[Any] = list(activation) if many else [activation] * len(hidden)  # pyright: ignore[reportArgumentType]
    # A module given once for all layers becomes one of its own in each.
    kinds = [copy.deepcopy(kind) if isinstance(kind, nn.Module) else kind for kind in kinds]
    if len(kinds) != len(hidden):
        raise ValueError(
            f"mlp: {len(hidden)} hidden layers need as many activations, got {len(kinds)}"
        )
    layers: list[nn.Module] = [nn.Flatten()] if len(shape) > 1 else []
    width = math.prod(shape)
    for size, kind in zip(hidden, kinds):
        block: list[nn.Module] = [Dense(width, size, gain=gain_of(kind))]
        if norm is not None:
            block.append(nn.BatchNorm1d(size) if norm == "batch" else nn.LayerNorm(size))
        block.append(activation_layer(kind))
        if dropout:
            block.append(Dropout(dropout))
        layers += [Residual(nn.Sequential(*block))] if residual and size == width else block
        width = size
    return nn.Sequential(*layers, Dense(width, outputs, gain=1.0))
