from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw


def net(seed: int, **options) -> nn.Sequential:
    torch.manual_seed(seed)
    return dw.nn.mlp((6, 3), hidden=(8, 8), **options).double()


def data(steps: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(16, 6, generator=g).double(), torch.randint(0, 3, (16,), generator=g))
        for _ in range(steps)
    ]


@pytest.mark.parametrize("norm", [None, "batch", "layer"])
def test_members_learn_what_loops_learn(norm):
    n, batches = 4, data(100)
    many = dw.Population([dw.Classify(net(i, norm=norm)) for i in range(n)], optimizer="Adam",
                         shared=True, lr=1e-3)  # fmt: skip
    alone = [dw.Descent(dw.Classify(net(i, norm=norm)), "Adam", lr=1e-3) for i in range(n)]
    for batch in batches:
        logs = many(batch)
        losses = torch.stack([step(batch)["loss"] for step in alone])
        torch.testing.assert_close(logs["loss"], losses, rtol=0, atol=1e-10)
    for i, step in enumerate(alone):
        for name, value in step.objective.state_dict().items():
            # a bias before a norm has no slope but rounding, which Adam divides by itself
            torch.testing.assert_close(many.weights()[name][i], value, rtol=0, atol=1e-8)
        assert torch.equal(
            many.member(i).state_dict()["model.0.weight"], many.weights()["model.0.weight"][i]
        )


def test_own_batches():
    n = 3
    streams = [data(10, seed) for seed in range(n)]
    many = dw.Population([dw.Classify(net(i)) for i in range(n)], optimizer="SGD", lr=0.1)
    alone = [dw.Descent(dw.Classify(net(i)), "SGD", lr=0.1) for i in range(n)]
    for parts in zip(*streams):
        many(tuple(torch.stack(one) for one in zip(*parts)))
        for step, part in zip(alone, parts):
            step(part)
    for i, step in enumerate(alone):
        for name, value in step.objective.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value, rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "NAdam", "Adagrad"])
def test_a_rate_per_member(optimizer):
    rates, batches = [1e-4, 1e-3, 1e-2], data(30)
    many = dw.Population([dw.Classify(net(0)) for _ in rates], optimizer=optimizer, shared=True,
                         lr=rates)  # fmt: skip
    alone = [dw.Descent(dw.Classify(net(0)), optimizer, lr=rate) for rate in rates]
    for batch in batches:
        many(batch)
        for step in alone:
            step(batch)
    for i, step in enumerate(alone):
        for name, value in step.objective.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value, rtol=0, atol=1e-8)


def test_a_decay_per_member():
    decays, batches = [0.0, 0.1, 1.0], data(30)
    many = dw.Population([dw.Classify(net(0)) for _ in decays], optimizer="AdamW", shared=True,
                         lr=[1e-2] * 3, decay=decays)  # fmt: skip
    alone = [dw.Descent(dw.Classify(net(0)), "AdamW", lr=1e-2, weight_decay=d) for d in decays]
    for batch in batches:
        many(batch)
        for step in alone:
            step(batch)
    for i, step in enumerate(alone):
        for name, value in step.objective.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value, rtol=0, atol=1e-8)


def test_one_decay_for_all_without_rates_per_member():
    many = dw.Population(dw.Classify(net(0)), 2, "AdamW", shared=True, lr=1e-2, decay=0.5)
    assert many.optimizer.defaults["weight_decay"] == 0.5


def test_fresh_members_differ_and_are_seeded():
    one = dw.Population(dw.Classify(net(0)), 3, seed=1).weights()["model.0.weight"]
    again = dw.Population(dw.Classify(net(5)), 3, seed=1).weights()["model.0.weight"]
    assert torch.equal(one, again)
    assert not torch.equal(one[0], one[1])


def test_clip_is_per_member():
    """A member with large slopes is clipped by its own norm; the others are left alone."""
    x, y = data(1)[0]
    scales = [100.0, 1.0, 1.0]

    def scaled(i: int) -> dw.Classify:
        model = net(i)
        with torch.no_grad():
            dict(model.named_parameters())["4.weight"].mul_(scales[i])
        return dw.Classify(model)

    many = dw.Population([scaled(i) for i in range(3)], optimizer="SGD", shared=True, lr=0.1)
    dw.fit(many, [(x, y)], steps=1, hooks=[dw.hooks.Clip(norm=2.0)])
    sizes = []
    for i in range(3):
        one = scaled(i)
        one((x, y))[0].backward()
        sizes.append(float(torch.nn.utils.clip_grad_norm_(one.parameters(), 2.0)))
        torch.optim.SGD(one.parameters(), lr=0.1).step()
        for name, value in one.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value, rtol=0, atol=1e-6)
    assert sizes[0] > 2.0 > max(sizes[1:])


