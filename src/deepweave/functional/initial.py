"""Draws of fresh weights: each takes a shape, or a tensor to be like, and gives a new tensor.

A draw is ``draw(weight, *, gain, fans, generator)``: ``gain`` scales it, ``fans`` are the numbers
of inputs and outputs (:func:`fans` reads them off the shape where they are not given), and
``generator`` holds the random state (None: torch's global one). Weights are shaped as torch has
them, ``(out, in, *kernel)``.

The rule behind all of them: with independent weights of mean 0 and inputs of second moment
E x^2, a unit z = sum_i w_i x_i over n inputs has variance n Var(w) E x^2. It stays what it was
layer after layer when Var(w) = gain^2 / n with gain^2 = 1 / E g(z)^2, see :func:`gain`.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

Fans = tuple[float, float]
Like = Tensor | Sequence[int]  # a tensor to be like (shape, dtype, device), or a shape


def fans(
    shape: Sequence[int], *, groups: int = 1, transposed: bool = False, stride: Sequence[int] = ()
) -> Fans:
    """How many inputs make one output, and how many outputs one input reaches.

    Linear (out, in): (in, out). Convolution (out, in / groups, *k), with k the product of the
    kernel: (k in / groups, k out / groups). Transposed convolution (in, out / groups, *k): the
    same with in and out exchanged. With a stride s an input of a convolution reaches only one in s
    places, and so it is for the inputs of one output of a transposed convolution: means over
    positions, borders aside.

    Raises:
        ValueError: fewer than two dimensions, which have no fans.

    >>> fans((8, 4)), fans((8, 4, 3, 3)), fans((8, 2, 3, 3), groups=2)
    ((4.0, 8.0), (36.0, 72.0), (18.0, 36.0))
    """
    if len(shape) < 2:
        raise ValueError(f"fans: a weight must be (out, in, ...), got {tuple(shape)}")
    first, second, kernel = shape[0] / groups, float(shape[1]), math.prod(shape[2:])
    steps = math.prod(stride)
    if transposed:
        return first * kernel / steps, second * kernel
    return second * kernel, first * kernel / steps


def _like(like: Like) -> Tensor:
    return like if isinstance(like, Tensor) else torch.empty(tuple(like))


def _fans(like: Tensor, given: Fans | None) -> Fans:
    return fans(like.shape) if given is None else given


def _normal(like: Tensor, sigma: float, generator: Generator | None) -> Tensor:
    return torch.empty_like(like, requires_grad=False).normal_(0.0, sigma, generator=generator)


def _uniform(like: Tensor, sigma: float, generator: Generator | None) -> Tensor:
    bound = math.sqrt(3) * sigma  # the variance of a uniform draw in [-a, a] is a^2 / 3
    return torch.empty_like(like, requires_grad=False).uniform_(-bound, bound, generator=generator)


def zeros(weight: Like, *, generator: Generator | None = None) -> Tensor:
    """All zero: every unit of a layer then is like every other, and stays so while it learns."""
    return torch.zeros_like(_like(weight), requires_grad=False)


def constant(weight: Like, *, value: float = 0.1, generator: Generator | None = None) -> Tensor:
    """All one value; the same symmetry as :func:`zeros`."""
    return torch.full_like(_like(weight), value, requires_grad=False)


def normal(weight: Like, *, sigma: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Gaussian, w ~ N(0, sigma^2), whatever the fans.

    >>> normal((2, 3)).shape
    torch.Size([2, 3])
    """
    return _normal(_like(weight), sigma, generator)


def uniform(weight: Like, *, bound: float = 0.05, generator: Generator | None = None) -> Tensor:
    """Uniform in [-bound, bound], whatever the fans."""
    return _uniform(_like(weight), bound / math.sqrt(3), generator)


def truncated_normal(
    weight: Like, *, sigma: float = 0.01, cut: float = 2.0, generator: Generator | None = None
) -> Tensor:
    """Gaussian without its tails: of standard deviation sigma *after* the cut.

    The parent distribution is N(0, s^2), cut at -cut s and cut s, with s chosen so that what is
    left has standard deviation sigma (s = sigma / 0.8796 for cut = 2).

    Raises:
        ValueError: cut is not above 0.
    """
    if not cut > 0:
        raise ValueError(f"truncated_normal: cut must be above 0, got {cut}")
    mass = math.erf(cut / math.sqrt(2))  # of N(0, 1) between the cuts
    density = math.exp(-cut * cut / 2) / math.sqrt(2 * math.pi)
    parent = sigma / math.sqrt(1 - 2 * cut * density / mass)
    quantile = torch.empty_like(_like(weight), requires_grad=False)
    quantile.uniform_(-mass, mass, generator=generator)
    return quantile.erfinv_().mul_(math.sqrt(2) * parent).clamp_(-cut * parent, cut * parent)


