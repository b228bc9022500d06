"""Transformers: caches, padding, members, positions; language models, translators, readers."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch

import deepweave as dw
from deepweave import nn
from deepweave.functional.positions import (
    rotate_places,
    rotation,
    sinusoidal,
    turn_places,
)
from deepweave.functional.ragged import Padded, pad
from deepweave.nn.transformer import Block, FeedForward
from deepweave.testing.models import check_model

TOKENS = torch.randint(4, 11, (3, 7), generator=torch.Generator().manual_seed(0))
WRITTEN = ((7,), 11, 11)


def lm(**options):
    torch.manual_seed(0)
    return nn.language_model(WRITTEN, 16, 2, heads=2, **options).eval()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.language_model(WRITTEN, 16, 2, heads=2),
        lambda: nn.language_model(WRITTEN, 16, 1, heads=4, groups=2, tied=True, norm="rms"),
        lambda: nn.language_model(WRITTEN, 16, 1, activation="swiglu", window=3),
        lambda: nn.language_model(WRITTEN, 16, 2, pre=False, position="alibi"),
        lambda: nn.transformer(((7,), 3, 11), 16, 1, position="relative", readout="max"),
        lambda: nn.transformer(((7,), 3, 11), 16, 1, readout="first", position="sine"),
    ],
)
def test_contract_of_tokens(make):
    check_model(make, TOKENS)


@pytest.mark.parametrize("position", ["rotary", "alibi", "relative", "sine", None])
def test_contract_of_sequences(position):
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    check_model(lambda: nn.transformer(((5, 4), 3), 16, 1, position=position), x)


def test_contract_of_images():
    x = torch.randn(3, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    check_model(lambda: nn.vision_transformer(((2, 6, 4), 3), 16, 1, patch=2), x)


def test_a_block_is_its_formula():
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for pre in (True, False):
        block = Block(8, 2, 12, pre=pre)
        with torch.no_grad():  # norms that do something
            block.norm.weight.uniform_(0.5, 1.5)
            block.norm_forward.bias.normal_()
        if pre:
            middle = x + block.attention(block.norm(x))
            wanted = middle + block.forward_net(block.norm_forward(middle))
        else:
            middle = block.norm(x + block.attention(x))
            wanted = block.norm_forward(middle + block.forward_net(middle))
        assert torch.allclose(block(x), wanted, atol=1e-6)


def test_a_gated_network_is_its_formula():
    torch.manual_seed(0)
    net = FeedForward(4, 6, "swiglu")
    x = torch.randn(3, 4)
    value, gate = (x @ w.T + b for w, b in zip(net.inner.weight.split(6), net.inner.bias.split(6)))
    assert torch.allclose(net(x), net.out(value * gate * gate.sigmoid()), atol=1e-6)


@pytest.mark.parametrize(("readout", "said"), [("mean", 0), ("max", 1), ("first", 2)])
def test_readouts_are_what_they_say(readout, said):
    torch.manual_seed(0)
    net = nn.transformer(((7,), 3, 11), 16, 1, readout=readout).eval()
    z = net.embedding(TOKENS)
    if readout == "first":
        z = torch.cat([net.first.expand(3, 1, -1), z], 1)
    z = net.stack(z)
    wanted = (z.mean(1), z.amax(1), z[:, 0])[said]
    assert torch.allclose(net(TOKENS), net.head(wanted), atol=1e-6)


def test_waves_are_added_and_rotations_are_not():
    torch.manual_seed(0)
    net = nn.transformer(((7,), 3, 11), 16, 1, position="sine").eval()
    z = net.embedding(TOKENS) + sinusoidal(torch.arange(7), 16)
    assert torch.allclose(net(TOKENS), net.head(net.stack(z).mean(1)), atol=1e-6)


def test_positions_tell_the_order_of_a_text():
    """The mean over a text read backwards: rotations and waves see it, distances do not."""
    for position, seen in ((None, False), ("alibi", False), ("sine", True), ("rotary", True)):
        torch.manual_seed(0)
        net = nn.transformer(((7,), 3, 11), 16, 1, position=position).eval()
        away = float((net(TOKENS) - net(TOKENS.flip(1))).abs().max().detach())
        assert (away > 1e-5) == seen, position


def test_a_vision_transformer_knows_where_a_patch_is():
    torch.manual_seed(0)
    net = nn.vision_transformer(((1, 4, 4), 3), 8, 1, patch=2, heads=2).eval()
    image = torch.randn(1, 1, 4, 4)
    turned = torch.cat([image[:, :, 2:], image[:, :, :2]], 2)  # the patches' rows exchanged
    assert not torch.allclose(net(image), net(turned), atol=1e-5)
    with torch.no_grad():
        net.embedding.place.zero_()
    assert torch.allclose(net(image), net(turned), atol=1e-5)


def test_decoders_do_not_look_ahead_and_encoders_do():
    torch.manual_seed(0)
    model = nn.translator(((5,), 11, 11), 16, 1).eval()
    source, target = TOKENS[:, :5], TOKENS
    whole = model((source, target))
    later = target.clone()
    later[:, 4:] = 4
    assert torch.allclose(model((source, later))[:, :4], whole[:, :4], atol=1e-6)
    memory, _ = model.encode(source)
    other = source.clone()
    other[:, 4] = (other[:, 4] - 3) % 7 + 4  # another token at the end
    assert not torch.allclose(model.encode(other)[0][:, 0], memory[:, 0], atol=1e-4)


def test_tied_logits_are_products_with_the_embedding():
    model = lm(tied=True)
    z = model.stack(model.embedding(TOKENS))
    wanted = z @ model.embedding.weight.T / 4  # features 16: logits begin with variance near 1
    assert torch.allclose(model(TOKENS), wanted, atol=1e-5)


def test_groups_of_a_language_model_share_keys():
    model = lm(groups=1)
    assert model.stack.blocks[0].attention.project.out_features == 16 + 2 * 8


def test_patches_are_squares_of_the_image():
    net = nn.vision_transformer(((1, 4, 6), 3), 4, 1, patch=2, heads=2).embedding
    with torch.no_grad():
        net.project.weight.copy_(torch.eye(4))
        net.project.bias.zero_()
        net.place.zero_()
    image = torch.arange(24.0).view(1, 1, 4, 6)
    assert net(image)[0, 4].tolist() == [14, 15, 20, 21]


OPTIONS = [
    {"position": position, "window": window, "groups": groups, **more}
    for position, window, groups, more in product(
        ("rotary", "alibi", "relative"), (None, 3), (None, 1),
        ({}, {"pre": False}, {"norm": "rms", "activation": "swiglu"},
         {"dropout": 0.5, "tied": True}),
    )
    if position != "relative" or window is None
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("learns", [False, True])
def test_cached_logits_are_the_uncached(options, learns):
    model = lm(**options).eval()
    whole = model(TOKENS)
    with torch.set_grad_enabled(learns):
        state = model.begin(7)
        pieces = (slice(0, 3), slice(3, 4), slice(4, 6), slice(6, 7))  # several at once, and one
        parts = [model(TOKENS[:, piece], state) for piece in pieces]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_written_with_a_cache_is_what_is_likeliest_without(options):
    model = lm(**options).double().eval()
    found, text = nn.generate(model, TOKENS[:, :3], 6, temperature=0.0, end=None), TOKENS[:, :3]
    for _ in range(6):
        text = torch.cat([text, model(text)[:, -1, 3:].argmax(-1, keepdim=True) + 3], 1)
    assert torch.equal(found, text[:, 3:])


def test_a_cache_in_half_precision():
    model = lm().bfloat16().eval()
    state = model.begin(7)
    parts = [model(TOKENS[:, t : t + 1], state) for t in range(7)]
    assert torch.allclose(torch.cat(parts, 1), model(TOKENS), atol=0.1)
    x, turns = torch.randn(2, 3, 8).bfloat16(), rotation(torch.arange(3), 8)
    wanted = rotate_places(x, turns)
    turn_places(x, turns)
    assert torch.equal(x, wanted)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "swiglu"])
@pytest.mark.parametrize("shape", [(1, 1, 6), (3, 1, 6), (2, 5, 6)])
@pytest.mark.parametrize("hidden", [7, 16])
def test_a_feed_forward_network_is_its_formula_with_slopes_and_without(activation, shape, hidden):
    torch.manual_seed(0)
    net, x = FeedForward(6, hidden, activation), torch.randn(shape)
    inner = net.inner(x)
    if activation == "swiglu":
        a, gate = inner.chunk(2, -1)
        wanted = net.out(a * torch.nn.functional.silu(gate))
    else:
        wanted = net.out(net.activation(inner))
    assert torch.allclose(net(x), wanted, atol=1e-6)
    with torch.no_grad():
        assert torch.allclose(net(x), wanted, atol=1e-6)
        assert net(x).shape == shape


@pytest.mark.parametrize("readout", ["mean", "max", "first"])
def test_padding_does_not_matter(readout):
    torch.manual_seed(0)
    net = nn.transformer(((7,), 3, 11), 16, 2, readout=readout).eval()
    texts = [TOKENS[0, :3], TOKENS[1], TOKENS[2, :1]]
    together = net(pad(texts))
    for text, found in zip(texts, together):
        assert torch.allclose(net(text[None])[0], found, atol=1e-5)


def test_a_translator_pads_caches_and_looks_at_its_source():
    torch.manual_seed(0)
    model = nn.translator(((5,), 11, 9), 16, 2).eval()
    sources = [torch.tensor([4, 5, 6]), torch.tensor([7, 8, 4, 5, 6])]
    target = TOKENS[:2]
    together = model((pad(sources), target))
    alone = model((sources[0][None], target[:1]))
    assert torch.allclose(together[:1], alone, atol=1e-5)
    state = model.begin(7, pad(sources))
    found = torch.stack([model.go_on(target[:, t : t + 1], state) for t in range(7)], 1)
    assert torch.allclose(found, together, atol=1e-5)
    other = model((sources[0][None].flip(1), target[:1]))
    assert not torch.allclose(other, alone, atol=1e-3)
    seen = []
    model((pad(sources), target), seen)
    assert [tuple(one.shape) for one in seen] == [(2, 4, 7, 7), (2, 4, 7, 5)] * 2
    assert bool((seen[1][0, :, :, 3:] == 0).all())


def test_a_population_of_language_models_learns_as_each_alone():
    objectives = [dw.NextToken(nn.language_model(WRITTEN, 16, 1, heads=2)) for _ in range(2)]
    many = dw.Population([*objectives], optimizer="SGD", lr=0.5, shared=True)
    batch = (TOKENS[:, :-1], TOKENS[:, 1:])
    for _ in range(2):
        many(batch)
    for i, one in enumerate(objectives):
        alone = dw.Descent(one, "SGD", lr=0.5)
        for _ in range(2):
            alone(batch)
        for name, weight in many.member(i).named_parameters():
            assert torch.allclose(weight, one.get_parameter(name), atol=1e-5), name


def test_the_first_loss_is_that_of_knowing_nothing():
    """Logits of a fresh model have little variance, so that training starts from log V."""
    torch.manual_seed(0)
    model = nn.language_model(((8,), 100, 100), 64, 2)
    tokens = torch.randint(4, 100, (8, 32))
    loss = dw.NextToken(model)((tokens[:, :-1], tokens[:, 1:]))[0].detach()
    assert abs(float(loss) - math.log(100)) < 0.5


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: lm()(TOKENS + 5), r"tokens must lie in 0\.\.10"),
        (lambda: lm()(TOKENS - 5), r"tokens must lie in 0\.\.10, got -"),
        (lambda: lm()(TOKENS.float()), "int64, got torch.float32"),
        (lambda: lm()(TOKENS[:, :0]), "T at least 1"),
        (lambda: nn.language_model((7, 11)), "sizes must be of tokens"),
        (lambda: nn.language_model(((7,), 11, 12), tied=True), "as many outputs as tokens"),
        (lambda: nn.transformer((7, 3)), "sizes must be of tokens"),
        (lambda: nn.transformer(((7, 4), 3), readout="last"), "readout must be one of"),
        (lambda: nn.vision_transformer(((1, 8, 8), 3), patch=3), "patch 3 does not divide"),
        (lambda: nn.vision_transformer(((8, 8), 3)), "needs images"),
        (lambda: nn.vision_transformer(((1, 8, 8), 3))(torch.zeros(2, 3, 8, 8)), "must be"),
        (lambda: nn.transformer(((7, 4), 3))(torch.zeros(2, 7, 5)), r"\(B, T, 4\)"),
        (lambda: nn.translator(((5,), 11, 9))(TOKENS), r"\(source, target so far\)"),
        (lambda: nn.transformer(((7,), 3, 11))(Padded(TOKENS, torch.tensor([7, 0, 1]))),
         r"lengths must lie in 1\.\.7, got 0"),
    ],
)  # fmt: skip
def test_refusals(act, said):
    with pytest.raises(ValueError, match=said):
        act()
