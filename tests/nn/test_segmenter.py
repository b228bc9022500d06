from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.data import Spec
from deepweave.nn.segmenter import Block


def test_any_image_goes_through_whole():
    net = dw.nn.segmenter(((3, 21, 34), 5), widths=(4, 6, 8))
    assert net(torch.randn(2, 3, 21, 34)).shape == (2, 5, 21, 34)
    assert net(torch.randn(1, 3, 40, 16)).shape == (1, 5, 40, 16)
    spec = Spec("segmentation", (1, 16, 16), 1, kind="image")
    assert dw.nn.segmenter(spec)(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_the_structure():
    net = dw.nn.segmenter(((3, 32, 32), 2), widths=(8, 16, 32), activation="silu")
    sizes = [(b[0].in_channels, b[0].out_channels) for b in (*net.down, *net.up)]
    assert sizes == [(3, 8), (8, 16), (16, 32), (48, 16), (24, 8)]
    assert [m.num_groups for m in Block(3, 6).modules() if isinstance(m, nn.GroupNorm)] == [2, 2]
    assert sum(isinstance(m, nn.SiLU) for m in net.modules()) == 10


def test_the_skips_carry_what_pooling_loses():
    """Deaf to what comes up from below, the decoder still sees the image, pixel by pixel."""
    torch.manual_seed(0)
    net = dw.nn.segmenter(((1, 16, 16), 1), widths=(8, 12))
    with torch.no_grad():
        net.up[0][0].weight[:, :12] = 0
        x = torch.rand(2, 1, 16, 16)
        one = x.clone()
        one[:, :, 3, 5] += 1
        change = (net(one) - net(x)).abs()
    assert change[:, :, 3, 5].min() > 3 * change[:, :, 12:, 12:].max()


def test_it_learns():
    torch.manual_seed(0)
    x = torch.rand(4, 1, 16, 16)
    y = (x[:, 0] > 0.5).long()
    step = dw.Descent(dw.Segment(dw.nn.segmenter(((1, 16, 16), 1), widths=(8, 8))), "Adam", lr=0.02)
    for _ in range(60):
        step((x, y))
    assert float(((step.predict(x) > 0.5) == y).float().mean()) > 0.97


def test_one_level_is_a_plain_convolutional_net():
    assert len(dw.nn.segmenter(((3, 8, 8), 1), widths=(4,)).up) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dw.nn.segmenter((6, 1)), r"segmenter: needs images \(C, H, W\), got \(6,\)"),
        (lambda: dw.nn.segmenter(((3, 8, 4), 1)), "3 levels need images of at least 8 pixels"),
        (lambda: dw.nn.segmenter(((3, 8, 8), 1), widths=(4, 0)), "widths must be at least 1 each"),
        (lambda: dw.nn.segmenter(((3, 8, 8), 1), widths=()), "widths must be at least 1 each"),
    ],
)
def test_bad_networks(make, message):
    with pytest.raises(ValueError, match=message):
        make()
