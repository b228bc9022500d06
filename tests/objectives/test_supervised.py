from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepweave as dw

torch64 = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch64, generator=torch.Generator().manual_seed(seed))


class Given(nn.Module):
    """A model whose outputs are told."""

    def __init__(self, output: Tensor):
        super().__init__()
        self.output = nn.Parameter(output)

    def forward(self, x):
        return self.output[x.long()] if x.dim() == 1 else self.output


def loss_of(objective: dw.Objective, y: Tensor, weight: Tensor | None = None) -> Tensor:
    x = torch.arange(len(y))
    return objective((x, y) if weight is None else (x, y, weight))[0]


B, K = 12, 4
LABELS = torch.arange(B) % K
HALF = torch.arange(B) % 2
TAGS = (draw(B, 3, seed=1) > 0).double()
PIXELS = (torch.arange(2 * 3 * 5).view(2, 3, 5) * 7) % 4


def smooth(target: Tensor, classes: int, s: float) -> Tensor:
    return F.one_hot(target, classes).double() * (1 - s) + s / classes


# --- closed forms ---------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.0, 0.1])
def test_multiclass(s):
    z = draw(B, K)
    found = loss_of(dw.Classify(Given(z), smoothing=s), LABELS)
    log_p = z - z.exp().sum(1, keepdim=True).log()
    expected = -(smooth(LABELS, K, s) * log_p).sum(1).mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(found, F.cross_entropy(z, LABELS, label_smoothing=s))


@pytest.mark.parametrize("s", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(B,), (B, 1)])
@pytest.mark.parametrize("target", [(B,), (B, 1)])
def test_binary(s, shape, target):
    z = draw(B)
    y = HALF.reshape(target)
    found = loss_of(dw.Classify(Given(z.reshape(shape)), smoothing=s), y)
    soft = HALF.double() * (1 - s) + s / 2
    p = 1 / (1 + (-z).exp())
    expected = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    two = torch.stack([torch.zeros_like(z), z], 1)
    both = loss_of(dw.Classify(Given(two), smoothing=s), HALF)
    torch.testing.assert_close(found, both, msg="a sigmoid is a softmax of two")


@pytest.mark.parametrize("s", [0.0, 0.2])
def test_multilabel(s):
    z = draw(B, 3)
    found = loss_of(dw.Classify(Given(z), multilabel=True, smoothing=s), TAGS)
    soft = TAGS * (1 - s) + s / 2
    expected = F.binary_cross_entropy(z.sigmoid(), soft)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("output", "target"), [((B,), (B,)), ((B, 1), (B,)), ((B,), (B, 1)), ((B, 3), (B, 3))]
)
def test_regression(output, target):
    z, y = draw(*output), draw(*target, seed=2)
    found = loss_of(dw.Regress(Given(z)), y)
    expected = (z.reshape(target) - y).square().mean()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def soft_overlap(p: Tensor, t: Tensor) -> Tensor:
    """Dice by a loop over samples and classes."""
    rows = []
    for one, truth in zip(p, t):
        for a, b in zip(one, truth):
            rows.append(1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1))
    return torch.stack(rows).mean()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_segmentation(share):
    z = draw(2, 4, 3, 5)
    found = loss_of(dw.Segment(Given(z), share=share), PIXELS)
    hot = F.one_hot(PIXELS, 4).permute(0, 3, 1, 2).double()
    expected = (1 - share) * F.cross_entropy(z, PIXELS) + share * soft_overlap(z.softmax(1), hot)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    mask = PIXELS % 2
    one = draw(2, 1, 3, 5)
    found = loss_of(dw.Segment(Given(one), share=share), mask)
    entropy = F.binary_cross_entropy_with_logits(one.squeeze(1), mask.double())
    overlap = soft_overlap(one.sigmoid(), mask.unsqueeze(1).double())
    torch.testing.assert_close(found, (1 - share) * entropy + share * overlap)


