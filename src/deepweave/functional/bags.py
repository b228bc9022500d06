"""The kernels of messages: sums of rows by index, and their transposes.

A sparse product runs as ``embedding_bag``: a node is a bag of rows of X. On a CPU that kernel
fetches rows ahead and is several times faster than a sparse matrix product
(docs/topics/16-graphs.md has the numbers).

Each is its own kind on the way back, so that it can be differentiated twice. Under ``vmap``
members become a second dimension, in front of the features.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

SMALL = 1 << 18  # numbers at every edge up to which one gathered array beats a loop over heads
CHUNK = 1 << 20  # numbers gathered at once where every edge needs its own: they stay in the cache


def like(share: Tensor, values: Tensor) -> Tensor:
    """A number for each row, to be multiplied with rows of any shape."""
    return share.to(values.dtype).view(-1, *[1] * (values.dim() - 1))


def bags(x: Tensor, index: Tensor, pointers: Tensor, weight: Tensor | None = None) -> Tensor:
    """Sums of rows: y_s = sum over e in segment s of weight_e x[index_e]."""
    shape = (len(pointers) - 1, *x.shape[1:])
    if not len(index) or not x.numel():
        return x.new_zeros(shape)
    kind = x.dtype
    table = x.reshape(len(x), -1)
    if kind in (torch.bfloat16, torch.float16):
        table = table.float()  # sums of a thousand neighbours do not fit eight bits
    weight = None if weight is None else weight.to(table.dtype)
    if kind == torch.float64 and x.device.type == "cpu":
        return _sparse(table, index, pointers, weight).view(shape)
    found = F.embedding_bag(
        index, table, pointers, mode="sum", include_last_offset=True, per_sample_weights=weight
    )
    return found.to(kind).view(shape)


def _sparse(table: Tensor, index: Tensor, pointers: Tensor, weight: Tensor | None) -> Tensor:
    """The same by a sparse matrix, which of float64 is several times faster than bags."""
    values = table.new_ones(len(index)) if weight is None else weight
    with warnings.catch_warnings():  # that such matrices are new is told once
        warnings.simplefilter("ignore")
        matrix = torch.sparse_csr_tensor(pointers, index, values, (len(pointers) - 1, len(table)))
    return matrix @ table


def beside(t: Tensor, dim: int | None, n: int) -> Tensor:
    """Members as the second dimension, of all that has them or gets them."""
    return t.unsqueeze(1).expand(-1, n, *t.shape[1:]) if dim is None else t.movedim(dim, 1)


def alone(name: str, dims: tuple[int | None, ...]) -> None:
    """Refuse a graph that differs from member to member."""
    if any(dim is not None for dim in dims):
        raise ValueError(f"{name}: members must share the graph: pass shared=True to Population")


class Product(torch.autograd.Function):
    """sum_(e: s -> i) w_e x_s + own_i x_i, with the transpose at hand."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor | None, back_weight: Tensor | None, own: Tensor | None,
        source: Tensor, rows: Tensor, back: Tensor, back_rows: Tensor,
    ) -> Tensor:  # fmt: skip
        found = bags(x, source, rows, weight)
        return found if own is None else found.addcmul_(x, like(own, x))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        weight, back_weight, own, source, rows, back, back_rows = ctx.saved_tensors
        dx = Product.apply(grads[0], back_weight, weight, own, back, back_rows, source, rows)
        return dx, *[None] * 7

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, int]:
        alone("product", in_dims[1:])
        return Product.apply(args[0].movedim(in_dims[0], 1), *args[1:]), 1


class Gather(torch.autograd.Function):
    """x[index], and on the way back the sums over the places that hold a row's copies.

    ``order`` brings the copies of a row together (None: they are), ``pointers`` say where each
    row's begin.
    """

    @staticmethod
    def forward(x: Tensor, index: Tensor, order: Tensor | None, pointers: Tensor) -> Tensor:
        return x.index_select(0, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        index, order, pointers = ctx.saved_tensors
        return Sum.apply(grads[0], order, pointers, index), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, int]:
        alone("at_source", in_dims[1:])
        return Gather.apply(args[0].movedim(in_dims[0], 1), *args[1:]), 1


class Sum(torch.autograd.Function):
    """The transpose of :class:`Gather`."""

    @staticmethod
    def forward(values: Tensor, order: Tensor | None, pointers: Tensor, index: Tensor) -> Tensor:
        order = torch.arange(len(values), device=values.device) if order is None else order
        return bags(values, order, pointers)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        order, pointers, index = ctx.saved_tensors
        return Gather.apply(grads[0], index, order, pointers), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, int]:
        alone("segment_sum", in_dims[1:])
        return Sum.apply(args[0].movedim(in_dims[0], 1), *args[1:]), 1


