"""Sequences of numbers: standardised over training steps, from lists, files and by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import deepweave as dw
from deepweave.data.prepare import Preparation


def rows(count=40, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(5, 3, (int(rng.integers(1, 9)), 2)) for _ in range(count)]


def test_lists_are_standardised_by_the_training_steps():
    data = dw.data.load((rows(), np.arange(40) % 2))
    values = data.train.x.values.double()
    assert data.spec.kind == "sequence"
    assert data.spec.shape[1] == 2
    assert torch.allclose(values.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(values.std(0, correction=0), torch.ones(2, dtype=torch.float64))
    again = Preparation.from_json(data.preparation.to_json())
    assert torch.equal(again.inputs(rows(3, 1)).values, data.preparation.inputs(rows(3, 1)).values)


def test_an_npz_with_lengths(tmp_path):
    whole = rows()
    lengths = np.array([len(one) for one in whole])
    path = tmp_path / "a.npz"
    np.savez(path, x=np.concatenate(whole), lengths=lengths, y=np.arange(40) % 2)
    data = dw.data.load(path)
    assert len(data.train) + len(data.validation) + len(data.test) == 40
    x, y, ids = dw.data.read(path, data.preparation)
    assert torch.equal(x.lengths, torch.from_numpy(lengths))
    assert y.tolist() == [i % 2 for i in range(40)]
    assert len(ids) == 40


def test_no_speaker_is_in_two_splits():
    data = dw.data.load("spoken_digits")
    assert [len(split) for split in data.splits.values()] == [1500, 500, 1000]
    for split in data.splits.values():
        assert torch.bincount(split.y).unique().numel() == 1  # each says each digit as often
    assert data.spec.shape == (92, 13)
    assert "No speaker is in two splits" in " ".join(data.preparation.sentences)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([np.zeros((2, 3)), np.zeros((2, 2))], "sequence 1 must be"),
        ([np.zeros((2, 3)), np.zeros((0, 3))], "sequence 1 must be"),
        ([np.zeros((2, 3)), np.full((1, 3), np.nan)], "sequence 1 has values that are not finite"),
    ],
)
def test_bad_sequences_are_refused(x, said):
    with pytest.raises(ValueError, match=said):
        dw.data.load((x, np.arange(len(x))))


def test_another_number_of_features():
    data = dw.data.load((rows(), np.arange(40) % 2))
    with pytest.raises(ValueError, match=r"\(T, 2\), got \(T, 3\)"):
        data.preparation.inputs([np.zeros((4, 3))])
