"""Networks that read a sequence step by step and say something of it, or of each of its steps."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.ragged import Padded, unpad, within
from deepweave.functional.reduction import looking
from deepweave.nn.dense import Dense, sizes_of, vocabulary_of
from deepweave.nn.dropout import Dropout
from deepweave.nn.recurrent import GRU, LSTM, RNN
from deepweave.nn.stack import Stack

READINGS = ("last", "mean", "max")


@blueprint
class Reader(nn.Module):
    """A recurrent network with a dense layer on what it has read.

    Tokens are embedded first, number 0 (padding) as zero. ``rnn``, ``lstm`` and ``gru`` make it.

    Args:
        layer: the recurrent layers.
        outputs: of the network, for a sequence or, with ``each``, for a step.
        vocabulary: how many tokens there are; None: the inputs are numbers.
        read: what the dense layer sees: the ``"last"`` state (in both directions that of each at
            its own end), or the ``"mean"`` or ``"max"`` of the outputs over the real steps.
        each: an output for every step; zero beyond a length.
        dropout: of what the dense layer sees, while training.
        tied: the dense layer's weights are those of the embedding.
        centre: take the mean of each sequence over its real steps off its numbers first, as one
            does with recordings (cepstral mean normalisation).

    Shapes: x (B, T, F), (B, T) tokens, or Padded of them -> (B, outputs), or (B, T, outputs)

    Raises:
        ValueError: an unknown reading, or tied weights that do not fit.
    """

    def __init__(
        self,
        layer: Stack,
        outputs: int,
        vocabulary: int | None = None,
        *,
        read: str = "last",
        each: bool = False,
        dropout: float = 0.0,
        tied: bool = False,
        centre: bool = False,
    ):
        super().__init__()
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        if read not in READINGS:
            raise ValueError(f"Reader: read must be one of {', '.join(READINGS)}, got {read!r}")
        if tied and (vocabulary != outputs or layer.input_size != width):
            raise ValueError(
                "Reader: tied weights need as many outputs as tokens, and embeddings as wide as "
                f"the output, got {outputs} of {vocabulary} and {layer.input_size} of {width}"
            )
        if centre and vocabulary is not None:
            raise ValueError("Reader: tokens have no mean to take off")
        self.vocabulary, self.read, self.each, self.tied = vocabulary, read, each, tied
        self.centre = centre
        self.embedding = None
        if vocabulary is not None:
            self.embedding = Embedding(vocabulary, layer.input_size)
        self.layer = layer
        self.drop = Dropout(dropout) if dropout else None
        self.head = None if tied else Dense(width, outputs, gain=1.0)
        self.bias = nn.Parameter(torch.zeros(outputs)) if tied else None

    def forward(self, x: Tensor | Padded) -> Tensor:
        whole = self.inputs(x)
        lengths = whole.lengths if isinstance(whole, Padded) else None
        out, last = self.layer(whole)
        if not self.each:
            out = self._read(out, last, lengths)
        if self.drop is not None:
            out = self.drop(out)
        if self.embedding is not None and self.tied:
            out = F.linear(out, self.embedding.weight, self.bias)
        elif self.head is not None:
            out = self.head(out)
        if self.each and lengths is not None:
            out = out.masked_fill(~within(lengths, out.shape[1]).unsqueeze(2), 0.0)
        return out

    def inputs(self, x: Tensor | Padded) -> Tensor | Padded:
        """What the recurrent layers get: embedded tokens, or numbers, centred if asked for."""
        values, lengths = unpad(x, type(self.layer).__name__.lower())
        if self.embedding is not None:
            values = self.embedding(values)
        elif self.centre:
            values = _centred(values, lengths)
        return values if lengths is None else Padded(values, lengths)

    def _read(self, out: Tensor, last: Any, lengths: Tensor | None) -> Tensor:
        """One vector of a whole sequence. Shapes: out (B, T, D) -> (B, D)"""
        if self.read == "last":
            h = last[0] if isinstance(last, tuple) else last
            return torch.cat([h[-2], h[-1]], 1) if self.layer.bidirectional else h[-1]
        if self.read == "mean":
            return _mean(out, lengths)
        if lengths is not None:
            real = within(lengths, out.shape[1]).unsqueeze(2)
            out = out.masked_fill(~real, -torch.inf)
        return out.amax(1)


def _mean(values: Tensor, lengths: Tensor | None) -> Tensor:
    """Over the real steps of what is zero beyond. Shapes: (B, T, D), (B,) -> (B, D)"""
    count = values.shape[1] if lengths is None else lengths.unsqueeze(1).to(values.dtype)
    return values.sum(1) / count


def _centred(values: Tensor, lengths: Tensor | None) -> Tensor:
    if lengths is None:
        return values - values.mean(1, keepdim=True)
    beyond = ~within(lengths, values.shape[1]).unsqueeze(2)
    values = values.masked_fill(beyond, 0.0)
    return (values - _mean(values, lengths).unsqueeze(1)).masked_fill(beyond, 0.0)


class Embedding(nn.Embedding):
    """A vector per token, drawn with standard deviation ``std``; that of 0, padding, stays zero.

    Shapes: tokens (B, T) int64 -> (B, T, features)

    Raises:
        ValueError: inputs that are not tokens of the vocabulary.

    >>> Embedding(10, 3)(torch.tensor([[4, 0]]))[0, 1].tolist()
    [0.0, 0.0, 0.0]
    """

    def __init__(self, vocabulary: int, features: int, *, std: float = 1.0):
        self.std = std
        super().__init__(vocabulary, features, padding_idx=0)

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.std)
        self._fill_padding_idx_with_zero()

    def forward(self, input: Tensor) -> Tensor:
        tokens = input
        if tokens.is_floating_point() or tokens.dim() != 2:
            raise ValueError(
                f"embedding: tokens must be (B, T) of int64, got {tokens.dtype} "
                f"{tuple(tokens.shape)}"
            )
        if looking(tokens) and tokens.numel():
            low, high = (int(end) for end in torch.aminmax(tokens))
            if low < 0 or high >= self.num_embeddings:
                raise ValueError(
                    f"embedding: tokens must lie in 0..{self.num_embeddings - 1}, got {low}..{high}"
                )
        return super().forward(tokens)


def sequence_sizes(sizes: Any, name: str) -> tuple[int | None, int, int | None]:
    """Features of a step, outputs and vocabulary, from a spec or a tuple.

    Features are None for tokens, the vocabulary None for numbers.

    Raises:
        TypeError: neither a spec nor ((T, F), outputs) nor ((T,), outputs, vocabulary).
        ValueError: a size below 1, or no sequence.
    """
    shape, outputs = sizes_of(sizes, name)
    vocabulary = vocabulary_of(sizes)
    if len(shape) != (1 if vocabulary else 2):
        told = "(T,) of tokens" if vocabulary else "(T, F), or (T,) with a vocabulary"
        raise ValueError(f"{name}: a sequence must be {told}, got {shape}")
    return (None if vocabulary else shape[-1]), outputs, vocabulary or None


@blueprint
def rnn(
    sizes: Any,
    hidden: int = 64,
    layers: int = 1,
    *,
    read: str = "last",
    each: bool = False,
    embedding: int | None = None,
    tied: bool = False,
    centre: bool = False,
    activation: str = "tanh",
    bidirectional: bool = False,
    dropout: float = 0.0,
    variational: bool = False,
    recurrent_dropout: float = 0.0,
    norm: bool = False,
    zoneout: float = 0.0,
    fused: bool | None = None,
) -> Reader:
    """A plain recurrent network over sequences or tokens; the arguments are those of `lstm`.

    Args:
        activation: ``"tanh"`` or ``"relu"``.

    Shapes: x (B, T, F), (B, T) tokens, or Padded of them -> (B, outputs), or (B, T, outputs)

    Raises:
        TypeError, ValueError: sizes, names or rates that are none.

    >>> rnn(((20, 3), 2))(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 2])
    """
    inputs, outputs, vocabulary = sequence_sizes(sizes, "rnn")
    layer = RNN(
        inputs or embedding or hidden, hidden, layers, activation=activation,
        bidirectional=bidirectional, dropout=dropout, variational=variational,
        recurrent_dropout=recurrent_dropout, norm=norm, zoneout=zoneout, fused=fused,
    )  # fmt: skip
    return Reader(
        layer, outputs, vocabulary,
        read=read, each=each, dropout=dropout, tied=tied, centre=centre,
    )  # fmt: skip


@blueprint
def lstm(
    sizes: Any,
    hidden: int = 64,
    layers: int = 1,
    *,
    read: str = "last",
    each: bool = False,
    embedding: int | None = None,
    tied: bool = False,
    centre: bool = False,
    bidirectional: bool = False,
    dropout: float = 0.0,
    variational: bool = False,
    recurrent_dropout: float = 0.0,
    norm: bool = False,
    zoneout: float = 0.0,
    memory: int | None = None,
    fused: bool | None = None,
) -> Reader:
    """Long short-term memory over sequences or tokens, and a dense layer on what it has read.

    Args:
        sizes: a data spec, ((T, F), outputs), or ((T,), outputs, vocabulary) for tokens.
        hidden: units of each layer.
        layers: how many, one on the other.
        read: of the whole sequence the ``"last"`` state, or the ``"mean"`` or ``"max"`` of the
            outputs over its real steps.
        each: an output for every step instead.
        embedding: the width of a token's vector; None: ``hidden``.
        tied: the dense layer's weights are the embedding's.
        centre: take each sequence's mean over time off its numbers first.
        bidirectional: read from both ends.
        dropout: between layers and before the dense layer, while training.
        variational, recurrent_dropout, norm, zoneout, memory, fused: as in `nn.LSTM`.

    Shapes: x (B, T, F), (B, T) tokens, or Padded of them -> (B, outputs), or (B, T, outputs)

    Raises:
        TypeError, ValueError: sizes, names or rates that are none.

    >>> from deepweave.functional.ragged import pad
    >>> net = lstm(((20,), 4, 100), hidden=8, each=True)  # four classes for each of 100 tokens
    >>> net(pad([torch.tensor([5, 6, 7]), torch.tensor([8])])).shape
    torch.Size([2, 3, 4])
    """
    inputs, outputs, vocabulary = sequence_sizes(sizes, "lstm")
    layer = LSTM(
        inputs or embedding or hidden, hidden, layers, bidirectional=bidirectional,
        dropout=dropout, variational=variational, recurrent_dropout=recurrent_dropout, norm=norm,
        zoneout=zoneout, memory=memory, fused=fused,
    )  # fmt: skip
    return Reader(
        layer, outputs, vocabulary,
        read=read, each=each, dropout=dropout, tied=tied, centre=centre,
    )  # fmt: skip


@blueprint
def gru(
    sizes: Any,
    hidden: int = 64,
    layers: int = 1,
    *,
    read: str = "last",
    each: bool = False,
    embedding: int | None = None,
    tied: bool = False,
    centre: bool = False,
    reset: str = "after",
    bidirectional: bool = False,
    dropout: float = 0.0,
    variational: bool = False,
    recurrent_dropout: float = 0.0,
    norm: bool = False,
    zoneout: float = 0.0,
    memory: int | None = None,
    fused: bool | None = None,
) -> Reader:
    """Gated recurrent units over sequences or tokens; the arguments are those of `lstm`.

    Args:
        reset: ``"after"`` the recurrent product, as in torch, or ``"before"`` it.

    Shapes: x (B, T, F), (B, T) tokens, or Padded of them -> (B, outputs), or (B, T, outputs)

    Raises:
        TypeError, ValueError: sizes, names or rates that are none.

    >>> gru(((20, 3), 2), bidirectional=True, read="mean")(torch.zeros(5, 7, 3)).shape
    torch.Size([5, 2])
    """
    inputs, outputs, vocabulary = sequence_sizes(sizes, "gru")
    layer = GRU(
        inputs or embedding or hidden, hidden, layers, reset=reset, bidirectional=bidirectional,
        dropout=dropout, variational=variational, recurrent_dropout=recurrent_dropout, norm=norm,
        zoneout=zoneout, memory=memory, fused=fused,
    )  # fmt: skip
    return Reader(
        layer, outputs, vocabulary,
        read=read, each=each, dropout=dropout, tied=tied, centre=centre,
    )  # fmt: skip
