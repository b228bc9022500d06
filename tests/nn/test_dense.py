from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deepweave as dw
from deepweave.nn import Dense, Lambda, Residual, activation_layer


def kinds(net: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in net]  # pyright: ignore[reportGeneralTypeIssues]


def test_the_structure_of_mlp():
    assert kinds(dw.nn.mlp((4, 3), (8, 8))) == ["Dense", "ReLU", "Dense", "ReLU", "Dense"]
    assert kinds(dw.nn.mlp((4, 3), ())) == ["Dense"]
    assert kinds(dw.nn.mlp(((1, 2, 2), 3), (8,)))[0] == "Flatten"
    net = dw.nn.mlp((4, 3), (8,), dropout=0.2, norm="batch")
    assert kinds(net) == ["Dense", "BatchNorm1d", "ReLU", "Dropout", "Dense"]
    assert net[3].rate == 0.2
    assert kinds(dw.nn.mlp((4, 3), (8,), norm="layer"))[1] == "LayerNorm"
    widths = [(m.in_features, m.out_features) for m in dw.nn.mlp((4, 3), (7, 5)) if
              isinstance(m, Dense)]  # fmt: skip
    assert widths == [(4, 7), (7, 5), (5, 3)]


def test_the_numbers_of_mlp():
    """Layer by layer: a[l] = g[l](W[l] a[l-1] + b[l])."""
    torch.manual_seed(0)
    net = dw.nn.mlp((4, 3), (6, 5), ["tanh", "sigmoid"])
    x = torch.randn(7, 4)
    a = torch.tanh(x @ net[0].weight.T + net[0].bias)
    a = torch.sigmoid(a @ net[2].weight.T + net[2].bias)
    torch.testing.assert_close(net(x), a @ net[4].weight.T + net[4].bias)


def test_residual_adds_where_widths_agree():
    torch.manual_seed(0)
    net = dw.nn.mlp((4, 3), (6, 6, 5), residual=True)
    assert kinds(net) == ["Dense", "ReLU", "Residual", "Dense", "ReLU", "Dense"]
    x = torch.randn(7, 4)
    a = net[:2](x)
    torch.testing.assert_close(net[2](a), a + net[2].inner(a))
    with torch.no_grad():
        net[2].inner[0].weight.zero_()
    assert torch.equal(net[2](a), a)
    assert kinds(dw.nn.mlp((6, 3), (6,), residual=True)) == ["Residual", "Dense"]


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("relu", F.relu), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid), ("gelu", F.gelu),
        ("silu", F.silu), ("elu", F.elu), ("leaky_relu", F.leaky_relu), ("LeakyReLU", F.leaky_relu),
        ("mish", F.mish), ("softplus", F.softplus), ("hardtanh", F.hardtanh), ("selu", F.selu),
        ("identity", lambda x: x), ("linear", lambda x: x), ("softsign", F.softsign),
    ],
)  # fmt: skip
def test_activations_by_name(name, function):
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(activation_layer(name)(x), function(x))


def test_activations_by_function_class_and_module():
    x = torch.linspace(-3, 3, 13)
    assert torch.equal(activation_layer(torch.sin)(x), x.sin())
    assert "sin" in repr(Lambda(torch.sin))
    assert type(activation_layer(nn.ELU)) is nn.ELU
    module = nn.LeakyReLU(0.3)
    assert activation_layer(module) is module
    net = dw.nn.mlp((4, 3), (8, 8), nn.PReLU())
    assert net[1] is not net[3], "a slope of its own in each layer"
    names = [name for name, _ in net.named_parameters(remove_duplicate=False)]
    assert len(names) == len(set(names)) == len(list(net.parameters())) == 8


@pytest.mark.parametrize("activation", ["relu", "tanh", nn.Tanh(), nn.Tanh, torch.tanh])
def test_the_signal_keeps_its_size_through_many_layers(activation):
    torch.manual_seed(0)
    net = dw.nn.mlp((256, 1), (256,) * 20, activation)
    with torch.no_grad():
        size = net[:-1](torch.randn(512, 256)).square().mean().sqrt()
    assert 0.2 < float(size) < 3


@pytest.mark.parametrize("gain", [0.5, math.sqrt(2)])
def test_initial_weights(gain):
    torch.manual_seed(0)
    layer = Dense(400, 300, gain=gain)
    assert float(layer.weight.detach().std()) == pytest.approx(gain / 20, rel=0.02)
    assert not layer.bias.any()
    assert "gain" not in layer.state_dict()


