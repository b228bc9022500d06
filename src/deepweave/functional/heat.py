"""The equation of diffusion, u_t = div(D grad u), on grids and graphs.

A constant D on a box is solved exactly, wave by wave; a D that differs from place to place, and a
graph, by the exponential of the matrix, to rounding; and each also by steps, explicit, implicit or
Crank-Nicolson. Everything is batched, works under ``vmap``, and has slopes in u, D and the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from deepweave.functional import chebyshev, stencil
from deepweave.functional.graph import Graph
from deepweave.functional.messages import product
from deepweave.functional.reduction import looking
from deepweave.functional.spectral import BOUNDARIES, decay

METHODS = ("exact", "explicit", "implicit", "crank-nicolson")
Diffusivity = float | Tensor | Callable[[Tensor], Tensor]


def heat(
    u: Tensor,
    time: float | Tensor,
    diffusivity: Diffusivity = 1.0,
    *,
    axes: int | None = None,
    boundary: str = "neumann",
    spacing: float | Sequence[float] | Tensor = 1.0,
    graph: Graph | None = None,
    method: str = "exact",
    steps: int | None = None,
    lattice: bool = False,
    highest: float | None = None,
) -> Tensor:
    """What u becomes after some time: u_t = div(D grad u).

    On a graph (div D grad u)_i = D sum_j w_ij (u_j - u_i), the Laplacian of its edges' weights.

    Args:
        u: the field at first, its last ``axes`` axes in space; on a graph (N, ...). With fewer than
            32 bits it is solved in float32 and given back as it came.
        time: how long, not negative, in units of spacing^2 / D; a number, or numbers for the
            leading axes of u.
        diffusivity: a number; a tensor of numbers for the leading axes of u, which ends where the
            grid begins, or has as many axes as u and 1 for each of the grid; a field, whose last
            axes are the grid, with or without leading axes; or a function of the slope |grad u|
            (see :func:`perona_malik`), which is stepped explicitly. A shape that could be both,
            (5,) for u (5, 5) with one axis of space, is refused: say (5, 1) or (1, 5).
        axes: how many axes are space, 1 to 3; None: all of u's, at most 2 (a photograph with
            channels first, (C, H, W), has 2).
        boundary: ``"neumann"`` (nothing flows through the walls), ``"dirichlet"`` (they are held
            at zero) or ``"periodic"``.
        spacing: the width of a cell, or one for each axis; there are no slopes in it.
        graph: u lives on its nodes.
        method: ``"exact"``; or ``"explicit"``, ``"implicit"``, ``"crank-nicolson"`` in ``steps``
            steps, whose errors are of the first, first and second order in the step.
        steps: of a method that steps; None: explicit as few as are stable, else 50.
        lattice: with a constant D, exact for the equation on the lattice of cells, as all other
            methods are, and not for the continuous one.
        highest: no D of a field is above it; None: it is looked at. Under ``vmap``, where fields
            differ from member to member, it must be said.

    Shapes: u (..., *grid) or (N, ...) -> the same

    Raises:
        ValueError: a negative time or D, an unknown boundary or method, explicit steps that are
            not stable (the limit is said), shapes that do not fit or say two things.
        TypeError: u holds no floating-point numbers.

    Source: Crank & Nicolson, A practical method for numerical evaluation of solutions of partial
    differential equations of the heat-conduction type, 1947; Perona & Malik, 1990.

    >>> u = torch.tensor([1.0, 0.0, 0.0, 0.0])
    >>> heat(u, 100.0)  # it spreads evenly, and nothing is lost
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    _checked(u, method, boundary, steps)
    if u.dtype.itemsize < 4:  # sums of many small numbers need more digits
        return heat(
            u.float(), time, diffusivity, axes=axes, boundary=boundary, spacing=spacing,
            graph=graph, method=method, steps=steps, lattice=lattice, highest=highest,
        ).to(u.dtype)  # fmt: skip
    time = _not_negative("time", time, u)
    if graph is not None:
        return _on_graph(u, time, diffusivity, graph, method, steps)
    axes = min(u.dim(), 2) if axes is None else axes
    if not 1 <= axes <= min(3, u.dim()):
        raise ValueError(f"heat: axes must lie in 1..{min(3, u.dim())}, got {axes}")
    grid = tuple(u.shape[-axes:])
    widths = _widths(spacing, axes)
    if callable(diffusivity):
        return _nonlinear(u, time, diffusivity, axes, boundary, widths, method, steps)
    found = _not_negative("diffusivity", diffusivity, u)
    field = found.dim() >= axes and tuple(found.shape[-axes:]) == grid
    if not field:
        found = _numbers(found, u, axes)
    elif not _fits(found.shape[:-axes], u, axes):
        raise _unfit(found.shape[:-axes], u, axes)
    elif found.numel() > 1 and _fits(found.shape, u, axes):
        ahead = [1] * (u.dim() - axes - found.dim())
        raise ValueError(
            f"heat: diffusivity {tuple(found.shape)} could be numbers for the leading axes of u, "
            f"{tuple(u.shape)}, or a field: say {(*ahead, *found.shape, *[1] * axes)} for numbers, "
            f"or {(*[1] * (u.dim() - found.dim()), *found.shape)} for a field"
        )
    time = _numbers(time, u, axes)
    if method == "exact" and not field:
        return decay(u, found * time, boundary, widths, discrete=lattice)
    if highest is not None and looking(found) and bool((found > highest * (1 + 1e-6)).any()):
        top = float(found.detach().amax())
        raise ValueError(f"heat: no D may be above highest={highest:g}, got {top:.4g}")
    amount = time
    if time.dim():  # every row of a batch has its own: it is put into D
        found, amount = found * time, time.new_ones(())
    found = found.expand(*torch.broadcast_shapes(found.shape, grid))
    across = stencil.conductances(found, axes, boundary, widths)
    if highest is None:
        most = _most(stencil.outflow(across))
    else:
        walls = 4 if boundary == "dirichlet" else 2
        most = highest * sum(walls / width**2 for width in widths)
        if time.dim():
            most *= chebyshev.number(time.amax())

    def grows(v: Tensor, scale: float = 1.0, own: float = 0.0) -> Tensor:
        found = stencil.laplacian(v, across, boundary)
        return found if scale == 1 and not own else found * scale + own * v

    return _advance(u, grows, most, method, steps, amount)


