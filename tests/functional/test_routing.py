"""Capsules' functions: against the formulas as they stand, their slopes, and what they refuse."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch.func import grad, vmap

from deepweave.functional import (
    couple,
    length_margin,
    lengths,
    log_odds,
    route,
    self_couple,
    self_route,
    squash,
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def parts(batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    u, weight = squash(numbers(batch, 5, 4)), numbers(6, 4, 5, 2, seed=1)
    return u.requires_grad_(), weight.requires_grad_()


def spelled(u, weight, rounds=3, *, full=False, axis=2):
    """Routing as the paper writes it; axis 2 is that of the wholes, 1 that of the parts."""
    votes = torch.einsum("bid,kdie->bike", u, weight)
    seen = votes if full else votes.detach()
    logits = u.new_zeros(votes.shape[:3])
    for number in range(rounds):
        c = logits.softmax(axis)
        if number == rounds - 1:
            return squash((c.unsqueeze(3) * votes).sum(1)), c
        v = squash((c.unsqueeze(3) * seen).sum(1))
        logits = logits + (seen * v.unsqueeze(1)).sum(3)
    raise AssertionError


@pytest.mark.parametrize("gradient", ["detached", "full"])
@pytest.mark.parametrize("rounds", [1, 2, 4])
def test_route_is_the_formula_and_so_are_its_slopes(gradient, rounds):
    u, weight = parts()
    found = route(u, weight, rounds, gradient=gradient)
    wanted, c = spelled(u, weight, rounds, full=gradient == "full")
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(couple(u, weight, rounds), c)
    down = numbers(*found.shape, seed=2)
    for one, other in zip(
        torch.autograd.grad(found, (u, weight), down),
        torch.autograd.grad(wanted, (u, weight), down),
    ):
        torch.testing.assert_close(one, other)
    assert torch.autograd.grad(route(u, weight).sum(), weight)[0].is_contiguous()


def test_the_softmax_runs_over_the_wholes():
    u, weight = parts()
    c = couple(u, weight)
    torch.testing.assert_close(c.sum(2), torch.ones(3, 5, dtype=torch.float64))
    assert not torch.allclose(c.sum(1), torch.ones(3, 6, dtype=torch.float64), atol=0.05)
    wrong = spelled(u, weight, axis=1)[0]
    assert (route(u, weight) - wrong).abs().max() > 0.05


def test_routing_finds_the_whole_that_the_parts_agree_on():
    """All parts vote alike for whole 0, and each otherwise for whole 1."""
    u = torch.ones(1, 40, 1)
    weight = torch.zeros(2, 1, 40, 8)
    weight[0, 0] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    other = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    weight[1, 0] = other / other.norm(dim=1, keepdim=True)
    shares = [couple(u, weight, rounds)[0, :, 0].mean() for rounds in (1, 2, 3, 4)]
    assert shares[0] == 0.5
    assert all(later > earlier for earlier, later in pairwise(shares))
    long = lengths(route(u, weight))[0]
    assert long[0] > 0.99
    assert long[1] < 0.9


@pytest.mark.parametrize("gradient", ["detached", "full"])
def test_slopes_by_differences_and_twice(gradient):
    u, weight = parts(2)

    def act(u, weight):
        return route(u, weight, gradient=gradient)

    down = numbers(2, 6, 2, seed=3)
    once = torch.autograd.grad(act(u, weight), (u, weight), down, create_graph=True)
    again = torch.autograd.grad(sum(s.square().sum() for s in once), (u, weight))
    plain = spelled(u, weight, full=gradient == "full")[0]
    once = torch.autograd.grad(plain, (u, weight), down, create_graph=True)
    for one, other in zip(
        again, torch.autograd.grad(sum(s.square().sum() for s in once), (u, weight))
    ):
        torch.testing.assert_close(one, other)
    if gradient == "full":
        assert torch.autograd.gradcheck(act, (u, weight))
        assert torch.autograd.gradgradcheck(act, (u, weight))
    else:  # they are not the slopes of the numbers, on purpose; for given couplings they are
        assert not torch.autograd.gradcheck(act, (u, weight), raise_exception=False)
        assert torch.autograd.gradcheck(lambda u, w: route(u, w, 1), (u, weight))


def test_self_route_and_its_slopes():
    u, weight = parts(2)
    router = numbers(6, 4, 5, seed=4).requires_grad_()
    assert torch.autograd.gradcheck(self_route, (u, weight, router))
    assert torch.autograd.gradgradcheck(self_route, (u, weight, router))
    c = torch.einsum("bid,kdi->bik", u, router).softmax(2)
    torch.testing.assert_close(self_couple(u, router), c)
    share = c * lengths(u).unsqueeze(2)
    pose = torch.einsum("bik,bid,kdie->bke", share, u, weight)
    found = self_route(u, weight, router)
    long = share.sum(1) / lengths(u).sum(1, keepdim=True)
    torch.testing.assert_close(lengths(found), long)
    torch.testing.assert_close(found, long.unsqueeze(2) * pose / pose.norm(dim=2, keepdim=True))


@pytest.mark.parametrize("kind", ["detached", "full", "self"])
def test_vmap_equals_the_loop(kind):
    us, weights = squash(numbers(2, 3, 5, 4)), numbers(2, 6, 4, 5, 3, seed=1)
    router = numbers(6, 4, 5, seed=2)

    def loss(weight, u):
        if kind == "self":
            return self_route(u, weight, router).pow(3).sum()
        return route(u, weight, gradient=kind).pow(3).sum()

    both = vmap(grad(loss, argnums=(0, 1)))(weights, us)
    for i in range(2):
        weight, u = weights[i].clone().requires_grad_(), us[i].clone().requires_grad_()
        alone = torch.autograd.grad(loss(weight, u), (weight, u))
        torch.testing.assert_close(both[0][i], alone[0])
        torch.testing.assert_close(both[1][i], alone[1])


def test_nothing_so_large_as_the_votes_is_kept():
    u, weight = parts()
    votes = 3 * 5 * 6 * 2
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        route(u, weight)
    assert max(kept) <= max(weight.numel(), 3 * 5 * 6)
    assert weight.numel() == 240 > votes  # of so few samples the weights are larger
    u, weight = squash(numbers(64, 5, 4)).requires_grad_(), weight.detach().requires_grad_()
    kept.clear()
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        route(u, weight)
    assert max(kept) <= 64 * 5 * 6 < 64 * 5 * 6 * 2


def test_squash_at_zero_and_far_away():
    s = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    v = squash(s)
    (slope,) = torch.autograd.grad(v.sum() + lengths(v).sum(), s, create_graph=True)
    (second,) = torch.autograd.grad(slope.sum(), s)
    for found in (v, slope, second):
        assert (found == 0).all()
    far = squash(torch.tensor([[1e-30, 0.0], [1e15, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(far, torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.5]]))
    assert torch.autograd.gradcheck(squash, numbers(4, 3).requires_grad_())


def test_nothing_below_gives_nothing_above():
    u, weight = torch.zeros(2, 5, 4, requires_grad=True), parts()[1].detach().float()
    weight.requires_grad_()
    router = torch.zeros(6, 4, 5)
    for v in (route(u, weight), route(u, weight, gradient="full"), self_route(u, weight, router)):
        assert (v == 0).all()
        for slope in torch.autograd.grad(log_odds(lengths(v)).sum(), (u, weight)):
            assert slope.isfinite().all()


def test_log_odds_are_undone_by_the_sigmoid():
    long = torch.linspace(0, 1, 11)
    torch.testing.assert_close(log_odds(long, floor=1e-6).sigmoid(), long, atol=1e-5, rtol=0)
    s = numbers(4, 3)
    torch.testing.assert_close(
        log_odds(lengths(squash(s)), floor=1e-12), s.square().sum(1).log(), atol=1e-6, rtol=0
    )


def test_length_margin():
    long = torch.tensor([[0.95, 0.05, 0.3], [0.2, 0.9, 0.9]], dtype=torch.float64)
    found = length_margin(long, torch.tensor([0, 1]))
    torch.testing.assert_close(
        found, torch.tensor([0.5 * 0.04, 0.5 * (0.01 + 0.64)], dtype=torch.float64)
    )
    hot = torch.eye(3, dtype=torch.float64)[:2]
    torch.testing.assert_close(length_margin(long, hot), found)
    both = torch.tensor([[1, 0, 1], [0, 1, 1]])
    torch.testing.assert_close(
        length_margin(long, both), torch.tensor([0.36, 0.5 * 0.01], dtype=torch.float64)
    )
    weighted = length_margin(long, hot, weight=torch.tensor([3.0, 1.0]), reduction="mean")
    torch.testing.assert_close(weighted, (3 * found[0] + found[1]) / 4)


def test_autocast_leaves_routing_alone():
    u, weight = (part.detach().float() for part in parts())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = route(u.bfloat16(), weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, route(u, weight), atol=0.02, rtol=0.1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u, w: route(u[:, :4], w), r"route: u must be \(B, I, D\) = \(B, 5, 4\)"),
        (lambda u, w: couple(u, w[0]), r"couple: weight must be \(K, D, I, E\), got \(4, 5, 2\)"),
        (lambda u, w: route(u, w, 0), "route: rounds must be at least 1, got 0"),
        (lambda u, w: route(u, w, gradient="half"), "gradient must be 'detached' or 'full'"),
        (
            lambda u, w: self_route(u, w, w[:, :, :, 0].mT),
            r"self_route: router must be \(6, 4, 5\)",
        ),
        (lambda u, w: log_odds(u, floor=0.0), r"floor must lie in \(0, 1\)"),
        (lambda u, w: length_margin(u, u), r"lengths must be \(B, K\)"),
        (lambda u, w: length_margin(u[0].detach(), torch.tensor([0, 1, 2, 3, 4])), "labels"),
        (lambda u, w: length_margin(u[0], u[0], upper=0.1), "needs 0 <= lower < upper <= 1"),
        (lambda u, w: length_margin(u[0], u[0], down=-1.0), "down must be finite"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(*parts())
