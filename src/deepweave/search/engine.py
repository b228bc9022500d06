"""The engine of a search: trials become buckets, buckets learn, rungs judge."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepweave import archive
from deepweave.search import shapes
from deepweave.search.bucket import Bucket, Member, Plan
from deepweave.search.budgets import Budget, Path as Ahead
from deepweave.search.crew import Crew
from deepweave.search.evolve import Evolve
from deepweave.search.maker import Maker
from deepweave.search.progress import Line
from deepweave.search.samplers import Sampler
from deepweave.search.study import Study, Trial

SHARE = 0.02  # of the running time that may go into keeping the search


class Engine:
    """Trains the trials of a study; :func:`deepweave.search.tune` says what the parts are."""

    def __init__(
        self,
        maker: Maker,
        study: Study,
        plan: Plan,
        sampler: Sampler,
        budget: Budget | Evolve,
        folder: Path | None,
        resume: bool,
        fingerprint: str | None,
        processes: int = 1,
    ):
        self.maker, self.study, self.plan = maker, study, plan
        self.sampler, self.budget = sampler, budget
        self.path = None if folder is None else folder / "search.safetensors"
        self.identity = {
            "space": repr(study.space),
            "sampler": repr(sampler),
            "budget": repr(budget),
            "goal": study.goal,
            "epochs": plan.epochs,
            "seeds": plan.seeds,
            "seed": plan.seed,
            "fixed": repr(maker.fixed),
            "data": fingerprint,
        }
        self.kept: dict[str, Any] = {}
        if resume and self.path is not None and self.path.exists():
            self.kept = archive.load(self.path)
            self._recognise()
        self.began = time.perf_counter() - self.kept.get("seconds", 0.0)
        self.due = time.perf_counter()
        self.buckets: list[Bucket] = []
        self.first = 0  # number of the first trial of the wave under way
        self.rung = 0  # epochs of the rung under way
        self.champion: tuple[int, float, int] | None = None  # (-epochs, value, trial) of the winner
        self.show = Line()
        self.crew = Crew(processes, maker, plan) if processes > 1 else None

    def _recognise(self) -> None:
        for name, value in self.identity.items():
            found = self.kept.get("identity", {}).get(name)
            if found != value:
                raise ValueError(
                    f"tune: {self.path} is of another search: its {name} is {found}, "
                    f"here it is {value}; give another out="
                )

    def run(self, trials: int) -> Study:
        """All waves, to the last trial."""
        total = self.sampler.check(self.study.space, trials)
        study = self.study
        try:
            while len(study.trials) < total:
                count = min(self.sampler.wave or total, total - len(study.trials))
                proposed = self.sampler.propose(study.space, count, study.told(), self.plan.seed)
                self.first = len(study.trials)
                wave = [Trial(self.first + i, one) for i, one in enumerate(proposed)]
                study.trials += wave
                self._wave(wave)
                if not wave:
                    break
                study.seconds = time.perf_counter() - self.began
        finally:
            self.show.close()
            if self.crew is not None:
                self.crew.close()
        study.seconds = time.perf_counter() - self.began
        self.buckets = []
        if self.path is not None:
            self._save()
        return study

    def _wave(self, wave: list[Trial]) -> None:
        """Train the trials of one wave, each as far as the budget takes it."""
        known = self.kept.get("trials", [])
        if len(known) >= self.first + len(wave):  # tried before a kill
            for one in wave:
                _recall(one, known[one.number])
            if self.kept["first"] > self.first or self.kept["finished"]:
                self.study.buckets = self.kept["programs"]
                self._recall_winner()
                return
        paths = self.budget.paths(len(wave), self.plan.epochs)
        for one, path in zip(wave, paths):
            one.bracket = path.bracket
        members = self._members(wave)
        self.buckets = self._divide(members)
        self.study.buckets += len(self.buckets)
        rungs = sorted({rung for path in paths for rung in path.rungs})
        if known and self.kept.get("first") == self.first:
            self._recall_buckets()
            rungs = [rung for rung in rungs if rung >= self.kept["rung"]]
        for rung in rungs:
            self.rung = rung
            if self.crew is not None:
                self._together(self.crew, rung)
            for bucket in list(self.buckets):
                self._advance(bucket, rung)
            self._judge(wave, paths, rung)
            self.buckets = [bucket for bucket in self.buckets if bucket.members]
        self.buckets = []
        self.first += len(wave)
        self._save_if_due()

    # from settings to buckets

    def _members(self, wave: list[Trial]) -> list[Member]:
        found: list[Member] = []
        for one in wave:
            if one.status == "failed":
                continue
            try:
                made = [
                    self.maker.build(one.settings, one.number, s) for s in range(self.plan.seeds)
                ]
                self.maker.check(one.settings)
            except (ValueError, TypeError, RuntimeError, IndexError, KeyError) as error:
                self._fail(one, f"{type(error).__name__}: {error}".splitlines()[0])
                if one.number == self.first and self.first == 0:
                    self._refuse_if_hopeless(wave, error)
                continue
            rates = self.maker.rates(one.settings)
            found += [Member(one.number, s, rates, o) for s, o in enumerate(made)]
        return found

    def _refuse_if_hopeless(self, wave: list[Trial], error: Exception) -> None:
        """The first trial failed: if the next do the same, it is the maker, not the settings."""
        for other in wave[1:3]:
            try:
                self.maker.build(other.settings, other.number, 0)
            except type(error):
                continue
            return
        raise error

    def _divide(self, members: list[Member]) -> list[Bucket]:
        """Buckets of members that one program can train."""
        kinds: dict[str, list[Member]] = {}
        for one in members:
            settings = self.study.trials[one.trial].settings
            key = repr(
                (
                    sorted(self.maker.options(settings).items(), key=str),
                    sorted(self.maker.rates(settings)),
                )
            )
            kinds.setdefault(key, []).append(one)
        probe = _first_batch(self.plan.train)
        if members and not self.first:
            self._check_goal(members[0])
        found: list[Bucket] = []
        for alike in kinds.values():
            options = self.maker.options(self.study.trials[alike[0].trial].settings)
            objectives = [one.objective for one in alike]
            groups = (
                shapes.same(objectives)
                if isinstance(self.budget, Evolve)
                else shapes.group(objectives, probe, options.get("batch") or 128)
            )
            found += [Bucket(self.plan, [alike[i] for i in group], options) for group in groups]
        return found

    def _check_goal(self, one: Member) -> None:
        """Raise ValueError for a goal that validation does not give, before any training."""
        batch = _first_batch(self.plan.validation)
        step = Bucket(self.plan, [one], self.maker.options({})).step
        step.objective.eval()
        known = set(step.evaluate(batch))
        if self.plan.scores is not None:
            known |= set(self.plan.scores(one.objective.predict(batch[0]).detach(), batch[1]))
        step.objective.train()
        if self.plan.goal not in known:
            raise ValueError(
                f"tune: goal must be one of {', '.join(sorted(known))}, got {self.plan.goal!r}"
            )

    # training

    def _advance(self, bucket: Bucket, rung: int) -> None:
        if bucket.reached < rung:
            bucket.pause.watch = self._save_if_due
            self.show(self.study, self.buckets.index(bucket), len(self.buckets), rung, self.plan)
            try:
                bucket.advance(rung)
            except (RuntimeError, ValueError, NotImplementedError) as error:
                self._apart(bucket, rung, error)
                return
            self._save_if_due()

    def _together(self, crew: Crew, rung: int) -> None:
        """Let the crew train what is to be trained; what it cannot is taken apart here."""
        behind = [bucket for bucket in self.buckets if bucket.reached < rung]
        settings = [trial.settings for trial in self.study.trials]
        for place, error in crew.advance(behind, settings, rung).items():
            self._apart(behind[place], rung, error)
        self._save_if_due()

    def _apart(self, bucket: Bucket, rung: int, error: Exception) -> None:
        """A bucket that cannot learn together learns one by one; one that cannot at all fails."""
        if len(bucket.members) == 1:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            bucket.reached, bucket.values, bucket.failed = rung, [math.nan], {0: reason}
            return
        singles = [
            Bucket(
                self.plan,
                [
                    Member(
                        one.trial,
                        one.seed,
                        one.settings,
                        self.maker.build(
                            self.study.trials[one.trial].settings, one.trial, one.seed
                        ),
                    )
                ],
                bucket.given,
            )
            for one in bucket.members
        ]
        place = self.buckets.index(bucket)
        self.buckets[place : place + 1] = singles
        self.study.buckets += len(singles) - 1
        for single in singles:
            self._advance(single, rung)

    def _judge(self, wave: list[Trial], paths: Sequence[Ahead], rung: int) -> None:
        """Note every trial's value, stop the worse ones where their path says so."""
        values: dict[int, list[float]] = {}
        reasons: dict[int, str] = {}
        for bucket in self.buckets:
            for i, one in enumerate(bucket.members):
                values.setdefault(one.trial, []).append(bucket.values[i])
                if i in bucket.failed:
                    reasons[one.trial] = bucket.failed[i]
        for number, found in values.items():
            one = self.study.trials[number]
            one.epochs = rung
            if number in reasons:
                self._fail(one, reasons[number])
                continue
            one.values, one.value = found, sum(found) / len(found)
            one.curve.append((rung, one.value))
        self._crown()
        alive = {number for number in values if number not in reasons}
        last = rung == self.plan.epochs
        if isinstance(self.budget, Evolve):
            for bucket in self.buckets:
                self._keep(bucket, alive)
                if not last and bucket.members:
                    self.budget.act(self, bucket, rung)
        else:
            by_number = {one.number: path for one, path in zip(wave, paths)}
            for bracket in {path.bracket for path in paths}:
                rivals = [
                    self.study.trials[number]
                    for number in alive
                    if by_number[number].bracket == bracket and rung in by_number[number].rungs
                ]
                if last or not rivals:
                    continue
                rivals.sort(key=lambda t: (self.study.sign(t.value or 0.0), t.number))
                for one in rivals[self.budget.keep(len(rivals)) :]:
                    one.status = "stopped"
                    alive.discard(one.number)
            for bucket in self.buckets:
                self._keep(bucket, alive)
        if last:
            for number in alive:
                self.study.trials[number].status = "finished"

    @staticmethod
    def _keep(bucket: Bucket, alive: set[int]) -> None:
        going = [i for i, one in enumerate(bucket.members) if one.trial in alive]
        if len(going) < len(bucket.members):
            bucket.take(going)

    @staticmethod
    def _fail(one: Trial, reason: str) -> None:
        one.status, one.reason, one.value, one.values = "failed", reason, None, []

    def _crown(self) -> None:
        """Keep the trained objective of the best trial so far."""
        for bucket in self.buckets:
            for i, one in enumerate(bucket.members):
                trial = self.study.trials[one.trial]
                if one.seed != 0 or trial.status == "failed" or trial.value is None:
                    continue
                rank = (-trial.epochs, self.study.sign(trial.value), trial.number)
                if self.champion is None or rank < self.champion:
                    self.champion = rank
                    self.study.winner = bucket.trained(i)

    # keeping and going on

    def _save_if_due(self) -> None:
        if self.path is not None and time.perf_counter() >= self.due:
            began = time.perf_counter()
            self._save()
            self.due = time.perf_counter() + (time.perf_counter() - began) / SHARE

    def _save(self) -> None:
        assert self.path is not None
        winner = self.study.winner
        tree = {
            "identity": self.identity,
            "seconds": time.perf_counter() - self.began,
            "first": self.first,
            "rung": self.rung,
            "finished": not self.buckets,
            "buckets": [bucket.state() for bucket in self.buckets],
            "programs": self.study.buckets,
            "trials": [_record(one) for one in self.study.trials],
            "champion": None if self.champion is None else list(self.champion),
            "winner": None if winner is None else winner.state_dict(),
        }
        archive.save(self.path, tree)

    def _recall_buckets(self) -> None:
        """Take up the buckets of the rung that a kill broke off."""
        # not by the buckets made just now: without those that failed since, they may differ
        everyone = {(m.trial, m.seed): (m, b.given) for b in self.buckets for m in b.members}
        found: list[Bucket] = []
        for state in self.kept["buckets"]:
            alike = [everyone[tuple(pair)] for pair in state["members"]]
            bucket = Bucket(self.plan, [member for member, _ in alike], alike[0][1])
            bucket.restore(state)
            found.append(bucket)
        self.buckets = found
        self.study.buckets = self.kept["programs"]
        self._recall_winner()

    def _recall_winner(self) -> None:
        champion = self.kept.get("champion")
        if champion is None or self.champion is not None:
            return
        trial = self.study.trials[champion[2]] if champion[2] < len(self.study.trials) else None
        if trial is None:
            return
        self.champion = tuple(champion)
        self.study.winner = self.maker.build(trial.settings, trial.number, 0)
        self.study.winner.load_state_dict(self.kept["winner"])


def _first_batch(source: Any) -> Any:
    batches: Any = source.batches(64) if hasattr(source, "batches") else source
    epoch = getattr(batches, "epoch", None)
    first: Any = epoch(0) if callable(epoch) else batches
    return next(iter(first))


def _record(one: Trial) -> dict[str, Any]:
    names = ("status", "value", "values", "epochs", "curve", "bracket", "reason", "story")
    return {name: getattr(one, name) for name in names}


def _recall(one: Trial, record: dict[str, Any]) -> None:
    for name, value in record.items():
        setattr(one, name, value)
    for _, changed in one.story:
        one.settings = {**one.settings, **changed}