def perona_malik(contrast: float | Tensor, *, kind: str = "exponential") -> Callable:
    """A diffusivity that stops at edges: exp(-(s / k)^2), or 1 / (1 + (s / k)^2), of the slope s.

    Slopes above the contrast k (of a photograph's edges) hardly flow, and those well below (of
    noise) do. Give it to :func:`heat` as the diffusivity.

    Raises:
        ValueError: a contrast that is not positive, or another kind.

    Source: Perona & Malik, Scale-space and edge detection using anisotropic diffusion, 1990.

    >>> step = torch.tensor([0.0, 0.1, 0.0, 1.0, 0.9, 1.0])
    >>> heat(step, 20.0, perona_malik(0.2)).round(decimals=2)
    tensor([0.0300, 0.0300, 0.0300, 0.9700, 0.9700, 0.9700])
    """
    if kind not in ("exponential", "rational"):
        raise ValueError(f"perona_malik: kind must be exponential or rational, got {kind!r}")
    if not isinstance(contrast, Tensor) and not (contrast > 0 and math.isfinite(contrast)):
        raise ValueError(f"perona_malik: contrast must be positive, got {contrast}")

    def edges(slope: Tensor) -> Tensor:
        ratio = (slope / contrast) ** 2
        return torch.exp(-ratio) if kind == "exponential" else 1 / (1 + ratio)

    return edges


