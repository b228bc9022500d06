"""Where a run learns: on which devices, in which precision, in one process or in several."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from deepweave import chance
from deepweave.core.descent import Descent
from deepweave.core.objective import Step
from deepweave.core.population import Population
from deepweave.run import derive

if TYPE_CHECKING:
    from deepweave.core.engine import Engine

T = TypeVar("T")
PRECISIONS = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
STRATEGIES = ("ddp", "fsdp")
WHOLE = ("Adafactor", "LBFGS", "Muon", "Rprop", "SparseAdam")  # see a weight as a whole
ASKED: ContextVar[dict[str, Any]] = ContextVar("place", default={})  # noqa: B039


@contextmanager
def place(
    *, devices: Any = None, precision: str | None = None, strategy: str | None = None
) -> Iterator[None]:
    """Where every :func:`fit` inside learns, unless its own arguments say otherwise.

    Args:
        devices, precision, strategy: as for :func:`fit`; None: as it is around.

    Raises:
        ValueError: a precision, a strategy or devices that there are not.

    >>> with place(precision="bf16"):
    ...     ASKED.get()
    {'precision': 'bf16'}
    """
    given = {"devices": devices, "precision": precision, "strategy": strategy}
    asked = {**ASKED.get(), **{k: v for k, v in given.items() if v is not None}}
    _known(str(asked.get("precision", "float32")), asked.get("strategy"))
    _devices(asked.get("devices"))
    token = ASKED.set(asked)
    try:
        yield
    finally:
        ASKED.reset(token)


def settle(devices: Any, precision: str | None, strategy: str | None, step: Step) -> Place:
    """The place that arguments, context and launcher mean for a step; refused in one line."""
    asked = ASKED.get()
    devices = asked.get("devices") if devices is None else devices
    precision = str(precision or asked.get("precision", "float32"))
    wanted = strategy or asked.get("strategy")
    _known(precision, wanted)
    kind, indices = _devices(devices)
    rank, world, local, here = _processes()
    count = None if indices is None else len(indices)
    command = f"torchrun --nproc-per-node {count or 2} SCRIPT.py"
    if world == 1 and (count or 1) > 1:
        raise ValueError(f"fit: devices={devices!r} needs {count} processes: {command}")
    if world == 1 and wanted is not None:
        raise ValueError(f"fit: strategy={wanted!r} needs several processes: {command}")
    if world > 1 and count not in (None, here):
        raise ValueError(f"fit: devices={devices!r}, but {here} processes were started: {command}")
    if world > 1 and kind not in ("cpu", "cuda"):
        raise ValueError(f"fit: several processes learn on cpu or cuda, got {kind}")
    index = indices[local] if indices else (local if world > 1 and kind == "cuda" else None)
    _exists(kind, index, devices)
    name = type(step).__name__
    if precision != "float32" and not isinstance(step, Descent | Population):
        raise ValueError(f"fit: precision is for Descent and Population, {name} sets its own")
    if precision == "fp16" and isinstance(step, Population):
        raise ValueError(
            "fit: fp16 scales the loss of one model; for a Population take precision='bf16'"
        )
    if strategy is not None and not isinstance(step, Descent):
        raise ValueError(f"fit: strategy={strategy!r} is for Descent, got {name}; leave it out")
    shared = world > 1 and isinstance(step, Descent)
    found = (wanted or "ddp") if shared else None
    if found == "fsdp":
        for one in step.optimizers:
            if type(one).__name__ in WHOLE:
                raise ValueError(
                    f"fit: {type(one).__name__} cannot be sharded: take strategy='ddp'"
                )
    device = torch.device(kind) if index is None else torch.device(kind, index)
    return Place(device, precision, found, rank, world)


def _known(precision: str, strategy: str | None) -> None:
    if precision not in PRECISIONS:
        known = ", ".join(PRECISIONS)
        raise ValueError(f"fit: precision must be one of {known}, got {precision!r}")
    if strategy is not None and strategy not in STRATEGIES:
        raise ValueError(f"fit: strategy must be one of ddp, fsdp, got {strategy!r}")


def _devices(devices: Any) -> tuple[str, list[int | None] | None]:
    """The kind of device and, where told, the index of each process's own."""
    usual = "cuda" if torch.cuda.is_available() else "cpu"
    if isinstance(devices, str) and all(part.strip().isdigit() for part in devices.split(",")):
        parts = [int(part) for part in devices.split(",")]  # as on the command line
        devices = parts if len(parts) > 1 else parts[0]
    if devices is None:
        return usual, None
    if isinstance(devices, int) and not isinstance(devices, bool):
        if devices < 1:
            raise ValueError(f"fit: devices must be at least 1, got {devices}")
        return usual, [i if usual == "cuda" else None for i in range(devices)]
    many = list(devices) if isinstance(devices, list | tuple) else [devices]
    try:
        found = [torch.device("cuda", d) if type(d) is int else torch.device(d) for d in many]
        (kind,) = {one.type for one in found}
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(
            f"fit: devices must be cpu, cuda, a number or a list of one kind, got {devices!r}"
        ) from None
    alone = not isinstance(devices, list | tuple) and found[0].index is None
    return kind, None if alone else [one.index for one in found]


