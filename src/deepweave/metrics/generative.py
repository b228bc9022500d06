"""Readings of generated samples that need no download, each with an interval.

None of them sees everything: with a few hundred samples they cannot tell good models apart. So
:func:`compare` measures real samples against real ones in the same way, and a difference that is
within that row is none. Where a model has a likelihood, that says more.
"""

from __future__ import annotations

from torch import Tensor

from deepweave.metrics.frechet import frechet
from deepweave.metrics.kernels import kid, mmd
from deepweave.metrics.manifold import Manifold, manifold, memorised
from deepweave.metrics.modes import Modes, modes
from deepweave.metrics.posterior import LatentUse, latent_use
from deepweave.metrics.score import Score
from deepweave.metrics.twosample import c2st

__all__ = [
    "LatentUse",
    "Manifold",
    "Modes",
    "c2st",
    "compare",
    "frechet",
    "kid",
    "latent_use",
    "manifold",
    "memorised",
    "mmd",
    "modes",
]


def compare(
    samples: Tensor, real: Tensor, other: Tensor, train: Tensor | None = None, *, seed: int = 0
) -> dict[str, tuple[Score, Score]]:
    """Every reading of samples against real ones, and of other real ones against the same.

    With few samples the jackknife has fewer groups, and c2st fewer folds.

    Args:
        samples: what a model made.
        real: real samples, not trained on.
        other: further real samples; as many of the samples are taken as there are of them.
        train: what the model was trained on, for ``memorised``; other must not be among it.
        seed: of the draws of the tests.

    Shapes: samples (N, ...), real (M, ...), other (K, ...) -> name: (samples, other)

    Raises:
        ValueError: samples that do not fit, or fewer than four of each.

    >>> import torch
    >>> x = torch.randn(90, 2, generator=torch.Generator().manual_seed(0))
    >>> found = compare(x[:30] * 3, x[30:60], x[60:])
    >>> sorted(found)
    ['c2st', 'coverage', 'density', 'frechet', 'mmd', 'precision', 'recall']
    """
    count = min(len(samples), len(other))
    least = min(count, len(real))
    if least < 4:
        raise ValueError(f"compare: at least 4 samples of each, got {least}")
    found: dict[str, list[Score]] = {}
    for one in (samples[:count], other[:count]):
        near = manifold(one, real, neighbours=min(5, least - 1))
        made: dict[str, Score] = {
            "mmd": mmd(one, real, seed=seed),
            "c2st": c2st(one, real, folds=min(5, least // 2), seed=seed),
            "frechet": frechet(one, real, groups=min(10, least // 2)),
            **near._asdict(),
        }
        if train is not None:
            made["memorised"] = memorised(one, train, real)
        for name, score in made.items():
            found.setdefault(name, []).append(score)
    return {name: (pair[0], pair[1]) for name, pair in found.items()}
