"""Weights divided among processes (FSDP): each holds a part of every weight and of its state.

Slopes, averages and the optimizer's state are divided alike, as torch's ``DTensor``, on which
hooks work as on any tensor. What leaves the run (checkpoints, the trained model) is whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor

from deepweave.core.descent import Descent
from deepweave.core.engine import Engine
from deepweave.core.objective import Batch, Logs, Weights

if TYPE_CHECKING:
    from deepweave.core.places import Place

BLOCK = 1_000_000  # weights of a part of a model that is gathered by itself
UNFUSED = ("Adagrad", "SGD")  # whose fused form takes no divided weights


class Sharded(Engine):
    """Trains a divided copy of the objective, whose ``state_dict`` has the same names.

    The first dimension of each weight is divided. Large parts of lists and sequences of layers
    are gathered when their turn comes, the rest with the whole.
    """

    def __init__(self, step: Descent, place: Place):
        names = {id(weight): name for name, weight in step.objective.named_parameters()}
        if any(id(weight) not in names for weight in step.trained):
            raise ValueError("fit: fsdp: the optimizer has weights that the objective has not")
        super().__init__(step, place)
        self.mesh = init_device_mesh(place.device.type, (place.count,))
        one = copy.deepcopy(self.whole)
        for part in (*_blocks(one), one):
            fully_shard(part, mesh=self.mesh)
        for method in ("check", "predict"):
            register_fsdp_forward_method(one, method)
        parts = dict(one.named_parameters())
        self.pairs = [(weight, parts[names[id(weight)]]) for weight in step.trained]
        self.unfused = [
            group
            for group in step.optimizer.param_groups
            if group.get("fused") and type(step.optimizer).__name__ in UNFUSED
        ]
        for group in self.unfused:
            group["fused"] = False
        self._swap(self.pairs, self._cut)
        step.objective = self.forward = one

    def __call__(self, batch: Batch) -> Logs:
        self.level()  # as DDP does
        return super().__call__(batch)

    def _swap(self, pairs: Any, change: Any) -> None:
        """Make the optimizer work on other tensors for the same weights, in the same order."""
        optimizer, new = self.step.optimizer, {id(old): one for old, one in pairs}
        states = {id(weight): state for weight, state in optimizer.state.items()}
        optimizer.state.clear()
        for group in optimizer.param_groups:
            for old in group["params"]:
                one, state = new[id(old)], states.get(id(old))
                if change is not None and state is not None:
                    optimizer.state[one] = {k: change(v, one) for k, v in state.items()}
            group["params"] = [new[id(weight)] for weight in group["params"]]

    def _cut(self, value: Any, one: Any) -> Any:
        """A whole tensor divided as another is, if it is of the same shape."""
        if not isinstance(value, Tensor) or value.shape != one.shape:
            return value
        value = value.to(self.place.device)
        return distribute_tensor(value, self.mesh, one.placements, src_data_rank=None)

    def weights(self) -> Weights:
        """Weights and buffers, live, all of one kind."""
        everywhere = [Replicate()]
        return {
            name: v if isinstance(v, DTensor) else DTensor.from_local(v, self.mesh, everywhere)
            for name, v in super().weights().items()
        }

    def gather(self, tree: Any) -> Any:
        """A tree with every divided tensor whole; all processes take part."""
        if isinstance(tree, DTensor):
            return tree.full_tensor()
        if isinstance(tree, dict):
            return {key: self.gather(value) for key, value in tree.items()}
        if isinstance(tree, list | tuple):
            return type(tree)(self.gather(value) for value in tree)
        return tree

    def scatter(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of a loop, divided: what is named and shaped like a weight is one."""
        named = self.weights()

        def cut(tree: Any) -> Any:
            if isinstance(tree, dict):
                return {k: self._cut(cut(v), named[k]) if k in named else cut(v)
                        for k, v in tree.items()}  # fmt: skip
            if isinstance(tree, list | tuple):
                return type(tree)(cut(value) for value in tree)
            return tree

        for one in state["step"]["optimizers"]:
            for i, kept in one["state"].items():
                weight = self.step.trained[i]
                one["state"][i] = {k: self._cut(v, weight) for k, v in kept.items()}
        return cut(state)

    def leave(self, trained: bool) -> None:
        """Put the Descent back; every process gets the whole weights."""
        super().leave(trained)
        if trained:
            self.whole.load_state_dict(self.gather(self.step.objective.state_dict()))
        back = [(one, weight) for weight, one in self.pairs]
        self._swap(back, self._whole if trained else None)
        for group in self.unfused:
            group["fused"] = True
        self.step.objective = self.whole

    @staticmethod
    def _whole(value: Any, weight: Tensor) -> Any:
        return value.full_tensor().to(weight.device) if isinstance(value, DTensor) else value


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The large parts of lists and sequences, the inner ones first."""
    for child in module.children():
        yield from _blocks(child)
        listed = isinstance(module, nn.ModuleList | nn.Sequential)
        if listed and sum(w.numel() for w in child.parameters()) >= BLOCK:
            yield child
