from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn

from deepweave.functional import initial
from deepweave.functional.initial import fans, gain, gradient_gain


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- fans -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(5, 7, bias=False), (5,)),
        (nn.Conv1d(4, 6, 3, bias=False), (4, 31)),
        (nn.Conv2d(4, 6, (3, 5), bias=False), (4, 24, 24)),
        (nn.Conv2d(8, 12, 3, groups=4, bias=False), (8, 24, 24)),
        (nn.Conv2d(4, 6, 3, stride=2, dilation=2, bias=False), (4, 40, 40)),
        (nn.Conv2d(6, 6, 3, stride=(1, 3), groups=6, bias=False), (6, 40, 40)),
        (nn.ConvTranspose2d(4, 6, 3, bias=False), (4, 24, 24)),
        (nn.ConvTranspose2d(8, 12, 4, stride=2, groups=2, bias=False), (8, 24, 24)),
        (nn.ConvTranspose1d(3, 5, 3, stride=2, bias=False), (3, 40)),
    ],
)
def test_fans_are_the_numbers_of_connections(layer, inputs):
    """With weights of one each sum over inputs counts them; the slope counts the outputs."""
    nn.init.ones_(layer.weight)
    x = torch.ones(1, *inputs, requires_grad=True)
    y = layer(x)
    y.sum().backward()

    def middle(z: torch.Tensor) -> torch.Tensor:  # twelve places each way: whole strides
        for dim in range(2, z.dim()):
            z = z.narrow(dim, z.shape[dim] // 2 - 6, 12)
        return z

    found = fans(
        layer.weight.shape,
        groups=getattr(layer, "groups", 1),
        transposed=type(layer).__name__.startswith("ConvT"),
        stride=getattr(layer, "stride", ()),
    )
    if len(inputs) == 1:
        assert found == (5.0, 7.0)
    assert middle(y).mean().item() == pytest.approx(found[0])
    assert middle(x.grad).mean().item() == pytest.approx(found[1])


def test_fans_need_two_dimensions():
    with pytest.raises(ValueError, match=r"fans: a weight must be \(out, in, ...\), got \(3,\)"):
        fans((3,))


# --- draws ----------------------------------------------------------------------------------

SHAPE = (300, 200)  # (out, in)
SIGMAS = {
    "normal": (initial.normal, {"sigma": 0.3}, 0.3),
    "uniform": (initial.uniform, {"bound": 0.3}, 0.3 / math.sqrt(3)),
    "truncated_normal": (initial.truncated_normal, {"sigma": 0.3}, 0.3),
    "truncated_normal, narrow": (initial.truncated_normal, {"sigma": 0.3, "cut": 0.5}, 0.3),
    "xavier": (initial.xavier, {}, math.sqrt(2 / 500)),
    "xavier_uniform": (initial.xavier_uniform, {"gain": 2.0}, 2 * math.sqrt(2 / 500)),
    "lecun": (initial.lecun, {}, math.sqrt(1 / 200)),
    "lecun_uniform": (initial.lecun_uniform, {"gain": 3.0}, 3 * math.sqrt(1 / 200)),
    "he": (initial.he, {}, math.sqrt(2 / 200)),
    "he, backward": (initial.he, {"backward": True}, math.sqrt(2 / 300)),
    "he, fans given": (initial.he, {"fans": (50.0, 8.0)}, math.sqrt(2 / 50)),
    "he_uniform": (initial.he_uniform, {"backward": True}, math.sqrt(2 / 300)),
    "orthogonal": (initial.orthogonal, {"gain": 2.0}, 2 / math.sqrt(300)),
}


@pytest.mark.parametrize("name", SIGMAS)
def test_draws_have_the_spread_of_their_formula(name):
    draw, options, sigma = SIGMAS[name]
    w = draw(SHAPE, **options, generator=generator())
    count = math.prod(SHAPE)
    assert w.std().item() == pytest.approx(sigma, rel=5 / math.sqrt(2 * count))
    assert abs(w.mean().item()) < 5 * sigma / math.sqrt(count)


@pytest.mark.parametrize("name", SIGMAS)
def test_draws_are_like_what_they_are_given_and_seeded(name):
    draw, options, _ = SIGMAS[name]
    like = nn.Parameter(torch.ones(6, 4, 3, dtype=torch.float64))
    w = draw(like, **options, generator=generator(1))
    assert w.shape == like.shape
    assert w.dtype == torch.float64
    assert not w.requires_grad
    assert (like == 1).all(), "the tensor itself stays"
    assert torch.equal(w, draw(like, **options, generator=generator(1)))
    assert not torch.equal(w, draw(like, **options, generator=generator(2)))


def test_uniform_draws_end_at_their_bounds():
    for draw, bound in ((initial.xavier_uniform, math.sqrt(6 / 500)),
                        (initial.he_uniform, math.sqrt(6 / 200))):  # fmt: skip
        top = draw(SHAPE, generator=generator()).abs().max().item()
        assert 0.999 * bound < top <= bound


def test_truncated_normal_is_a_cut_normal():
    w = initial.truncated_normal((200, 200), sigma=1.0, cut=1.5, generator=generator()).double()
    parent = 1 / stats.truncnorm(-1.5, 1.5).std()
    assert w.abs().max() <= 1.5 * parent + 1e-6
    found = stats.kstest(w.flatten().numpy() / parent, stats.truncnorm(-1.5, 1.5).cdf)
    assert found.pvalue > 1e-3
    with pytest.raises(ValueError, match="cut must be above 0, got 0"):
        initial.truncated_normal((2, 2), cut=0)


@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 5), (6, 4, 3, 3), (40, 2, 3)])
def test_orthogonal_has_one_singular_value(shape):
    w = initial.orthogonal(shape, gain=1.5, generator=generator())
    values = torch.linalg.svdvals(w.flatten(1))
    torch.testing.assert_close(values, torch.full_like(values, 1.5))


