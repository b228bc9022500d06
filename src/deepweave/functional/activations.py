"""Activation functions: what makes a network more than one linear map.

All work element by element on tensors of any shape, keep the dtype, and are the kernels of torch
where it has one that is exact. As layers, and by name, they stand in :mod:`deepweave.nn`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + e^-x), between 0 and 1; its slope is at most 1/4 and vanishes on both sides.

    >>> sigmoid(torch.tensor([-1e4, 0.0, 1e4]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return torch.sigmoid(x)


def tanh(x: Tensor) -> Tensor:
    """(e^x - e^-x) / (e^x + e^-x), between -1 and 1: a sigmoid centred on 0, with slope 1 there.

    >>> tanh(torch.tensor([0.0, 1e4]))
    tensor([0., 1.])
    """
    return torch.tanh(x)


def softmax(x: Tensor, *, dim: int = 1) -> Tensor:
    """e^{x_i} / sum_j e^{x_j} over the classes: positive, with sum 1.

    The largest x is taken off first, which changes nothing and keeps e^x finite.

    Shapes: x (B, K, ...) -> the same, for the classes in ``dim`` 1

    >>> softmax(torch.tensor([[1e4, 1e4, -1e4]]))
    tensor([[0.5000, 0.5000, 0.0000]])
    """
    return x.softmax(dim)


def relu(x: Tensor) -> Tensor:
    """max(0, x); the slope is 0 below and, by convention, at 0.

    Source: Nair & Hinton, Rectified linear units improve restricted Boltzmann machines, 2010.

    >>> relu(torch.tensor([-2.0, 3.0]))
    tensor([0., 3.])
    """
    return torch.relu(x)


def leaky_relu(x: Tensor, *, slope: float = 0.01) -> Tensor:
    """max(0, x) + a min(0, x) with a fixed small slope a, so that no unit is dead.

    Source: Maas, Hannun & Ng, Rectifier nonlinearities improve neural network acoustic models,
    2013.

    >>> leaky_relu(torch.tensor([-2.0, 3.0]))
    tensor([-0.0200,  3.0000])
    """
    return F.leaky_relu(x, slope)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """max(0, x) + a min(0, x) with a learned slope a, which may be larger than 1 or negative.

    Shapes: x (B, C, ...), slope (1,) or (C,) -> (B, C, ...)
    Raises:
        ValueError: slopes that are neither one nor one for each channel.
    Source: He et al., Delving deep into rectifiers, 2015.

    >>> prelu(torch.tensor([[-2.0, 3.0]]), torch.tensor([2.0]))  # max(a x, x) would give -2 and 6
    tensor([[-4.,  3.]])
    """
    channels = x.shape[1] if x.dim() > 1 else 1
    if slope.shape not in ((1,), (channels,)):
        raise ValueError(f"prelu: slope must be (1,) or ({channels},), got {tuple(slope.shape)}")
    return F.prelu(x, slope)


def elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x above 0, alpha (e^x - 1) below.

    Source: Clevert, Unterthiner & Hochreiter, Fast and accurate deep network learning by
    exponential linear units, 2016.

    >>> elu(torch.tensor([-1e4, 3.0]))
    tensor([-1.,  3.])
    """
    return F.elu(x, alpha)


def selu(x: Tensor) -> Tensor:
    """1.0507 x above 0, 1.0507 * 1.6733 (e^x - 1) below: mean 0 and variance 1 are kept.

    The constants make N(0, 1) a stable fixed point for weights of variance 1 / inputs.

    Source: Klambauer et al., Self-normalizing neural networks, 2017.

    >>> selu(torch.tensor([1.0]))
    tensor([1.0507])
    """
    return F.selu(x)


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), with the normal distribution function Phi(x) = (1 + erf(x / sqrt 2)) / 2.

    Source: Hendrycks & Gimpel, Gaussian error linear units, 2016.

    >>> gelu(torch.tensor([-1e4, 1.0]))
    tensor([-0.0000,  0.8413])
    """
    return F.gelu(x)


def gelu_tanh(x: Tensor) -> Tensor:
    """0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): GELU to within 5e-4, as the notes have it.

    >>> float((gelu_tanh(x := torch.linspace(-6, 6, 1201)) - gelu(x)).abs().max()) < 5e-4
    True
    """
    return F.gelu(x, approximate="tanh")


def silu(x: Tensor) -> Tensor:
    """x sigmoid(x), also called swish.

    Source: Elfwing, Uchibe & Doya, Sigmoid-weighted linear units, 2018.

    >>> silu(torch.tensor([0.0, 1e4]))
    tensor([    0., 10000.])
    """
    return F.silu(x)


def mish(x: Tensor) -> Tensor:
    """x tanh(log(1 + e^x)).

    Source: Misra, Mish: a self regularized non-monotonic activation function, 2020.

    >>> mish(torch.tensor([0.0, 1e4]))
    tensor([    0., 10000.])
    """
    return F.mish(x)


def softplus(x: Tensor, *, beta: float = 1.0) -> Tensor:
    """log(1 + e^{beta x}) / beta: a smooth max(0, x), always above 0.

    Raises:
        ValueError: beta not above 0.
    Source: Dugas et al., Incorporating second-order functional knowledge, 2001.

    >>> softplus(torch.tensor([0.0, 1e4]))
    tensor([6.9315e-01, 1.0000e+04])
    """
    if not beta > 0:
        raise ValueError(f"softplus: beta must be above 0, got {beta}")
    # torch's own threshold of 20 leaves out e^-20, which float64 can see
    return F.softplus(x, beta, threshold=40.0)


def hard_sigmoid(x: Tensor) -> Tensor:
    """min(max(x / 6 + 1/2, 0), 1): a sigmoid of three straight lines.

    >>> hard_sigmoid(torch.tensor([-3.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """
    return (x / 6 + 0.5).clamp(0, 1)  # torch's kernel has no second derivative


def hard_tanh(x: Tensor) -> Tensor:
    """min(max(x, -1), 1).

    >>> hard_tanh(torch.tensor([-3.0, 0.5]))
    tensor([-1.0000,  0.5000])
    """
    return F.hardtanh(x)


def hard_swish(x: Tensor) -> Tensor:
    """x min(max(x / 6 + 1/2, 0), 1): SiLU of straight lines, for small devices.

    Source: Howard et al., Searching for MobileNetV3, 2019.

    >>> hard_swish(torch.tensor([-3.0, 3.0]))
    tensor([-0., 3.])
    """
    return F.hardswish(x)
