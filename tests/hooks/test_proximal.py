from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional import group_soft_threshold, soft_threshold
from deepweave.hooks import MaxNorm, Proximal, Schedule, Validate, cosine


def net(seed: int = 0, **options) -> nn.Sequential:
    torch.manual_seed(seed)
    return dw.nn.mlp((6, 3), (8,), "tanh", **options).double()


def data(n: int = 16, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=g).double(), torch.randint(0, 3, (n,), generator=g)


def penalized(seed: int = 0, **options) -> dw.Penalize:
    options = options or {"l1": 0.02}
    return dw.Penalize(dw.Classify(net(seed)), proximal=True, **options).double()


def by_hand(objective: dw.Penalize, batches, rates, shrink) -> dict[str, torch.Tensor]:
    """The proximal gradient method in a plain loop: weights of the inner objective."""
    inner = copy.deepcopy(objective.objective)
    for batch, rate in zip(batches, rates):
        inner.zero_grad()
        inner(batch)[0].backward()
        with torch.no_grad():
            for name, weight in inner.named_parameters():
                weight -= rate * weight.grad
                if weight.dim() > 1:
                    weight.copy_(shrink(name, weight, rate))
    return dict(inner.named_parameters())


def same(objective: dw.Penalize, expected: dict[str, torch.Tensor]) -> None:
    for name, value in objective.objective.named_parameters():
        torch.testing.assert_close(value, expected[name])


# --- Proximal -------------------------------------------------------------------------------


def test_it_is_the_proximal_gradient_method():
    objective, batches = penalized(l1=0.02), [data(seed=i) for i in range(20)]
    expected = by_hand(
        objective, batches, [0.5] * 20, lambda _, w, rate: soft_threshold(w, rate * 0.02)
    )
    dw.fit(dw.Descent(objective, "SGD", lr=0.5), batches, epochs=1)
    same(objective, expected)
    assert (objective.model[0].weight == 0).any()


def test_groups_of_rows_and_columns_with_l1_and_l2():
    for groups, dim in (("rows", 0), ("columns", 1)):
        objective = penalized(l1=0.01, group=0.03, l2=0.1, groups=groups)
        batches = [data(seed=i) for i in range(20)]

        def shrink(_, w, rate, dim=dim):
            w = group_soft_threshold(soft_threshold(w, rate * 0.01), rate * 0.03, dim=dim)
            return w / (1 + 2 * rate * 0.1)

        expected = by_hand(objective, batches, [0.5] * 20, shrink)
        dw.fit(dw.Descent(objective, "SGD", lr=0.5), batches, epochs=1)
        same(objective, expected)
        sizes = objective.model[0].weight.norm(dim=1 - dim)
        assert (sizes == 0).any(), "whole groups are gone"


def test_the_threshold_is_of_the_rate_of_the_update_itself():
    """Schedule sets the next rate before or behind this hook: the rate used counts."""
    batches = [data(seed=i) for i in range(10)]
    rates = [0.5 * cosine(i / 10) for i in range(10)]
    for hooks in ([Schedule(cosine), Proximal()], [Proximal(), Schedule(cosine)]):
        objective = penalized()
        expected = by_hand(objective, batches, rates, lambda _, w, r: soft_threshold(w, r * 0.02))
        dw.fit(dw.Descent(objective, "SGD", lr=0.5), batches, epochs=1, hooks=hooks)
        same(objective, expected)


def test_parameter_groups_have_their_own_thresholds():
    objective, batches = penalized(), [data(seed=i) for i in range(10)]
    fast = {"0.weight": 0.5, "2.weight": 0.05}

    def shrink(name, w, rate):
        return soft_threshold(w, fast[name.removeprefix("model.")] * 0.02)

    inner = copy.deepcopy(objective.objective)
    for batch in batches:
        inner.zero_grad()
        inner(batch)[0].backward()
        with torch.no_grad():
            for name, weight in inner.named_parameters():
                rate = 0.5 if ".0." in name else 0.05
                weight -= rate * weight.grad
                if weight.dim() > 1:
                    weight.copy_(shrink(name, weight, rate))
    groups = [{"params": list(objective.model[0].parameters()), "lr": 0.5},
              {"params": list(objective.model[2].parameters()), "lr": 0.05}]  # fmt: skip
    dw.fit(dw.Descent(objective, torch.optim.SGD(groups)), batches, epochs=1)
    same(objective, dict(inner.named_parameters()))


def test_batches_that_wait_for_their_update_are_not_shrunk_for():
    together, apart = penalized(), penalized()
    x, y = data(16)
    halves = [(x[:8], y[:8]), (x[8:], y[8:])]
    dw.fit(dw.Descent(together, "SGD", lr=0.5), [(x, y)], epochs=5)
    dw.fit(dw.Descent(apart, "SGD", lr=0.5, accumulate=2), halves, epochs=5)
    same(apart, dict(together.objective.named_parameters()))


