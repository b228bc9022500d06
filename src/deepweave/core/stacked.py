"""Dense layers and cross-entropy of n members in single calls, for the forward of a Population.

Under ``vmap`` a linear layer becomes a product and a sum on (n, B, out), and autograd then gives
weight slopes that are transposed, so that each is copied before an optimizer may read it. The rules
here work feature by feature on (n, out, B), in one ``baddbmm`` each:

    z = b + W a,    dW = dz a^T,    da = W^T dz,    db = sum dz

Every slope comes out contiguous, and logits come out as (n, K, B), where ``log_softmax`` over K
runs along whole vectors: along a last dimension of 10 it is twenty times slower. Small nets train
1.3 to 1.5 times as fast as under plain ``vmap`` (``benchmarks/speed/population.py``).

Whatever does not fit (other shapes, another transform around it, a torch without these internals)
takes the ordinary path.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from threading import Lock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from deepweave.core.objective import mapped

inside: Any = None
levels: Any = None
with suppress(ImportError):  # internals of torch.func, read in torch 2.13
    inside = importlib.import_module("torch._C._functorch")
    levels = importlib.import_module("torch._functorch.pyfunctorch")
KNOWN = all(
    hasattr(inside, name)
    for name in ("TransformType", "_add_batch_dim", "_unwrap_batched", "is_batchedtensor")
) and all(
    hasattr(levels, name)
    for name in ("retrieve_all_functorch_interpreters", "temporarily_pop_interpreter_stack")
)

vmaps: Any = importlib.import_module("torch._functorch.vmap")
DIRECT = all(
    hasattr(vmaps, name)
    for name in ("vmap_increment_nesting", "_add_batch_dim", "_remove_batch_dim")
)

IGNORED = -100  # the target that cross-entropy leaves out, as in torch


def stacked() -> AbstractContextManager[Any]:
    """A context in which a vmapped forward takes the rules of this module."""
    return _rules() if KNOWN else nullcontext()


def over_members(function: Callable[..., Any], n: int, own: Any, shared: Any) -> Any:
    """``function(*own, shared)`` for n members at once: vmap over the first dimension of ``own``.

    Trees are tuples and dictionaries of tensors. What :func:`torch.vmap` does for trees of any
    kind costs a small step a sixth of its time, so its inner parts are called by themselves.
    """
    if not DIRECT:
        where = (*[0] * len(own), None)
        return torch.vmap(function, where, randomness="different")(*own, shared)
    with vmaps.vmap_increment_nesting(n, "different") as level:
        found = function(*mapped(lambda t: vmaps._add_batch_dim(t, 0, level), own), shared)
        return mapped(lambda t: vmaps._remove_batch_dim(t, level, n, 0), found)


class _Linear(torch.autograd.Function):
    """``F.linear`` of n members: x (n, B, in) or shared (B, in), w (n, out, in), b (n, out).

    Gives (n, B, out), laid out in memory as (n, out, B). It is no view of anything, so that what
    follows may work in place.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, w)
        (n, out, _), size = w.shape, x.shape[-2]
        z = w.new_empty_strided((n, size, out), (out * size, 1, size))
        if x.dim() == 3:
            if b is None:
                torch.bmm(w, x.mT, out=z.mT)
            else:
                torch.baddbmm(b.unsqueeze(2), w, x.mT, out=z.mT)
        else:  # one batch for all: one matrix product
            rows, into = w.flatten(0, 1), z.mT.flatten(0, 1)
            if b is None:
                torch.mm(rows, x.mT, out=into)
            else:
                torch.addmm(b.reshape(-1, 1), rows, x.mT, out=into)
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, w = ctx.saved_tensors
        dz = grads[0].mT  # (n, out, B)
        dx = dw = None
        if x.dim() == 3:
            if ctx.needs_input_grad[1]:
                dw = torch.bmm(dz, x)
            if ctx.needs_input_grad[0]:
                dx = torch.bmm(w.mT, dz).mT
        else:
            rows = dz.flatten(0, 1)
            if ctx.needs_input_grad[1]:
                dw = torch.mm(rows, x).view(w.shape)
            if ctx.needs_input_grad[0]:
                dx = torch.mm(w.flatten(0, 1).mT, rows).mT
        return dx, dw, dz.sum(-1) if ctx.needs_input_grad[2] else None