def xavier(
    weight: Like, *, gain: float = 1.0, fans: Fans | None = None, generator: Generator | None = None
) -> Tensor:
    """Gaussian with variance 2 gain^2 / (in + out): between what z and its slope would want.

    Source: Glorot & Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.

    >>> bool((xavier((400, 600)).std() - (2 / 1000) ** 0.5).abs() < 1e-3)
    True
    """
    like = _like(weight)
    return _normal(like, gain * math.sqrt(2 / sum(_fans(like, fans))), generator)


def xavier_uniform(
    weight: Like, *, gain: float = 1.0, fans: Fans | None = None, generator: Generator | None = None
) -> Tensor:
    """Uniform with variance 2 gain^2 / (in + out), in +- gain sqrt(6 / (in + out)).

    Source: Glorot & Bengio, 2010.
    """
    like = _like(weight)
    return _uniform(like, gain * math.sqrt(2 / sum(_fans(like, fans))), generator)


def lecun(
    weight: Like, *, gain: float = 1.0, fans: Fans | None = None, generator: Generator | None = None
) -> Tensor:
    """Gaussian with variance gain^2 / in; with gain 1 it is what SELU asks for.

    Source: LeCun, Bottou, Orr & Müller, Efficient backprop, 1998.
    """
    like = _like(weight)
    return _normal(like, gain / math.sqrt(_fans(like, fans)[0]), generator)


def lecun_uniform(
    weight: Like, *, gain: float = 1.0, fans: Fans | None = None, generator: Generator | None = None
) -> Tensor:
    """Uniform with variance gain^2 / in."""
    like = _like(weight)
    return _uniform(like, gain / math.sqrt(_fans(like, fans)[0]), generator)


