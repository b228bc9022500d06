"""Every value equals scikit-learn's to 1e-12: ties, single classes, empty predictions, weights."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics as sk
import torch

from deepweave import metrics

N = 300


def draw(seed: int, classes: int, kind: str):
    """Probabilities, targets and weights with the awkward cases that ``kind`` names."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), N)
    if kind == "ties":
        p = np.round(p * 4 + rng.random((N, classes)) * 1e-9) / 4 + 1e-3
        p /= p.sum(1, keepdims=True)
        p = np.round(p, 2)
        p[:, 0] = 1 - p[:, 1:].sum(1)
        p = np.clip(p, 0, 1)
    y = np.array([rng.choice(classes, p=0.5 * row / row.sum() + 0.5 / classes) for row in p])
    if kind == "unsaid":  # the last class is never said
        p[:, -1] *= 1e-3
        p /= p.sum(1, keepdims=True)
    if kind == "absent":  # the last class is in neither
        y[y == classes - 1] = 0
        p[:, -1] = 0
        p /= p.sum(1, keepdims=True)
    if kind == "single":
        y[:] = 0
    w = rng.random(N) * 3
    if kind == "zero weights":
        w[rng.random(N) < 0.3] = 0.0
    return p, y, w


CASES = [
    (classes, kind, weighted)
    for classes in (2, 3, 7)
    for kind in ("plain", "ties", "unsaid", "absent", "single", "zero weights")
    for weighted in (False, True)
]


def quiet(function, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **options)


def near(ours, theirs):
    assert float(ours) == pytest.approx(float(theirs), abs=1e-12, rel=1e-12, nan_ok=True)


@pytest.mark.parametrize(("classes", "kind", "weighted"), CASES)
def test_rates(classes, kind, weighted):
    p, y, w = draw(1, classes, kind)
    w = w if weighted else None
    said = p.argmax(1)
    ours = {"weight": w, "classes": classes}
    near(metrics.accuracy(p, y, weight=w), sk.accuracy_score(y, said, sample_weight=w))
    near(metrics.accuracy(said, y, **ours), sk.accuracy_score(y, said, sample_weight=w))
    theirs = {"sample_weight": w, "zero_division": 0}
    pairs = [
        (metrics.precision, sk.precision_score, {}),
        (metrics.recall, sk.recall_score, {}),
        (metrics.f1, sk.f1_score, {}),
        (metrics.dice, sk.f1_score, {}),
        (metrics.jaccard, sk.jaccard_score, {}),
        (metrics.fbeta, sk.fbeta_score, {"beta": 2.5}),
    ]
    for mine, other, extra in pairs:
        for average in ("micro", "macro", "weighted"):
            want = quiet(other, y, said, average=average, **theirs, **extra)
            near(mine(p, y, average=average, weight=w, **extra), want)
            near(mine(said, y, average=average, **ours, **extra), want)
        each = quiet(other, y, said, average=None, labels=range(classes), **theirs, **extra)
        if mine is not metrics.fbeta:
            for a, b in zip(metrics.per_class(mine, p, y, weight=w), each, strict=True):
                near(a, b)
        if classes == 2:
            near(mine(p[:, 1], y, weight=w, **extra), each[1])
            near(mine(p, y, weight=w, **extra), each[1])
    if classes == 2:
        want = quiet(sk.recall_score, y, said, pos_label=0, **theirs)
        near(metrics.specificity(p, y, weight=w), want)
    near(
        metrics.balanced_accuracy(p, y, weight=w),
        quiet(sk.balanced_accuracy_score, y, said, sample_weight=w),
    )
    near(metrics.mcc(p, y, weight=w), quiet(sk.matthews_corrcoef, y, said, sample_weight=w))
    for power, name in enumerate((None, "linear", "quadratic")):
        want = quiet(
            sk.cohen_kappa_score, y, said, weights=name, sample_weight=w, labels=range(classes)
        )
        near(metrics.kappa(p, y, power=power, weight=w), 0.0 if math.isnan(want) else want)
    table = sk.confusion_matrix(y, said, sample_weight=w, labels=range(classes))
    assert np.allclose(metrics.confusion_matrix(p, y, weight=w).numpy(), table, 1e-12, 1e-12)