class _Entropy(torch.autograd.Function):
    """Mean cross-entropy of each member: logits (n, B, K), target (n, B) or (B,) -> (n,)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        logs = logits.mT.log_softmax(1)  # (n, K, B), contiguous
        target = target.expand(len(logs), -1)
        used = target != IGNORED
        index = torch.where(used, target, 0).unsqueeze(1)
        share = used.to(logs.dtype) / used.sum(1, keepdim=True)
        ctx.save_for_backward(logs, index, share)
        return -(logs.gather(1, index).squeeze(1) * share).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        logs, index, share = ctx.saved_tensors
        slope = (grads[0].unsqueeze(1) * share).unsqueeze(1)  # (n, 1, B)
        dz = logs.exp().mul_(slope)
        dz.scatter_add_(1, index, -slope)
        return dz.mT, None


LOCK = Lock()
TORCH: dict[str, Any] = {"linear": F.linear, "cross_entropy": F.cross_entropy}
DEPTH = [0]  # how many populations are in their forward: our functions stand in torch's place


@contextmanager
def _rules() -> Iterator[None]:
    """Put the rules in place of two functions: a mode would be asked for every tensor's shape.

    Whoever calls them meanwhile from elsewhere gets torch's.
    """
    with LOCK:
        if not DEPTH[0]:
            TORCH.update(linear=F.linear, cross_entropy=F.cross_entropy)
            F.linear, F.cross_entropy = _linear, _cross_entropy
        DEPTH[0] += 1
    try:
        yield
    finally:
        with LOCK:
            DEPTH[0] -= 1
            if not DEPTH[0]:
                F.linear, F.cross_entropy = TORCH["linear"], TORCH["cross_entropy"]


def _linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    found = None
    if x.dim() == 2 and inside.is_batchedtensor(w):
        found = _through(_Linear, x, w, b)
    return TORCH["linear"](x, w, b) if found is None else found


def _cross_entropy(logits: Tensor, target: Tensor, *args: Any, **options: Any) -> Tensor:
    found = None
    if logits.dim() == 2 and _plain(logits, target, *args, **options):
        # autocast computes losses in float32
        found = _through(_Entropy, logits.float() if _mixed(logits) else logits, target)
    if found is None:
        found = _gathered(logits, target, *args, **options)
    return TORCH["cross_entropy"](logits, target, *args, **options) if found is None else found


def _gathered(
    logits: Tensor,
    target: Tensor,
    weight: Any = None,
    *,
    ignore_index: int = IGNORED,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    **others: Any,
) -> Tensor | None:
    """The formula under vmap, where torch's kernel has no rule and would loop over the members."""
    batched = _batched(logits) or _batched(target)
    if not batched or weight is not None or others or target.dim() != logits.dim() - 1:
        return None
    logs = (logits.float() if _mixed(logits) else logits).log_softmax(1)
    used = target != ignore_index
    loss = -logs.gather(1, torch.where(used, target, 0).unsqueeze(1)).squeeze(1)
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * logs.mean(1)
    loss = loss.masked_fill(~used, 0.0)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / used.sum()


def _batched(value: Tensor) -> bool:
    """Whether members differ in it, also below the slopes that an objective takes itself (SAM)."""
    while inside.is_gradtrackingtensor(value):
        value = inside.get_unwrapped(value)
    return inside.is_batchedtensor(value)


def _mixed(like: Tensor | None) -> bool:
    return like is not None and torch.is_autocast_enabled(like.device.type)


def _plain(logits: Tensor, target: Tensor, weight: Any = None, **options: Any) -> bool:
    """Whether a cross-entropy is the mean over classes given as numbers, and nothing more."""
    return (
        weight is None
        and options.pop("reduction", "mean") == "mean"
        and options.pop("ignore_index", IGNORED) == IGNORED
        and not any(options.values())
        and target.dim() == 1
        and inside.is_batchedtensor(logits)
    )


def _through(rule: Any, *tensors: Tensor | None) -> Tensor | None:
    """A rule on the members' tensors below the one vmap under way; None if it does not apply."""
    stack = levels.retrieve_all_functorch_interpreters()
    if len(stack) != 1 or stack[0].key() != inside.TransformType.Vmap:
        return None
    if rule is _Linear and _mixed(tensors[0]):
        return None  # calls with out= escape autocast
    level = stack[0].level()
    parts: list[Any] = [
        (None, None) if t is None else inside._unwrap_batched(t, level) for t in tensors
    ]
    if rule is _Linear and parts[2][0] is not None and parts[2][1] is None:
        return None  # a bias that all members share
    with levels.temporarily_pop_interpreter_stack():
        result = rule.apply(*[t if not dim else t.movedim(dim, 0) for t, dim in parts])
    return inside._add_batch_dim(result, 0, level)