def _nonlinear(
    u: Tensor, time: Tensor, diffusivity: Callable[[Tensor], Tensor], axes: int, boundary: str,
    widths: Sequence[float], method: str, steps: int | None,
) -> Tensor:  # fmt: skip
    """D(|grad u|), renewed in every explicit step."""
    if method not in ("exact", "explicit"):
        raise ValueError(
            f"heat: a diffusivity that depends on u is stepped explicitly, not {method}"
        )
    if time.dim():
        raise ValueError("heat: with a diffusivity that depends on u there is one time for all")
    walls = 4 if boundary == "dirichlet" else 2
    limit = 1 / sum(walls / width**2 for width in widths)
    if looking(time):  # D is taken to be largest where nothing slopes
        top = float(diffusivity(torch.zeros(1, dtype=u.dtype, device=u.device)).detach())
        limit = limit / max(top, 1e-30)
    if steps is None:
        steps = max(1, math.ceil(chebyshev.number(time) / limit - 1e-9))
    step = time / steps
    if looking(step):
        _stable(float(time.detach()), steps, limit)
    for _ in range(steps):
        across = stencil.through_slopes(u, diffusivity, axes, boundary, widths)
        u = u + step * stencil.laplacian(u, across, boundary)
    return u


def _on_graph(
    u: Tensor, time: Tensor, diffusivity: Any, graph: Graph, method: str, steps: int | None
) -> Tensor:
    if len(u) != graph.nodes:
        raise ValueError(
            f"heat: u must be ({graph.nodes}, ...) on this graph, got {tuple(u.shape)}"
        )
    if callable(diffusivity):
        raise ValueError("heat: on a graph the diffusivity is a number")
    amount = time * _not_negative("diffusivity", diffusivity, u)
    if amount.dim():
        raise ValueError(f"heat: on a graph time and D are numbers, got {tuple(amount.shape)}")
    if method != "explicit" and looking(u) and not _even(graph):
        raise ValueError(
            "heat: on a graph whose edges lead one way only, or weigh more one way, take "
            'method="explicit"'
        )
    weight = None if graph.weight is None else graph.weight.to(u.dtype)
    back = None if weight is None else weight[graph.back]
    degree = graph.degree
    if degree.dtype != u.dtype:  # exact in u's own digits, so that nothing is lost
        degree = product(graph, u.new_ones(graph.nodes, 1), weight, back)[:, 0]

    def grows(v: Tensor, scale: float = 1.0, own: float = 0.0) -> Tensor:
        """scale (A - D) v + own v, in one product and one pass."""
        if scale == 1:
            held, turned = weight, back
        else:
            held = (
                degree.new_full((len(graph.source),), scale) if weight is None else scale * weight
            )
            turned = held if back is None else scale * back
        return product(graph, v, held, turned, own - scale * degree)

    # of no eigenvalue is more than the largest d_i + (A d)_i / d_i: a hub's neighbours are no hubs
    beside = product(graph, degree[:, None].detach(), weight, back)[:, 0]
    top = _most(degree + beside / degree.clamp_min(torch.finfo(u.dtype).tiny))
    if method == "explicit":  # which must not overshoot
        top = 2 * _most(degree)
    return _advance(u, grows, top / 2, method, steps, amount)


def _advance(
    u: Tensor, grows: Callable[..., Tensor], most: float, method: str, steps: int | None,
    amount: Tensor,
) -> Tensor:  # fmt: skip
    """u' = grows(u) for a time ``amount``; ``most`` is the largest outflow of a cell.

    ``grows(v, scale, own)`` is scale times it plus own v.
    """
    most = max(most, 1e-30)  # where nothing flows there may still be slopes in D
    if method == "exact":
        return chebyshev.exponential(lambda v: grows(v, 2 / most, 2.0), u, amount, 2 * most)
    span = chebyshev.number(amount)
    if method == "explicit":
        needed = max(1, math.ceil(span * most - 1e-6))
        steps = needed if steps is None else steps
        _stable(span, steps, 1 / most)
        for _ in range(steps):
            u = u + amount / steps * grows(u)
        return u
    steps = 50 if steps is None else steps
    share = 1.0 if method == "implicit" else 0.5
    part = amount / steps
    high = 1 + share * span / steps * 2 * most
    tolerance = 1e-7 if u.dtype == torch.float32 else 1e-13
    for _ in range(steps):
        b = u if share == 1 else u + (1 - share) * part * grows(u)
        u = chebyshev.solve(lambda v: v - share * part * grows(v), b, 1.0, high, tolerance)
    return u