@pytest.mark.parametrize("empty", [0.0, 1.0, math.nan])
def test_zero_division_is_what_is_asked_for(empty):
    said, y = np.array([0, 0, 1, 1, 0]), np.array([0, 2, 1, 2, 0])
    for mine, other in [(metrics.precision, sk.precision_score), (metrics.f1, sk.f1_score)]:
        for average in ("macro", "weighted"):
            want = quiet(other, y, said, average=average, zero_division=empty)
            near(mine(said, y, average=average, empty=empty), want)
    near(metrics.precision([0, 0], [0, 1], empty=empty), empty)
    assert metrics.precision([0, 0], [0, 1]).low == 0.0
    assert metrics.precision([0, 0], [0, 1]).high == 1.0


@pytest.mark.parametrize(("classes", "kind", "weighted"), CASES)
def test_probabilities(classes, kind, weighted):
    p, y, w = draw(2, classes, kind)
    w = w if weighted else None
    labels = list(range(classes))
    p[0], p[1] = np.eye(classes)[y[0]], np.eye(classes)[(y[1] + 1) % classes]  # sure: right, wrong
    near(metrics.log_loss(p, y, weight=w), sk.log_loss(y, p, sample_weight=w, labels=labels))
    if classes == 2:
        near(
            metrics.log_loss(p[:, 1], y, weight=w),
            sk.log_loss(y, p[:, 1], sample_weight=w, labels=labels),
        )
        want = sk.brier_score_loss(y, p[:, 1], sample_weight=w, labels=labels)
        near(metrics.brier(p[:, 1], y, weight=w), want)
    else:
        want = sk.brier_score_loss(y, p, sample_weight=w, labels=labels)
        near(metrics.brier(p, y, weight=w), want)
        for k in (1, 2, classes - 1):
            want = quiet(sk.top_k_accuracy_score, y, p, k=k, sample_weight=w, labels=labels)
            near(metrics.top_k(p, y, k=k, weight=w), want)


