"""How a Descent learns in several processes, or in fp16: PyTorch's own DDP and scaler.

Imported when it is needed: a run of one process in float32 or bf16 never sees it.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deepweave import chance
from deepweave.core.descent import Descent
from deepweave.core.objective import Batch, Logs, Objective, Weights, mapped, rows

if TYPE_CHECKING:
    from deepweave.core.places import Place

TIMEOUT = timedelta(minutes=5)  # without a word from another process
TINY = torch.finfo(torch.float64).tiny


def join(device: torch.device) -> None:
    """Meet the other processes that the launcher's variables tell of; part at exit."""
    if dist.is_initialized():
        return
    gpu = device.type == "cuda"
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=TIMEOUT)
    atexit.register(_part)


def _part() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def lost(error: BaseException, place: Place) -> ConnectionError | None:
    """In one line that another process is gone, if that is what an error says."""
    text = str(error).splitlines()[0] if str(error) else ""
    if place.world == 1 or not isinstance(error, RuntimeError):
        return None
    signs = ("Connection closed by peer", "Connection reset", "Timed out", "timeout")
    if not isinstance(error, dist.DistError) and not any(sign in text for sign in signs):
        return None
    reason = next((sign for sign in signs if sign in text), text)
    return ConnectionError(
        f"fit: process {place.rank} of {place.world} lost another: {reason.lower()}"
    )


def share(place: Place, batch: Batch, objective: Objective) -> tuple[Batch, float | Tensor]:
    """This process's rows of a batch, and the factor of their loss.

    With masses m_r (see :meth:`Objective.mass`) the loss of the whole batch is
    sum_r m_r loss_r / sum_r m_r. The engine takes plain means over the n processes, so each
    loss gets the factor n m_r / sum_r m_r.
    """
    total = objective.mass(batch)
    if place.own:
        mass = torch.as_tensor(total, dtype=torch.float64, device=place.device)
        sum_ = mass.clone()
        dist.all_reduce(sum_)
        return batch, place.count * mass / sum_.clamp_min(TINY)
    size = rows(batch)
    low, high = (size * r // place.count for r in (place.rank, place.rank + 1))
    if low == high:  # fewer rows than processes: one that has none learns nothing from all
        return batch, 0.0
    part = _rows(batch, size, low, high)
    mass = objective.mass(part)
    if isinstance(total, Tensor):
        total = total.clamp_min(TINY)
    return part, place.count * mass / total


def _rows(batch: Batch, count: int, low: int, high: int) -> Batch:
    """Rows low to high of every tensor in a batch."""

    def cut(part: Tensor) -> Tensor:
        if part.dim() and len(part) != count:
            raise ValueError(
                f"fit: a batch is divided by rows, but holds {count} and {len(part)} of them"
            )
        return part[low:high] if part.dim() else part

    return mapped(cut, batch)


class Engine:
    """In place of a Descent's own step while ``fit`` runs; :meth:`leave` puts all back.

    Every process holds the same weights; slopes are means over the processes, after each batch.
    """

    def __init__(self, step: Descent, place: Place):
        self.step, self.place = step, place
        self.whole = step.objective
        learnt = {id(weight) for weight in step.trained}
        self.frozen = [
            w for w in self.whole.parameters() if w.requires_grad and id(w) not in learnt
        ]
        for weight in self.frozen:
            weight.requires_grad_(False)
        self.forward: Any = None if place.count > 1 else self.whole
        self.scaler = None
        if place.precision == "fp16":
            self.scaler = torch.amp.GradScaler(place.device.type)
            self.fused = getattr(step.optimizer, "_step_supports_amp_scaling", None)
        if place.count > 1:
            spread(self.whole.state_dict().values())

    def __call__(self, batch: Batch) -> Logs:
        step, place = self.step, self.place
        factor: float | Tensor = 1.0
        if place.count > 1:
            batch, factor = share(place, batch, step.objective)
            self.forward = self.forward or self.wrap(batch)
        loss, logs = self.forward(batch)
        part = loss if isinstance(factor, float) and factor == 1.0 else loss * factor
        part = part if step.accumulate == 1 else part / step.accumulate
        (part if self.scaler is None else self.scaler.scale(part)).backward()
        if step.ready():
            self.update()
            for weight in step.trained:
                weight.grad = None
        told = {"loss": loss.detach(), **logs}
        if isinstance(factor, float) and factor == 1.0:
            return told
        return {name: value * factor for name, value in told.items()}

    def update(self) -> None:
        """Let the optimizer step, on slopes that its hooks see as they are."""
        optimizer, scaler = self.step.optimizer, self.scaler
        if scaler is None:
            optimizer.step()
            return
        # so that the scaler divides first, and asks no fused optimizer to divide by itself
        optimizer._step_supports_amp_scaling = False  # pyright: ignore[reportAttributeAccessIssue]
        if scaler.get_scale() < 1:  # it is not the scale: let the guard say what it is
            scaler.unscale_(optimizer)
            optimizer.step()
        else:
            scaler.step(optimizer)  # not if a slope overflowed: then no hook sees it either
        scaler.update()

    def wrap(self, batch: Batch) -> nn.Module:
        """DDP, told whether some weights stay without a slope: to look every time costs time."""
        kept = [buffer.clone() for buffer in self.whole.buffers()]
        with chance.aside(0):
            loss, _ = self.whole(batch)
            slopes = torch.autograd.grad(loss, self.step.trained, allow_unused=True)
        for buffer, value in zip(self.whole.buffers(), kept):
            buffer.copy_(value)
        unused = torch.tensor(float(any(s is None for s in slopes)), device=self.place.device)
        dist.all_reduce(unused)
        return nn.parallel.DistributedDataParallel(
            self.whole, find_unused_parameters=bool(unused), init_sync=False
        )

    def level(self) -> None:
        """Buffers as they are in process 0."""
        if self.place.count > 1:
            spread(self.step.objective.buffers())

    def weights(self) -> Weights:
        """What the Descent trains, live."""
        return self.step.objective.state_dict()

    def gather(self, tree: Any) -> Any:
        """A checkpoint's tree as one process would have it."""
        return tree

    def scatter(self, state: dict[str, Any]) -> dict[str, Any]:
        """What :meth:`gather` gave, as this process has it."""
        return state

    def leave(self, trained: bool) -> None:
        """Put the Descent back; with what was learnt, if training came to its end."""
        if trained:
            self.level()
        for weight in self.frozen:
            weight.requires_grad_(True)
        if self.scaler is not None and self.fused is not None:
            self.step.optimizer._step_supports_amp_scaling = self.fused  # pyright: ignore[reportAttributeAccessIssue]
        self.step.engine = None


@torch.no_grad()
def spread(tensors: Iterable[Tensor]) -> None:
    """Make tensors those of process 0."""
    for tensor in tensors:
        whole = tensor.detach().contiguous()
        dist.broadcast(whole, 0)
        if whole.data_ptr() != tensor.data_ptr():
            tensor.copy_(whole)
