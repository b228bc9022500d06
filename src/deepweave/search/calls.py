"""Trials that are calls of a function: one after the other, or in processes of their own."""

from __future__ import annotations

import math
import pickle
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import torch

from deepweave.search.samplers import Sampler
from deepweave.search.space import Settings
from deepweave.search.study import Study, Trial

Call = Callable[[Settings], float]


def run(
    function: Call, study: Study, sampler: Sampler, trials: int, processes: int, seed: int
) -> None:
    """Fill a study with calls, wave by wave.

    Raises:
        ValueError: the function cannot be sent to another process.
    """
    total, began = sampler.check(study.space, trials), time.perf_counter()
    with _each(function, processes) as each:
        while len(study.trials) < total:
            count = min(sampler.wave or total, total - len(study.trials))
            proposed = sampler.propose(study.space, count, study.told(), seed)
            if not proposed:
                break
            wave = [Trial(len(study.trials) + i, one) for i, one in enumerate(proposed)]
            study.trials += wave
            for one, (value, reason) in zip(wave, each(proposed)):
                one.epochs, one.reason = 1, reason
                one.status = "failed" if reason else "finished"
                one.value = None if reason else value
                one.values = [] if reason else [value]
    study.seconds = time.perf_counter() - began


@contextmanager
def _each(function: Call, processes: int) -> Iterator[Any]:
    if processes == 1:
        yield lambda many: [_guarded(function, one) for one in many]
        return
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"minimize: a function for other processes must stand at the top of a module: {error}"
        ) from None
    # processes begin anew: a fork would inherit locked threads
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        yield lambda many: list(pool.map(_guarded, [function] * len(many), many))


def _guarded(function: Call, settings: Settings) -> tuple[float, str]:
    """The value of a call, or why there is none."""
    try:
        value = float(function(settings))
    except Exception as error:  # whatever a trial does, the search goes on
        return math.nan, f"{type(error).__name__}: {error}".splitlines()[0]
    return value, "" if math.isfinite(value) else f"its value is {value}"
