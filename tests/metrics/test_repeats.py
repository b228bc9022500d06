from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from deepweave import metrics


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_it_is_students_interval(confidence):
    values = np.random.default_rng(0).normal(3.0, 2.0, size=7)
    score = metrics.over_seeds(values.tolist(), confidence=confidence)
    low, high = stats.t.interval(confidence, 6, loc=values.mean(), scale=stats.sem(values))
    assert (score, score.low, score.high) == pytest.approx((values.mean(), low, high))
    assert score.method == "Student over 7 seeds"


def test_it_covers_as_often_as_it_says():
    draws = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0))
    scores = [metrics.over_seeds(row) for row in draws]
    assert 0.935 < np.mean([one.low < 0 < one.high for one in scores]) < 0.965


def test_one_value_and_wrong_ones():
    one = metrics.over_seeds([0.5])
    assert one == 0.5
    assert math.isnan(one.low)
    assert one.method == "one value"
    for wrong in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="over_seeds: expected finite values"):
            metrics.over_seeds(wrong)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        metrics.over_seeds([1.0, 2.0], confidence=95)


def test_gain_of_rmse():
    """Equal predictors gain nothing; the interval covers as many as it should."""
    random = torch.Generator().manual_seed(0)
    truth = torch.randn(300, generator=random).double()
    said = [truth + torch.randn(300, generator=random) for _ in range(4)]
    none = metrics.rmse_gain(said, said, truth)
    assert float(none) == none.low == none.high == 0
    inside = 0
    for _ in range(200):
        truth = torch.randn(200, generator=random).double()
        ours = [truth + torch.randn(200, generator=random) for _ in range(4)]
        theirs = [truth + 1.5 * torch.randn(200, generator=random) for _ in range(4)]
        gap = metrics.rmse_gain(ours, theirs, truth)
        inside += gap.low < 0.5 < gap.high
    assert inside >= 185
    with pytest.raises(ValueError, match=r"as many of each, got 4 and 1"):
        metrics.rmse_gain(ours, theirs[:1], truth)
    with pytest.raises(ValueError, match=r"must be \(200,\), got \(3,\)"):
        metrics.rmse_gain([truth[:3]], [truth], truth)


def test_a_mean_over_samples_covers_as_often_as_it_says():
    torch.manual_seed(0)
    draws = torch.randn(2000, 100).exp()
    scores = [metrics.over_samples(row) for row in draws]
    within = [score.low < math.exp(0.5) < score.high for score in scores]
    assert 0.90 < sum(within) / len(within) < 0.96  # of a skewed law, a little less than 95 %
    assert float(scores[0]) == pytest.approx(float(draws[0].double().mean()))
    assert math.isnan(metrics.over_samples([2.0]).low)
    lost = metrics.over_samples(torch.tensor([1.0, math.inf]))
    assert float(lost) == math.inf
    assert math.isnan(lost.low)
    with pytest.raises(ValueError, match="at least one value"):
        metrics.over_samples([])