def test_a_perfect_mask_costs_nothing():
    z = 100.0 * (2 * (PIXELS % 2).unsqueeze(1).double() - 1)
    with torch.no_grad():
        assert float(loss_of(dw.Segment(Given(z)), PIXELS % 2)) < 1e-12
        empty = torch.zeros(2, 3, 5, dtype=torch.long)
        blank = Given(torch.full((2, 1, 3, 5), -100.0))
        assert float(loss_of(dw.Segment(blank), empty)) < 1e-6


@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_huge_logits_stay_finite(size):
    z = torch.tensor([[size, -size], [-size, size]])
    for y, expected in ((torch.tensor([0, 1]), 0.0), (torch.tensor([1, 0]), 2 * size)):
        assert loss_of(dw.Classify(Given(z)), y).item() == pytest.approx(expected)
        one = dw.Classify(Given(z[:, 1]))
        loss = loss_of(one, y)
        assert float(loss.detach()) == pytest.approx(expected / 2)
        loss.backward()
        assert one.model.output.grad.isfinite().all()


# --- weights --------------------------------------------------------------------------------

METHODS = {
    "multiclass": (lambda z: dw.Classify(Given(z)), (B, K), LABELS),
    "smooth": (lambda z: dw.Classify(Given(z), smoothing=0.1), (B, K), LABELS),
    "class weights": (
        lambda z: dw.Classify(Given(z), class_weight=[0.5, 1.0, 2.0, 4.0]), (B, K), LABELS,
    ),
    "binary": (lambda z: dw.Classify(Given(z)), (B, 1), HALF),
    "binary class weights": (lambda z: dw.Classify(Given(z), class_weight=[3, 1]), (B,), HALF),
    "multilabel": (lambda z: dw.Classify(Given(z), multilabel=True), (B, 3), TAGS),
    "regression": (lambda z: dw.Regress(Given(z)), (B, 1), draw(B, seed=5)),
    "several": (lambda z: dw.Regress(Given(z)), (B, 2), draw(B, 2, seed=5)),
    "segmentation": (
        lambda z: dw.Segment(Given(z)), (B, 4, 2, 3), (torch.arange(B * 6) % 4).view(B, 2, 3),
    ),
    "mask": (
        lambda z: dw.Segment(Given(z)), (B, 1, 2, 3), (torch.arange(B * 6) % 2).view(B, 2, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_a_weight_is_a_repetition(name):
    make, shape, y = METHODS[name]
    z, times = draw(*shape), torch.arange(B) % 4
    weighted = loss_of(make(z).double(), y, times.double())
    repeated = loss_of(make(z.repeat_interleave(times, 0)).double(), y.repeat_interleave(times, 0))
    torch.testing.assert_close(weighted, repeated, rtol=1e-12, atol=0)
    ones = loss_of(make(z).double(), y, torch.ones(B, dtype=torch64))
    torch.testing.assert_close(ones, loss_of(make(z).double(), y), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_readings_are_weighted_too(name):
    make, shape, y = METHODS[name]
    z, times = draw(*shape), torch.arange(B) % 4
    one, many = make(z).double().eval(), make(z.repeat_interleave(times, 0)).double().eval()
    _, logs = one((torch.arange(B), y, times.double()))
    total = int(times.sum())
    _, repeated = many((torch.arange(total), y.repeat_interleave(times, 0)))
    assert logs.keys() == repeated.keys() != set()
    for key, value in logs.items():
        torch.testing.assert_close(value.double(), repeated[key].double(), rtol=1e-6, atol=1e-7)
        assert not value.requires_grad


def test_class_weights_against_torch():
    z, weight = draw(B, K), torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch64)
    found = loss_of(dw.Classify(Given(z), class_weight=weight).double(), LABELS)
    torch.testing.assert_close(found, F.cross_entropy(z, LABELS, weight))
    one = draw(B)
    found = loss_of(dw.Classify(Given(one), class_weight=[1.0, 3.0]).double(), HALF)
    two = torch.stack([torch.zeros_like(one), one], 1)
    expected = F.cross_entropy(two, HALF, torch.tensor([1.0, 3.0], dtype=torch64))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", METHODS)
def test_gradients(name):
    make, shape, y = METHODS[name]
    weight = torch.rand(B, dtype=torch64, generator=torch.Generator().manual_seed(3))

    def loss(z, *batch):
        objective = make(z.detach()).double()
        return objective.at({"model.output": z}, dict(objective.named_buffers()), batch)[0]

    for batch in ((torch.arange(B), y), (torch.arange(B), y, weight)):
        assert torch.autograd.gradcheck(loss, (draw(*shape).requires_grad_(), *batch))


# --- predictions and readings ---------------------------------------------------------------


def test_predictions_are_what_metrics_take():
    x = torch.arange(B)
    z = draw(B, K)
    torch.testing.assert_close(dw.Classify(Given(z)).predict(x), z.softmax(1))
    for shape in ((B,), (B, 1)):
        one = dw.Classify(Given(z[:, 0].reshape(shape))).predict(x)
        torch.testing.assert_close(one, z[:, 0].sigmoid())
    tags = dw.Classify(Given(z), multilabel=True).predict(x)
    torch.testing.assert_close(tags, z.sigmoid())
    assert dw.Regress(Given(z[:, :1])).predict(x).shape == (B,)
    assert torch.equal(dw.Regress(Given(z)).predict(x), z)
    pixels = draw(2, 4, 3, 5)
    torch.testing.assert_close(dw.Segment(Given(pixels)).predict(x[:2]), pixels.softmax(1))
    assert dw.Segment(Given(pixels[:, :1])).predict(x[:2]).shape == (2, 3, 5)


def test_a_batch_of_one_and_one_label():
    one = dw.Classify(Given(draw(1, 1)), multilabel=True)
    assert one.predict(torch.arange(1)).shape == (1, 1)
    assert dw.Regress(Given(draw(1, 1))).predict(torch.arange(1)).shape == (1,)


def test_readings_in_evaluation_only():
    z = draw(B, K)
    objective = dw.Classify(Given(z))
    assert objective((torch.arange(B), LABELS))[1] == {}
    _, logs = objective.eval()((torch.arange(B), LABELS))
    assert float(logs["accuracy"]) == pytest.approx(float((z.argmax(1) == LABELS).double().mean()))
    tags = dw.Classify(Given(draw(B, 3)), multilabel=True).eval()
    _, logs = tags((torch.arange(B), TAGS))
    right = ((draw(B, 3) > 0) == TAGS.bool()).double().mean()
    assert float(logs["accuracy"]) == pytest.approx(float(right))
    y = draw(B, seed=4)
    _, logs = dw.Regress(Given(draw(B, 1))).eval()((torch.arange(B), y))
    assert float(logs["mae"]) == pytest.approx(float((draw(B, 1)[:, 0] - y).abs().mean()))


# --- refusals -------------------------------------------------------------------------------

X = torch.zeros(4, 3)
LINE = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("objective", "batch", "message"),
    [
        (dw.Classify(LINE), X, r"a batch must be \(x, y\) or \(x, y, weight\), got Tensor"),
        (dw.Classify(LINE), (X,), "got 1 parts"),
        (dw.Classify(LINE), (X, torch.zeros(4).long(), torch.ones(3)), r"weight must be \(4,\)"),
        (dw.Classify(LINE), (X, torch.zeros(4).long(), -torch.ones(4)), "weight must be finite"),
        (dw.Classify(LINE), (X, torch.zeros(5).long()), "4 inputs and 5 targets"),
        (dw.Classify(LINE), (X, torch.tensor([0, 1, 2, 3])), r"labels must lie in 0..2, got 0..3"),
        (dw.Classify(LINE), (X, torch.tensor([0, 1, 2, -1])), r"labels must lie in 0..2, got -1"),
        (dw.Classify(LINE), (X, torch.zeros(4)), "targets must be .* of int64, got torch.float32"),
        (dw.Classify(LINE), (X, torch.zeros(4, 3)), "for several labels pass multilabel=True"),
        (dw.Classify(LINE, multilabel=True), (X, torch.zeros(4, 2)), "must be as the outputs"),
        (dw.Classify(LINE), (torch.zeros(4, 2), torch.zeros(4).long()), r"inputs of \(4, 2\)"),
        (dw.Classify(LINE), (X / 0, torch.zeros(4).long()), "12 of the inputs are not finite"),
        (dw.Classify(nn.Linear(3, 1)), (X, torch.tensor([0, 1, 2, 1])), "must be 0 or 1, got"),
        (dw.Classify(LINE, class_weight=[1, 2]), (X, torch.zeros(4).long()),
         r"class_weight must be \(3,\), got \(2,\)"),
        (dw.Classify(nn.Linear(3, 1), class_weight=[1.0]), (X, torch.zeros(4).long()),
         r"class_weight must be \(2,\)"),
        (dw.Regress(LINE), (X, torch.zeros(4)), r"as the targets, \(4,\), got \(4, 3\)"),
        (dw.Regress(nn.Linear(3, 4)), (torch.zeros(6, 3), torch.zeros(6, 3)), "as the targets"),
        (dw.Regress(LINE), (X, torch.zeros(4, 3).long()), "must be floats, got torch.int64"),
        (dw.Regress(LINE), (X, torch.full((4, 3), torch.nan)), "12 of the targets are not finite"),
        (dw.Segment(LINE), (X, torch.zeros(4).long()), r"outputs must be \(B, C, H, W\)"),
        (dw.Segment(nn.Identity()), (torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), 3)),
         "labels must lie in 0..2, got 3..3"),
        (dw.Segment(nn.Identity()), (torch.zeros(2, 1, 4, 4), torch.full((2, 4, 4), 2)),
         "labels must lie in 0..1"),
    ],
)  # fmt: skip
def test_bad_batches_are_refused_before_any_work(objective, batch, message):
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=rf"{type(objective).__name__}: .*{message}") as caught:
        objective.check(batch)
    assert "\n" not in str(caught.value)
    assert torch.equal(torch.get_rng_state(), before)
    assert objective.training


