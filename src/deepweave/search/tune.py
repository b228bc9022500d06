"""Hyperparameter search: trials drawn in batches and trained in batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepweave.core import Hook, Objective, fit
from deepweave.run import Run
from deepweave.search import calls
from deepweave.search.bucket import Plan, alone
from deepweave.search.budgets import Budget, Whole
from deepweave.search.engine import Engine
from deepweave.search.evolve import Evolve
from deepweave.search.maker import Maker
from deepweave.search.samplers import Sampler, Sobol
from deepweave.search.space import Dimension, Settings, Space
from deepweave.search.study import Study


def tune(
    make: Callable[..., Objective],
    space: Mapping[str, Dimension] | Space,
    data: Any,
    *,
    trials: int = 50,
    epochs: int = 20,
    seeds: int = 1,
    sampler: Sampler | None = None,
    budget: Budget | Evolve | None = None,
    goal: str = "loss",
    maximise: bool = False,
    scores: Callable[..., Any] | None = None,
    hooks: Callable[[], Sequence[Hook]] = list,
    processes: int = 1,
    seed: int = 0,
    devices: Any = None,
    out: Run | str | os.PathLike[str] | None = None,
    **fixed: Any,
) -> Study:
    """Search for the settings under which an objective learns best.

    Trials that differ in nothing but numbers learn together, as one Population: learning rates,
    decays, dropout and penalties of their own, and widths within a factor that zero padding can
    bridge. All others are trained one after the other, by the same words. The search sees the
    training and the validation split; ``study.refit()`` trains the best settings anew, for a test
    on data the search never saw.

    Args:
        make: gives an objective for the settings it names: ``make(hidden, dropout)``. ``lr``,
            ``decay`` (decoupled weight decay), ``batch``, ``optimizer`` and the optimizer's own
            options go to the step instead.
        space: names and dimensions (:mod:`deepweave.search.space`).
        data: a data set with ``train`` and ``validation``.
        trials: how many settings to try.
        epochs: the whole budget of a trial.
        seeds: networks per trial; its value is their mean.
        sampler: Sobol by default; Random, Grid, TPE, GaussianProcess.
        budget: Whole by default; Halving, Hyperband, or Evolve (population-based training).
        goal: ``"loss"``, a log or one of ``scores``, on the validation split.
        maximise: whether more of it is better.
        scores: ``f(prediction, target) -> {name: number}``.
        hooks: gives new hooks for a program that trains trials, such as schedules.
        processes: how many programs are trained at once, each in a process of its own: of use
            for many buckets; ``make`` and ``hooks`` must stand at the top of a module.
        seed: fixes proposals, weights, orders.
        out: a folder, where the search is kept; with ``Run(folder, resume=True)`` it goes on.
        fixed: settings that are the same for all trials: ``batch=64, optimizer="SGD"``.

    Raises:
        ValueError: an empty or contradictory space, a setting that nothing takes, no trial at all.

    >>> import deepweave as dw
    >>> data = dw.data.load("wine")
    >>> make = lambda dropout: dw.Classify(dw.nn.mlp(data.spec, (16,), dropout=dropout))
    >>> space = {"lr": dw.space.log(1e-4, 1e-1), "dropout": dw.space.uniform(0.1, 0.5)}
    >>> study = dw.tune(make, space, data, trials=8, epochs=2)
    >>> len(study.trials), study.buckets, sorted(study.best.settings)
    (8, 1, ['dropout', 'lr'])
    """
    space = Space(space)
    for name, value in {
        "trials": trials, "epochs": epochs, "seeds": seeds, "processes": processes,
    }.items():  # fmt: skip
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"tune: {name} must be a whole number of at least 1, got {value!r}")
    if not hasattr(data, "train") or not hasattr(data, "validation"):
        raise TypeError(
            f"tune: data must have train and validation, got {type(data).__name__}: "
            "the search must not see the test set"
        )
    both = set(fixed) & set(space.dimensions)
    if both:
        raise ValueError(f"tune: {sorted(both)[0]} is in the space and fixed: give it once")
    plan = Plan(data.train, data.validation, epochs, seeds, seed, goal, scores, hooks, devices)

    def refit(settings: Settings, **options: Any) -> Run:
        objective = maker.build(settings, 0, 0)
        given = {**maker.rates(settings), **maker.options(settings)}
        batch = options.pop("batch", given.pop("batch", None))
        step = alone(objective, **given)
        options = {"epochs": epochs, "seed": seed, "batch": batch, "hooks": hooks(), **options}
        return fit(step, data, **options)

    maker = Maker(make, fixed, seed)
    study = Study(space, goal=goal, maximise=maximise, refit=refit)
    folder, resume = _home(out)
    engine = Engine(
        maker, study, plan, sampler or Sobol(), budget or Whole(), folder, resume,
        getattr(data, "fingerprint", None), processes,
    )  # fmt: skip
    known = set(space.dimensions) | set(fixed)
    missing = [name for name in maker.needs if name not in known]
    if missing:
        raise ValueError(f"tune: make needs {missing[0]!r}, which is not in the space")
    engine.run(trials)
    study.best  # noqa: B018 - raises when no trial gave a value
    return study


def _home(out: Run | str | os.PathLike[str] | None) -> tuple[Path | None, bool]:
    """The folder a search is kept in, and whether it goes on with what is there."""
    if out is None:
        return None, False
    run = out if isinstance(out, Run) else Run(out)
    if run.folder is None:
        return None, False
    if (run.folder / "search.safetensors").exists() and not run.resume:
        raise ValueError(
            f"tune: {run.folder} holds a search already: give another out, "
            f"or go on with it: out=Run({str(run.folder)!r}, resume=True)"
        )
    run.folder.mkdir(parents=True, exist_ok=True)
    return run.folder, run.resume


def minimize(
    function: Callable[[Settings], float],
    space: Mapping[str, Dimension] | Space,
    *,
    trials: int = 50,
    sampler: Sampler | None = None,
    maximise: bool = False,
    processes: int = 1,
    seed: int = 0,
) -> Study:
    """Search for the settings where a function is lowest; whatever the function does.

    A call that raises or gives NaN is a failed trial, and the search goes on.

    Args:
        function: takes settings, gives a number.
        processes: how many calls run at once, each in a process of its own (the function must be
            importable there: a ``def`` at the top of a module).

    >>> from deepweave.search import space
    >>> study = minimize(lambda s: (s["x"] - 1) ** 2, {"x": space.uniform(-2, 2)}, trials=64)
    >>> abs(study.best.settings["x"] - 1) < 0.05
    True
    """
    space = Space(space)
    if trials < 1 or processes < 1:
        raise ValueError(
            f"minimize: trials and processes must be at least 1, got {trials} and {processes}"
        )
    study = Study(space, maximise=maximise)
    calls.run(function, study, sampler or Sobol(), trials, processes, seed)
    return study
