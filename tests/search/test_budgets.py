from __future__ import annotations

import pytest

from deepweave.search import Evolve, Halving, Hyperband, Whole
from deepweave.search.budgets import ladder


def test_whole():
    assert {path.rungs for path in Whole().paths(5, 20)} == {(20,)}


def test_halving():
    paths = Halving(eta=3, least=1).paths(27, 9)
    assert {path.rungs for path in paths} == {(1, 3, 9)}
    assert [Halving(eta=3).keep(n) for n in (27, 9, 3, 2, 1)] == [9, 3, 1, 1, 1]
    assert Halving(eta=2.5).keep(10) == 4
    assert ladder(4, 2, 20) == (4, 8, 16, 20)
    assert ladder(30, 2, 20) == (20,)


def test_hyperband_has_the_shares_of_the_paper():
    """R = 81, eta = 3: brackets of 81, 34, 15, 8, 5 (Li et al., table 1), up to rounding."""
    paths = Hyperband(eta=3).paths(143, 81)
    counts = [sum(path.bracket == s for path in paths) for s in (4, 3, 2, 1, 0)]
    exact = [143 * w / sum((81 / 5, 27 / 4, 9 / 3, 3 / 2, 1)) for w in (81 / 5, 27 / 4, 3, 1.5, 1)]
    assert sum(counts) == 143
    assert all(abs(a - b) < 1 for a, b in zip(counts, exact))
    assert {path.rungs for path in paths if path.bracket == 4} == {(1, 3, 9, 27, 81)}
    assert {path.rungs for path in paths if path.bracket == 0} == {(81,)}


def test_evolve_judges_every_so_often():
    assert {path.rungs for path in Evolve(every=3).paths(4, 10)} == {(3, 6, 9, 10)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Halving(eta=1), "Halving: eta must be above 1, got 1"),
        (lambda: Hyperband(least=0), "Hyperband: least must be at least 1 epoch, got 0"),
        (lambda: Evolve(every=0), "Evolve: every must be at least 1 epoch, got 0"),
        (lambda: Evolve(share=0.6), r"Evolve: share must lie in \(0, 0.5\], got 0.6"),
        (lambda: Evolve(factors=()), "Evolve: factors must be above 0"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()
