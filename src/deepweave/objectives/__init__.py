"""Methods as objectives: a batch in, a loss and logs out."""

from deepweave.objectives.supervised import Classify, Regress, Segment, Supervised, supervise

__all__ = ["Classify", "Regress", "Segment", "Supervised", "supervise"]
