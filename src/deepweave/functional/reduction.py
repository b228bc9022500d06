"""From the losses of elements to one number per sample, and to one number: the same for all losses.

Every loss has elements: pixels, labels, targets, or one alone. A *mask* says which of them count
(True, or a number as their share); a sample's loss is the mean over its elements that do. A
*weight* says how much a sample counts. The reduction comes last:

    none    w_i l_i                        (B,)
    sum     sum_i w_i l_i
    mean    sum_i w_i l_i / sum_i w_i      a sample whose mask is empty has weight 0

What has no element left costs 0 with slope 0, never NaN.

Numbers and shapes are always checked. The *values* of tensors (labels, probabilities, weights) are
looked at on the CPU alone, and never inside a transform of ``torch.func``, a compiled graph or a
mode of fake tensors: a look would stop a GPU, and a vmapped or fake tensor has no single value. The
objectives bring their first batch to the CPU and look once, on whatever device they learn
(``Objective.check``).
"""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("none", "mean", "sum")


def looking(*tensors: Tensor) -> bool:
    """Whether the values of these tensors may be looked at: see the head of this module."""
    return (
        all(one.device.type == "cpu" for one in tensors)
        and not torch._C._are_functorch_transforms_active()
        and not torch.compiler.is_compiling()
        and torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None  # pyright: ignore
    )


def expect(name: str, what: str, found: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tensor has a shape."""
    if found.shape != shape:
        raise ValueError(f"{name}: {what} must be {tuple(shape)}, got {tuple(found.shape)}")


def labels(name: str, target: Tensor, classes: int) -> None:
    """Raise ValueError where class numbers do not lie in 0..K-1."""
    if target.is_floating_point():
        raise ValueError(f"{name}: target must be class numbers (int64), got {target.dtype}")
    if looking(target) and target.numel():
        low, high = (int(end) for end in torch.aminmax(target))
        if low < 0 or high >= classes:
            raise ValueError(f"{name}: labels must lie in 0..{classes - 1}, got {low}..{high}")


def signs(name: str, target: Tensor) -> None:
    """Raise ValueError where labels are not -1 or +1."""
    if looking(target) and not bool((target.abs() == 1).all()):
        found = target.unique()[:5].tolist()
        raise ValueError(f"{name}: labels must be -1 or +1, got {found}; of 0 and 1 take 2 y - 1")


def shares(name: str, what: str, found: Tensor) -> None:
    """Raise ValueError where numbers do not lie in [0, 1]."""
    if looking(found) and found.numel():
        low, high = (float(end) for end in torch.aminmax(found.detach()))
        if not (low >= 0 and high <= 1):  # also where they are NaN
            raise ValueError(f"{name}: {what} must lie in [0, 1], got {low:.4g}..{high:.4g}")


def choose(name: str, reduction: str) -> None:
    """Raise ValueError unless a reduction is known."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{name}: reduction must be none, mean or sum, got {reduction!r}")


def fits(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a mask has the shape of the elements and no number below 0."""
    expect(name, "mask", mask, shape)
    if looking(mask) and not bool((mask >= 0).all()):
        raise ValueError(f"{name}: mask must be True or False, or not below 0")


def filled(name: str, target: Tensor, mask: Tensor | None, value: float = 0) -> Tensor:
    """The target with a harmless value where the mask leaves it out: what is unknown may be NaN."""
    if mask is None:
        return target
    fits(name, mask, target.shape)
    return target.masked_fill(mask == 0, value)


def reduced(
    name: str,
    loss: Tensor,
    weight: Tensor | None = None,
    mask: Tensor | None = None,
    reduction: str = "none",
    share: Tensor | None = None,
) -> Tensor:
    """The losses of elements, weighted, masked and reduced; see the head of this module.

    ``share`` is what each element adds to the weight of its sample where classes have weights;
    ``loss`` is multiplied by it already.

    Shapes: loss (B, ...), weight (B,), mask and share (B, ...) -> (B,), or ()

    >>> loss = torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    >>> mask = torch.tensor([[True, False], [False, False]])
    >>> reduced("demo", loss, mask=mask), reduced("demo", loss, mask=mask, reduction="mean")
    (tensor([1., 0.]), tensor(1.))
    """
    choose(name, reduction)
    if loss.dim() == 0:
        raise ValueError(f"{name}: the first dimension must be the batch, got single numbers")
    if mask is None:
        loss = mean_of_elements(loss)
        share = None if share is None else mean_of_elements(share)
    else:
        expect(name, "mask", mask, loss.shape)
        part = mask.to(loss.dtype)
        total = part.flatten(1).sum(1) if part.dim() > 1 else part
        part = part / torch.where(total > 0, total, 1).view(-1, *[1] * (part.dim() - 1))
        own = part if share is None else share * part
        loss = loss.masked_fill(part == 0, 0) * part
        if loss.dim() > 1:
            loss, own = loss.flatten(1).sum(1), own.flatten(1).sum(1)
        share = own
    if weight is not None:
        expect(name, "weight", weight, loss.shape)
        if looking(weight) and not bool((weight.isfinite() & (weight >= 0)).all()):
            raise ValueError(f"{name}: weight must be finite and not below 0")
        part = weight.to(loss.dtype)
        loss, share = loss * part, part if share is None else share * part
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    return loss.mean() if share is None else _over(loss, share)


def weighted_mean(loss: Tensor, weight: Tensor | None = None) -> Tensor:
    """sum(w l) / sum(w): the mean loss of a batch, with a weight per sample if given.

    Shapes: loss (B,), weight (B,) -> ()

    >>> weighted_mean(torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0]))
    tensor(1.5000)
    """
    if weight is None:
        return loss.mean()
    return _over(loss * weight, weight)


def mean_of_elements(loss: Tensor) -> Tensor:
    """The mean over all dimensions but the first. Shapes: (B, ...) -> (B,)"""
    return loss.flatten(1).mean(1) if loss.dim() > 1 else loss


def _over(loss: Tensor, share: Tensor) -> Tensor:
    return loss.sum() / share.sum().clamp_min(torch.finfo(loss.dtype).tiny)
