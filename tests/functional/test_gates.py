from __future__ import annotations

import pytest
import torch
from torch import nn

from deepweave import functional as f

FINE = {"dtype": torch.float64}


def draw(kind, size=5, features=3, batch=4):
    """A cell of torch with its weights, an input and a state."""
    torch.manual_seed(1)
    cell = {"rnn": nn.RNNCell, "lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](features, size, **FINE)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.normal_()
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    return cell, weights, torch.randn(batch, features, **FINE), torch.randn(batch, size, **FINE)


def near(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_rnn_cell_is_torchs(activation):
    cell, weights, x, h = draw("rnn")
    cell.nonlinearity = activation
    near(f.rnn_cell(x, h, *weights, activation=activation), cell(x, h))
    bare = f.rnn_cell(x, h, *weights[:2], activation=activation)
    near(bare, getattr(torch, activation)(x @ weights[0].T + h @ weights[1].T))


def test_lstm_cell_is_torchs():
    cell, weights, x, h = draw("lstm")
    c = torch.randn_like(h)
    for a, b in zip(f.lstm_cell(x, (h, c), *weights), cell(x, (h, c))):
        near(a, b)


def test_gru_cell_is_torchs():
    cell, weights, x, h = draw("gru")
    near(f.gru_cell(x, h, *weights), cell(x, h))


def written(x, h, w, u, b, d, reset, update):
    """The GRU as the papers and notes write it, one matrix per gate."""
    w, u, b, d = (f.split_gates(part, "gru") for part in (w, u, b, d))

    def gate(name):
        return (x @ w[name].T + b[name] + h @ u[name].T + d[name]).sigmoid()

    r, z, n = gate("reset"), gate("update"), "candidate"
    if reset == "after":
        back = r * (h @ u[n].T + d[n])
    else:
        back = (r * h) @ u[n].T + d[n]
    new = (x @ w[n].T + b[n] + back).tanh()
    return z * h + (1 - z) * new if update == "old" else (1 - z) * h + z * new


@pytest.mark.parametrize("reset", ["after", "before"])
@pytest.mark.parametrize("update", ["old", "new"])
def test_gru_conventions(reset, update):
    _, weights, x, h = draw("gru")
    found = f.gru_cell(x, h, *weights, reset=reset, update=update)
    near(found, written(x, h, *weights, reset, update))
    other = {"old": "new", "new": "old"}[update]
    near(
        f.gru_cell(x, h, *map(f.flip_update, weights), reset=reset, update=other),
        found,
    )
    assert (f.gru_cell(x, h, *weights, reset=reset, update=other) - found).abs().max() > 0.1


def test_the_two_resets_differ_but_for_a_diagonal_matrix():
    _, weights, x, h = draw("gru")
    weights[3] = torch.zeros_like(weights[3])
    one, two = (f.gru_cell(x, h, *weights, reset=reset) for reset in ("after", "before"))
    assert (one - two).abs().max() > 0.1
    parts = f.split_gates(weights[1], "gru")
    weights[1] = f.join_gates({**parts, "candidate": parts["candidate"].diag().diag()}, "gru")
    near(*(f.gru_cell(x, h, *weights, reset=reset) for reset in ("after", "before")))


def test_layer_norm_lstm_cell_by_hand():
    _, (w, u, b, d), x, h = draw("lstm")
    c = torch.randn_like(h)
    g1, g2, g3, b3 = (torch.randn(n, **FINE) for n in (20, 20, 5, 5))

    def norm(v):
        return (v - v.mean(1, keepdim=True)) / (v.var(1, correction=0, keepdim=True) + 1e-5).sqrt()

    i, forget, g, o = (g1 * norm(x @ w.T) + b + g2 * norm(h @ u.T) + d).chunk(4, 1)
    cell = forget.sigmoid() * c + i.sigmoid() * g.tanh()
    shown = o.sigmoid() * (g3 * norm(cell) + b3).tanh()
    found = f.layer_norm_lstm_cell(x, (h, c), w, u, b, d, (g1, g2, g3), b3)
    near(found[0], shown)
    near(found[1], cell)


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_gates_apart_and_together(kind):
    _, weights, *_ = draw(kind)
    for weight in weights:
        parts = f.split_gates(weight, kind)
        assert torch.equal(f.join_gates(dict(reversed(parts.items())), kind), weight)
    assert f.split_gates(weights[0], kind)[next(iter(parts))].data_ptr() == weights[0].data_ptr()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: f.gru_cell(torch.ones(2, 3), torch.ones(2, 5), *w, reset="never"),
         "gru_cell: reset must be after or before, got 'never'"),
        (lambda w: f.gru_cell(torch.ones(2, 3), torch.ones(2, 5), *w, update="z"),
         "gru_cell: update must be old or new, got 'z'"),
        (lambda w: f.gru_cell(torch.ones(2, 3), torch.ones(4, 5), *w),
         r"gru_cell: x and h must be of one batch, got \(2, 3\) and \(4, 5\)"),
        (lambda w: f.gru_cell(torch.ones(2, 4), torch.ones(2, 5), *w),
         r"gru_cell: weight_ih must be \(15, 4\), got \(15, 3\)"),
        (lambda w: f.lstm_cell(torch.ones(2, 3), (torch.ones(2, 5),) * 2, *w),
         r"lstm_cell: weight_ih must be \(20, 3\), got \(15, 3\)"),
        (lambda w: f.rnn_cell(torch.ones(2, 3), torch.ones(2, 15), *w, activation="sin"),
         "rnn_cell: activation must be tanh or relu, got 'sin'"),
        (lambda w: f.split_gates(torch.ones(4), "gru"), "rows of a gru must divide by 3"),
        (lambda w: f.split_gates(torch.ones(4), "qrnn"), "kind must be one of rnn, lstm, gru"),
        (lambda w: f.join_gates({"reset": w[0]}, "gru"), "join_gates: a gru has the gates"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(draw("gru")[1])
