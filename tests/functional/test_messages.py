"""Messages along edges: against dense formulas, slopes to the second order, members at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.func import grad, vmap

from deepweave.functional import bags, messages
from deepweave.functional.graph import Graph, graph


def drawn(nodes: int = 7, edges: int = 15, seed: int = 0, **options) -> Graph:
    """A directed graph in float64 with loops, edges given twice and nodes without any."""
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(0, max(1, nodes - 1), (2, edges), generator=random)
    weight = torch.rand(edges, generator=random, dtype=torch.float64) + 0.1
    x = torch.randn(nodes, 3, generator=random, dtype=torch.float64)
    return graph(ends, x, "nodes", directed=True, **{"weight": weight, **options})


def dense(g: Graph, weight: torch.Tensor | None) -> torch.Tensor:
    """A[i, j]: the sum of the weights of the edges from j to i."""
    found = torch.zeros(g.nodes, g.nodes, dtype=torch.float64)
    values = torch.ones(len(g.source), dtype=torch.float64) if weight is None else weight
    return found.index_put((g.target, g.source), values, accumulate=True)


def by_hand(g: Graph, how: str) -> torch.Tensor:
    a, x = dense(g, g.weight), g.x
    if how == "sum":
        return a @ x
    if how == "mean":
        return a @ x / a.sum(1, keepdim=True).where(a.sum(1, keepdim=True) > 0, torch.tensor(1.0))
    if how == "gcn":
        root = (a.sum(1) + 1).rsqrt()
        return root[:, None] * ((a + torch.eye(g.nodes)) @ (root[:, None] * x))
    rows = [x[g.source[g.target == i]] for i in range(g.nodes)]
    return torch.stack([r.amax(0) if len(r) else torch.zeros(3, dtype=x.dtype) for r in rows])


@pytest.mark.parametrize("how", ["sum", "mean", "gcn", "max"])
@pytest.mark.parametrize("weighted", [True, False])
def test_aggregate(how, weighted):
    g = drawn() if weighted else drawn(weight=None)
    torch.testing.assert_close(messages.aggregate(g, g.x, how), by_hand(g, how))
    many = torch.stack([g.x, 2 * g.x], 1)  # (N, 2, F)
    torch.testing.assert_close(
        messages.aggregate(g, many, how)[:, 1], messages.aggregate(g, 2 * g.x, how)
    )


@pytest.mark.parametrize("how", ["sum", "mean", "gcn", "max"])
def test_aggregate_slopes(how):
    g = drawn()
    x = g.x.clone().requires_grad_()
    torch.autograd.gradcheck(lambda t: messages.aggregate(g, t, how), (x,))
    torch.autograd.gradgradcheck(lambda t: messages.aggregate(g, t.tanh(), how), (x,))


@pytest.mark.parametrize("small", [1 << 18, 0], ids=["gathered", "head by head"])
@pytest.mark.parametrize("chunk", [1 << 20, 1])
def test_attend_and_dots(small, chunk, monkeypatch):
    monkeypatch.setattr(bags, "SMALL", small)
    monkeypatch.setattr(bags, "CHUNK", chunk)
    g = drawn()
    random = torch.Generator().manual_seed(1)
    x = torch.randn(g.nodes, 2, 3, generator=random, dtype=torch.float64, requires_grad=True)
    q = torch.randn(g.nodes, 2, 3, generator=random, dtype=torch.float64, requires_grad=True)
    p = torch.randn(len(g.source), 2, generator=random, dtype=torch.float64, requires_grad=True)
    byhand = torch.stack([dense(g, p[:, h]) @ x[:, h] for h in range(2)], 1)
    torch.testing.assert_close(messages.attend(g, p, x), byhand)
    dots = (q[g.target] * x[g.source]).sum(-1)
    torch.testing.assert_close(messages.edge_dots(g, q, x), dots)
    for function, inputs in ((messages.attend, (p, x)), (messages.edge_dots, (q, x))):
        torch.autograd.gradcheck(lambda *t, f=function: f(g, *t), inputs)
        torch.autograd.gradgradcheck(lambda *t, f=function: f(g, *t), inputs)
    torch.testing.assert_close(messages.attend(g, p[:, :1], x[:, :1])[:, 0], byhand[:, 0])


def test_ends():
    g = drawn()
    x = g.x.clone().requires_grad_()
    assert torch.equal(messages.at_source(g, x), x[g.source])
    assert torch.equal(messages.at_target(g, x), x[g.target])
    for function in (messages.at_source, messages.at_target):
        torch.autograd.gradcheck(lambda t, f=function: f(g, t), (x,))
        torch.autograd.gradgradcheck(lambda t, f=function: f(g, t.tanh()), (x,))


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_segments(sizes, seed):
    values = torch.randn(sum(sizes), 2, generator=torch.Generator().manual_seed(seed)).double()
    pointers = torch.tensor([0, *torch.tensor(sizes).cumsum(0).tolist()])
    parts = values.split(sizes)
    zero = torch.zeros(2, dtype=torch.float64)
    for function, one in (
        (messages.segment_sum, lambda p: p.sum(0)),
        (messages.segment_mean, lambda p: p.mean(0)),
        (messages.segment_max, lambda p: p.amax(0)),
    ):
        expected = torch.stack([one(part) if len(part) else zero for part in parts])
        torch.testing.assert_close(function(values, pointers), expected)
    soft = messages.segment_softmax(values, pointers)
    torch.testing.assert_close(soft, torch.cat([part.softmax(0) for part in parts]))


def test_segment_slopes():
    values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    pointers = torch.tensor([0, 2, 2, 3, 6])
    for function in (
        messages.segment_sum, messages.segment_mean, messages.segment_max, messages.segment_softmax
    ):  # fmt: skip
        torch.autograd.gradcheck(lambda t, f=function: f(t, pointers), (values,))
        torch.autograd.gradgradcheck(lambda t, f=function: f(t.tanh(), pointers), (values,))


def test_extreme_scores():
    scores = torch.tensor([1e4, -1e4, -1e4, -2e4], requires_grad=True)
    found = messages.segment_softmax(scores, torch.tensor([0, 2, 4]))
    assert found.tolist() == [1, 0, 1, 0]
    found.square().sum().backward()
    assert scores.grad.isfinite().all()
    tied = torch.ones(3, requires_grad=True)
    messages.segment_max(tied, torch.tensor([0, 2, 3])).sum().backward()
    assert tied.grad.tolist() == [0.5, 0.5, 1]


@pytest.mark.parametrize(
    "function",
    [
        *[lambda g, x, how=how: messages.aggregate(g, x, how) for how in ("mean", "gcn", "max")],
        lambda g, x: messages.attend(g, messages.segment_softmax(
            messages.edge_dots(g, x, x.sin()), g.rows, g.target), x),
        lambda g, x: messages.attend(g, g.edge[:, 0], x),
        lambda g, x: messages.by_type(g, x, 2).flatten(1),
    ],
    ids=["mean", "gcn", "max", "attention", "shares without members", "types"],
)  # fmt: skip
def test_members(function):
    """vmap equals the loop, forwards and back, also of slopes taken inside."""
    random = torch.Generator().manual_seed(3)
    edge = torch.rand(15, 1, generator=random, dtype=torch.float64)
    g = drawn(edge=edge, edge_type=torch.randint(0, 2, (15,), generator=random))
    many = torch.randn(4, g.nodes, 3, generator=random, dtype=torch.float64, requires_grad=True)
    found = vmap(lambda x: function(g, x))(many)
    alone = torch.stack([function(g, x) for x in many])
    torch.testing.assert_close(found, alone)
    slopes = torch.autograd.grad(found.square().sum(), many)[0]
    torch.testing.assert_close(slopes, torch.autograd.grad(alone.square().sum(), many)[0])
    inside = vmap(grad(lambda x: function(g, x).square().sum()))(many.detach())
    torch.testing.assert_close(inside, slopes)


def test_members_share_the_graph():
    g = drawn()
    with pytest.raises(ValueError, match="members must share the graph"):
        vmap(lambda r: messages.segment_sum(g.x, r, g.member))(torch.stack([g.starts] * 2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: messages.aggregate(g, g.x, "most"), "how must be sum, mean, max or gcn"),
        (lambda g: messages.aggregate(g, g.x[1:]), r"aggregate: x must be \(7, ...\), got \(6, 3"),
        (lambda g: messages.by_type(g, g.x, 2), "by_type: the edges of this graph have no types"),
        (lambda g: messages.by_type(g._replace(edge_type=g.target), g.x, 2),
         r"by_type: edge types must lie in 0..1, got [2-6]"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(drawn())


def test_by_type():
    g = drawn(edge_type=torch.arange(15) % 3, weight=None)
    found = messages.by_type(g, g.x, 3)
    for i in range(g.nodes):
        for kind in range(3):
            of = g.x[g.source[(g.target == i) & (g.edge_type == kind)]]
            expected = of.mean(0) if len(of) else torch.zeros(3, dtype=torch.float64)
            torch.testing.assert_close(found[i, kind], expected)


def test_no_edges_and_half_precision():
    g = graph(torch.empty(2, 0), torch.ones(3, 2), "nodes")
    x = g.x.clone().requires_grad_()
    for how, expected in (("sum", 0.0), ("mean", 0.0), ("max", 0.0), ("gcn", 1.0)):
        found = messages.aggregate(g, x, how)
        assert (found == expected).all()
        found.sum().backward()
    star = graph(torch.tensor([[0] * 999, range(1, 1000)]), torch.ones(1000, 1).bfloat16())
    assert float(messages.aggregate(star, star.x)[0]) == 1000  # 999 in eight bits
    assert messages.aggregate(star, star.x, "gcn").dtype == torch.bfloat16
