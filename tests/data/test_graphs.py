"""Graphs as data: collections, sampling, links without leakage, conversions, named sets."""

from __future__ import annotations

from types import SimpleNamespace

import networkx
import pytest
import torch
from hypothesis import given, settings, strategies as st

import deepweave as dw
from deepweave.data.conversion import from_networkx, from_pyg, to_networkx, to_pyg
from deepweave.data.graphs import Graphs, Network, Nodes, Pairs, nearest_graph
from deepweave.data.links import links
from deepweave.data.molecules import Molecules, read_sdf, rings
from deepweave.data.neighbours import around, drawn_edges, sample
from deepweave.data.rows import Collection
from deepweave.data.split import Split
from deepweave.functional.graph import Graph, graph, side_by_side

# pyright: reportOptionalSubscript=false


def drawn(nodes: int = 30, edges: int = 90, seed: int = 0, **options) -> Graph:
    network = networkx.gnm_random_graph(nodes, edges, seed=seed)
    x = torch.randn(nodes, 4, generator=torch.Generator().manual_seed(seed))
    return graph(torch.tensor(list(network.edges)).T, x, "nodes", **options)


class TestCollections:
    def test_graphs(self):
        many = [drawn(n, n, seed=n) for n in (5, 7, 9, 6)]
        held = Graphs(many)
        assert isinstance(held, Collection)
        assert len(held) == 4
        index = torch.tensor([2, 0])
        expected = side_by_side([many[2], many[0]])
        for part in (held.take(index), held[index].graph, held[index.numpy()].graph):
            assert torch.equal(part.edges, expected.edges)
            assert torch.equal(part.x, expected.x)
        assert len(held[1:3]) == 2
        split = Split(held, torch.arange(4.0))
        sizes = [(g.graphs, g.nodes) for g, _ in split.batches(3, shuffle=False)]
        assert sizes == [(3, 21), (1, 6)]

    def test_nodes_and_pairs(self):
        g = drawn()
        nodes = Nodes(g, torch.tensor([4, 2, 9]))
        assert nodes[1:].take(torch.tensor([1])).asked.tolist() == [9]
        assert len(Nodes(g)) == 30
        pairs = Pairs(g, torch.tensor([[0, 1], [2, 3]]))
        assert pairs[torch.tensor([True, False])].take(torch.tensor([0])).asked.tolist() == [[0, 1]]
        for held in (nodes, pairs):
            assert isinstance(held, Collection)
            assert torch.equal(held.to("cpu").tensors()["asked"], held.tensors()["asked"])

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda g: Nodes(g, torch.tensor([30])), "asked must lie in 0..29"),
            (lambda g: Nodes(g, torch.tensor([[1, 2]])), r"index must be \(N,\)"),
            (lambda g: Nodes(g, None, (3, 0)), "fanouts must be at least 1"),
            (lambda g: Pairs(g, torch.tensor([1, 2])), r"pairs must be \(N, 2\)"),
            (lambda g: Network(5, "nodes").inputs(g), "nodes must have 5 features, got 4"),
        ],
    )
    def test_refusals(self, call, message):
        with pytest.raises(ValueError, match=message):
            call(drawn())

    def test_preparation(self):
        g = drawn()
        form = Network.from_json(Network(4, "nodes").to_json())
        assert isinstance(form.inputs(g), Nodes)
        assert isinstance(Network(4, "pairs").inputs(g.ask(torch.tensor([[0, 1]]))), Pairs)
        assert isinstance(Network(4).inputs([g, g]), Graphs)
        with pytest.raises(TypeError, match="expected a Graph"):
            form.inputs("x")


