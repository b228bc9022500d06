"""The same checks over every loss and every activation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, vmap

from tests.contracts.functions import ACTIVATIONS, LOSSES, Loss

B = 5
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
MASKED = [name for name, loss in LOSSES.items() if loss.mask is not None]


def near(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def drawn(loss: Loss, n: int = B, seed: int = 0) -> tuple[Tensor, ...]:
    return loss.inputs(n, seed)


def some(loss: Loss) -> Tensor:
    """A mask that leaves out some elements, and every element of sample 1."""
    assert loss.mask is not None
    mask = torch.rand(B, *loss.mask, generator=torch.Generator().manual_seed(3)) < 0.7
    mask[0], mask[1] = True, False
    mask.view(B, -1)[2:, 0] = True
    return mask


def spread(mask: Tensor, tensor: Tensor, elements: tuple[int, ...]) -> Tensor:
    """The mask over a tensor that has further dimensions: classes in 1, parameters at the end."""
    if tensor.shape[1:] == elements:
        return mask
    if tensor.shape[1 : 1 + len(elements)] == elements and tensor.dim() == mask.dim() + 1:
        return mask.unsqueeze(-1).expand(tensor.shape)
    return mask.unsqueeze(1).expand(tensor.shape)


@pytest.mark.parametrize("name", LOSSES)
def test_one_number_per_sample_then_the_reduction(name):
    loss = LOSSES[name]
    inputs = drawn(loss)
    each = loss.call(*inputs)
    assert each.shape == (B,)
    assert each.dtype == torch.float64
    assert each.isfinite().all()
    assert each.max() > each.min()
    near(loss.call(*inputs, reduction="mean"), each.mean())
    near(loss.call(*inputs, reduction="sum"), each.sum())
    if loss.independent:
        near(torch.cat([loss.call(*[x[i : i + 1] for x in inputs]) for i in range(B)]), each)


@pytest.mark.parametrize("name", LOSSES)
def test_weights(name):
    loss = LOSSES[name]
    inputs = drawn(loss)
    each = loss.call(*inputs)
    near(loss.call(*inputs, weight=WEIGHT), WEIGHT * each)
    near(loss.call(*inputs, weight=WEIGHT, reduction="sum"), (WEIGHT * each).sum())
    mean = loss.call(*inputs, weight=WEIGHT, reduction="mean")
    near(mean, (WEIGHT * each).sum() / WEIGHT.sum())
    near(loss.call(*inputs, weight=7 * torch.ones(B), reduction="mean"), each.mean())
    assert float(loss.call(*inputs, weight=0 * WEIGHT, reduction="mean")) == 0


@pytest.mark.parametrize("name", MASKED)
def test_masks(name):
    loss = LOSSES[name]
    inputs = drawn(loss)
    each, mask = loss.call(*inputs), some(loss)
    near(loss.call(*inputs, mask=torch.ones_like(mask)), each)
    if name.split(",")[0] not in ("dice", "jaccard", "tversky"):  # an epsilon has a size
        near(loss.call(*inputs, mask=2.0 * torch.ones_like(mask)), each)
    part = loss.call(*inputs, mask=mask)
    near(part[0], each[0])
    assert float(part[1]) == 0
    left = torch.arange(B) != 1
    near(loss.call(*inputs, mask=mask, reduction="mean"), part[left].mean())
    weighted = loss.call(*inputs, mask=mask, weight=WEIGHT, reduction="mean")
    near(weighted, (WEIGHT * part)[left].sum() / WEIGHT[left].sum())
    # what is left out does not matter, whatever it is, and has no slope
    assert loss.mask is not None
    changed = [
        torch.where(spread(mask, x, loss.mask), x, x.roll(1, 0)) if x.is_floating_point() or i
        else x for i, x in enumerate(inputs)
    ]  # fmt: skip
    near(loss.call(*changed, mask=mask), part)
    point = inputs[0].clone().requires_grad_()
    loss.call(point, *inputs[1:], mask=mask, reduction="mean").backward()
    assert point.grad is not None
    assert not point.grad[~spread(mask, point, loss.mask)].any()
    assert point.grad.isfinite().all()
    # nothing left at all
    point.grad = None
    nothing = loss.call(point, *inputs[1:], mask=torch.zeros_like(mask), reduction="mean")
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert not point.grad.any()


@pytest.mark.parametrize("name", MASKED)
def test_unknown_targets_behind_a_mask(name):
    loss = LOSSES[name]
    inputs, mask = drawn(loss), some(loss)
    target = inputs[-1].clone()
    out = ~spread(mask, target, loss.mask or ())
    target[out] = torch.nan if target.is_floating_point() else -1
    point = inputs[0].clone().requires_grad_()
    found = loss.call(point, *inputs[1:-1], target, mask=mask)
    near(found.detach(), loss.call(*inputs, mask=mask))
    found.sum().backward()
    assert point.grad is not None
    assert point.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_slopes_are_exact(name):
    loss = LOSSES[name]
    inputs = drawn(loss, 4)
    points = tuple(x.clone().requires_grad_() for x in inputs[: loss.slopes])

    def call(*points: Tensor) -> Tensor:
        return loss.call(*points, *inputs[loss.slopes :])

    assert gradcheck(call, points, eps=1e-6, atol=1e-6)
    assert gradgradcheck(call, points, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_vmap_equals_the_loop(name):
    loss = LOSSES[name]
    problems = [drawn(loss, seed=10 * i) for i in range(3)]
    stacked = [torch.stack(parts) for parts in zip(*problems)]
    for how in ({}, {"reduction": "mean"}, {"weight": WEIGHT, "reduction": "mean"}):
        both = vmap(lambda *x, how=how: loss.call(*x, **how))(*stacked)
        near(both, torch.stack([loss.call(*x, **how) for x in problems]))

    def mean(*x: Tensor) -> Tensor:
        return loss.call(*x, reduction="mean")

    slopes = vmap(grad(mean))(*stacked)
    near(slopes, torch.stack([grad(mean)(*x) for x in problems]))
    if loss.mask is not None:
        masks = torch.stack([some(loss)] * 3)
        both = vmap(lambda m, *x: loss.call(*x, mask=m))(masks, *stacked)
        near(both, torch.stack([loss.call(*x, mask=m) for m, x in zip(masks, problems)]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_extremes_are_finite(name, dtype):
    """Predictions of +-1e4, alone, opposed and equal; probabilities of exactly 0 and 1."""
    loss = LOSSES[name]
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in drawn(loss)]
    wild = [loss.wild(x) for x in inputs[: loss.slopes]]
    cases = [wild, [-x if loss.wild(x).min() < 0 else 1 - x for x in wild]]
    cases.append([x.clone().fill_(float(x.max())) for x in wild])
    cases.append([wild[0]] * len(wild) if len({x.shape for x in wild}) == 1 else wild)
    cases.append([torch.zeros_like(x) for x in wild])
    for case in cases:
        points = [x.clone().requires_grad_() for x in case]
        found = loss.call(*points, *inputs[loss.slopes :])
        assert found.isfinite().all()
        found.sum().backward()
        for point in points:
            assert point.grad is not None
            assert point.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_refusals(name):
    loss = LOSSES[name]
    inputs, called = drawn(loss), name.split(",")[0]
    bad = [
        ({"reduction": "max"}, "reduction must be none, mean or sum, got 'max'"),
        ({"weight": torch.ones(B + 1)}, r"weight must be \(5,\), got \(6,\)"),
        ({"weight": -torch.ones(B)}, "weight must be finite and not below 0"),
        ({"weight": torch.full((B,), torch.nan)}, "weight must be finite"),
    ]
    if loss.mask is not None:
        bad += [
            ({"mask": torch.ones(B, 9)}, r"mask must be \(5.*\), got \(5, 9\)"),
            ({"mask": -torch.ones(B, *loss.mask)}, "mask must be True or False, or not below 0"),
        ]
    for how, message in bad:
        with pytest.raises(ValueError, match=f"^{called}: {message}") as caught:
            loss.call(*inputs, **how)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=f"^{called}: ") as caught:
        loss.call(inputs[0], *[x[:-1] for x in inputs[1:]])
    assert "\n" not in str(caught.value)


X = torch.linspace(-6, 6, 601, dtype=torch.float64)[:, None] + 0.003


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name):
    one = ACTIVATIONS[name]
    torch.testing.assert_close(one.call(X), one.formula(X), rtol=1e-12, atol=1e-14)
    assert one.call(X.float()).dtype == torch.float32
    points = torch.cat([X[::25, 0], torch.tensor([-30.0, 30.0], dtype=torch.float64)])
    points = points[[all(abs(x - k) > 1e-3 for k in one.kinks) for x in points.tolist()]]
    points = points[:, None].requires_grad_()
    assert gradcheck(one.call, (points,), eps=1e-6, atol=1e-6)
    assert gradgradcheck(one.call, (points,), eps=1e-6, atol=1e-5)
    near(vmap(one.call)(X.view(1, -1, 1).expand(3, -1, -1)), one.call(X).expand(3, -1, -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_far_out(name, dtype):
    one = ACTIVATIONS[name]
    far = torch.tensor([[-1e4], [-100.0], [0.0], [100.0], [1e4]], dtype=dtype, requires_grad=True)
    found = one.call(far)
    assert found.isfinite().all()
    found.sum().backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()
