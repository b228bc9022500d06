from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.testing import check_model


def test_share_and_scale():
    layer = dw.nn.Dropout(0.3)
    torch.manual_seed(0)
    y = layer(torch.ones(200_000))
    assert float((y == 0).float().mean()) == pytest.approx(0.3, abs=0.005)
    assert y[y != 0].unique() == pytest.approx(1 / 0.7, rel=1e-6)
    assert torch.equal(layer.eval()(torch.ones(3)), torch.ones(3))
    assert torch.equal(dw.nn.Dropout(0.0)(torch.ones(9)), torch.ones(9))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_a_small_share_in_other_precisions(kind):
    torch.manual_seed(0)
    y = dw.nn.Dropout(0.01)(torch.ones(1_000_000, dtype=kind))
    assert y.dtype == kind
    assert float((y == 0).float().mean()) == pytest.approx(0.01, abs=0.0005)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_refuses(rate):
    with pytest.raises(ValueError, match=r"Dropout: rate must lie in \[0, 1\), got"):
        dw.nn.Dropout(rate)


def test_each_member_has_its_own_rate():
    objectives = [dw.Classify(dw.nn.mlp((4, 2), (64,), dropout=r)) for r in (0.1, 0.5, 0.9)]
    many = dw.Population(objectives, shared=True)
    rates = many.buffers["model.2.rate"]
    assert rates.tolist() == pytest.approx([0.1, 0.5, 0.9])
    layer = dw.nn.Dropout()
    seen = torch.func.vmap(
        lambda rate: torch.func.functional_call(layer, {"rate": rate}, (torch.ones(4000),)),
        randomness="different",
    )(rates)
    assert (seen == 0).float().mean(1).tolist() == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert float(many.member(2).model[2].rate) == pytest.approx(0.9)


def test_contract():
    check_model(lambda: nn.Sequential(nn.Linear(3, 4), dw.nn.Dropout(0.4)), torch.randn(5, 3),
                build=False)  # fmt: skip


def test_the_rate_is_saved(tmp_path):
    net = dw.nn.mlp((4, 2), (8,), dropout=0.25)
    other = dw.nn.mlp((4, 2), (8,), dropout=0.75)
    other.load_state_dict(net.state_dict())
    assert float(other[2].rate) == 0.25
