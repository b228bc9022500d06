"""Optimal transport within a batch: which noise belongs to which sample, for short paths."""

from __future__ import annotations

import torch
from torch import Tensor


def pair(x: Tensor, noise: Tensor, groups: Tensor | None = None) -> Tensor:
    """Noise in the order that makes sum_i |x_i - e_i|^2 least, within groups if any are given.

    The assignment is exact, by scipy on the CPU, and takes O(B^3): below a millisecond for 128
    samples, a fifth of a second for 1,024.

    Shapes: x and noise (B, ...), groups (B,) of whole numbers -> (B, ...)

    Raises:
        ValueError: shapes that differ; under a transform of ``torch.func``, where there is no
            single batch.

    Source: Tong et al., Improving and generalizing flow-based generative models with minibatch
    optimal transport, 2024.

    >>> pair(torch.tensor([[0.0], [9.0]]), torch.tensor([[8.0], [1.0]])).tolist()
    [[1.0], [8.0]]
    """
    from scipy.optimize import linear_sum_assignment

    if x.shape != noise.shape or (groups is not None and groups.shape != x.shape[:1]):
        told = "" if groups is None else f" and groups {tuple(groups.shape)}"
        raise ValueError(
            f"pair: x and noise must have one shape, got {tuple(x.shape)}, {tuple(noise.shape)}"
            f"{told}"
        )
    if torch._C._are_functorch_transforms_active():
        raise ValueError("pair: works on one batch at a time: not in a Population or under vmap")
    rows, columns = x.detach().flatten(1).double(), noise.detach().flatten(1).double()
    cost = -(rows @ columns.T)  # the squares of the distances, less what no order changes
    if groups is not None:
        apart = groups[:, None] != groups
        cost = cost + apart * (2 * cost.abs().amax() * len(x) + 1)
    _, order = linear_sum_assignment(cost.cpu().numpy())
    return noise[torch.from_numpy(order).to(noise.device)]
