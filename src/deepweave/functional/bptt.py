"""Back-propagation through time by hand, for many networks at once.

A loop of cells under autograd and `vmap` costs some thirty small operations a step. Written out, a
step of an LSTM is eight forward and five backward, on all members of a stack at once:

- forward: the input products of all steps are one product; a step is one batched product, the
  gates in place, and the state written where the next step reads it;
- backward: what depends on a gate alone, such as i (1 - i) g, is taken for all steps in one go;
  the loop that is left multiplies by it and goes one step back. The slopes of the weights are one
  product over all steps at the end.

Everything has a dimension of members in front: x (n, B, T, F), weights (n, G, F). Under `vmap` the
mapped dimension is folded into it, so that a Population of LSTMs is a batched product with one
matrix per member. The backward pass is a function of its own with rules of its own; the slopes *of*
slopes are taken by autograd through the plain loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepweave.functional.kernels import KERNELS

functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
Plain = Callable[..., tuple[Tensor, ...]]


def unrolled(kind: str, plain: Plain, *tensors: Tensor) -> tuple[Tensor, ...]:
    """All steps of a recurrent layer: outputs, and for an LSTM the last cell.

    ``tensors`` are x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh (c0 for an LSTM alone), and
    ``plain`` is the same function of them in ordinary operations, for slopes of slopes.

    Shapes: x (n, B, T, F), h0 and c0 (n, B, H), weights (n, G, F), (n, G, H), biases (n, G)
    -> (n, B, T, H), (n, B, H)
    """
    return _Forward.apply(kind, plain, *tensors)[: 2 if kind == "lstm" else 1]  # pyright: ignore[reportReturnType]


def _cut(kind: str, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """x, h0, c0 or None, weight_ih, weight_hh, bias_ih, bias_hh, and what else follows."""
    if kind == "lstm":
        return tensors
    return (*tensors[:2], None, *tensors[2:])


def _folded(info: Any, in_dims: Any, tensors: Any) -> list[Tensor]:
    """The mapped dimension folded into that of the members."""
    n = info.batch_size
    parts = [
        t.expand(n, *t.shape) if d is None else t.movedim(d, 0) for t, d in zip(tensors, in_dims)
    ]
    return [part.flatten(0, 1) for part in parts]


class _Forward(torch.autograd.Function):
    """Outputs (n, B, T, H), the last cell (n, B, H), then what is kept, (n, T, B, ...)."""

    @staticmethod
    def forward(kind: str, plain: Plain, *tensors: Tensor) -> Any:
        x, h0, c0, w, u, b, c = _cut(kind, tensors)
        n, size, steps, _ = x.shape
        bias = b if kind == "gru" else b + c
        if n > 1 and x.stride(0) == 0:  # one batch for all members: one matrix product
            rows = x[0].transpose(0, 1).flatten(0, 1)
            a = torch.addmm(bias.flatten(), rows, w.flatten(0, 1).mT).view(steps, size, n, -1)
            a = a.transpose(1, 2).contiguous()
        else:
            rows = x.transpose(1, 2).reshape(n, steps * size, -1)
            a = torch.baddbmm(bias.unsqueeze(1), rows, w.mT).view(n, steps, size, -1)
            a = a.transpose(0, 1).contiguous()
        states, cell, kept = KERNELS[kind].forward(a, h0, c0, u, c)
        kept = [one.transpose(0, 1) for one in kept]
        return states[1:].permute(1, 2, 0, 3), *([] if cell is None else [cell]), *kept

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        kind, plain, *tensors = inputs
        ctx.kind, ctx.plain = kind, plain
        found = 2 if kind == "lstm" else 1
        ctx.mark_non_differentiable(*output[found:])
        ctx.set_materialize_grads(False)  # zeros for what is kept are as large as all gates
        ctx.save_for_backward(*tensors, output[0], *output[found:])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        needs, kept = tuple(ctx.needs_input_grad[2:]), ctx.saved_tensors
        like = (kept[len(needs)], kept[2])[: 2 if ctx.kind == "lstm" else 1]  # outputs, the cell
        slopes = [torch.zeros_like(b) if a is None else a for a, b in zip(grads, like)]
        if functorch.is_legacy_batchedtensor(slopes[0]):  # autograd's is_grads_batched
            found = iter(_by_autograd(ctx.plain, needs, slopes, kept[: len(needs)]))
            return None, None, *[next(found) if need else None for need in needs]
        # by way of apply only where someone may ask for slopes of the slopes, or maps over them
        more = torch.is_grad_enabled() or torch._C._are_functorch_transforms_active()
        run: Any = _Backward.apply if more else _Backward.forward
        found = iter(run(ctx.kind, ctx.plain, needs, len(slopes), *slopes, *kept))
        return None, None, *[next(found) if need else None for need in needs]

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        """Mapped weights are more members; of inputs alone one makes a larger batch."""
        kind, plain, *tensors = args
        dims, n = in_dims[2:], info.batch_size
        starts = 3 if kind == "lstm" else 2
        if any(d is not None for d in dims[starts:]):
            found: Any = _Forward.apply(kind, plain, *_folded(info, dims, tensors))
            return tuple(one.unflatten(0, (n, -1)) for one in found), (0,) * len(found)
        batch = [
            (t.expand(n, *t.shape) if d is None else t.movedim(d, 0)).transpose(0, 1).flatten(1, 2)
            for t, d in zip(tensors[:starts], dims)
        ]
        found = _Forward.apply(kind, plain, *batch, *tensors[starts:])
        where = [1] * (starts - 1) + [2] * (len(found) - starts + 1)
        return tuple(one.unflatten(d, (n, -1)) for one, d in zip(found, where)), tuple(where)


def _by_autograd(plain: Plain, needs: Any, slopes: list[Tensor], tensors: Any) -> Any:
    """The slopes of those inputs that need one, through the plain loop."""
    with torch.enable_grad():
        leaves = [one.detach().requires_grad_(need) for one, need in zip(tensors, needs)]
        wanted = [one for one in leaves if one.requires_grad]
        return torch.autograd.grad(plain(*leaves), wanted, slopes)


class _Backward(torch.autograd.Function):
    """The slopes of those inputs that need one."""

    @staticmethod
    def forward(kind: str, plain: Plain, needs: Any, given: int, *tensors: Tensor) -> Any:
        dout, dc = tensors[0], tensors[1] if given == 2 else None
        x, h0, c0, w, u, _, _, out, *kept = _cut(kind, tensors[given:])
        need = _cut(kind, needs)
        kept = [one.transpose(0, 1) for one in kept]
        states = torch.cat([h0.unsqueeze(0), out.permute(2, 0, 1, 3)])
        slopes = KERNELS[kind].backward(u, states, c0, kept, dout.permute(2, 0, 1, 3), dc)
        n, size, steps, _ = x.shape

        def rows(one: Tensor) -> Tensor:
            return one.transpose(0, 1).reshape(n, steps * size, -1)

        da = rows(slopes.inputs)
        found: list[Any] = [None] * 7
        if need[0]:
            found[0] = torch.bmm(da, w).view(n, steps, size, -1).transpose(1, 2)
        found[1], found[2] = slopes.h0, slopes.c0
        if need[3]:
            found[3] = torch.bmm(da.mT, x.transpose(1, 2).reshape(n, steps * size, -1))
        if need[4]:
            parts = [
                torch.bmm((da if d is slopes.inputs else rows(d)).mT, rows(by))
                for d, by in slopes.products
            ]
            found[4] = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        if need[5]:
            found[5] = da.sum(1)
        if need[6]:
            same = slopes.products[0][0] if kind == "gru" else slopes.inputs
            found[6] = found[5].clone() if need[5] and kind != "gru" else rows(same).sum(1)
        return tuple(one for one, wanted in zip(found, need) if wanted)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, plain, needs, given, *tensors = inputs
        ctx.plain, ctx.needs, ctx.given = plain, needs, given
        ctx.kept = len(tensors) - given - len(needs)
        ctx.save_for_backward(*tensors[: given + len(needs)])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """The slope of the slopes of the plain loop, which is the same function."""
        given, plain, needs = ctx.given, ctx.plain, ctx.needs

        def slopes(*tensors: Tensor) -> tuple[Tensor, ...]:
            back: Any = torch.func.vjp(plain, *tensors[given:])[1]
            return tuple(one for one, need in zip(back(tensors[:given]), needs) if need)

        back: Any = torch.func.vjp(slopes, *ctx.saved_tensors)[1]
        return None, None, None, None, *back(grads), *[None] * ctx.kept

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        found: Any = _Backward.apply(*args[:4], *_folded(info, in_dims[4:], args[4:]))
        n = info.batch_size
        return tuple(one.unflatten(0, (n, -1)) for one in found), (0,) * len(found)