def test_predict_and_best(batch):
    x, y = batch
    many = dw.Population(dw.Classify(dw.nn.mlp((6, 3), hidden=(4,))), 5, shared=True, lr=1e-2)
    run = dw.fit(many, [(x, y)], epochs=3, hooks=[dw.hooks.Validate([(x, y)])])
    losses = many.evaluate((x, y))["loss"]
    assert losses.shape == (5,)
    assert many.best == int(losses.argmin())
    p = many.predict(x)
    assert p.shape == (5, 32, 3)
    torch.testing.assert_close(p[many.best], run.objective.predict(x))


def test_bad_populations(batch):
    objective = dw.Classify(dw.nn.mlp((6, 3)))
    with pytest.raises(ValueError, match=r"lr must be one number or \(3,\), got \(2,\)"):
        dw.Population(objective, 3, lr=[0.1, 0.2])
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        dw.Population(objective, 0)
    with pytest.raises(ValueError, match="differ in shape"):
        dw.Population([objective, dw.Classify(dw.nn.mlp((6, 4)))])
    with pytest.raises(ValueError, match=r"batch must be \(n, B, ...\) with n = 2.*shared=True"):
        dw.fit(dw.Population(objective, 2), [batch], epochs=1)


def test_take_keeps_weights_rates_and_the_optimizer():
    """Members taken go on as if they had never been with others."""

    def batches(n):
        generator = torch.Generator().manual_seed(3)
        return [
            (torch.randn(8, 4, generator=generator), torch.randint(3, (8,), generator=generator))
            for _ in range(n)
        ]

    def population(which):
        torch.manual_seed(0)
        nets = [dw.Classify(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)))
                for _ in range(4)]  # fmt: skip
        rates, decays = [1e-2, 2e-2, 3e-2, 4e-2], [0.1, 0.2, 0.3, 0.4]
        return dw.Population(
            [nets[i] for i in which], shared=True, lr=[rates[i] for i in which],
            decay=[decays[i] for i in which],
        )  # fmt: skip

    whole, part = population(range(4)), population([3, 1])
    for batch in batches(5):
        whole(batch)
        part(batch)
    whole.take([3, 1])
    assert whole.members == 2
    for batch in batches(5):
        whole(batch)
        part(batch)
    for name, value in part.weights().items():
        torch.testing.assert_close(whole.weights()[name], value, rtol=1e-4, atol=1e-5)
    twice = population(range(4))
    twice.take([2, 2, 0])
    twice(batches(1)[0])
    weights = twice.weights()["model.0.weight"]
    assert torch.equal(weights[0], weights[1])
    assert twice.rates.tolist() == [3e-2, 3e-2, 1e-2]
    with pytest.raises(ValueError, match=r"take needs members in 0..2, got \[3\]"):
        twice.take([3])
    with pytest.raises(ValueError, match="take needs members"):
        twice.take([])


def test_members_of_other_structure_are_refused():
    with pytest.raises(ValueError, match=r"Population: not all members have model\.2\.weight"):
        dw.Population([dw.Classify(dw.nn.mlp((4, 3), (3,))), dw.Classify(dw.nn.shallow((4, 3)))])


def test_the_rates_of_members_are_told():
    many = dw.Population(dw.Classify(net(0)), 3, shared=True, lr=[1e-3, 1e-2, 1e-1])
    run = dw.fit(many, data(2), steps=2)
    assert run.info["optimizer"]["lr"] is None
    assert run.info["optimizer"]["lr_low"] == 1e-3
    assert run.info["optimizer"]["lr_high"] == 1e-1


def test_predictions_drop_nothing_and_leave_the_mode():
    net = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    net[1].eval()  # a part that is frozen stays so
    for step in (
        dw.Descent(dw.Classify(net)),
        dw.Population(dw.Classify(nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.9))), 2, shared=True),
    ):
        x = torch.randn(6, 4)
        assert torch.equal(step.predict(x), step.predict(x))
        assert step.objective.training
    assert net.training
    assert not net[1].training
