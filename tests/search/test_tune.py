from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.search import TPE, Evolve, Grid, Halving, Hyperband, Random, engine

RATES = {"lr": dw.space.log(1e-4, 1e-1), "dropout": dw.space.uniform(0.1, 0.5)}


@pytest.fixture(scope="module")
def wine():
    return dw.data.load("wine")


def maker(data, **fixed):
    def make(dropout: float = 0.1, width: int = 8):
        return dw.Classify(dw.nn.mlp(data.spec, (width,), dropout=dropout, **fixed))

    return make


def test_one_program_trains_trials_of_one_shape(wine):
    study = dw.tune(maker(wine), RATES, wine, trials=12, epochs=6, batch=32)
    assert study.buckets == 1
    assert {t.status for t in study.trials} == {"finished"}
    assert study.value == min(t.value for t in study.trials)
    assert study.value < 0.6
    assert all(t.epochs == 6 and t.curve == [(6, t.value)] for t in study.trials)
    again = dw.tune(maker(wine), RATES, wine, trials=12, epochs=6, batch=32)
    assert [t.value for t in again.trials] == [t.value for t in study.trials]
    other = dw.tune(maker(wine), RATES, wine, trials=12, epochs=6, batch=32, seed=1)
    assert [t.settings for t in other.trials] != [t.settings for t in study.trials]


def test_a_trial_learns_what_it_would_learn_alone(wine):
    """Of a program with many trials each is the training that ``fit`` would do, to rounding."""
    space = {
        "lr": dw.space.log(1e-3, 1e-1),
        "decay": dw.space.log(1e-3, 1e-1),
        "width": dw.space.integer(4, 16),
    }

    def make(width):
        return dw.Classify(dw.nn.mlp(wine.spec, (width,), activation="tanh"))

    study = dw.tune(make, space, wine, trials=6, epochs=4, batch=32)
    assert study.buckets == 1
    for trial in study.trials:
        with dw.chance.aside(dw.run.derive(0, "trial", trial.number, "seed", 0)):
            objective = make(trial.settings["width"])
        step = dw.Descent(
            objective, "AdamW", lr=trial.settings["lr"], weight_decay=trial.settings["decay"]
        )
        dw.fit(step, wine.train, batch=32, epochs=4)
        loss = step.objective.eval()((wine.validation.x, wine.validation.y))[0]
        assert float(loss.detach()) == pytest.approx(trial.value, rel=2e-3)


def test_the_winner_is_what_was_trained(wine):
    space = {**RATES, "width": dw.space.integer(4, 32, log=True)}
    study = dw.tune(maker(wine), space, wine, trials=10, epochs=5, batch=32)
    width = study.best.settings["width"]
    assert study.winner.model[0].out_features == width
    assert study.winner.model[0].weight.shape[0] == width
    loss, _ = study.winner.eval()((wine.validation.x, wine.validation.y))
    assert float(loss.detach()) == pytest.approx(study.value, rel=1e-4)


def test_settings_of_step_optimizer_and_batch(wine):
    space = {
        "optimizer": dw.space.choice("AdamW", "SGD"),
        "momentum": dw.space.choice(0.5, 0.9).when(optimizer="SGD"),
        "batch": dw.space.choice(16, 64),
        "decay": dw.space.log(1e-4, 1e-1),
        "lr": dw.space.log(1e-3, 1e-1),
    }
    study = dw.tune(maker(wine), space, wine, trials=16, epochs=2, sampler=Random())
    kinds = {
        (t.settings["optimizer"], t.settings.get("momentum"), t.settings["batch"])
        for t in study.trials
    }
    assert study.buckets == len(kinds) > 3
    assert {t.status for t in study.trials} == {"finished"}


def test_halving_and_hyperband(wine):
    study = dw.tune(maker(wine), RATES, wine, trials=27, epochs=9, batch=32, budget=Halving())
    by_epochs = {e: [t for t in study.trials if t.epochs == e] for e in (1, 3, 9)}
    assert [len(by_epochs[e]) for e in (1, 3, 9)] == [18, 6, 3]
    assert {t.status for t in by_epochs[1] + by_epochs[3]} == {"stopped"}
    assert {t.status for t in by_epochs[9]} == {"finished"}
    # those that went on were the best when they were judged
    first = {t.number: t.curve[0][1] for t in study.trials}
    went_on = max(first[t.number] for t in by_epochs[3] + by_epochs[9])
    assert went_on <= min(first[t.number] for t in by_epochs[1])
    assert study.best.epochs == 9
    whole = dw.tune(maker(wine), RATES, wine, trials=27, epochs=9, batch=32)
    assert study.value <= sorted(t.value for t in whole.trials)[9]

    study = dw.tune(maker(wine), RATES, wine, trials=20, epochs=9, batch=32, budget=Hyperband())
    assert study.buckets == 1
    assert {t.bracket for t in study.trials} == {0, 1, 2}
    assert all(t.epochs == 9 for t in study.trials if t.bracket == 0)


