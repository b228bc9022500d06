"""The attention layer: every score and position, caches, members, what it refuses."""

from __future__ import annotations

import pytest
import torch

import deepweave as dw
from deepweave.functional.ragged import within
from deepweave.nn.attention import POSITIONS, SCORES, Attention, Cache
from deepweave.testing.models import check_model

X = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
WAYS = [
    (score, position)
    for score in SCORES
    for position in POSITIONS
    if score != "linear" or position in (None, "rotary")
]
SOFT = [way for way in WAYS if way[0] != "linear"]  # with a softmax, and weights to show


def made(**options):
    torch.manual_seed(0)
    return Attention(8, 2, **options).eval()


@pytest.mark.parametrize(("score", "position"), WAYS)
@pytest.mark.parametrize("causal", [False, True])
def test_contract(score, position, causal):
    def make():
        return Attention(8, 2, score=score, position=position, causal=causal)

    check_model(make, torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize(("score", "position"), WAYS)
def test_a_cache_gives_what_the_whole_gives(score, position):
    layer = made(score=score, position=position, causal=True, groups=1)
    whole = layer(X)
    cache = Cache(6)
    pieces = (slice(0, 2), slice(2, 4), slice(4, 5), slice(5, 6))  # several at once, and one
    parts = [layer(X[:, piece], cache=cache) for piece in pieces]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-6)
    with pytest.raises(ValueError, match="7 tokens do not fit into 6"):
        layer(X[:, :1], cache=cache)


@pytest.mark.parametrize(("score", "position"), SOFT)
@pytest.mark.parametrize("causal", [False, True])
def test_weights_change_nothing(score, position, causal):
    layer = made(score=score, position=position, causal=causal)
    mask = within(torch.tensor([6, 4]), 6)[:, None]
    out, weights = layer(X, mask=mask, weights=True)
    assert torch.allclose(layer(X, mask=mask), out, atol=1e-6)
    assert weights.shape == (2, 2, 6, 6)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 2, 6), atol=1e-6)
    assert bool((weights[1, :, :, 4:] == 0).all())
    if causal:
        assert bool((weights.triu(1) == 0).all())


@pytest.mark.parametrize(("score", "position"), WAYS)
def test_what_is_masked_does_not_matter(score, position):
    layer = made(score=score, position=position)
    mask = within(torch.tensor([6, 4]), 6)[:, None]
    other = X.clone()
    other[1, 4:] = 100.0
    assert torch.allclose(layer(X, mask=mask)[1, :4], layer(other, mask=mask)[1, :4], atol=1e-5)


@pytest.mark.parametrize(("score", "position"), WAYS)
def test_causal_layers_do_not_look_ahead(score, position):
    layer = made(score=score, position=position, causal=True)
    other = X.clone()
    other[:, 3:] += 1
    assert torch.allclose(layer(X)[:, :3], layer(other)[:, :3], atol=1e-6)
    assert not torch.allclose(layer(X)[:, 3:], layer(other)[:, 3:], atol=1e-3)


@pytest.mark.parametrize("position", [None, "rotary", "alibi"])
def test_windows_agree_with_and_without_weights(position):
    for causal in (False, True):
        layer = made(position=position, causal=causal, window=2)
        out, weights = layer(X, weights=True)
        assert torch.allclose(layer(X), out, atol=1e-6)
        reach = weights[0, 0].nonzero()
        assert int((reach[:, 0] - reach[:, 1]).abs().max()) == 1


def test_positions_tell_places_apart():
    same = torch.ones(1, 6, 8)
    same[:, 2] = -1
    moved = same.roll(2, 1)
    for position in ("rotary", "alibi", "relative"):
        layer = made(position=position)
        with torch.no_grad():
            if position == "relative":
                layer.near.weight.normal_()
        assert not torch.allclose(layer(same)[0, 0], layer(moved)[0, 0], atol=1e-4), position
    assert torch.allclose(made()(same)[0, 0], made()(moved)[0, 0], atol=1e-6)


