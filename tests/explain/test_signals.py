from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.explain import rank, signals
from deepweave.functional.initial import constant, he, lecun, zeros
from deepweave.nn import initialize


def data(n: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 32, generator=g), torch.randint(0, 5, (n,), generator=g)


def net(draw, activation: str = "relu", depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return initialize(dw.nn.mlp((32, 5), [24] * depth, activation), draw)


def test_rank_counts_what_is_independent():
    torch.manual_seed(0)
    base = torch.randn(6, 2) @ torch.randn(2, 9)
    assert rank(base) == 2
    assert rank(base + 1e-7 * torch.randn(6, 9)) == 2
    assert rank(torch.zeros(4, 4)) == 0
    assert rank(torch.eye(3).expand(2, 3, 3)).tolist() == [3, 3]
    assert rank(torch.diag(torch.tensor([1.0, 1e-2])), tolerance=0.1) == 1
    with pytest.raises(ValueError, match=r"a matrix must be \(..., R, C\), got \(3,\)"):
        rank(torch.ones(3))


def test_readings_are_those_of_a_network_by_hand():
    torch.manual_seed(0)
    first, last = nn.Linear(32, 24), nn.Linear(24, 5)
    model = nn.Sequential(first, nn.Tanh(), last)
    x, y = data()
    rows = signals(model, x, lambda output: nn.functional.cross_entropy(output, y))
    z = first(x)
    z.retain_grad()
    out = last(z.tanh())
    out.retain_grad()
    nn.functional.cross_entropy(out, y).backward()
    assert [row.layer for row in rows] == ["0", "2"]
    for row, value in zip(rows, (z, out)):
        assert row.variance == pytest.approx(float(value.detach().var(correction=0)), rel=1e-5)
        assert row.gradient_variance == pytest.approx(float(value.grad.square().mean()), rel=1e-5)
    assert rows[0].update_rank == int(rank(first.weight.grad))
    assert rows[1].unit_rank == 5
    assert json.loads(json.dumps(rows[0].to_json()))["weight_rank"] == 24


def test_an_objective_is_its_own_loss():
    objective, (x, y) = dw.Classify(net(he)), data()
    rows = signals(objective, (x, y))
    same = signals(objective.model, x, lambda out: nn.functional.cross_entropy(out, y))
    assert [row.layer for row in rows] == ["model.0", "model.2", "model.4", "model.6"]
    assert [r.gradient_variance for r in rows] == [r.gradient_variance for r in same]


@pytest.mark.parametrize("draw", [zeros, partial(constant, value=0.05)])
def test_the_symmetry_of_equal_units_stays(draw):
    """All units of a layer are one unit, also after a hundred steps; drawn by He they differ."""
    x, y = data()
    for activation in ("sigmoid", "tanh"):
        same, free = (dw.Classify(net(d, activation)) for d in (draw, he))
        for objective in (same, free):
            step = dw.Descent(objective, "SGD", lr=0.5)
            for _ in range(100):
                step((x, y))
        for row in signals(same, (x, y))[:-1]:
            assert max(row.weight_rank, row.unit_rank, row.update_rank) <= 1
        assert signals(same, (x, y))[-1].weight_rank <= 1
        assert all(row.weight_rank > 4 for row in signals(free, (x, y)))


def test_zeros_with_relu_never_learn_but_the_last_biases():
    objective, (x, y) = dw.Classify(net(zeros)), data()
    step = dw.Descent(objective, "SGD", lr=0.5)
    for _ in range(50):
        step((x, y))
    assert not any(w.any() for w in objective.parameters() if w.dim() > 1)
    assert all(row.update_rank == 0 for row in signals(objective, (x, y)))
    assert objective.model[-1].bias.any()


def test_variances_vanish_or_stay_as_the_theory_has_it():
    """ReLU halves the second moment in each layer: 1/in loses 2^-depth, 2/in keeps it."""
    x, _ = data(512)
    torch.manual_seed(0)
    for draw, factor in ((lecun, 0.5), (he, 1.0)):
        model = initialize(dw.nn.mlp((32, 5), [400] * 10), draw)
        rows = signals(model, x)
        ratio = rows[9].variance / rows[0].variance
        assert factor**9 / 3 < ratio < factor**9 * 3
        back = rows[0].gradient_variance / rows[9].gradient_variance
        assert factor**9 / 3 < back < factor**9 * 3


def test_nothing_is_changed():
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5),
        nn.Flatten(), nn.Linear(120, 3),
    )  # fmt: skip
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    rows = signals(model, torch.randn(16, 2, 8, 7, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(w.grad is None for w in model.parameters())
    assert [row.layer for row in rows] == ["0", "5"]
    assert rows[0].unit_rank == 4, "channels are units, whatever the activation did in place"
    assert rows[0].gradient_variance > 0


def test_recurrent_layers_give_what_they_can():
    model = nn.Sequential(nn.LSTM(4, 6))
    with pytest.raises(ValueError, match="calls no layer with weights"):
        signals(model, torch.randn(5, 2, 4), lambda output: output[0].sum())


def test_a_loss_that_is_none():
    with pytest.raises(ValueError, match=r"signals: the loss must be a scalar, got \(128, 5\)"):
        signals(net(he), data()[0], lambda output: output)
    frozen = net(he).requires_grad_(False)
    with pytest.raises(ValueError, match="calls no layer with weights that learn"):
        signals(frozen, data()[0])
