"""Graph networks: layers against dense formulas, symmetries, batches, members, blueprints."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import leaky_relu

import deepweave as dw
from deepweave import blueprint
from deepweave.functional.graph import Graph, graph, side_by_side
from deepweave.nn.gnn import KINDS, gnn
from deepweave.nn.graph import GCN, GIN, MPNN, RGCN, SAGE
from deepweave.nn.neighbours import GAT, GraphTransformer
from deepweave.nn.readout import POOLS, GraphNorm, Pool
from deepweave.testing.models import near, reached, stirred

TYPES = 3

# pyright: reportOptionalSubscript=false


def drawn(nodes: int = 6, edges: int = 12, seed: int = 0) -> Graph:
    """A directed graph with features, types and weights of edges, and a node without any edge."""
    random = torch.Generator().manual_seed(seed)
    kind = torch.float64
    return graph(
        torch.randint(0, max(1, nodes - 1), (2, edges), generator=random),
        torch.randn(nodes, 4, generator=random, dtype=kind),
        "nodes",
        directed=True,
        edge=torch.randn(edges, 2, generator=random, dtype=kind),
        edge_type=torch.randint(0, TYPES, (edges,), generator=random),
        node_type=torch.randint(0, 2, (nodes,), generator=random),
    )


def made(kind: str, **options):
    """A network of a kind, taking what the kind can take, its weights stirred."""
    takes = {"edges": 2} if kind in ("gat", "gatv1", "gin", "mpnn", "transformer") else {}
    takes |= {"edge_types": TYPES} if kind == "rgcn" else {}
    return stirred(lambda: gnn((4, 3), (8, 8), kind, **{**takes, **options})).double().eval()


def pairs(g: Graph) -> torch.Tensor:
    """A[i, j]: how many edges lead from j to i."""
    found = torch.zeros(g.nodes, g.nodes, dtype=torch.float64)
    ones = torch.ones(len(g.source), dtype=torch.float64)
    return found.index_put((g.target, g.source), ones, accumulate=True)


def softly(g: Graph, scores, own, values):
    """Attention node by node: over the edges into it and itself."""
    rows = []
    for i in range(g.nodes):
        into = (g.target == i).nonzero()[:, 0]
        share = torch.cat([scores[into], own[i : i + 1]]).softmax(0)  # (n, heads)
        held = torch.cat([values[g.source[into]], values[i : i + 1]])
        rows.append((share[..., None] * held).sum(0).flatten())
    return torch.stack(rows)


class TestLayers:
    """Each layer is its formula, written out densely."""

    def test_gcn(self):
        g = drawn()
        a = pairs(g) + torch.eye(6)
        root = a.sum(1).rsqrt()
        for outputs in (3, 5):  # the product with A before the weights, and after
            layer = GCN(4, outputs).double()
            torch.nn.init.normal_(layer.bias)
            byhand = root[:, None] * a * root @ g.x @ layer.weight.T + layer.bias
            torch.testing.assert_close(layer(g, g.x), byhand)

    @pytest.mark.parametrize("how", ["mean", "sum", "max"])
    def test_sage(self, how):
        g = drawn()
        a = pairs(g)
        near_ = {
            "mean": a @ g.x / a.sum(1, keepdim=True).clamp_min(1),
            "sum": a @ g.x,
            "max": torch.stack([
                torch.cat([g.x[a[i] > 0], g.x.new_zeros(int(not (a[i] > 0).any()), 4)]).amax(0)
                for i in range(6)
            ]),
        }[how]  # fmt: skip
        for outputs in (3, 5):
            layer = SAGE(4, outputs, how).double()
            byhand = layer.own(g.x) + near_ @ layer.near.weight.T
            torch.testing.assert_close(layer(g, g.x), byhand)

    def test_gin(self):
        g = drawn()
        layer = stirred(lambda: GIN(4, 5)).double()
        byhand = layer.mlp((1 + layer.eps) * g.x + pairs(g) @ g.x)
        torch.testing.assert_close(layer(g, g.x), byhand)
        edged = stirred(lambda: GIN(4, 5, 2)).double()
        message = (g.x[g.source] + edged.edge(g.edge)).relu()
        near_ = torch.zeros(6, 4, dtype=torch.float64).index_add(0, g.target, message)
        torch.testing.assert_close(edged(g, g.x), edged.mlp((1 + edged.eps) * g.x + near_))

    def test_mpnn(self):
        g = drawn()
        layer = stirred(lambda: MPNN(4, 5, 2, activation="tanh")).double()
        message = layer.message(
            (layer.near(g.x[g.source]) + layer.own(g.x[g.target]) + layer.edge(g.edge)).tanh()
        )
        near_ = torch.zeros(6, 5, dtype=torch.float64).index_add(0, g.target, message)
        torch.testing.assert_close(layer(g, g.x), layer.stay(g.x) + near_)

    @pytest.mark.parametrize("bases", [None, 2])
    def test_rgcn(self, bases):
        g = drawn()
        layer = RGCN(4, 5, TYPES, bases=bases).double()
        weight = layer.bases
        if bases:
            weight = torch.einsum("rb,boi->roi", layer.mix, weight)
        byhand = layer.own(g.x).clone()
        for kind in range(TYPES):
            held = graph(g.edges[:, g.edge_type == kind], g.x, directed=True)
            a = pairs(held)
            byhand = byhand + a @ g.x / a.sum(1, keepdim=True).clamp_min(1) @ weight[kind].T
        torch.testing.assert_close(layer(g, g.x), byhand)

    @pytest.mark.parametrize("edges", [0, 2])
    @pytest.mark.parametrize("dynamic", [True, False])
    def test_gat(self, dynamic, edges):
        g = drawn()
        layer = stirred(lambda: GAT(4, 6, 2, edges=edges, dynamic=dynamic)).double()
        v = layer.value(g.x).view(6, 2, 3)
        e = layer.edge(g.edge).view(-1, 2, 3) if edges else torch.zeros(12, 2, 3).double()
        if dynamic:
            u = layer.query(g.x).view(6, 2, 3)
            scores = (layer.score[0] * leaky_relu(v[g.source] + u[g.target] + e, 0.2)).sum(-1)
            own = (layer.score[0] * leaky_relu(v + u, 0.2)).sum(-1)
        else:
            sent, met = ((v * layer.score[k]).sum(-1) for k in (0, 1))
            of_edge = (e * layer.score[2]).sum(-1) if edges else 0
            scores = leaky_relu(sent[g.source] + met[g.target] + of_edge, 0.2)
            own = leaky_relu(sent + met, 0.2)
        byhand = softly(g, scores, own, v) + layer.bias
        torch.testing.assert_close(layer(g, g.x), byhand)
        shares, itself = layer.weights(g, g.x)
        total = itself.index_add(0, g.target, shares)
        torch.testing.assert_close(total, torch.ones_like(total))
        again = torch.zeros(6, 2, 3).double().index_add(
            0, g.target, shares[..., None] * v[g.source]
        )  # fmt: skip
        torch.testing.assert_close((again + itself[..., None] * v).flatten(1) + layer.bias, byhand)

    def test_transformer(self):
        g = drawn()
        layer = stirred(lambda: GraphTransformer(4, 6, 2, edges=2)).double()
        x = layer.enter(g.x)
        q, k, v = layer.ends(layer.first(x)).view(6, 3, 2, 3).unbind(1)
        scores = (q[g.target] * k[g.source]).sum(-1) / 3**0.5 + layer.edge(g.edge)
        z = x + layer.out(softly(g, scores, (q * k).sum(-1) / 3**0.5, v))
        torch.testing.assert_close(layer(g, g.x), z + layer.mlp(layer.second(z)))
        shares, itself = layer.weights(g, g.x)
        total = itself.index_add(0, g.target, shares)
        torch.testing.assert_close(total, torch.ones_like(total))


def moved(g: Graph, order: torch.Tensor) -> Graph:
    """The same graph with node ``order[i]`` called i."""
    name = order.argsort()
    return graph(
        name[g.edges], g.x[order], "nodes", directed=True,
        edge=g.edge, edge_type=g.edge_type, node_type=g.node_type[order],
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 50), nodes=st.integers(1, 8), edges=st.integers(0, 14))
@settings(max_examples=8, deadline=None)
def test_permutations(kind, seed, nodes, edges):
    """Nodes called otherwise: their answers move along, a graph's answer stays."""
    g = drawn(nodes, edges, seed)
    order = torch.randperm(nodes, generator=torch.Generator().manual_seed(seed))
    other, net = moved(g, order), made(kind, norm="graph", node_types=2)
    torch.testing.assert_close(net(other), net(g)[order])
    for pool in POOLS:
        whole = made(kind, pool=pool)
        torch.testing.assert_close(whole(other.ask("graphs")), whole(g.ask("graphs")))
    both = torch.tensor([[0, nodes - 1], [nodes - 1, 0]])
    said = net(g.ask(both))
    torch.testing.assert_close(said[0], said[1])
    torch.testing.assert_close(net(other.ask(order.argsort()[both])), said)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", POOLS)
