"""The margin with reconstruction: its numbers, the three tasks, the runners, the refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional import length_margin, lengths
from deepweave.testing import check_objective


def net(outputs: int = 3, routing: str = "full", **options) -> dw.nn.CapsNet:
    options = {"decoder": (8,), "norm": "layer", **options}
    return dw.nn.capsnet(
        ((1, 6, 6), outputs), (4,), routing, kinds=2, size=4, pose=4, kernel=3, **options
    )


def batch(task: str = "multiclass", count: int = 8):
    random = torch.Generator().manual_seed(0)
    x = torch.rand(count, 1, 6, 6, generator=random)
    high, shape = {"multiclass": (3, (count,)), "binary": (2, (count,))}.get(task, (2, (count, 3)))
    y = torch.randint(0, high, shape, generator=random)
    return x, y.float() if task == "multilabel" else y


def make(task: str = "multiclass", **options) -> dw.MarginReconstruct:
    model = net(1 if task == "binary" else 3)
    return dw.MarginReconstruct(model, multilabel=task == "multilabel", share=0.01, **options)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_the_contract(task):
    check_objective(lambda: make(task), batch(task))


def test_the_loss_is_margin_and_reconstruction():
    torch.manual_seed(0)
    objective, (x, y) = make(), batch()
    loss, logs = objective((x, y))
    poses = objective.model.poses(x)
    mask = torch.eye(3)[y]
    error = (objective.model.reconstruct(poses, mask) - x).square().sum((1, 2, 3))
    wanted = length_margin(lengths(poses), y) + 0.01 * error
    torch.testing.assert_close(loss, wanted.mean())
    torch.testing.assert_close(logs["reconstruction"], error.mean())
    weight = torch.arange(8.0)
    torch.testing.assert_close(objective((x, y, weight))[0], (wanted * weight).sum() / weight.sum())
    assert not any(value.requires_grad for value in logs.values())


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize(
    "runner",
    [
        lambda o: dw.Descent(o, "Adam", lr=1e-2),
        lambda o: dw.Population(o, 3, "Adam", shared=True, lr=1e-2),
    ],
    ids=["Descent", "Population"],
)
def test_it_learns_and_predicts(task, runner):
    torch.manual_seed(0)
    step, data = runner(make(task)), batch(task)
    first = step.evaluate(data)["loss"]
    for _ in range(20):
        step(data)
    assert (step.evaluate(data)["loss"] < first).all()
    prediction = step.predict(data[0])
    prediction = prediction if step.members is None else prediction[0]
    assert prediction.shape == ((8, 3) if task != "binary" else (8,))
    assert ((prediction >= 0) & (prediction <= 1)).all()
    if task == "multiclass":
        torch.testing.assert_close(prediction.sum(1), torch.ones(8))


def test_two_members_are_two_descents():
    torch.manual_seed(0)
    made = [make(), make()]
    alone = [dw.Descent(o, "SGD", lr=0.1) for o in made]
    both = dw.Population(made, optimizer="SGD", lr=0.1, shared=True)
    for _ in range(3):
        logs = both(batch())
        apart = [step(batch())["loss"] for step in alone]
        torch.testing.assert_close(logs["loss"], torch.stack(apart), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
def test_readings_in_evaluation(task):
    objective = make(task).eval()
    logs = objective(batch(task))[1]
    assert set(logs) == {"accuracy", "reconstruction"}
    assert 0 <= logs["accuracy"] <= 1


def test_wrappers_go_around_it():
    torch.manual_seed(0)
    inner = dw.Augment(dw.SAM(dw.Penalize(make(), l2=1e-4)), dw.functional.shift)
    step = dw.Descent(inner, "Adam", lr=1e-2)
    step.check(batch())
    assert step(batch())["loss"].isfinite()
    with pytest.raises(TypeError, match="needs a supervised objective"):
        dw.Mixup(make())


def test_classify_takes_a_capsule_net_with_the_margin_as_its_loss():
    torch.manual_seed(0)
    model = net(decoder=())
    x, y = batch()

    def margin(logits, target):
        return length_margin(logits.sigmoid(), target)

    loss = dw.Classify(model, margin)((x, y))[0]
    wanted = dw.MarginReconstruct(model, share=0.0)((x, y))[0]
    torch.testing.assert_close(loss, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (2 * x, y), r"inputs must lie in \[0, 1\], got"),
        (lambda x, y: (x / 0, y), "are not finite"),
        (lambda x, y: (x, y[:5]), r"poses must be \(B, K, E\) for 5 targets"),
        (lambda x, y: (x, y + 1), r"labels must lie in 0..2, got 1..3"),
        (lambda x, y: (x, y.float()), "int64"),
        (lambda x, y: (x, y, torch.ones(3)), r"weight must be \(8,\), got \(3,\)"),
        (lambda x, y: (x, torch.zeros(8, 3)), "for several labels pass multilabel=True"),
        (lambda x, y: (x[..., :5], y), r"x must be \(B, 1, 6, 6\)"),
    ],
)
def test_check_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        make().check(change(*batch()))


def test_refusals():
    with pytest.raises(TypeError, match="model must have poses"):
        dw.MarginReconstruct(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="the model has no decoder"):
        dw.MarginReconstruct(net(decoder=()))
    with pytest.raises(ValueError, match="share must be finite"):
        dw.MarginReconstruct(net(), share=-1.0)
    with pytest.raises(ValueError, match="needs 0 <= lower < upper"):
        dw.MarginReconstruct(net(), upper=2.0)
    several = dw.MarginReconstruct(net(), multilabel=True)
    with pytest.raises(ValueError, match=r"targets must be \(8, 3\), got \(8,\)"):
        several.check(batch())
