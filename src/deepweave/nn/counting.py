"""What a model does in one forward pass, read operation by operation while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.weak import WeakTensorKeyDictionary

from deepweave.nn import fields

aten: Any = torch.ops.aten


def _attention(query: Tensor, key: Tensor, value: Tensor) -> int:
    """Scores and weighted sum, each a product of matrices."""
    *_, targets, width = query.shape
    return 2 * query.shape[:-2].numel() * targets * key.shape[-2] * (width + value.shape[-1])


def _recurrent(x: Tensor, inputs: Tensor, hidden: Tensor) -> int:
    """One layer over all steps: a product with each of its two matrices at every step."""
    return 2 * x.shape[:2].numel() * (inputs.numel() + hidden.numel())


# what torch's own counter leaves out: products inside the fused operations of a CPU
_OWN = {
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_fused_attention_overrideable": _attention,
    "mkldnn_rnn_layer": _recurrent,
}
# operations on weights that multiply no matrices
_LIGHT = fields._KEEP | {
    "embedding", "_embedding_bag", "_embedding_bag_forward_only", "cat", "stack", "index_select",
    "index", "gather", "sum", "mean", "copy_", "native_norm", "linalg_vector_norm", "flip", "roll",
    "_weight_norm_interface", "_fused_rms_norm", "constant_pad_nd", "topk", "sort", "amax", "max",
    "var_mean", "var", "std", "argmax", "index_put", "scatter", "scatter_add", "repeat",
}  # fmt: skip


class Reader(TorchDispatchMode):
    """Count products of each module, and follow receptive fields, while a model runs.

    FLOPs are those of matrix products and convolutions, a multiplication and an addition each
    counting as one: what :class:`torch.utils.flop_counter.FlopCounterMode` counts, and the fused
    attention and recurrent layers of a CPU, which it leaves out.
    """

    def __init__(self, model: nn.Module, x: Tensor | None = None):
        super().__init__()
        self.inside: list[str] = [""]  # the modules under way, the innermost last
        self.flops: dict[str, int] = {}
        self.blind: dict[str, set[str]] = {}  # operations on weights without a rule, by module
        heavy = [w for w in model.parameters() if w.dim() > 1]
        self.weights = {w.untyped_storage().data_ptr() for w in heavy}
        self.seen = WeakTensorKeyDictionary()  # the field of what comes from the input
        if x is not None:
            self.seen[x] = fields.Local((fields.Axis(),) * (x.dim() - 2))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet, name = func.overloadpacket, func.overloadpacket.__name__
        out = func(*args, **kwargs)
        here = self.inside[-1]
        if packet in flop_registry:
            count = flop_registry[packet](*args, **kwargs, out_val=out)
            self.flops[here] = self.flops.get(here, 0) + count
        elif name in _OWN:
            self.flops[here] = self.flops.get(here, 0) + _OWN[name](*args[:3])
        elif self._heavy(func, name) and self._weighs((*args, *kwargs.values())):
            self.blind.setdefault(here, set()).add(name)
        first = out[0] if isinstance(out, tuple | list) and out else out
        if len(self.seen) and isinstance(first, Tensor):
            found = fields.after(func, name, args, first, self.seen.get)
            if found is not None:
                self.seen[first] = found
        return out

    def _heavy(self, func: Any, name: str) -> bool:
        """Whether an operation may multiply matrices."""
        return not (func.is_view or name in _LIGHT or torch.Tag.pointwise in func.tags)

    def _weighs(self, args: Any) -> bool:
        """Whether a weight of two and more dimensions is among arguments."""
        for one in args:
            if isinstance(one, Tensor):
                if one.dim() > 1 and one.untyped_storage().data_ptr() in self.weights:
                    return True
            elif isinstance(one, list | tuple) and self._weighs(one):
                return True
        return False


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without the fused forms of whole transformer layers; both come back."""
    modes = [(module, module.training) for module in model.modules()]
    fast = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes:
            module.training = mode