def test_batches(kind, pool):
    """A batch of graphs gives what each gives alone."""
    many = [drawn(n, e, seed=n) for n, e in ((4, 6), (1, 0), (7, 20), (3, 1))]
    net = made(kind, pool=pool, norm="graph", residual=True)
    alone = torch.cat([net(g.ask("graphs")) for g in many])
    torch.testing.assert_close(net(side_by_side(many)), alone)
    nodes = torch.cat([net(g.ask("nodes")) for g in many])
    torch.testing.assert_close(net(side_by_side(many).ask("nodes")), nodes)


@pytest.mark.parametrize("kind", KINDS)
def test_slopes(kind):
    """Exact slopes of features to the second order; every weight is reached."""
    g, net = drawn(5, 8), made(kind, activation="tanh", norm="layer")

    def on(x):
        return net(g._replace(x=x))

    x = g.x.clone().requires_grad_()
    torch.autograd.gradcheck(on, (x,), fast_mode=True)
    torch.autograd.gradgradcheck(on, (x,), fast_mode=True)
    whole = made(kind, pool="attention", norm="graph", node_types=2)
    reached(whole, lambda: whole(g.ask("graphs")))


@pytest.mark.parametrize("kind", KINDS)
def test_members(kind):
    """Networks at once under vmap are the networks one by one."""
    g = drawn()
    nets = [made(kind, norm="layer", pool="topk") for _ in range(3)]
    for i, net in enumerate(nets):
        with torch.no_grad():
            for w in net.parameters():
                w.add_(0.1 * i * torch.randn(w.shape, generator=torch.Generator().manual_seed(i)))
    for question in ("nodes", "graphs"):
        asked = g.ask(question)
        weights, buffers = stack_module_state(nets)
        found = vmap(lambda w, b, asked=asked: functional_call(nets[0], (w, b), (asked,)))(
            weights, buffers
        )
        torch.testing.assert_close(found, torch.stack([net(asked) for net in nets]))


