"""GRU with attention: padding, writing step by step, beams, what it attends to, what it refuses."""

from __future__ import annotations

import pytest
import torch

import deepweave as dw
from deepweave import nn
from deepweave.functional.ragged import pad
from deepweave.nn.generation import beam_search, generate

SCORES = [None, "dot", "scaled", "cosine", "multiplicative", "additive"]
SOURCES = [torch.tensor([4, 5, 6]), torch.tensor([7, 8, 4, 5, 6])]
TARGET = torch.tensor([[2, 4, 9, 5], [2, 10, 6, 6]])


def made(score="additive", **options):
    torch.manual_seed(0)
    return nn.seq2seq(((5,), 11, 9), 16, score, **options).eval()


@pytest.mark.parametrize("score", SCORES)
def test_padding_does_not_matter(score):
    model = made(score)
    together = model((pad(SOURCES), TARGET))
    assert together.shape == (2, 4, 11)
    for i, source in enumerate(SOURCES):
        alone = model((source[None], TARGET[i : i + 1]))
        assert torch.allclose(together[i], alone[0], atol=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_step_by_step_is_at_once(score):
    model = made(score)
    whole = model((pad(SOURCES), TARGET))
    state = model.begin(4, pad(SOURCES))
    parts = [model.go_on(TARGET[:, :2], state)]
    parts += [model.go_on(TARGET[:, t : t + 1], state) for t in (2, 3)]
    assert torch.allclose(torch.stack(parts, 1), whole[:, 1:], atol=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_every_weight_learns_and_every_letter_matters(score):
    model = made(score).double()
    source = torch.tensor([[4, 5, 6, 7]])
    loss, _ = dw.NextToken(model)(((source, TARGET[:1]), TARGET[1:]))
    loss.backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        assert bool((weight.grad != 0).any()), name
    whole = model((source, TARGET[:1]))
    for place in range(4):
        other = source.clone()
        other[0, place] = 8
        assert float((model((other, TARGET[:1])) - whole).abs().max().detach()) > 1e-6, place
    assert torch.equal(model((source, TARGET[:1])), whole)


@pytest.mark.parametrize("score", [None, "additive"])
def test_the_decoder_starts_from_both_ends_of_the_source(score):
    model = made(score)
    state = model.read(pad(SOURCES))
    ends = [
        torch.cat([state.memory[i, len(one) - 1, :8], state.memory[i, 0, 8:]])
        for i, one in enumerate(SOURCES)
    ]
    wanted = model.bridge(torch.stack(ends)).tanh()
    assert torch.allclose(state.hidden[0], wanted, atol=1e-6)


def test_without_attention_each_token_sees_the_one_state_of_the_source():
    model, source = made(None), pad(SOURCES)
    state = model.read(source)
    out, _ = model.decoder(model.target(TARGET), state.hidden)
    handed = state.hidden[0][:, None].expand_as(out)
    wanted = model.head(model.join(torch.cat([out, handed], -1)).tanh())
    assert torch.allclose(model((source, TARGET)), wanted, atol=1e-6)


def test_it_does_not_look_ahead():
    model = made()
    later = TARGET.clone()
    later[:, 2:] = 4
    one, two = (model((pad(SOURCES), target))[:, :2] for target in (TARGET, later))
    assert torch.allclose(one, two, atol=1e-6)


def test_what_it_looked_at():
    model = made("additive")
    seen = []
    out = model((pad(SOURCES), TARGET), seen)
    assert torch.allclose(out, model((pad(SOURCES), TARGET)), atol=1e-6)
    (weights,) = seen
    assert weights.shape == (2, 1, 4, 5)
    assert bool((weights[0, :, :, 3:] == 0).all())
    assert torch.allclose(weights.sum(-1), torch.ones(2, 1, 4), atol=1e-6)
    assert model.attention.score == "additive"


@pytest.mark.parametrize("score", [None, "additive"])
def test_beams_are_scored_as_the_model_scores_them(score):
    model, source = made(score), pad(SOURCES)
    with torch.no_grad():
        model.head.bias[:3] = -9.0  # as one that learned writes no padding
    found, score = beam_search(model, steps=5, source=source, beams=3)
    begun = torch.cat([torch.full((2, 1), 2), found[:, :-1]], 1)
    logits = model((source, begun))
    logits[..., :3] = -torch.inf  # never written
    log_p = logits.log_softmax(-1).gather(-1, found[..., None])[..., 0]
    real = found != 0
    assert torch.allclose(score, log_p.masked_fill(~real, 0.0).sum(1) / real.sum(1), atol=1e-5)


@pytest.mark.parametrize("score", [None, "additive"])
def test_greedy_writing_is_the_likeliest_token_each_time(score):
    model, source = made(score), pad(SOURCES)
    found = generate(model, steps=5, source=source, temperature=0.0, end=None)
    text = torch.full((2, 1), 2)
    for _ in range(5):
        text = torch.cat([text, model((source, text))[:, -1, 3:].argmax(-1, keepdim=True) + 3], 1)
    assert torch.equal(found, text[:, 1:])


def test_it_learns_to_copy_and_one_without_attention_learns_less():
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(4, 12, (512, 6), generator=generator)
    begun = torch.cat([torch.full((512, 1), 2), source[:, :-1]], 1)
    losses = {}
    for score in (None, "scaled"):
        torch.manual_seed(0)
        objective = dw.NextToken(nn.seq2seq(((6,), 12, 12), 24, score, dropout=0.0))
        step = dw.Descent(objective, "AdamW", lr=0.01)
        for i in range(240):
            part = slice(64 * (i % 8), 64 * (i % 8) + 64)
            loss = step(((source[part], begun[part]), source[part]))["loss"]
        losses[score] = float(loss)
    assert losses["scaled"] < 0.5 * losses[None]


def test_a_folder_makes_it_again(tmp_path):
    model = made("multiplicative", dropout=0.3)
    again = dw.blueprint.build(dw.blueprint.describe(model))
    again.load_state_dict(model.state_dict())
    batch = (pad(SOURCES), TARGET)
    assert torch.equal(again.eval()(batch), model(batch))
    assert not torch.allclose(model.train()(batch), model.eval()(batch), atol=1e-3)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: nn.seq2seq(((5,), 11, 9), 15), "features must be even"),
        (lambda: nn.seq2seq((5, 11)), "sizes must be of tokens"),
        (lambda: nn.seq2seq(((5,), 11, 9), 16, "near"), "score must be one of"),
        (lambda: made()(TARGET), r"\(source, target so far\)"),
        (lambda: made().begin(3), "needs a source"),
    ],
)
def test_refusals(act, said):
    with pytest.raises(ValueError, match=said):
        act()
