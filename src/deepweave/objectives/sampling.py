"""What may be asked of a diffusion model when it makes samples, and what is refused."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from deepweave.functional.samplers import SAMPLERS
from deepweave.objectives.unlabelled import labelled


def asked(
    method: Any, count: int, y: Tensor | None, sampler: Any, guidance: float,
    clip: tuple[float, float] | None,
) -> None:  # fmt: skip
    """Raise ValueError for samples that a :class:`deepweave.Denoise` cannot make."""
    if isinstance(sampler, str) and sampler not in SAMPLERS:
        raise ValueError(f"Denoise: sampler must be one of {', '.join(SAMPLERS)}, got {sampler!r}")
    if method.pairing and sampler == "ancestral":
        raise ValueError(
            "Denoise: with pairing noise cannot be drawn anew: take another sampler than ancestral"
        )
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"Denoise: count must be a whole number from 1, got {count}")
    if method.shape is None:
        raise ValueError("Denoise: no sample was seen yet: say shape=")
    if not math.isfinite(guidance):
        raise ValueError(f"Denoise: guidance must be finite, got {guidance}")
    if guidance != 1 and not (method.classes and method.drop):
        raise ValueError("Denoise: guidance needs classes, some of them dropped in training")
    if clip is not None and not clip[0] < clip[1]:
        raise ValueError(f"Denoise: clip must be (low, high), got {clip}")
    if y is None:
        if guidance != 1:
            raise ValueError("Denoise: guidance needs classes to be asked for: y=")
        return
    if not method.classes:
        raise ValueError("Denoise: it was made without classes, none can be asked for")
    labelled(y, count, "Denoise", method.classes)


def kept(
    known: Tensor | None, mask: Tensor | None, shape: tuple[int, ...], like: Tensor, centre: float
) -> tuple[Tensor, Tensor] | None:
    """What is known of samples, less the centre, and where; None where nothing is.

    Raises:
        ValueError: one without the other, shapes that do not fit, a mask that is not of bools.
    """
    if (known is None) != (mask is None):
        raise ValueError("Denoise: known and mask go together")
    if known is None or mask is None:
        return None
    if tuple(known.shape) != shape:
        raise ValueError(f"Denoise: known must be {shape}, got {tuple(known.shape)}")
    if not bool(known.isfinite().all()):
        raise ValueError("Denoise: known must be finite: what is unknown may be 0")
    ends = zip(mask.shape[::-1], shape[::-1])
    if mask.dtype != torch.bool or mask.dim() > len(shape) or any(m not in (1, n) for m, n in ends):
        raise ValueError(
            f"Denoise: mask must be of bools that expand to {shape}, got {mask.dtype} "
            f"{tuple(mask.shape)}"
        )
    return known.to(like) - centre, mask.to(like.device)