def test_orthogonal_has_no_favourite_side():
    """Without the signs of R's diagonal the first entries would all be of one sign."""
    first = [initial.orthogonal((3, 3), generator=generator(i))[0, 0] for i in range(200)]
    assert 60 < sum(value > 0 for value in first) < 140


def test_delta_orthogonal_keeps_the_norm_of_an_image():
    w = initial.delta_orthogonal((8, 8, 3, 3), generator=generator())
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(nn.functional.conv2d(x, w, padding=1).norm(), x.norm())
    assert (w != 0).flatten(2).any(1).sum() == 8, "only the centre"


def test_identity_and_constants():
    x = torch.randn(2, 4, 6, 6)
    same = initial.identity((4, 4, 3, 3))
    torch.testing.assert_close(nn.functional.conv2d(x, same, padding=1), x)
    assert not initial.zeros((2, 3)).any()
    assert (initial.constant(torch.ones(2, 3), value=0.5) == 0.5).all()


# --- gains ----------------------------------------------------------------------------------


def expected(function) -> float:
    def inside(z: float) -> float:
        return float(function(z)) ** 2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    parts = [-13, -6, -3, -1, -0.5, 0, 0.5, 1, 3, 6, 13]
    pieces = (integrate.quad(inside, a, b, epsabs=1e-13)[0] for a, b in pairwise(parts))
    return sum(pieces) ** -0.5


def slope(function):
    def at(z: float) -> float:
        point = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(function(point), point)
        return float(found)

    return at


FUNCTIONS = {
    "relu": nn.functional.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": nn.functional.elu,
    "hardswish": nn.functional.hardswish,
    "hardshrink": nn.functional.hardshrink,
    "relu6": nn.functional.relu6,
    "softsign": nn.functional.softsign,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gains_are_the_integrals(name):
    g = FUNCTIONS[name]
    exact = expected(lambda z: g(torch.tensor(z, dtype=torch.float64)))
    assert gain(name) == pytest.approx(exact, rel=1e-6)
    assert gain(g) == gain(name)
    assert gradient_gain(name) == pytest.approx(expected(slope(g)), rel=1e-5)


def test_gains_in_closed_form():
    assert gain("relu") == pytest.approx(gradient_gain("relu"))
    assert gain("relu") == pytest.approx(math.sqrt(2), abs=1e-9)
    assert gain(nn.LeakyReLU(0.3)) == pytest.approx(math.sqrt(2 / 1.09), abs=1e-9)
    assert gain(nn.PReLU) == pytest.approx(math.sqrt(2 / (1 + 0.25**2)), abs=1e-9)
    assert gain("identity") == gradient_gain("linear") == pytest.approx(1.0, abs=1e-9)
    assert gain("selu") == pytest.approx(1.0, abs=1e-9)
    assert gain(lambda z: z**3) == pytest.approx(15**-0.5, rel=1e-6)
    assert gain(torch.exp) == pytest.approx(math.exp(-1), rel=1e-6)  # E exp(2z) = e^2
    assert gain(torch.sin) == pytest.approx((2 / (1 - math.exp(-2))) ** 0.5, rel=1e-6)


def test_a_layer_keeps_its_type_and_its_place_in_training():
    layer = nn.RReLU().train()
    gain(layer)
    assert layer.training
    prelu = nn.PReLU()
    gain(prelu)
    assert prelu.weight.dtype == torch.float32
    assert prelu.weight.grad is None


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("softmax", "must work entry by entry"),
        ("glu", "must work entry by entry"),
        (lambda z: z - z.mean(), "must work entry by entry"),
        ("swishy", "expected a function, or its name in torch .* got 'swishy'"),
        (nn.Linear(3, 2), "cannot take a vector"),
        (torch.zeros_like, "must be finite and above 0, got 0"),
        (lambda z: torch.exp(z * z), "must be finite and above 0"),
    ],
)
def test_what_has_no_gain(activation, message):
    with pytest.raises(ValueError, match=f"gain: .*{message}"):
        gain(activation)


def test_what_has_no_slope():
    with pytest.raises(ValueError, match=r"gradient_gain: .*has no slope"):
        gradient_gain(lambda z: (z > 0).double())
    with pytest.raises(TypeError, match="gain: expected a function, got int"):
        gain(3)


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "silu", "elu"])
def test_the_gain_keeps_the_variance_through_many_layers(name):
    """In plain numpy, wide layers: Var z stays 1 with the gain, and does not with gain 1."""
    random = np.random.default_rng(0)
    g = getattr(torch, name, None) or getattr(nn.functional, name)
    spread = {}
    for factor in (gain(name), 1.0):
        z = random.normal(size=(200, 1000))
        for _ in range(12):
            w = random.normal(size=(1000, 1000)) * factor / math.sqrt(1000)
            z = g(torch.tensor(z)).numpy() @ w
        spread[factor] = (z**2).mean()
    assert 0.7 < spread[gain(name)] < 1.4
    assert spread[1.0] < 0.5
