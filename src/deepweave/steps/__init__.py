"""Ways to learn from a batch that are more than one optimizer on one objective."""

from deepweave.steps.alternate import Alternate

__all__ = ["Alternate"]
