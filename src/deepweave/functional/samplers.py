"""From noise to data: ways to solve dy/ds = (y - x(y, s)) / s from the highest level down to 0.

``denoise(y, s)`` is what the data is expected to be, E[x | y], with s a scalar tensor. Levels fall
and end in 0 (:meth:`deepweave.functional.schedule.Schedule.levels`). Each is a plain loop without a
look at any number of y, so that it runs on a device without waiting, and under ``vmap``.

| sampler | network calls for n steps | order |
|---|---:|---|
| ``euler`` (DDIM) | n | 1 |
| ``heun`` (EDM) | 2 n - 1 | 2 |
| ``dpm`` (DPM-Solver++ 2M) | n | 2 |
| ``ancestral`` (DDPM with churn = 1) | n | 1, with chance |

The first three are exact solvers of one flow, in the limit of many steps; the order is how fast
they get there. Guidance doubles the calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from deepweave.functional.reduction import looking

Denoise = Callable[[Tensor, Tensor], Tensor]


def euler(denoise: Denoise, y: Tensor, levels: Tensor) -> Tensor:
    """y' = x + s' / s (y - x): the noise that is seen stays, less of it (DDIM).

    Shapes: y (B, ...), levels (n + 1,) -> (B, ...)

    Source: Song, Meng & Ermon, Denoising diffusion implicit models, 2021.

    >>> flat = lambda y, s: y / (1 + s**2)  # data of variance 1
    >>> euler(flat, torch.tensor([10.0]), torch.tensor([10.0, 5.0, 1.0, 0.0])).shape
    torch.Size([1])
    """
    now = _numbers(y, levels)
    for s, after in pairwise(now):
        x = denoise(y, s)
        y = x + after / s * (y - x)
    return y


def heun(denoise: Denoise, y: Tensor, levels: Tensor) -> Tensor:
    """Euler's step, then the mean of the slopes at both ends; the last step is Euler's.

    Shapes: y (B, ...), levels (n + 1,) -> (B, ...)

    Source: Karras et al., Elucidating the design space of diffusion-based generative models, 2022.
    """
    now = _numbers(y, levels)
    for place, (s, after) in enumerate(pairwise(now)):
        slope = (y - denoise(y, s)) / s
        ahead = y + (after - s) * slope
        if place < len(now) - 2:
            slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
            ahead = y + (after - s) * slope
        y = ahead
    return y


def dpm(denoise: Denoise, y: Tensor, levels: Tensor) -> Tensor:
    """DPM-Solver++ of second order, from the last two steps: one call a step.

    With h = log(s / s'), y' = (s' / s) y + (1 - e^-h) D, D = (1 + 1 / 2r) x - x_before / 2r,
    r = h_before / h; the first step is of first order, and so is the last, to s = 0.

    Shapes: y (B, ...), levels (n + 1,) -> (B, ...)

    Source: Lu et al., DPM-Solver++: fast solver for guided sampling, 2022.
    """
    now = _numbers(y, levels)
    before, width = None, None
    for place, (s, after) in enumerate(pairwise(now)):
        x = denoise(y, s)
        lead = x
        last = place == len(now) - 2
        step = None if last else torch.log(s / after)
        if before is not None and width is not None and step is not None:
            share = step / (2 * width)
            lead = (1 + share) * x - share * before
        y = after / s * y + (1 - after / s) * lead
        before, width = x, step
    return y


def ancestral(
    denoise: Denoise, y: Tensor, levels: Tensor, *, churn: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Some of the noise is taken off and drawn anew: DDPM at churn 1, DDIM at 0.

    The posterior of y' given y and x has the variance v = s'^2 (1 - s'^2 / s^2):
    y' = x + sqrt(s'^2 - churn^2 v) (y - x) / s + churn sqrt(v) e. churn is the eta of DDIM.

    Shapes: y (B, ...), levels (n + 1,) -> (B, ...)

    Raises:
        ValueError: a churn outside [0, 1].

    Source: Ho, Jain & Abbeel, Denoising diffusion probabilistic models, 2020; Song, Meng & Ermon,
    Denoising diffusion implicit models, 2021.
    """
    if not 0 <= churn <= 1:
        raise ValueError(f"ancestral: churn must lie in [0, 1], got {churn}")
    now = _numbers(y, levels)
    for s, after in pairwise(now):
        x = denoise(y, s)
        fresh = churn * after * (1 - (after / s) ** 2).sqrt()
        kept = (after**2 - fresh**2).clamp_min(0).sqrt()
        noise = torch.randn(y.shape, dtype=y.dtype, device=y.device, generator=generator)
        y = x + kept / s * (y - x) + fresh * noise
    return y


SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "dpm": dpm, "euler": euler, "heun": heun, "ancestral": ancestral,
}  # fmt: skip


def calls(sampler: str, steps: int) -> int:
    """How many network calls a sampler makes, without guidance.

    >>> calls("heun", 10), calls("dpm", 10)
    (19, 10)
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"calls: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    return 2 * steps - 1 if sampler == "heun" else steps


def _numbers(y: Tensor, levels: Tensor) -> Sequence[Tensor]:
    """The levels one by one, where y is; those on the CPU are looked at."""
    if levels.dim() != 1 or len(levels) < 2:
        raise ValueError(f"sampler: levels must be (n + 1,), got {tuple(levels.shape)}")
    if looking(levels):
        rough = levels.double()
        if not (bool((rough.diff() < 0).all()) and float(rough[0]) < math.inf):
            raise ValueError("sampler: levels must be finite and fall from step to step")
        if float(rough[-1]) != 0:
            raise ValueError(f"sampler: levels must end in 0, got {float(rough[-1]):.4g}")
    return levels.to(device=y.device, dtype=y.dtype).unbind()
