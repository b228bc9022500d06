from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.hooks import Plateau, Schedule, Validate, constant, cosine, linear, one_cycle


class Rates(dw.Hook):
    """The learning rate that each step was made with, read where the optimizer uses it."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def begin(self, loop):
        def note(optimizer, *_):
            self.seen.append(optimizer.param_groups[0]["lr"])

        loop.step.optimizers[0].register_step_pre_hook(note)


def rates(schedule: dw.Hook, steps: int = 20, lr: float = 0.4) -> list[float]:
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    step = dw.Descent(dw.Regress(nn.Linear(2, 1)), "SGD", lr=lr)
    seen = Rates()
    dw.fit(step, [(x, x[:, 0])], steps=steps, hooks=[schedule, seen])
    return seen.seen


SHAPES = {
    "constant": (constant, lambda t: 1.0),
    "linear": (linear, lambda t: 1 - t),
    "cosine": (cosine, lambda t: 0.5 * (1 + math.cos(math.pi * t))),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warmup", [0, 4, 0.25])
def test_each_step_uses_its_own_rate(shape, warmup):
    shape, closed = SHAPES[shape]
    steps, warm = 20, 5 if warmup == 0.25 else warmup
    expected = [
        0.4 * ((i + 1) / (warm + 1) if i < warm else closed((i - warm) / (steps - warm)))
        for i in range(steps)
    ]
    assert rates(Schedule(shape, warmup=warmup)) == pytest.approx(expected, rel=1e-12)


def test_one_cycle_against_torch():
    """Rates of torch's OneCycleLR, which counts its last step as the end of the run."""
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.4)
    torch_s = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, total_steps=20, pct_start=0.3, div_factor=25, final_div_factor=400
    )
    theirs = []
    for _ in range(20):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        torch_s.step()
    rise = (0.3 * 20 - 1) / 19
    ours = [0.4 * one_cycle(i / 19, rise=rise) for i in range(20)]
    assert ours == pytest.approx(theirs, rel=1e-9)
    assert one_cycle(0.0) == pytest.approx(1 / 25)
    assert one_cycle(0.3) == 1
    assert one_cycle(1.0) == pytest.approx(1e-4)


def test_rates_never_jump():
    for shape in (linear, cosine, one_cycle):
        values = [shape(i / 1000) for i in range(1001)]
        assert max(abs(a - b) for a, b in itertools.pairwise(values)) < 0.006


def test_every_group_keeps_its_ratio():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[1].parameters()}]
    optimizer = torch.optim.SGD(groups, lr=0.4)
    seen = []

    class Watch(dw.Hook):
        def after_step(self, loop, logs):
            seen.append([group["lr"] for group in optimizer.param_groups])

    step = dw.Descent(dw.Regress(net), optimizer)
    dw.fit(step, [(torch.ones(4, 2), torch.ones(4))], steps=5, hooks=[Schedule(), Watch()])
    assert all(b == pytest.approx(4 * a) for a, b in seen)


@pytest.mark.parametrize("warmup", [-1, 1.0, -0.1])
def test_bad_warmups(warmup):
    with pytest.raises(ValueError, match=r"Schedule: warmup must be steps >= 0 or a share < 1"):
        Schedule(warmup=warmup)


def test_a_run_without_length_has_no_cosine():
    def endless():
        while True:
            yield torch.ones(2, 2), torch.ones(2)

    step = dw.Descent(dw.Regress(nn.Linear(2, 1)), "SGD", lr=0.1)
    with pytest.raises(ValueError, match=r"no known length: pass steps="):
        dw.fit(step, endless(), epochs=1, hooks=[Schedule()])


# --- Plateau --------------------------------------------------------------------------------


class Told(Validate):
    """Validation whose losses are told in advance."""

    def __init__(self, losses: list[float], **options):
        super().__init__([None], restore=False, **options)
        self.losses = iter(losses)

    def measure(self, loop):
        return {"loss": torch.tensor(next(self.losses))}


