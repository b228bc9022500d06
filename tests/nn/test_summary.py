from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import deepweave as dw
from deepweave.nn import summary

PHOTO = ((3, 224, 224), 1000)


def counted(model: nn.Module, x: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(x)
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def resnet18() -> nn.Module:
    return dw.nn.resnet(PHOTO, 18)


def test_resnet_18(resnet18):
    found = summary(resnet18, PHOTO)
    assert found.parameters == found.trainable == 11_689_512
    assert found.flops == counted(resnet18, torch.zeros(1, 3, 224, 224)) == 3_628_146_688
    assert sum(row.parameters for row in found.rows) == found.parameters
    assert sum(row.flops for row in found.rows) == found.flops
    assert sum(row.memory for row in found.rows) == found.memory
    assert not found.uncounted
    fields = {row.name: row.field for row in found.folded(1).rows}
    # Araujo, Norris & Sim 2019 have 435 for ResNet-18's last map
    assert fields["conv1"] == (7, 7)
    assert fields["maxpool"] == (11, 11)
    assert fields["layer4"] == (435, 435)
    assert fields["fc"] == (224, 224)
    assert [r.name for r in found.folded(1).rows][:6] == [
        "conv1", "bn1", "relu", "maxpool", "layer1", "layer2",
    ]  # fmt: skip


def test_fields_through_branches():
    """Inception v3's known field is 1311 x 1311; the branches of unequal reach are joined."""
    found = summary(dw.nn.inception_v3(((3, 299, 299), 5)), ((3, 299, 299), 5))
    fields = {row.name: row.field for row in found.folded(1).rows}
    assert fields["Mixed_7c"] == (1311, 1311)
    assert fields["Mixed_5b"] == (63, 63)


class Branches(nn.Module):
    """Branches that start at different places, of different reach."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(1, 2, 5, padding=2)
        self.low = nn.Conv2d(1, 2, (1, 3), padding=(0, 1), dilation=(1, 1))
        self.last = nn.Conv2d(4, 1, 3, stride=2, padding=1)

    def forward(self, x):
        return self.last(torch.cat([F.relu(self.wide(x)), self.low(x) * 2 + x], 1))


@pytest.mark.parametrize(
    "model",
    [
        Branches(),
        nn.Sequential(nn.Conv2d(1, 2, 3, dilation=2), nn.AvgPool2d(3, 2), nn.Conv2d(2, 1, 2)),
        nn.Sequential(nn.ZeroPad2d((2, 0, 1, 3)), nn.Conv2d(1, 1, 3, stride=3), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(6), nn.Conv2d(1, 1, 2)),
    ],
    ids=["branches", "dilated", "padded", "adaptive"],
)
def test_a_field_is_what_a_slope_reaches(model):
    """Read beside the slopes of one unit in the middle, with every weight positive."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.1 + torch.rand_like(weight))
    x = torch.rand(1, 1, 26, 26, requires_grad=True)
    soft = [m for m in model.modules() if isinstance(m, nn.MaxPool2d)]
    y = model(x)
    if soft:  # the largest alone has a slope: all that it was chosen from are asked for
        y = F.avg_pool2d(model[:-1](x), 2)
    middle = y[0, 0, y.shape[2] // 2, y.shape[3] // 2]
    reached = torch.autograd.grad(middle, x)[0][0, 0].nonzero()
    sides = tuple((reached.amax(0) - reached.amin(0) + 1).tolist())
    found = summary(model, torch.zeros(1, 1, 26, 26))
    assert found.folded(1).rows[-1].field == sides


def test_one_axis_and_three():
    model = nn.Sequential(
        nn.Conv1d(1, 2, 3, padding="same"), nn.MaxPool1d(2), nn.AvgPool1d(2), nn.Conv1d(2, 2, 3)
    )
    assert [row.field for row in summary(model, ((1, 32), 2)).rows] == [(3,), (4,), (6,), (14,)]
    model = nn.Sequential(nn.Conv3d(1, 2, (1, 3, 3)), nn.MaxPool3d(2), nn.Flatten(1))
    fields = [row.field for row in summary(model, ((1, 4, 8, 8), 2)).rows]
    assert fields == [(1, 3, 3), (2, 4, 4), ()]


def test_what_sees_everything_and_what_is_not_known():
    small = dw.nn.resnet_small(((1, 16, 16), 3), 1, (2,), squeeze=1)
    fields = {row.name: row.field for row in summary(small, ((1, 16, 16), 3)).rows}
    assert fields["layer1.0.conv2"] == (7, 7)
    assert fields["layer1.0.squeeze.excite"] == fields["fc"] == (16, 16)
    up = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Upsample(scale_factor=2), nn.Conv2d(1, 1, 3))
    assert [row.field for row in summary(up, ((1, 8, 8), 1)).rows] == [(3, 3), (), ()]
    turned = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 3))
    assert [row.field for row in summary(turned, ((1, 8, 8), 1)).rows] == [(3, 3), ()]


