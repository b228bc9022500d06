from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import deepweave as dw


def net(norm: str | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    return dw.nn.mlp((6, 3), (8,), "tanh", norm=norm).double()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(16, 6, generator=g).double(), torch.randint(0, 3, (16,), generator=g)


def by_hand(inner: dw.Classify, rho: float) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The paper's two passes with plain autograd."""
    weights = list(inner.parameters())
    slopes = torch.autograd.grad(inner(data())[0], weights)
    length = torch.sqrt(sum(s.square().sum() for s in slopes))
    kept = [w.detach().clone() for w in weights]
    with torch.no_grad():
        for weight, slope in zip(weights, slopes):
            weight.add_(rho * slope / length)
    loss = inner(data())[0]
    found = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for weight, value in zip(weights, kept):
            weight.copy_(value)
    return loss.detach(), list(found)


def test_loss_and_slopes_are_those_of_two_passes():
    objective = dw.SAM(dw.Classify(net()), 0.3).double()
    loss, slopes = by_hand(copy.deepcopy(objective.objective), 0.3)
    before = copy.deepcopy(objective.state_dict())
    found, _ = objective(data())
    found.backward()
    torch.testing.assert_close(found.detach(), loss)
    for weight, slope in zip(objective.parameters(), slopes):
        torch.testing.assert_close(weight.grad, slope)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_rho_of_zero_evaluation_and_no_gradients_are_the_bare_loss():
    objective = dw.SAM(dw.Classify(net()), 0.0).double()
    bare = objective.objective(data())[0]
    torch.testing.assert_close(objective(data())[0], bare)
    strong = dw.SAM(dw.Classify(net()), 1.0).double()
    assert strong(data())[0] > bare
    with torch.no_grad():
        assert torch.equal(strong(data())[0], bare)
    assert torch.equal(strong.eval()(data())[0], bare)


@pytest.mark.parametrize("norm", [None, "batch"])
def test_members_learn_what_they_would_alone(norm):
    rhos = [0.0, 0.1, 1.0]
    members = [dw.SAM(dw.Classify(net(norm)), rho).double() for rho in rhos]
    many = dw.Population(copy.deepcopy(members), optimizer="SGD", lr=0.1, shared=True)
    alone = [dw.Descent(one, "SGD", lr=0.1) for one in members]
    for _ in range(5):
        many(data())
        for step in alone:
            step(data())
    for i, one in enumerate(members):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value)


def test_running_statistics_move_once():
    plain, sharp = dw.Classify(net("batch")), dw.SAM(dw.Classify(net("batch"))).double()
    plain(data())
    sharp(data())
    first = plain.model[1].running_mean
    torch.testing.assert_close(sharp.model[1].running_mean, first, rtol=0.2, atol=1e-2)
    assert sharp.model[1].num_batches_tracked == 1


def test_frozen_weights_stay_where_they_are():
    objective = dw.SAM(dw.Classify(net()), 0.5).double()
    objective.model[0].requires_grad_(False)
    objective(data())[0].backward()
    assert objective.model[0].weight.grad is None
    assert objective.model[2].weight.grad is not None


def test_wrong_rho():
    with pytest.raises(ValueError, match="SAM: rho must be finite and not below 0, got -1"):
        dw.SAM(dw.Classify(net()), -1)
