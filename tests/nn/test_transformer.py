"""Transformers: caches, padding, members, positions; language models, translators, readers."""

from __future__ import annotations

import math

import pytest
import torch

import deepweave as dw
from deepweave import nn
from deepweave.functional.positions import sinusoidal
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


@pytest.mark.parametrize("options", [{}, {"position": "alibi"}, {"window": 3}, {"groups": 1}])
def test_cached_logits_are_the_uncached(options):
    model = lm(**options)
    whole = model(TOKENS)
    state = model.begin(7)
    parts = [model(TOKENS[:, :4], state)]
    parts += [model(TOKENS[:, t : t + 1], state) for t in (4, 5, 6)]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


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
