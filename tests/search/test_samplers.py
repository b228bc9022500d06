from __future__ import annotations

import sys

import pytest

from deepweave.search import TPE, GaussianProcess, Grid, Random, Sobol, Space, space
from deepweave.search.samplers import Told

SPACE = Space(
    {
        "lr": space.log(1e-4, 1e-1),
        "width": space.integer(4, 64, log=True),
        "kind": space.choice("a", ("b", 1), None),
        "extra": space.uniform(0, 1).when(kind="a"),
    }
)
SAMPLERS = [Random(), Sobol(), TPE(), GaussianProcess()]


def history(count: int, sampler=None) -> list[Told]:
    told: list[Told] = []
    for i, one in enumerate((sampler or Random()).propose(SPACE, count, [], 3)):
        value = None if i == 3 else abs(one["lr"] - 0.01) + one["width"] / 100
        told.append(Told(one, value, complete=i % 4 != 1, epochs=3 if i % 4 == 1 else 9))
    return told


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_proposals_lie_in_the_space_and_repeat(sampler):
    told = history(12)
    many = sampler.propose(SPACE, 5, told, 7)
    assert len(many) == 5
    for one in many:
        SPACE.check(one)
    assert sampler.propose(SPACE, 5, told, 7) == many
    assert sampler.propose(SPACE, 5, told, 8) != many
    assert sampler.check(SPACE, 20) == 20


@pytest.mark.parametrize("sampler", [Random(), Sobol()], ids=lambda s: type(s).__name__)
def test_waves_do_not_change_what_is_drawn(sampler):
    whole = sampler.propose(SPACE, 12, [], 1)
    told = [Told(one, 0.0) for one in whole[:5]]
    assert sampler.propose(SPACE, 7, told, 1) == whole[5:]


def test_sobol_leaves_fewer_gaps_than_random():
    flat = Space({"x": space.uniform(0, 1), "y": space.uniform(0, 1)})

    def empty(sampler) -> int:
        cells = {(int(4 * s["x"]), int(4 * s["y"])) for s in sampler.propose(flat, 32, [], 0)}
        return 16 - len(cells)

    assert empty(Sobol()) == 0
    assert empty(Random()) > 0


def test_tpe_learns_where_it_is_good():
    flat = Space({"x": space.uniform(0, 1), "y": space.uniform(0, 1)})
    told = [Told(s, (s["x"] - 0.2) ** 2) for s in Random().propose(flat, 40, [], 0)]
    near = [abs(s["x"] - 0.2) for s in TPE(wave=10).propose(flat, 10, told, 0)]
    assert sum(near) / 10 < 0.12


def test_grid():
    grid = Grid(points=3)
    assert grid.check(SPACE, 100) == 3 * 3 * (3 + 2)  # extra has 3 values beside "a", else none
    many = grid.propose(SPACE, 45, [], 0)
    assert len(many) == 45
    assert all(many[i] not in many[:i] for i in range(45))
    assert grid.propose(SPACE, 5, [Told(one, 0.0) for one in many[:40]], 0) == many[40:]
    with pytest.raises(ValueError, match="Grid: 45 combinations do not fit into 44 trials"):
        grid.check(SPACE, 44)
    with pytest.raises(ValueError, match="Grid: points must be at least 1, got 0"):
        Grid(points=0).check(SPACE, 44)
    with pytest.raises(ValueError, match="combinations: take fewer points"):
        Grid(points=50).check(SPACE, 10**9)


def test_a_wave_must_be_positive():
    with pytest.raises(ValueError, match="TPE: wave must be at least 1, got 0"):
        TPE(wave=0).check(SPACE, 9)


def test_without_optuna_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'TPE: needs optuna: pip install "deepweave\[tune\]"'):
        TPE().check(SPACE, 9)
