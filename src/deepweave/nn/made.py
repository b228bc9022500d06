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

TOGETHER = 16  # features whose products with what is known before them are taken at once


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
        # how many units of each layer are known as soon as the features before i are
        self.counts = [[int((own == i - 1).sum()) for i in range(features)] for own in degrees]

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
    ) -> Tensor:
        """x_i = step(z_i, parameters of x_1 .. x_i-1), each hidden unit computed once.

        What is known speaks to the next few features in one product, and what they add among
        themselves comes one by one, so that memory is read once for all of them. Without slopes and
        transforms known units lie in one block of memory each layer; with them the known parts are
        put together anew for every feature.

        Shapes: z (B, D), step: (B,), (B, P) -> (B,) -> x (B, D)
        """
        context = z.new_ones(len(z), 1) if self.blind else context
        plain = not torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()
        known, act = _Block if plain else _Chain, self.act
        inputs = known(z, [self.context] + [1] * self.features)
        if context is not None:
            inputs.add(context.t(), self.context)
        held = [known(z, counts) for counts in self.counts]
        sources = [inputs, *held]
        every = [*self.counts, [self.size] * self.features]
        parts = [
            _Part(layer, counts, source)
            for layer, counts, source in zip([*self.layers, self.out], every, sources)
        ]
        layers, final, new = list(zip(held, parts, self.counts, self.residual)), parts[-1], z
        for i, one in enumerate(z.t().contiguous().unbind()):
            if i % TOGETHER == 0:
                for part in parts:
                    part.begin(i)
            for own, part, counts, adds in layers:  # units of degree i - 1 come next
                if counts[i]:
                    out = act(part.of(i))
                    new = out + new if adds else out  # layers of one width have units in step
                    own.add(new, counts[i])
            inputs.add(step(one, final.of(i).t()).unsqueeze(0), 1)
        return inputs.since(self.context).t().contiguous()


class _Part:
    """A layer in :meth:`MADE.unroll`: what it says of one feature after the other."""

    def __init__(self, layer: nn.Module, counts: Sequence[int], source: _Block | _Chain):
        self.weight: Tensor = layer.weight * layer.mask  # pyright: ignore
        self.bias: Tensor = layer.bias.unsqueeze(1)  # pyright: ignore
        self.rows, self.counts, self.source = self.weight.split(counts), counts, source
        self.done = self.first = self.seen = 0
        self.bases: Sequence[Tensor] = ()

    def begin(self, i: int) -> None:
        """What is known says to the next features, in one product."""
        self.first, self.seen = i, self.source.size
        counts = self.counts[i : i + TOGETHER]
        weight = self.weight.narrow(0, self.done, sum(counts)).narrow(1, 0, self.seen)
        bias = self.bias.narrow(0, self.done, sum(counts))
        self.bases = torch.addmm(bias, weight, self.source.since(0)).split(counts)
        self.done += sum(counts)

    def of(self, i: int) -> Tensor:
        """All that is known says of feature i, (n, B)."""
        base, fresh = self.bases[i - self.first], self.source.size - self.seen
        if not fresh:
            return base
        weight = self.rows[i].narrow(1, self.seen, fresh)
        return torch.addmm(base, weight, self.source.since(self.seen))


class _Block:
    """Known rows (N, B) in memory that was taken once; they come in parts of the counts."""

    def __init__(self, like: Tensor, counts: Sequence[int]):
        self.rows, self.size = like.new_empty(sum(counts), len(like)), 0
        self.parts = iter(self.rows.split([count for count in counts if count]))

    def add(self, new: Tensor, count: int) -> None:
        next(self.parts).copy_(new)
        self.size += count

    def since(self, first: int) -> Tensor:
        return self.rows.narrow(0, first, self.size - first)


class _Chain:
    """Known rows (N, B), never changed in place: for slopes and transforms."""

    def __init__(self, like: Tensor, counts: Sequence[int]):
        self.rows, self.size = like.new_empty(0, len(like)), 0

    def add(self, new: Tensor, count: int) -> None:
        self.rows = torch.cat([self.rows, new])
        self.size += count

    def since(self, first: int) -> Tensor:
        return self.rows.narrow(0, first, self.size - first)