def recurrent_flops(model: nn.Module, steps: int) -> int:
    """2 for each weight of a matrix, at every step."""
    return 2 * steps * sum(w.numel() for n, w in model.named_parameters() if "weight" in n)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind):
    model = kind(5, 7, 2, bidirectional=True, batch_first=True)
    found = summary(model, torch.zeros(1, 9, 5))
    assert found.flops == recurrent_flops(model, 9)
    assert not found.uncounted
    assert found.rows[0].shape == (1, 9, 14)


def test_attention():
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    )
    found = summary(model, torch.zeros(1, 5, 8))
    layer = 4 * 2 * 5 * 8 * 8 + 2 * 2 * 5 * 5 * 8 + 2 * 2 * 5 * 8 * 16
    assert found.flops == 2 * layer
    assert sum(row.parameters for row in found.rows) == found.parameters
    assert torch.backends.mha.get_fastpath_enabled()


class Own(nn.Module):
    """A product that no rule knows, and a module that is called twice."""

    def __init__(self):
        super().__init__()
        self.cosine = nn.Parameter(torch.randn(3, 4))
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return torch.cdist(self.layer(self.layer(x)), self.cosine)


def test_what_has_no_rule_says_so():
    found = summary(Own(), torch.zeros(2, 4))
    layer, own = sorted(found.rows, key=lambda row: row.name)
    assert own.kind == "Linear"
    assert own.calls == 2
    assert own.flops == found.flops == 2 * 2 * 2 * 4 * 4
    assert layer.flops is None
    assert "cdist" in layer.note
    assert found.uncounted == ("Own",)
    assert "at least 128 FLOPs" in str(found)
    assert "no rule for: Own" in str(found)
    assert "not counted" in str(found)


def test_tables_and_words_have_no_field():
    found = summary(dw.nn.mlp((4, 3), (8,)), (4, 3))
    assert found.flops == 2 * (4 * 8 + 8 * 3)
    assert "sees" not in str(found)
    words = nn.Sequential(nn.Embedding(50, 6), nn.Flatten(), nn.Linear(30, 2))
    found = summary(words, ((5,), 2, 50))
    assert found.flops == 2 * 30 * 2
    assert not found.uncounted, "an embedding multiplies nothing"


def test_what_is_kept_for_the_way_back():
    """Each linear layer keeps its input, ReLU its output, once where they are the same."""
    model = nn.Sequential(nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 5), nn.Sigmoid())
    assert summary(model, torch.zeros(3, 10)).kept == 4 * 3 * (10 + 20 + 5)
    found = summary(model, torch.zeros(3, 10))
    assert found.activations == 4 * 3 * (20 + 20 + 5 + 5)


def test_nothing_of_the_model_is_changed(resnet18):
    net = dw.nn.convnet(((1, 8, 8), 3), (4, 6), dropout=0.3).train()
    net.features[0].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.manual_seed(5)
    summary(net, ((1, 8, 8), 3))
    assert torch.equal(torch.rand(3), (torch.manual_seed(5), torch.rand(3))[1])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not net.features[0].training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(weight.grad is None for weight in net.parameters())


def test_shared_and_frozen_weights_and_buffers():
    first = nn.Linear(6, 6)
    model = nn.Sequential(first, first, nn.BatchNorm1d(6), nn.Linear(6, 6))
    model[3].weight = first.weight
    model[2].weight.requires_grad_(False)
    found = summary(model, torch.zeros(2, 6))
    assert found.parameters == 36 + 6 + 12 + 6
    assert found.trainable == found.parameters - 6
    assert sum(row.parameters for row in found.rows) == found.parameters
    assert found.memory == 4 * (found.parameters + 12) + 8  # running statistics and a counter
    assert found.rows[0].calls == 2


def test_layers_that_are_not_called_are_counted_where_they_are_held():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(3, 3)

        def forward(self, x):
            return self.used(x)

    found = summary(Half(), torch.zeros(1, 2))
    assert sum(row.parameters for row in found.rows) == found.parameters == 18


def test_folding_and_json(resnet18):
    found = summary(resnet18, PHOTO)
    folded = found.folded(1)
    assert sum(row.flops for row in folded.rows) == found.flops
    assert sum(row.parameters for row in folded.rows) == found.parameters
    layer = next(row for row in folded.rows if row.name == "layer1")
    assert (layer.kind, layer.shape, layer.parameters) == ("Sequential", (1, 64, 56, 56), 147_968)
    back = json.loads(json.dumps(found.to_json()))
    assert back["flops"] == found.flops
    assert back["rows"][0]["field"] == [7, 7]
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        found.folded(0)


def test_a_spec_a_batch_or_sizes():
    data = dw.data.load("digits")
    net = dw.nn.convnet(data.spec, (4,))
    one = summary(net, data.spec)
    many = summary(net, data.test.x[:10])
    assert one.shape == (1, 1, 8, 8)
    assert many.flops == 10 * one.flops
    assert summary(net.double(), data.spec).memory == pytest.approx(2 * one.memory, rel=0.02)
    graph = SimpleNamespace(shape=(3,), outputs=2, kind="graph")
    with pytest.raises(ValueError, match="summary: the spec of graphs says too little"):
        summary(net, graph)