def test_scores_are_their_formulas():
    for score in ("scaled", "dot", "cosine", "multiplicative", "additive"):
        layer = made(score=score)
        query, key = (
            one.detach().unflatten(-1, (2, 4)).transpose(1, 2)
            for one in layer.project(X).split(8, -1)[:2]
        )
        wanted = query @ key.mT
        if score == "scaled":
            wanted = wanted / 2
        elif score == "cosine":
            lengths = query.norm(dim=-1)[..., None] * key.norm(dim=-1)[..., None, :]
            wanted = 10 * wanted / lengths
        elif score == "multiplicative":
            wanted = query @ layer.metric @ key.mT
        elif score == "additive":
            wanted = (query[..., None, :] + key[..., None, :, :]).tanh() @ layer.direction
        _, weights = layer(X, weights=True)
        assert torch.allclose(weights, wanted.softmax(-1), atol=1e-6), score


@pytest.mark.parametrize("score", SCORES)
def test_grouped_heads_are_heads_with_the_same_keys(score):
    torch.manual_seed(0)
    few, many = Attention(8, 4, groups=2, score=score), Attention(8, 4, score=score)
    with torch.no_grad():
        query, *shared = few.project.weight.split([8, 4, 4])
        copied = [one.unflatten(0, (2, 2)).repeat_interleave(2, 0).flatten(0, 1) for one in shared]
        weights = few.state_dict() | {"project.weight": torch.cat([query, *copied])}
    many.load_state_dict(weights)
    assert torch.allclose(few(X), many(X), atol=1e-6)


def test_weights_are_dropped_in_training_alone():
    layer = made(dropout=0.5)
    whole = layer(X)
    assert torch.equal(whole, layer(X))
    layer.train()
    torch.manual_seed(1)
    assert not torch.allclose(layer(X), whole, atol=1e-3)
    layer.dropout = 0.0
    assert torch.allclose(layer(X), whole, atol=1e-6)


def test_alibi_by_one_more_feature_is_the_bias():
    layer = made(position="alibi", causal=True, groups=1, score="dot")
    assert torch.allclose(layer(X), layer(X, weights=True)[0], atol=1e-6)


def test_a_memory():
    layer = made(memory=5)
    memory = torch.randn(2, 9, 5)
    assert layer(X, memory).shape == (2, 6, 8)
    cache = Cache(0)
    first = layer(X, memory, cache=cache)
    assert torch.equal(first, layer(X, memory * 0, cache=cache))  # it was read once
    with pytest.raises(ValueError, match="needs a memory"):
        layer(X)
    with pytest.raises(ValueError, match="give no memory"):
        made()(X, memory)


@pytest.mark.parametrize(
    "options", [{}, {"position": "alibi"}, {"window": 2}, {"score": "additive"}]
)
def test_a_population_of_layers(options):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Attention(8, 2, causal=True, **options)
            self.head = torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.layer(x).mean(1))

    objectives = [dw.Classify(Net()) for _ in range(3)]
    many = dw.Population([*objectives], optimizer="SGD", lr=0.1, shared=True)
    batch = (X, torch.tensor([0, 2]))
    for _ in range(2):
        many(batch)
    for i, one in enumerate(objectives):
        alone = dw.Descent(one, "SGD", lr=0.1)
        for _ in range(2):
            alone(batch)
        for name, weight in many.member(i).named_parameters():
            assert torch.allclose(weight, one.get_parameter(name), atol=1e-6), name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": 3}, "8 features do not divide among 3 heads"),
        ({"groups": 3}, "do not divide among 3 groups"),
        ({"score": "sharp"}, "score must be one of scaled"),
        ({"position": "gps"}, "position must be one of None"),
        ({"memory": 4, "position": "rotary"}, "no distance"),
        ({"window": 0}, "at least 1"),
        ({"window": 3, "score": "linear"}, "scores of products"),
        ({"score": "linear", "position": "alibi"}, "take no bias"),
        ({"heads": 8, "position": "rotary"}, "even heads, got 1"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
    ],
)
def test_refusals(options, said):
    with pytest.raises(ValueError, match=said):
        Attention(8, options.pop("heads", 2), **options)


def test_inputs_are_refused_by_shape():
    with pytest.raises(ValueError, match=r"x must be \(B, T, 8\)"):
        made()(torch.zeros(2, 6, 7))
    with pytest.raises(ValueError, match="T at least 1"):
        made()(torch.zeros(2, 0, 8))
