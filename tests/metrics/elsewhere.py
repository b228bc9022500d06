"""A device that no machine lacks: numbers that lie on the host and say that they do not.

Within ``with Elsewhere() as there`` the tensors of ``there(x)`` say that their device is "meta",
and an operation on one of them and one of the host is refused, as CUDA refuses it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

AWAY = torch.device("meta")
# indices and what is filled in may lie on the host
FREE = {torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default}


class Far(Tensor):
    """A tensor whose numbers are in ``held``."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Far:
        made: Any = Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), dtype=held.dtype, device=AWAY
        )
        made.held = held
        return made

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(cls, call, types, args=(), kwargs=None):
        return away(call, args, kwargs or {})


def away(call: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The call on the host, its results where they belong; a mixture of devices is refused."""
    seen: list[Tensor] = []
    tree_map(lambda x: seen.append(x) if isinstance(x, Tensor) else None, (args, kwargs))
    far = any(isinstance(x, Far) for x in seen)
    host = any(not isinstance(x, Far) and x.dim() for x in seen)
    moves = call in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if far and host and not moves and call not in FREE:
        raise RuntimeError(f"{call}: tensors on two devices")
    wanted = kwargs.get("device")
    if wanted is not None:
        far = torch.device(wanted) == AWAY
        if far and kwargs.get("generator") is not None:
            raise RuntimeError(f"{call}: a generator of another device")
        kwargs = {**kwargs, "device": torch.device("cpu")}
    bare = tree_map(lambda x: x.held if isinstance(x, Far) else x, (args, kwargs))
    made = call(*bare[0], **bare[1])
    if call._schema.name.rpartition("::")[2].endswith("_") and isinstance(args[0], Tensor):
        return args[0]  # in place
    return tree_map(lambda x: Far(x) if far and isinstance(x, Tensor) else x, made)


class Elsewhere(TorchDispatchMode):
    """What is made for the device "meta" gets numbers here."""

    def __torch_dispatch__(self, call, types, args=(), kwargs=None):
        return away(call, args, kwargs or {})

    def __call__(self, x: Tensor) -> Tensor:
        return x.to(AWAY)