@pytest.mark.parametrize(("classes", "kind", "weighted"), CASES)
def test_ranking(classes, kind, weighted):
    p, y, w = draw(3, classes, kind)
    w = w if weighted else None
    if classes == 2:
        s = p[:, 1]
        for scores in (s, s - 0.5, s.astype(np.float32), s.astype(np.float32) - np.float32(0.5)):
            want = quiet(sk.roc_auc_score, y, scores, sample_weight=w)
            near(metrics.auc(scores, y, weight=w), want)
            near(metrics.auc(scores, y, weight=w, confidence=None), want)
            want = quiet(sk.average_precision_score, y, scores, sample_weight=w)
            near(metrics.average_precision(scores, y, weight=w), want)
            near(metrics.average_precision(scores, y, weight=w, confidence=None), want)
        if kind == "zero weights" and weighted:
            return  # scikit-learn leaves out the points of samples that weigh nothing
        theirs = quiet(sk.roc_curve, y, s, sample_weight=w, drop_intermediate=False)
        for a, b in zip(metrics.roc(s, y, weight=w), theirs):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-12, atol=1e-12)
        precision, recall, threshold = quiet(sk.precision_recall_curve, y, s, sample_weight=w)
        mine = metrics.precision_recall(s, y, weight=w)
        np.testing.assert_allclose(mine.x.numpy(), recall, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(mine.y.numpy(), precision, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(mine.threshold[:-1].numpy(), threshold)
        return
    if kind == "single" or (kind == "absent" and classes < 3):
        assert math.isnan(metrics.auc(p, y, weight=w, average="weighted"))
    elif kind == "absent":  # scikit-learn: NaN; ours: the mean over the classes that occur
        onehot, here = np.eye(classes)[y], range(classes - 1)
        each = [sk.roc_auc_score(onehot[:, k], p[:, k], sample_weight=w) for k in here]
        near(metrics.auc(p, y, weight=w), np.mean(each))
    else:
        for average in ("macro", "weighted", "micro"):
            want = sk.roc_auc_score(
                y, p, multi_class="ovr", average=average, sample_weight=w, labels=range(classes)
            )
            near(metrics.auc(p, y, average=average, weight=w), want)
            near(metrics.auc(p, y, average=average, weight=w, confidence=None), want)
        if not weighted:
            for average in ("macro", "weighted"):
                want = sk.roc_auc_score(y, p, multi_class="ovo", average=average)
                near(metrics.auc(p, y, average=average, versus="one"), want)
    for average in ("macro", "weighted", "micro"):
        onehot = np.eye(classes)[y]
        want = quiet(sk.average_precision_score, onehot, p, average=average, sample_weight=w)
        near(metrics.average_precision(p, y, average=average, weight=w), want)


@pytest.mark.parametrize("weighted", [False, True])
def test_labels(weighted):
    rng = np.random.default_rng(4)
    p = np.round(rng.random((N, 5)), 2)
    y = (rng.random((N, 5)) < 0.2 + 0.6 * p).astype(int)
    p[:, 4] *= 0.5  # never said
    w = rng.random(N) if weighted else None
    said = (p > 0.5).astype(int)
    target = torch.tensor(y, dtype=torch.float32)
    near(metrics.accuracy(p, target, weight=w), sk.accuracy_score(y, said, sample_weight=w))
    near(metrics.hamming(p, target, weight=w), sk.hamming_loss(y, said, sample_weight=w))
    for mine, other in [
        (metrics.precision, sk.precision_score),
        (metrics.recall, sk.recall_score),
        (metrics.f1, sk.f1_score),
        (metrics.jaccard, sk.jaccard_score),
    ]:
        for average in ("micro", "macro", "weighted"):
            want = quiet(other, y, said, average=average, sample_weight=w, zero_division=0)
            near(mine(p, target, average=average, weight=w), want)
            near(mine(said, target, average=average, weight=w), want)
    for average in ("micro", "macro", "weighted"):
        want = sk.roc_auc_score(y, p, average=average, sample_weight=w)
        near(metrics.auc(p, target, average=average, weight=w), want)
        want = sk.average_precision_score(y, p, average=average, sample_weight=w)
        near(metrics.average_precision(p, target, average=average, weight=w), want)
    each = [sk.log_loss(y[:, k], p[:, k], sample_weight=w) for k in range(5)]
    near(metrics.log_loss(p, target, weight=w), np.mean(each))
    each = [sk.brier_score_loss(y[:, k], p[:, k], sample_weight=w) for k in range(5)]
    near(metrics.brier(p, target, weight=w), np.mean(each))


@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_regression(targets, weighted, offset):
    rng = np.random.default_rng(5)
    y = rng.normal(size=(N, targets)) + offset
    p = y + rng.normal(size=(N, targets))
    if targets == 1:
        y, p = y[:, 0], p[:, 0]
    w = rng.random(N) if weighted else None
    for mine, other in [
        (metrics.mse, sk.mean_squared_error),
        (metrics.rmse, sk.root_mean_squared_error),
        (metrics.mae, sk.mean_absolute_error),
        (metrics.mape, sk.mean_absolute_percentage_error),
        (metrics.r2, sk.r2_score),
    ]:
        want = other(y, p, sample_weight=w)
        near(mine(p, y, weight=w), want)
        near(mine(p, y, weight=w, confidence=None), want)


def test_constant_regression_target():
    near(metrics.r2([1.0, 1.0], [1.0, 1.0]), sk.r2_score([1.0, 1.0], [1.0, 1.0]))
    near(metrics.r2([1.0, 2.0], [1.1, 1.1]), sk.r2_score([1.1, 1.1], [1.0, 2.0]))
    one = metrics.r2([1.0], [1.0])
    assert math.isnan(one)
    assert one.to_json()["value"] is None


def test_undefined_areas_are_stated():
    one = metrics.auc([0.1, 0.9], [1, 1])
    assert math.isnan(one)
    assert (one.low, one.high, one.method) == (0.0, 1.0, "undefined")
    assert metrics.average_precision([0.1, 0.9], [0, 0]) == 0.0
    absent = metrics.auc([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2]], [0, 1])  # class 2 left out
    assert absent == 1.0


def test_top_one_and_accuracy_part_on_ties_as_documented():
    p, y = [[0.5, 0.5]], [0]
    assert metrics.accuracy(p, y) == 1.0
    assert metrics.top_k(p, y, k=1) == 0.0


def test_float32_is_summed_exactly():
    p = torch.full((3_000_000,), 0.1)
    y = torch.zeros(3_000_000)
    want = float(p[0].double())
    near(metrics.mae(p, y, confidence=None), want)
    ones = torch.ones(20_000_000, dtype=torch.uint8)
    assert metrics.confusion_matrix(ones, ones)[1, 1] == 20_000_000  # beyond 2^24


def test_ece_by_hand_and_by_bins():
    rng = np.random.default_rng(6)
    p = rng.dirichlet(np.ones(4), 500)
    y = rng.integers(0, 4, 500)
    w = rng.random(500)
    sure, hit = p.max(1), p.argmax(1) == y
    place = np.ceil(sure * 15).astype(int) - 1
    gaps = [np.abs((w * (sure - hit))[place == b].sum()) for b in range(15)]
    near(metrics.ece(p, y, weight=w), np.sum(gaps) / w.sum())
    diagram = metrics.reliability(p, y, weight=w)
    for b in (6, 9):
        near(diagram.frequency[b], np.average(hit[place == b], weights=w[place == b]))
        near(diagram.confidence[b], np.average(sure[place == b], weights=w[place == b]))
        assert diagram.low[b] < diagram.frequency[b] < diagram.high[b]
    assert diagram.confidence[0].isnan()
    edge = metrics.reliability([0.0, 0.5, 0.5, 1.0], [0, 1, 0, 1], bins=2)  # (low, high]
    assert edge.weight.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("classes", [1, 4])
def test_segmentation_counts_pixels(classes):
    rng = np.random.default_rng(7)
    if classes == 1:
        p = rng.random((6, 5, 4))
        y = (rng.random((6, 5, 4)) < p).astype(int)
        said = p > 0.5
    else:
        p = np.moveaxis(rng.dirichlet(np.ones(4), (6, 5, 4)), -1, 1)
        y = rng.integers(0, 4, (6, 5, 4))
        said = p.argmax(1)
    average = "binary" if classes == 1 else "macro"
    for w in (None, rng.random(6)):
        pixel = None if w is None else np.repeat(w, 20)
        truth, guess = y.ravel(), said.ravel()
        want = sk.jaccard_score(truth, guess, average=average, sample_weight=pixel)
        near(metrics.jaccard(p, y, weight=w), want)
        near(
            metrics.dice(p, y, weight=w),
            sk.f1_score(truth, guess, average=average, sample_weight=pixel),
        )
        flat = p.ravel() if classes == 1 else np.moveaxis(p, 1, -1).reshape(-1, 4)
        near(metrics.log_loss(p, y, weight=w), sk.log_loss(truth, flat, sample_weight=pixel))
    mask = (rng.random(y.shape) < 0.5).astype(float)
    want = sk.accuracy_score(truth, guess, sample_weight=mask.ravel())
    near(metrics.accuracy(p, y, weight=mask), want)
