"""What must hold for any data: invariances, bounds, weights as repetition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st

from deepweave import metrics

CALM = settings(max_examples=40, deadline=None, derandomize=True)

scores = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(0, 4)), min_size=4, max_size=40
)


def split(rows):
    p = torch.tensor([r[0] for r in rows]).double() / 12
    return p, torch.tensor([r[1] for r in rows]), torch.tensor([r[2] for r in rows])


def equal(a, b):
    assert float(a) == pytest.approx(float(b), abs=1e-12, nan_ok=True)
    for x, y in ((a.low, b.low), (a.high, b.high)):
        assert x == pytest.approx(y, abs=1e-9, nan_ok=True)


BINARY = (
    metrics.accuracy,
    metrics.precision,
    metrics.recall,
    metrics.specificity,
    metrics.f1,
    metrics.jaccard,
    metrics.balanced_accuracy,
    metrics.mcc,
    metrics.kappa,
    metrics.auc,
    metrics.average_precision,
    metrics.log_loss,
    metrics.brier,
    metrics.ece,
)


@CALM
@given(scores, st.randoms(use_true_random=False))
def test_order_of_the_samples_does_not_matter(rows, random):
    p, y, _ = split(rows)
    shuffled = list(rows)
    random.shuffle(shuffled)
    q, z, _ = split(shuffled)
    for metric in BINARY:
        equal(metric(p, y), metric(q, z))


@CALM
@given(scores)
def test_weights_are_repetition(rows):
    p, y, w = split(rows)
    if int(w.sum()) == 0:
        return
    many_p, many_y = p.repeat_interleave(w), y.repeat_interleave(w)
    for metric in BINARY:
        a, b = metric(p, y, weight=w), metric(many_p, many_y)
        assert float(a) == pytest.approx(float(b), abs=1e-9, nan_ok=True), metric.__name__
    a, b = metrics.r2(p, y, weight=w), metrics.r2(many_p, many_y)
    if len(p) > 1 and len(many_p) > 1:
        assert float(a) == pytest.approx(float(b), abs=1e-9)


@CALM
@given(scores)
def test_the_value_lies_in_its_interval_and_in_its_range(rows):
    p, y, w = split(rows)
    for weight in (None, w + 0.5):
        for metric in BINARY:
            s = metric(p, y, weight=weight)
            if math.isnan(s):
                continue
            assert s.low <= s <= s.high
            assert s.low >= (-1 if metric in (metrics.mcc, metrics.kappa) else 0)
            if metric not in (metrics.log_loss, metrics.brier):
                assert s.high <= 1


@CALM
@given(scores)
def test_ranking_sees_only_the_order(rows):
    p, y, w = split(rows)
    weight = w + 0.25
    for metric in (metrics.auc, metrics.average_precision):
        want, heavy = metric(p, y), metric(p, y, weight=weight)
        for q in (p * 7 - 3, p**3, p.exp(), (p - 2).float(), -1 / (1 + p), p.half()):
            equal(metric(q, y), want)
            equal(metric(q, y, weight=weight), heavy)


@CALM
@given(scores)
def test_auc_turns_round_with_the_labels(rows):
    p, y, _ = split(rows)
    a, b = metrics.auc(p, y), metrics.auc(p, 1 - y)
    if not math.isnan(a):
        assert a + b == pytest.approx(1)
        assert (a.low, a.high) == pytest.approx((1 - b.high, 1 - b.low))


@CALM
@given(scores, st.integers(2, 30))
def test_batches_of_any_size_give_the_whole(rows, size):
    p, y, w = split(rows)
    whole = metrics.evaluate("binary", p, y, weight=w + 1)
    stream = metrics.Stream("binary")
    for i in range(0, len(p), size):
        stream.update(p[i : i + size], y[i : i + size], w[i : i + size] + 1)
    for key, score in stream.result().items():
        assert float(score) == pytest.approx(float(whole[key]), abs=1e-12, nan_ok=True)


@CALM
@given(
    st.integers(2, 6).flatmap(
        lambda k: st.lists(
            st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=3, max_size=50
        ).map(lambda rows: (k, rows))
    ),
    st.randoms(use_true_random=False),
)
def test_names_of_the_classes_do_not_matter(case, random):
    k, rows = case
    names = list(range(k))
    random.shuffle(names)
    p, y = (torch.tensor(x) for x in zip(*rows))
    swap = torch.tensor(names)
    for metric in (metrics.accuracy, metrics.mcc, metrics.kappa, metrics.balanced_accuracy):
        equal(metric(p, y, classes=k), metric(swap[p], swap[y], classes=k))
    for average in ("macro", "weighted", "micro"):
        a = metrics.f1(p, y, average=average, classes=k)
        equal(a, metrics.f1(swap[p], swap[y], average=average, classes=k))
    micro = metrics.f1(p, y, average="micro", classes=k)
    assert micro == pytest.approx(metrics.accuracy(p, y, classes=k))


def test_minus_zero_is_zero():
    p = torch.tensor([-0.0, 0.0, 0.5, -0.5])
    for s in (p, p.double()):
        assert metrics.auc(s, torch.tensor([0, 1, 1, 0])) == 0.875
        assert metrics.auc(s, torch.tensor([0, 1, 1, 0]), weight=torch.ones(4)) == 0.875
    p = torch.tensor([-0.0, 0.0, 0.5, 0.5])
    assert metrics.auc(p, torch.tensor([0, 1, 1, 0])) == 0.5


def test_subnormal_and_huge_scores_keep_their_order():
    for p in (
        torch.tensor([0.0, 1e-45, 1e-40, 3e38]),
        torch.tensor([-3e38, -1e-45, 0.0, 1e-45]),
        torch.tensor([0.0, 5e-324, 1e-310, 1.7e308], dtype=torch.float64),
        torch.tensor([-math.inf, -5e-324, 0.0, math.inf], dtype=torch.float64),
    ):
        y = torch.tensor([0, 0, 1, 1])
        assert metrics.auc(p, y) == 1.0
        assert metrics.auc(p, y, weight=torch.ones(4)) == 1.0
        assert metrics.roc(p, y).threshold[1:].tolist() == p.double().flip(0).tolist()