def test_what_is_not_trained_is_not_shrunk():
    objective = penalized()
    before = objective.model[0].weight.detach().clone()
    step = dw.Descent(objective, "SGD", objective.model[2], lr=0.5)
    dw.fit(step, [data()], epochs=20)
    assert torch.equal(objective.model[0].weight, before)
    assert (objective.model[2].weight == 0).any()
    other = dw.Penalize(dw.Classify(net()), l1=0.1, only="0", proximal=True).double()
    with pytest.raises(ValueError, match=r"Proximal: none of objective.model.0.weight is trained"):
        dw.fit(dw.Descent(other, "SGD", other.model[2], lr=0.5), [data()], epochs=1)


@pytest.mark.parametrize("options", [{}, {"momentum": 0.5}, {"momentum": 0.6, "nesterov": True}])
def test_members_with_rates_and_strengths_of_their_own(options):
    rates, strengths = [0.01, 0.1, 0.5, 0.5], [0.1, 0.1, 0.01, 0.2]
    batches = [data(seed=i) for i in range(10)]

    def members():
        made = [penalized(i) for i in range(4)]
        for one, strength in zip(made, strengths):
            one.l1.fill_(strength)
        return made

    many = dw.Population(members(), optimizer="SGD", lr=rates, shared=True, **options)
    dw.fit(many, batches, epochs=1)
    for i, (one, rate) in enumerate(zip(members(), rates)):
        dw.fit(dw.Descent(one, "SGD", lr=rate, **options), batches, epochs=1)
        for name, value in one.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value)
            assert torch.equal(many.weights()[name][i] == 0, value == 0)


@pytest.mark.parametrize(
    "options", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True},
                {"momentum": 0.8, "dampening": 0.5}, {"momentum": 0.7, "weight_decay": 0.0}],
)  # fmt: skip
def test_with_momentum_it_comes_to_rest_at_the_same_weights(options):
    """A threshold of lr alone would solve a problem with a weaker penalty."""
    torch.manual_seed(0)
    x, y = torch.randn(64, 5).double(), torch.randn(64).double()
    found = []
    for settings in ({}, options):
        objective = dw.Penalize(dw.Regress(dw.nn.shallow((5, 1))), l1=0.2, proximal=True).double()
        dw.fit(dw.Descent(objective, "SGD", lr=0.05, **settings), [(x, y)], steps=1500)
        found.append(objective.model[0].weight.detach())
    torch.testing.assert_close(found[0], found[1], atol=1e-8, rtol=0)
    assert (found[0] == 0).any()
    assert (found[0] != 0).any()


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop", "Adagrad"])
def test_adaptive_optimizers_are_refused(optimizer):
    for step in (
        dw.Descent(penalized(), optimizer, lr=0.1),
        dw.Population(penalized(), 2, optimizer, lr=0.1, shared=True),
    ):
        with pytest.raises(ValueError, match=f"Proximal: needs SGD, got {optimizer}: the thresh"):
            dw.fit(step, [data()], epochs=1)
    dw.fit(dw.Descent(dw.Penalize(dw.Classify(net()), l1=0.1), optimizer), [data()], epochs=1)


def test_without_the_hook_a_step_is_refused():
    for make in (
        dw.Descent,
        lambda o, *a, **k: dw.Population([o], optimizer=a[0], shared=True, **k),
    ):
        objective = penalized()
        step = make(objective, "SGD", lr=0.1)
        with pytest.raises(ValueError, match="proximal=True needs the hook Proximal"):
            step(data())
        dw.fit(step, [data()], epochs=1)  # which brings it
        with pytest.raises(ValueError, match="proximal=True needs the hook Proximal"):
            step(data())
    objective.eval()
    objective(data())  # a reading is free


def test_a_copy_made_in_the_midst_of_a_run_is_refused_too():
    objective, copies = penalized(), []

    class Copy(dw.Hook):
        def after_step(self, loop, logs):
            copies.append(copy.deepcopy(objective))

    dw.fit(dw.Descent(objective, "SGD", lr=0.1), [data()], epochs=1, hooks=[Copy()])
    with pytest.raises(ValueError, match="proximal=True needs the hook Proximal"):
        dw.Descent(copies[0], "SGD", lr=0.1)(data())


def test_two_proximal_penalties():
    inner = dw.Penalize(dw.Classify(net()), l1=0.05, only="0", proximal=True)
    both = dw.Penalize(inner, group=0.05, only="2", proximal=True).double()
    dw.fit(dw.Descent(both, "SGD", lr=0.5), [data()], epochs=40)
    assert (both.model[0].weight == 0).any()
    assert (both.model[2].weight == 0).all(1).any()
    clash = dw.Penalize(inner, group=0.05, proximal=True).double()
    with pytest.raises(
        ValueError, match=r"two proximal penalties take objective.objective.model.0"
    ):
        dw.fit(dw.Descent(clash, "SGD", lr=0.5), [data()], epochs=1)


