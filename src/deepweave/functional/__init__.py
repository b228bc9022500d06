"""Functions of tensors, without state: what the objectives and networks are made of."""

from deepweave.functional.losses import (
    binary_cross_entropy,
    cross_entropy,
    dice,
    squared_error,
    weighted_mean,
)

__all__ = ["binary_cross_entropy", "cross_entropy", "dice", "squared_error", "weighted_mean"]
