from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression, Ridge, enet_path
from torch import nn

import deepweave as dw
from deepweave.functional import group_lasso, penalties
from deepweave.testing import check_objective


def net(**options) -> nn.Sequential:
    torch.manual_seed(0)
    return dw.nn.mlp((6, 3), (8,), **options)


def data(n: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 6, generator=g), torch.randint(0, 3, (n,), generator=g)


# --- the wrapper ----------------------------------------------------------------------------


def test_the_penalty_is_in_training_and_not_in_evaluation():
    inner = dw.Classify(net())
    objective = dw.Penalize(inner, l1=0.1, l2=0.01, group=0.02)
    weights = [inner.model[0].weight, inner.model[2].weight]
    by_hand = (
        0.1 * penalties.l1(weights) + 0.01 * penalties.l2(weights) + 0.02 * group_lasso(weights)
    )
    bare = inner(data())[0]
    loss, logs = objective(data())
    torch.testing.assert_close(loss, bare + by_hand)
    torch.testing.assert_close(logs["penalty"], by_hand.detach())
    objective.eval()
    loss, logs = objective(data())
    assert torch.equal(loss, inner(data())[0])
    torch.testing.assert_close(logs["penalty"], by_hand.detach())
    assert "accuracy" in logs
    assert not logs["penalty"].requires_grad


def test_biases_and_norms_are_left_out():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), nn.Flatten(),
        nn.LayerNorm([64]), nn.Linear(64, 6), nn.LayerNorm([2, 3]), nn.Linear(6, 2),
    )  # fmt: skip
    model.insert(6, nn.Unflatten(1, (2, 3)))
    model.insert(8, nn.Flatten())
    objective = dw.Penalize(dw.Classify(model), l1=1.0)
    assert [n.removeprefix("objective.model.") for n in objective.taken] == [
        "0.weight", "5.weight", "9.weight",
    ]  # fmt: skip
    assert "weights=['0.weight', '5.weight', '9.weight']" in repr(objective)
    model[5].requires_grad_(False)
    assert len(dw.Penalize(dw.Classify(model), l1=1.0).taken) == 2


def test_only():
    inner = dw.Classify(net(norm="batch"))

    def taken(only):
        return [
            n.removeprefix("objective.model.") for n in dw.Penalize(inner, l1=1, only=only).taken
        ]

    assert taken("0") == ["0.weight"]
    assert taken("model.0") == ["0.weight"]
    assert taken(["3", "0.bias"]) == ["0.bias", "3.weight"]
    assert taken(lambda name, w: w.dim() == 1 and "bias" not in name) == ["1.weight"]
    with pytest.raises(ValueError, match=r"no weight is named '7'; there are 0.weight, 0.bias"):
        taken("7")
    with pytest.raises(ValueError, match="Penalize: there are no weights to take"):
        taken(lambda name, w: False)
    with pytest.raises(ValueError, match="bias has one dimension, it has no groups"):
        dw.Penalize(inner, group=1.0, only="0.bias")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"l1": -0.1}, "Penalize: l1 must be finite and not below 0, got -0.1"),
        ({"l2": float("nan")}, "Penalize: l2 must be finite and not below 0, got nan"),
        ({"group": float("inf")}, "Penalize: group must be finite"),
        ({}, "Penalize: give a strength: l1=, l2= or group="),
        ({"l1": 1, "groups": "cells"}, "groups must be 'rows' or 'columns', got 'cells'"),
    ],
)
def test_wrong_strengths(options, message):
    with pytest.raises(ValueError, match=message):
        dw.Penalize(dw.Classify(net()), **options)


def test_what_is_no_objective():
    with pytest.raises(TypeError, match="Penalize: expected an objective, got Sequential: wrap"):
        dw.Penalize(net(), l1=1.0)


def test_model_predictions_checks_and_folders_pass_through(tmp_path, digits):
    model = dw.nn.mlp(digits.spec, (16,))
    objective = dw.Penalize(dw.Classify(model), l2=1e-4)
    assert objective.model is model
    x = digits.test.x[:4]
    assert torch.equal(objective.predict(x), objective.objective.predict(x))
    with pytest.raises(ValueError, match=r"Classify: labels must lie in 0..9, got 3..12"):
        objective.check((x, torch.tensor([3, 12, 4, 4])))
    run = dw.fit(objective, digits, epochs=1, out=tmp_path / "run")
    assert run.model is model
    assert dw.load(tmp_path / "run")[1].weight.shape == (16, 64)
    assert run.info["diagnostics"][0]["layer"] == "1"
    last = [line for line in run.history if "validation/penalty" in line][-1]
    assert last["validation/penalty"] > 0
    run.test()


def test_penalties_nest_and_share_their_log():
    inner = dw.Penalize(dw.Classify(net()), l1=0.1, only="0")
    outer = dw.Penalize(inner, l2=0.2, only="2")
    loss, logs = outer(data())
    bare = inner.objective(data())[0]
    torch.testing.assert_close(loss - bare, logs["penalty"], atol=1e-6, rtol=0)
    check_objective(
        lambda: dw.Penalize(dw.Penalize(dw.Classify(net()), l1=1e-3, only="0"), l2=1e-3), data()
    )


# --- members --------------------------------------------------------------------------------


