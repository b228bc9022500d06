"""Networks that take noise off: any sides, contract, classes, likelihoods through attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave import blueprint
from deepweave.testing.models import stirred


@pytest.mark.parametrize("sides", [(8, 8), (7, 9), (1, 5), (13, 6)])
def test_any_sides(sides):
    net = dw.nn.unet(((2, *sides), 1), (8, 8, 12), classes=3)
    x, level = torch.randn(3, 2, *sides), torch.randn(3)
    told = torch.eye(3)
    assert torch.equal(net(x, level, told), torch.zeros_like(x))  # the last layer starts at zero
    net = stirred(lambda: dw.nn.unet(((2, *sides), 1), (8, 8, 12), classes=3)).eval()
    found = net(x, level, told)
    assert found.shape == x.shape
    alone = torch.cat([net(x[i : i + 1], level[i : i + 1], told[i : i + 1]) for i in range(3)])
    assert torch.allclose(found, alone, atol=1e-5)
    assert not torch.allclose(found, net(x, level + 0.1, told), atol=1e-3)
    assert not torch.allclose(found, net(x, level, told.roll(1, 0)), atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: dw.nn.unet(((1, 5, 5), 1), (8, 8), 2, heads=2, classes=2),
        lambda: dw.nn.denoiser(((1, 5, 5), 1), 12, 2, classes=2),
        lambda: dw.nn.Told(dw.nn.mlp((25 + 8 + 2, 25), (12,)), 2),
    ],
)
def test_contract(make):
    """Slopes reach every weight, vmap equals the loop, a blueprint makes it again."""
    x, level, told = torch.randn(4, 1, 5, 5), torch.randn(4), torch.eye(2)[[0, 1, 1, 0]]
    net = stirred(make)
    net(x, level, told).square().sum().backward()
    assert all(w.grad is not None and bool((w.grad != 0).any()) for w in net.parameters())
    again = blueprint.build(blueprint.describe(net))
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x, level, told), net(x, level, told))
    pair = [stirred(make, seed) for seed in (1, 2)]
    weights, buffers = torch.func.stack_module_state(pair)
    many = torch.func.vmap(
        lambda w, b: torch.func.functional_call(pair[0], (w, b), (x, level, told))
    )(weights, buffers)
    assert torch.allclose(many, torch.stack([one(x, level, told) for one in pair]), atol=1e-5)
    fine = net.double()
    point = x[:2].double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda v: fine(v, level[:2].double(), told[:2].double()), (point,), fast_mode=True,
        atol=1e-4,
    )  # fmt: skip
    with pytest.raises(ValueError, match="must be told classes"):
        net(x.double(), level.double())


def test_a_level_for_each_sample():
    net, x = dw.nn.unet(((1, 5, 5), 1), (8, 8)), torch.randn(4, 1, 5, 5)
    for level in (torch.randn(3), torch.randn(4, 1), torch.tensor(0.5)):
        with pytest.raises(ValueError, match=r"unet: level must be \(4,\), got "):
            net(x, level)


def test_the_divergence_goes_through_attention():
    """Exact and by directions, of a net with attention: the same up to the stated error."""
    torch.manual_seed(0)
    net = stirred(lambda: dw.nn.unet(((1, 4, 4), 1), (8, 8), heads=2)).double()
    method = dw.Denoise(net, shape=(1, 4, 4))
    x = torch.rand(3, 1, 4, 4, dtype=torch.float64)
    exact, none = method.log_likelihood(x, steps=6)
    guess, error = method.log_likelihood(x, steps=6, probes=200)
    assert float(none.abs().max()) == 0
    assert float(((guess - exact) / error).abs().max()) < 4


def test_told_is_for_rows():
    with pytest.raises(ValueError, match="needs classes >= 0 and waves >= 1"):
        dw.nn.Told(nn.Linear(2, 2), waves=0)
