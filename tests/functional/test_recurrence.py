"""The loop written out against the plain one: numbers, slopes, their slopes, every transform."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.func import grad, jacfwd, jacrev, vmap

from deepweave.functional import gru_cell, lstm_cell, rnn_cell, unroll
from deepweave.functional.recurrence import COUNTS, plain

KINDS = tuple(COUNTS)
MEMBERS = 3


def tensors(kind, batch=2, steps=4, features=3, size=5):
    """x, state, weights and biases of a layer."""
    torch.manual_seed(0)
    rows, starts = COUNTS[kind] * size, 2 if kind == "lstm" else 1
    shapes = [(batch, steps, features), *[(batch, size)] * starts]
    shapes += [(rows, features), (rows, size), (rows,), (rows,)]
    return [(0.7 * torch.randn(shape, dtype=torch.float64)).requires_grad_() for shape in shapes]


def fast(kind):
    """The public function as one of tensors alone: outputs, and the last cell of an LSTM."""

    def run(*given):
        starts = 2 if kind == "lstm" else 1
        out, state = unroll(kind, given[0], given[1 : 1 + starts], *given[1 + starts :])
        return out, *state[1:]

    return run


def loss(function, *given):
    return sum(one.sin().sum() for one in function(*given))


def near(found, expected, tolerance=1e-10):
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_cells(kind):
    given = tensors(kind)
    x, h, *rest = given
    cell = {"lstm": lstm_cell, "gru": gru_cell, "gru_before": partial(gru_cell, reset="before"),
            "rnn_relu": partial(rnn_cell, activation="relu")}.get(kind, rnn_cell)  # fmt: skip
    state = (h, rest.pop(0)) if kind == "lstm" else h
    outputs = []
    for t in range(x.shape[1]):
        state = cell(x[:, t], state, *rest)
        outputs.append(state[0] if kind == "lstm" else state)
    expected = (
        [torch.stack(outputs, 1), *state[1:]] if kind == "lstm" else [torch.stack(outputs, 1)]
    )
    near(fast(kind)(*given), expected, 1e-12)
    near(plain(kind, *given), expected, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_and_slopes_of_slopes(kind):
    given = tensors(kind)
    every = tuple(range(len(given)))
    near(
        torch.autograd.grad(loss(fast(kind), *given), given),
        torch.autograd.grad(loss(partial(plain, kind), *given), given),
        1e-12,
    )
    assert torch.autograd.gradcheck(fast(kind), given)
    if kind != "rnn_relu":  # its second differences fall on kinks
        assert torch.autograd.gradgradcheck(fast(kind), given)

    def twice(function, *given):
        slopes = grad(partial(loss, function), every)(*given)
        return sum(one.cos().sum() for one in slopes)

    found, expected = (
        grad(partial(twice, one), every)(*given) for one in (fast(kind), partial(plain, kind))
    )
    near(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["all", "weights", "inputs", "inputs in the second dimension"])
def test_mapped_is_the_loop(kind, where):
    given = [one.detach() for one in tensors(kind)]
    starts = 3 if kind == "lstm" else 2
    many = [one + 0.3 * torch.randn(MEMBERS, *one.shape, dtype=one.dtype) for one in given]
    mapped = {"all": lambda i: True, "weights": lambda i: i >= starts}.get(where, lambda i: i == 0)
    dims = tuple(0 if mapped(i) else None for i in range(len(given)))
    args = [b if d == 0 else a for a, b, d in zip(given, many, dims)]
    each = [[b[i] if d == 0 else a for a, b, d in zip(given, many, dims)] for i in range(MEMBERS)]
    if where.endswith("dimension"):
        args[0], dims = args[0].movedim(0, 1), (1, *dims[1:])
    every = tuple(range(len(given)))

    def slopes(function):
        return grad(partial(loss, function), every)

    def curves(function):
        return grad(lambda *g: sum(one.cos().sum() for one in slopes(function)(*g)), every)

    for change in (lambda f: f, slopes, curves):
        found = vmap(change(fast(kind)), dims)(*args)
        expected = zip(*[change(partial(plain, kind))(*one) for one in each])
        near(found, [torch.stack(parts) for parts in expected])


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_through_a_mapped_forward(kind):
    """As a Population takes them, and mapped twice."""
    given = [one.detach() for one in tensors(kind)]
    many = [one + 0.3 * torch.randn(MEMBERS, *one.shape, dtype=one.dtype) for one in given]
    every = tuple(range(len(given)))
    found, expected = (
        grad(partial(loss, vmap(one)), every)(*many) for one in (fast(kind), partial(plain, kind))
    )
    near(found, expected)
    shared = [given[0], *many[1:]]
    dims = (None, *[0] * (len(given) - 1))
    found, expected = (
        grad(partial(loss, vmap(one, dims)), every)(*shared)
        for one in (fast(kind), partial(plain, kind))
    )
    near(found, expected)
    twice = [torch.stack([one, 1.1 * one]) for one in many]
    near(vmap(vmap(fast(kind)))(*twice), vmap(vmap(partial(plain, kind)))(*twice))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # within jacfwd itself
@pytest.mark.parametrize("kind", KINDS)
def test_jacobians(kind):
    given = [one.detach() for one in tensors(kind)]

    def of(x):
        return fast(kind)(x, *given[1:])[0]

    forward, back = jacfwd(of)(given[0]), jacrev(of)(given[0])
    near([forward], [back], 1e-12)
    rows = torch.autograd.functional.jacobian(of, given[0], vectorize=True)  # batched slopes
    near([rows], [back], 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_stands_still_beyond_its_length(kind):
    given = tensors(kind, batch=3, steps=6)
    lengths = torch.tensor([6, 2, 4])
    starts = 2 if kind == "lstm" else 1
    x, state, weights = given[0], given[1 : 1 + starts], given[1 + starts :]
    _, last = unroll(kind, x, state, *weights, lengths=lengths)
    held = plain(kind, *given, lengths=lengths)
    near([last[0], *last[1:]], [held[0][:, -1], *held[1:]], 1e-12)
    for i, length in enumerate(lengths):
        own = [one[i : i + 1] for one in state]
        _, alone = unroll(kind, x[i : i + 1, :length], own, *weights)
        near([one[i : i + 1] for one in last], alone, 1e-12)
    slopes = torch.autograd.grad(sum(one.sin().sum() for one in last), given)
    assert not slopes[0][1, 2:].any(), "what is beyond a length has no slope"
    held = torch.autograd.grad(
        sum(one.sin().sum() for one in (plain(kind, *given, lengths=lengths)[0][:, -1],
                                        *plain(kind, *given, lengths=lengths)[1:])), given
    )  # fmt: skip
    near(slopes, held, 1e-12)


def test_autocast_runs_in_the_precision_of_the_weights():
    given = [one.detach().float() for one in tensors("lstm")]
    with torch.autocast("cpu", torch.bfloat16):
        out, (h, c) = unroll("lstm", given[0].bfloat16(), given[1:3], *given[3:])
    assert out.dtype == h.dtype == c.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: ("elman", g[0], g[1:3], *g[3:]), "kind must be one of rnn_tanh"),
        (lambda g: ("lstm", g[0][0], g[1:3], *g[3:]), r"x must be \(B, T, 3\)"),
        (lambda g: ("gru", g[0], g[1:2], *g[3:]), r"weight_ih \(15, F\), got .* \(20, 3\)"),
        (lambda g: ("lstm", g[0], g[1:3], g[3], g[4][:8]), r"weight_hh must be \(20, 5\)"),
    ],
)
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        unroll(*change(tensors("lstm")))
