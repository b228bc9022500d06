"""Likelihoods of samples: they are probabilities, parity with torch, slopes, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Bernoulli as Coin, Normal

from deepweave.functional.observation import Bernoulli, Categorical, Gaussian, Logistic

KINDS = [Bernoulli(), Gaussian(0.3), Gaussian(), Logistic(6), Categorical(5)]


def drawn(*shape, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=random)


def values(kind, *shape):
    if kind.levels is None:
        return drawn(*shape, seed=1)
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, kind.levels, shape, generator=random).double() / (kind.levels - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one(kind):
    said = drawn(1, kind.numbers, 1)
    if kind.levels is None:
        x = torch.linspace(-400, 400, 2_000_001, dtype=torch.float64)[:, None]
        total = kind.nll(said.expand(len(x), -1, 1), x).neg().exp().sum() * 800 / 2_000_000
    else:
        x = torch.arange(kind.levels).double()[:, None] / (kind.levels - 1)
        total = kind.nll(said.expand(len(x), -1, 1), x).neg().exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_law_that_is_scored(kind):
    """The mean of -log p over samples is the entropy, here by sums or a long draw."""
    said = drawn(1, kind.numbers, 1, seed=3).expand(40_000, -1, 1)
    torch.manual_seed(0)
    x = kind.sample(said)
    if kind.levels is not None:
        every = torch.arange(kind.levels).double()[:, None] / (kind.levels - 1)
        p = kind.nll(said[: kind.levels], every).neg().exp()
        share = torch.stack([(x - one).abs().lt(1e-6).double().mean() for one in every[:, 0]])
        assert torch.allclose(share, p, atol=0.012)
    else:
        scale = (x - kind.mean(said)).std()
        assert float(kind.nll(said, x).mean()) == pytest.approx(
            0.5 * math.log(2 * math.pi * math.e) + math.log(float(scale)), abs=0.01
        )


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_members_and_shapes(kind):
    said, x = drawn(3, kind.numbers, 2, 4).requires_grad_(), values(kind, 3, 2, 4)
    assert torch.autograd.gradcheck(lambda s: kind.nll(s, x), (said,))
    assert kind.nll(said, x).shape == (3,)
    assert kind.mean(said).shape == kind.sample(said).shape == x.shape
    both = torch.stack([said, said * 0.5])
    members = torch.vmap(lambda s: kind.nll(s, x))(both)
    assert torch.allclose(members, torch.stack([kind.nll(s, x) for s in both]))
    kind.check(x)
    # the marginal is better than any other constant
    many = values(kind, 400, 3)
    best = kind.marginal(many)[None].expand(400, -1, -1)
    least = kind.nll(best, many).mean()
    assert bool(least <= kind.nll(best + 0.3 * drawn(*best.shape[1:]), many).mean())


def test_parity_and_extremes():
    said, x = drawn(4, 2, 3), drawn(4, 3, seed=1)
    wanted = -Normal(said[:, 0], 0.7).log_prob(x).sum(1)
    assert torch.allclose(Gaussian(0.7).nll(said[:, :1], x), wanted)
    bits = (x > 0).double()
    wanted = -Coin(logits=said[:, 0]).log_prob(bits).sum(1)
    assert torch.allclose(Bernoulli().nll(said[:, :1], bits), wanted)
    far = torch.tensor([[[1e4], [-30.0]], [[-1e4], [30.0]], [[0.5], [1e4]]]).requires_grad_()
    for kind in (Gaussian(), Logistic(256)):
        loss = kind.nll(far, torch.tensor([[0.0], [1.0], [128 / 255]]))
        assert loss.isfinite().all()
        assert torch.autograd.grad(loss.sum(), far)[0].isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bernoulli().check(torch.tensor([-0.1])), r"\[0, 1\], got -0.1"),
        (lambda: Logistic(4).check(torch.tensor([0.5])), "k / 3 of 4 levels, some are 0.50"),
        (lambda: Categorical(4).check(torch.tensor([1.5])), r"\[0, 1\]"),
        (lambda: Gaussian(0.0), "std must be positive, got 0"),
        (lambda: Logistic(1), "at least 2, got 1"),
        (lambda: Categorical(0), "at least 2, got 0"),
        (lambda: Categorical(2.5), "at least 2, got 2.5"),
        (lambda: Logistic(16.5), "at least 2, got 16.5"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