def test_a_population_over_strengths_is_the_loop_over_them():
    strengths = [0.0, 0.003, 0.03, 0.3]
    base = dw.Penalize(dw.Classify(net()).double(), l1=0.0, l2=0.01)
    members = base.path(l1=strengths)
    many = dw.Population(copy.deepcopy(members), optimizer="Adam", shared=True, lr=1e-2)
    x, y = data()
    alone = [dw.Descent(one, "Adam", lr=1e-2) for one in members]
    for _ in range(30):
        logs = many((x.double(), y))
        losses = [step((x.double(), y))["loss"] for step in alone]
        torch.testing.assert_close(logs["loss"], torch.stack(losses))
    for i, one in enumerate(members):
        assert float(one.l1) == pytest.approx(strengths[i])
        for name, value in one.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value)
    sizes = many.weights()["objective.model.0.weight"].abs().sum((1, 2))
    assert (sizes.diff() < 0).all(), "stronger is smaller"


def test_members_with_other_terms_are_refused():
    """One program runs for all: a term that some lack would be silently left out."""
    inner = dw.Classify(net())
    one, other = dw.Penalize(inner, l1=0.1), dw.Penalize(copy.deepcopy(inner), l2=0.1)
    for pair in ((one, other), (other, one)):
        with pytest.raises(ValueError, match="Population: the members differ in shape"):
            dw.Population(list(pair))


def test_path_refuses_what_it_has_not():
    objective = dw.Penalize(dw.Classify(net()), l1=0.1)
    with pytest.raises(ValueError, match=r"path takes l1, got \['l2'\]"):
        objective.path(l2=[0.1])
    with pytest.raises(ValueError, match="path takes l1, got none"):
        objective.path()
    with pytest.raises(ValueError, match="l1 must be finite and not below 0, got -1"):
        objective.path(l1=[0.1, -1.0])
    with pytest.raises(ValueError, match=r"lists of one length, got \[1, 2\]"):
        dw.Penalize(dw.Classify(net()), l1=0.1, l2=0.1).path(l1=[0.1], l2=[0.1, 0.2])


# --- parity with scikit-learn ---------------------------------------------------------------


def diabetes() -> tuple[np.ndarray, np.ndarray]:
    x, y = load_diabetes(return_X_y=True)
    return (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()


@pytest.mark.parametrize("ratio", [1.0, 0.5, 0.9])
def test_a_proximal_population_is_scikit_learns_path(ratio):
    """The whole path of Lasso and ElasticNet in one program: weights to 1e-3, zeros exactly."""
    x, y = diabetes()
    alphas, expected, _ = enet_path(x, y, l1_ratio=ratio, eps=1e-3, alphas=100, tol=1e-12,
                                    max_iter=100_000)  # fmt: skip
    base = dw.Penalize(dw.Regress(dw.nn.shallow((10, 1))), l1=0.0, l2=0.0, proximal=True).double()
    members = base.path(l1=2 * alphas * ratio, l2=alphas * (1 - ratio))
    many = dw.Population(members, optimizer="SGD", lr=0.45, momentum=0.83, shared=True)
    dw.fit(many, [(torch.tensor(x), torch.tensor(y))], steps=300)
    found = many.weights()["objective.model.0.weight"][:, 0].numpy().T
    assert abs(found - expected).max() < 1e-6  # asked for: 1e-3
    assert ((found == 0) == (expected == 0)).all()
    assert 0.1 < (found == 0).mean() < 0.9
    assert (found[:, 0] == 0).all(), "at the largest alpha nothing is left"


def test_l2_is_ridge():
    x, y = diabetes()
    alpha = 30.0
    expected = Ridge(alpha=alpha, fit_intercept=True).fit(x, y).coef_
    objective = dw.Penalize(dw.Regress(dw.nn.shallow((10, 1))), l2=alpha / len(x)).double()
    dw.fit(dw.Descent(objective, "SGD", lr=0.4, momentum=0.8),
           [(torch.tensor(x), torch.tensor(y))], steps=300)  # fmt: skip
    np.testing.assert_allclose(objective.model[0].weight.detach()[0], expected, atol=1e-6)


def test_l1_and_l2_are_those_of_logistic_regression():
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0))[:, [0, 1, 4, 5, 6, 8, 9, 15]]  # none twins of each other
    strength = 20.0  # 1 / C
    ridge = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10_000).fit(x, y).coef_[0]
    objective = dw.Penalize(dw.Classify(dw.nn.shallow((8, 1))), l2=strength / (2 * len(x))).double()
    batch = (torch.tensor(x), torch.tensor(y))
    dw.fit(dw.Descent(objective, "SGD", lr=1.0, momentum=0.8), [batch], steps=400)
    np.testing.assert_allclose(objective.model[0].weight.detach()[0], ridge, atol=1e-4)
    sparse = LogisticRegression(C=1 / strength, l1_ratio=1.0, solver="saga", tol=1e-10,
                                max_iter=50_000).fit(x, y).coef_[0]  # fmt: skip
    objective = dw.Penalize(
        dw.Classify(dw.nn.shallow((8, 1))), l1=strength / len(x), proximal=True
    ).double()
    dw.fit(dw.Descent(objective, "SGD", lr=1.0, momentum=0.8), [batch], steps=1500)
    found = objective.model[0].weight.detach()[0].numpy()
    np.testing.assert_allclose(found, sparse, atol=1e-4)
    assert ((found == 0) == (sparse == 0)).all()
    assert (found == 0).any()


def test_the_subgradient_gives_no_zeros():
    x, y = diabetes()
    objective = dw.Penalize(dw.Regress(dw.nn.shallow((10, 1))), l1=0.3)
    with torch.no_grad():
        objective.model[0].weight.normal_(generator=torch.Generator().manual_seed(0))
    batch = (torch.tensor(x).float(), torch.tensor(y).float())
    dw.fit(dw.Descent(objective, "SGD", lr=0.05), [batch], steps=300)
    weights = objective.model[0].weight.detach()
    assert not (weights == 0).any()
    assert (weights.abs() < 0.05).any(), "only near it"
