"""Objective, Step, Descent, Population, fit: read this folder first.

A run is one sentence: ``fit(Descent(Objective(model), optimizer), source)``. An objective maps a
batch to a scalar loss; a step learns from one batch, in place; ``fit`` only loops, and all else
that happens while training is a hook of a few lines (:mod:`deepweave.hooks`).
"""

from deepweave.core.descent import Descent, make_optimizer
from deepweave.core.loop import Hook, Loop, fit, move
from deepweave.core.objective import Batch, Logs, Objective, Step, Weights, innermost
from deepweave.core.places import Place, place
from deepweave.core.population import Population

__all__ = [
    "Batch",
    "Descent",
    "Hook",
    "Logs",
    "Loop",
    "Objective",
    "Place",
    "Population",
    "Step",
    "Weights",
    "fit",
    "innermost",
    "make_optimizer",
    "move",
    "place",
]
