from __future__ import annotations

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional import fans, gain, he, lecun, orthogonal, xavier
from deepweave.functional.initial import constant, identity, zeros
from deepweave.nn import initialize, lsuv


def net(*hidden: int, **options) -> nn.Sequential:
    return dw.nn.mlp((64, 10), hidden or (200, 200), **options)


def spread(weight: torch.Tensor) -> float:
    return float(weight.detach().std(correction=0)) * math.sqrt(weight.shape[-1])


# --- initialize -----------------------------------------------------------------------------


def test_every_layer_is_drawn_and_biases_are_set():
    torch.manual_seed(0)
    model = initialize(net(norm="batch"), lecun, bias=0.25)
    for layer in model.children():
        if isinstance(layer, nn.Linear):
            assert spread(layer.weight) == pytest.approx(1.0, rel=0.1)
            assert (layer.bias == 0.25).all()
        if isinstance(layer, nn.BatchNorm1d):
            assert (layer.weight == 1).all()
            assert (layer.bias == 0).all()


def test_the_gain_and_the_generator_reach_the_draw():
    models = [
        initialize(net(), xavier, gain=gain("tanh"), generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    sigma = gain("tanh") * math.sqrt(2 / 264)
    assert float(models[0][0].weight.detach().std()) == pytest.approx(sigma, rel=0.05)
    with pytest.raises(ValueError, match="initialize: zeros takes no gain"):
        initialize(net(), zeros, gain=2.0)


def test_a_population_draws_its_members_by_the_rule():
    """The layer's own default would have sqrt(2) times the spread."""
    model = initialize(net(activation="relu"), lecun)
    for one in (model, copy.deepcopy(model)):
        many = dw.Population(dw.Classify(one), 3, seed=1).weights()["model.2.weight"]
        assert many.shape == (3, 200, 200)
        for weight in many:
            assert spread(weight) == pytest.approx(1.0, rel=0.05)
        assert not torch.equal(many[0], many[1])
    assert not torch.equal(many[0], model[2].weight)


def test_a_copy_is_redrawn_and_the_original_stays():
    model = initialize(net(), he)
    twin, before = copy.deepcopy(model), model[0].weight.detach().clone()
    twin[0].reset_parameters()
    assert torch.equal(model[0].weight, before)
    assert not torch.equal(twin[0].weight, before)
    assert spread(twin[0].weight) == pytest.approx(math.sqrt(2), rel=0.05)


def test_only_some_layers():
    model = net(norm="layer", residual=True)
    before = {n: w.detach().clone() for n, w in model.named_parameters()}
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    initialize(model, zeros, only=names[0])
    assert not model.get_submodule(names[0]).weight.any()
    last = model.get_submodule(names[-1]).weight
    assert torch.equal(last, before[f"{names[-1]}.weight"])
    initialize(model, partial(constant, value=2.0), only=lambda name, layer: name == names[-1])
    assert (last == 2).all()
    inner = next(n for n, m in model.named_modules() if isinstance(m, dw.nn.Residual))
    initialize(model, partial(constant, value=3.0), only=[inner])
    inside = [m.weight for m in model.get_submodule(inner).modules() if isinstance(m, nn.Linear)]
    assert inside
    assert all((w == 3).all() for w in inside)
    with pytest.raises(ValueError, match="only='head' means none of the layers; there is '0'"):
        initialize(net(), he, only="head")
    with pytest.raises(ValueError, match="there is no layer with weights"):
        initialize(nn.ReLU(), he)


def test_a_population_keeps_a_choice_by_layer():
    model = initialize(initialize(net(), he), zeros, only="4")
    many = dw.Population(dw.Classify(model), 2).weights()
    assert not many["model.4.weight"].any()
    assert many["model.2.weight"].any()


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_recurrent_layers_gate_by_gate(kind, gates):
    layer = initialize(kind(6, 6, num_layers=2, bidirectional=True), orthogonal)
    for name, weight in layer.named_parameters():
        if "bias" in name:
            assert not weight.any()
            continue
        for gate in weight.detach().chunk(gates):
            values = torch.linalg.svdvals(gate)
            torch.testing.assert_close(values, torch.ones_like(values))
    initialize(nn.LSTM(6, 8, proj_size=4), orthogonal)  # weight_hr is one matrix


def test_attention_as_three_matrices_and_out():
    torch.manual_seed(0)
    layer = initialize(nn.MultiheadAttention(32, 4), orthogonal)
    for part in (*layer.in_proj_weight.detach().chunk(3), layer.out_proj.weight.detach()):
        torch.testing.assert_close(part @ part.T, torch.eye(32), atol=1e-5, rtol=0)
    both = dw.Population(dw.Regress(_Attend(layer)), 2).weights()["model.inner.in_proj_weight"]
    assert not torch.equal(both[0], both[1]), "torch itself would not draw it anew"


class _Attend(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner


def test_convolutions_group_by_group():
    layer = initialize(nn.Conv2d(8, 8, 1, groups=2), orthogonal)
    for group in layer.weight.detach().flatten(1).chunk(2):
        torch.testing.assert_close(group @ group.T, torch.eye(4), atol=1e-5, rtol=0)
    torch.manual_seed(0)
    wide = initialize(nn.Conv2d(64, 128, 3, groups=4), he)
    assert float(wide.weight.detach().var()) == pytest.approx(2 / (16 * 9), rel=0.05)


def test_transposed_convolutions_keep_the_variance():
    torch.manual_seed(0)
    layer = initialize(nn.ConvTranspose2d(32, 48, 4, stride=2, groups=2), lecun)
    x = torch.randn(4, 32, 16, 16)
    y = layer(x)[:, :, 4:-4, 4:-4]
    assert float(y.detach().var()) == pytest.approx(1.0, rel=0.1)
    assert fans(layer.weight.shape, groups=2, transposed=True, stride=(2, 2)) == (64.0, 384.0)
    same = initialize(nn.ConvTranspose2d(4, 4, 3, padding=1), identity)
    torch.testing.assert_close(same(x[:, :4]), x[:, :4])


def test_what_a_draw_gives_must_fit():
    with pytest.raises(ValueError, match=r"draw must give \(200, 64\), got \(2, 2\)"):
        initialize(net(), lambda w: torch.zeros(2, 2))
    with pytest.raises(ValueError, match=r"draw must give \(200, 64\), got NoneType"):
        initialize(net(), lambda w, **options: None)


def test_an_objective_and_embeddings():
    model = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 2))
    before = model[0].weight.detach().clone()
    objective = initialize(dw.Classify(model), zeros)
    assert isinstance(objective, dw.Classify)
    assert torch.equal(model[0].weight, before)
    assert not model[1].weight.any()


# --- LSUV -----------------------------------------------------------------------------------


def variances(model: nn.Module, x: torch.Tensor) -> list[float]:
    found: list[float] = []
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    handles = [m.register_forward_hook(lambda *a: found.append(float(a[2].var()))) for m in layers]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "selu"])
def test_lsuv_sets_unit_variance_in_a_deep_net(activation, digits):
    torch.manual_seed(0)
    model = dw.nn.mlp(digits.spec, [64] * 30, activation)
    x = digits.train.x[:256]
    assert abs(variances(model, x)[-1] - 1) > 0.05
    assert lsuv(model, x) is model
    assert all(abs(value - 1) < 0.02 for value in variances(model, x))


