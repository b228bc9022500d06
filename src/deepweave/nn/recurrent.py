"""Recurrent layers: torch's weights, names and fused kernels, and a form that vmaps.

A layer here has the parameters of `torch.nn.RNN`, `LSTM` or `GRU` by the same names, so that
weights go both ways. It runs torch's fused kernel, and inside any transform of `torch.func`, where
that kernel has no rule, the loop of `functional.recurrence` with the same numbers.
"""

from __future__ import annotations

from deepweave.blueprint import blueprint
from deepweave.nn.stack import Stack


@blueprint
class RNN(Stack):
    """Plain recurrent layers, h_t = g(W x_t + U h_{t-1} + b); the arguments are those of `LSTM`.

    Args:
        activation: g, ``"tanh"`` or ``"relu"``.

    Shapes: x (B, T, F) or Padded -> (B, T, H), or (B, T, 2H) in both directions; last state
    (layers, B, H)

    Raises:
        ValueError: sizes, rates or an activation that are none; inputs that do not fit.

    Source: Elman, Finding structure in time, 1990.

    >>> import torch
    >>> out, h = RNN(3, 5)(torch.zeros(2, 4, 3))
    >>> out.shape, h.shape
    (torch.Size([2, 4, 5]), torch.Size([1, 2, 5]))
    """

    family = "rnn"

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int = 1,
        *,
        activation: str = "tanh",
        bidirectional: bool = False,
        bias: bool = True,
        dropout: float = 0.0,
        variational: bool = False,
        recurrent_dropout: float = 0.0,
        norm: bool = False,
        zoneout: float = 0.0,
        fused: bool | None = None,
    ):
        if activation not in ("tanh", "relu"):
            raise ValueError(f"RNN: activation must be tanh or relu, got {activation!r}")
        self.kind, self.named = f"rnn_{activation}", f"RNN_{activation.upper()}"
        super().__init__(
            inputs, hidden, layers, bidirectional=bidirectional, bias=bias, dropout=dropout,
            variational=variational, recurrent_dropout=recurrent_dropout, norm=norm,
            zoneout=zoneout, fused=fused,
        )  # fmt: skip


@blueprint
class LSTM(Stack):
    """Long short-term memory layers (`functional.lstm_cell`), with torch's weights and kernel.

    Give it a tensor of whole sequences or a `Padded` batch of ragged ones: then outputs beyond a
    length are zero, the last state is that of the last real step, and the reverse direction starts
    there. Nothing is packed. The weights of `torch.nn.LSTM` load into it, and the other way round
    but for the rates of dropout.

    Args:
        inputs: features of a step.
        hidden: units of each layer.
        layers: how many, one on the other.
        bidirectional: a second layer beside each that reads from the end.
        bias: whether there are biases.
        dropout: between layers, while training.
        variational: one mask of dropout for all steps of a sequence.
        recurrent_dropout: the share of the recurrent weights dropped for a batch (DropConnect);
            it keeps the fused kernel.
        norm: normalise the products and the cell (`functional.layer_norm_lstm_cell`).
        zoneout: the share of units whose state stays as it was at a step.
        memory: how many steps the units should remember at first: forget gates start at spans drawn
            from 1 to it ("chrono"); None: at a bias of 1.
        fused: False: the own loop, which plain autograd can differentiate twice; True: torch's
            kernel; None: torch's kernel, but the own loop inside transforms of `torch.func`, such
            as the `vmap` of a Population, and for GRUs that learn on a CPU, where it is faster.
            `norm` and `zoneout` always take the own loop.

    Shapes: x (B, T, F) or Padded -> (B, T, H), or (B, T, 2H) in both directions; last states
    (h, c), each (layers, B, H), or (2 layers, B, H), both directions of a layer side by side

    Raises:
        ValueError: sizes or rates that are none; inputs that do not fit, empty sequences.

    Source: Hochreiter & Schmidhuber, Long short-term memory, 1997; Gal & Ghahramani, A
    theoretically grounded application of dropout, 2016; Merity et al., Regularizing and optimizing
    LSTM language models, 2018; Krueger et al., Zoneout, 2017; Tallec & Ollivier, Can recurrent
    neural networks warp time?, 2018 (memory).

    >>> import torch
    >>> from deepweave.functional.ragged import Padded
    >>> layer, peer = LSTM(3, 5), torch.nn.LSTM(3, 5, batch_first=True)
    >>> layer.load_state_dict(peer.state_dict())
    <All keys matched successfully>
    >>> out, (h, c) = layer(Padded(torch.zeros(2, 4, 3), torch.tensor([4, 2])))
    >>> out.shape, h.shape, bool(out[1, 2:].any())
    (torch.Size([2, 4, 5]), torch.Size([1, 2, 5]), False)
    """

    family, kind, named = "lstm", "lstm", "LSTM"


@blueprint
class GRU(Stack):
    """Gated recurrent units (`functional.gru_cell`); the arguments are those of `LSTM`.

    Args:
        reset: ``"after"`` the product with the recurrent matrix, as in torch, or ``"before"`` it,
            as in the paper; then there is no fused kernel, and no weights to exchange.

    Shapes: x (B, T, F) or Padded -> (B, T, H), or (B, T, 2H) in both directions; last state
    (layers, B, H)

    Raises:
        ValueError: sizes, rates or a convention that are none; inputs that do not fit.

    Source: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014.

    >>> import torch
    >>> out, h = GRU(3, 5, bidirectional=True)(torch.zeros(2, 4, 3))
    >>> out.shape, h.shape
    (torch.Size([2, 4, 10]), torch.Size([2, 2, 5]))
    """

    family, named = "gru", "GRU"

    def __init__(
        self,
        inputs: int,
        hidden: int,
        layers: int = 1,
        *,
        reset: str = "after",
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
        if reset not in ("after", "before"):
            raise ValueError(f"GRU: reset must be after or before, got {reset!r}")
        self.reset, self.own_only = reset, reset == "before"
        self.kind = "gru" if reset == "after" else "gru_before"
        super().__init__(
            inputs, hidden, layers, bidirectional=bidirectional, bias=bias, dropout=dropout,
            variational=variational, recurrent_dropout=recurrent_dropout, norm=norm,
            zoneout=zoneout, memory=memory, fused=fused,
        )  # fmt: skip
