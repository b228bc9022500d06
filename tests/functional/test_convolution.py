from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torch.func import vmap

from deepweave.functional import convolve, output_size, pool, receptive_field
from deepweave.functional.convolution import windows

TORCH = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
SIZES = {1: (11,), 2: (9, 8), 3: (7, 6, 8)}


def near(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"),
    [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 1), (3, 0, 1, 2), (2, 1, 2, 4)],
)
def test_convolution_is_torchs(dims, stride, padding, dilation, groups):
    torch.manual_seed(0)
    x = torch.randn(3, 4, *SIZES[dims], dtype=torch.float64)
    weight = torch.randn(8, 4 // groups, *[3] * dims, dtype=torch.float64)
    bias = torch.randn(8, dtype=torch.float64)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    near(convolve(x, weight, bias, **options), TORCH[dims](x, weight, bias, **options))
    near(convolve(x, weight, **options), TORCH[dims](x, weight, **options))


def test_one_number_for_each_axis():
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, 9, 12).double(), torch.randn(4, 3, 5, 2).double()
    options = {"stride": (1, 3), "padding": (2, 0), "dilation": (2, 1)}
    near(convolve(x, weight, **options), F.conv2d(x, weight, **options))


def test_the_formula_of_the_notes():
    """output[i, j] = sum(sum(input[i:i+K, j:j+K] * filter)), of size H - K + 1."""
    torch.manual_seed(0)
    image, kernel = torch.randn(7, 6).double(), torch.randn(3, 3).double()
    found = convolve(image[None, None], kernel[None, None])[0, 0]
    assert found.shape == (5, 4)
    for i, j in itertools.product(range(5), range(4)):
        near(found[i, j], (image[i : i + 3, j : j + 3] * kernel).sum())
    turned = convolve(image[None, None], kernel.flip(0, 1)[None, None])[0, 0]
    assert not torch.allclose(found, turned), "the kernel is not turned round"


def test_slopes_and_vmap():
    torch.manual_seed(0)
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *a: convolve(*a, stride=2, padding=1, groups=2), (x, weight, bias))
    assert gradcheck(lambda a: pool(a, 2, "max"), (x,))
    many = torch.randn(3, 4, 1, 3, 3, dtype=torch.float64)
    found = vmap(lambda w: convolve(x, w, groups=2))(many)
    near(found, torch.stack([convolve(x, w, groups=2) for w in many]))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, None, 0), (3, 2, 1), (3, 1, 0)])
def test_pooling_is_torchs(dims, kernel, stride, padding):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *SIZES[dims], dtype=torch.float64) - 5  # padding must not be the largest
    options = {"stride": stride, "padding": padding}
    largest = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[dims]
    mean = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[dims]
    near(pool(x, kernel, **options), largest(x, kernel, **options))
    near(pool(x, kernel, "mean", **options), mean(x, kernel, **options))


@pytest.mark.parametrize("ceil", [False, True])
def test_sizes_are_those_of_torch(ceil):
    for size, kernel, stride, padding in itertools.product(
        range(1, 14), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2)
    ):
        if padding > kernel // 2 or size + 2 * padding < kernel:
            continue
        x = torch.zeros(1, 1, size)
        found = F.max_pool1d(x, kernel, stride, padding, ceil_mode=ceil).shape[2]
        assert output_size(size, kernel, stride=stride, padding=padding, ceil=ceil) == found
    gaps = F.conv1d(torch.zeros(1, 1, 20), torch.zeros(1, 1, 3), dilation=4)
    assert output_size(20, 3, dilation=4) == gaps.shape[2]


@pytest.mark.parametrize("layers", [[(3, 1), (2, 2), (3, 1, 2)], [(5, 2), (3, 2), (3, 1), (2, 2)]])
def test_a_field_is_what_a_slope_reaches(layers):
    x = torch.zeros(1, 1, 101, dtype=torch.float64, requires_grad=True)
    y = x
    for kernel, stride, dilation in ((*layer, 1)[:3] for layer in layers):
        y = convolve(y, torch.ones(1, 1, kernel).double(), stride=stride, dilation=dilation)
    reached = [
        torch.autograd.grad(y[0, 0, i], x, retain_graph=True)[0].nonzero()[:, 2] for i in (1, 2)
    ]
    size, jump = receptive_field(layers)
    assert int(reached[0][-1] - reached[0][0]) + 1 == size
    assert int(reached[1][0] - reached[0][0]) == jump


def test_windows_are_a_view():
    x = torch.arange(12.0).view(3, 4)
    cut = windows(x, (2, 3))
    assert cut.shape == (2, 2, 2, 3)
    assert cut[1, 1].tolist() == [[5, 6, 7], [9, 10, 11]]
    assert cut.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()


def test_refusals():
    x, weight = torch.zeros(2, 4, 8, 8), torch.zeros(6, 4, 3, 3)
    with pytest.raises(ValueError, match=r"1 groups of 4 channels need 4 channels .* got 3 and 6"):
        convolve(x[:, :3], weight)
    with pytest.raises(ValueError, match="a multiple of 4 outputs, got 4 and 6"):
        convolve(x, weight[:, :1], groups=4)
    with pytest.raises(ValueError, match=r"over one to three axes, got \(4, 8, 8\) and"):
        convolve(x[0], weight)
    with pytest.raises(ValueError, match=r"bias must be \(6,\), got \(4,\)"):
        convolve(x, weight, torch.zeros(4))
    with pytest.raises(ValueError, match="a window of 9 does not fit into 8"):
        convolve(x, torch.zeros(1, 4, 9, 9))
    with pytest.raises(ValueError, match="stride: expected 2 whole numbers of at least 1, got 0"):
        convolve(x, weight, stride=0)
    with pytest.raises(ValueError, match="kind must be 'max' or 'mean', got 'median'"):
        pool(x, 2, "median")
    with pytest.raises(ValueError, match="over 1 to 3 axes"):
        pool(x[0, 0], 2)
    with pytest.raises(ValueError, match="a window of 9 does not fit"):
        pool(x, 9)
