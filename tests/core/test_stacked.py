"""The stacked rules give what plain vmap gives: values, slopes, and the ordinary path elsewhere."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deepweave as dw
from deepweave.core import population, stacked as rules


class Free(dw.Objective):
    """A loss of any kind over any net."""

    def __init__(self, model: nn.Module, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch):
        return self.loss(self.model(batch[0]), batch[1]), {}


def flat(inplace: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace), nn.Linear(8, 5, bias=False))


def conv() -> nn.Module:
    parts = nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Tanh(), nn.Linear(8, 5)
    return nn.Sequential(*parts)


class Sequence(nn.Module):
    """A dense layer over a third dimension: the ordinary path."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.outer(self.inner(x.unflatten(1, (3, 2))).mean(1))


LOSSES = {
    "entropy": F.cross_entropy,
    "ignored": lambda z, y: F.cross_entropy(z, torch.where(y == 2, -100, y)),
    "ignored, another number": lambda z, y: F.cross_entropy(z, y, ignore_index=2),
    "smoothed": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "summed": lambda z, y: F.cross_entropy(z, y, reduction="sum"),
    "weighted": lambda z, y: F.cross_entropy(z, y, torch.arange(1.0, 6.0).double()),
    "squared": lambda z, y: (z.sum(1) - y).square().mean(),
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("make", [flat, conv, Sequence], ids=["flat", "conv", "sequence"])
@pytest.mark.parametrize("loss", LOSSES)
def test_equal_to_plain_vmap(monkeypatch, make, loss, shared):
    n, found = 3, []
    g = torch.Generator().manual_seed(0)
    lead = () if shared else (n,)
    batch = (
        torch.randn(*lead, 7, 6, generator=g).double(),
        torch.randint(0, 5, (*lead, 7), generator=g),
    )
    for context in (rules.stacked, nullcontext):
        monkeypatch.setattr(population, "stacked", context)
        torch.manual_seed(1)
        members = [Free(make(), LOSSES[loss]).double() for _ in range(n)]
        many = dw.Population(members, optimizer="SGD", lr=0.1, shared=shared)
        slopes = {}
        many.optimizer.register_step_pre_hook(
            lambda *_, m=many, s=slopes: s.update({k: w.grad.clone() for k, w in m.stacked.items()})
        )
        losses = [many(batch)["loss"] for _ in range(3)]
        found.append((losses, slopes, many.weights()))
    for one, other in zip(found[0][0], found[1][0]):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for part in (1, 2):
        for name, value in found[1][part].items():
            torch.testing.assert_close(found[0][part][name], value, rtol=1e-10, atol=1e-12)


def test_the_rules_are_taken(monkeypatch):
    taken = []
    real = rules._through
    monkeypatch.setattr(rules, "_through", lambda rule, *t: taken.append(rule) or real(rule, *t))
    many = dw.Population(dw.Classify(flat(False)), 2, shared=True)
    many((torch.randn(4, 6), torch.randint(0, 5, (4,))))
    assert [rule.__name__ for rule in taken] == ["_Linear", "_Linear", "_Entropy"]


def test_labels_out_of_range_still_raise():
    many = dw.Population(Free(flat(), F.cross_entropy), 2, shared=True)
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        many((torch.randn(4, 6), torch.tensor([0, 1, 2, 5])))


def test_other_transforms_take_the_ordinary_path():
    net = flat(False).double()
    weights = {k: v.detach() for k, v in net.named_parameters()}
    x = torch.randn(4, 6).double()

    def loss(w):
        return torch.func.functional_call(net, w, (x,)).square().sum()

    plain = torch.func.grad(loss)(weights)
    with rules.stacked():
        inside = torch.func.grad(loss)(weights)
        per_sample = torch.func.vmap(lambda row: net(row[None]))(x)
    for name, value in plain.items():
        assert torch.equal(inside[name], value)
    torch.testing.assert_close(per_sample.squeeze(1), net(x))