def test_shallow_starts_at_zero():
    net = dw.nn.shallow(((1, 2, 2), 3))
    assert kinds(net) == ["Flatten", "Dense"]
    assert not net(torch.randn(5, 1, 2, 2)).any()


def test_dropout_drops_in_training_only():
    net = dw.nn.mlp((4, 3), (1000,), "identity", dropout=0.4)
    x = torch.ones(1, 4)
    hidden = net[:3](x)
    assert float((hidden == 0).float().mean()) == pytest.approx(0.4, abs=0.06)
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dw.nn.mlp((4, 3), (8, 0)), ValueError, r"widths of at least 1, got \(8, 0\)"),
        (lambda: dw.nn.mlp((4, 3), (8.0,)), ValueError, "widths of at least 1"),
        (lambda: dw.nn.mlp((4, 3), (8,), dropout=1.0), ValueError, r"dropout must lie in \[0, 1\)"),
        (lambda: dw.nn.mlp((4, 3), (8,), norm="group"), ValueError, "'batch' or 'layer'"),
        (lambda: dw.nn.mlp((4, 3), (8,), ["relu"] * 2), ValueError, "1 hidden layers need as many"),
        (lambda: dw.nn.mlp((4, 3), (8,), "rleu"), ValueError, "a name such as .* got 'rleu'"),
        (lambda: dw.nn.mlp((4, 3), (8,), "softmax"), ValueError, "got 'softmax'"),
        (lambda: dw.nn.mlp(4), TypeError, r"mlp: sizes must be a data spec or \(inputs, outputs\)"),
        (lambda: dw.nn.mlp((4, 3, 2)), TypeError, "sizes must be"),
        (lambda: dw.nn.mlp((0, 3)), ValueError, r"sizes must be at least 1, got \(0,\) -> 3"),
        (lambda: dw.nn.shallow((4, 0)), ValueError, "shallow: sizes must be at least 1"),
    ],
)  # fmt: skip
def test_bad_networks(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_residual_is_a_module_of_ones_own():
    x = torch.randn(3, 2)
    assert torch.equal(Residual(nn.Identity())(x), 2 * x)


# --- one layer is a regression that others solve too ----------------------------------------


def descend(objective: dw.Objective, x: torch.Tensor, y: torch.Tensor, penalty: float) -> nn.Linear:
    """Full-batch L-BFGS in float64, with penalty / 2 times the squared weights (not the biases)."""
    objective.double()
    layer = objective.model[-1]
    optimizer = torch.optim.LBFGS(
        objective.parameters(), max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure():
        optimizer.zero_grad()
        loss = objective((x, y))[0] + penalty / 2 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer


@pytest.mark.parametrize("name", ["iris", "breast_cancer"])
def test_one_layer_is_logistic_regression(name):
    from sklearn.linear_model import LogisticRegression

    data = dw.data.load(name)
    x, y = data.train.x.double(), data.train.y
    strength = 0.02
    layer = descend(dw.supervise(dw.nn.shallow(data.spec), data.spec), x, y, strength)
    theirs = LogisticRegression(C=1 / (strength * len(x)), tol=1e-12, max_iter=5000)
    theirs.fit(x.numpy(), y.numpy())
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    np.testing.assert_allclose(weight, theirs.coef_, atol=1e-3)
    np.testing.assert_allclose(bias - bias.mean() * (len(bias) > 1),
                               theirs.intercept_ - theirs.intercept_.mean() * (len(bias) > 1),
                               atol=1e-3)  # fmt: skip
    ours = dw.supervise(nn.Sequential(layer), data.spec).predict(data.test.x.double())
    other = theirs.predict_proba(data.test.x.double().numpy())
    other = other[:, 1] if data.spec.task == "binary" else other
    np.testing.assert_allclose(ours.detach().numpy(), other, atol=1e-3)


@pytest.mark.parametrize("penalty", [0.0, 0.3])
def test_one_layer_is_least_squares(penalty):
    data = dw.data.load("diabetes")
    x, y = data.train.x.double(), data.train.y.double()
    layer = descend(dw.Regress(dw.nn.shallow(data.spec)), x, y, penalty)
    # the closed form: (X'X 2/n + penalty I) w = 2/n X'y on centred data
    center, mean = x - x.mean(0), y.mean()
    gram = 2 / len(x) * center.T @ center + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, 2 / len(x) * center.T @ (y - mean))
    torch.testing.assert_close(layer.weight[0], weight, atol=1e-5, rtol=0)
    bias = mean - x.mean(0) @ weight
    torch.testing.assert_close(layer.bias[0], bias, atol=1e-6, rtol=0)