def _exists(kind: str, index: int | None, devices: Any) -> None:
    if kind == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (index or 0) >= there:
            raise ValueError(f"fit: devices={devices!r}, but PyTorch sees {there} CUDA devices")


def _processes() -> tuple[int, int, int, int]:
    """Rank and number of all processes, then of those on this machine."""
    env = {k: int(os.environ.get(k, v)) for k, v in (("RANK", 0), ("WORLD_SIZE", 1))}
    rank, world = env["RANK"], env["WORLD_SIZE"]
    if dist.is_available() and dist.is_initialized():  # by the user, or by an earlier fit
        rank, world = dist.get_rank(), dist.get_world_size()
    local = int(os.environ.get("LOCAL_RANK", rank))
    return rank, world, local, int(os.environ.get("LOCAL_WORLD_SIZE", world))


class Place:
    """Where one run learns; in one process and float32 nothing here costs a step anything."""

    def __init__(
        self,
        device: torch.device | str = "cpu",
        precision: str = "float32",
        strategy: str | None = None,
        rank: int = 0,
        world: int = 1,
    ):
        self.device, self.precision, self.strategy = torch.device(device), precision, strategy
        self.rank, self.world = rank, world  # of all processes that run this program
        self.count = world if strategy else 1  # of those that share each batch
        self.own = False  # whether the source gives each process rows of its own
        self.engine: Engine | None = None
        self._handles: list[Any] = []  # of the hooks that cast

    def begin(self, step: Step) -> None:
        """Make a step learn here; undone by :meth:`end`."""
        kind = PRECISIONS[self.precision]
        if isinstance(step, Descent) and (self.count > 1 or self.precision == "fp16"):
            if self.strategy == "fsdp":
                from deepweave.core.sharding import Sharded as Kind
            else:
                from deepweave.core.engine import Engine as Kind
            self.engine = step.engine = Kind(step, self)
        if kind is not None:
            self._handles = _cast(step.objective, self.device.type, kind)

    def end(self, *, trained: bool) -> None:
        """Give the step back as it was; when all went well, with the whole trained weights."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.leave(trained)

    def told(self, error: BaseException) -> BaseException:
        """An error, or in one line what it means: that another process is gone."""
        if self.world == 1:
            return error
        from deepweave.core import engine

        return engine.lost(error, self) or error

    def divided(self, source: Any) -> None:
        """Note whether a loader gives each process rows of its own already."""
        if self.count > 1:
            from torch.utils.data.distributed import DistributedSampler

            self.own = isinstance(getattr(source, "sampler", None), DistributedSampler)

    def note(self, info: dict[str, Any]) -> None:
        """Say in run.json what is not the usual; what an earlier try said does not count."""
        found = {"processes": self.count, "strategy": self.strategy, "precision": self.precision}
        for name, value in found.items():
            info.pop(name, None)
            if value not in (1, None, "float32"):
                info[name] = value

    def seed(self, seed: int) -> None:
        """Seed training: processes that share a batch draw differently, the first as if alone."""
        apart = (self.rank,) if self.count > 1 and self.rank else ()
        chance.seed_all(derive(seed, "train", *apart))

    def join(self) -> None:
        """Meet the other processes, unless that was done before."""
        if self.world > 1:
            from deepweave.core import engine

            engine.join(self.device)

    def first(self, read: Callable[[], T]) -> T:
        """What process 0 reads, on every process; if it refuses, all refuse with its words."""
        if self.world == 1:
            return read()
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = read()
            except (ValueError, OSError) as error:
                box[1] = error
        dist.broadcast_object_list(box, 0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def mean(self, values: dict[str, Any]) -> dict[str, Any]:
        """The numbers of a step's logs over the whole batch, the same on every process."""
        if self.count == 1:
            return values
        return message(values, self.device, lambda flat: dist.all_reduce(flat.div_(self.count)))

    def same(self, values: dict[str, Any]) -> dict[str, Any]:
        """The numbers of process 0 on every process, so that all decide alike."""
        if self.count == 1:
            return values
        return message(values, self.device, lambda flat: dist.broadcast(flat, 0))

    def whole(self, state: Any) -> Any:
        """The tree of a checkpoint, divided tensors put together; all processes take part."""
        return state if self.engine is None else self.engine.gather(state)

    def level(self) -> None:
        """Buffers, such as running statistics, as they are in process 0."""
        if self.engine is not None:
            self.engine.level()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of the place: the scale of fp16, every process's random state."""
        found: dict[str, Any] = {}
        if self.engine is not None and self.engine.scaler is not None:
            found["scaler"] = self.engine.scaler.state_dict()
        if self.count > 1:
            found["chance"] = [None] * self.count
            dist.all_gather_object(found["chance"], chance.snapshot())
        return found

    def restore(self, state: dict[str, Any], seed: int, count: int) -> None:
        """Put back what :meth:`state` gave; processes that were not there draw anew."""
        if self.engine is not None and self.engine.scaler is not None and "scaler" in state:
            self.engine.scaler.load_state_dict(state["scaler"])
        kept = state.get("chance", [])
        if self.count > 1 and self.rank:
            if self.rank < len(kept):
                chance.restore(kept[self.rank])
            else:
                chance.seed_all(derive(seed, "train", self.rank, count))


def message(
    values: dict[str, Any], device: torch.device, send: Callable[[Tensor], Any]
) -> dict[str, Any]:
    """Send all tensors among the values as one."""
    tensors = {k: v.detach() for k, v in values.items() if isinstance(v, Tensor)}
    if not tensors:
        return values
    flat = torch.cat([v.double().reshape(-1) for v in tensors.values()]).to(device)
    send(flat)
    parts = flat.split([v.numel() for v in tensors.values()])
    return values | {k: p.view(v.shape).to(v) for (k, v), p in zip(tensors.items(), parts)}


def _cast(objective: nn.Module, device: str, kind: torch.dtype) -> list[Any]:
    """Run every forward pass of an objective under autocast: in a Population and DDP as well."""
    open_: list[Any] = []

    def enter(*_: Any) -> None:
        open_.append(torch.autocast(device, kind))
        open_[-1].__enter__()

    def leave(*_: Any) -> None:
        open_.pop().__exit__(None, None, None)

    return [
        objective.register_forward_pre_hook(enter),
        objective.register_forward_hook(leave, always_call=True),
    ]
