"""Attention against its formula: every kind of mask, groups, transforms, windows, linear forms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.func import grad, vmap

from deepweave.functional.attention import additive, attend, kind, lower_right
from deepweave.functional.local import linear_attention, windowed
from deepweave.functional.positions import (
    bucketed,
    distances,
    rotate_places,
    rotation,
    sinusoidal,
    slopes,
)


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def three(batch=2, heads=4, groups=4, length=5, size=7, width=6, values=6):
    query, key = draw(batch, heads, length, width), draw(batch, groups, size, width, seed=1)
    return query, key, draw(batch, groups, size, values, seed=2)


def formula(query, key, value, mask=None, bias=None, scale=None):
    """One query at a time."""
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    out = torch.zeros(*query.shape[:3], value.shape[-1], dtype=query.dtype)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            for t in range(query.shape[2]):
                scores = scale * key[b, h] @ query[b, h, t]
                scores = scores if bias is None else scores + bias[h, t]
                allowed = torch.ones(len(scores), dtype=torch.bool) if mask is None else mask[b, t]
                if allowed.any():
                    shares = scores[allowed].softmax(0)
                    out[b, h, t] = shares @ value[b, h][allowed]
    return out


@given(
    st.sampled_from([(5, 5), (3, 7), (1, 4), (4, 1)]),
    st.sampled_from([1, 2, 4]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_every_way_is_the_formula(sizes, groups, causal, masked, biased):
    length, size = sizes
    query, key, value = three(groups=groups, length=length, size=size)
    mask = draw(2, length, size, seed=3) > -0.5 if masked else None
    bias = draw(4, length, size, seed=4) if biased else None
    whole = torch.ones(2, length, size, dtype=torch.bool) if mask is None else mask
    allowed = whole & lower_right(length, size) if causal else whole
    wanted = formula(query, key, value, allowed, bias)
    found = attend(query, key, value, mask, causal=causal, bias=bias)
    assert torch.allclose(found, wanted, atol=1e-10)
    again, weights = attend(query, key, value, mask, causal=causal, bias=bias, weights=True)
    assert torch.allclose(again, wanted, atol=1e-10)
    assert weights.shape == (2, 4, length, size)
    assert bool((weights.masked_select(~allowed[:, None]) == 0).all())


def test_queries_without_keys_get_zeros_and_slopes_without_nan():
    query, key, value = (one.requires_grad_() for one in three())
    mask = torch.ones(2, 5, 7, dtype=torch.bool)
    mask[0, 2] = False
    mask[1] = False
    for bias in (None, draw(4, 5, 7)):
        out = attend(query, key, value, mask, bias=bias)
        assert bool((out[0, :, 2] == 0).all())
        assert bool((out[1] == 0).all())
        for slope in torch.autograd.grad(out.sum(), (query, key, value)):
            assert bool(slope.isfinite().all())
            assert bool((slope[1] == 0).all())


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_members_are_as_each_alone(causal, masked):
    query = draw(3, 2, 4, 5, 6).requires_grad_()
    key, value = draw(3, 2, 2, 5, 6, seed=1), draw(2, 2, 5, 6, seed=2)
    mask = (draw(2, 5, 5, seed=3) > -1) if masked else None

    def one(q, k):
        assert kind() == "members"
        return attend(q, k, value, mask, causal=causal)

    found = vmap(one)(query, key)
    wanted = torch.stack([attend(q, k, value, mask, causal=causal) for q, k in zip(query, key)])
    assert torch.allclose(found, wanted)
    slope, expected = (torch.autograd.grad(o.pow(2).sum(), query)[0] for o in (found, wanted))
    assert torch.allclose(slope, expected)
    nested = vmap(vmap(lambda q: attend(q, q, q, causal=causal)))(query[None].detach())
    assert torch.allclose(nested[0, 0], attend(query[0], query[0], query[0], causal=causal))


def test_slopes_of_slopes():
    query, key, value = three(1, 2, 1, 3, 3, 4, 4)

    def loss(q):
        return attend(q, key, value, causal=True).pow(2).sum()

    def inner(q):
        assert kind() == "slopes"
        return grad(loss)(q).pow(2).sum()

    found = grad(inner)(query)
    step = torch.zeros_like(query)
    step[0, 1, 2, 3] = 1e-5
    slope = (inner_value(loss, query + step) - inner_value(loss, query - step)) / 2e-5
    assert math.isclose(float(found[0, 1, 2, 3]), slope, rel_tol=1e-5)


def inner_value(loss, query):
    return float(grad(loss)(query).pow(2).sum())


def test_gradcheck():
    parts = [one[:1].clone().requires_grad_() for one in three(groups=2)]
    mask = torch.ones(1, 5, 7, dtype=torch.bool)
    mask[0, 1, 3:] = False
    assert torch.autograd.gradcheck(lambda *t: attend(*t, mask), parts)


@given(st.integers(1, 12), st.integers(1, 5), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_window_is_a_mask_of_distances(length, window, causal, masked):
    query, key, value = three(length=length, size=length, groups=2)
    away = distances(length, length)
    band = (away > -window) & (away < window)
    band = band & (away <= 0) if causal else band
    real = draw(2, length, seed=5) > -0.8 if masked else torch.ones(2, length, dtype=torch.bool)
    wanted = formula(query, key, value, band & real[:, None])
    found = windowed(query, key, value, window, real if masked else None, causal=causal)
    assert torch.allclose(found, wanted, atol=1e-10)


@pytest.mark.parametrize("window", [3, 9])
@pytest.mark.parametrize("causal", [False, True])
def test_a_window_scales_its_scores(window, causal):
    query, key, value = three(length=9, size=9)
    away = distances(9, 9)
    band = (away > -window) & ((away <= 0) if causal else (away < window))
    wanted = formula(query, key, value, band.expand(2, 9, 9), scale=1.3)
    found = windowed(query, key, value, window, causal=causal, scale=1.3)
    assert torch.allclose(found, wanted, atol=1e-10)


@pytest.mark.parametrize("weights", [False, True])
def test_dropout_leaves_out_its_share_and_keeps_the_mean(weights):
    torch.manual_seed(0)
    one = torch.ones(1, 1, 8000, 2)
    key = value = torch.ones(1, 1, 1, 2)  # a single key: all of it, or nothing
    found = attend(one, key, value, dropout=0.2, weights=weights)
    out = found[0] if weights else found
    kept = out[0, 0, :, 0]
    assert torch.allclose(kept.unique(), torch.tensor([0.0, 1.25]))
    assert abs(float((kept == 0).float().mean()) - 0.2) < 0.02
    if weights:
        assert bool((found[1] == 1).all())  # what is shown is what was meant


@pytest.mark.parametrize("causal", [False, True])
def test_linear_attention_is_its_sum(causal):
    query, key, value = three(length=9, size=9)
    real = torch.ones(2, 9, dtype=torch.bool)
    real[1, 4:] = False
    q, k = (torch.nn.functional.elu(one) + 1 for one in (query, key))
    shares = q @ k.mT * real[:, None, None]
    shares = shares.tril() if causal else shares
    wanted = shares @ value / shares.sum(-1, keepdim=True)
    found = linear_attention(query, key, value, real, causal=causal, chunk=4)
    assert torch.allclose(found, wanted)


def test_additive_scores_are_bahdanaus():
    query, key, direction = draw(2, 3, 4), draw(2, 5, 4, seed=1), draw(4, seed=2)
    found = additive(query, key, direction)
    for t in range(3):
        for s in range(5):
            wanted = torch.tanh(query[1, t] + key[1, s]) @ direction
            assert torch.allclose(found[1, t, s], wanted)


def test_rotations_keep_lengths_and_see_distances_alone():
    x, y = draw(6, 8), draw(6, 8, seed=1)
    turned = rotate_places(x, rotation(torch.arange(6), 8))
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1))
    products = []
    for shift in (0, 11):
        turns = rotation(torch.arange(6) + shift, 8)
        products.append(rotate_places(x, turns) @ rotate_places(y, turns).T)
    assert torch.allclose(*products, atol=1e-6)
    turn = torch.tensor(3.0, dtype=torch.float64)  # of the first pair at place 3: one radian each
    first = x[3, 0] * turn.cos() - x[3, 1] * turn.sin()
    assert torch.isclose(turned[3, 0], first, atol=1e-6)
    half = rotate_places(x.bfloat16(), rotation(torch.arange(6), 8))
    assert half.dtype == torch.bfloat16
    assert torch.allclose(half.double(), turned, atol=0.05)


def test_rates_fall_from_one_to_one_over_the_base():
    rates = torch.tensor([10000 ** (-2 * j / 8) for j in range(4)])
    assert torch.allclose(rotation(torch.arange(4), 8)[3].angle(), 3 * rates, atol=1e-6)
    waves = sinusoidal(torch.arange(4), 8)[3]
    assert torch.allclose(waves[0::2], (3 * rates).sin(), atol=1e-6)
    assert torch.allclose(waves[1::2], (3 * rates).cos(), atol=1e-6)


def test_buckets_are_those_of_t5():
    """Worked out by its formula: 8 + floor(log(d / 8) / log(128 / 8) 8), 16 more for what comes."""
    far = torch.tensor([0, -7, -8, -11, -12, -16, -127, -500, 1, 7, 8, 16, 500])
    assert bucketed(far).tolist() == [0, 7, 8, 8, 9, 10, 15, 15, 17, 23, 24, 26, 31]
    past = torch.tensor([5, 0, -15, -16, -32, -127, -500])
    assert bucketed(past, causal=True).tolist() == [0, 0, 15, 16, 21, 31, 31]


def test_places():
    waves = sinusoidal(torch.arange(50), 16)
    assert torch.allclose(waves[:, 0], torch.arange(50.0).sin())
    assert len(waves.unique(dim=0)) == 50
    assert torch.allclose(slopes(8)[0], torch.tensor(0.5))
    found = bucketed(distances(300, 300))
    assert int(found.min()) == 0
    assert int(found.max()) == 31
    near = bucketed(torch.arange(-7, 8))
    assert near.unique().numel() == 15
    past = bucketed(-torch.arange(300), causal=True)
    assert bool((past.diff() >= 0).all())
    assert int(past.max()) == 31


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda q, k, v: attend(q, k, v, torch.ones(2, 7, dtype=torch.bool)),
         r"mask must be \(B, T, S\) = \(2, 5, 7\) .* got \(2, 7\)"),
        (lambda q, k, v: attend(q, k, v, torch.ones(2, 5, 7)), "True .* got torch.float32"),
        (lambda q, k, v: attend(q[0], k, v), r"\(B, heads, T, D\)"),
        (lambda q, k, v: attend(q, k[..., :3], v), "must agree"),
        (lambda q, k, v: attend(q[:, :3], k[:, :2], v[:, :2]), "3 query heads cannot share 2"),
        (lambda q, k, v: windowed(q, k, v, 2), "5 queries need as many keys, got 7"),
        (lambda q, k, v: windowed(q, q, q, 0), "at least 1, got 0"),
        (lambda q, k, v: linear_attention(q, k, v, causal=True), "not causal"),
        (lambda q, k, v: rotation(torch.arange(3), 5), "even, got 5"),
        (lambda q, k, v: sinusoidal(torch.arange(3), 5), "even, got 5"),
        (lambda q, k, v: slopes(0), "at least 1"),
        (lambda q, k, v: bucketed(torch.arange(3), 5), "even and at least 4"),
    ],
)  # fmt: skip
def test_refusals(act, said):
    with pytest.raises(ValueError, match=said):
        act(*three())
