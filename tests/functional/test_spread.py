"""What spreads by chance: exact laws of small graphs, and a loop over nodes as a reference."""

from __future__ import annotations

import networkx
import pytest
import torch
from scipy import stats

import deepweave as dw
from deepweave.functional import spread


def made(network, **options):
    ends = torch.tensor(list(network.edges)).T
    return dw.functional.graph(ends, torch.zeros(len(network), 1), **options)


def looped(network, first, infect, recover, steps, random):
    """One run, node by node and edge by edge, as it is told."""
    state = [1 if node in first else 0 for node in network]
    for _ in range(steps):
        before = list(state)
        for node in network:
            if before[node] != 1:
                continue
            for other in network.neighbors(node):
                if before[other] == 0 and float(torch.rand((), generator=random)) < infect:
                    state[other] = 1
            if float(torch.rand((), generator=random)) < recover:
                state[node] = 2
    return state.count(2)


def test_it_has_the_law_of_a_loop_over_nodes():
    network = networkx.barabasi_albert_graph(40, 2, seed=0)
    random = torch.Generator().manual_seed(0)
    slow = [looped(network, {0, 5}, 0.12, 0.25, 12, random) for _ in range(250)]
    fast = spread(
        made(network), torch.tensor([0, 5]), 0.12, 0.25, steps=12, runs=4000, generator=random
    )
    assert stats.ks_2samp(slow, fast.counts[-1, :, 2].numpy()).pvalue > 0.01
    assert stats.ks_2samp(slow, fast.counts[-5, :, 2].numpy()).pvalue < 0.01  # it would be noticed


def test_chances_of_one_step():
    """The middle of a star with k infected leaves catches it with 1 - (1 - p)^k; weights count."""
    star = networkx.star_graph(4)
    found = spread(made(star), torch.tensor([1, 2, 3]), 0.3, 0.5, steps=1, runs=40_000,
                   generator=torch.Generator().manual_seed(1))  # fmt: skip
    middle = (found.state[0] == 1).float().mean()
    assert float(middle) == pytest.approx(1 - 0.7**3, abs=0.01)
    assert float((found.state[1] == 2).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert bool((found.state[4] == 0).all())  # no neighbour has it
    heavy = made(star, weight=torch.tensor([2.0, 1.0, 1.0, 1.0]))
    found = spread(heavy, torch.tensor([1]), 0.3, steps=1, runs=40_000,
                   generator=torch.Generator().manual_seed(1))  # fmt: skip
    assert float((found.state[0] == 1).float().mean()) == pytest.approx(1 - 0.7**2, abs=0.01)


def test_kinds():
    path = made(networkx.path_graph(6))
    one = torch.tensor([0])
    si = spread(path, one, 1.0, steps=3, kind="SI")
    assert si.counts[:, 0].tolist() == [[5, 1, 0], [4, 2, 0], [3, 3, 0], [2, 4, 0]]
    sis = spread(path, one, 1.0, 1.0, steps=2, kind="SIS")
    assert sis.state[:, 0].tolist() == [1, 0, 1, 0, 0, 0]
    assert spread(path, one, 0.0, 0.0, steps=4).counts[-1, 0].tolist() == [5, 1, 0]
    mask = torch.zeros(6, 2, dtype=torch.bool)
    mask[0, 0] = mask[5, 1] = True
    own = spread(path, mask, 1.0, steps=1, runs=2)
    assert own.state.T.tolist() == [[1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    again = [spread(path, one, 0.5, 0.1, runs=5, generator=torch.Generator().manual_seed(3))
             for _ in range(2)]  # fmt: skip
    assert torch.equal(again[0].counts, again[1].counts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"infect": 1.5}, r"infect must lie in \[0, 1\], got 1.5"),
        ({"recover": -0.1}, r"recover must lie in \[0, 1\]"),
        ({"kind": "SEIR"}, "one of SI, SIS, SIR, got 'SEIR'"),
        ({"kind": "SI", "recover": 0.2}, "nobody recovers in SI"),
        ({"runs": 0}, "runs at least 1"),
        ({"infected": torch.tensor([9])}, r"nodes must lie in 0\.\.5, got \[9\]"),
        ({"infected": torch.zeros(4, dtype=torch.bool)}, r"a mask must be \(6,\)"),
        ({"infected": torch.zeros(2)}, "numbers of nodes"),
    ],
)
def test_what_is_refused(options, message):
    given = {"infected": torch.tensor([0]), "infect": 0.5} | options
    with pytest.raises(ValueError, match=message):
        spread(made(networkx.path_graph(6)), **given)