def _even(graph: Graph) -> bool:
    """Whether every edge leads both ways and weighs as much."""
    forth = graph.target * graph.nodes + graph.source
    back = graph.source * graph.nodes + graph.target
    one, other = forth.argsort(stable=True), back.argsort(stable=True)
    same = torch.equal(forth[one], back[other])
    return same and (graph.weight is None or torch.equal(graph.weight[one], graph.weight[other]))


def _stable(time: float, steps: int, limit: float) -> None:
    if time > steps * limit * (1 + 1e-6):
        raise ValueError(
            f"heat: {steps} explicit steps of {time / steps:.3g} are not stable: a step may be at "
            f"most {limit:.3g}, so take {math.ceil(time / limit)} steps, or method='crank-nicolson'"
        )


def _most(around: Tensor) -> float:
    """The largest outflow of a cell."""
    return chebyshev.number(around.amax()) if around.numel() else 0.0


def _checked(u: Tensor, method: str, boundary: str, steps: int | None) -> None:
    if not isinstance(u, Tensor) or not u.is_floating_point():
        kind = u.dtype if isinstance(u, Tensor) else type(u).__name__
        raise TypeError(f"heat: u must be a tensor of floating-point numbers, got {kind}")
    if u.dim() < 1:
        raise ValueError("heat: u must have at least one axis")
    if boundary not in BOUNDARIES:
        raise ValueError(f"heat: boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}")
    if method not in METHODS:
        raise ValueError(f"heat: method must be one of {', '.join(METHODS)}, got {method!r}")
    if steps is not None and steps < 1:
        raise ValueError(f"heat: steps must be at least 1, got {steps}")


def _not_negative(name: str, value: Any, u: Tensor) -> Tensor:
    """Numbers as u has them, finite and not below 0 where they may be looked at."""
    found = torch.as_tensor(value, dtype=u.dtype, device=u.device)
    if isinstance(value, int | float):
        wrong = not 0 <= value <= torch.finfo(u.dtype).max
    else:
        wrong = looking(found) and not bool(((found >= 0) & (found < math.inf)).all())
    if wrong:
        bad = found.detach()[~((found >= 0) & (found < math.inf))]
        raise ValueError(f"heat: {name} must be finite and not negative, got {float(bad[0]):.4g}")
    return found


def _fits(shape: Sequence[int], u: Tensor, axes: int) -> bool:
    """Whether a shape broadcasts over the leading axes of u."""
    lead = u.shape[:-axes]
    return len(shape) <= len(lead) and all(a in (1, b) for a, b in zip(shape[::-1], lead[::-1]))


def _unfit(shape: Sequence[int], u: Tensor, axes: int) -> ValueError:
    return ValueError(
        f"heat: numbers for each field must fit the leading axes {tuple(u.shape[:-axes])} of u, or "
        f"its grid {tuple(u.shape[-axes:])}, got {tuple(shape)}"
    )


def _numbers(value: Tensor, u: Tensor, axes: int) -> Tensor:
    """Numbers for the leading axes of u, with 1 for each axis of the grid; one alone as it is."""
    if value.dim() == u.dim() and value.shape[-axes:].numel() == 1:
        value = value[(..., *[0] * axes)]
    if not _fits(value.shape, u, axes):
        raise _unfit(value.shape, u, axes)
    return value.view(*value.shape, *[1] * axes) if value.dim() else value


def _widths(spacing: Any, axes: int) -> tuple[float, ...]:
    """The width of a cell along each axis, as numbers."""
    if isinstance(spacing, int | float) or getattr(spacing, "ndim", 1) == 0:
        given = [spacing] * axes
    else:
        given = list(spacing)
    if any(getattr(width, "requires_grad", False) for width in given):
        raise ValueError("heat: there are no slopes in spacing: put them into D, D / spacing^2")
    try:
        found = tuple(float(width) for width in given)
    except RuntimeError:  # members of a vmap hold no single value
        raise ValueError(
            "heat: spacing may not differ from member to member: put it into D, D / spacing^2"
        ) from None
    if len(found) != axes or not all(width > 0 and math.isfinite(width) for width in found):
        raise ValueError(f"heat: spacing must be {axes} positive widths, got {spacing}")
    return found
