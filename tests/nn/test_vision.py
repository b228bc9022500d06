"""The nets of the papers: torchvision's names and shapes, and its weights as they are."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import deepweave as dw
from deepweave.data.resolve import locate
from deepweave.data.sources import SOURCES
from deepweave.testing import check_model

PHOTO = ((3, 224, 224), 1000)
LARGE = ((3, 299, 299), 1000)
COUNTS = {
    "resnet 18": (lambda: dw.nn.resnet(PHOTO, 18), 11_689_512),
    "resnet 34": (lambda: dw.nn.resnet(PHOTO, 34), 21_797_672),
    "resnet 50": (lambda: dw.nn.resnet(PHOTO, 50), 25_557_032),
    "resnet 101": (lambda: dw.nn.resnet(PHOTO, 101), 44_549_160),
    "resnet 152": (lambda: dw.nn.resnet(PHOTO, 152), 60_192_808),
    "vgg 11": (lambda: dw.nn.vgg(PHOTO, 11), 132_863_336),
    "vgg 13": (lambda: dw.nn.vgg(PHOTO, 13), 133_047_848),
    "vgg 16": (lambda: dw.nn.vgg(PHOTO, 16), 138_357_544),
    "vgg 16, norms": (lambda: dw.nn.vgg(PHOTO, 16, norm=True), 138_365_992),
    "vgg 19": (lambda: dw.nn.vgg(PHOTO, 19), 143_667_240),
    "inception": (lambda: dw.nn.inception_v3(LARGE, auxiliary=True), 27_161_264),
    "mobilenet": (lambda: dw.nn.mobilenet_v2(PHOTO), 3_504_872),
}


def meta(make) -> nn.Module:
    """The net's sizes alone, without memory for its weights."""
    with torch.device("meta"):
        return make()


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
    make, count = COUNTS[name]
    assert sum(weight.numel() for weight in meta(make).parameters()) == count


def test_names_and_shapes_are_torchvisions():
    """Some of each kind, as they stand in the published files."""
    held = {
        "resnet 50": {
            "conv1.weight": (64, 3, 7, 7),
            "bn1.running_var": (64,),
            "layer1.0.conv1.weight": (64, 64, 1, 1),
            "layer1.0.conv3.weight": (256, 64, 1, 1),
            "layer1.0.downsample.0.weight": (256, 64, 1, 1),
            "layer1.0.downsample.1.running_mean": (256,),
            "layer2.0.conv2.weight": (128, 128, 3, 3),
            "layer4.2.bn3.num_batches_tracked": (),
            "fc.weight": (1000, 2048),
        },
        "resnet 18": {"layer2.0.downsample.0.weight": (128, 64, 1, 1), "fc.weight": (1000, 512)},
        "vgg 16": {
            "features.0.weight": (64, 3, 3, 3),
            "features.28.bias": (512,),
            "classifier.0.weight": (4096, 25088),
            "classifier.6.weight": (1000, 4096),
        },
        "vgg 16, norms": {"features.1.running_mean": (64,), "features.41.weight": (512,)},
        "inception": {
            "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
            "Conv2d_1a_3x3.bn.weight": (32,),
            "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
            "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
            "Mixed_6c.branch7x7dbl_5.conv.weight": (192, 160, 1, 7),
            "Mixed_7a.branch7x7x3_3.conv.weight": (192, 192, 7, 1),
            "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
            "AuxLogits.conv1.conv.weight": (768, 128, 5, 5),
            "AuxLogits.fc.weight": (1000, 768),
            "fc.weight": (1000, 2048),
        },
    }
    for name, expected in held.items():
        state = meta(COUNTS[name][0]).state_dict()
        assert {key: tuple(state[key].shape) for key in expected} == expected
    # as many entries as the published files have
    sizes = {"resnet 18": 122, "resnet 50": 320, "vgg 16": 32, "inception": 580, "mobilenet": 314}
    for name, size in sizes.items():
        assert len(meta(COUNTS[name][0]).state_dict()) == size


def test_what_the_names_do_not_tell():
    """Strides, paddings and epsilons, without which the published weights would mean nothing."""
    net = dw.nn.resnet(((3, 64, 64), 2), 50)
    block = net.layer2[0]
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [(1, 1), (2, 2), (1, 1)]
    assert net.get_submodule("layer2.0.downsample.0").stride == (2, 2)
    assert (net.conv1.padding, net.maxpool.padding) == ((3, 3), 1)
    small = meta(lambda: dw.nn.resnet(((3, 64, 64), 2), 18)).layer3[0]
    assert [small.conv1.stride, small.conv2.stride] == [(2, 2), (1, 1)]
    maps = {"layer1": 16, "layer2": 8, "layer3": 4, "layer4": 2}
    for row in dw.nn.summary(net, ((3, 64, 64), 2)).groups:
        if row.name in maps:
            assert (row.shape or ())[2:] == (maps[row.name],) * 2
    deep = dw.nn.inception_v3(((3, 299, 299), 2))
    assert {m.eps for m in deep.modules() if isinstance(m, nn.BatchNorm2d)} == {0.001}
    shapes = {row.name: row.shape for row in dw.nn.summary(deep, ((3, 299, 299), 2)).groups}
    assert shapes["Mixed_5d"] == (1, 288, 35, 35)
    assert shapes["Mixed_6e"] == (1, 768, 17, 17)
    assert shapes["Mixed_7c"] == (1, 2048, 8, 8)


