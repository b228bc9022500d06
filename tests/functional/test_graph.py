"""Graphs: what the constructor makes and refuses, batches, and graphs chosen from a batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from deepweave.core.objective import mapped, rows
from deepweave.functional.graph import Graph, graph, side_by_side, some_graphs

# pyright: reportOptionalSubscript=false


def drawn(nodes: int, edges: int, seed: int) -> Graph:
    random = torch.Generator().manual_seed(seed)
    return graph(
        torch.randint(0, nodes, (2, edges), generator=random),
        torch.randn(nodes, 2, generator=random),
        directed=True,
        weight=torch.rand(edges, generator=random),
        edge=torch.randn(edges, 3, generator=random),
        edge_type=torch.randint(0, 3, (edges,), generator=random),
        node_type=torch.randint(0, 3, (nodes,), generator=random),
    )


def same(found: Graph, expected: Graph) -> None:
    for name, a, b in zip(Graph._fields, found, expected):
        assert (a is None) == (b is None), name
        if a is not None:
            assert torch.equal(a, b), name


@given(nodes=st.integers(1, 7), edges=st.integers(0, 20), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_structure(nodes, edges, seed):
    """Rows hold the edges into a node, the transpose those out of it; features move along."""
    random = torch.Generator().manual_seed(seed)
    ends = torch.randint(0, nodes, (2, edges), generator=random)
    mark = torch.arange(edges).float()
    g = graph(ends, torch.ones(nodes, 1), directed=True, edge=mark[:, None], weight=mark + 1)
    where = g.edge[:, 0].long()
    assert torch.equal(g.edges, ends[:, where])
    assert torch.equal(where.sort().values, torch.arange(edges))
    assert torch.equal(g.weight, mark[where] + 1)
    for i in range(nodes):
        assert (g.target[g.rows[i] : g.rows[i + 1]] == i).all()
        out = g.back[g.back_rows[i] : g.back_rows[i + 1]]
        assert (g.source[out] == i).all()
        assert torch.equal(g.target[out], g.back_target[g.back_rows[i] : g.back_rows[i + 1]])
        assert float(g.degree[i]) == pytest.approx(float(g.weight[g.target == i].sum()))
    assert torch.equal(g.norm[g.back], g.back_norm)
    assert int(g.rows[-1]) == int(g.back_rows[-1]) == edges


def test_undirected():
    g = graph(
        torch.tensor([[0, 1, 2], [1, 2, 2]]), torch.ones(3, 1), weight=torch.tensor([1.0, 2, 3])
    )
    pairs = dict(zip(map(tuple, g.edges.T.tolist()), g.weight.tolist()))
    assert pairs == {(0, 1): 1, (1, 0): 1, (1, 2): 2, (2, 1): 2, (2, 2): 3}  # a loop leads one way


def test_questions():
    g = graph(torch.tensor([[0], [1]]), torch.ones(3, 2), torch.tensor([2, 0]))
    assert g.asked.tolist() == [2, 0]
    assert rows((g, None)) == 2
    assert rows((g.ask("nodes"), None)) == 3
    assert rows((g.ask("graphs"), None)) == 1
    assert rows((g.ask(torch.tensor([[0, 1]] * 5)), None)) == 5
    moved = mapped(lambda t: t.clone(), (g, torch.ones(2)))[0]
    assert isinstance(moved, Graph)
    assert moved.weight is None
    same(g.to("cpu"), g)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 9)), min_size=1, max_size=5), st.data())
@settings(max_examples=30, deadline=None)
def test_batches(sizes, data):
    """Side by side is one graph of all edges; chosen graphs are what they were."""
    parts = [drawn(n, e, seed=i) for i, (n, e) in enumerate(sizes)]
    batch = side_by_side(parts)
    index = data.draw(st.lists(st.integers(0, len(parts) - 1), min_size=1, max_size=6))
    same(some_graphs(batch, torch.tensor(index)), side_by_side([parts[i] for i in index]))
    again = graph(
        batch.edges, batch.x, directed=True, weight=batch.weight, edge=batch.edge,
        edge_type=batch.edge_type, node_type=batch.node_type, member=batch.member,
    )  # fmt: skip
    assert torch.equal(again.degree, batch.degree)
    assert torch.equal(again.rows, batch.rows)
    assert torch.equal(again.starts, batch.starts)
    assert batch.graphs == len(parts)


def test_none_chosen_and_differing():
    one, bare = drawn(3, 4, 0), graph(torch.empty(2, 0), torch.ones(1, 2))
    assert some_graphs(one, torch.empty(0, dtype=torch.int64)).nodes == 0
    with pytest.raises(ValueError, match="some graphs have weight, others have not"):
        side_by_side([one, bare])
    with pytest.raises(ValueError, match="at least one graph"):
        side_by_side([])


def test_no_edges():
    g = graph(torch.empty(2, 0), torch.ones(2, 1))
    assert g.degree.tolist() == [0, 0]
    assert g.edges.shape == (2, 0)


X = torch.ones(3, 2)
ONE = torch.tensor([[0], [1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graph(torch.tensor([[0], [-1]]), X), r"edges must lie in 0..2, got -1"),
        (lambda: graph(torch.tensor([[0], [3]]), X), r"edges must lie in 0..2, got 3"),
        (lambda: graph(torch.tensor([[0.0], [1.0]]), X), "must be numbers of nodes"),
        (lambda: graph(torch.tensor([[0, 1]]), X), r"edges must be \(2, E\), got \(1, 2\)"),
        (lambda: graph(ONE, torch.ones(0, 2)), "at least one node"),
        (lambda: graph(ONE, torch.ones(3)), r"x must be \(N, F\)"),
        (lambda: graph(torch.tensor([[0, 1], [1, 0]]), X), r"edge \(0, 1\) is given twice"),
        (lambda: graph(ONE, X, weight=torch.ones(2)), r"weight must be \(1,\), got \(2,\)"),
        (lambda: graph(ONE, X, weight=-torch.ones(1)), "weight must be finite and not negative"),
        (lambda: graph(ONE, X, edge=torch.ones(1)), r"edge must be \(1, F_e\), got \(1,\)"),
        (lambda: graph(ONE, X, edge_type=torch.tensor([-1])), "edge_type must be whole numbers"),
        (lambda: graph(ONE, X, node_type=torch.ones(3)), "node_type must be whole numbers"),
        (lambda: graph(ONE, X, member=torch.tensor([0, 1, 1])), r"edge \(0, 1\) leads from one"),
        (lambda: graph(ONE, X, member=torch.tensor([0, 0, 2])), "graph 1 has no nodes"),
        (lambda: graph(ONE, X, member=torch.tensor([1, 1, 1])), "from 0 in ascending order"),
        (lambda: graph(ONE, X, "edges"), 'expected "nodes", "graphs" or a tensor'),
        (lambda: graph(ONE, X, torch.tensor([3])), r"asked must lie in 0..2, got 3"),
        (lambda: graph(ONE, X, torch.ones(2, 3).long()), r"pairs \(B, 2\), got \(2, 3\)"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
