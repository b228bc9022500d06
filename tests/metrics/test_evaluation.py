"""The standard tables, the baseline, the paired difference, and the score itself."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from deepweave import metrics
from deepweave.metrics import Difference, Score


def draw(n: int = 200, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    y = (torch.rand(n, generator=g) < 0.4).long()
    a = (1.2 * y + torch.randn(n, generator=g).double() - 0.5).sigmoid()
    b = (0.4 * y + 0.5 * a.logit() + torch.randn(n, generator=g).double()).sigmoid()
    return a, b, y


def test_evaluate_equals_the_metrics_one_by_one():
    a, _, y = draw()
    table = metrics.evaluate("binary", a, y)
    for key, score in table.items():
        alone = getattr(metrics, key)(a, y)
        assert (score, score.low, score.high, score.method) == pytest.approx(
            (alone, alone.low, alone.high, alone.method)
        )
    p = torch.rand(90, 8).softmax(1)
    table = metrics.evaluate("multiclass", p, torch.arange(90) % 8)
    assert {"accuracy", "f1_macro", "auc", "log_loss", "ece", "top_5"} <= table.keys()
    plain = metrics.evaluate("multiclass", p, torch.arange(90) % 8, confidence=None)
    assert all(math.isnan(s.low) and s == table[k] for k, s in plain.items())


def test_segmentation_of_two_and_more_classes():
    p, y = torch.rand(5, 6, 6), torch.randint(2, (5, 6, 6))
    table = metrics.evaluate("segmentation", p, y)
    assert table["dice"] == pytest.approx(metrics.dice(p, y))
    p, y = torch.rand(5, 3, 6, 6).softmax(1), torch.randint(3, (5, 6, 6))
    table = metrics.evaluate("segmentation", p, y)
    assert table["jaccard_macro"] == pytest.approx(metrics.jaccard(p, y))
    assert table.keys() == metrics.baseline("segmentation", y, y).keys()


def test_baseline_is_the_constant_of_train():
    table = metrics.baseline("binary", [0, 0, 0, 1], [0, 0, 1, 1, 1])
    assert table["accuracy"] == 0.4
    assert table["auc"] == 0.5
    assert table["log_loss"] == pytest.approx(-(2 * math.log(0.75) + 3 * math.log(0.25)) / 5)
    table = metrics.baseline("multiclass", [0, 1, 1, 2], [1, 2, 1, 0])
    assert table["accuracy"] == 0.5
    table = metrics.baseline("multiclass", [0, 1, 1, 1], [1, 2, 1, 0])  # 2 unseen in train
    assert table["accuracy"] == 0.5
    assert metrics.baseline("multiclass", [0, 0], [0, 1], classes=4)["accuracy"] == 0.5
    table = metrics.baseline("multilabel", torch.tensor([[1.0, 0], [1, 0], [1, 1]]), torch.eye(2))
    assert table["hamming"] == 0.5
    table = metrics.baseline("regression", [1.0, 2.0, 3.0], [2.0, 4.0])
    assert (table["mae"], table["r2"]) == (1.0, -1.0)
    table = metrics.baseline("regression", [1.0, 3.0], [2.0, 4.0], weight=[3.0, 1.0])
    assert table["mae"] == 1.5
    two = metrics.baseline("regression", torch.ones(3, 2), torch.zeros(4, 2))
    assert two["rmse"] == 1.0


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression"])
def test_baseline_has_the_keys_of_evaluate(task):
    y = {
        "binary": torch.arange(12) % 2,
        "multiclass": torch.arange(12) % 3,
        "multilabel": torch.rand(12, 3).round(),
        "regression": torch.rand(12),
    }[task]
    p = torch.rand(12, 3).softmax(1) if task.startswith("multi") else torch.rand(12)
    assert metrics.baseline(task, y, y).keys() == metrics.evaluate(task, p, y).keys()


def test_difference_of_accuracy_is_mcnemar():
    a, b, y = draw()
    right = [((p > 0.5).long() == y).numpy() for p in (a, b)]
    one, two = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    d = metrics.difference(metrics.accuracy, a, b, y)
    assert d == pytest.approx((one - two) / 200)
    assert d.p == pytest.approx(stats.binomtest(one, one + two).pvalue)
    assert d.low < d < d.high


def test_difference_of_auc_is_delong():
    a, b, y = draw()
    parts = []
    for s in (a, b):
        x, z = s[y == 1], s[y == 0]
        wins = (x[:, None] > z).double().numpy()
        parts.append((wins.mean(), wins.mean(1), wins.mean(0)))
    gap = parts[0][0] - parts[1][0]
    up, down = (np.var(parts[0][i] - parts[1][i], ddof=1) for i in (1, 2))
    spread = math.sqrt(up / int(y.sum()) + down / int((1 - y).sum()))
    d = metrics.difference(metrics.auc, a, b, y)
    assert d == pytest.approx(gap)
    assert (d.high - d.low) / 2 == pytest.approx(1.959964 * spread, rel=5e-3)
    assert d.p == pytest.approx(2 * stats.norm.sf(abs(gap) / spread), rel=5e-2)


NAMES = [
    *("accuracy", "precision", "recall", "specificity", "f1", "jaccard", "dice", "hamming"),
    *("balanced_accuracy", "mcc", "kappa", "auc", "average_precision", "log_loss", "brier"),
    *("mse", "rmse", "mae", "mape", "r2"),
]


@pytest.mark.parametrize("name", NAMES)
def test_difference_of_every_metric(name):
    metric = getattr(metrics, name)
    a, b, y = draw()
    target = y + 1.0 if name in ("mse", "rmse", "mae", "mape", "r2") else y
    for weight in (None, torch.rand(200).double()):
        d = metrics.difference(metric, a, b, target, weight=weight)
        want = metric(a, target, weight=weight) - metric(b, target, weight=weight)
        assert d == pytest.approx(want, abs=1e-9)
        assert d.low <= d <= d.high
        assert 0 <= d.p <= 1
        none = metrics.difference(metric, a, a, target, weight=weight)
        assert (none, none.p) == (0.0, 1.0)
        back = metrics.difference(metric, b, a, target, weight=weight)
        assert (back, back.low, back.p) == pytest.approx((-d, -d.high, d.p), abs=1e-9)


def test_difference_covers_and_options_reach_the_metric():
    g = torch.Generator().manual_seed(1)
    inside, f_inside = [], []
    for _ in range(300):
        y = torch.arange(120) % 3
        other = torch.randint(3, (2, 120), generator=g)
        a, b = torch.where(torch.rand(2, 120, generator=g) < 0.7, y, other)
        d = metrics.difference(metrics.f1, a, b, y, average="macro", classes=3)
        f_inside.append(d.low <= 0 <= d.high)
        d = metrics.difference(metrics.accuracy, a, b, y, classes=3)
        inside.append(d.low <= 0 <= d.high)
    assert 0.92 <= np.mean(inside) <= 0.985
    assert 0.92 <= np.mean(f_inside) <= 0.985
    p, _, target = draw()
    with pytest.raises(TypeError, match="difference: metric must be one of"):
        metrics.difference(metrics.ece, p, p, target)


def test_difference_for_labels_classes_and_images():
    y = (torch.rand(80, 3) < 0.5).float()
    a, b = torch.rand(80, 3), torch.rand(80, 3)
    for metric in (metrics.accuracy, metrics.f1, metrics.auc, metrics.log_loss):
        d = metrics.difference(metric, a, b, y)
        assert d == pytest.approx(metric(a, y) - metric(b, y), abs=1e-9)
    y = torch.randint(2, (20, 4, 4))
    a, b = torch.rand(20, 4, 4), torch.rand(20, 4, 4)
    for metric in (metrics.accuracy, metrics.jaccard):
        d = metrics.difference(metric, a, b, y)
        assert d == pytest.approx(metric(a, y) - metric(b, y), abs=1e-9)
    p, q = torch.rand(50, 4).softmax(1), torch.rand(50, 4).softmax(1)
    y = torch.arange(50) % 4
    d = metrics.difference(metrics.top_k, p, q, y, k=2)
    assert d == pytest.approx(metrics.top_k(p, y, k=2) - metrics.top_k(q, y, k=2))
    d = metrics.difference(metrics.auc, p, q, y, versus="one")
    assert d == pytest.approx(metrics.auc(p, y, versus="one") - metrics.auc(q, y, versus="one"))


def test_a_score_is_a_float_with_an_interval():
    s = Score(0.5, 0.4, 0.6, "Wilson")
    assert isinstance(s, float)
    assert (s + 0, max(s, 0.7), f"{s:.2f}") == (0.5, 0.7, "0.50")
    assert (str(s), repr(s)) == ("0.5 [0.4, 0.6]", "Score(0.5 [0.4, 0.6], 'Wilson')")
    assert str(Score(0.25)) == "0.25"
    assert s.text(percent=True) == "50 % [40, 60]"
    again = Score.from_json(json.loads(json.dumps(s.to_json())))
    for twin in (again, copy.copy(s), copy.deepcopy(s)):
        assert (twin, twin.low, twin.high, twin.method) == (0.5, 0.4, 0.6, "Wilson")
    hollow = json.dumps(Score(math.nan, 0.0, math.inf).to_json(), allow_nan=False)
    assert math.isnan(Score.from_json(json.loads(hollow)))
    d = copy.deepcopy(Difference(0.1, 0.0, 0.2, "paired delta", 0.03))
    assert (d, d.p, d.to_json()["p"]) == (0.1, 0.03, 0.03)


def test_the_package_imports_nothing_heavy():
    code = (
        "import sys, deepweave.metrics as m; m.difference\n"
        "m.evaluate('binary', [.2, .8, .6], [0, 1, 0])\n"
        "heavy = {'scipy', 'sklearn', 'pandas', 'matplotlib', 'torchmetrics'} & set(sys.modules)\n"
        "assert not heavy, heavy; assert callable(m.evaluate)\n"
        "for name in dir(m): getattr(m, name)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