class Largest(torch.autograd.Function):
    """The largest of each segment; no slope goes through it."""

    @staticmethod
    def forward(values: Tensor, pointers: Tensor) -> Tensor:
        if not values.numel():
            return values.new_zeros(len(pointers) - 1, *values.shape[1:])
        flat = values.reshape(len(values), -1)
        found = torch.segment_reduce(
            flat, "max", offsets=pointers, axis=0, unsafe=True, initial=None
        )
        empty = (pointers.diff() == 0).unsqueeze(1)
        return found.masked_fill_(empty, 0).view(-1, *values.shape[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, int]:
        alone("segment_max", in_dims[1:])
        return Largest.apply(args[0].movedim(in_dims[0], 1), *args[1:]), 1


def transposed(structure: Any) -> tuple[Tensor, ...]:
    """The same edges the other way round."""
    source, rows, _, back_target, back_rows, back = structure
    inverse = torch.empty_like(back)
    inverse[back] = torch.arange(len(back), device=back.device)
    return back_target, back_rows, source[back], source, rows, inverse


class Attend(torch.autograd.Function):
    """sum_(e: s -> i) p_eh x_sh, with slopes for both."""

    @staticmethod
    def forward(share: Tensor, x: Tensor, *structure: Tensor) -> Tensor:
        return attended(share, x, structure[0], structure[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        share, x, *structure = ctx.saved_tensors
        dshare = dx = None
        if ctx.needs_input_grad[1]:
            turned = share.index_select(0, structure[5])
            if torch.is_grad_enabled():
                dx = Attend.apply(turned, grads[0], *transposed(structure))
            else:
                dx = attended(turned, grads[0], structure[3], structure[4])
        if ctx.needs_input_grad[0]:
            dshare = Dots.apply(grads[0], x, *structure)
        return dshare, dx, *[None] * 6

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, int]:
        alone("attend", in_dims[2:])
        pair = [beside(args[i], in_dims[i], info.batch_size) for i in (0, 1)]
        return Attend.apply(*pair, *args[2:]), 1


class Dots(torch.autograd.Function):
    """query_i . key_s for every edge s -> i."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, *structure: Tensor) -> Tensor:
        return dotted(query, key, structure[2], structure[0])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        query, key, *structure = ctx.saved_tensors
        dquery = dkey = None
        if ctx.needs_input_grad[0]:
            dquery = Attend.apply(grads[0], key, *structure)
        if ctx.needs_input_grad[1]:
            turned = grads[0].index_select(0, structure[5])
            if torch.is_grad_enabled():
                dkey = Attend.apply(turned, query, *transposed(structure))
            else:
                dkey = attended(turned, query, structure[3], structure[4])
        return dquery, dkey, *[None] * 6

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Any, int]:
        alone("edge_dots", in_dims[2:])
        pair = [beside(args[i], in_dims[i], info.batch_size) for i in (0, 1)]
        return Dots.apply(*pair, *args[2:]), 1


def attended(share: Tensor, x: Tensor, index: Tensor, pointers: Tensor) -> Tensor:
    """y_th = sum over edges e into t of share_eh x_(index_e)h."""
    edges, size = len(index), x.shape[-1]
    shape = (len(pointers) - 1, *x.shape[1:])
    heads = math.prod(x.shape[1:-1])
    weights, table = share.reshape(edges, heads), x.reshape(len(x), heads, size)
    if heads == 1:
        return bags(table[:, 0], index, pointers, weights[:, 0]).view(shape)
    if edges * heads * size <= SMALL:
        each = table.index_select(0, index).mul_(weights.unsqueeze(2))
        return bags(each, torch.arange(edges, device=x.device), pointers).view(shape)
    found = x.new_empty(shape[0], heads, size)
    for head in range(heads):
        weight = weights[:, head].contiguous()
        found[:, head] = bags(table[:, head].contiguous(), index, pointers, weight)
    return found.view(shape)


def dotted(query: Tensor, key: Tensor, target: Tensor, source: Tensor) -> Tensor:
    """s_eh = query_(target_e)h . key_(source_e)h, a stretch of edges at a time."""
    edges, size = len(source), query.shape[-1]
    heads = math.prod(query.shape[1:-1])
    left, right = (one.reshape(len(one), heads, size) for one in (query, key))
    step = max(1, CHUNK // max(1, heads * size))
    found = query.new_empty(edges, heads)
    for begin in range(0, edges, step):
        end = min(begin + step, edges)
        part = left.index_select(0, target[begin:end])
        part.mul_(right.index_select(0, source[begin:end]))
        torch.sum(part, -1, out=found[begin:end])
    return found.view(edges, *query.shape[1:-1])
