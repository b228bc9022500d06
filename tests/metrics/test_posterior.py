"""Which latent numbers are used: closed forms and what a collapse looks like."""

from __future__ import annotations

import math

import pytest
import torch

from deepweave.metrics.generative import latent_use


def test_kl_and_activity_by_formula():
    random = torch.Generator().manual_seed(0)
    mean = torch.randn(300, 3, generator=random, dtype=torch.float64)
    log_var = torch.randn(300, 3, generator=random, dtype=torch.float64)
    found = latent_use(mean, log_var)
    q = torch.distributions.Normal(mean, (log_var / 2).exp())
    known = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
    assert torch.allclose(found.kl, known)
    assert torch.allclose(found.activity, mean.var(0))


def test_information_is_that_of_the_mixture():
    random = torch.Generator().manual_seed(1)
    mean, log_var = (torch.randn(50, 2, generator=random, dtype=torch.float64) for _ in range(2))
    found = latent_use(mean, log_var, seed=3).information
    noise = torch.randn(50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    q = torch.distributions.Normal(mean, (log_var / 2).exp())
    z = mean + (log_var / 2).exp() * noise
    every = q.log_prob(z[:, None]).sum(2)  # z_n under the posterior of each sample
    known = (every.diagonal() - every.logsumexp(1) + math.log(50)).mean()
    assert math.isclose(found, float(known), abs_tol=1e-9)


def test_a_lost_number_tells_nothing():
    mean = torch.linspace(-3, 3, 200)[:, None] * torch.tensor([1.0, 0.0])
    log_var = torch.tensor([-6.0, 0.0]).expand(200, 2)
    found = latent_use(mean, log_var)
    assert found.active.tolist() == [True, False]
    assert float(found.kl[1]) == 0
    assert 0 < found.information < math.log(200)
    nothing = latent_use(torch.zeros(200, 2), torch.zeros(200, 2))
    assert abs(nothing.information) < 1e-9
    assert not nothing.active.any()


def test_information_is_at_most_the_number_of_samples():
    mean = 100 * torch.arange(16.0)[:, None]
    assert math.isclose(latent_use(mean, torch.zeros(16, 1)).information, math.log(16))


@pytest.mark.parametrize(
    ("mean", "log_var"),
    [(torch.zeros(4), torch.zeros(4)), (torch.zeros(4, 2), torch.zeros(4, 3)),
     (torch.zeros(1, 2), torch.zeros(1, 2))],
)  # fmt: skip
def test_refusals(mean, log_var):
    with pytest.raises(ValueError, match=r"must be \(N, L\)"):
        latent_use(mean, log_var)
