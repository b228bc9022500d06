"""NextToken: the loss of real positions alone, its mass, what it refuses; a run that writes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional.ragged import Padded


class Bigram(nn.Module):
    def __init__(self, tokens=6):
        super().__init__()
        self.table = nn.Embedding(tokens, tokens)

    def forward(self, x):
        return self.table(x)


X, Y = torch.tensor([[2, 4, 5, 3], [2, 5, 3, 0]]), torch.tensor([[4, 5, 3, 0], [5, 3, 0, 0]])


def test_loss_is_the_mean_over_real_tokens():
    model = Bigram()
    loss, _ = dw.NextToken(model)((X, Y))
    log_p = model(X).log_softmax(-1)
    single = [-log_p[b, t, Y[b, t]] for b in range(2) for t in range(4) if Y[b, t]]
    assert torch.allclose(loss, torch.stack(single).mean())
    again, _ = dw.NextToken(model)((X, Padded(Y, torch.tensor([3, 2]))))
    assert torch.equal(loss, again)
    assert float(dw.NextToken(model).mass((X, Y))) == 5


def test_smoothing_is_for_training_alone():
    objective = dw.NextToken(Bigram(), smoothing=0.2)
    trained = objective((X, Y))[0]
    objective.eval()
    assert not torch.isclose(trained, objective((X, Y))[0])
    assert objective((X, Y))[1]["accuracy"].shape == ()


def test_accuracy_is_of_real_tokens():
    model = Bigram()
    with torch.no_grad():
        model.table.weight.zero_()
        model.table.weight[:, 3] = 1.0  # always the end: right twice of five
    logs = dw.NextToken(model).eval()((X, Y))[1]
    assert float(logs["accuracy"]) == pytest.approx(0.4)


def test_a_population_learns_as_each_alone():
    objectives = [dw.NextToken(Bigram()) for _ in range(3)]
    many = dw.Population([*objectives], optimizer="SGD", lr=0.5, shared=True)
    for _ in range(3):
        many((X, Y))
    for i, one in enumerate(objectives):
        step = dw.Descent(one, "SGD", lr=0.5)
        for _ in range(3):
            step((X, Y))
        wanted = one.model.table.weight
        assert torch.allclose(many.member(i).model.table.weight, wanted, atol=1e-6)


def test_a_run_on_a_stream_is_scored_in_bits(tmp_path):
    (tmp_path / "a.txt").write_text("abcd" * 500)
    data = dw.data.load(tmp_path / "a.txt", context=8)
    model = Bigram(data.spec.vocabulary)
    run = dw.fit(dw.supervise(model, data.spec), data, epochs=30, lr=0.1, out=False)
    scores = run.test()
    assert scores["test/bits"] < 0.1
    assert scores["test/accuracy"] > 0.99
    assert math.isclose(run.info["baseline"]["test/bits"]["value"], 2.0, abs_tol=0.02)
    assert run.info["baseline_name"] == "token frequencies"


def test_pairs_are_scored_over_their_real_tokens():
    data = dw.data.load("pronunciations", limit=60)
    torch.manual_seed(0)
    model = dw.nn.seq2seq(data.spec, 8, dropout=0.0)
    run = dw.fit(dw.supervise(model, data.spec), data, epochs=1, out=False)
    scores, total, right, count = run.test(), 0.0, 0, 0
    x, target = data.test.x
    y = data.test.y
    seen = torch.bincount(data.train.y.values, minlength=data.spec.outputs).double() + 1
    log_p = (seen / (seen.sum() - 1)).log()  # of padding there is none
    for i in range(len(data.test)):
        row = y.take(torch.tensor([i])).values
        place = torch.tensor([i])
        with torch.no_grad():
            logits = run.model.eval()((x.take(place), target.take(place)))
        total -= float(logits.log_softmax(-1).gather(-1, row[..., None]).sum())
        right += int((logits.argmax(-1) == row).sum())
        count += row.numel()
    assert math.isclose(scores["test/loss"], total / count, rel_tol=1e-5)
    assert math.isclose(scores["test/bits"], total / count / math.log(2), rel_tol=1e-5)
    assert math.isclose(scores["test/accuracy"], right / count, rel_tol=1e-9)
    found = run.info["baseline"]["test/loss"]["value"]
    assert math.isclose(found, -float(log_p[y.values].mean()), rel_tol=1e-6)


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ((X, Y.float()), "int64, got torch.float32"),
        ((X, Y[:, :2]), r"with \(B, T\) = \(2, 2\)"),
        ((X, Y + 4), r"0\.\.5, got 4\.\.9"),
        ((X, Y * 0), "every target of the first batch is padding"),
        ((X, Y, torch.ones(2)), "no weights of their own"),
    ],
)
def test_refusals(batch, said):
    with pytest.raises(ValueError, match=said):
        dw.NextToken(Bigram()).check(batch)