def test_lsuv_of_convolutions_norms_and_dropout(digits):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(8), nn.Dropout(0.5),
        nn.Conv2d(8, 8, 3, groups=4), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10),
    ).train()  # fmt: skip
    kept = copy.deepcopy(dict(model.named_buffers()))
    lsuv(model, digits.train.x[:256])
    assert all(torch.equal(value, kept[name]) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())
    model[3].eval()
    assert all(abs(value - 1) < 0.02 for value in variances(model, digits.train.x[:256]))


def test_lsuv_of_an_objective_and_of_some_layers(digits):
    torch.manual_seed(0)
    model = dw.nn.mlp(digits.spec, (32, 32))
    before = model[5].weight.detach().clone()
    lsuv(dw.Classify(model), (digits.train.x[:64], digits.train.y[:64]), only=["model.1"])
    found = variances(model, digits.train.x[:64])
    assert found[0] == pytest.approx(1.0, abs=0.02)
    assert torch.equal(model[5].weight, before)


class _Twice(nn.Module):
    """A layer that is used twice: no scale makes both outputs of variance one."""

    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.again(5 * self.again(torch.tanh(self.first(x))))


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Sequential(nn.Linear(8, 8)), torch.zeros(20, 8), "outputs of layer 0 have variance 0"),
        (_Twice(), torch.randn(50, 8), "layer again has variance .* after 10 passes"),
        (nn.LSTM(8, 8), torch.randn(5, 2, 8), "calls none of these layers"),
    ],
)
def test_lsuv_that_fails_leaves_the_weights(model, x, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"lsuv: .*{message}"):
        lsuv(model, x)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
