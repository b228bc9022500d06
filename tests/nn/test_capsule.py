"""Capsule layers and nets: what they give, that they learn, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional import lengths, squash
from deepweave.testing import check_model


@pytest.mark.parametrize("routing", ["full", "self"])
def test_the_contract(routing):
    def make():
        return dw.nn.capsnet(
            ((1, 6, 6), 3), (4,), routing, kinds=2, size=4, pose=4, kernel=3, norm="layer"
        )

    check_model(make, torch.randn(5, 1, 6, 6, generator=torch.Generator().manual_seed(0)))


def test_primary_capsules_are_the_channels_of_a_place():
    features = nn.Conv2d(2, 12, 3)
    x = torch.randn(2, 2, 6, 5)
    maps, u = features(x), dw.nn.PrimaryCapsules(features, size=4)(x)
    assert u.shape == (2, 3 * 12, 4)
    kind, row, column = 2, 3, 1
    one = maps[1, 4 * kind : 4 * kind + 4, row, column]
    torch.testing.assert_close(u[1, kind * 12 + row * 3 + column], squash(one))
    over_time = dw.nn.PrimaryCapsules(nn.Conv1d(2, 8, 3), size=8)
    assert over_time(torch.randn(2, 2, 9)).shape == (2, 7, 8)


@pytest.mark.parametrize("routing", ["dynamic", "full", "self"])
def test_first_weights_leave_room_to_learn(routing):
    torch.manual_seed(0)
    u = squash(torch.randn(64, 1152, 8))
    layer = dw.nn.Capsules((1152, 8), (10, 16), routing)
    long = lengths(layer(u))
    assert 0.05 < long.mean() < 0.8
    assert layer.coupling(u).sum(2).allclose(torch.ones(64, 1152))
    if routing == "dynamic":  # a deviation of 1, as is often written: all near 1, where it is flat
        nn.init.normal_(layer.weight)
        assert lengths(layer(u)).min() > 0.8


@pytest.mark.parametrize("routing", ["dynamic", "full", "self"])
def test_capsules_learn_digits(routing):
    torch.manual_seed(0)
    digits = dw.data.load("digits")
    net = dw.nn.capsnet(digits.spec, (16,), routing, kinds=4, kernel=3)
    step = dw.Descent(dw.Classify(net), "AdamW", lr=0.005)
    dw.fit(step, digits.train, epochs=4, batch=64)
    score = dw.metrics.accuracy(step.predict(digits.test.x), digits.test.y)
    assert score > (0.65 if routing == "self" else 0.85)


def test_scores_are_the_log_odds_of_the_lengths():
    torch.manual_seed(0)
    net = dw.nn.capsnet(((1, 8, 8), 10), kernel=3).eval()
    x = torch.rand(3, 1, 8, 8)
    poses = net.poses(x)
    assert poses.shape == (3, 10, 16)
    torch.testing.assert_close(lengths(poses), net.lengths(x))
    torch.testing.assert_close(net(x).sigmoid(), net.lengths(x), atol=2e-4, rtol=0)
    assert net.coupling(x).shape == (3, 8 * 16, 10)


def test_reconstruction_reads_the_poses_that_are_asked_for():
    torch.manual_seed(0)
    net = dw.nn.capsnet(((3, 9, 8), 4), kernel=3, decoder=(16,))
    poses = torch.randn(2, 4, 16)
    poses[:, 2] *= 9
    image = net.reconstruct(poses)
    assert image.shape == (2, 3, 9, 8)
    assert ((image >= 0) & (image <= 1)).all()
    mask = torch.tensor([[0, 0, 1, 0]] * 2)
    torch.testing.assert_close(net.reconstruct(poses, mask), image)
    others = poses.clone()
    others[:, [0, 1, 3]] = 7.0
    torch.testing.assert_close(net.reconstruct(others, mask), image)
    assert not torch.allclose(net.reconstruct(poses, mask.roll(1, 1)), image)


def test_capsules_stand_on_capsules():
    deep = nn.Sequential(dw.nn.Capsules((20, 4), (6, 8)), dw.nn.Capsules((6, 8), (3, 5)))
    u = squash(torch.randn(2, 20, 4))
    deep(u).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in deep.parameters())


def test_a_net_of_28_pixels_halves_at_once():
    net = dw.nn.capsnet(((1, 28, 28), 10), (32, 64), kinds=8)
    assert net.capsules.count == 8 * 7 * 7
    assert dw.nn.capsnet(((1, 28, 28), 10), (32,), stride=1).capsules.count == 8 * 14 * 14


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dw.nn.capsnet((30, 2)), r"capsnet: needs images \(C, H, W\), got \(30,\)"),
        (lambda: dw.nn.capsnet(((1, 8, 8), 2), kernel=4), "kernel must be odd, got 4"),
        (lambda: dw.nn.capsnet(((1, 8, 8), 2), pose=0), r"pose must be at least 1, got \(0,\)"),
        (lambda: dw.nn.capsnet(((1, 8, 8), 2), decoder=(0,)), "decoder must be at least 1"),
        (lambda: dw.nn.capsnet(((1, 8, 8), 2), routing="em"), "routing must be 'dynamic'"),
        (lambda: dw.nn.capsnet(((1, 8, 8), 1), routing="self"), "needs two wholes or more"),
        (lambda: dw.nn.Capsules((0, 4), (2, 2)), "sizes and rounds must be at least 1"),
        (lambda: dw.nn.PrimaryCapsules(nn.Identity(), 0), "size must be at least 1"),
        (
            lambda: dw.nn.PrimaryCapsules(nn.Identity(), 3)(torch.zeros(1, 4, 2, 2)),
            r"maps must be \(B, channels divided by 3, \*places\), got \(1, 4, 2, 2\)",
        ),
        (
            lambda: dw.nn.capsnet(((1, 8, 8), 2)).poses(torch.zeros(1, 1, 8, 9)),
            r"capsnet: x must be \(B, 1, 8, 8\), got \(1, 1, 8, 9\)",
        ),
        (
            lambda: dw.nn.capsnet(((1, 8, 8), 2)).reconstruct(torch.zeros(1, 2, 16)),
            "there is no decoder",
        ),
        (
            lambda: dw.nn.capsnet(((1, 8, 8), 2), decoder=(4,)).reconstruct(torch.zeros(1, 32)),
            r"poses must be \(B, K, E\) and a mask \(B, K\), got \(1, 32\)",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