def test_a_paused_program_goes_on_as_if_it_had_not_stopped(wine):
    """With nothing cut away, rungs change nothing, down to the schedule and the optimizer."""

    class Keep(Halving):
        def keep(self, alive: int) -> int:
            return alive

    def hooks():
        return [dw.hooks.Schedule(dw.hooks.cosine, warmup=0.1), dw.hooks.Average(0.9)]

    # both are judged at the end alone, but for the rungs
    one = dw.tune(maker(wine), RATES, wine, trials=5, epochs=6, batch=32, hooks=hooks)
    two = dw.tune(
        maker(wine), RATES, wine, trials=5, epochs=6, batch=32, hooks=hooks, budget=Keep(2)
    )
    assert [t.value for t in one.trials] == [t.value for t in two.trials]
    assert [e for e, _ in two.trials[0].curve] == [1, 2, 4, 6]


def test_those_that_go_on_do_not_notice_that_others_left(wine):
    """Averages, schedule and optimizer of a member stay its own when the program is thinned."""

    def hooks():
        return [dw.hooks.Schedule(dw.hooks.cosine), dw.hooks.Average(0.9)]

    def make(width):
        return dw.Classify(dw.nn.mlp(wine.spec, (width,), activation="tanh"))

    space = {"lr": RATES["lr"], "width": dw.space.integer(4, 12)}
    options = {"trials": 8, "epochs": 6, "batch": 32, "hooks": hooks}
    whole = dw.tune(make, space, wine, **options)
    thinned = dw.tune(make, space, wine, **options, budget=Halving(eta=2, least=2))
    went_on = [t.number for t in thinned.trials if t.status == "finished"]
    assert went_on
    for number in went_on:
        assert thinned.trials[number].value == pytest.approx(whole.trials[number].value, rel=1e-4)


def test_seeds_are_members_too(wine):
    study = dw.tune(maker(wine), RATES, wine, trials=4, epochs=3, seeds=3, batch=32)
    assert study.buckets == 1
    for trial in study.trials:
        assert len(set(trial.values)) == 3
        assert trial.value == pytest.approx(sum(trial.values) / 3)
        assert (trial.error or 0.0) > 0


def test_a_model_in_waves(wine):
    study = dw.tune(maker(wine), RATES, wine, trials=24, epochs=4, batch=32,
                    sampler=TPE(wave=6), budget=Halving(least=2))  # fmt: skip
    assert study.buckets == 4
    assert len(study.trials) == 24


def test_grid(wine):
    space = {"lr": dw.space.log(1e-3, 1e-1), "width": dw.space.choice(4, 8)}
    study = dw.tune(maker(wine), space, wine, trials=50, epochs=1, sampler=Grid(3))
    assert len(study.trials) == 6


def test_a_score_as_the_goal(wine):
    study = dw.tune(
        maker(wine), RATES, wine, trials=8, epochs=4, batch=32, goal="accuracy", maximise=True,
        scores=lambda p, y: {"accuracy": dw.metrics.accuracy(p, y)},
    )  # fmt: skip
    assert study.value == max(t.value for t in study.trials) > 0.8


def test_population_based_training(wine):
    space = {**RATES, "width": dw.space.choice(8, 12)}
    study = dw.tune(maker(wine), space, wine, trials=24, epochs=8, batch=32, budget=Evolve(every=2))
    assert study.buckets == 2  # no padding: copies need one size
    moved = [t for t in study.trials if t.story]
    assert moved
    for trial in moved:
        for at, changed in trial.story:
            assert at in (2, 4, 6)
            assert "width" not in changed
        study.space.check(trial.settings)
    loss, _ = study.winner.eval()((wine.validation.x, wine.validation.y))
    assert float(loss.detach()) == pytest.approx(study.value, rel=1e-4)
    assert float(study.winner.model[2].rate) == pytest.approx(study.best.settings["dropout"])


