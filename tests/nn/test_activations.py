from __future__ import annotations

import pytest
import torch
from tests.contracts.functions import ACTIVATIONS
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

import deepweave as dw
from deepweave import blueprint, functional as f
from deepweave.core import population
from deepweave.nn import Choice, activation_layer
from deepweave.nn.activations import gain_of

X = torch.linspace(-3, 3, 13)
NAMES = {one.name: one.call for one in ACTIVATIONS.values() if one.name}


@pytest.mark.parametrize("name", NAMES)
def test_the_layer_of_a_name_is_the_function_of_that_name(name):
    torch.testing.assert_close(activation_layer(name)(X), NAMES[name](X))
    torch.testing.assert_close(activation_layer(name.upper().replace("_", ""))(X), NAMES[name](X))
    torch.testing.assert_close(activation_layer(getattr(f, name))(X), NAMES[name](X))


def test_learned_slopes_become_a_layer():
    for given in ("prelu", f.prelu, nn.PReLU):
        assert type(activation_layer(given)) is nn.PReLU
    with pytest.raises(ValueError, match=r"slope must be \(1,\) or \(3,\), got \(2,\)"):
        f.prelu(torch.zeros(4, 3), torch.zeros(2))


@pytest.mark.parametrize("given", [f.gelu_tanh, f.mish, "gelu_tanh", "hard_swish", f.leaky_relu])
def test_networks_with_functions_are_made_again(given):
    net = dw.nn.mlp((4, 3), (8, 8), given)
    note = blueprint.describe(net)
    assert note is not None
    other = blueprint.build(note)
    other.load_state_dict(net.state_dict())
    x = torch.randn(5, 4)
    assert torch.equal(other(x), net(x))
    name = given if isinstance(given, str) else given.__name__
    assert gain_of(given) == gain_of(name)


def test_gelu_and_its_tanh_start_alike():
    assert gain_of("gelu_tanh") == gain_of(f.gelu_tanh) == gain_of(nn.GELU()) == gain_of("gelu")
    assert gain_of(Choice(("relu", "tanh"), 1)) == gain_of("tanh")


# --- one of several --------------------------------------------------------------------------

KINDS = ("sigmoid", "relu", "prelu", "tanh", "gelu_tanh")


@pytest.mark.parametrize("index", range(5))
def test_alone_it_is_the_activation(index):
    layer = Choice(KINDS, index)
    expected = activation_layer(KINDS[index])(X)
    torch.testing.assert_close(layer(X), expected)
    assert repr(layer) == f"Choice({KINDS[index]})"
    with pytest.raises(ValueError, match=r"Choice: index must be in 0\.\.4, got 5"):
        Choice(KINDS, 5)
    with pytest.raises(ValueError, match="got 'rulu'"):
        Choice(("rulu",), 0)


def members(order: list[int]) -> list[dw.Objective]:
    made = []
    for i, kind in enumerate(order):
        torch.manual_seed(i)
        net = dw.nn.mlp((6, 3), (8, 8), Choice(KINDS, kind)).double()
        made.append(dw.Classify(net))
    return made


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own, without rules
@pytest.mark.parametrize("order", [[0, 0, 1, 2, 2, 3, 4], [3, 0, 2, 3, 1, 0, 2]])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("rules", [True, False])
def test_a_population_of_activations_learns_what_each_would_alone(
    monkeypatch, order, shared, rules
):
    if not rules:
        from contextlib import nullcontext

        monkeypatch.setattr(population, "stacked", nullcontext)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 10, 6, generator=generator).double()
    y = torch.randint(0, 3, (7, 10), generator=generator)
    many = dw.Population(members(order), optimizer="SGD", lr=0.1, shared=shared)
    alone = [dw.Descent(one, "SGD", lr=0.1) for one in members(order)]
    for _ in range(3):
        found = many((x[0], y[0]) if shared else (x, y))["loss"]
        losses = [
            step((x[0], y[0]) if shared else (x[i], y[i]))["loss"] for i, step in enumerate(alone)
        ]
        torch.testing.assert_close(found, torch.stack(losses), rtol=1e-10, atol=1e-12)
    for i, step in enumerate(alone):
        for name, value in step.objective.state_dict().items():
            torch.testing.assert_close(many.weights()[name][i], value, rtol=1e-10, atol=1e-12)
    kinds = {0.25} | {float(w[i]) for w in [many.weights()["model.1.slope"]] for i in range(7)}
    assert len(kinds) == 1 + order.count(2), "slopes are learned where they are used"


def test_each_member_computes_its_own_activation_only(monkeypatch):
    seen: list[tuple[int, int]] = []
    real = Choice._apply_one

    def count(self: Choice, k: int, x: Tensor, slope: Tensor | None) -> Tensor:
        seen.append((k, len(x)))
        return real(self, k, x, slope)

    monkeypatch.setattr(Choice, "_apply_one", count)
    dw.Population(members([0, 0, 3, 3, 3]), shared=True).evaluate(
        (torch.zeros(4, 6).double(), torch.zeros(4).long())
    )
    assert seen == [(0, 2), (3, 3)] * 2


def test_under_further_transforms():
    """Slopes per member, and per sample, by torch.func."""
    layers = [Choice(KINDS, kind) for kind in (2, 0, 3)]
    weights, buffers = stack_module_state(layers)  # pyright: ignore[reportArgumentType]
    x = torch.linspace(-2, 2, 5)

    def total(w, b, x):
        return functional_call(layers[0], (w, b), (x,)).sum()

    found = vmap(grad(total, argnums=2), (0, 0, None))(weights, buffers, x)
    rows = vmap(vmap(grad(total, argnums=2), (None, None, 0)), (0, 0, None))(weights, buffers, x)
    for i, layer in enumerate(layers):
        at = x.clone().requires_grad_()
        layer(at).sum().backward()
        torch.testing.assert_close(found[i], at.grad)
        torch.testing.assert_close(rows[i], at.grad)


def test_a_choice_in_a_folder(tmp_path):
    data = dw.data.load("digits", limit=200)
    nets = [dw.nn.mlp(data.spec, (8,), Choice(("relu", "tanh"), i)) for i in (0, 1)]
    many = dw.Population([dw.Classify(net) for net in nets], shared=True)
    run = dw.fit(many, data, epochs=1, out=tmp_path / "run")
    again = dw.load(tmp_path / "run")
    x = data.test.x
    torch.testing.assert_close(again(x), run.model.eval()(x))
