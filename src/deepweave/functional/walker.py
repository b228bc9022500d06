"""Segmentation by diffusion: which seed does a random walker that starts at a pixel meet first?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from deepweave.functional.stencil import laplacian, outflow, widened

EVERY = 10  # iterations from one look at the residual to the next


def random_walker(
    image: Tensor,
    seeds: Tensor,
    *,
    beta: float = 130.0,
    channels: bool = False,
    tolerance: float = 1e-4,
    iterations: int = 5000,
) -> Tensor:
    """The probability of each label at each pixel, from a few pixels that are labelled by hand.

    A walker at a pixel steps to a neighbour with a probability proportional to
    exp(-beta |g - g'|^2 / (10 s sqrt(C))), g the C values, s their standard deviation; p_k is the
    probability that the first seed it meets has label k. It is the steady state of diffusion with
    that conductance, p_k held at 1 on the seeds of k and at 0 on the others:
    div(w grad p) = 0, solved by conjugate gradients. There are slopes in the image.

    Args:
        image: grey values on a grid of 1 to 3 axes; with ``channels`` the first axis is colours.
        seeds: labels from 1 on, 0 where nothing is known.
        beta: how much a change of the image stops a walker.
        tolerance: of the residual, relative to the first one.
        iterations: at most so many.

    Shapes: image (*grid) or (C, *grid), seeds (*grid) int64 -> (K, *grid)

    Raises:
        ValueError: no or only one label, labels that leave one out, another shape, no convergence.

    Source: Grady, Random walks for image segmentation, 2006; the scale of beta is that of
    scikit-image.

    >>> row = torch.tensor([0.0, 0.1, 0.0, 1.0, 0.9, 1.0])
    >>> random_walker(row, torch.tensor([1, 0, 0, 0, 0, 2])).argmax(0).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    grid = tuple(image.shape[1:] if channels else image.shape)
    labels = _labels(image, seeds, grid)
    values = image if channels else image[None]
    axes = len(grid)
    spread = values.std(correction=0)
    scale = torch.where(spread > 0, beta / (10 * spread * math.sqrt(len(values))), 0.0)
    across = []
    for axis in range(-axes, 0):
        steps = widened(values, axis, "neumann").diff(dim=axis).square().sum(0)
        size = steps.shape[axis]
        inner = torch.exp(-scale * steps.narrow(axis, 1, size - 2))
        inner = inner + torch.finfo(image.dtype).eps
        across.append(torch.nn.functional.pad(inner, [*[0, 0] * (-axis - 1), 1, 1]))
    known = seeds > 0
    free = ~known
    held = torch.stack([(seeds == label).to(image.dtype) for label in range(1, labels)])
    diagonal = outflow(across).detach()
    fixed = [one.detach() for one in across]

    def matrix(p: Tensor) -> Tensor:
        return -laplacian(p * free, fixed, "neumann") * free

    def solved(b: Tensor) -> Tensor:
        return _conjugate(matrix, b, free / diagonal.clamp_min(1e-30), tolerance, iterations)

    with torch.no_grad():
        found = held + solved(laplacian(held, fixed, "neumann") * free)
    if image.requires_grad and torch.is_grad_enabled():
        # what the weights leave of the equation at the solution is zero; its slope is not
        left = laplacian(found, across, "neumann") * free
        found = found + _Implicit.apply(left, solved)  # pyright: ignore[reportOperatorIssue]
    return torch.cat([found, 1 - found.sum(0, keepdim=True)])


class _Implicit(torch.autograd.Function):
    """A^-1 r at r = 0, for a symmetric A: nothing forward, A^-1 of the slope backward."""

    @staticmethod
    def forward(left: Tensor, solved: Any) -> Tensor:
        return torch.zeros_like(left)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.solved = inputs[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.solved(grads[0]), None


def _conjugate(
    matrix: Any, b: Tensor, inverse: Tensor, tolerance: float, iterations: int
) -> Tensor:
    """A x = b by conjugate gradients with a diagonal preconditioner; each row of b by itself."""
    dims = tuple(range(1, b.dim()))

    def dot(u: Tensor, v: Tensor) -> Tensor:
        return (u * v).sum(dims, keepdim=True)

    x, left = torch.zeros_like(b), b
    step = guess = inverse * left
    size = dot(left, guess)
    goal = size * tolerance**2
    tiny = torch.finfo(b.dtype).tiny
    for count in range(iterations):
        if count % EVERY == 0 and bool((size <= goal).all()):
            return x
        turned = matrix(step)
        length = size / dot(step, turned).clamp_min(tiny)
        x, left = x + length * step, left - length * turned
        guess = inverse * left
        before, size = size, dot(left, guess)
        step = guess + size / before.clamp_min(tiny) * step
    if bool((size <= goal).all()):
        return x
    rest = math.sqrt(float((size / goal.clamp_min(tiny)).max())) * tolerance
    raise ValueError(
        f"random_walker: after {iterations} iterations the residual is still {rest:.2g} of the "
        f"first, above {tolerance}: take a smaller beta, or more iterations"
    )


def _labels(image: Tensor, seeds: Tensor, grid: tuple[int, ...]) -> int:
    if not image.is_floating_point():
        raise TypeError(f"random_walker: image must be floating-point numbers, got {image.dtype}")
    if not 1 <= len(grid) <= 3 or tuple(seeds.shape) != grid:
        raise ValueError(f"random_walker: seeds must be {grid}, the grid of the image, of 1 to 3 "
                         f"axes, got {tuple(seeds.shape)}")  # fmt: skip
    if not bool(image.isfinite().all()):
        raise ValueError("random_walker: the image has NaN or Inf")
    found = seeds.unique()
    labels = int(found.max()) if len(found) else 0
    if labels < 2 or int(found.min()) < 0 or len(found[found > 0]) < labels:
        raise ValueError(
            f"random_walker: seeds must be labels 1, 2, ... with 0 for what is not known, at least "
            f"two of them and none left out, got {found.tolist()[:8]}"
        )
    return labels
