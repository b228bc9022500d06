"""Makers of flows for vectors: spline, affine, autoregressive, planar, radial, continuous."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from deepweave.blueprint import blueprint
from deepweave.nn.activations import Activation
from deepweave.nn.autoregressive import Autoregressive
from deepweave.nn.bijection import Bijection, Composition, Flatten, Permutation, Reversed
from deepweave.nn.continuous import Continuous
from deepweave.nn.coupling import Coupling
from deepweave.nn.elementwise import Dequantize, Logit
from deepweave.nn.flow import Flow
from deepweave.nn.mixing import ActNorm, LUMixing
from deepweave.nn.planar import Planar, Radial
from deepweave.nn.scalar import Kind

Mix = Literal["lu", "reverse", "permute", "none"]


def shape_of(features: Any, name: str) -> tuple[int, ...]:
    """The shape of one sample, from a number, a shape or a data spec.

    Raises:
        TypeError: none of them.
        ValueError: a size below 1.
    """
    if hasattr(features, "shape") and hasattr(features, "outputs"):
        shape = tuple(features.shape)
    elif isinstance(features, int):
        shape = (features,)
    elif isinstance(features, tuple | list) and len(features):
        # a spec, written down and read again, is ((sizes), outputs)
        shape = tuple(features[0]) if isinstance(features[0], tuple | list) else tuple(features)
    else:
        raise TypeError(
            f"{name}: features must be a number, a shape or a data spec, got {features!r:.60}"
        )
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"{name}: features must be at least 1, got {shape}")
    return shape


def _assemble(
    name: str,
    features: Any,
    layers: int,
    layer: Any,
    *,
    mix: Mix,
    context: int,
    levels: int | None,
    inverse: bool = False,
    turn: bool = False,
) -> Flow:
    """Data to vectors, to unit scale, and layers with a mixing of features between them."""
    shape = shape_of(features, name)
    size = math.prod(shape)
    if layers < 1:
        raise ValueError(f"{name}: layers must be at least 1, got {layers}")
    if mix not in ("lu", "reverse", "permute", "none"):
        raise ValueError(f"{name}: mix must be 'lu', 'reverse', 'permute' or 'none', got {mix!r}")
    if context < 0:
        raise ValueError(f"{name}: context must be 0 or a number of features, got {context}")
    first: list[Bijection] = [Flatten(shape)] if len(shape) > 1 else []
    if levels:
        first += [Dequantize(levels), Logit(0.01)]
    parts: list[Bijection] = [ActNorm(size)]
    for i in range(layers):
        if i and size > 1:
            if mix == "lu":
                # two features have one order beside their own, and a draw may miss it
                parts.append(LUMixing(size, reverse=turn and size == 2))
            elif mix != "none":
                parts.append(Permutation(size, reverse=mix == "reverse"))
        parts.append(layer(size, i))
    body: Bijection = Composition(parts)
    if inverse:
        body = Reversed(body)
    return Flow(Composition([*first, body]), shape, context=context, noise=(size,), levels=levels)


@blueprint
def spline_flow(
    features: Any,
    layers: int = 4,
    hidden: Sequence[int] = (64, 64),
    *,
    bins: int = 8,
    bound: float = 5.0,
    mix: Mix = "lu",
    activation: Activation = "relu",
    context: int = 0,
    levels: int | None = None,
) -> Flow:
    """A neural spline flow of couplings: one pass for densities, one for samples.

    ActNorm, then couplings whose maps are rational-quadratic splines, alternately of one half of
    the features and of the other, with an LU mixing between them.

    Args:
        features: a number D, a shape, or a data spec; samples are flattened.
        layers: couplings.
        hidden: widths of each coupling's network.
        bins, bound: of the splines, and B of their interval [-B, B] in standard deviations.
        mix: ``"lu"``, ``"reverse"``, ``"permute"`` or ``"none"``, between layers.
        context: how many numbers of context; 0 for none.
        levels: the data have so many levels in [0, 1] (256 for bytes): they are dequantised, and
            log densities are of the discrete data. None: the data are any numbers.

    Shapes: x (B, *shape) -> log density (B,)
    Raises:
        ValueError: sizes or numbers out of range.
    Source: Durkan, Bekasov, Murray & Papamakarios, Neural spline flows, 2019.

    >>> flow = spline_flow(3)
    >>> flow.sample(4).shape, flow.log_prob(flow.sample(4)).shape
    (torch.Size([4, 3]), torch.Size([4]))
    """

    def layer(size: int, i: int) -> Bijection:
        return Coupling(
            size, "spline", hidden, swap=i % 2 == 1, context=context, activation=activation,
            bins=bins, bound=bound,
        )  # fmt: skip

    return _assemble(
        "spline_flow", features, layers, layer, mix=mix, context=context, levels=levels
    )


@blueprint
def affine_flow(
    features: Any,
    layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    *,
    most: float = 2.0,
    mix: Mix = "lu",
    activation: Activation = "relu",
    context: int = 0,
    levels: int | None = None,
) -> Flow:
    """RealNVP: couplings z = x e^s + t, alternately of either half, |s| below ``most``.

    Args: as for :func:`spline_flow`.

    Shapes: x (B, *shape) -> log density (B,)
    Source: Dinh, Sohl-Dickstein & Bengio, Density estimation using Real NVP, 2017.
    """

    def layer(size: int, i: int) -> Bijection:
        return Coupling(
            size, "affine", hidden, swap=i % 2 == 1, context=context, activation=activation,
            most=most,
        )  # fmt: skip

    return _assemble(
        "affine_flow", features, layers, layer, mix=mix, context=context, levels=levels
    )


@blueprint
def autoregressive_flow(
    features: Any,
    layers: int = 3,
    hidden: Sequence[int] = (64, 64),
    *,
    kind: Kind = "spline",
    inverse: bool = False,
    bins: int = 8,
    bound: float = 5.0,
    most: float = 3.0,
    mix: Mix = "lu",
    activation: Activation = "relu",
    context: int = 0,
    levels: int | None = None,
) -> Flow:
    """A masked autoregressive flow: of splines (NSF), affine (MAF), or turned round (IAF).

    Densities take one pass, samples about three, for each hidden unit is computed once; with
    ``inverse=True`` it is the other way round, as variational inference wants it.

    Args:
        kind: ``"spline"`` or ``"affine"``.
        inverse: whether to turn the flow round.
        others: as for :func:`spline_flow`.

    Shapes: x (B, *shape) -> log density (B,)
    Source: Papamakarios, Pavlakou & Murray, Masked autoregressive flow for density estimation,
    2017; Kingma et al., Improving variational inference with inverse autoregressive flow, 2016.
    """
    if inverse and levels:
        raise ValueError("autoregressive_flow: levels cannot be dequantised in an inverse flow")

    def layer(size: int, i: int) -> Bijection:
        return Autoregressive(
            size, kind, hidden, context=context, activation=activation, bins=bins, bound=bound,
            most=most,
        )  # fmt: skip

    return _assemble(
        "autoregressive_flow", features, layers, layer, mix=mix, context=context, levels=levels,
        inverse=inverse, turn=True,
    )  # fmt: skip


@blueprint
def planar_flow(
    features: Any, layers: int = 16, *, inverse: bool = False, context: int = 0
) -> Flow:
    """Planar layers; samples need a numeric inverse, unless the flow is turned round.

    Args:
        features: a number D, a shape, or a data spec.
        layers: how many.
        inverse: whether to turn the flow round: fast samples, numeric densities.
        context: how many numbers of context; 0 for none.

    Shapes: x (B, *shape) -> log density (B,)
    Source: Rezende & Mohamed, Variational inference with normalizing flows, 2015.
    """
    return _assemble(
        "planar_flow", features, layers, lambda size, i: Planar(size, context=context),
        mix="none", context=context, levels=None, inverse=inverse,
    )  # fmt: skip


@blueprint
def radial_flow(
    features: Any, layers: int = 16, *, inverse: bool = False, context: int = 0
) -> Flow:
    """Radial layers, exact both ways. Args and source: as for :func:`planar_flow`.

    Shapes: x (B, *shape) -> log density (B,)
    """
    return _assemble(
        "radial_flow", features, layers, lambda size, i: Radial(size, context=context),
        mix="none", context=context, levels=None, inverse=inverse,
    )  # fmt: skip


@blueprint
def continuous_flow(
    features: Any,
    layers: int = 1,
    hidden: Sequence[int] = (64, 64),
    *,
    steps: int = 8,
    exact: int = 8,
    context: int = 0,
    levels: int | None = None,
) -> Flow:
    """FFJORD: samples flow along a learnt velocity, in fixed Runge-Kutta steps.

    Args:
        layers: continuous layers, each with a velocity of its own.
        steps: of Runge-Kutta, for each layer; the inverse is exact up to their error.
        exact: up to so many features the trace is exact in training; beyond it is estimated.
        others: as for :func:`spline_flow`.

    Shapes: x (B, *shape) -> log density (B,)
    Source: Grathwohl et al., FFJORD: free-form continuous dynamics for scalable reversible
    generative models, 2019.
    """

    def layer(size: int, i: int) -> Bijection:
        return Continuous(size, hidden, steps=steps, context=context, exact=exact)

    return _assemble(
        "continuous_flow", features, layers, layer, mix="none", context=context, levels=levels
    )
