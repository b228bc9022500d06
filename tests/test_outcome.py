from __future__ import annotations

import functools

import pytest
import torch

import deepweave as dw
from deepweave import outcome
from deepweave.functional import gaussian_nll, huber, quantile


@pytest.mark.parametrize(
    ("loss", "outputs"),
    [
        (functools.partial(quantile, levels=[0.1, 0.5, 0.9]), 3),
        (gaussian_nll, 2),
        (functools.partial(huber, delta=0.5), 1),
    ],
)
def test_a_folder_predicts_by_the_loss_it_was_trained_with(loss, outputs, tmp_path, capsys):
    data = dw.data.load("diabetes")
    objective = dw.Regress(dw.nn.mlp(((10,), outputs), (8,)), loss)
    run = dw.fit(dw.objectives.Penalize(objective, l2=0.1), data, epochs=2, out=tmp_path / "run")
    back = outcome.revive(tmp_path / "run")
    assert torch.equal(back.predict(data.test.x), run.predict(data.test.x))


def test_a_loss_of_ones_own_is_not_guessed(tmp_path, capsys):
    data = dw.data.load("diabetes")
    objective = dw.Regress(dw.nn.shallow(data.spec), lambda z, y: (z - y).abs())
    dw.fit(objective, data, epochs=1, out=tmp_path / "run")
    with pytest.raises(ValueError, match="was trained with a loss of its own"):
        outcome.revive(tmp_path / "run")
