"""Diffusion of Gaussian data, where every answer is known; and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional.chain import level_nats, prior_nats
from deepweave.functional.schedule import KINDS, TARGETS, WEIGHTS, Schedule, coefficients
from deepweave.testing import check_objective

MEAN, CENTRE = torch.tensor([0.7, -0.4, 0.1]).double(), 0.3


class Exact(nn.Module):
    """What the best network says of N(m, S): F of the exact E[x | y]."""

    def __init__(self, cov, target="balanced", data=0.5):
        super().__init__()
        self.cov, self.target, self.data = cov, target, data
        self.idle = nn.Parameter(torch.zeros((), dtype=cov.dtype))

    def forward(self, inner, level):
        s = torch.exp(4 * level)
        skip, out, scale = (c[:, None] for c in coefficients(self.target, s, self.data))
        y, mean = inner / scale, MEAN.to(inner.dtype) - CENTRE
        gain = self.cov @ torch.linalg.inv(self.cov + s[:, None, None] ** 2 * torch.eye(3))
        x = mean + torch.einsum("bij,bj->bi", gain, y - mean)
        return (x - skip * y) / out + self.idle


@pytest.fixture
def gauss():
    torch.manual_seed(0)
    root = torch.randn(3, 3, dtype=torch.float64) * 0.5
    cov = root @ root.T + 0.05 * torch.eye(3).double()
    law = torch.distributions.MultivariateNormal(MEAN, cov)
    return cov, law


def exact(cov, target="balanced", **options):
    options = {"shape": (3,), "centre": CENTRE, **options}
    return dw.Denoise(Exact(cov, target), target=target, **options)


@pytest.mark.parametrize("target", TARGETS)
def test_likelihood_is_the_exact_one(gauss, target):
    cov, law = gauss
    far = Schedule(highest=2000.0)  # where the data's own spread no longer shows
    method, x = exact(cov, target, schedule=far), law.sample((40,))
    found, error = method.log_likelihood(x, steps=500)
    assert torch.allclose(found, law.log_prob(x), atol=3e-3)
    assert torch.equal(error, torch.zeros(40).double())
    coarse = method.log_likelihood(x)[0]
    assert float((coarse - law.log_prob(x)).mean().abs()) < 0.02
    torch.manual_seed(1)
    guess, error = method.log_likelihood(x, steps=500, probes=64)
    z = (guess - found) / error
    assert float(z.abs().max()) < 5
    assert 0.5 < float(z.square().mean()) < 2  # the error is what it says


@pytest.mark.parametrize("target", TARGETS)
def test_the_bound_of_the_best_network_is_tight(gauss, target):
    """Its mean over the data is the entropy of the data with the lowest level's noise."""
    cov, law = gauss
    torch.manual_seed(1)
    x = law.sample((4000,))
    found, error = exact(cov, target).bound(x, draws=64)
    least = torch.eye(3).double() * 0.002**2
    entropy = torch.distributions.MultivariateNormal(MEAN, cov + least).entropy()
    spread = float(found.std()) / math.sqrt(len(x))
    assert float(found.mean()) == pytest.approx(float(entropy), abs=4 * spread)
    assert spread < 0.1
    again, _ = exact(cov, target).bound(x, draws=64)
    z = (again - found) / (error * math.sqrt(2))
    assert float(z.square().mean()) == pytest.approx(1, abs=0.4)
    worse = exact(cov * 2, target).bound(x, draws=16)[0]
    assert float(worse.mean()) > float(entropy) + 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("target", ["balanced", "noise", "flow"])
def test_the_loss_weighed_as_the_bound_is_the_bound(gauss, kind, target):
    """Whatever levels are trained on, and whatever F is."""
    cov, law = gauss
    one = Schedule(kind, lowest=0.05, highest=20.0, centre=-0.5, width=2.0)
    wrong = Exact(cov * 1.5, target)
    method = dw.Denoise(wrong, one, target, weight="bound", shape=(3,), centre=CENTRE)
    torch.manual_seed(2)
    x = law.sample((60_000,))
    loss, each = float(method(x)[0].detach()), method.bound(x, draws=8)[0]
    assert loss == pytest.approx(float(each.mean()), abs=0.06)


