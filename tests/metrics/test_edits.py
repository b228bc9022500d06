"""Edits and shared runs of characters, against slow definitions and values worked out by hand."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings, strategies as st

from deepweave.metrics import chrf, edit_distance, error_rate

words = st.lists(st.text("abc", max_size=7), min_size=1, max_size=6)


def slow(a, b):
    @cache
    def d(i, j):
        if not i or not j:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


@given(words, st.randoms())
@settings(max_examples=60, deadline=None)
def test_distances_are_those_of_the_recursion(said, random):
    true = list(said)
    random.shuffle(true)
    found = edit_distance(said, true)
    assert found.tolist() == [slow(a, b) for a, b in zip(said, true)]
    assert torch.equal(found, edit_distance(true, said))


def test_tokens_may_be_anything_that_compares():
    assert edit_distance([["AH", "B"]], [["AH", "N", "B"]]).tolist() == [1]
    assert edit_distance([], []).shape == (0,)


def test_the_error_rate_weighs_texts_by_their_length():
    score = error_rate([["a"], ["b"] * 9], [["x"], ["b"] * 9])
    assert float(score) == pytest.approx(1 / 10)
    assert score.low <= score <= score.high
    assert float(error_rate(["aaaa"], ["a"])) == 3.0  # more is said than is true


def test_chrf_by_hand():
    # one character: a and b of 3 are met both ways; two: ab of 2. P = R = (2/3 + 1/2) / 2
    assert float(chrf(["abx"], ["aby"], order=2)) == pytest.approx(7 / 12)
    # P = 1, R = 1/2 of runs of one: F = 5 P R / (4 P + R)
    assert float(chrf(["ab"], ["abcd"], order=1)) == pytest.approx(5 * 0.5 / 4.5)
    assert float(chrf(["ab"], ["abcd"], order=1, beta=1)) == pytest.approx(2 / 3)
    # a run counts as often as both have it
    assert float(chrf(["aaa"], ["ab"], order=1)) == pytest.approx(5 / 6 / (4 / 3 + 1 / 2))
    assert float(chrf(["xyz"], ["abc"])) == 0.0
    assert float(chrf(["a b c"], ["abc"])) == 1.0


def test_chrf_is_sacrebleus():
    """Values of sacrebleu 2.6.0, CHRF().corpus_score and beta=1, word_order=0."""
    said = ["the cat sat on the mat", "y fué la tarde", "ab"]
    true = ["the cat is on a mat", "y fué la tarde y la mañana", "abc"]
    assert 100 * float(chrf(said, true)) == pytest.approx(WANTED[0], abs=1e-6)
    assert 100 * float(chrf(said, true, beta=1)) == pytest.approx(WANTED[1], abs=1e-6)


WANTED = (47.778942260, 51.220895499)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: edit_distance(["a"], []), "as many texts, got 1 and 0"),
        (lambda: error_rate(["a"], [""]), "no true token"),
        (lambda: chrf(["a"], ["a", "b"]), "as many texts, got 1 and 2"),
        (lambda: chrf([], []), "as many texts"),
        (lambda: chrf(["a"], ["a"], order=0), "order must be at least 1"),
    ],
)
def test_refusals(act, said):
    with pytest.raises(ValueError, match=said):
        act()
