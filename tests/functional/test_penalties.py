from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from deepweave.functional import penalties
from deepweave.functional.penalties import (
    elastic_net,
    elastic_net_threshold,
    group_lasso,
    group_soft_threshold,
    l1,
    l2,
    nuclear,
    orthogonality,
    soft_threshold,
    sparsity,
)


def weight(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=g, dtype=torch.float64)


# --- penalties ------------------------------------------------------------------------------


def test_values_by_hand():
    w = torch.tensor([[3.0, -4.0], [0.0, 0.0], [0.0, 1.0]])
    assert l1(w) == 8
    assert l2(w) == 26
    assert elastic_net(w, 0.5, 0.25) == 4 + 6.5
    assert group_lasso(w).item() == pytest.approx(math.sqrt(2) * (5 + 0 + 1))
    assert group_lasso(w, dim=1).item() == pytest.approx(math.sqrt(3) * (3 + math.sqrt(17)))
    assert nuclear(torch.tensor([[2.0, 0.0, 0.0], [0.0, -3.0, 0.0]])).item() == pytest.approx(5)
    assert orthogonality(torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])) == 9
    assert sparsity(w) == 0.5


def test_filters_are_rows_and_channels_are_columns():
    w = weight(4, 3, 2, 2)
    rows = sum(math.sqrt(12) * w[i].norm() for i in range(4))
    columns = sum(math.sqrt(16) * w[:, i].norm() for i in range(3))
    torch.testing.assert_close(group_lasso(w), rows)
    torch.testing.assert_close(group_lasso(w, dim=1), columns)


@pytest.mark.parametrize("penalty", [l1, l2, group_lasso, nuclear, orthogonality, sparsity])
def test_one_weight_or_many(penalty):
    a, b = weight(3, 4), weight(5, 2, seed=1)
    whole = penalty({"a": a, "b": b})
    if penalty is not sparsity:
        torch.testing.assert_close(whole, penalty(a) + penalty(b))
    torch.testing.assert_close(whole, penalty([a, b]))
    torch.testing.assert_close(whole, penalty(x for x in (a, b)))
    with pytest.raises(ValueError, match="there are no weights to penalise"):
        penalty([])


def test_slopes():
    w = weight(3, 4).requires_grad_()
    for penalty in (l1, l2, group_lasso, lambda v: group_lasso(v, dim=1), nuclear, orthogonality):
        assert torch.autograd.gradcheck(penalty, (w,))
    flat = torch.zeros(3, 4, requires_grad=True)
    for penalty in (l1, l2, group_lasso):
        (slope,) = torch.autograd.grad(penalty(flat), flat)
        assert torch.equal(slope, torch.zeros(3, 4)), "at zero the slope is zero, not NaN"


def test_groups_need_two_dimensions():
    for function in (group_lasso, lambda w: group_soft_threshold(w, 1.0)):
        with pytest.raises(ValueError, match=r"a weight must be \(out, in, ...\), got \(3,\)"):
            function(torch.ones(3))


# --- proximal maps --------------------------------------------------------------------------


CASES = {
    "l1": (lambda w: soft_threshold(w, 0.7), lambda v: 0.7 * l1(v)),
    "elastic net": (
        lambda w: elastic_net_threshold(w, 0.3, 0.4),
        lambda v: elastic_net(v, 0.3, 0.4),
    ),
    "groups": (lambda w: group_soft_threshold(w, 0.4), lambda v: 0.4 * group_lasso(v)),
    "columns": (
        lambda w: group_soft_threshold(w, 0.4, dim=1),
        lambda v: 0.4 * group_lasso(v, dim=1),
    ),
    "sparse groups": (
        lambda w: group_soft_threshold(soft_threshold(w, 0.3), 0.2),
        lambda v: 0.3 * l1(v) + 0.2 * group_lasso(v),
    ),
    "sparse groups, ridge": (
        lambda w: group_soft_threshold(soft_threshold(w, 0.3), 0.2) / (1 + 2 * 0.25),
        lambda v: 0.3 * l1(v) + 0.2 * group_lasso(v) + 0.25 * l2(v),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_proximal_maps_are_minima(name, seed):
    """|v - w|^2 / 2 + penalty is strongly convex: from its minimum it grows by |d|^2 / 2."""
    prox, penalty = CASES[name]
    w = weight(2, 3, seed=seed)

    def cost(v: Tensor) -> Tensor:
        return (v - w).square().sum() / 2 + penalty(v)

    best = prox(w)
    for power in range(-5, 1):
        for d in weight(50, 2, 3, seed=seed + 10) * 10.0**power:
            assert cost(best + d) - cost(best) >= d.square().sum() / 2 - 1e-12


numbers = st.floats(-5, 5, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(numbers, min_size=6, max_size=6), st.lists(numbers, min_size=6, max_size=6),
       st.floats(0, 3))  # fmt: skip
def test_proximal_maps_bring_points_no_further_apart(a, b, t):
    x, y = (torch.tensor(v, dtype=torch.float64).view(2, 3) for v in (a, b))
    for prox in (soft_threshold, group_soft_threshold, lambda w, t: elastic_net_threshold(w, t, t)):
        assert (prox(x, t) - prox(y, t)).norm() <= (x - y).norm() + 1e-9
        zero = prox(x, 1e6)
        assert (zero == 0).all()


def test_thresholds_of_zero_change_nothing_and_zeros_stay():
    w = weight(3, 4)
    for prox in (soft_threshold, group_soft_threshold, lambda w, t: elastic_net_threshold(w, t, t)):
        assert torch.equal(prox(w, 0.0), w)
        assert torch.equal(prox(torch.zeros(2, 2), 0.0), torch.zeros(2, 2))


def test_maps_of_many_members_at_once():
    w, t = weight(5, 3, 4), torch.linspace(0, 1, 5)
    for prox in (soft_threshold, group_soft_threshold):
        together = torch.func.vmap(prox)(w, t)
        torch.testing.assert_close(together, torch.stack([prox(a, b) for a, b in zip(w, t)]))
        assert together.dtype == w.dtype


def test_the_module_says_each_strength_once():
    """The page and the module must state scikit-learn's factors as the parity tests use them."""
    told = penalties.__doc__ or ""
    for line in ("l1 = 2 alpha", "l2 = alpha (1 - r)", "l2 = alpha / n", "l2 = 1 / (2 C n)"):
        assert line in told