class TestSampling:
    @given(seed=st.integers(0, 99), fanouts=st.lists(st.integers(1, 4), min_size=1, max_size=3))
    @settings(max_examples=25, deadline=None)
    def test_sample(self, seed, fanouts):
        """Real edges, none twice, at most a fanout into each node, all reached from the asked."""
        g = drawn(seed=seed, edge=torch.arange(90.0)[:, None])
        g = g._replace(x=torch.arange(30.0)[:, None].repeat(1, 4))  # a node is known by its number
        torch.manual_seed(seed)
        asked = torch.tensor([3, 7, 3])
        part = sample(g, asked, fanouts)
        name = part.x[:, 0].long()
        assert name[part.asked].tolist() == [3, 7, 3]
        assert len(name.unique()) == len(name)
        real = {
            (*pair, mark)
            for pair, mark in zip(map(tuple, g.edges.T.tolist()), g.edge[:, 0].tolist())
        }
        edges = list(
            zip(name[part.source].tolist(), name[part.target].tolist(), part.edge[:, 0].tolist())
        )
        assert set(edges) <= real
        assert len(set(edges)) == len(edges)
        front, seen = {3, 7}, set()
        for fanout in fanouts:
            for node in front - seen:
                into = sum(1 for e in edges if e[1] == node)
                assert into == min(fanout, int(g.degree[node]))
            seen |= front
            front = {e[0] for e in edges if e[1] in seen} - seen
        assert set(name.tolist()) <= seen | front

    def test_draws_are_even(self):
        """Floyd's draws: each of the pairs of 5 edges is as likely."""
        star = graph(torch.tensor([[0] * 5, [1, 2, 3, 4, 5]]), torch.ones(6, 1))
        torch.manual_seed(0)
        found = drawn_edges(star, torch.zeros(6000, dtype=torch.int64), 2).view(-1, 2)
        codes = found.amin(1) * 5 + found.amax(1)
        counts = codes.unique(return_counts=True)[1]
        assert len(counts) == 10
        assert float(((counts - 600.0) ** 2 / 600).sum()) < 27.9  # chi square of 9, one in 1000

    def test_around_is_exact(self):
        g, net = drawn(60, 90), dw.nn.gnn((4, 3), (8, 8), "gat")
        asked = torch.tensor([5, 41])
        torch.testing.assert_close(net(around(g, asked, 2)), net(g.ask(asked)))
        near = dw.nn.gnn((4, 3), (8, 8), "gcn")
        torch.testing.assert_close(near(around(g, asked, 3)), near(g.ask(asked)))

    def test_training(self):
        g = drawn(60, 150)
        split = Split(Nodes(g, fanouts=(3, 2)), torch.arange(60) % 3)
        run = dw.fit(
            dw.Classify(dw.nn.gnn((4, 3), (8, 8), "sage")), split, epochs=2, batch=16, seed=1
        )
        again = dw.fit(dw.Classify(dw.nn.gnn((4, 3), (8, 8), "sage")), split, steps=3, batch=16)
        assert run.info["steps"] == 8
        assert again.info["steps"] == 3


