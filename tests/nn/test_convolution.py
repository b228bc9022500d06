from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave import blueprint
from deepweave.functional import convolve
from deepweave.nn.convolution import channels_last, norm_layer, pool_layer
from deepweave.testing import check_model

MADE = {
    "lenet": (lambda: dw.nn.lenet(((1, 12, 12), 3)), (1, 12, 12)),
    "lenet, max": (lambda: dw.nn.lenet(((2, 17, 16), 3), "relu", "max", padding=0), (2, 17, 16)),
    "batch norm": (lambda: dw.nn.convnet(((2, 8, 8), 3), (3, 4), depth=2), (2, 8, 8)),
    "a sequence": (
        lambda: dw.nn.convnet(((2, 9), 3), (3, 4), "tanh", pool="stride", dropout=0.2),
        (2, 9),
    ),
    "a volume": (
        lambda: dw.nn.convnet(((1, 4, 5, 6), 3), (2, 3), norm=None, hidden=(5,), pool="mean"),
        (1, 4, 5, 6),
    ),
    "layer norm, large kernel": (
        lambda: dw.nn.convnet(((1, 6, 7), 2), (3,), "gelu", kernel=5, norm="layer"),
        (1, 6, 7),
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_what_every_model_must_hold(name):
    make, shape = MADE[name]
    torch.manual_seed(0)
    check_model(make, torch.randn(5, *shape))


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_layer_is_the_reference(dims):
    torch.manual_seed(0)
    layer = dw.nn.convolution(4, 6, dims=dims, stride=2, groups=2)
    x = torch.randn(2, 4, *[7] * dims)
    assert isinstance(layer, {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims])
    found = convolve(x, layer.weight, layer.bias, stride=2, padding=1, groups=2)
    torch.testing.assert_close(layer(x), found, rtol=1e-5, atol=1e-5)


def test_weights_are_hes():
    """Variance gain^2 / (inputs of one output), also with groups; no bias."""
    torch.manual_seed(0)
    for options, inputs in (({}, 9 * 64), ({"groups": 8}, 9 * 8), ({"gain": 1.0}, 9 * 64)):
        layer = dw.nn.convolution(64, 256, **options)
        expected = options.get("gain", math.sqrt(2)) / math.sqrt(inputs)
        assert float(layer.weight.detach().std()) == pytest.approx(expected, rel=0.02)
        assert not layer.bias.any()
    before = layer.weight.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.weight)


def test_variance_is_kept_through_many_layers():
    """Without a norm, forty layers of ReLU keep the signal; with 1 / in it would be 1e-12."""
    torch.manual_seed(0)
    net = dw.nn.convnet(((1, 16, 16), 2), (48,), depth=40, norm=None)
    with torch.no_grad():
        x = torch.randn(8, 1, 16, 16)
        behind = net.features(x)[:, :, 4:12, 4:12]  # away from the padding
    assert 1e-3 < float(behind.square().mean()) < 100


def test_lenet_has_the_sizes_of_the_paper():
    net = dw.nn.lenet(((1, 28, 28), 10))
    kinds = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    counts = [sum(w.numel() for w in m.parameters()) for m in kinds]
    assert counts == [156, 2416, 48120, 10164, 850]
    other = dw.nn.lenet(((1, 32, 32), 10), padding=0)
    assert [w.shape for w in other.parameters()] == [w.shape for w in net.parameters()]


def test_any_size_of_image_where_the_head_is_a_mean():
    net = dw.nn.convnet(((1, 8, 8), 3), (4, 6))
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 3)
    assert net(torch.zeros(2, 1, 13, 30)).shape == (2, 3)


def test_between_stages_the_sides_are_halved():
    for pool, side in (("max", 3), ("mean", 3), ("stride", 4)):
        net = dw.nn.convnet(((1, 13, 13), 3), (2, 3, 4), pool=pool)
        assert net.features(torch.zeros(1, 1, 13, 13)).shape == (1, 4, side, side)


def test_a_layout_changes_no_number():
    torch.manual_seed(0)
    net = dw.nn.convnet(((3, 12, 12), 4), (8, 8)).double().eval()
    x = torch.randn(2, 3, 12, 12).double()
    laid = channels_last(x)
    assert laid.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(laid, x)
    torch.testing.assert_close(net.score(x), net(x), rtol=1e-12, atol=1e-12)
    one = channels_last(torch.randn(2, 1, 4, 4))
    assert one.stride()[1] == 1, "one channel, laid out such that the first convolution sees it"
    assert channels_last(x[..., 0]).stride() == x[..., 0].stride()


