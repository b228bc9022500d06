"""Scores of tokens: units agree, intervals cover, texts count as wholes."""

from __future__ import annotations

import math

import pytest
import torch

from deepweave.metrics import tokens


def test_units_agree():
    scores = tokens([3.0, 1.0, 2.0], [1, 2, 0], [4, 2, 2])
    assert math.isclose(scores["loss"], 6 / 8)
    assert math.isclose(scores["bits"], 6 / 8 / math.log(2))
    assert math.isclose(scores["perplexity"], math.exp(6 / 8))
    assert math.isclose(scores["perplexity"].low, math.exp(scores["loss"].low))
    assert math.isclose(scores["accuracy"], 3 / 8)
    assert scores["loss"].low < scores["loss"] < scores["loss"].high


def test_the_interval_covers_when_tokens_of_a_text_depend_on_each_other():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(300):
        count = torch.randint(5, 40, (80,), generator=generator).double()
        level = torch.rand(80, generator=generator).double() * 2  # one level for a whole text
        score = tokens(level * count, count * 0, count)["loss"]
        covered += score.low < 1.0 < score.high
    assert 0.9 < covered / 300 < 0.98


def test_refusals():
    with pytest.raises(ValueError, match=r"\(N,\) each"):
        tokens([1.0], [1, 2], [3])
    with pytest.raises(ValueError, match="no tokens"):
        tokens([0.0], [0], [0])
