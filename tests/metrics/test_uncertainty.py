"""The intervals cover what they promise, and equal the formulas they are named after."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from deepweave import metrics
from deepweave.metrics import sorting
from deepweave.metrics.rates import F1, averaged, balanced, cohen, f_rate, matthews

SETS = 400


def share(hits) -> float:
    return float(np.mean(hits))


def covers(scores, truth) -> float:
    return share([s.low <= truth <= s.high for s in scores])


def test_wilson_and_exact_equal_scipy():
    for k, n in [(0, 10), (3, 10), (10, 10), (981, 1000)]:
        result = stats.binomtest(k, n)
        for ours, method in [(metrics.wilson, "wilson"), (metrics.clopper_pearson, "exact")]:
            want = result.proportion_ci(0.9, method=method)
            got = ours(k, n, confidence=0.9)
            assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-9)
    y = torch.tensor([1] * 9 + [0])
    one = metrics.accuracy(torch.ones(10).long(), y, exact=True, classes=2)
    assert one.method == "Clopper-Pearson"
    want = stats.binomtest(9, 10).proportion_ci(method="exact")
    assert (one.low, one.high) == pytest.approx((want.low, want.high))


def test_wilson_covers():
    """Every outcome of n = 60 samples at once, weighed by its probability: no simulation noise."""
    for p in (0.5, 0.9, 0.97):
        scores = [metrics.wilson(k, 60) for k in range(61)]
        inside = [s.low <= p <= s.high for s in scores]
        assert 0.92 <= stats.binom.pmf(range(61), 60, p) @ inside <= 0.98


# Rows: true class; columns: said class.
LAW = torch.tensor([[0.30, 0.05, 0.02], [0.04, 0.25, 0.04], [0.03, 0.07, 0.20]]).double()


def tables(n: int, sets: int, law=LAW):
    rng = np.random.default_rng(0)
    return rng.multinomial(n, (law / law.sum()).flatten().numpy(), size=sets)


@pytest.mark.parametrize(
    ("statistic", "floor"),
    [
        (averaged(F1, "macro"), 0.0),
        (averaged(F1, "weighted"), 0.0),
        (balanced, 0.0),
        (matthews, -1.0),
        (cohen(0), -1.0),
        (cohen(2), -1.0),
    ],
)
@pytest.mark.parametrize("n", [60, 400])
def test_the_delta_method_covers(statistic, floor, n):
    truth = float(statistic(LAW))
    scores = []
    for counts in tables(n, SETS):
        tally = metrics.Confusion(3)
        tally.size = n
        tally.sums["cells"][1:-1] = torch.from_numpy(counts).double()
        scores.append(tally.of(statistic, floor=floor))
    assert 0.92 <= covers(scores, truth) <= 0.985


def test_f1_of_one_class_covers():
    law = torch.tensor([[0.6, 0.1], [0.08, 0.22]]).double()
    for beta in (1.0, 2.0):
        rate = f_rate(beta)
        truth = float(averaged(rate, "binary")(law))
        scores = []
        for counts in tables(150, SETS, law):
            tally = metrics.Confusion(2)
            tally.size = 150
            tally.sums["cells"][1:-1] = torch.from_numpy(counts).double()
            scores.append(tally.rate(rate))
        assert 0.92 <= covers(scores, truth) <= 0.98


def test_a_perfect_score_has_width():
    y = torch.arange(30) % 3
    for metric in (metrics.f1, metrics.balanced_accuracy, metrics.mcc, metrics.kappa):
        score = metric(y, y)
        assert score == score.high == 1.0
        assert 0.6 < score.low < 0.99
    p = torch.linspace(0, 1, 40)
    for metric in (metrics.auc, metrics.average_precision):
        score = metric(p, (p > 0.5).long())
        assert score == score.high == 1.0
        assert 0.6 < score.low < 0.99


def gaussian(m: int, n: int, sets: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    s = torch.randn(sets, m + n, generator=g, dtype=torch.float64)
    y = torch.zeros(m + n, dtype=torch.long)
    y[:m] = 1
    return s + 1.5 * y, y


def test_delong_equals_its_formula():
    s, y = gaussian(30, 50, 1)
    s = (s[0] * 4).round() / 4  # ties
    x, z = s[y == 1], s[y == 0]
    wins = (x[:, None] > z).double() + 0.5 * (x[:, None] == z)
    up, down = wins.mean(1), wins.mean(0)
    variance = float(up.var() / len(x) + down.var() / len(z))
    a = float(wins.mean())
    got = metrics.auc(s, y)
    half = stats.norm.ppf(0.975) * math.sqrt(variance) / (a * (1 - a))
    logit = math.log(a / (1 - a))
    assert got == pytest.approx(a, abs=1e-14)
    want = (1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit)))
    assert (got.low, got.high) == pytest.approx(want, abs=1e-12)
    assert got.method == "DeLong"


@pytest.mark.parametrize(("m", "n"), [(25, 40), (200, 300)])
def test_auc_covers(m, n):
    s, y = gaussian(m, n, 1000)
    truth = stats.norm.cdf(1.5 / math.sqrt(2))
    assert 0.92 <= covers([metrics.auc(row, y) for row in s], truth) <= 0.98


def test_average_precision_covers():
    s, y = gaussian(100, 200, 600)
    big, label = gaussian(200_000, 400_000, 1, seed=9)
    truth = float(metrics.average_precision(big[0], label, confidence=None))
    assert 0.92 <= covers([metrics.average_precision(row, y) for row in s], truth) <= 0.98


@pytest.mark.parametrize("kind", ["auc", "ap"])
def test_influence_is_the_derivative_by_the_weight(kind):
    s, y = gaussian(12, 20, 1)
    s = (s[0] * 2).round() / 2
    metric = metrics.auc if kind == "auc" else metrics.average_precision
    w = torch.rand(32, generator=torch.Generator().manual_seed(1)).double() + 0.5
    g = sorting.order(s, y, w, members=True)
    if kind == "auc":
        up, down = sorting.placements(g)
        a = sorting.area(g)
        up, down = (up - a) / g.positive.sum(), (down - a) / g.negative.sum()
    else:
        up, down = sorting.average_pull(g)
    assert g.member is not None
    each = np.where(y.numpy() == 1, up[g.member], down[g.member])
    for i in range(32):
        step = torch.zeros(32).double()
        step[i] = 1e-5
        rise = metric(s, y, weight=w + step) - metric(s, y, weight=w - step)
        assert rise / 2e-5 == pytest.approx(each[i], abs=1e-8)


def test_macro_auc_and_micro_cover():
    g = torch.Generator().manual_seed(3)
    p = torch.randn(400, 150, 3, generator=g)
    y = torch.arange(150) % 3
    p[:, torch.arange(150), y] += 1.0
    big = torch.randn(300_000, 3, generator=g)
    label = torch.arange(300_000) % 3
    big[torch.arange(300_000), label] += 1.0
    truth = float(metrics.auc(big, label, confidence=None))
    assert 0.92 <= covers([metrics.auc(row, y) for row in p], truth) <= 0.98
    one = float(metrics.auc(big, label, versus="one", confidence=None))
    scores = [metrics.auc(row, y, versus="one") for row in p[:200]]
    assert 0.91 <= covers(scores, one) <= 0.99


def test_means_and_r2_cover():
    g = torch.Generator().manual_seed(4)
    y = torch.randn(SETS, 200, generator=g).double()
    p = y + 0.5 * torch.randn(SETS, 200, generator=g).double()
    for metric, truth in [
        (metrics.mse, 0.25),
        (metrics.rmse, 0.5),
        (metrics.mae, 0.5 * math.sqrt(2 / math.pi)),
        (metrics.r2, 0.75),
    ]:
        assert 0.92 <= covers([metric(a, b) for a, b in zip(p, y)], truth) <= 0.98
    q = torch.rand(SETS, 200, generator=g).double() * 0.8 + 0.1
    hit = (torch.rand(SETS, 200, generator=g) < q).long()
    grid = torch.linspace(0.1, 0.9, 100_001).double()
    truth = float(-(grid * grid.log() + (1 - grid) * (1 - grid).log()).mean())
    assert 0.92 <= covers([metrics.log_loss(a, b) for a, b in zip(q, hit)], truth) <= 0.98
    truth = float((grid * (1 - grid)).mean())
    assert 0.92 <= covers([metrics.brier(a, b) for a, b in zip(q, hit)], truth) <= 0.98


@pytest.mark.parametrize("off", [0.0, 0.05, 0.15])
def test_ece_covers_also_where_the_truth_is_zero(off):
    g = torch.Generator().manual_seed(5)
    p = torch.rand(150, 400, generator=g).double() * 0.8
    y = (torch.rand(150, 400, generator=g) < p + off).long()
    found = covers([metrics.ece(a, b, bins=10) for a, b in zip(p, y)], off)
    assert 0.92 <= found <= 1.0


def test_images_are_the_units_of_a_segmentation():
    """Pixels of one image err together: counting them one by one would cover far too rarely."""
    rng = np.random.default_rng(6)
    scores, naive = [], []
    for _ in range(200):
        skill = rng.beta(8, 2, size=(40, 1, 1))
        y = rng.integers(0, 2, (40, 8, 8))
        said = np.where(rng.random((40, 8, 8)) < skill, y, 1 - y)
        scores.append(metrics.accuracy(said, y))
        naive.append(metrics.accuracy(said.ravel(), y.ravel()))
    assert 0.91 <= covers(scores, 0.8) <= 0.98
    assert covers(naive, 0.8) < 0.75


def test_bootstrap_covers_and_agrees_with_delong():
    g = torch.Generator().manual_seed(7)
    x = torch.randn(150, 80, 1, generator=g).double()
    columns = torch.cat([x, x * x], 2)
    scores = [
        metrics.bootstrap(lambda m: m[:, 1] - m[:, 0] ** 2, c, resamples=400, seed=i)
        for i, c in enumerate(columns)
    ]
    assert 0.86 <= covers(scores, 1.0) <= 0.98  # percentile intervals of a variance run short
    w = torch.rand(80, generator=g)
    again = metrics.bootstrap(lambda m: m[:, 0], columns[0], weight=w)
    assert float(again) == pytest.approx(float((w * columns[0, :, 0]).sum() / w.sum()))


def test_weights_that_differ_widen_the_interval_and_their_scale_does_not():
    y, p = torch.tensor([0, 1] * 50), torch.tensor([0, 1, 1, 1] * 25)
    plain = metrics.accuracy(p, y)
    scaled = metrics.accuracy(p, y, weight=torch.full((100,), 7.0))
    assert (scaled.low, scaled.high) == pytest.approx((plain.low, plain.high))
    uneven = metrics.accuracy(p, y, weight=torch.tensor([5.0] * 4 + [0.2] * 96))
    assert uneven.high - uneven.low > 1.5 * (plain.high - plain.low)


def test_confidence_must_be_a_share():
    for bad in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="confidence must lie between 0 and 1"):
            metrics.accuracy([0, 1], [0, 1], confidence=bad)