def test_evolve_takes_weights_and_moves_settings(wine):
    seen = []

    class Watched(Evolve):
        def act(self, engine, bucket, rung):
            before = {k: v.clone() for k, v in bucket.step.weights().items()}
            order = sorted(range(8), key=lambda i: bucket.values[i])
            rates = bucket.step.rates.clone()
            super().act(engine, bucket, rung)
            after = {k: v.clone() for k, v in bucket.step.weights().items()}
            seen.append((order, before, rates, after, bucket.step.rates.clone()))

    dw.tune(maker(wine), RATES, wine, trials=8, epochs=4, batch=32, budget=Watched(every=2))
    order, before, rates, after, moved = seen[0]
    name = "model.0.weight"
    for loser in order[-2:]:
        sources = [w for w in order[:2] if torch.equal(after[name][loser], before[name][w])]
        assert len(sources) == 1
        factor = float(moved[loser] / rates[sources[0]])
        clipped = float(moved[loser]) in (1e-4, 1e-1)
        assert clipped or min(abs(factor - 0.8), abs(factor - 1.25)) < 1e-6
        assert not torch.equal(after["model.2.rate"][loser], before["model.2.rate"][sources[0]])
    for stays in order[:-2]:
        assert torch.equal(after[name][stays], before[name][stays])
        assert moved[stays] == rates[stays]


def test_a_trial_that_fails_does_not_end_the_search(wine):
    def make(dropout, scale):
        if dropout > 0.4:
            raise ValueError("too much")
        net = dw.nn.mlp(wine.spec, (8,), dropout=dropout)
        with torch.no_grad():
            net[0].weight.mul_(scale)
        return dw.Classify(net)

    space = {**RATES, "scale": dw.space.choice(1.0, math.inf)}
    study = dw.tune(make, space, wine, trials=16, epochs=3, batch=32)
    for trial in study.trials:
        bad = trial.settings["dropout"] > 0.4 or trial.settings["scale"] == math.inf
        assert (trial.status == "failed") == bad
        assert bool(trial.reason) == bad
        assert (trial.value is None) == bad
    assert {t.reason for t in study.trials} >= {"ValueError: too much"}
    assert any("not finite" in t.reason for t in study.trials)


class Halves(nn.Module):
    """A network with a branch on its data: nothing that vmap takes."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)

    def forward(self, x):
        z = self.layer(x)
        return 2 * z if float(z.detach().sum()) > 0 else z


def test_what_cannot_be_batched_is_trained_one_by_one(wine):
    study = dw.tune(
        lambda: dw.Classify(Halves(13, 3)), {"lr": RATES["lr"]}, wine, trials=4, epochs=2, batch=32
    )
    assert study.buckets == 4
    assert {t.status for t in study.trials} == {"finished"}


def top(width: int, dropout: float):
    data = dw.data.load("wine")
    return maker(data, activation="sigmoid")(dropout, width)


@pytest.mark.long
@pytest.mark.parametrize("budget", [Halving(least=1), Evolve(every=2)], ids=["halving", "evolve"])
def test_programs_in_processes_give_the_same(wine, budget):
    space = {**RATES, "width": dw.space.choice(4, 6, 8)}
    options = {"trials": 12, "epochs": 4, "batch": 32, "budget": budget}
    here = dw.tune(top, space, wine, **options)
    there = dw.tune(top, space, wine, processes=2, **options)
    assert here.buckets == there.buckets == 3
    assert [t.value for t in there.trials] == [t.value for t in here.trials]
    assert [t.status for t in there.trials] == [t.status for t in here.trials]
    for name, value in here.winner.state_dict().items():
        assert torch.equal(there.winner.state_dict()[name], value)


def test_refit_and_test_once(wine, tmp_path):
    space = {**RATES, "decay": dw.space.log(1e-4, 1e-1), "batch": dw.space.choice(32)}
    study = dw.tune(maker(wine), space, wine, trials=8, epochs=10)
    run = study.refit(out=tmp_path / "best")
    scores = run.test()
    assert scores["test/accuracy"] > 0.7
    best = study.best.settings
    assert run.info["optimizer"]["lr"] == best["lr"]
    assert run.info["optimizer"]["weight_decay"] == best["decay"]
    assert float(run.model[2].rate) == pytest.approx(best["dropout"])


def test_refit_decays_as_the_search_did(wine):
    """With SGD a decoupled decay is a step of its own, not a slope."""
    space = {"lr": dw.space.log(1e-2, 1e-1), "decay": dw.space.log(1e-1, 1.0)}

    def make():
        return dw.Classify(dw.nn.mlp(wine.spec, (8,), activation="tanh"))

    options = {"optimizer": "SGD", "momentum": 0.9, "batch": 32}
    study = dw.tune(make, space, wine, trials=4, epochs=4, **options)
    bare = [dw.hooks.Validate(wine.validation, restore=False)]
    run = study.refit(study.trials[0].settings, hooks=bare, out=False)
    loss, _ = run.objective.eval()((wine.validation.x, wine.validation.y))
    assert float(loss.detach()) == pytest.approx(study.trials[0].value, rel=1e-3)


def test_a_search_goes_on_without_those_that_failed(wine, tmp_path):
    """What failed before a kill, the widest network here, must not change the buckets after it."""

    def make(width):
        net = dw.nn.mlp(wine.spec, (width,))
        if width == 40:
            with torch.no_grad():
                net[0].weight.fill_(math.inf)
        return dw.Classify(net)

    space = {"lr": RATES["lr"], "width": dw.space.choice(4, 8, 40)}
    options = {"trials": 9, "epochs": 4, "batch": 32, "sampler": Random(), "budget": Halving(2)}
    whole = dw.tune(make, space, wine, **options)
    assert {t.status for t in whole.trials if t.settings["width"] == 40} == {"failed"}

    class Killed(Exception):
        pass

    kept = engine.Engine._judge

    def judge(self, wave, paths, rung):
        kept(self, wave, paths, rung)
        self._save()
        if rung == 2:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.Engine, "_judge", judge)
        with pytest.raises(Killed):
            dw.tune(make, space, wine, **options, out=tmp_path / "search")
    study = dw.tune(make, space, wine, **options, out=dw.run.Run(tmp_path / "search", resume=True))
    best = {t.number: t.value for t in whole.trials if t.status == "finished"}
    assert {t.number: t.value for t in study.trials if t.status == "finished"} == best


KILLED = """
import os, sys
import deepweave as dw
from deepweave.search import Evolve, Halving, TPE, engine
from tests.search.test_tune import maker, search
engine.SHARE = 1e9  # keep after every epoch
left = [int(sys.argv[3])]
inner = engine.Engine._save
def save(self):
    inner(self)
    left[0] -= 1
    if left[0] == 0:
        os._exit(9)
