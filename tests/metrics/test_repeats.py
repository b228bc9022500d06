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
    for wrong in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="over_seeds: expected finite values"):
            metrics.over_seeds(wrong)
    with pytest.raises(ValueError, match="confidence must lie between 0 and 1, got 95"):
        metrics.over_seeds([1.0, 2.0], confidence=95)
