"""What the recurrent layers share: sides, starts, ragged batches, dropout, fused or own loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.functional.gates import split_gates
from deepweave.functional.initial import orthogonal, xavier_uniform
from deepweave.functional.ragged import Padded, backwards, unpad, within
from deepweave.functional.recurrence import Norm, at_end, closing, unroll
from deepweave.nn.dropout import Dropout

Sequences = Tensor | Padded
State = Tensor | tuple[Tensor, ...]


class Stack(nn.RNNBase):
    """What the three layers share; the arguments are those of `LSTM`."""

    kind: str  # of functional.recurrence
    named: str  # by torch.nn.RNNBase
    family: str  # of functional.gates
    zoneout: Tensor | None
    own_only = False  # whether no fused kernel has these equations

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int = 1,
        *,
        bidirectional: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        norm: bool = False,
        zoneout: float = 0.0,
        memory: int | None = None,
        fused: bool | None = None,
    ):
        name = type(self).__name__
        for what, size in (("inputs", inputs), ("hidden", hidden), ("layers", layers)):
            if not isinstance(size, int) or size < 1:
                raise ValueError(f"{name}: {what} must be at least 1, got {size!r}")
        for what, rate in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout),
                           ("zoneout", zoneout)):  # fmt: skip
            if not 0 <= rate < 1:
                raise ValueError(f"{name}: {what} must lie in [0, 1), got {rate}")
        if memory is not None and memory < 3:
            raise ValueError(f"{name}: memory must be at least 3 steps, got {memory}")
        self.memory = memory
        self.own_only = self.own_only or norm or bool(zoneout)
        if fused and self.own_only:
            raise ValueError(f"{name}: no fused kernel has these equations: leave fused out")
        super().__init__(self.named, inputs, hidden, layers, bias, True, 0.0, bidirectional)
        self.variational, self.norm, self.fused = variational, norm, fused
        # rates as tensors, so that members of a Population may have their own
        self.drop = Dropout(dropout) if dropout else None
        self.recurrent_drop = Dropout(recurrent_dropout) if recurrent_dropout else None
        self.register_buffer("zoneout", torch.tensor(float(zoneout)) if zoneout else None)
        if norm:
            width = len(self._parameters["weight_hh_l0"])  # pyright: ignore[reportArgumentType]
            for tail, _, _ in self._sides():
                self.register_parameter(f"gain_ih{tail}", nn.Parameter(torch.ones(width)))
                self.register_parameter(f"gain_hh{tail}", nn.Parameter(torch.ones(width)))
                if self.family == "lstm":
                    self.register_parameter(f"gain_c{tail}", nn.Parameter(torch.ones(hidden)))
                    self.register_parameter(f"bias_c{tail}", nn.Parameter(torch.zeros(hidden)))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Gate by gate: Xavier for inputs, orthonormal for states, biases 0; gates that keep."""
        for name, weight in self.named_parameters(recurse=False):
            if name.startswith("gain"):
                weight.fill_(1.0)
            elif name.startswith("bias"):
                weight.zero_()
                if name.startswith("bias_ih"):
                    self._open(split_gates(weight, self.family))
            else:
                draw = orthogonal if name.startswith("weight_hh") else xavier_uniform
                for part in split_gates(weight, self.family).values():
                    part.copy_(draw(part))

    def _open(self, bias: dict[str, Tensor]) -> None:
        """First biases of the gates that keep: sigmoid(b) = 1 - 1/t keeps for t steps or so."""
        if self.memory is not None and self.family != "rnn":
            spans = torch.empty_like(bias["input" if self.family == "lstm" else "reset"])
            spans.uniform_(1, self.memory - 1).log_()
            if self.family == "lstm":
                bias["forget"].copy_(spans)
                bias["input"].copy_(-spans)
            else:
                bias["update"].copy_(spans)
        elif self.family == "lstm":
            bias["forget"].fill_(1.0)

    def _sides(self) -> Iterator[tuple[str, int, int]]:
        """The ending of the names, the layer and the direction of each one-way layer."""
        for layer in range(self.num_layers):
            for way in range(2 if self.bidirectional else 1):
                yield f"_l{layer}{'_reverse' * way}", layer, way

    def _weights(self, tail: str) -> list[Tensor]:
        """weight_ih, weight_hh and the biases of a one-way layer, a dropout of weights done."""
        names = ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if self.bias else ()))
        found = [getattr(self, name + tail) for name in names]
        if self.recurrent_drop is not None:
            found[1] = self.recurrent_drop(found[1])
        return found

    def _own(self, x: Tensor) -> bool:
        """Whether to run the own loop: asked for, or where torch's kernel has no rule or is slower.

        Torch has a kernel for LSTMs on the CPU; its GRU is a loop that autograd records, and the
        loop written out learns 1.1 to 3 times as fast.
        """
        if self.fused is not None:
            return not self.fused
        return (
            self.own_only
            or torch._C._are_functorch_transforms_active()
            or torch.autograd.forward_ad._current_level >= 0
            or (self.family == "gru" and x.device.type == "cpu" and torch.is_grad_enabled())
        )

    def forward(self, x: Sequences, state: State | None = None) -> tuple[Tensor, State]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Outputs of the last layer at every step, and the last state of all layers."""
        values, lengths = self._checked(x)
        starts = self._starts(values, state)
        dropping = self.training and self.drop is not None and self.num_layers > 1
        if lengths is None and not dropping and not self._own(values):
            weights = [one for tail, *_ in self._sides() for one in self._weights(tail)]
            return self._fused(values, starts, weights, self.num_layers, self.bidirectional)
        values, lasts = self._run(values, lengths, starts, self.num_layers)
        if lengths is not None:
            real = within(lengths, values.shape[1])
            values = values.masked_fill(~real.unsqueeze(2), 0.0)
        ends = tuple(torch.stack(parts) for parts in zip(*lasts))
        return values, ends if self.family == "lstm" else ends[0]

    def _run(
        self, values: Tensor, lengths: Tensor | None, starts: tuple[Tensor, ...], layers: int
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """The first layers one by one; the last state of each direction of each."""
        lasts, outs = [], []
        for i, (tail, layer, way) in enumerate(self._sides()):
            if layer == layers:
                break
            if layer and not way and self.drop is not None:
                values = self._dropped(values)
            start = tuple(one[i] for one in starts)
            sequence = backwards(values, lengths) if way else values
            out, last = self._one_way(sequence, start, tail, lengths)
            outs.append(backwards(out, lengths) if way else out)
            lasts.append(last)
            if way == int(self.bidirectional):
                values, outs = torch.cat(outs, 2) if way else out, []
        return values, lasts

    def _one_way(
        self, x: Tensor, start: tuple[Tensor, ...], tail: str, lengths: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        weights = self._weights(tail)
        if self._own(x):
            return unroll(
                self.kind, x, start, *weights, lengths=lengths,
                norm=self._norm(tail) if self.norm else None,
                zoneout=None if self.zoneout is None else (self.zoneout, self.training),
            )  # fmt: skip
        if lengths is not None and self.family == "lstm":
            x, weights[0] = closing(x, weights[0], lengths)
        out, last = self._fused(x, tuple(one[None] for one in start), weights, 1, False)
        cells = tuple(one[0] for one in last[1:]) if isinstance(last, tuple) else ()
        return out, (at_end(out, lengths), *cells)

    def _fused(
        self, x: Tensor, starts: tuple[Tensor, ...], weights: list[Tensor], layers: int, both: bool
    ) -> tuple[Tensor, State]:
        kernel: Callable[..., Any] = getattr(torch._VF, self.kind)
        start = starts if self.family == "lstm" else starts[0]
        out, *ends = kernel(x, start, weights, self.bias, layers, 0.0, self.training, both, True)
        return out, tuple(ends) if self.family == "lstm" else ends[0]

    def _norm(self, tail: str) -> Norm:
        names = ("gain_ih", "gain_hh", *(("gain_c", "bias_c") if self.family == "lstm" else ()))
        return Norm(*[getattr(self, name + tail) for name in names])

    def _dropped(self, values: Tensor) -> Tensor:
        drop: Any = self.drop
        if self.variational:
            return values * drop(torch.ones_like(values[:, :1]))
        return drop(values)

    def _checked(self, x: Sequences) -> tuple[Tensor, Tensor | None]:
        name = type(self).__name__
        values, lengths = unpad(x, name)
        if values.dim() != 3 or values.shape[2] != self.input_size:
            raise ValueError(
                f"{name}: sequences must be (B, T, {self.input_size}), got {tuple(values.shape)}"
            )
        return values, lengths

    def _starts(self, values: Tensor, state: State | None) -> tuple[Tensor, ...]:
        count = self.num_layers * (2 if self.bidirectional else 1)
        shape = (count, len(values), self.hidden_size)
        parts = 2 if self.family == "lstm" else 1
        if state is None:
            return (values.new_zeros(shape),) * parts
        given = state if isinstance(state, tuple) else (state,)
        if len(given) != parts or any(one.shape != shape for one in given):
            raise ValueError(
                f"{type(self).__name__}: state must be {'(h, c), each ' * (parts - 1)}{shape}, "
                f"got {', '.join(str(tuple(one.shape)) for one in given)}"
            )
        return given

    @torch.no_grad()
    def gates(self, x: Sequences, layer: int = 0) -> dict[str, Tensor]:
        """How far each gate is open at every step, in [0, 1]; forward direction, evaluation.

        Shapes: x (B, T, F) -> for each gate (B, T, H)

        Raises:
            ValueError: there is no such layer, or its products are normalised.
        """
        if not 0 <= layer < self.num_layers or self.norm:
            raise ValueError(
                f"{type(self).__name__}: gates are read of layers 0..{self.num_layers - 1} "
                f"without norm, got {layer}"
            )
        was = self.training
        self.eval()
        values, lengths = self._checked(x)
        starts = self._starts(values, None)
        below, _ = self._run(values, lengths, starts, layer)
        h = self._run(values, lengths, starts, layer + 1)[0][..., : self.hidden_size]
        self.train(was)
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
        w, u, *biases = self._weights(f"_l{layer}")
        a = below @ w.mT + before @ u.mT + sum(biases)
        found = split_gates(a.movedim(2, 0), self.family)
        return {
            name: part.movedim(0, 2).sigmoid()
            for name, part in found.items()
            if name not in ("hidden", "cell", "candidate")
        }

    def _load_from_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, state_dict: dict[str, Any], prefix: str, *rest: Any
    ) -> None:
        # torch's layers keep their rates elsewhere: what is not in their weights stays as it is
        for name, value in self.named_buffers():
            state_dict.setdefault(prefix + name, value)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        said = f"{self.input_size}, {self.hidden_size}, layers={self.num_layers}"
        flags = {"bidirectional": self.bidirectional, "norm": self.norm}
        flags |= {"variational": self.variational}
        said += "".join(f", {name}=True" for name, on in flags.items() if on)
        return said if self.fused is None else f"{said}, fused={self.fused}"