def test_a_population_learns_what_its_members_learn_alone():
    """Batch norm's statistics too: they are each member's own."""
    x, y = torch.randn(16, 1, 8, 8), torch.randint(0, 3, (16,))
    torch.manual_seed(0)
    nets = [dw.nn.convnet(((1, 8, 8), 3), (4, 4)).double() for _ in range(2)]
    alone = [dw.Descent(dw.Classify(net), "SGD", lr=0.1) for net in nets]
    copies = [dw.nn.convnet(((1, 8, 8), 3), (4, 4)).double() for _ in range(2)]
    for copy, net in zip(copies, nets):
        copy.load_state_dict(net.state_dict())
    both = dw.Population([dw.Classify(c) for c in copies], optimizer="SGD", lr=0.1, shared=True)
    for _ in range(3):
        for one in (*alone, both):
            one((x.double(), y))
    for i, one in enumerate(alone):
        for name, value in one.objective.state_dict().items():
            torch.testing.assert_close(both.weights()[name][i], value, rtol=1e-9, atol=1e-9)


def test_saved_and_made_again(tmp_path):
    data = dw.data.load("digits")
    net = dw.nn.convnet(data.spec, (4, 6), norm="group")
    run = dw.fit(dw.Classify(net), data, epochs=1, out=tmp_path / "run")
    x = data.test.x[:5]
    assert torch.equal(dw.load(tmp_path / "run")(x), run.model.eval()(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dw.nn.convnet((5, 3)), r"convnet: needs sequences .* got \(5,\)"),
        (
            lambda: dw.nn.convnet(((1, 7, 9), 3), (2,) * 4),
            "convnet of 4 widths: needs images of at least 8 pixels a side, got 7 x 9",
        ),
        (lambda: dw.nn.convnet(((1, 8, 8), 3), ()), r"widths must be at least 1, got \(\)"),
        (lambda: dw.nn.convnet(((1, 8, 8), 3), (4, 0)), r"widths must be at least 1, got \(4, 0\)"),
        (lambda: dw.nn.convnet(((1, 8, 8), 3), depth=0), "depth must be at least 1"),
        (lambda: dw.nn.convnet(((1, 8, 8), 3), kernel=4), "kernel must be odd, got 4"),
        (lambda: dw.nn.convnet(((1, 8, 8), 3), pool="min"), "pool must be .* got 'min'"),
        (lambda: dw.nn.convnet(((1, 8, 8), 3), norm="bach"), "norm: expected .* got 'bach'"),
        (lambda: dw.nn.convnet(((1, 8, 8), 3), dropout=1.0), r"rate must lie in \[0, 1\), got 1"),
        (lambda: dw.nn.lenet(((1, 8, 8), 3)), "lenet: needs images of at least 12 .* got 8 x 8"),
        (lambda: dw.nn.lenet(((3, 20), 3)), r"lenet: needs images \(C, H, W\), got \(3, 20\)"),
        (lambda: dw.nn.lenet(((1, 28, 28), 3), pool="mix"), "pool: expected .* got 'mix'"),
        (lambda: dw.nn.convolution(4, 8, 2), "an even kernel needs its padding told, got 2"),
        (lambda: dw.nn.convolution(4, 8, dims=4), "dims must be 1, 2 or 3, got 4"),
        (lambda: dw.nn.convolution(4, 6, groups=4), "4 groups must divide .* got 4 -> 6"),
        (lambda: dw.nn.convolution(0, 6), "expected 3 whole numbers of at least 1"),
        (lambda: norm_layer("spectral", 4), "norm: expected"),
        (lambda: pool_layer("sum"), "pool: expected"),
    ],
)
def test_refused_when_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_refused_when_called():
    net = dw.nn.convnet(((1, 8, 8), 3), (4, 6))
    with pytest.raises(ValueError, match=r"convnet: x must be \(B, 1, H, W\), got \(2, 3, 8, 8\)"):
        net(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match=r"x must be \(B, 1, H, W\), got \(2, 64\)"):
        net(torch.zeros(2, 64))
    with pytest.raises(ValueError, match="at least 2 pixels a side"):
        net(torch.zeros(2, 1, 8, 1))
    with pytest.raises(ValueError, match=r"lenet: x must be \(B, 1, 28, 28\), got"):
        dw.nn.lenet(((1, 28, 28), 3))(torch.zeros(2, 1, 32, 32))
    batch = (torch.zeros(4, 3, 8, 8), torch.zeros(4).long())
    with pytest.raises(ValueError, match=r"convnet: x must be \(B, 1, H, W\), got \(4, 3, 8, 8\)"):
        dw.fit(dw.Classify(net), [batch], epochs=1)


def test_the_blueprint_is_plain():
    note = blueprint.describe(dw.nn.convnet(((1, 8, 8), 3), (4, 6)))
    assert note is not None
    assert note["make"] == "deepweave.nn.convnet.convnet"
    assert note["with"]["widths"] == [4, 6]
