"""Random states: seeded, kept, put back, and never shared between purposes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def seed_all(seed: int) -> None:
    """Seed torch (every device), Python's ``random`` and, once imported, numpy's global generator.

    >>> seed_all(7); a = torch.rand(2); seed_all(7); bool((a == torch.rand(2)).all())
    True
    """
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


def snapshot() -> dict[str, Any]:
    """The random states of torch, Python and numpy as tensors and plain numbers."""
    state: dict[str, Any] = {"torch": torch.get_rng_state(), "python": random.getstate()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = (kind, torch.from_numpy(keys.astype("int64")), *rest)
    return state


def restore(state: dict[str, Any]) -> None:
    """Put back what :func:`snapshot` took."""
    torch.set_rng_state(state["torch"].cpu())
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    if "numpy" in state:
        import numpy

        kind, keys, *rest = state["numpy"]
        numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))


@contextmanager
def aside(seed: int) -> Iterator[None]:
    """Draw from a stream of its own: seeded inside, as it was outside.

    >>> seed_all(1); a = torch.rand(1)
    >>> seed_all(1)
    >>> with aside(99): _ = torch.rand(5)
    >>> bool(a == torch.rand(1))
    True
    """
    before = snapshot()
    seed_all(seed)
    try:
        yield
    finally:
        restore(before)
