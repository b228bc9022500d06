from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import vmap

import deepweave as dw
from deepweave.nn.shortcuts import BasicBlock, Bottleneck, Preactivation, Trim
from deepweave.testing import check_model

MADE = {
    "basic": lambda: dw.nn.resnet_small(((1, 8, 8), 3), 1, (2, 3, 4)),
    "bottleneck": lambda: dw.nn.resnet_small(((1, 8, 8), 3), (2, 1), (2, 3), kind="bottleneck"),
    "pre-activation, everything": lambda: dw.nn.resnet_small(
        ((1, 8, 8), 3), 1, (4, 4), kind="preactivation", norm="group", activation="gelu",
        squeeze=1, drop=0.3,
    ),
    "plain": lambda: dw.nn.resnet_small(((1, 8, 8), 3), 1, (2, 3, 4), residual=False),
    "pooled": lambda: dw.nn.resnet_small(((1, 8, 8), 3), 1, (3, 4), pooled=True, norm=None),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_what_every_model_must_hold(name):
    torch.manual_seed(0)
    check_model(MADE[name], torch.randn(5, 1, 8, 8))


def silent(block: nn.Module) -> nn.Module:
    """The block with all weights of its branch zero."""
    with torch.no_grad():
        for name, weight in block.named_parameters():
            if not name.startswith("downsample"):
                weight.zero_()
    return block.eval()


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck, Preactivation])
def test_a_block_whose_branch_is_zero_passes_its_input_on(kind):
    """y = f(0 + x): the identity, behind ReLU where that comes last."""
    torch.manual_seed(0)
    x = torch.randn(3, 4 * kind.expansion, 6, 6)
    y = silent(kind(4 * kind.expansion, 4, 1, Trim()))(x)
    assert torch.equal(y, x if kind is Preactivation else x.relu())
    block = kind(4 * kind.expansion, 4, 1, Trim(activation="tanh")).eval()
    y = block.branch(x) + x
    assert torch.equal(block(x), y if kind is Preactivation else y.tanh())
    flat = silent(kind(4 * kind.expansion, 4, 1, Trim(residual=False)))(x)
    assert not flat.any(), "without a shortcut nothing is left"


@pytest.mark.parametrize("kind", [BasicBlock, Bottleneck, Preactivation])
def test_a_projection_stands_where_shapes_differ(kind):
    assert kind(4 * kind.expansion, 4, 1, Trim()).downsample is None
    torch.manual_seed(0)
    block = kind(3, 4, 2, Trim())
    y = block(torch.randn(2, 3, 7, 7))
    assert y.shape == (2, 4 * kind.expansion, 4, 4)
    layer = block.downsample if kind is Preactivation else block.downsample[0]
    assert layer.weight.shape == (4 * kind.expansion, 3, 1, 1)
    assert kind(3, 4, 2, Trim(residual=False)).downsample is None


def test_layers_and_weights_of_the_paper():
    """6 n + 2 layers; table 6 gives 0.27 and 0.85 million weights, with shortcuts of no weights."""
    for n, layers, count in ((3, 20, 269_722), (9, 56, 853_018)):
        net = dw.nn.resnet_small(((3, 32, 32), 10), n)
        main = {name: w for name, w in net.named_parameters() if "downsample" not in name}
        assert sum(w.dim() > 1 for w in main.values()) == layers
        assert sum(w.numel() for w in main.values()) == count
        plain = dw.nn.resnet_small(((3, 32, 32), 10), n, residual=False)
        assert {k: v.shape for k, v in plain.named_parameters()} == {
            k: v.shape for k, v in main.items()
        }


def test_the_plain_twin_differs_in_its_shortcuts_alone():
    torch.manual_seed(0)
    net = dw.nn.resnet_small(((1, 8, 8), 3), 2, (4,)).eval()
    plain = dw.nn.resnet_small(((1, 8, 8), 3), 2, (4,), residual=False).eval()
    plain.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert not torch.allclose(net(x), plain(x))
    for block in net.layer1.children():
        block.residual = False
    assert torch.equal(net(x), plain(x))


def test_stochastic_depth():
    torch.manual_seed(0)
    layer = dw.nn.StochasticDepth(0.25)
    y = layer(torch.ones(4000, 2, 3))
    assert (y == y[:, :1, :1]).all(), "a sample as a whole is kept or left out"
    assert float((y[:, 0, 0] == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(y.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(layer.eval()(y), y)
    rates = torch.tensor([0.0, 0.9])

    def one(rate):
        return torch.func.functional_call(layer.train(), {"rate": rate}, (torch.ones(500, 1),))

    kept = vmap(one, randomness="different")(rates)
    assert kept[0].eq(1).all()
    assert 0.8 < float((kept[1] == 0).float().mean()) < 0.97
    assert layer.half()(torch.ones(10, 1).half()).dtype == torch.float16
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\), got 1"):
        dw.nn.StochasticDepth(1.0)


def test_later_blocks_are_left_out_more_often():
    net = dw.nn.resnet_small(((1, 8, 8), 3), 2, (2, 2), drop=0.4)
    rates = [float(m.rate) for m in net.modules() if isinstance(m, dw.nn.StochasticDepth)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_squeeze_and_excitation_is_its_formula():
    torch.manual_seed(0)
    layer = dw.nn.SqueezeExcitation(8, 4)
    for shape in ((5,), (4, 6), (2, 3, 4)):
        x = torch.randn(3, 8, *shape)
        mean = x.flatten(2).mean(2)
        hidden = torch.relu(mean @ layer.squeeze.weight.T + layer.squeeze.bias)
        share = torch.sigmoid(hidden @ layer.excite.weight.T + layer.excite.bias)
        expected = x * share.view(3, 8, *[1] * len(shape))
        torch.testing.assert_close(layer(x), expected)
    with pytest.raises(ValueError, match="reduction must be at least 1, got 0"):
        dw.nn.SqueezeExcitation(8, 0)


def test_fifty_layers_learn_with_shortcuts_and_not_without():
    """The proof in small: digits, three passes, the same first weights and the same order."""
    data = dw.data.load("digits")
    part, losses = data.train[:512], {}
    for residual in (True, False):
        torch.manual_seed(0)
        net = dw.nn.resnet_small(data.spec, 8, (4, 8, 16), residual=residual)
        step = dw.Descent(dw.Classify(net), "SGD", lr=0.03, momentum=0.9)
        dw.fit(step, part, batch=32, epochs=3, out=False)
        losses[residual] = float(step.objective.train()((part.x, part.y))[0].detach())
    assert losses[True] < 0.5 * losses[False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda s: dw.nn.resnet_small(s, 0), r"blocks must be at least 1, got \(0, 0, 0\)"),
        (lambda s: dw.nn.resnet_small(s, (1, 2)), "2 stages of blocks, but 3 widths"),
        (lambda s: dw.nn.resnet_small(s, 1, (4, 0)), r"widths must be at least 1, got \(4, 0\)"),
        (lambda s: dw.nn.resnet_small(s, kind="wide"), "kind must be one of .* got 'wide'"),
        (lambda s: dw.nn.resnet_small(s, drop=-0.1), r"drop must lie in \[0, 1\), got -0.1"),
        (lambda s: dw.nn.resnet_small((8, 3)), r"resnet_small: needs images .* got \(8,\)"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make(((1, 8, 8), 3))


def test_refused_when_called():
    net = dw.nn.resnet_small(((1, 8, 8), 3), 1, (2,))
    with pytest.raises(ValueError, match=r"resnet_small: x must be \(B, 1, H, W\), got \(2, 3, 8"):
        net(torch.zeros(2, 3, 8, 8))
