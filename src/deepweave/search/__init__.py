"""Search for settings: spaces, samplers, budgets, and the program that trains trials at once."""

from deepweave.search import space
from deepweave.search.bayesian import TPE, GaussianProcess
from deepweave.search.budgets import Halving, Hyperband, Whole
from deepweave.search.evolve import Evolve
from deepweave.search.samplers import Grid, Random, Sampler, Sobol
from deepweave.search.space import Space
from deepweave.search.study import Study, Trial
from deepweave.search.tune import minimize, tune

__all__ = [
    "TPE",
    "Evolve",
    "GaussianProcess",
    "Grid",
    "Halving",
    "Hyperband",
    "Random",
    "Sampler",
    "Sobol",
    "Space",
    "Study",
    "Trial",
    "Whole",
    "minimize",
    "space",
    "tune",
]