def photograph(path) -> torch.Tensor:
    """Shorter side to 256, the middle 224 x 224, ImageNet's mean and deviation."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    scale = 256 / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.array(image.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(pixels) - mean) / deviation).movedim(-1, 0)


def test_the_published_weights_of_mobilenet_recognise_photographs():
    net = dw.nn.mobilenet_v2(PHOTO)
    path = locate("mobilenet_v2", "mobilenet_v2-b0353104.pth").path
    weights = torch.load(path, weights_only=True)
    assert list(weights) == list(net.state_dict()), "the same names in the same order"
    net.load_state_dict(weights, strict=True)
    files = list(SOURCES["imagenet_photos"].files)
    x = torch.stack([photograph(locate("imagenet_photos", file).path) for file in files])
    y = torch.tensor([int(re.findall(r"_(\d+)\.jpg", file)[0]) for file in files])
    with torch.no_grad():
        scores = net.eval()(x)
    assert int((scores.argmax(1) == y).sum()) >= 17
    assert (scores.topk(5).indices == y[:, None]).any(1).all()


@pytest.mark.long
@pytest.mark.parametrize(
    ("make", "side"),
    [
        (lambda: dw.nn.resnet(((1, 32, 32), 3), 18), 32),
        (lambda: dw.nn.mobilenet_v2(((1, 32, 32), 3), 0.25), 32),
    ],
    ids=["resnet", "mobilenet"],
)
def test_what_every_model_must_hold(make, side):
    torch.manual_seed(0)
    channels = make().channels
    check_model(make, torch.randn(4, channels, side, side))


@pytest.mark.long
def test_inception_at_its_smallest_and_with_both_judges():
    torch.manual_seed(0)
    net = dw.nn.inception_v3(((3, 75, 75), 4), auxiliary=True)
    x = torch.randn(2, 3, 75, 75)
    net.train()(x).square().sum().backward()
    quiet = {name.split(".")[0] for name, w in net.named_parameters() if w.grad is None}
    assert quiet == {"AuxLogits"}
    net.eval()
    with torch.no_grad():
        first, second = net.both(torch.randn(1, 3, 299, 299))
    assert first.shape == second.shape == (1, 4)
    with pytest.raises(ValueError, match=r"needs 17 x 17 places, .* got 3 x 3"):
        net.both(x)
    with pytest.raises(ValueError, match="auxiliary=True"):
        dw.nn.inception_v3(((3, 75, 75), 4)).both(x)


def test_mobilenet_with_other_widths():
    half = dw.nn.mobilenet_v2(((3, 64, 64), 5), 0.5)
    assert half.features[0][0].out_channels == 16
    assert half.features[-1][0].out_channels == 1280  # never narrower
    assert half(torch.zeros(2, 3, 50, 70)).shape == (2, 5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dw.nn.resnet(PHOTO, 20), "depth must be one of 18, 34, 50, 101, 152, got 20"),
        (lambda: dw.nn.resnet((10, 3)), r"resnet: needs images \(C, H, W\), got \(10,\)"),
        (lambda: dw.nn.resnet(PHOTO, drop=1.0), r"drop must lie in \[0, 1\), got 1"),
        (lambda: dw.nn.vgg(PHOTO, 12), "depth must be one of 11, 13, 16, 19, got 12"),
        (lambda: dw.nn.vgg(((3, 31, 40), 2)), "vgg: needs images of at least 32 .* got 31 x 40"),
        (lambda: dw.nn.vgg(PHOTO, dropout=1), "dropout must lie in"),
        (lambda: dw.nn.inception_v3(((3, 64, 64), 2)), "at least 75 pixels a side, got 64 x 64"),
        (lambda: dw.nn.inception_v3(LARGE, dropout=-1), "dropout must lie in"),
        (lambda: dw.nn.mobilenet_v2(PHOTO, 0), "width must be above 0, got 0"),
        (lambda: dw.nn.mobilenet_v2(PHOTO, dropout=2), "dropout must lie in"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        meta(make)


def test_refused_when_called():
    net = dw.nn.mobilenet_v2(((3, 32, 32), 2), 0.25).eval()
    with pytest.raises(ValueError, match=r"mobilenet_v2: x must be \(B, 3, H, W\), got \(1, 1, 32"):
        net(torch.zeros(1, 1, 32, 32))
