"""What a model is made of and what it costs: layer by layer, of any model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from deepweave.nn.counting import Reader, plainly
from deepweave.nn.dense import sizes_of
from deepweave.nn.fields import Local, Whole

HEAD = ("layer", "kind", "output", "parameters", "FLOPs", "sees", "activations", "weights")


@dataclass(frozen=True)
class Row:
    """One layer that was called.

    Attributes:
        name, kind: its place in the model, and its class.
        shape: of its output, the batch first; None where it gives no tensor.
        parameters: of its own, each shared one counted where it comes first.
        flops: of its matrix products and convolutions, 2 for each multiply-add; None if it does
            something with weights that there is no rule for, which ``note`` then names.
        field: how many places of the input one unit of the output sees, for each axis; () where
            nothing is known, as behind what has no places.
        activations: bytes of its output, 0 where it is only a view of its input.
        memory: bytes of its own parameters and buffers.
        calls: how often it was called; FLOPs and activations are those of all calls.
        note: what there is no rule for.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    flops: int | None
    field: tuple[int, ...]
    activations: int
    memory: int
    calls: int = 1
    note: str = ""


@dataclass(frozen=True)
class Summary:
    """The rows of a model and their totals; ``print`` shows the table.

    Attributes:
        model, shape: its class, and the shape of the input.
        rows: the layers, in the order in which they were first called.
        groups: the same of what holds layers, for tables of less detail: no numbers of their own.
        parameters, trainable: all of them, and those that learn.
        flops: of one forward pass of this batch; where ``uncounted`` is not empty, at least these.
        uncounted: the layers there is no rule for.
        activations: bytes of all outputs, as inference makes them one after the other.
        kept: bytes that one forward pass in training keeps for the way back, measured.
        memory: bytes of parameters and buffers.
    """

    model: str
    shape: tuple[int, ...] | None
    rows: tuple[Row, ...]
    groups: tuple[Row, ...]
    parameters: int
    trainable: int
    flops: int
    uncounted: tuple[str, ...]
    activations: int
    kept: int
    memory: int

    def folded(self, depth: int) -> Summary:
        """The same with rows deeper than ``depth`` names put together under what holds them.

        Raises:
            ValueError: a depth below 1.
        """
        if depth < 1:
            raise ValueError(f"Summary.folded: depth must be at least 1, got {depth}")
        parts: dict[str, list[Row]] = {}
        for row in self.rows:
            parts.setdefault(".".join(row.name.split(".")[:depth]), []).append(row)
        whole = {row.name: row for row in self.groups}
        rows = []
        for name, inner in parts.items():
            if len(inner) == 1 and inner[0].name == name:
                rows += inner
                continue
            counts = [row.flops for row in inner if row.flops is not None]
            one = replace(
                whole.get(name, replace(inner[-1], name=name, kind="")),
                parameters=sum(row.parameters for row in inner),
                flops=sum(counts) if len(counts) == len(inner) else None,
                activations=sum(row.activations for row in inner),
                memory=sum(row.memory for row in inner),
                note=", ".join(dict.fromkeys(row.note for row in inner if row.note)),
            )
            rows.append(one)
        return replace(self, rows=tuple(rows))

    def to_json(self) -> dict[str, Any]:
        """Rows and totals as plain values."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [list(HEAD), *(_cells(row, self.shape) for row in self.rows)]
        if not any(row.field for row in self.rows):
            at = HEAD.index("sees")
            lines = [line[:at] + line[at + 1 :] for line in lines]
        widths = [max(map(len, column)) for column in zip(*lines)]
        table = [
            "  ".join(
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths))
            ).rstrip()
            for line in lines
        ]
        table.insert(1, "-" * max(map(len, table)))
        said = f"{self.parameters:,} parameters"
        said += f" ({self.trainable:,} learn)" if self.trainable != self.parameters else ""
        least = "at least " if self.uncounted else ""
        size = f" for an input of {_sides(self.shape)}" if self.shape else ""
        table += ["", f"{self.model}: {said}, {least}{_flops(self.flops)} FLOPs{size}"]
        table.append(
            f"{_bytes(self.memory)} of weights, {_bytes(self.activations)} of activations, "
            f"{_bytes(self.kept)} kept for the way back"
        )
        if self.uncounted:
            table.append(f"no rule for: {', '.join(self.uncounted)}")
        return "\n".join(table)


def summary(model: nn.Module, x: Any) -> Summary:
    """Read a model on one input: layers, shapes, parameters, FLOPs, receptive fields, memory.

    It is run once, in evaluation mode, and is as before afterwards. FLOPs are those of matrix
    products and convolutions (a multiply-add is 2), read from the operations that really run, so
    that any model can be read: modules of torch, of deepweave, your own. What uses weights in a
    way that has no rule is named, not guessed at. Receptive fields are followed through
    convolutions, poolings and branches, norms' statistics left out.

    Args:
        model: any module.
        x: an input (whatever the model takes, the batch first), a data spec, or
            (inputs, outputs) as the makers take it: then one sample.

    Raises:
        ValueError: the spec says too little to make an input from it, such as that of graphs.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> print(summary(net, ((1, 8, 8), 2)))
    layer  kind         output  parameters  FLOPs   sees  activations  weights
    --------------------------------------------------------------------------
    0      Conv2d   1, 4, 6, 6          40  2.59k  3 x 3        576 B    160 B
    1      ReLU     1, 4, 6, 6           0      0  3 x 3        576 B      0 B
    2      Flatten      1, 144           0      0                 0 B      0 B
    3      Linear         1, 2         290    576    all          8 B  1.16 kB
    <BLANKLINE>
    Sequential: 330 parameters, 3.17k FLOPs for an input of 1, 1, 8, 8
    1.32 kB of weights, 1.16 kB of activations, 832 B kept for the way back
    """
    x = _input(model, x)
    image = x if isinstance(x, Tensor) and x.dim() > 2 and x.is_floating_point() else None
    if not any(isinstance(module, _ConvNd) for module in model.modules()):
        image = None  # without a convolution the last axes may mean anything
    reader, calls = Reader(model, image), _Calls(model, image)
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        store = tensor.untyped_storage()
        if store.data_ptr() not in own:
            kept[store.data_ptr()] = store.nbytes()
        return tensor

    saving = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with plainly(model), calls.watch(reader), torch.enable_grad(), saving, reader:
        held = model(x)  # held to the end: storages that are freed could be met again
    del held
    rows, groups = calls.rows(reader)
    weights = list(model.parameters())
    return Summary(
        type(model).__name__,
        tuple(x.shape) if isinstance(x, Tensor) else None,
        tuple(rows),
        tuple(groups),
        sum(w.numel() for w in weights),
        sum(w.numel() for w in weights if w.requires_grad),
        sum(reader.flops.values()),
        tuple(row.name or row.kind for row in rows if row.flops is None),
        sum(row.activations for row in rows),
        sum(kept.values()),
        sum(_size(t) for t in (*weights, *model.buffers())),
    )


class _Calls:
    """Which layers were called, what they gave, and what is theirs."""

    def __init__(self, model: nn.Module, image: Tensor | None):
        self.image = image
        self.names: dict[nn.Module, str] = {}
        for name, module in model.named_modules():
            self.names.setdefault(module, name)
        self.called: dict[nn.Module, dict[str, Any]] = {}

    @contextlib.contextmanager
    def watch(self, reader: Reader) -> Iterator[None]:
        """Tell the reader which module is under way."""

        def enter(module: nn.Module, _: Any) -> None:
            reader.inside.append(self.names[module])
            self.called.setdefault(module, {"calls": 0, "bytes": 0, "field": ()})

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            reader.inside.pop()
            note, found = self.called[module], _tensor(output)
            note["calls"] += 1
            note["shape"] = None if found is None else tuple(found.shape)
            stores = {t.untyped_storage().data_ptr() for t in inputs if isinstance(t, Tensor)}
            if found is not None and found.untyped_storage().data_ptr() not in stores:
                note["bytes"] += _size(found)
            field = None if found is None else reader.seen.get(found)
            if isinstance(field, Local):
                note["field"] = tuple(a.high - a.low + 1 for a in field.axes)
            elif isinstance(field, Whole) and self.image is not None:
                sides = zip(field.extent, self.image.shape[2:])
                note["field"] = tuple(min(b, n - 1) - max(a, 0) + 1 for (a, b), n in sides)

        handles: list[Any] = []
        for module in self.names:
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def rows(self, reader: Reader) -> tuple[list[Row], list[Row]]:
        """Modules that do something themselves, and those that only hold others."""
        owned = self._owned()
        rows: list[Row] = []
        groups: list[Row] = []
        for module, note in self.called.items():
            name = self.names[module]
            tensors = owned.get(module, [])
            blind, flops = reader.blind.get(name), reader.flops.get(name, 0)
            inner = any(True for _ in module.children())
            holder = inner and not (tensors or blind or flops)
            row = Row(
                name or type(module).__name__,
                type(module).__name__,
                note.get("shape"),
                sum(t.numel() for t in tensors if isinstance(t, nn.Parameter)),
                None if blind else flops,
                note["field"],
                0 if inner and not flops else note["bytes"],
                sum(map(_size, tensors)),
                note["calls"],
                ", ".join(sorted(blind or ())),
            )
            (groups if holder else rows).append(row)
        return rows, groups

    def _owned(self) -> dict[nn.Module, list[Tensor]]:
        """The parameters and buffers of each module called, and of those in it that were not."""
        holders = {self.names[module]: module for module in self.called}
        taken: set[int] = set()
        owned: dict[nn.Module, list[Tensor]] = {}
        for module, name in self.names.items():
            while name not in holders and name:
                name = name.rpartition(".")[0]
            for tensor in (*module.parameters(False), *module.buffers(False)):
                if id(tensor) not in taken:
                    taken.add(id(tensor))
                    owned.setdefault(holders[name], []).append(tensor)
        return owned


def _input(model: nn.Module, x: Any) -> Any:
    """One sample made from sizes, or the input as it is."""
    spec = hasattr(x, "shape") and hasattr(x, "outputs")
    pair = type(x) in (tuple, list) and len(x) in (2, 3) and isinstance(x[1], int)
    if not spec and not pair:
        return x
    if spec and getattr(x, "kind", "") == "graph":
        raise ValueError("summary: the spec of graphs says too little: pass a graph")
    shape, _ = sizes_of(x if spec else tuple(x)[:2], "summary")
    like = next((w for w in model.parameters() if w.is_floating_point()), torch.zeros(()))
    words = getattr(x, "vocabulary", 0) if spec else len(x) == 3
    if words:
        return torch.ones(1, *shape[:1], dtype=torch.int64, device=like.device)
    return torch.zeros(1, *shape, dtype=like.dtype, device=like.device)


def _tensor(output: Any) -> Tensor | None:
    """The first tensor of an output."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        return next(filter(lambda t: t is not None, map(_tensor, output)), None)
    return None


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _scaled(units: tuple[str, ...]) -> Callable[[float], str]:
    def tell(value: float) -> str:
        step = 0
        while value >= 999.5 and step < len(units) - 1:
            value, step = value / 1000, step + 1
        return f"{value:.3g}{units[step]}"

    return tell


_flops = _scaled(("", "k", "M", "G", "T"))
_bytes = _scaled((" B", " kB", " MB", " GB", " TB"))


def _sides(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else ", ".join(map(str, shape))


def _cells(row: Row, shape: tuple[int, ...] | None) -> list[str]:
    """A row of the table; a field as large as the input is called all."""
    sees = " x ".join(map(str, row.field))
    if row.field and shape is not None and row.shape is not None and len(row.shape) != len(shape):
        sees = "all" if row.field == shape[2:] else sees
    times = f" x {row.calls}" if row.calls > 1 else ""
    return [
        row.name,
        row.kind + times,
        _sides(row.shape),
        f"{row.parameters:,}",
        "not counted" if row.flops is None else _flops(row.flops),
        sees,
        _bytes(row.activations),
        _bytes(row.memory),
    ]
