"""How probable data are to a denoiser: along its flow, exactly, or by its chain of noise, a bound.

``denoise(y, s)`` is E[x | y] for y = x + s e, with s a scalar, or a number of each sample (B,).
The end of the chain is taken to be N(0, highest^2 + d^2), d the standard deviation of the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Denoise = Callable[[Tensor, Tensor], Tensor]
HALF = math.log(2 * math.pi) / 2


def flow_nats(
    denoise: Denoise, y: Tensor, levels: Tensor, ways: Tensor, *, data: float
) -> tuple[Tensor, Tensor]:
    """-log p(y) at the lowest level along dy/ds = (y - x(y, s)) / s, and its standard error.

    In the angle a = atan(s / d) and u = y / sqrt(s^2 + d^2) the flow is du/da = -F, with F the
    balanced target of :mod:`deepweave.functional.schedule`, and

        -log p(y) = |u_end|^2 / 2 + D log(2 pi (s^2 + d^2)) / 2 + integral of div F da

    by Heun's method; of Gaussian data of deviation d, where F = 0, it is exact. The divergence is
    exact with no ``ways``, D products of a vector with the Jacobian at each level; else the mean
    of w . J w over ways w of signs.

    Shapes: y (B, ...), rising levels (n,), ways (P, B, ...) -> (B,), (B,) nats

    Source: Song et al., Score-based generative modeling through stochastic differential equations,
    2021; Hutchinson, 1989 (the trace by signs).

    >>> flat = lambda y, s: y / (1 + s**2)  # data of variance 1
    >>> levels = torch.tensor([0.002, 1.0, 80.0])
    >>> found, _ = flow_nats(flat, torch.zeros(1, 2), levels, torch.zeros(0, 1, 2), data=1.0)
    >>> round(float(found), 4)  # log(2 pi)
    1.8379
    """

    def field(u: Tensor, s: Tensor) -> Tensor:
        wide = (s**2 + data**2).sqrt()
        return (denoise(wide * u, s) - data**2 / wide * u) * wide / (s * data)

    steps, turns = levels.unbind(), torch.atan(levels / data).unbind()
    wide = (steps[0] ** 2 + data**2).sqrt()
    u = y / wide
    now, grown = _spread(field, u, steps[0], ways)
    total = torch.zeros_like(grown)
    for s, turn, after in zip(steps[1:], turns, turns[1:]):
        step = after - turn
        end = field(u - step * now, s)
        u = u - step * (now + end) / 2
        now, more = _spread(field, u, s, ways)
        total = total + step * (grown + more) / 2
        grown = more
    last = u.square().flatten(1).sum(1) / 2 + u[0].numel() * (HALF + wide.log())
    error = total.std(0) / math.sqrt(len(ways)) if len(ways) > 1 else torch.zeros_like(last)
    return last + total.mean(0), error


def _spread(field: Denoise, y: Tensor, s: Tensor, ways: Tensor) -> tuple[Tensor, Tensor]:
    """A field and its divergence: exact (1, B), or along each way (P, B)."""
    both: Any = torch.func.vjp(lambda v: field(v, s), y)
    found, pull = both
    if len(ways):
        (turned,) = torch.func.vmap(pull)(ways)
        return found, (turned * ways).flatten(2).sum(2)
    size = y[0].numel()

    def corner(place: Tensor) -> Tensor:
        way = (torch.arange(size, device=y.device) == place).to(y.dtype)
        (turned,) = pull(way.expand(len(y), size).reshape(y.shape))
        return (turned.flatten(1) * way).sum(1)

    each = torch.func.vmap(corner, chunk_size=16)(torch.arange(size, device=y.device))
    return found, each.sum(0, keepdim=True)


def chain_nats(
    denoise: Denoise, x: Tensor, low: float, high: float, draws: int
) -> tuple[Tensor, Tensor]:
    """The integral of |x - x(y, s)|^2 / s^3 from low to high, and its standard error over draws.

    Each sample has ``draws`` levels, one in each of as many equal parts of log s.
    ``denoise`` is asked for draws x B samples at once, the draws of one sample B apart.

    Shapes: x (B, ...) -> (B,), (B,) nats

    Source: Kingma et al., Variational diffusion models, 2021.
    """
    shape, width = (draws, len(x)), math.log(high / low)
    part = torch.arange(draws, dtype=x.dtype, device=x.device)[:, None]
    part = (part + torch.rand(shape, dtype=x.dtype, device=x.device)) / draws
    s = (low * torch.exp(width * part)).flatten()
    many = x.repeat(draws, *[1] * (x.dim() - 1))
    noisy = many + s.view(-1, *[1] * (x.dim() - 1)) * torch.randn_like(many)
    off = (many - denoise(noisy, s)).square().flatten(1).sum(1)
    cost = (off / s**2 * width).view(shape)
    if draws == 1:
        return cost[0], torch.full_like(cost[0], math.nan)
    # neighbouring parts differ by little but chance: half their squared difference is the variance
    return cost.mean(0), (cost.diff(dim=0).square().mean(0) / 2 / draws).sqrt()


def prior_nats(x: Tensor, high: float, data: float) -> Tensor:
    """KL(N(x, high^2) || N(0, high^2 + d^2)) of each sample. Shapes: x (B, ...) -> (B,)

    >>> prior_nats(torch.zeros(1, 3), 80.0, 0.5).abs() < 1e-6
    tensor([True])
    """
    wide = high**2 + data**2
    each = math.log(wide / high**2) / 2 + high**2 / (2 * wide) - 0.5
    return x.square().flatten(1).sum(1) / (2 * wide) + x[0].numel() * each


def level_nats(x: Tensor, noisy: Tensor, low: float, levels: int) -> Tensor:
    """-log P(x | y) of values on the lattice k / (levels - 1) in [0, 1], y = x + low e.

    P(x | y) = N(y; x, low^2) / sum over levels l of N(y; l, low^2)

    Shapes: x and noisy (B, ...) -> (B,) nats

    >>> x = torch.tensor([[0.0, 1.0]])
    >>> round(float(level_nats(x, x + 0.5, 100.0, 4)), 2)  # of much noise: 2 log 4
    2.77
    """
    last = levels - 1
    reach = min(last, math.ceil(10 * low * last) + 1)  # farther ones weigh less than e^-40
    near = x[..., None] + torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) / last
    far = ((noisy[..., None] - near) / low).square() / 2
    outside = (near < -0.5 / last) | (near > 1 + 0.5 / last)
    total = torch.logsumexp((-far).masked_fill(outside, -math.inf), -1)
    return (((noisy - x) / low).square() / 2 + total).flatten(1).sum(1)
