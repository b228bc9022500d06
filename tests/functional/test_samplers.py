"""Every sampler against the exact answer of Gaussian data."""

from __future__ import annotations

from itertools import pairwise, permutations

import pytest
import torch

from deepweave.functional.pairing import pair
from deepweave.functional.samplers import SAMPLERS, ancestral, calls, dpm, euler, heun
from deepweave.functional.schedule import Schedule

SCHEDULE = Schedule(lowest=0.02, highest=20.0)


@pytest.fixture
def gauss():
    """N(m, S): its denoiser, and the exact map of the flow from the highest level to the data."""
    torch.manual_seed(0)
    root = torch.randn(3, 3, dtype=torch.float64) * 0.6
    mean, cov = torch.tensor([1.0, -2.0, 0.5]).double(), root @ root.T + 0.05 * torch.eye(3)
    value, turn = torch.linalg.eigh(cov)

    def denoise(y, s):
        gain = value / (value + s**2)
        return mean + (y - mean) @ (turn * gain) @ turn.T

    def exact(y, s):
        gain = (value / (value + s**2)).sqrt()
        return mean + (y - mean) @ (turn * gain) @ turn.T

    return mean, cov, denoise, exact


@pytest.mark.parametrize("spacing", ["karras", "log"])
@pytest.mark.parametrize(("sampler", "order"), [(euler, 1), (heun, 2), (dpm, 2)])
def test_order(gauss, sampler, order, spacing):
    """Twice the steps divide the error by 2 to the order (the lowest level is fixed)."""
    mean, _, denoise, exact = gauss
    y = mean + 20.0 * torch.randn(16, 3, dtype=torch.float64)
    truth, errors = exact(y, 20.0), []
    for steps in (40, 80, 160):
        levels = SCHEDULE.levels(steps, spacing)
        # to the lowest level alone: the last step, to 0, is one of first order, however small
        found = sampler(denoise, y, levels)
        last = exact_tail(gauss, y, levels)
        errors.append(float((found - last).abs().mean()))
    for coarse, fine in pairwise(errors):
        assert 2**order * 0.75 < coarse / fine < 2**order * 1.35, errors
    assert float((found - truth).abs().max()) < (0.3 if order == 1 else 0.02)


def exact_tail(gauss, y, levels):
    """The exact flow down to the lowest level, and the sampler's own last step to 0."""
    mean, cov, denoise, _ = gauss
    value, turn = torch.linalg.eigh(cov)
    low, high = levels[-2], levels[0]
    gain = ((value + low**2) / (value + high**2)).sqrt()
    return denoise(mean + (y - mean) @ (turn * gain) @ turn.T, low)


@pytest.mark.parametrize("churn", [0.0, 0.5, 1.0])
def test_chance_keeps_mean_and_covariance(gauss, churn):
    mean, cov, denoise, exact = gauss
    torch.manual_seed(1)
    y = mean + torch.randn(40_000, 3, dtype=torch.float64) @ (
        torch.linalg.cholesky(cov + 400 * torch.eye(3)).T
    )
    found = ancestral(denoise, y, SCHEDULE.levels(500, "log"), churn=churn)
    assert torch.allclose(found.mean(0), mean, atol=0.03)
    assert torch.allclose(found.T.cov(), cov, atol=0.07)
    straight = (found - exact(y, 20.0)).abs().max()
    assert (float(straight) < 0.2) == (churn == 0.0)
    if churn == 0:
        again = euler(denoise, y[:9], SCHEDULE.levels(500, "log"))
        assert torch.allclose(again, found[:9])


