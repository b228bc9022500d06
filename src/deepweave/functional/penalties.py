"""Penalties on weights, and their proximal maps: what takes weights exactly to zero.

A penalised loss is ``loss + l1 |W|_1 + l2 |W|_2^2``: each strength appears once, in front of its
term. scikit-learn writes the same problems with other factors. With n samples, the mean squared
error (:func:`deepweave.functional.squared_error`) and biases left out:

    Lasso(alpha):                 1/(2n) |y - Xw|^2 + alpha |w|_1
        l1 = 2 alpha
    ElasticNet(alpha, l1_ratio):  1/(2n) |y - Xw|^2 + alpha r |w|_1 + alpha (1 - r)/2 |w|_2^2
        l1 = 2 alpha r,  l2 = alpha (1 - r)
    Ridge(alpha):                 |y - Xw|^2 + alpha |w|_2^2
        l2 = alpha / n
    LogisticRegression(C):        sum of cross-entropies + 1/(2C) |w|_2^2
        l2 = 1 / (2 C n)

A weight decay of ``torch.optim.SGD`` adds d w to the slope: l2 = d / 2. The decoupled decay of
AdamW is no penalty on the loss at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

Weights = Tensor | Mapping[str, Tensor] | Iterable[Tensor]


def _each(weights: Weights, name: str) -> list[Tensor]:
    """One weight or many, as a list.

    Raises:
        ValueError: there is none.
    """
    if isinstance(weights, Tensor):
        return [weights]
    found = list(weights.values() if isinstance(weights, Mapping) else weights)
    if not found:
        raise ValueError(f"{name}: there are no weights to penalise")
    return found


def l1(weights: Weights) -> Tensor:
    """|W|_1 = sum |w|, over one weight or many.

    Shapes: weights (...), or several by name -> ()
    Source: Tibshirani, Regression shrinkage and selection via the lasso, 1996.

    >>> l1(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
    tensor(6.)
    """
    return torch.stack([w.abs().sum() for w in _each(weights, "l1")]).sum()


def l2(weights: Weights) -> Tensor:
    """|W|_2^2 = sum w^2, the squared norm, over one weight or many.

    Source: Hoerl & Kennard, Ridge regression, 1970.

    >>> l2({"a": torch.tensor([3.0]), "b": torch.tensor([4.0])})
    tensor(25.)
    """
    return torch.stack([w.square().sum() for w in _each(weights, "l2")]).sum()


def elastic_net(
    weights: Weights, l1_strength: float | Tensor, l2_strength: float | Tensor
) -> Tensor:
    """l1 |W|_1 + l2 |W|_2^2.

    Source: Zou & Hastie, Regularization and variable selection via the elastic net, 2005.

    >>> elastic_net(torch.tensor([1.0, -2.0]), 0.5, 0.1)
    tensor(2.)
    """
    return l1_strength * l1(weights) + l2_strength * l2(weights)


def _lengths(weight: Tensor, dim: int, name: str) -> tuple[Tensor, int]:
    """The norm of every group along dim, kept for broadcasting, and the size of a group."""
    if weight.dim() < 2:
        raise ValueError(f"{name}: a weight must be (out, in, ...), got {tuple(weight.shape)}")
    rest = [d for d in range(weight.dim()) if d != dim % weight.dim()]
    size = weight.numel() // weight.shape[dim]
    return torch.linalg.vector_norm(weight, dim=rest, keepdim=True), size


def group_lasso(weights: Weights, *, dim: int = 0) -> Tensor:
    """sum over groups of sqrt(p) |W_g|_2, p the size of the group: groups are zero as a whole.

    Groups lie along ``dim``: 0 takes rows, a unit's incoming weights or a filter; 1 takes
    columns, an input's or a channel's outgoing weights. At a group of zeros the slope is zero.

    Shapes: weights (out, in, ...) -> ()
    Source: Yuan & Lin, Model selection and estimation in regression with grouped variables, 2006.

    >>> group_lasso(torch.tensor([[3.0, 4.0], [0.0, 0.0]])) / 2**0.5
    tensor(5.)
    """
    terms = []
    for weight in _each(weights, "group_lasso"):
        lengths, size = _lengths(weight, dim, "group_lasso")
        terms.append(size**0.5 * lengths.sum())
    return torch.stack(terms).sum()


def nuclear(weights: Weights) -> Tensor:
    """The sum of singular values of (out, rest): pushes a weight towards low rank.

    Source: Fazel, Matrix rank minimization with applications, 2002.

    >>> nuclear(torch.diag(torch.tensor([1.0, -2.0])))
    tensor(3.)
    """
    parts = [w.flatten(1) for w in _each(weights, "nuclear")]
    return torch.stack([torch.linalg.matrix_norm(part, "nuc") for part in parts]).sum()


def orthogonality(weights: Weights) -> Tensor:
    """|W W^T - I|_F^2, or |W^T W - I|_F^2 where there are fewer columns: 0 when orthonormal.

    Source: Bansal, Chen & Wang, Can we gain more from orthogonality regularizations, 2018.

    >>> orthogonality(torch.eye(2, 3))
    tensor(0.)
    """
    terms = []
    for weight in _each(weights, "orthogonality"):
        part = weight.flatten(1)
        part = part if part.shape[0] <= part.shape[1] else part.mT
        eye = torch.eye(len(part), dtype=part.dtype, device=part.device)
        terms.append((part @ part.mT - eye).square().sum())
    return torch.stack(terms).sum()


def soft_threshold(weight: Tensor, threshold: float | Tensor) -> Tensor:
    """sign(w) max(|w| - t, 0): the proximal map of t |W|_1, exact zeros within +-t.

    Shapes: weight (...), threshold () -> (...)
    Source: Daubechies, Defrise & De Mol, An iterative thresholding algorithm, 2004.

    >>> soft_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0)
    tensor([-2., 0., 1.])
    """
    edge = torch.as_tensor(threshold, dtype=weight.dtype, device=weight.device)
    return weight - weight.clamp(-edge, edge)


def elastic_net_threshold(
    weight: Tensor, l1_threshold: float | Tensor, l2_threshold: float | Tensor
) -> Tensor:
    """The proximal map of t1 |W|_1 + t2 |W|_2^2: a soft threshold, then / (1 + 2 t2).

    >>> elastic_net_threshold(torch.tensor([-3.0, 0.5, 2.0]), 1.0, 0.5)
    tensor([-1.0000, 0.0000, 0.5000])
    """
    return soft_threshold(weight, l1_threshold) / (1 + 2 * l2_threshold)


def group_soft_threshold(weight: Tensor, threshold: float | Tensor, *, dim: int = 0) -> Tensor:
    """W_g max(1 - sqrt(p) t / |W_g|_2, 0): the proximal map of t times the group lasso.

    After a soft threshold it is that of both penalties together (sparse group lasso).

    Source: Yuan & Lin, 2006; Simon et al., A sparse-group lasso, 2013.

    >>> group_soft_threshold(torch.tensor([[3.0, 4.0], [0.1, 0.1]]), 2.5 / 2**0.5)
    tensor([[1.5000, 2.0000],
            [0.0000, 0.0000]])
    """
    lengths, size = _lengths(weight, dim, "group_soft_threshold")
    tiny = torch.finfo(weight.dtype).tiny
    return weight * (1 - size**0.5 * threshold / lengths.clamp_min(tiny)).clamp_min(0)


def sparsity(weights: Weights) -> Tensor:
    """The share of weights that are exactly zero.

    >>> sparsity(torch.tensor([0.0, 1e-9, 0.0, 2.0]))
    tensor(0.5000)
    """
    found = _each(weights, "sparsity")
    zero = torch.stack([(w == 0).sum() for w in found]).sum()
    return zero / sum(w.numel() for w in found)