@pytest.mark.parametrize("kind", KINDS)
def test_population(kind):
    """A Population on one graph learns what each member learns alone."""
    g = drawn()
    g = g._replace(x=g.x.float(), edge=g.edge.float(), norm=g.norm.float(),
                   back_norm=g.back_norm.float(), degree=g.degree.float())  # fmt: skip
    batch = (g, torch.tensor([0, 1, 2, 0, 1, 2]))
    one = [dw.Classify(made(kind, dropout=0.0).float()) for _ in range(2)]
    with torch.no_grad():
        for w in one[1].parameters():
            w.mul_(0.9)
    alone = [dw.Descent(copy.deepcopy(o), "Adam", lr=1e-2) for o in one]
    many = dw.Population(one, optimizer="Adam", lr=1e-2, shared=True)
    for _ in range(3):
        losses = many(batch)["loss"]
        expected = torch.stack([step(batch)["loss"] for step in alone])
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert many.predict(g).shape == (2, 6, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_blueprint(kind):
    g = drawn()
    net = made(kind, pool="topk", norm="batch", dropout=0.1, residual=True)
    note = blueprint.describe(net)
    assert note is not None
    other = blueprint.build(note).double().eval()
    other.load_state_dict(net.state_dict())
    near(other(g), net(g), "the same model", exact=True)


def test_dropout_and_norms():
    g = drawn()
    net = made("sage", dropout=0.5).train()
    assert not torch.equal(net(g), net(g))
    assert torch.equal(net.eval()(g), net(g))
    batch = side_by_side([drawn(4, 6), drawn(9, 9)])
    found = GraphNorm(4).double()(batch, batch.x)
    for part in found.split([4, 9]):
        torch.testing.assert_close(part.mean(0), torch.zeros(4).double())
        torch.testing.assert_close(part.var(0, correction=0), torch.ones(4).double(), rtol=1e-3,
                                   atol=1e-3)  # fmt: skip


def test_topk_keeps_the_largest():
    pool = Pool(1, "topk", share=0.5).double()
    with torch.no_grad():
        pool.score.fill_(2.0)
    x = torch.tensor([[1.0], [3.0], [-5.0], [2.0], [4.0], [7.0]]).double()
    g = graph(torch.empty(2, 0), x, member=torch.tensor([0, 0, 0, 1, 1, 1]))
    top = [x[[0, 1]], x[[4, 5]]]  # ceil(3 / 2) of each
    expected = torch.stack([(part.tanh() * part).mean(0) for part in top])
    torch.testing.assert_close(pool(g, x), expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gnn((4, 3), kind="gnc"), "kind must be one of gcn, sage.*got 'gnc'"),
        (lambda: gnn((4, 3), norm="no"), "norm must be one of None, layer"),
        (lambda: gnn((4, 3), pool="min"), "pool must be one of sum, mean"),
        (lambda: gnn((4, 3), ()), "hidden must be widths of at least 1"),
        (lambda: gnn(((1, 4), 3)), r"sizes must be \(\(features of a node,\), outputs\)"),
        (lambda: gnn((4, 3), kind="gcn", edges=2), "gcn takes no features of edges"),
        (lambda: gnn((4, 3), kind="rgcn"), "edge_types is for rgcn"),
        (lambda: gnn((4, 3), kind="gcn", edge_types=2), "edge_types is for rgcn"),
        (lambda: gnn((4, 3), (10,), "gat"), "heads must divide the outputs, got 4 and 10"),
        (lambda: SAGE(2, 2, "min"), "how must be mean, sum or max"),
        (lambda: RGCN(2, 2, 0), "types and bases must be at least 1"),
        (lambda: Pool(2, "topk", 0.0), r"share must lie in \(0, 1\]"),
        (lambda: gnn((5, 3))(drawn()), "nodes must have 5 features, got 4"),
        (lambda: made("gat")(drawn()._replace(edge=None)), "needs 2 features at every edge"),
        (lambda: made("gcn", node_types=2)(drawn()._replace(node_type=None)), "have no types"),
        (lambda: made("rgcn")(drawn()._replace(edge_type=None)), "the edges .* have no types"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_refuses_tensors():
    with pytest.raises(TypeError, match="the input must be a Graph, got Tensor"):
        gnn((4, 3))(torch.zeros(2, 4))
