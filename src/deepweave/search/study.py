"""What a search found: every trial, the best of them, and which settings mattered."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from deepweave.run import derive
from deepweave.search.samplers import Told
from deepweave.search.space import Settings, Space


@dataclass
class Trial:
    """One point of the space: its settings, and what came of them."""

    number: int
    settings: Settings
    status: str = "waiting"  # then finished, stopped (before its whole budget) or failed
    value: float | None = None  # of the goal, the mean over the seeds
    values: list[float] = field(default_factory=list)  # one per seed
    epochs: int = 0
    curve: list[tuple[int, float]] = field(default_factory=list)  # (epochs, value)
    bracket: int = 0
    reason: str = ""  # why it failed
    story: list[tuple[int, Settings]] = field(default_factory=list)  # settings changed on the way

    @property
    def error(self) -> float | None:
        """The standard error of the value over the seeds; None for one seed."""
        if len(self.values) < 2:
            return None
        return float(torch.tensor(self.values, dtype=torch.float64).std()) / len(self.values) ** 0.5


class Study:
    """The trials of a search, in the order they were proposed.

    Attributes:
        best: the trial with the best value among those trained longest.
        winner: the trained objective of the best trial, where the search trained it itself.
    """

    def __init__(
        self,
        space: Space,
        *,
        goal: str = "value",
        maximise: bool = False,
        refit: Callable[..., Any] | None = None,
    ):
        self.space, self.goal, self.maximise = space, goal, maximise
        self.trials: list[Trial] = []
        self.seconds = 0.0
        self.buckets = 0  # how many programs the trials were trained in
        self.winner: Any = None
        self._refit = refit

    def sign(self, value: float) -> float:
        """The value so that lower is better."""
        return -value if self.maximise else value

    def told(self) -> list[Told]:
        """The history in the form samplers read."""
        return [
            Told(
                one.settings,
                None if one.value is None or one.status == "failed" else self.sign(one.value),
                one.status == "finished",
                max(one.epochs, 1),
            )
            for one in self.trials
        ]

    @property
    def ranked(self) -> list[Trial]:
        """The trials that gave a value: the longest trained first, the better first among them."""
        valued = [t for t in self.trials if t.value is not None and t.status != "failed"]
        return sorted(valued, key=lambda t: (-t.epochs, self.sign(t.value or 0.0), t.number))

    @property
    def best(self) -> Trial:
        ranked = self.ranked
        if not ranked:
            reasons = {t.reason for t in self.trials if t.reason}
            raise ValueError(f"search: no trial gave a value: {'; '.join(sorted(reasons)[:3])}")
        return ranked[0]

    @property
    def value(self) -> float:
        """The value of the best trial."""
        return float(self.best.value or 0.0)

    def refit(self, settings: Settings | None = None, **options: Any) -> Any:
        """Train the best settings again from the beginning, as a run of its own: for its test.

        Options go to :func:`deepweave.fit`. The search has never seen the test set. With other
        ``settings`` it is the honest comparison: the same training without the search.
        """
        if self._refit is None:
            raise ValueError("refit: this search trained nothing")
        return self._refit(self.best.settings if settings is None else settings, **options)

    def history(self) -> list[float]:
        """The best value so far, after each trial that finished (NaN before the first)."""
        found, best = [], math.nan
        for one in self.trials:
            if one.value is not None and one.status == "finished":
                better = math.isnan(best) or self.sign(one.value) < self.sign(best)
                best = one.value if better else best
            found.append(best)
        return found

    def importance(self, repeats: int = 20, seed: int = 0) -> dict[str, tuple[float, float, float]]:
        """How much of the differences between trials hangs on each setting: (share, low, high).

        A random forest learns the rank of a trial from its settings; a setting's importance is
        how far its out-of-bag R2 falls when that setting is shuffled among the trials, as a share
        of the sum. The interval is of 95 %, over forests on bootstrap samples of the trials.

        Source: Breiman, Random forests, 2001.

        Raises:
            ValueError: fewer than 8 trials with a value.
        """
        import numpy as np
        from sklearn.ensemble import RandomForestRegressor

        used = [t for t in self.trials if t.value is not None and t.status != "failed"]
        if len(used) < 8:
            raise ValueError(f"importance: needs at least 8 trials with a value, got {len(used)}")
        places = np.nan_to_num(self.space.places([t.settings for t in used]).numpy(), nan=-1.0)
        order = sorted(used, key=lambda t: (-t.epochs, self.sign(t.value or 0.0)))
        rank = {t.number: i for i, t in enumerate(order)}
        target = np.array([rank[t.number] for t in used]) / len(used)
        random = np.random.default_rng(derive(seed, "importance") % 2**32)
        drops = np.zeros((repeats, places.shape[1]))
        for i in range(repeats):
            chosen = np.arange(len(used))
            rest = chosen[:0]
            while not len(rest):  # of few trials a sample may hold all
                chosen = random.integers(0, len(used), len(used))
                rest = np.setdiff1d(np.arange(len(used)), chosen)
            forest = RandomForestRegressor(
                32, random_state=int(random.integers(2**31)), min_samples_leaf=2, n_jobs=1
            ).fit(places[chosen], target[chosen])
            error = np.square(forest.predict(places[rest]) - target[rest]).mean()
            for k in range(places.shape[1]):
                mixed = places[rest].copy()
                mixed[:, k] = random.permutation(places[:, k])[: len(rest)]
                drops[i, k] = np.square(forest.predict(mixed) - target[rest]).mean() - error
        shares = np.clip(drops, 0, None)
        shares /= np.maximum(shares.sum(1, keepdims=True), 1e-12)
        low, high = np.quantile(shares, [0.025, 0.975], axis=0)
        found = {
            name: (float(shares[:, k].mean()), float(low[k]), float(high[k]))
            for k, name in enumerate(self.space.dimensions)
        }
        return dict(sorted(found.items(), key=lambda item: -item[1][0]))

    def to_json(self) -> dict[str, Any]:
        """All that is kept of a search, as plain values."""
        return {
            "goal": self.goal,
            "maximise": self.maximise,
            "space": {name: repr(one) for name, one in self.space.dimensions.items()},
            "seconds": round(self.seconds, 3),
            "buckets": self.buckets,
            "trials": [plain(one) for one in self.trials],
        }

    def __repr__(self) -> str:
        done = {
            s: sum(t.status == s for t in self.trials) for s in ("finished", "stopped", "failed")
        }
        told = ", ".join(f"{count} {status}" for status, count in done.items() if count)
        lines = [f"Study({len(self.trials)} trials: {told or 'none yet'}, {self.seconds:.1f} s)"]
        if any(t.value is not None and t.status != "failed" for t in self.trials):
            value = f"{self.best.value:.4g}"
            lines.append(f"  best {self.goal} {value} with {self.best.settings}")
        return "\n".join(lines)


def plain(trial: Trial) -> dict[str, Any]:
    """A trial as plain values, its settings in words where JSON has none."""
    found = asdict(trial)
    found["settings"] = {k: _plain(v) for k, v in trial.settings.items()}
    found["story"] = [[at, {k: _plain(v) for k, v in new.items()}] for at, new in trial.story]
    return found


def _plain(value: Any) -> Any:
    try:
        json.dumps(value)
    except TypeError:
        return getattr(value, "__name__", None) or repr(value)
    return value