def test_plateau_lowers_after_patience_and_after_each_further_wait():
    losses = [1.0, 0.9, 0.9, 0.95, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9]
    #                  w1   w2    new  w1   w2   w3   w4   w5
    lowered = [0, 0, 0, 1, 1, 1, 2, 2, 3, 3]
    step = dw.Descent(dw.Regress(nn.Linear(2, 1)), "SGD", lr=1.0)
    seen = []

    class Watch(dw.Hook):
        def after_epoch(self, loop):
            seen.append(loop.step.optimizers[0].param_groups[0]["lr"])

    class Late(Plateau):
        """Watched behind the cut."""

        def after_epoch(self, loop):
            super().after_epoch(loop)
            Watch().after_epoch(loop)

    hooks = [Told(losses), Late(factor=0.5, patience=2)]
    dw.fit(step, [(torch.ones(4, 2), torch.ones(4))], epochs=10, hooks=hooks)
    assert seen == [0.5**n for n in lowered]


def test_plateau_has_a_floor():
    step = dw.Descent(dw.Regress(nn.Linear(2, 1)), "SGD", lr=1.0)
    hooks = [Told([1.0] * 9), Plateau(factor=0.1, patience=1, least=0.05)]
    dw.fit(step, [(torch.ones(4, 2), torch.ones(4))], epochs=9, hooks=hooks)
    assert step.optimizer.param_groups[0]["lr"] == 0.05


def test_plateau_refusals():
    batch = [(torch.ones(4, 2), torch.ones(4))]
    step = dw.Descent(dw.Regress(nn.Linear(2, 1)), "SGD", lr=1.0)
    with pytest.raises(ValueError, match="factor must lie in"):
        Plateau(factor=1.0)
    with pytest.raises(ValueError, match="needs a Validate hook"):
        dw.fit(step, batch, epochs=1, hooks=[Plateau()])
    with pytest.raises(ValueError, match="a Schedule sets the rates"):
        dw.fit(step, batch, epochs=1, hooks=[Plateau(), Schedule(), Validate(batch)])


# --- find_lr --------------------------------------------------------------------------------


def test_find_lr_suggests_a_rate_that_trains(digits):
    torch.manual_seed(0)
    objective = dw.Classify(dw.nn.mlp(digits.spec, hidden=(32,)))
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = dw.find_lr(objective, digits, low=1e-6, high=10.0, steps=60)
    assert torch.equal(torch.rand(2), expected), "the random state outside is left alone"
    for name, value in objective.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed by the sweep"
    assert 1e-6 < found.suggestion < 10
    assert len(found.rates) == len(found.losses) <= 60
    ratio = found.rates[1] / found.rates[0]
    assert ratio == pytest.approx((10 / 1e-6) ** (1 / 59))
    assert found.rates == pytest.approx([1e-6 * ratio**i for i in range(len(found.rates))])

    def loss(lr: float) -> float:
        torch.manual_seed(0)
        net = dw.Classify(dw.nn.mlp(digits.spec, hidden=(32,)))
        run = dw.fit(net, digits.train, epochs=2, lr=lr, batch=64, out=False)
        return float(run.step.evaluate((digits.train.x, digits.train.y))["loss"])

    assert loss(found.suggestion) < min(loss(1e-6), loss(10.0), 0.6)


def test_find_lr_ends_where_a_step_leaves_the_numbers():
    class Cliff(nn.Module):
        def __init__(self):
            super().__init__()
            self.rise = nn.Parameter(torch.full((1,), 0.1))

        def forward(self, x):
            return (20 * self.rise.square()).exp().expand(len(x))

    batch = torch.zeros(4, 1), torch.full((4,), 3.0)
    found = dw.find_lr(dw.Regress(Cliff()), [batch], optimizer="SGD", low=1e-5, high=1e6, steps=12)
    assert 3 <= len(found.rates) < 12
    assert found.suggestion < 1


@pytest.mark.parametrize("high", [1e4, 1e35])
def test_find_lr_stops_when_the_loss_blows_up(high):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    found = dw.find_lr(
        dw.Regress(nn.Linear(3, 1)), [(x, x[:, 0])], optimizer="SGD", low=1e-3, high=high, steps=50
    )
    assert len(found.rates) == len(found.losses) < 50
    assert all(b <= 4 * min(found.losses[:i]) for i, b in enumerate(found.losses) if i)
    assert 1e-3 < found.suggestion < 1


@pytest.mark.parametrize("options", [{"low": 1.0, "high": 0.1}, {"low": 0.0}, {"steps": 9}])
def test_find_lr_refusals(options):
    with pytest.raises(ValueError, match="find_lr: expected 0 < low < high, steps >= 10"):
        dw.find_lr(dw.Regress(nn.Linear(2, 1)), [], **options)
