"""Programs of a search in processes of their own: for what cannot learn together."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch

from deepweave.search.bucket import Bucket, Member, Plan
from deepweave.search.maker import Maker
from deepweave.search.space import Settings

Part = tuple[int, int, Settings, Settings]  # trial, seed, its rates, its settings


class Crew:
    """Trains several buckets at once, each in the next process that is free.

    Raises:
        ValueError: the maker or the hooks cannot be sent to another process.
    """

    def __init__(self, processes: int, maker: Maker, plan: Plan):
        try:
            pickle.dumps((maker, plan.hooks, plan.scores))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ValueError(
                "tune: with processes= the maker, hooks and scores must stand at the top of a "
                f"module: {error}"
            ) from None
        # processes begin anew: a fork would inherit locked threads; the data go there once
        self.pool = ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(maker, plan)
        )

    def advance(
        self, buckets: Sequence[Bucket], settings: Sequence[Settings], rung: int
    ) -> dict[int, Exception]:
        """Train buckets up to an epoch; the errors of those that cannot learn so, by place."""
        waiting = {}
        for place, bucket in enumerate(buckets):
            parts = [(m.trial, m.seed, m.settings, settings[m.trial]) for m in bucket.members]
            state = bucket.state() if bucket.reached else None
            waiting[place] = self.pool.submit(_advance, parts, bucket.given, state, rung)
        errors: dict[int, Exception] = {}
        for place, future in waiting.items():
            try:
                buckets[place].restore(future.result())
            except (RuntimeError, ValueError, NotImplementedError) as error:
                errors[place] = error
        return errors

    def close(self) -> None:
        """Let the processes go."""
        self.pool.shutdown(cancel_futures=True)


_mine: list[Any] = []  # maker and plan, in a process of the crew


def _begin(maker: Maker, plan: Plan) -> None:
    torch.set_num_threads(1)
    _mine[:] = [maker, plan]


def _advance(
    parts: list[Part], options: dict[str, Any], state: dict[str, Any] | None, rung: int
) -> dict[str, Any]:
    maker, plan = _mine
    members = [
        Member(trial, seed, rates, maker.build(settings, trial, seed))
        for trial, seed, rates, settings in parts
    ]
    bucket = Bucket(plan, members, options)
    if state is not None:
        bucket.restore(state)
    bucket.advance(rung)
    return bucket.state()