def test_outputs_of_as_many_numbers_are_not_enough():
    """(4, 6) against (6, 4): a reshape would mix up the samples without a word."""
    objective = dw.Regress(Given(draw(4, 6)))
    with pytest.raises(ValueError, match=r"outputs must be as the targets, \(6, 4\), got \(4, 6\)"):
        objective.check((torch.arange(6.0)[:, None], draw(6, 4)))


def test_labels_out_of_range_later_than_the_first_batch():
    batches = [(X, torch.tensor([0, 1, 2, 0])), (X, torch.tensor([0, 1, 7, 0]))]
    with pytest.raises(ValueError, match=r"cross_entropy: labels must lie in 0..2, got 0..7"):
        dw.fit(dw.Classify(nn.Linear(3, 3)), batches, epochs=1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: dw.Classify(lambda x: x), TypeError, "Classify: model must be a module"),
        (lambda: dw.Classify(LINE, smoothing=1.0), ValueError, r"smoothing must lie in \[0, 1\)"),
        (lambda: dw.Classify(LINE, multilabel=True, class_weight=[1, 1, 1]), ValueError,
         "class_weight is for one class per sample"),
        (lambda: dw.Segment(LINE, share=1.5), ValueError, r"share must lie in \[0, 1\]"),
        (lambda: dw.supervise(LINE, SimpleNamespace(task="ranking")), ValueError, "'ranking'"),
    ],
)  # fmt: skip
def test_bad_methods(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("task", "kind"),
    [("binary", dw.Classify), ("multiclass", dw.Classify), ("multilabel", dw.Classify),
     ("regression", dw.Regress), ("segmentation", dw.Segment)],
)  # fmt: skip
def test_supervise(task, kind):
    found = dw.supervise(LINE, SimpleNamespace(task=task))
    assert type(found) is kind
    assert getattr(found, "multilabel", False) == (task == "multilabel")