def test_one_step_of_chance_is_the_posterior():
    """Of x and y it has the mean x + s'^2 / s^2 (y - x) and the variance s'^2 (1 - s'^2 / s^2)."""
    torch.manual_seed(0)
    y = torch.full((200_000,), 5.0, dtype=torch.float64)
    levels = torch.tensor([4.0, 3.0, 0.0]).double()
    seen = []

    def denoise(y, s):
        seen.append(y)
        return torch.ones_like(y)

    ancestral(denoise, y, levels)
    after = seen[1]
    assert float(after.mean()) == pytest.approx(1 + 9 / 16 * 4, abs=0.03)
    assert float(after.var()) == pytest.approx(9 * (1 - 9 / 16), rel=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_are_counted(name):
    count = 0

    def denoise(y, s):
        nonlocal count
        count += 1
        return y / (1 + s**2)

    for steps in (1, 2, 7):
        count = 0
        found = SAMPLERS[name](denoise, torch.randn(4, 2), SCHEDULE.levels(steps))
        assert count == calls(name, steps)
        assert found.isfinite().all()
    with pytest.raises(ValueError, match="sampler must be one of dpm, euler"):
        calls("rk4", 3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_nothing_waits_and_everything_maps(name):
    """No number is read from a tensor within the loop; vmap gives what a loop gives."""

    def denoise(y, s):
        return y / (1 + s**2)

    levels, y = SCHEDULE.levels(6), 20 * torch.randn(3, 5, 2)
    with torch.profiler.profile() as seen:
        SAMPLERS[name](denoise, y, levels)
    looks = sum(e.count for e in seen.key_averages() if e.key == "aten::_local_scalar_dense")
    with torch.profiler.profile() as seen:
        SAMPLERS[name](denoise, y, SCHEDULE.levels(60))
    more = sum(e.count for e in seen.key_averages() if e.key == "aten::_local_scalar_dense")
    assert looks == more  # of the levels, on the CPU, once: not one for each step
    both = torch.vmap(lambda one: SAMPLERS[name](denoise, one, levels), randomness="different")(y)
    assert both.shape == y.shape
    if name != "ancestral":
        alone = torch.stack([SAMPLERS[name](denoise, one, levels) for one in y])
        assert torch.allclose(both, alone, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([3.0, 4.0, 0.0], "must be finite and fall"),
        ([3.0, 3.0, 0.0], "must be finite and fall"),
        ([float("nan"), 1.0, 0.0], "must be finite and fall"),
        ([float("inf"), 1.0, 0.0], "must be finite and fall"),
        ([3.0, 1.0], "must end in 0, got 1"),
        ([0.0], r"must be \(n \+ 1,\), got \(1,\)"),
        ([[1.0, 0.0]], r"must be \(n \+ 1,\), got \(1, 2\)"),
    ],
)
def test_levels_that_are_refused(name, levels, message):
    with pytest.raises(ValueError, match=message):
        SAMPLERS[name](lambda y, s: y, torch.zeros(2), torch.tensor(levels))


def test_churn_is_a_share():
    with pytest.raises(ValueError, match=r"churn must lie in \[0, 1\], got 1.5"):
        ancestral(lambda y, s: y, torch.zeros(2), torch.tensor([1.0, 0.0]), churn=1.5)


def test_pairs_cost_least():
    torch.manual_seed(0)
    x, e = torch.randn(2, 6, 2, 2)
    found = pair(x, e)
    assert sorted(found.flatten().tolist()) == sorted(e.flatten().tolist())
    least = min(float((x - e[list(order)]).square().sum()) for order in permutations(range(6)))
    assert float((x - found).square().sum()) == pytest.approx(least, rel=1e-5)
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    within = pair(x, e, groups)
    for k in range(3):
        own = [x[2 * k : 2 * k + 2], e[2 * k : 2 * k + 2]]
        assert torch.equal(within[2 * k : 2 * k + 2], pair(*own))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: pair(x, x[:2]), r"must have one shape, got \(3, 2\), \(2, 2\)"),
        (lambda x: pair(x, x, torch.zeros(2)), r"and groups \(2,\)"),
        (lambda x: torch.vmap(pair)(x[None], x[None]), "one batch at a time"),
    ],
)
def test_pairs_that_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(3, 2))
