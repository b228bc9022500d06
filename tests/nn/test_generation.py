"""Writing: draws obey their limits, caches change nothing, beams find what is likeliest."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from deepweave import nn
from deepweave.functional.ragged import END, pad
from deepweave.nn.generation import beam_search, choose, generate


class Chain(torch.nn.Module):
    """A writer whose next token depends on the last alone, by a table that is known."""

    def __init__(self, tokens=6, seed=0):
        super().__init__()
        self.logits = torch.randn(tokens, tokens, generator=torch.Generator().manual_seed(seed))
        self.logits[:, :3] = -torch.inf  # padding, unknown and begin are never written

    def begin(self, size, source=None):
        return State()

    def go_on(self, tokens, state):
        return self.logits[tokens[:, -1]]


class State:
    def select(self, rows):
        pass


def draws(count=4000, **options):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]]).repeat(count, 1)
    found = choose(logits, generator=torch.Generator().manual_seed(0), **options)
    return torch.bincount(found, minlength=4) / count


def test_draws_follow_their_probabilities():
    wanted = torch.tensor([2.0, 1.0, 0.0, -1.0]).softmax(0)
    assert torch.allclose(draws(), wanted, atol=0.03)
    hot = torch.tensor([1.0, 0.5, 0.0, -0.5]).softmax(0)
    assert torch.allclose(draws(temperature=2.0), hot, atol=0.03)
    assert draws(temperature=0.0).tolist() == [1, 0, 0, 0]


def test_draws_are_those_of_multinomial():
    logits = torch.randn(50, 9, generator=torch.Generator().manual_seed(1))
    for temperature in (1.0, 0.7):
        one, two = (torch.Generator().manual_seed(2) for _ in range(2))
        wanted = torch.multinomial((logits / temperature).softmax(-1), 1, generator=one)[:, 0]
        assert torch.equal(choose(logits, temperature=temperature, generator=two), wanted)


def test_limits_leave_out_the_rest_and_keep_the_ratios():
    two = torch.tensor([2.0, 1.0]).softmax(0)
    for options in ({"top_k": 2}, {"top_p": 0.7}, {"top_k": 3, "top_p": 0.8}):
        found = draws(**options)
        assert bool((found[2:] == 0).all()), options
        assert torch.allclose(found[:2], two, atol=0.03)
    assert draws(top_p=0.01).tolist() == [1, 0, 0, 0]
    assert torch.equal(draws(top_k=9), draws())


def test_a_nucleus_is_the_fewest_that_reach_it():
    logits = torch.tensor([[0.2, 0.4, 0.1, 0.3]]).log().repeat(3000, 1)
    for limit, kept in ((0.39, {1}), (0.41, {1, 3}), (0.69, {1, 3}), (0.71, {0, 1, 3})):
        found = choose(logits, top_p=limit, generator=torch.Generator().manual_seed(0))
        assert set(found.tolist()) == kept, limit


def test_generation_with_a_cache_is_generation_without():
    torch.manual_seed(0)
    model = nn.language_model(((8,), 12, 12), 16, 2, heads=2)
    prompt = torch.tensor([[4, 5, 6], [7, 8, 9]])
    found = generate(model, prompt, 10, temperature=0.0, end=None)
    text = prompt
    model.eval()
    for _ in range(10):
        text = torch.cat([text, model(text)[:, -1, 3:].argmax(-1, keepdim=True) + 3], 1)
    assert torch.equal(found, text[:, 3:])


def test_a_text_that_ended_gets_padding():
    model = Chain()
    model.logits[5, END] = 50.0
    found = generate(model, torch.tensor([[5], [4]]), 6, generator=torch.Generator().manual_seed(1))
    assert found[0].tolist() == [END] + [0] * (found.shape[1] - 1)
    ended = (found[1] == END).nonzero()[:1, 0].tolist() or [found.shape[1] - 1]
    assert bool((found[1, ended[0] + 1 :] == 0).all())


def test_the_same_generator_writes_the_same():
    torch.manual_seed(0)
    model = nn.language_model(((8,), 12, 12), 16, 1)
    prompt = torch.tensor([[4]])
    one, two = (
        generate(model, prompt, 8, generator=torch.Generator().manual_seed(3)) for _ in range(2)
    )
    assert torch.equal(one, two)


def test_writing_leaves_the_model_as_it_was():
    model, prompt = nn.language_model(((8,), 12, 12), 16, 1, dropout=0.5), torch.tensor([[4]])
    for training in (True, False):
        model.train(training)
        first = [generate(model, prompt, 5, temperature=0.0) for _ in range(2)]
        assert torch.equal(*first)  # nothing is dropped while it writes
        assert model.training is training
        beam_search(model, prompt, 3)
        assert model.training is training


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_wide_beam_finds_the_best_text(penalty, seed):
    model, steps = Chain(seed=seed), 4
    log_p = model.logits.log_softmax(-1)
    best, text = -torch.inf, ()
    for length in range(1, steps + 1):
        for inner in product((4, 5), repeat=length - (length < steps)):
            path = (*inner, END) if length < steps else inner
            for last in (path,) if length < steps else (path, (*inner[:-1], END)):
                total = sum(float(log_p[a, b]) for a, b in zip((4, *last), last))
                if total / len(last) ** penalty > best:
                    best, text = total / len(last) ** penalty, last
    found, score = beam_search(model, torch.tensor([[4]]), steps, beams=64, length_penalty=penalty)
    assert tuple(found[0, : len(text)].tolist()) == text
    assert float(score[0]) == pytest.approx(best, abs=1e-5)


def test_a_beam_goes_on_while_something_better_may_come():
    model = Chain()
    model.logits.fill_(-50.0)
    model.logits[4, END], model.logits[4, 5] = 0.2, 0.0  # to end at once is a little likelier
    model.logits[5, END] = 50.0  # after 5 the end is certain: by the mean, the better text
    found, score = beam_search(model, torch.tensor([[4]]), 4, beams=2)
    assert found.tolist() == [[5, END]]
    assert float(score[0]) == pytest.approx(-0.399, abs=1e-3)
    found, _ = beam_search(model, torch.tensor([[4]]), 4, beams=2, length_penalty=0.0)
    assert found.tolist() == [[END]]


def test_one_beam_is_greedy():
    torch.manual_seed(0)
    model = nn.translator(((5,), 11, 9), 16, 1)
    source = pad([torch.tensor([4, 5, 6]), torch.tensor([7, 8])])
    greedy = generate(model, steps=6, source=source, temperature=0.0)
    found, _ = beam_search(model, steps=6, source=source, beams=1)
    for one, two in zip(greedy, found):
        assert torch.equal(one[one != 0], two[two != 0])


def test_beams_of_a_transformer_are_scored_as_it_scores_them():
    torch.manual_seed(0)
    model = nn.translator(((5,), 11, 9), 16, 2).eval()
    source = pad([torch.tensor([4, 5, 6]), torch.tensor([7, 8])])
    found, score = beam_search(model, steps=5, source=source, beams=3)
    begun = torch.cat([torch.full((2, 1), 2), found[:, :-1]], 1)
    logits = model((source, begun))
    logits[..., :3] = -torch.inf  # never written
    log_p = logits.log_softmax(-1).gather(-1, found[..., None])[..., 0]
    real = found != 0
    wanted = log_p.masked_fill(~real, 0.0).sum(1) / real.sum(1)
    assert torch.allclose(score, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda m: generate(m), "a prompt .* or a source"),
        (lambda m: generate(m, torch.zeros(1, 0)), "T at least 1"),
        (lambda m: generate(m, torch.tensor([[4]]), 0), "steps must be at least 1"),
        (lambda m: generate(m, torch.tensor([[4]]), temperature=-1.0), "not be below 0"),
        (lambda m: generate(m, torch.tensor([[4]]), top_k=0), "top_k must be"),
        (lambda m: generate(m, torch.tensor([[4]]), top_p=0.0), "top_p must lie"),
        (lambda m: beam_search(m, torch.tensor([[4]]), beams=0), "beams must be"),
        (lambda m: nn.translator(((5,), 9, 9)).begin(3), "needs a source"),
        (lambda m: nn.language_model(((5,), 9, 9)).begin(3, m), "reads no source"),
    ],
)
def test_refusals(act, said):
    with pytest.raises(ValueError, match=said):
        act(Chain())


def test_a_model_keeps_its_logits():
    model = Chain()
    model.logits.uniform_()  # the marks too, which `generate` must leave out by itself
    model.go_on = lambda tokens, state: model.logits[:2]  # a view of what it keeps
    before = model.logits.clone()
    generate(model, torch.tensor([[4], [5]]), 3, temperature=0.0, end=None)
    beam_search(model, torch.tensor([[4], [5]]), 3, beams=1)
    assert torch.equal(model.logits, before)


def test_marks_are_never_written():
    torch.manual_seed(0)
    model = nn.translator(((5,), 11, 9), 16, 1)
    with torch.no_grad():
        model.head.weight.zero_()  # all alike: the first token that may be is the likeliest
    source = torch.tensor([[4, 5, 6]])
    assert generate(model, steps=2, source=source, temperature=0.0).tolist() == [[END]]
    assert int(beam_search(model, steps=3, source=source)[0].min()) >= END
    assert model.training
