from __future__ import annotations

import math
import os

import pytest

from deepweave.search import TPE, Grid, Random, minimize, space

SPACE = {"x": space.uniform(-2, 2), "y": space.uniform(-2, 2)}


def bowl(s):
    return (s["x"] - 1) ** 2 + (s["y"] + 0.5) ** 2


def where(s):
    return float(os.getpid())


def test_finds_the_lowest():
    study = minimize(bowl, SPACE, trials=64)
    assert study.value < 0.1
    assert study.value == min(t.value for t in study.trials)
    assert study.history() == sorted(study.history(), reverse=True)
    assert len(study.history()) == 64
    top = minimize(lambda s: -bowl(s), SPACE, trials=64, maximise=True)
    assert top.best.settings == study.best.settings


def test_a_failed_call_is_a_failed_trial():
    def moody(s):
        if s["x"] > 0:
            raise RuntimeError("too far to the right")
        return math.nan if s["y"] > 0 else s["x"]

    study = minimize(moody, SPACE, trials=40, sampler=Random())
    states = {t.status for t in study.trials}
    assert states == {"failed", "finished"}
    reasons = {t.reason for t in study.trials if t.status == "failed"}
    assert reasons == {"RuntimeError: too far to the right", "its value is nan"}
    assert study.value == min(t.value for t in study.trials if t.status == "finished")
    everything = minimize(lambda s: math.inf, SPACE, trials=3)
    with pytest.raises(ValueError, match="no trial gave a value: its value is inf"):
        _ = everything.best


def test_waves_of_a_model():
    """Random draws come to 16 / (40 pi) = 0.13 on average."""
    best = [
        minimize(bowl, SPACE, trials=40, sampler=TPE(wave=5), seed=seed).best.value
        for seed in range(4)
    ]
    assert sum(best) / 4 < 0.06


def test_grid_tries_all_and_no_more():
    study = minimize(bowl, SPACE, trials=50, sampler=Grid(points=5))
    assert len(study.trials) == 25
    assert study.best.settings == {"x": 1.0, "y": 0.0} or study.value == 0.25


@pytest.mark.long
def test_processes():
    study = minimize(where, SPACE, trials=8, processes=2)
    assert os.getpid() not in {t.value for t in study.trials}
    same = minimize(bowl, SPACE, trials=8, processes=2)
    assert [t.value for t in same.trials] == [
        t.value for t in minimize(bowl, SPACE, trials=8).trials
    ]


def test_refuses():
    with pytest.raises(ValueError, match="must stand at the top of a module"):
        minimize(lambda s: 0.0, SPACE, trials=2, processes=2)
    with pytest.raises(ValueError, match="trials and processes must be at least 1, got 0 and 1"):
        minimize(bowl, SPACE, trials=0)


def test_importance_finds_what_matters():
    four = {name: space.uniform(0, 1) for name in ("strong", "weak", "idle")}
    study = minimize(lambda s: 5 * s["strong"] + s["weak"], four, trials=80, sampler=Random())
    found = study.importance(repeats=10)
    assert next(iter(found)) == "strong"
    share, low, high = found["strong"]
    assert low <= share <= high
    assert share > 0.7
    assert found["idle"][0] < 0.05
    assert sum(share for share, _, _ in found.values()) == pytest.approx(1)
    with pytest.raises(ValueError, match="importance: needs at least 8 trials with a value, got 4"):
        minimize(bowl, SPACE, trials=4).importance()