def test_of_levels_the_bound_counts_probabilities():
    """One value of two levels, told by a network that knows how often each is: log 2 is enough."""
    share = 0.3

    class Knows(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = nn.Parameter(torch.zeros(()).double())

        def forward(self, inner, level):
            s = torch.exp(4 * level)[:, None]
            y = inner * (s**2 + 0.25).sqrt()
            odds = math.log(share / (1 - share)) + y / s**2  # levels are at -1/2 and 1/2
            return torch.sigmoid(odds) - 0.5 + self.idle

    method = dw.Denoise(Knows(), target="data", levels=2, shape=(1,))
    torch.manual_seed(0)
    x = (torch.rand(4000, 1, dtype=torch.float64) < share).double()
    nats = -(share * math.log(share) + (1 - share) * math.log(1 - share))
    found = method.bound(x, draws=64)[0]
    exact_mean = float(-(x * math.log(share) + (1 - x) * math.log(1 - share)).mean())
    # above it, since P(x | y) of the lattice takes both levels to be as frequent
    assert exact_mean - 0.02 < float(found.mean()) < exact_mean + 0.06
    assert abs(exact_mean - nats) < 0.02
    flow = -method.log_likelihood(x[:300], steps=200)[0]
    truth = -(x[:300] * math.log(share) + (1 - x[:300]) * math.log(1 - share)).squeeze(1)
    assert -0.05 < float((flow - truth).mean()) < 0.1
    costs = method.judge(x[:5])
    assert torch.allclose(costs["bits_per_dim"], costs["nll"] / math.log(2))
    plain = method.plain(x)(x)
    assert float(plain["nll"].mean()) == pytest.approx(exact_mean, abs=1e-3)


def test_the_prior_costs_its_divergence():
    x = torch.tensor([[1.5, -2.0], [0.0, 0.3]]).double()
    normal, wide = torch.distributions.Normal, math.hypot(3.0, 0.5)
    each = torch.distributions.kl_divergence(normal(x, 3.0), normal(torch.zeros_like(x), wide))
    assert torch.allclose(prior_nats(x, 3.0, 0.5), each.sum(1))


def test_what_the_lowest_level_leaves_open():
    """-log P(x | y) against all levels written out, with much noise and little."""
    torch.manual_seed(0)
    x = torch.randint(0, 17, (6, 5)).double() / 16
    for low in (0.005, 0.06, 1.0):
        y = x + low * torch.randn_like(x)
        every = torch.arange(17).double() / 16
        logits = -((y[..., None] - every) / low).square() / 2
        code = (x * 16).round().long()
        wanted = -logits.log_softmax(-1).gather(-1, code[..., None]).flatten(1).sum(1)
        assert torch.allclose(level_nats(x, y, low, 17), wanted, atol=1e-9)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("sampler", ["dpm", "heun", "euler", "ancestral"])
def test_samples_have_the_mean_and_covariance(gauss, target, sampler):
    cov, _ = gauss
    torch.manual_seed(3)
    steps = 40 if sampler in ("dpm", "heun") else 400
    made = exact(cov, target).sample(8000, sampler=sampler, steps=steps)
    assert torch.allclose(made.mean(0), MEAN, atol=0.06)
    assert torch.allclose(made.T.cov(), cov, atol=0.12)


def test_inpainting_keeps_what_is_known(gauss):
    cov, law = gauss
    torch.manual_seed(4)
    known = law.sample((1,)).expand(4000, 3).clone()
    mask = torch.tensor([True, False, False])
    found = exact(cov).inpaint(known, mask, steps=100)
    assert torch.allclose(found[:, 0], known[:, 0])
    pull = cov[1:, 0] / cov[0, 0]
    wanted = MEAN[1:] + pull * (known[0, 0] - MEAN[0])
    free = found[:, 1:].mean(0)
    assert float((free - wanted).norm()) < 0.5 * float((MEAN[1:] - wanted).norm())
    method = exact(cov)
    with pytest.raises(ValueError, match="known and mask go together"):
        method.sample(2, known=known[:2])
    with pytest.raises(ValueError, match=r"known must be \(2, 3\), got \(4000, 3\)"):
        method.sample(2, known=known, mask=mask)
    for wrong in (mask.double(), torch.ones(2, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"bools that expand to \(4000, 3\)"):
            method.inpaint(known, wrong)
    with pytest.raises(ValueError, match="known must be finite"):
        method.inpaint(known * torch.nan, mask)


def test_guidance_moves_towards_the_class():
    """Two classes at -1 and 1: told, untold, and beyond."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.idle = nn.Parameter(torch.zeros(()))

        def forward(self, inner, level, told):
            return (told @ torch.tensor([[-1.0], [1.0]])) + self.idle

    method = dw.Denoise(Net(), target="data", classes=2, shape=(1,), centre=0.0)
    y = torch.tensor([0, 1, 1])
    assert method.sample(3, y)[:, 0].tolist() == [-1.0, 1.0, 1.0]
    assert method.sample(3, y, guidance=2.0)[:, 0].tolist() == [-2.0, 2.0, 2.0]
    assert method.sample(3)[:, 0].tolist() == [0.0] * 3
    cut = method.sample(3, y, guidance=4.0, clip=(-1.5, 1.5))
    assert cut[:, 0].tolist() == [-1.5, 1.5, 1.5]
    seen = method._told(torch.ones(10_000, dtype=torch.long), torch.zeros(10_000, 1), True)
    assert float(seen.sum(1).mean()) == pytest.approx(0.9, abs=0.02)


def make(**options):
    shape = (2,)
    classes = options.get("classes", 0)
    options = {"shape": shape, "centre": 0.0, **options}
    return dw.Denoise(dw.nn.denoiser((shape, 1), 16, 1, classes=classes), **options)


@pytest.mark.parametrize(
    "options",
    [{"target": t} for t in TARGETS]
    + [{"weight": w, "schedule": Schedule(lowest=0.1)} for w in WEIGHTS]
    + [{"schedule": Schedule(k, highest=10.0)} for k in KINDS]
    + [{"classes": 3}, {"levels": 5, "centre": 0.5}, {"pairing": True}],
    ids=str,
)
def test_it_learns_whatever_is_asked(options):
    """The contract, but for pairing, which vmap cannot do."""
    x = torch.tensor([[0.0, 0.25], [0.5, 1.0], [0.25, 0.75]]).repeat(40, 1)
    batch = (x, torch.arange(120) % 3) if "classes" in options else x
    if not options.get("pairing"):
        check_objective(lambda: make(**options), batch, random=True)
    torch.manual_seed(0)
    method = make(**options)
    step = dw.Descent(method, "Adam", lr=1e-2)
    first = sum(float(step.evaluate(batch)["loss"]) for _ in range(20))
    for _ in range(60):
        step(batch)
    assert sum(float(step.evaluate(batch)["loss"]) for _ in range(20)) < first
    assert method.sample(4).shape == (4, 2)
    assert method.predict(batch).shape == (120,)


def test_pairing_shortens_paths():
    """Eight Gaussians by straight lines: two steps of Euler get nearer with pairs."""
    torch.manual_seed(0)
    turn = torch.arange(8) * math.pi / 4
    middle = torch.stack([turn.cos(), turn.sin()], 1)

    def draw(count):
        return middle[torch.randint(0, 8, (count,))] + 0.05 * torch.randn(count, 2)

    found = {}
    for pairing in (False, True):
        torch.manual_seed(1)
        straight = Schedule("straight", lowest=0.01, highest=100.0, data=0.7)
        method = dw.Denoise(
            dw.nn.denoiser(((2,), 1), 64, 2), straight, "flow", pairing=pairing, shape=(2,),
            centre=0.0,
        )  # fmt: skip
        step = dw.Descent(method, "Adam", lr=3e-3)
        for _ in range(500):
            step(draw(128))
        made = method.sample(1000, sampler="euler", steps=3, spacing="time")
        found[pairing] = float(torch.cdist(made, middle).min(1).values.mean())
    assert found[True] < 0.8 * found[False]
    with pytest.raises(ValueError, match="with pairing there is no bound"):
        method.bound(draw(4))
    with pytest.raises(ValueError, match="another sampler than ancestral"):
        method.sample(4, sampler="ancestral")
    assert method.judge(draw(4))["nll"].shape == (4,)
    with pytest.raises(ValueError, match="one batch at a time"):
        dw.Population(method, 2, "Adam", lr=1e-3)(draw(8))


def test_a_run_and_its_scores(tmp_path):
    data = dw.data.load("digits", limit=300)
    net = dw.nn.denoiser(data.spec, 32, 1, classes=10)
    method = dw.Denoise(net, levels=17, classes=10)
    run = dw.fit(method, data, epochs=2, batch=64, out=tmp_path / "run")
    scores = run.test()
    assert scores == run.test()
    assert set(scores) == {"test/nll", "test/bits_per_dim"}
    assert scores["test/nll"].low < float(scores["test/nll"]) < scores["test/nll"].high
    x = data.test.x
    assert 1 < run.info["baseline"]["test/bits_per_dim"]["value"] < 4
    back = dw.load(tmp_path / "run")
    level, told = torch.zeros(len(x)), torch.zeros(len(x), 10)
    assert torch.allclose(back(x, level, told), method.model(x, level, told))
    made = method.sample(3, torch.tensor([1, 2, 3]), guidance=2.0)
    assert made.shape == (3, 1, 8, 8)
    dw.functional.observation.Categorical(17).check(made)  # on the levels


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(target="x0"), "target must be one of noise, data"),
        (lambda: make(weight="snr"), "weight must be one of simple, edm"),
        (lambda: make(drop=1.0), r"drop must lie in \[0, 1\) .* got 1.0 and 0"),
        (
            lambda: dw.Denoise(nn.Linear(2, 2), classes=-1),
            "classes not be below 0, got 0.1 and -1",
        ),
        (lambda: dw.nn.denoiser(((2,), 1), 0), "width and blocks must be at least 1, got 0"),
        (lambda: dw.nn.unet(((2,), 1)), r"needs images \(C, H, W\), got \(2,\)"),
        (lambda: dw.nn.unet(((1, 8, 8), 1), (6,)), "4 heads do not divide the last width, 6"),
        (lambda: dw.nn.unet(((1, 8, 8), 1), ()), "widths, blocks and heads must be at least 1"),
        (lambda: make(levels=1), "levels must be at least 2, got 1"),
        (lambda: make(centre=math.nan), "centre must be finite"),
        (lambda: make(pairing=True, weight="bound"), "with pairing there is no bound"),
        (lambda: make(shape=None).sample(2), "say shape="),
        (lambda: make().sample(0), "count must be a whole number from 1, got 0"),
        (lambda: make().sample(2, steps=0), "steps must be at least 1, got 0"),
        (lambda: make().sample(2, sampler="rk4"), "sampler must be one of dpm, .* got 'rk4'"),
        (lambda: make().sample(2, spacing="even"), "spacing must be one of karras"),
        (lambda: make().sample(2, guidance=2.0), "guidance needs classes"),
        (lambda: make(classes=3).sample(2, guidance=math.inf), "guidance must be finite"),
        (lambda: make(classes=3).sample(2, guidance=2.0), "classes to be asked for"),
        (lambda: make().sample(2, clip=(1.0, 0.0)), r"clip must be \(low, high\)"),
        (lambda: make().sample(2, torch.tensor([0, 1])), "made without classes"),
        (lambda: make(classes=3).sample(2, torch.tensor([0])), r"classes must be \(2,\)"),
        (lambda: make(classes=3).sample(1, torch.tensor([3])), r"lie in 0\.\.2, got 3\.\.3"),
        (lambda: make(classes=3).sample(1, torch.tensor([-1])), r"lie in 0\.\.2, got -1"),
        (lambda: make(classes=3).sample(1, torch.tensor([1.0])), "must be whole numbers"),
        (lambda: make().bound(torch.zeros(2, 2), draws=0), "draws must be at least 1"),
        (lambda: make().log_likelihood(torch.zeros(2, 2), steps=1), "at least 2 steps"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "batch", "message"),
    [
        ({}, torch.zeros(3, 2).long(), "a tensor of floats, got torch.int64"),
        ({}, torch.full((3, 2), torch.nan), "6 of the inputs are not finite"),
        ({"levels": 5}, torch.full((3, 2), 1.25), r"values must lie in \[0, 1\], got 1.25"),
        ({"levels": 5}, torch.full((3, 2), 0.3), "values must be k / 4 of 5 levels"),
        ({"classes": 3}, torch.zeros(3, 2), "a batch must be \\(x, y\\), got x alone"),
        ({"classes": 3}, (torch.zeros(3, 2), torch.tensor([0, 1, 3])), r"0\.\.2, got 0\.\.3"),
        ({"classes": 3}, (torch.zeros(3, 2), torch.zeros(2).long()), r"classes must be \(3,\)"),
        ({}, (torch.zeros(3, 2), None, torch.ones(2)), r"weight must be \(3,\), got \(2,\)"),
        ({}, torch.zeros(3, 5), r"samples must be \(2,\), got \(5,\)"),
        ({"shape": None}, torch.zeros(3, 5), r"the model cannot take \(3, 5\)"),
        ({}, (1, 2, 3, 4), "a batch must be x, "),
    ],
)
def test_first_batches_that_are_refused(options, batch, message):
    with pytest.raises(ValueError, match=message):
        make(**options).check(batch)