class TestLinks:
    @pytest.mark.parametrize("seed", range(3))
    def test_no_leakage(self, seed):
        """What is asked carries no message, in any direction, there or before; no pair twice."""
        g = drawn(40, 120, seed=seed)
        data = links(g, seed=seed, negatives=1.5)
        edges = {frozenset(pair) for pair in g.edges.T.tolist()}
        held = {}
        for name, split in data.splits.items():
            pairs = [frozenset(pair) for pair in split.x.pairs.tolist()]
            held[name] = pairs
            passed = {frozenset(pair) for pair in split.x.graph.edges.T.tolist()}
            assert passed <= edges
            assert not passed & set(pairs)
            for pair, y in zip(pairs, split.y.tolist()):
                assert (pair in edges) == bool(y)
                assert len(pair) == 2
        every = [pair for pairs in held.values() for pair in pairs]
        assert len(set(every)) == len(every)
        seen = {frozenset(pair) for pair in data.train.x.graph.edges.T.tolist()}
        later = {frozenset(pair) for pair in data.test.x.graph.edges.T.tolist()}
        positives = {pair for pair, y in zip(held["train"], data.train.y.tolist()) if y}
        assert later == seen | positives
        for name in ("validation", "test"):
            assert not later & set(held[name])
            assert not seen & set(held[name])

    def test_learns(self):
        """Two groups, joined within: pairs within are told from pairs across."""
        random = networkx.stochastic_block_model([40, 40], [[0.3, 0.01], [0.01, 0.3]], seed=0)
        data = links(from_networkx(random), negatives=1.0)
        dw.chance.seed_all(0)
        net = dw.nn.gnn(data.spec, (16, 16), "gcn")
        step = dw.Descent(dw.Classify(net), "Adam", lr=0.01)
        run = dw.fit(step, data, epochs=60, batch=512, out=False)
        assert run.test()["test/auc"] > 0.65

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: links(drawn(), (0.5, 0.3, 0.2)), "three positive parts of 1"),
            (lambda: links(drawn(), negatives=0), "negatives must be positive"),
            (lambda: links(drawn(4, 2)), "2 edges are too few"),
            (lambda: links(drawn(5, 10)), "pairs that are not joined are wanted, there are 0"),
            (lambda: links(graph(torch.tensor([[0], [1]]), torch.ones(2, 1), directed=True)),
             r"edge \(0, 1\) leads one way only"),
        ],
    )  # fmt: skip
    def test_refusals(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()


class TestConversion:
    def test_networkx(self):
        network = networkx.Graph()
        network.add_node("b", size=2.0, place=[0.0, 1.0])
        network.add_node("a", size=3.0, place=[2.0, 3.0])
        network.add_node("c", size=4.0, place=[4.0, 5.0])
        network.add_edge("a", "b", far=0.5, kind=1)
        network.add_edge("c", "c", far=1.5, kind=0)
        g = from_networkx(network, ["size", "place"], weight="far", edge=["far"], edge_type="kind")
        assert g.x.tolist() == [[2, 0, 1], [3, 2, 3], [4, 4, 5]]
        assert sorted(zip(*g.edges.tolist(), g.weight.tolist(), g.edge_type.tolist())) == [
            (0, 1, 0.5, 1), (1, 0, 0.5, 1), (2, 2, 1.5, 0)
        ]  # fmt: skip
        back = to_networkx(g)
        assert sorted(back.edges(data="weight")) == [(0, 1, 0.5), (2, 2, 1.5)]
        again = from_networkx(back, ["x"], weight="weight", edge=["edge"], edge_type="edge_type")
        for name, a, b in zip(Graph._fields, again, g):
            assert a is b is None or torch.equal(a, b), name

    @pytest.mark.parametrize("made", [networkx.DiGraph, networkx.MultiGraph, networkx.MultiDiGraph])
    def test_kinds_of_networkx(self, made):
        network = made([(0, 1), (0, 1), (1, 2)])
        g = from_networkx(network)
        assert torch.equal(
            torch.zeros(3, 3).index_put(
                (g.source, g.target), torch.ones(len(g.source)), accumulate=True
            ),
            torch.tensor(networkx.to_numpy_array(network)).float(),
        )
        assert to_networkx(g).is_directed() == network.is_directed()

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda: from_networkx(networkx.Graph()), "has no nodes"),
            (lambda: from_networkx(networkx.path_graph(2), ["size"]), "node 0 has no 'size'"),
            (
                lambda: from_networkx(networkx.path_graph(2), weight="w"),
                r"edge \(0, 1\) has no 'w'",
            ),
            (lambda: from_pyg(SimpleNamespace(x=torch.ones(1, 1))), "has no edge_index"),
            (lambda: from_pyg(SimpleNamespace(edge_index=torch.empty(2, 0))), "neither x nor num"),
        ],
    )
    def test_refusals(self, call, message):
        with pytest.raises(ValueError, match=message):
            call()

    def test_pyg(self, monkeypatch):
        stand_in = SimpleNamespace(
            edge_index=torch.tensor([[0, 1, 3], [1, 0, 2]]), x=torch.arange(4),
            edge_attr=torch.tensor([1, 2, 3]), batch=torch.tensor([0, 0, 1, 1]),
        )  # fmt: skip
        g = from_pyg(stand_in)
        assert g.graphs == 2
        assert g.x.tolist() == [[0], [1], [2], [3]]
        assert dict(zip(map(tuple, g.edges.T.tolist()), g.edge[:, 0].tolist())) == {
            (0, 1): 1, (1, 0): 2, (3, 2): 3
        }  # fmt: skip
        assert from_pyg(SimpleNamespace(edge_index=torch.empty(2, 0), num_nodes=2)).x.shape == (
            2,
            2,
        )
        fake = SimpleNamespace(Data=SimpleNamespace)
        monkeypatch.setitem(
            __import__("sys").modules, "torch_geometric", SimpleNamespace(data=fake)
        )
        monkeypatch.setitem(__import__("sys").modules, "torch_geometric.data", fake)
        again = from_pyg(to_pyg(g))
        for name, a, b in zip(Graph._fields, again, g):
            assert a is b is None or torch.equal(a, b), name

    def test_pyg_is_missing(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "torch_geometric", None)
        monkeypatch.setitem(__import__("sys").modules, "torch_geometric.data", None)
        with pytest.raises(ImportError, match="to_pyg: needs PyG"):
            to_pyg(drawn())


