"""Every loss and every activation is one line, and the checks run over all.

A loss has (prediction, target) or more tensors, batch first, and gives one number per sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from deepweave import functional as f


def _rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _int(high: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def _sign(*shape: int, seed: int = 0) -> Tensor:
    return 2 * _int(2, *shape, seed=seed + 7) - 1


def _share(*shape: int, seed: int = 0) -> Tensor:
    return _rand(*shape, seed=seed).sigmoid()


def _count(*shape: int, seed: int = 0) -> Tensor:
    return _int(6, *shape, seed=seed + 7).double()


def _far(x: Tensor) -> Tensor:
    return 1e4 * x.sign()


@dataclass(frozen=True)
class Loss:
    """A loss, tensors for B samples (drawn from a seed), and what may be asked of it."""

    call: Callable[..., Tensor]
    inputs: Callable[[int, int], tuple[Tensor, ...]]
    slopes: int = 1  # so many of the inputs, from the first on, have slopes
    mask: tuple[int, ...] | None = ()  # the shape of a sample's elements; None: it takes no mask
    independent: bool = True  # whether a sample's loss depends on that sample alone
    wild: Callable[[Tensor], Tensor] = _far  # the extreme of a prediction


def _sure(x: Tensor) -> Tensor:
    """Probabilities of exactly 0 and 1."""
    return (x > 0.5).to(x.dtype)


def _pixels(n: int, seed: int) -> tuple[Tensor, Tensor]:
    return _share(n, 2, 3, 3, seed=seed), _int(2, n, 2, 3, 3, seed=seed).double()


LOSSES: dict[str, Loss] = {
    "squared_error": Loss(f.squared_error, lambda n, s: (_rand(n, seed=s), _rand(n, seed=s + 1))),
    "squared_error, several": Loss(
        f.squared_error, lambda n, s: (_rand(n, 3, seed=s), _rand(n, 3, seed=s + 1)), mask=(3,)
    ),
    "absolute_error": Loss(
        f.absolute_error, lambda n, s: (_rand(n, 3, seed=s), _rand(n, 3, seed=s + 1)), mask=(3,)
    ),
    "huber": Loss(f.huber, lambda n, s: (_rand(n, 3, seed=s), _rand(n, 3, seed=s + 1)), mask=(3,)),
    "quantile": Loss(
        partial(f.quantile, levels=0.3), lambda n, s: (_rand(n, seed=s), _rand(n, seed=s + 1))
    ),
    "quantile, several": Loss(
        partial(f.quantile, levels=(0.1, 0.5, 0.9)),
        lambda n, s: (_rand(n, 2, 3, seed=s), _rand(n, 2, seed=s + 1)),
        mask=(2,),
    ),
    "cross_entropy": Loss(
        f.cross_entropy, lambda n, s: (_rand(n, 4, seed=s), _int(4, n, seed=s + 1))
    ),
    "cross_entropy, smoothing": Loss(
        partial(f.cross_entropy, smoothing=0.1),
        lambda n, s: (_rand(n, 4, seed=s), _int(4, n, seed=s + 1)),
    ),
    "cross_entropy, pixels": Loss(
        f.cross_entropy,
        lambda n, s: (_rand(n, 4, 2, 3, seed=s), _int(4, n, 2, 3, seed=s + 1)),
        mask=(2, 3),
    ),
    "cross_entropy, probabilities": Loss(
        partial(f.cross_entropy, smoothing=0.1),
        lambda n, s: (_rand(n, 4, 3, seed=s), _rand(n, 4, 3, seed=s + 1).softmax(1)),
        mask=(3,),
    ),
    "binary_cross_entropy": Loss(
        f.binary_cross_entropy, lambda n, s: (_rand(n, seed=s), _int(2, n, seed=s + 1).double())
    ),
    "binary_cross_entropy, labels": Loss(
        partial(f.binary_cross_entropy, smoothing=0.1, positive_weight=3.0),
        lambda n, s: (_rand(n, 3, seed=s), _int(2, n, 3, seed=s + 1).double()),
        mask=(3,),
    ),
    "focal": Loss(f.focal, lambda n, s: (_rand(n, 4, seed=s), _int(4, n, seed=s + 1))),
    "focal, root": Loss(
        partial(f.focal, gamma=0.5), lambda n, s: (_rand(n, 4, seed=s), _int(4, n, seed=s + 1))
    ),
    "focal, pixels": Loss(
        f.focal,
        lambda n, s: (_rand(n, 4, 2, 3, seed=s), _int(4, n, 2, 3, seed=s + 1)),
        mask=(2, 3),
    ),
    "focal, binary": Loss(
        f.focal, lambda n, s: (_rand(n, 3, seed=s), _share(n, 3, seed=s + 1)), mask=(3,)
    ),
    "hinge": Loss(f.hinge, lambda n, s: (_rand(n, seed=s), _sign(n, seed=s + 1))),
    "hinge, squared": Loss(
        partial(f.hinge, squared=True),
        lambda n, s: (_rand(n, 3, seed=s), _sign(n, 3, seed=s + 1)),
        mask=(3,),
    ),
    "multiclass_hinge": Loss(
        f.multiclass_hinge, lambda n, s: (_rand(n, 4, seed=s), _int(4, n, seed=s + 1))
    ),
    "multiclass_hinge, every rival": Loss(
        partial(f.multiclass_hinge, kind="weston_watkins", squared=True),
        lambda n, s: (_rand(n, 4, 3, seed=s), _int(4, n, 3, seed=s + 1)),
        mask=(3,),
    ),
    "dice": Loss(f.dice, _pixels, mask=(3, 3), wild=_sure),
    "jaccard": Loss(f.jaccard, _pixels, mask=(3, 3), wild=_sure),
    "tversky": Loss(f.tversky, _pixels, mask=(3, 3), wild=_sure),
    "tversky, focal": Loss(partial(f.tversky, gamma=0.75), _pixels, mask=(3, 3), wild=_sure),
    "kl_divergence": Loss(
        f.kl_divergence,
        lambda n, s: (_rand(n, 4, seed=s), _rand(n, 4, seed=s + 1).softmax(1)),
    ),
    "kl_divergence, two networks": Loss(
        partial(f.kl_divergence, from_logits=True),
        lambda n, s: (_rand(n, 4, 3, seed=s), _rand(n, 4, 3, seed=s + 1)),
        slopes=2,
        mask=(3,),
    ),
    "jensen_shannon": Loss(
        f.jensen_shannon,
        lambda n, s: (_rand(n, 4, seed=s), _rand(n, 4, seed=s + 1).softmax(1)),
    ),
    "jensen_shannon, two networks": Loss(
        partial(f.jensen_shannon, from_logits=True),
        lambda n, s: (_rand(n, 4, 3, seed=s), _rand(n, 4, 3, seed=s + 1)),
        slopes=2,
        mask=(3,),
    ),
    "triplet": Loss(
        f.triplet, lambda n, s: tuple(_rand(n, 3, seed=3 * s + i) for i in range(3)), 3, None
    ),
    "triplet, squared": Loss(
        partial(f.triplet, squared=True),
        lambda n, s: tuple(_rand(n, 3, seed=3 * s + i) for i in range(3)), 3, None,
    ),
    "contrastive": Loss(
        f.contrastive,
        lambda n, s: (_rand(n, 3, seed=s) / 4, _rand(n, 3, seed=s + 1) / 4, _int(2, n, seed=s)),
        2, None,
    ),
    "info_nce": Loss(
        f.info_nce, lambda n, s: (_rand(n, 3, seed=s), _rand(n, 3, seed=s + 1)), 2, None, False
    ),
    "nt_xent": Loss(
        f.nt_xent, lambda n, s: (_rand(n, 3, seed=s), _rand(n, 3, seed=s + 1)), 2, None, False
    ),
    "ranking": Loss(
        f.ranking, lambda n, s: (_rand(n, seed=s), _rand(n, seed=s + 1), _sign(n, seed=s)), 2
    ),
    "ranking, margin": Loss(
        partial(f.ranking, margin=0.5),
        lambda n, s: (_rand(n, 3, seed=s), _rand(n, 3, seed=s + 1), _sign(n, 3, seed=s)), 2, (3,),
    ),
    "gaussian_nll": Loss(
        f.gaussian_nll, lambda n, s: (_rand(n, 3, 2, seed=s), _rand(n, 3, seed=s + 1)), mask=(3,)
    ),
    "laplace_nll": Loss(
        f.laplace_nll, lambda n, s: (_rand(n, 3, 2, seed=s), _rand(n, 3, seed=s + 1)), mask=(3,)
    ),
    "student_nll": Loss(
        f.student_nll, lambda n, s: (_rand(n, 2, seed=s), _rand(n, seed=s + 1))
    ),
    "poisson_nll": Loss(
        f.poisson_nll, lambda n, s: (_rand(n, 3, seed=s), _count(n, 3, seed=s)), mask=(3,)
    ),
    "negative_binomial_nll": Loss(
        f.negative_binomial_nll,
        lambda n, s: (_rand(n, 3, 2, seed=s), _count(n, 3, seed=s)),
        mask=(3,),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Activation:
    """An activation, its formula by numpy-like means, and where its slope jumps."""

    call: Callable[[Tensor], Tensor]
    formula: Callable[[Tensor], Tensor]
    kinks: tuple[float, ...] = ()
    name: str = ""  # as mlp takes it


def _plus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


def _hard(x: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x / 6 + 0.5, 0 * x), 0 * x + 1)


ROOT = (2 / torch.pi) ** 0.5
SELU, BEND = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
SLOPE = torch.tensor([1.7], dtype=torch.float64)

ACTIVATIONS: dict[str, Activation] = {
    "sigmoid": Activation(f.sigmoid, lambda x: 1 / (1 + (-x).exp()), name="sigmoid"),
    "tanh": Activation(f.tanh, lambda x: 1 - 2 / ((2 * x).exp() + 1), name="tanh"),
    "relu": Activation(f.relu, lambda x: torch.where(x > 0, x, 0 * x), (0.0,), "relu"),
    "leaky_relu": Activation(
        f.leaky_relu, lambda x: torch.where(x > 0, x, 0.01 * x), (0.0,), "leaky_relu"
    ),
    "prelu": Activation(
        lambda x: f.prelu(x, SLOPE.to(x.dtype)),
        lambda x: torch.where(x > 0, x, 0 * x) + 1.7 * torch.where(x < 0, x, 0 * x),
        (0.0,),
    ),
    "elu": Activation(f.elu, lambda x: torch.where(x > 0, x, x.exp() - 1), name="elu"),
    "selu": Activation(
        f.selu, lambda x: SELU * torch.where(x > 0, x, BEND * (x.exp() - 1)), (0.0,), "selu"
    ),
    "gelu": Activation(f.gelu, lambda x: x / 2 * torch.special.erfc(-x / 2**0.5), name="gelu"),
    "gelu_tanh": Activation(
        f.gelu_tanh,
        lambda x: 0.5 * x * (1 + torch.tanh(ROOT * (x + 0.044715 * x**3))),
        name="gelu_tanh",
    ),
    "silu": Activation(f.silu, lambda x: x / (1 + (-x).exp()), name="silu"),
    "mish": Activation(f.mish, lambda x: x * torch.tanh(_plus(x)), name="mish"),
    "softplus": Activation(f.softplus, _plus, name="softplus"),
    "hard_sigmoid": Activation(f.hard_sigmoid, _hard, (-3.0, 3.0), "hard_sigmoid"),
    "hard_tanh": Activation(f.hard_tanh, lambda x: x.clamp(-1, 1), (-1.0, 1.0), "hard_tanh"),
    "hard_swish": Activation(f.hard_swish, lambda x: x * _hard(x), (-3.0, 3.0), "hard_swish"),
}