def test_inside_other_wrappers_and_with_validation():
    objective = dw.Noise(penalized(l1=0.1), 0.1).double()
    run = dw.fit(
        dw.Population(objective, 3, "SGD", lr=0.5, shared=True),
        [data()],
        epochs=20,
        hooks=[Validate([data(seed=1)])],
    )
    weights = run.step.weights()["objective.objective.model.0.weight"]
    assert weights.shape == (3, 8, 6)
    assert (weights == 0).any()
    assert "validation/penalty" in run.history[-1]


def test_a_member_that_failed_stands_still():
    members = [penalized(i) for i in range(2)]
    with torch.no_grad():
        members[1].model[0].bias.fill_(float("inf"))
        members[1].model[2].weight.fill_(float("nan"))
    many = dw.Population(members, optimizer="SGD", lr=0.5, shared=True)
    before = many.weights()["objective.model.0.weight"].clone()
    run = dw.fit(many, [data()], epochs=5)
    assert run.info["failed_members"] == [1]
    now = many.weights()["objective.model.0.weight"]
    assert torch.equal(now[1], before[1])
    assert not torch.equal(now[0], before[0])


def test_logs_show_the_penalty_and_the_bare_loss():
    objective = penalized(l1=0.1)
    step = dw.Descent(objective, "SGD", lr=0.0)
    seen = []

    class Note(dw.Hook):
        def after_step(self, loop, logs):
            seen.append(logs)

    dw.fit(step, [data()], epochs=1, hooks=[Note()])
    bare = objective.objective(data())[0]
    torch.testing.assert_close(seen[0]["loss"], bare.detach())
    torch.testing.assert_close(seen[0]["penalty"], objective.penalty().detach())


# --- MaxNorm --------------------------------------------------------------------------------


def test_rows_are_scaled_to_the_limit_and_others_stay():
    model = net()
    before = {n: w.detach().clone() for n, w in model.named_parameters()}
    limit = float(before["0.weight"].norm(dim=1).median())
    dw.fit(
        dw.Descent(dw.Classify(model), "SGD", lr=0.0), [data()], epochs=1, hooks=[MaxNorm(limit)]
    )
    for name in ("0.weight", "2.weight"):
        sizes = before[name].norm(dim=1, keepdim=True)
        expected = before[name] * (limit / sizes).clamp(max=1)
        torch.testing.assert_close(dict(model.named_parameters())[name].detach(), expected)
        inside = (sizes <= limit).flatten()
        assert torch.equal(dict(model.named_parameters())[name][inside], before[name][inside])
    assert torch.equal(model[0].bias, before["0.bias"])


def test_members_are_projected_each_by_itself():
    limits = [0.1, 0.5, 2.0]
    batches = [data(seed=i) for i in range(10)]
    many = dw.Population([dw.Classify(net(i)) for i in range(3)], optimizer="SGD", lr=0.5,
                         shared=True)  # fmt: skip
    dw.fit(many, batches, epochs=1, hooks=[MaxNorm(limits)])
    for i, limit in enumerate(limits):
        one = dw.Classify(net(i))
        dw.fit(dw.Descent(one, "SGD", lr=0.5), batches, epochs=1, hooks=[MaxNorm(limit)])
        for name, value in one.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value)
        assert one.model[0].weight.norm(dim=1).max() <= limit + 1e-9


def test_columns_filters_and_some_layers():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    x, y = torch.randn(8, 1, 4, 4), torch.randint(0, 2, (8,))
    before = model[2].weight.detach().clone()
    hooks = [
        MaxNorm(0.05, only="0"),
        MaxNorm(0.02, only=lambda n, w: n.endswith("2.weight"), dim=1),
    ]
    dw.fit(dw.Descent(dw.Classify(model), "SGD", lr=0.0), [(x, y)], epochs=1, hooks=hooks)
    assert model[0].weight.flatten(1).norm(dim=1).max() <= 0.05 + 1e-6
    assert model[2].weight.norm(dim=0).max() <= 0.02 + 1e-6
    assert not torch.equal(model[2].weight, before)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaxNorm(0.0), "MaxNorm: limit must be above 0, got 0.0"),
        (lambda: MaxNorm([1.0, -1.0]), "MaxNorm: limit must be above 0"),
        (lambda: MaxNorm(1.0, dim=2), r"dim must be 0 \(rows\) or 1 \(columns\), got 2"),
    ],
)
def test_wrong_limits(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_limits_that_do_not_fit():
    step = dw.Descent(dw.Classify(net()), "SGD", lr=0.1)
    with pytest.raises(ValueError, match="one for each of no members, got 2"):
        dw.fit(step, [data()], epochs=1, hooks=[MaxNorm([1.0, 2.0])])
    with pytest.raises(ValueError, match=r"MaxNorm: model.0.bias has one dimension"):
        dw.fit(step, [data()], epochs=1, hooks=[MaxNorm(1.0, only="0.bias")])