SDF = """water

  made

  1  0  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 O   0  0
M  END
>  <SOL>
1.5

$$$$
acetate

  made
  4  3  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    0.0000    0.0000    0.0000 C   0  0
    0.0000    0.0000    0.0000 O   0  0
    0.0000    0.0000    0.0000 O   0  0
  1  2  1  0
  2  3  2  0
  2  4  1  0
M  CHG  1   4  -1
M  END
$$$$
""".replace("water\n\n  made\n\n", "water\n\n  made\n")


class TestMolecules:
    def test_read(self, tmp_path):
        path = tmp_path / "two.sdf"
        path.write_text(SDF)
        water, acetate = read_sdf(path)
        assert water.fields == {"SOL": "1.5"}
        assert acetate.charges == {3: -1}
        held = Molecules(("C", "O"))
        rows = held.inputs(path)
        assert len(rows) == 2
        g = rows.take(torch.tensor([1]))
        hydrogens = g.x[:, held.names.index("hydrogens")] * 4
        assert hydrogens.tolist() == [3, 0, 0, 0]  # CH3, C, =O, O-
        bonds = dict(zip(map(tuple, g.edges.T.tolist()), g.edge.tolist()))
        assert bonds[1, 2] == bonds[2, 1] == [0, 1, 0, 0]
        lone = Molecules(("C",)).inputs([water]).graph
        assert lone.x[0].tolist() == [0, 1, 0, 0.5, 0, 0]  # another element, no neighbour, two H
        assert Molecules.from_json(held.to_json()) == held

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("  4  3  0", "  0  0  0", "molecule 2 .* has no atoms"),
            ("  2  4  1  0", "  2  9  1  0", "3 bonds do not fit its 4 atoms"),
            ("V2000", "V3000", "molecule 1 .* V3000, expected V2000"),
            (SDF, "\n", "holds no molecule"),
        ],
    )
    def test_refusals(self, tmp_path, old, new, message):
        path = tmp_path / "bad.sdf"
        path.write_text(SDF.replace(old, new))
        with pytest.raises(ValueError, match=message):
            read_sdf(path)

    def test_rings(self):
        two = torch.tensor([[0, 1, 2, 2, 3, 4, 5], [1, 2, 0, 3, 4, 5, 3]])  # joined by a bridge
        assert rings(two, 6).tolist() == [True, True, True, False, True, True, True]


class TestNamed:
    def test_karate(self):
        data = dw.data.load("karate")
        assert [len(s) for s in data.splits.values()] == [4, 10, 20]
        index = torch.cat([s.x.index for s in data.splits.values()])
        assert index.sort().values.tolist() == list(range(34))
        assert data.train.y.bincount().tolist() == [2, 2]
        assert data.fingerprint == dw.data.load("karate").fingerprint
        assert data.fingerprint != dw.data.load("karate", seed=1).fingerprint
        kept = dw.data.Preparation.from_json(data.preparation.to_json())
        assert kept.spec == data.spec
        with pytest.raises(ValueError, match="comes whole"):
            dw.data.load("karate", limit=20)
        with pytest.raises(ValueError, match="has its own target"):
            dw.data.load("karate", target="club")

    def test_digits_graph(self):
        data = dw.data.load("digits_graph", limit=300)
        g = data.train.x.graph
        assert g.nodes == 300
        assert int(g.degree.min()) >= 8
        assert data.spec.to_json()["kind"] == "graph"
        dw.chance.seed_all(0)
        net = dw.nn.gnn(data.spec, (16,), "gcn")
        run = dw.fit(dw.Descent(dw.Classify(net), "Adam", lr=0.02), data, epochs=30, out=False)
        assert run.test()["test/accuracy"] > 0.6

    def test_solubility(self):
        data = dw.data.load("solubility", limit=60)
        assert [len(s) for s in data.splits.values()] == [51, 9, 60]
        assert data.preparation.restore(data.train.y)[:2].isfinite().all()
        kept = dw.data.Preparation.from_json(data.preparation.to_json())
        assert kept.features == data.preparation.features

    def test_nearest(self):
        x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
        far = torch.cdist(x, x).fill_diagonal_(torch.inf)
        near = {
            (min(i, j), max(i, j))
            for i in range(50)
            for j in far[i].topk(3, largest=False)[1].tolist()
        }
        assert set(map(tuple, nearest_graph(x, 3, step=7).T.tolist())) == near
        with pytest.raises(ValueError, match=r"neighbours must lie in 1\.\.49"):
            nearest_graph(x, 50)