engine.Engine._save = save
search(sys.argv[1], dw.run.Run(sys.argv[2], resume=True))
"""


def search(kind: str, out):
    data = dw.data.load("wine")
    space = {**RATES, "width": dw.space.integer(4, 32, log=True)}
    options = {
        "halving": {"budget": Halving(eta=2, least=1)},
        "tpe": {"sampler": TPE(wave=4, warmup=4)},
        "evolve": {"budget": Evolve(every=2)},
    }[kind]
    if kind == "evolve":
        space.pop("width")
    return dw.tune(
        maker(data), space, data, trials=12, epochs=6, batch=64, out=out,
        hooks=lambda: [dw.hooks.Schedule(dw.hooks.cosine)], **options,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("kind", ["halving", "tpe", "evolve"])
def test_a_killed_search_goes_on_to_the_same_end(kind, tmp_path):
    whole = search(kind, None)
    for kills in (1, 4, 9):
        folder = tmp_path / str(kills)
        command = [sys.executable, "-c", KILLED, kind, str(folder), str(kills)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 9, done.stderr
        study = search(kind, dw.run.Run(folder, resume=True))
        assert json.dumps(study.to_json()["trials"]) == json.dumps(whole.to_json()["trials"])
        assert study.buckets == whole.buckets
        for name, value in whole.winner.state_dict().items():
            assert torch.equal(study.winner.state_dict()[name], value)
    again = search(kind, dw.run.Run(folder, resume=True))  # nothing is left to do
    assert [t.value for t in again.trials] == [t.value for t in whole.trials]


def test_refuses(wine, tmp_path):
    def tune(space=RATES, make=None, data=wine, **options):
        given = {"trials": 3, "epochs": 1, **options}
        return dw.tune(make or maker(wine), space, data, **given)

    cases = [
        (lambda: tune(trials=0), "tune: trials must be a whole number of at least 1, got 0"),
        (lambda: tune(epochs=1.5), "tune: epochs must be a whole number of at least 1, got 1.5"),
        (lambda: tune(processes=0), "tune: processes must be a whole number of at least 1, got 0"),
        (lambda: tune(processes=2), "the maker, hooks and scores must stand at the top"),
        (lambda: tune({}), "space: it is empty"),
        (lambda: tune(data=wine.train), "tune: data must have train and validation, got Split"),
        (lambda: tune(lr=0.1), "tune: lr is in the space and fixed"),
        (lambda: tune({"lr": RATES["lr"]}, make=lambda wide: None), "make needs 'wide'"),
        (lambda: tune({"speed": RATES["lr"]}), "takes .* got speed"),
        (lambda: tune(make=lambda dropout: wine), "tune: make must give an objective"),
        (lambda: tune(goal="f1"), "tune: goal must be one of accuracy, loss, got 'f1'"),
    ]
    for call, message in cases:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
    tune(out=tmp_path / "one")
    with pytest.raises(ValueError, match="holds a search already: give another out"):
        tune(out=tmp_path / "one")
    with pytest.raises(ValueError, match="is of another search: its epochs is 1, here it is 2"):
        tune(out=dw.run.Run(tmp_path / "one", resume=True), epochs=2)
    assert engine.SHARE == 0.02
