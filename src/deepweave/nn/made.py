"""A masked autoregressive network, its hidden units in the order of what they may see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.nn.activations import Activation, activation_layer, gain_of
from deepweave.nn.bijection import checked


class MaskedDense(nn.Module):
    """A dense layer some of whose weights are held at 0 by a mask.

    The first weights are normal with standard deviation gain / sqrt(inputs that a unit sees).

    Shapes: x (B, inputs) -> (B, outputs)
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, gain: float = math.sqrt(2)):
        super().__init__()
        self.gain = gain
        self.register_buffer("mask", mask)
        self.weight = nn.Parameter(torch.empty(mask.shape))
        self.bias = nn.Parameter(torch.empty(len(mask)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        seen = self.mask.sum(1, keepdim=True).clamp_min(1)
        with torch.no_grad():
            self.weight.copy_(torch.randn_like(self.weight) * self.gain / seen.sqrt())
            self.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)

    def extra_repr(self) -> str:
        return f"{self.mask.shape[1]}, {self.mask.shape[0]}"


class MADE(nn.Module):
    """Parameters for each feature, from the features before it (and a context) alone.

    A hidden unit has a degree m and sees the features up to m; the parameters of feature i see the
    units of degree below i. Units are sorted by degree. So when features come one after the other,
    as in sampling, every unit is computed once, as soon as the last feature that it sees is known:
    :meth:`unroll` costs one forward pass, where full passes for each feature cost D of them.

    Args:
        features: D.
        size: P, parameters of a feature.
        hidden: widths of the hidden layers; layers of one width after the first add to what
            comes in (residual).
        context: how many numbers of context every unit sees; 0 for none.
        gain: a factor for the last layer's first weights; 0: all parameters begin at 0.

    Shapes: x (B, D), context (B, C) -> (B, D, P)
    Raises:
        ValueError: sizes below 1.
    Source: Germain, Gregor, Murray & Larochelle, MADE: masked autoencoder for distribution
    estimation, 2015.

    >>> net = MADE(3, 2, (16,), gain=1.0)
    >>> slopes = torch.func.jacrev(lambda x: net(x[None])[0, :, 0])(torch.randn(3))
    >>> bool((slopes.triu() == 0).all())  # feature i hears of those before it
    True
    """

    def __init__(
        self,
        features: int,
        size: int,
        hidden: Sequence[int] = (64, 64),
        *,
        context: int = 0,
        activation: Activation = "relu",
        gain: float = 0.0,
    ):
        super().__init__()
        checked("MADE", features, context, size=size)
        if not hidden or not all(isinstance(width, int) and width > 0 for width in hidden):
            raise ValueError(f"MADE: hidden must be widths of at least 1, got {tuple(hidden)}")
        # One feature alone hears nothing: its parameters are those of a constant context.
        self.blind = features == 1 and context == 0
        context = max(context, int(self.blind))
        self.features, self.size, self.context = features, size, context
        # Degrees -1 (context alone) to D - 2; a feature's own degree is its place.
        lowest = -1 if context else 0
        last = max(features - 2, lowest)
        degrees = [torch.arange(width) * (last - lowest + 1) // width + lowest for width in hidden]
        seen = torch.cat([torch.full((context,), -1), torch.arange(features)])
        layers: list[MaskedDense] = []
        for own in degrees:
            mask = (own[:, None] >= seen[None]).float()
            layers.append(MaskedDense(mask, gain=gain_of(activation)))
            seen = own
        outputs = torch.arange(features).repeat_interleave(size)
        self.layers = nn.ModuleList(layers)
        self.out = MaskedDense((outputs[:, None] > seen[None]).float(), gain=gain)
        self.act = activation_layer(activation)
        self.residual = [False, *(a == b for a, b in pairwise(hidden))]
        # how many units of each layer are known once features up to i are, i = -1 .. D - 1
        self.ends = [[int((own <= i).sum()) for i in range(-1, features)] for own in degrees]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        context = x.new_ones(len(x), 1) if self.blind else context
        h = x if context is None else torch.cat([context, x], 1)
        for layer, adds in zip(self.layers, self.residual):
            new = self.act(layer(h))
            h = h + new if adds else new
        return self.out(h).unflatten(1, (self.features, self.size))

    def unroll(
        self,
        z: Tensor,
        step: Callable[[Tensor, Tensor], Tensor],
        context: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """x_i = step(z_i, parameters of x_1 .. x_i-1), each hidden unit computed once.

        Without slopes and transforms known units lie in one block of memory each layer; with
        them the known parts are put together anew for every feature.

        Shapes: z (B, D), step: (B,), (B, P) -> (B,) -> x (B, D), parameters (B, D, P)
        """
        context = z.new_ones(len(z), 1) if self.blind else context
        plain = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        known = _Block if plain else _Chain
        weights = [layer.weight * layer.mask for layer in self.layers]  # pyright: ignore
        biases = [layer.bias.unsqueeze(1) for layer in self.layers]  # pyright: ignore
        final = self.out.weight * self.out.mask
        columns, rows = z.t(), len(z)
        inputs = known(z, self.context + self.features, rows)
        if context is not None:
            inputs.add(context.t())
        held = [known(z, len(weight), rows) for weight in weights]
        xs, found = [], []
        for i in range(self.features):
            below = inputs  # features before i are known: units of degree i - 1 come next
            for layer, (weight, bias) in enumerate(zip(weights, biases)):
                own, end = held[layer], self.ends[layer][i]
                begin = own.size
                if end > begin:
                    seen = below.read()
                    new = torch.addmm(bias[begin:end], weight[begin:end, : below.size], seen)
                    new = self.act(new)
                    own.add(new + seen[begin:end] if self.residual[layer] else new)
                below = own
            part = slice(i * self.size, (i + 1) * self.size)
            bias = self.out.bias[part].unsqueeze(1)
            parameters = torch.addmm(bias, final[part, : below.size], below.read()).t()
            x = step(columns[i], parameters)
            inputs.add(x.unsqueeze(0))
            xs.append(x)
            found.append(parameters)
        return torch.stack(xs, 1), torch.stack(found, 1)


class _Block:
    """Known rows (N, B) in memory that was taken once."""

    def __init__(self, like: Tensor, most: int, rows: int):
        self.rows, self.size = like.new_empty(most, rows), 0

    def add(self, new: Tensor) -> None:
        self.rows[self.size : self.size + len(new)] = new
        self.size += len(new)

    def read(self) -> Tensor:
        return self.rows[: self.size]


class _Chain:
    """Known rows (N, B), never changed in place: for slopes and transforms."""

    def __init__(self, like: Tensor, most: int, rows: int):
        self.rows, self.size = like.new_empty(0, rows), 0

    def add(self, new: Tensor) -> None:
        self.rows = torch.cat([self.rows, new])
        self.size = len(self.rows)

    def read(self) -> Tensor:
        return self.rows
