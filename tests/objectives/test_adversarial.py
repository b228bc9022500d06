"""Two sides: their losses by formula, whose slopes reach whom, and what is learnt."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional import adversarial as losses
from deepweave.nn.discriminator import Spectral
from deepweave.testing import check_model

SIZES = ((2,), 1)
PAIRS = {
    "nonsaturating": losses.nonsaturating, "least squares": losses.least_squares,
    "hinge": losses.hinge_gan, "wasserstein": losses.wasserstein,
    "relativistic": losses.relativistic,
}  # fmt: skip


def made(loss=losses.relativistic, **options):
    return dw.GAN(dw.nn.decoder(SIZES, 3, (8,)), dw.nn.discriminator(SIZES, (8,)), loss, **options)


def ring(count, seed=0):
    """Eight Gaussians on a circle."""
    random = torch.Generator().manual_seed(seed)
    mode = torch.randint(8, (count,), generator=random)
    angle = mode * math.pi / 4
    centre = torch.stack([angle.cos(), angle.sin()], 1)
    return centre + 0.05 * torch.randn(count, 2, generator=random), mode


class TestLosses:
    def test_formulas(self):
        real, fake = torch.tensor([2.0, -1.0]), torch.tensor([0.5, -3.0])
        d, g = real.sigmoid(), fake.sigmoid()
        found = losses.nonsaturating(real, fake)
        assert torch.allclose(found[0], -d.log().mean() - (1 - g).log().mean())
        assert torch.allclose(found[1], -g.log().mean())
        found = losses.relativistic(real, fake)
        assert torch.allclose(found[0], -(real - fake).sigmoid().log().mean())
        assert torch.allclose(found[1], -(fake - real).sigmoid().log().mean())
        assert losses.hinge_gan(real, fake)[0] == (0 + 2) / 2 + (1.5 + 0) / 2
        assert losses.wasserstein(real, fake)[0] == fake.mean() - real.mean()
        assert losses.least_squares(real, fake)[1] == ((fake - 1) ** 2).mean() / 2

    @pytest.mark.parametrize("name", PAIRS)
    def test_far_logits_stay_finite(self, name):
        real = torch.tensor([1e4, -1e4]).requires_grad_()
        fake = torch.tensor([-1e4, 1e4]).requires_grad_()
        critic, generator = PAIRS[name](real, fake)
        for loss in (critic, generator):
            slopes = torch.autograd.grad(loss, (real, fake), retain_graph=True, allow_unused=True)
            assert loss.isfinite()
            assert all(s is None or s.isfinite().all() for s in slopes)

    def test_penalties(self):
        weight = torch.tensor([3.0, 4.0])
        x, fake = torch.randn(5, 2), torch.randn(5, 2)
        assert torch.allclose(losses.squared_slope(lambda v: v @ weight, x), torch.full((5,), 25.0))
        found = losses.gradient_penalty(lambda v: v @ weight, x, fake)
        assert torch.allclose(found, torch.full((5,), 16.0))


@pytest.mark.parametrize("name", PAIRS)
def test_as_an_objective_of_its_own(name):
    x = ring(6)[0]
    gan = made(PAIRS[name], r1=0.1, r2=0.1, penalty=0.1 * (name == "wasserstein"))
    gan.check(x)
    torch.manual_seed(0)
    loss, logs = gan(x)
    loss.backward()
    together = {n: w.grad.clone() for n, w in gan.named_parameters()}
    assert {"critic", "generator", "told", "penalty"} == set(logs)
    gan.zero_grad()
    # each side's slopes are those of its own loss alone
    torch.manual_seed(0)
    fake = gan.generator(torch.randn(6, 3)).squeeze(1)
    said = gan.discriminator(fake).flatten()
    g_loss = gan.loss(gan.discriminator(x).flatten().detach(), said)[1]
    for weight, slope in zip(
        gan.generator.parameters(),
        torch.autograd.grad(g_loss, list(gan.generator.parameters()), allow_unused=True),
    ):
        known = next(n for n, w in gan.named_parameters() if w is weight)
        assert torch.allclose(together[known], slope, atol=1e-6)
    torch.manual_seed(0)
    critic, _ = gan.critic(x)
    slopes = torch.autograd.grad(critic, list(gan.discriminator.parameters()), allow_unused=True)
    for (known, _), slope in zip(gan.discriminator.named_parameters(), slopes):
        if name != "wasserstein" and slope is not None:
            assert torch.allclose(together[f"discriminator.{known}"], slope, atol=1e-5)


@pytest.mark.parametrize("name", [*PAIRS, "a loss of one's own"])
def test_real_logits_are_found_where_they_are_used(name):
    loss = PAIRS.get(name, lambda real, fake: (fake.mean(), (fake - real.mean()).square().mean()))
    gan, x, seen = made(loss), ring(6)[0], []
    gan.discriminator.register_forward_hook(lambda *_: seen.append(1))
    torch.manual_seed(0)
    found = gan.generate(x)[0]
    assert len(seen) == (2 if name in ("relativistic", "a loss of one's own") else 1)
    torch.manual_seed(0)
    fake = gan._made(6, x, None)
    wanted = loss(gan.discriminator(x).flatten(), gan.discriminator(fake).flatten())[1]
    assert torch.equal(found, wanted)
    seen.clear()
    gan(x)
    assert len(seen) == 3


def test_a_discriminator_with_batch_statistics_and_slopes():
    def gan(norm, loss=losses.nonsaturating, **options):
        critic = nn.Sequential(nn.Linear(2, 8), norm(), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        return dw.GAN(dw.nn.decoder(SIZES, 3, (8,)), critic, loss, **options)

    x = ring(16)[0]
    for options in ({"r1": 1.0}, {"r2": 1.0}, {"penalty": 10.0}):
        told = r"^GAN: .* BatchNorm1d \(1\) .*: take spectral norm, GroupNorm or LayerNorm$"
        with pytest.raises(ValueError, match=told):
            dw.fit(dw.Alternate(gan(lambda: nn.BatchNorm1d(8), **options)), [x], steps=1)
        dw.fit(dw.Alternate(gan(lambda: nn.LayerNorm(8), **options)), [x], steps=1)
    plain = gan(lambda: nn.BatchNorm1d(8))
    before = plain.discriminator[1].running_mean.clone()
    plain.check(x)
    assert torch.equal(plain.discriminator[1].running_mean, before)  # looking changes nothing
    assert plain.discriminator.training
    dw.fit(dw.Alternate(plain), [x], steps=1)


def test_alternate_moves_one_side_at_a_time():
    x, gan = ring(16)[0], made(r1=0.1)
    step = dw.Alternate(gan, lr=1e-2, ratio=3)
    before = {n: w.clone() for n, w in gan.named_parameters()}
    for count in range(1, 4):
        logs = step((x, torch.zeros(16)))
        moved = {n for n, w in gan.named_parameters() if not torch.equal(w, before[n])}
        assert any(n.startswith("discriminator") for n in moved)
        assert any(n.startswith("generator") for n in moved) == (count == 3)
        assert ("generator" in logs) == (count == 3)
    assert all(w.grad is None for w in gan.parameters())
    again = dw.Alternate(made(r1=0.1), lr=1e-2, ratio=3)
    again.restore(copy.deepcopy(step.state()))
    torch.manual_seed(5)
    step(x)
    torch.manual_seed(5)
    again(x)
    for a, b in zip(step.weights().values(), again.weights().values()):
        assert torch.equal(a, b)


def test_a_run_is_repeated_and_keeps_the_generator(tmp_path):
    x = ring(64)[0]

    def run(out):
        torch.manual_seed(0)
        return dw.fit(dw.Alternate(made(), lr=1e-3), [x] * 6, epochs=1, out=out)

    first, again = run(tmp_path / "a"), run(tmp_path / "b")
    z = torch.randn(2, 3)
    kept = dw.load(tmp_path / "a")(z)
    assert torch.equal(kept, first.model(z))
    assert torch.equal(kept, again.model(z))


def test_a_population_with_a_penalty_runs_on_several_threads():
    """Counting its operations, by which threads are chosen, stumbles over slopes within a loss."""
    was = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        many = dw.Population(
            [made(losses.wasserstein, penalty=10.0) for _ in range(2)],
            optimizer="Adam",
            shared=True,
        )
        run = dw.fit(many, [ring(16)[0]] * 2, epochs=1, out=False)
    finally:
        torch.set_num_threads(was)
    assert run.info["steps"] == 2


@pytest.mark.long
def test_all_modes_of_a_ring_are_found():
    torch.manual_seed(0)
    gan = dw.GAN(
        dw.nn.decoder(SIZES, 8, (64, 64)), dw.nn.discriminator(SIZES, (64, 64)), r1=0.1, r2=0.1
    )
    step = dw.Alternate(gan, lr=2e-3)
    random = torch.Generator().manual_seed(1)
    x, _ = ring(4000)
    for _ in range(1500):
        step(x[torch.randint(len(x), (256,), generator=random)])
    fake = gan.sample(2000)
    angle = torch.atan2(fake[:, 1], fake[:, 0])
    mode = (angle / (math.pi / 4)).round().long() % 8
    share = torch.bincount(mode, minlength=8) / 2000
    assert float(share.min()) > 0.05
    near = (fake - ring(4000, 1)[0][torch.cdist(fake, ring(4000, 1)[0]).argmin(1)]).norm(dim=1)
    assert float((near < 0.15).float().mean()) > 0.65


def test_many_seeds_at_once_and_classes():
    x, y = ring(32)
    many = dw.Population([made(r1=0.1) for _ in range(3)], optimizer="Adam", lr=1e-3, shared=True)
    for _ in range(3):
        logs = many(x)
    assert logs["critic"].shape == (3,)
    told = {"classes": 8}
    gan = dw.GAN(
        dw.nn.decoder(SIZES, 3, (8,), **told), dw.nn.discriminator(SIZES, (8,), **told), classes=8
    )
    gan.check((x, y))
    dw.Alternate(gan)((x, y))
    assert gan.sample(32, y).shape == (32, 2)


def test_networks():
    for spectral in (False, True):
        check_model(
            lambda s=spectral: dw.nn.discriminator(((1, 6, 6), 1), (5,), widths=(3,), spectral=s),
            torch.rand(4, 1, 6, 6),
        )
    for shape in ((5, 7), (4, 3, 3, 3), (1, 6)):
        w = torch.randn(shape)
        top = torch.linalg.matrix_norm(Spectral()(w).flatten(1), 2)
        assert 0.999 < float(top) < 1.1
    random = torch.Generator().manual_seed(0)
    weight = torch.diag(torch.tensor([4.0, 1.0, 0.5])) + 0.1 * torch.randn(3, 3, generator=random)
    weight = weight.double().requires_grad_()
    found = torch.autograd.grad(Spectral()(weight)[0, 1], weight)[0]
    wanted = torch.autograd.grad((weight / torch.linalg.svdvals(weight)[0])[0, 1], weight)[0]
    assert torch.allclose(found, wanted, atol=1e-6)
    out = dw.nn.decoder(SIZES, 2, output="sigmoid")(torch.randn(3, 2))
    assert bool((out > 0).all() & (out < 1).all())
    assert out.shape == (3, 1, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dw.GAN(nn.Linear(2, 2), nn.Linear(2, 1)), "latent must be at least 1, got None"),
        (lambda: made(r1=-1.0), "r1 must be finite and not below 0"),
        (lambda: made().check(torch.zeros(4, 3)), r"generator must give \(4, 3\), got \(4, 2\)"),
        (lambda: made().check(torch.full((4, 2), torch.inf)), "8 of the inputs are not finite"),
        (
            lambda: dw.GAN(dw.nn.decoder(SIZES, 3), nn.Linear(3, 1)).check(torch.zeros(4, 2)),
            r"^GAN: the networks cannot take \(4, 2\): ",
        ),
        (lambda: made(classes=2).check(torch.zeros(4, 2)), r"a batch must be \(x, y\)"),
        (lambda: dw.Alternate(made(), ratio=0), "ratio must be a whole number from 1, got 0"),
        (lambda: dw.Alternate(made(), ratio=1.5), "ratio must be a whole number from 1, got 1.5"),
        (
            lambda: dw.Alternate(made().requires_grad_(False)),
            "nothing to train in the discriminator: its weights are held",
        ),
        (
            lambda: made(lambda real, fake: fake.mean()).check(torch.zeros(4, 2)),
            "loss must give two numbers",
        ),
        (
            lambda: made(lambda real, fake: (real, fake)).check(torch.zeros(4, 2)),
            "loss must give two numbers",
        ),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match=r"loss must be a function of real .* got 'hinge'"):
        made("hinge")
    with pytest.raises(TypeError, match="must have critic"):
        dw.Alternate(dw.Classify(nn.Linear(2, 2)))


def test_a_discriminator_that_is_told_classes_judges_the_pair():
    """Which of two samples is the more real depends on the class: no common shift of logits."""
    torch.manual_seed(0)
    net = dw.nn.discriminator(SIZES, (8,), classes=3)
    x, eye = torch.randn(2, 2), torch.eye(3)
    gaps = torch.stack([net(x, one.expand(2, 3)).flatten().diff() for one in eye])
    assert gaps.std() > 1e-3


def test_told_classes_are_made():
    dw.chance.seed_all(0)
    x, mode = ring(2000)
    gan = dw.GAN(
        dw.nn.decoder(SIZES, 4, (64, 64), classes=8), dw.nn.discriminator(SIZES, (64,), classes=8),
        r1=0.1, r2=0.1, classes=8,
    )  # fmt: skip
    split = dw.data.Split(x, mode)
    dw.fit(dw.Alternate(gan, lr=2e-3), split, batch=128, steps=250, out=False)
    made = gan.sample(400, torch.arange(400) % 8)
    angle = torch.atan2(made[:, 1], made[:, 0]) / (math.pi / 4)
    assert ((angle.round() % 8) == torch.arange(400) % 8).float().mean() > 0.9