def he(
    weight: Like,
    *,
    gain: float = math.sqrt(2),
    fans: Fans | None = None,
    backward: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Gaussian with variance gain^2 / in (``backward``: gain^2 / out); 2 / in for ReLU.

    With 1 / in the variance of z is kept from layer to layer, with 1 / out that of its slope.

    Source: He, Zhang, Ren & Sun, Delving deep into rectifiers, 2015.

    >>> bool((he((300, 500)).std() - (2 / 500) ** 0.5).abs() < 1e-3)
    True
    """
    like = _like(weight)
    return _normal(like, gain / math.sqrt(_fans(like, fans)[int(backward)]), generator)


def he_uniform(
    weight: Like,
    *,
    gain: float = math.sqrt(2),
    fans: Fans | None = None,
    backward: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Uniform with variance gain^2 / in (``backward``: gain^2 / out).

    Source: He, Zhang, Ren & Sun, 2015.
    """
    like = _like(weight)
    return _uniform(like, gain / math.sqrt(_fans(like, fans)[int(backward)]), generator)


def orthogonal(weight: Like, *, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """gain Q with orthonormal rows, or columns where there are fewer; uniform over all such Q.

    Q is that of a QR decomposition of a Gaussian matrix (out, in k), its columns' signs set by
    the diagonal of R. Every singular value is gain: no direction is lost or blown up.

    Source: Saxe, McClelland & Ganguli, Exact solutions to the nonlinear dynamics of learning in
    deep linear neural networks, 2014; Mezzadri, How to generate random matrices from the
    classical compact groups, 2007.

    >>> w = orthogonal((3, 5))
    >>> bool(torch.allclose(w @ w.T, torch.eye(3), atol=1e-6))
    True
    """
    like = _like(weight)
    rows, columns = like.shape[0], math.prod(like.shape[1:])
    tall = torch.empty(
        max(rows, columns), min(rows, columns), device=like.device, dtype=torch.float64
    )
    q, r = torch.linalg.qr(tall.normal_(generator=generator))
    q = q * torch.where(r.diagonal() < 0, -1.0, 1.0)
    matrix = q if rows >= columns else q.mT
    return (gain * matrix).reshape(like.shape).to(like.dtype)


def delta_orthogonal(
    weight: Like, *, gain: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """A convolution that is an orthogonal matrix at the kernel's centre and zero elsewhere.

    For a linear weight it is :func:`orthogonal`. Kernels of even size have no centre: the place
    right behind the middle is taken.

    Source: Xiao et al., Dynamical isometry and a mean field theory of CNNs, 2018.
    """
    like = _like(weight)
    whole = torch.zeros_like(like, requires_grad=False)
    centre = tuple(size // 2 for size in like.shape[2:])
    whole[(slice(None), slice(None), *centre)] = orthogonal(
        like[(slice(None), slice(None), *centre)], gain=gain, generator=generator
    )
    return whole


def identity(weight: Like, *, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """gain I, for a convolution at the kernel's centre; further outputs start at zero.

    >>> identity((2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    whole = torch.zeros_like(_like(weight), requires_grad=False)
    centre = tuple(size // 2 for size in whole.shape[2:])
    whole[(slice(None), slice(None), *centre)].fill_diagonal_(gain)
    return whole


STEP, REACH = 2.0**-10, 13.0  # of the grid over z: N(0, 1) beyond 13 is less than 1e-37


def _grid() -> tuple[Tensor, Tensor]:
    """Midpoints of cells over z, and the probability of each cell under N(0, 1).

    Kinks and jumps of activations lie at whole numbers and halves, which are ends of cells, so
    that the midpoint rule is good to STEP^2 there too, and far better where g is smooth.
    """
    z = torch.arange(-REACH, REACH, STEP, dtype=torch.float64) + STEP / 2
    return z, torch.exp(-z * z / 2) * (STEP / math.sqrt(2 * math.pi))


def _function(activation: Any, name: str) -> Any:
    """A function in float64 from a function, a layer, a class of layers, or torch's name."""
    if isinstance(activation, str):
        if activation.lower() in ("identity", "linear"):
            return lambda z: z
        for home in (F, torch):
            found = getattr(home, activation.lower(), None)
            if callable(found):
                return found
        raise ValueError(
            f"{name}: expected a function, or its name in torch such as relu, tanh or gelu, "
            f"got {activation!r}"
        )
    if isinstance(activation, type) and issubclass(activation, nn.Module):
        activation = activation()
    if isinstance(activation, nn.Module):
        return copy.deepcopy(activation).double().eval()
    if callable(activation):
        return activation
    raise TypeError(f"{name}: expected a function, got {type(activation).__name__}")


def _applied(function: Callable[[Tensor], Tensor], z: Tensor, name: str) -> Tensor:
    """g(z), refused where an entry of it hangs on more than its own z."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of functions that are refused right below
            y = function(z)
            some = function(z[::2].detach())
    except (RuntimeError, TypeError, IndexError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name}: the activation cannot take a vector: {reason}") from None
    if y.shape != z.shape or not torch.allclose(some, y[::2], equal_nan=True):
        raise ValueError(f"{name}: the activation must work entry by entry, as softmax does not")
    return y


def _root(terms: Tensor, name: str) -> float:
    second = terms.sum()
    if float(terms[[0, -1]].max()) > 1e-6 * float(second):
        second = second / 0  # what grows so fast has no moment
    if not (second.isfinite() and second > 0):
        raise ValueError(f"{name}: the second moment must be finite and above 0, got {second:.3g}")
    return float(second) ** -0.5


def gain(activation: str | Callable[[Tensor], Tensor] | type[nn.Module]) -> float:
    """1 / sqrt(E g(z)^2) for z ~ N(0, 1): with Var(w) = gain^2 / in, Var(z) is kept by every layer.

    Computed on a grid for any function of one number: a function, a layer, or torch's name of
    one. sqrt(2) for ReLU, 1 for SELU, 1.592 for tanh (at variance 1; small signals want 1).

    Raises:
        ValueError: an unknown name, a function that mixes entries, or one without a finite
            second moment.

    >>> [round(gain(name), 4) for name in ("relu", "tanh", "selu", "gelu")]
    [1.4142, 1.5925, 1.0, 1.5335]
    """
    z, weight = _grid()
    with torch.no_grad():
        y = _applied(_function(activation, "gain"), z, "gain")
        return _root(weight * y.double().square(), "gain")


def gradient_gain(activation: str | Callable[[Tensor], Tensor] | type[nn.Module]) -> float:
    """1 / sqrt(E g'(z)^2): with Var(w) = gain^2 / out, the variance of slopes is kept going back.

    Where it is not :func:`gain`, a plain deep network cannot keep both: the ratio of the two,
    to the power of twice the depth, is what slopes gain or lose on the way.

    >>> [round(gradient_gain(name), 4) for name in ("relu", "tanh", "selu", "gelu")]
    [1.4142, 1.4674, 0.966, 1.4811]
    """
    z, weight = _grid()
    z.requires_grad_()
    with torch.enable_grad():
        y = _applied(_function(activation, "gradient_gain"), z, "gradient_gain")
        if not y.requires_grad:
            raise ValueError("gradient_gain: the activation has no slope: it is a step or constant")
        (slope,) = torch.autograd.grad(y.sum(), z)
    return _root(weight * slope.double().square(), "gradient_gain")
