"""Every bijection is one line, and the checks run over all.

Exact inverses meet 1e-10 in float64 and 1e-5 in float32; what is solved in steps says how far off
it may be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from deepweave.nn import (
    ActNorm,
    Autoregressive,
    Bijection,
    Composition,
    Continuous,
    Coupling,
    Flatten,
    ImageCoupling,
    InvertibleConvolution,
    Logit,
    LUMixing,
    MultiScale,
    Permutation,
    Planar,
    Radial,
    Reversed,
    Softplus,
    Squeeze,
)


@dataclass(frozen=True)
class Case:
    """A bijection for samples of a shape, which ``make`` draws anew."""

    make: Callable[[], Bijection]
    shape: tuple[int, ...] = (5,)
    context: int = 0
    fine: float = 1e-10  # the inverse, in float64
    coarse: float = 1e-5  # and in float32
    unit: bool = False  # whether inputs lie in (0, 1)


class Foreign(nn.Module):
    """An autoregressive network that cannot be unrolled."""

    def __init__(self, features: int, size: int):
        super().__init__()
        self.layer = nn.Linear(features, features * size)
        self.size = size

    def forward(self, x):
        features = x.shape[1]
        mask = x.new_ones(features, features).tril(-1).repeat_interleave(self.size, 0)
        out = nn.functional.linear(x, self.layer.weight * mask, self.layer.bias)
        return out.tanh().unflatten(1, (features, self.size))


def _scales(context: int = 0) -> MultiScale:
    first = [Squeeze(), ActNorm(4), InvertibleConvolution(4), ImageCoupling(4, "affine", 8)]
    return MultiScale(
        [Composition(first), Composition([Squeeze(), ImageCoupling(8, "spline", 6, bins=4)])],
        [ImageCoupling(4, "affine", 8)],
        [(1, 4, 4), (2, 2, 2)],
    )


BIJECTIONS: dict[str, Case] = {
    "affine coupling": Case(lambda: Coupling(5, "affine", (16,))),
    "affine coupling, swapped, context": Case(
        lambda: Coupling(5, "affine", (16,), swap=True, context=2), context=2
    ),
    "spline coupling": Case(lambda: Coupling(5, "spline", (16,))),
    "spline coupling, context": Case(
        lambda: Coupling(5, "spline", (16,), context=3, bins=5, bound=3.0), context=3
    ),
    "spline coupling, one feature": Case(lambda: Coupling(1, "spline", (8,)), (1,)),
    "spline coupling, one feature, context": Case(
        lambda: Coupling(1, "spline", (8,), context=2), (1,), 2
    ),
    "image coupling": Case(lambda: ImageCoupling(3, "affine", 8), (3, 4, 4)),
    "image coupling, spline, context": Case(
        lambda: ImageCoupling(2, "spline", 8, context=2, bins=4), (2, 3, 3), 2
    ),
    "MAF": Case(lambda: Autoregressive(5, "affine", (16, 16))),
    "MAF, context, widths differ": Case(
        lambda: Autoregressive(5, "affine", (7, 16, 3), context=2), context=2
    ),
    "MAF, one feature": Case(lambda: Autoregressive(1, "affine", (8,)), (1,)),
    "NSF, autoregressive": Case(lambda: Autoregressive(5, "spline", (16, 16), activation="gelu")),
    "NSF, one feature, context": Case(
        lambda: Autoregressive(1, "spline", (8, 8), context=2), (1,), 2
    ),
    "IAF": Case(lambda: Reversed(Autoregressive(5, "affine", (16, 16)))),
    "a foreign autoregressive net": Case(
        lambda: Autoregressive(5, "affine", net=Foreign(5, 2), tolerance=1e-14)
    ),
    "planar": Case(lambda: Planar(5)),
    "planar, context": Case(lambda: Planar(5, context=2), context=2),
    "radial": Case(lambda: Radial(5)),
    "radial, one feature, context": Case(lambda: Radial(1, context=2), (1,), 2),
    "actnorm": Case(lambda: ActNorm(5)),
    "actnorm of maps": Case(lambda: ActNorm(3), (3, 2, 4)),
    "LU mixing": Case(lambda: LUMixing(5)),
    "LU mixing, one feature": Case(lambda: LUMixing(1), (1,)),
    "invertible convolution": Case(lambda: InvertibleConvolution(3), (3, 2, 4)),
    "permutation": Case(lambda: Permutation(5)),
    "flatten": Case(lambda: Flatten((2, 3)), (2, 3)),
    "squeeze": Case(lambda: Squeeze(), (2, 4, 6)),
    "logit": Case(lambda: Logit(0.01), unit=True),
    "softplus": Case(lambda: Softplus(), unit=True),
    "continuous": Case(lambda: Continuous(3, (16,), steps=8), (3,), fine=1e-4, coarse=1e-4),
    "continuous, context": Case(
        lambda: Continuous(2, (16,), steps=8, context=2), (2,), 2, 1e-4, 1e-4
    ),
    "composition": Case(
        lambda: Composition([ActNorm(5), Coupling(5, "spline", (8,)), LUMixing(5), Radial(5)])
    ),
    "several scales": Case(_scales, (1, 4, 4)),
}
