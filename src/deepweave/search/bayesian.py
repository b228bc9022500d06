"""Samplers that learn from the trials so far; the models are Optuna's (extra ``tune``).

They are driven in waves: a wave is proposed as a whole, each proposal knowing of those before it
(Optuna's constant liar), trained in one program, and told as a whole.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deepweave.run import derive
from deepweave.search.samplers import Sampler, Told
from deepweave.search.space import Choice, Dimension, Integer, Real, Settings, Space


def _optuna(name: str) -> Any:
    try:
        import optuna
    except ImportError:
        raise ImportError(
            f'{name}: needs optuna: pip install "deepweave[tune]" (Random, Sobol and Grid do not)'
        ) from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@dataclass(frozen=True)
class _Optuna(Sampler):
    wave: int | None = 8  # pyright: ignore[reportIncompatibleVariableOverride]
    warmup: int = 10  # first trials, drawn at random

    def check(self, space: Space, trials: int) -> int:
        if self.wave is None or self.wave < 1:
            raise ValueError(f"{type(self).__name__}: wave must be at least 1, got {self.wave}")
        _optuna(type(self).__name__)
        return trials

    @abstractmethod
    def _sampler(self, optuna: Any, seed: int) -> Any:
        """Optuna's sampler, seeded."""

    def propose(self, space: Space, count: int, told: Sequence[Told], seed: int) -> list[Settings]:
        optuna = _optuna(type(self).__name__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = self._sampler(optuna, derive(seed, "optuna", len(told)) % 2**32)
            study = optuna.create_study(sampler=sampler, direction="minimize")
            for one in told:
                study.add_trial(_past(optuna, space, one))
            return [self._ask(space, study.ask()) for _ in range(count)]

    def _ask(self, space: Space, trial: Any) -> Settings:
        one: Settings = {}
        for name in space.order:
            if space.active(name, one):
                one[name] = _suggest(trial, name, space.dimensions[name])
        return {name: one[name] for name in space.dimensions if name in one}


@dataclass(frozen=True)
class TPE(_Optuna):
    """Tree-structured Parzen estimator: draws where good trials are dense and bad ones rare.

    Args:
        wave: trials proposed and trained together.
        warmup: first trials, drawn at random.

    Source: Bergstra et al., Algorithms for hyper-parameter optimization, 2011.
    """

    def _sampler(self, optuna: Any, seed: int) -> Any:
        return optuna.samplers.TPESampler(
            n_startup_trials=self.warmup, multivariate=True, group=True, constant_liar=True,
            seed=seed,
        )  # fmt: skip


@dataclass(frozen=True)
class GaussianProcess(_Optuna):
    """Gaussian process with expected improvement: few trials, each of them dear.

    Source: Snoek, Larochelle & Adams, Practical Bayesian optimization, 2012.
    """

    def _sampler(self, optuna: Any, seed: int) -> Any:
        return optuna.samplers.GPSampler(
            n_startup_trials=self.warmup, seed=seed, deterministic_objective=False
        )


def _suggest(trial: Any, name: str, one: Dimension) -> Any:
    if isinstance(one, Real):
        return trial.suggest_float(name, one.low, one.high, log=one.scale == "log")
    if isinstance(one, Integer):
        return trial.suggest_int(name, one.low, one.high, log=one.scale == "log")
    assert isinstance(one, Choice)
    # by number: Optuna's choices must be plain values, ours may be anything
    return one.values[trial.suggest_categorical(name, list(range(len(one.values))))]


def _past(optuna: Any, space: Space, one: Told) -> Any:
    """A trial told to Optuna, as it would have kept it."""
    kinds, params = {}, {}
    for name, value in one.settings.items():
        dimension = space.dimensions[name]
        if isinstance(dimension, Choice):
            size = len(dimension.values)
            kinds[name] = optuna.distributions.CategoricalDistribution(list(range(size)))
            params[name] = min(int(dimension.place(value) * size), size - 1)
        else:
            kind = "Float" if isinstance(dimension, Real) else "Int"
            make = getattr(optuna.distributions, f"{kind}Distribution")
            kinds[name] = make(dimension.low, dimension.high, log=dimension.scale == "log")  # pyright: ignore[reportAttributeAccessIssue]
            params[name] = value
    states = optuna.trial.TrialState
    state = states.FAIL if one.value is None else states.COMPLETE
    if one.value is not None and not one.complete:
        state = states.PRUNED
    return optuna.trial.create_trial(
        state=state,
        value=None if one.value is None else float(one.value),
        params=params,
        distributions=kinds,
        intermediate_values={} if one.value is None else {one.epochs: float(one.value)},
    )
