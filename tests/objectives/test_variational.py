"""The bound of a linear Gaussian model, where everything is known; and the networks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.functional.observation import Bernoulli, Categorical, Gaussian, Logistic
from deepweave.objectives.variational import kl_normal
from deepweave.testing import check_model, check_objective

SIZES = ((1, 8, 8), 10)
X = torch.zeros(3, 2)
QUANTISED = dw.VQVAE(nn.Identity(), nn.Unflatten(1, (1, 2)), 4, features=2)


@pytest.fixture
def linear():
    """x = W z + noise: p(x) = N(0, W W' + s^2), and the posterior is known."""
    torch.manual_seed(0)
    w, std = torch.randn(5, 2).double(), 0.6
    cov = w @ w.T + std**2 * torch.eye(5)
    precision = torch.eye(2) + w.T @ w / std**2
    spread = torch.linalg.inv(precision)
    lead = spread @ w.T / std**2

    class Posterior(nn.Module):
        latent = 2

        def __init__(self, scale=1.0):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(2).double())
            self.scale = scale

        def forward(self, x):  # the best Gaussian with independent parts
            var = 1 / precision.diagonal() * self.scale
            return torch.cat([x @ lead.T + self.shift, var.log().expand(len(x), 2)], 1)

    decoder = nn.Sequential(nn.Linear(2, 5, bias=False), nn.Unflatten(1, (1, 5))).double()
    with torch.no_grad():
        decoder[0].weight.copy_(w)
    x = torch.randn(64, 5, dtype=torch.float64) @ torch.linalg.cholesky(cov).T
    truth = torch.distributions.MultivariateNormal(torch.zeros(5).double(), cov).log_prob(x)
    return dw.VAE(Posterior(), decoder, Gaussian(std)), x, truth


def test_importance_samples_find_the_likelihood(linear):
    vae, x, truth = linear
    torch.manual_seed(1)
    found, error = vae.log_likelihood(x, samples=2000)
    z = (found - truth) / error
    assert float(z.abs().max()) < 5
    assert float(z.square().mean()) == pytest.approx(1, abs=0.6)  # the error is what it says
    few, _ = vae.log_likelihood(x, samples=1)
    assert float(few.mean()) < float(found.mean())
    again = torch.cat([vae.log_likelihood(one[None], samples=300)[0] for one in x[:4]])
    assert torch.allclose(again, truth[:4], atol=0.3)


def test_the_bound_is_below_and_its_parts_add_up(linear):
    vae, x, truth = linear
    torch.manual_seed(1)
    many = torch.stack([vae((x,))[0] for _ in range(200)]).mean()
    loss, logs = vae(x)
    many, loss = many.detach(), loss.detach()
    assert float(many) > float(-truth.mean())
    assert torch.allclose(loss, logs["reconstruction"] + logs["kl"])
    mean, log_var = vae.encode(x)
    normal = torch.distributions.Normal(mean, (log_var / 2).exp())
    wanted = torch.distributions.kl_divergence(
        normal, torch.distributions.Normal(torch.zeros_like(mean), 1.0)
    )
    assert torch.allclose(kl_normal(mean, log_var), wanted)
    weighed = vae((x, None, torch.cat([torch.ones(1), torch.zeros(63)]).double()))[1]["kl"]
    assert torch.allclose(weighed, wanted[0].sum())
    torch.manual_seed(2)
    iwae = dw.IWAE(vae.encoder, vae.decoder, vae.likelihood, samples=50)
    tight = float(iwae(x)[0].detach())
    assert float(-truth.mean()) - 0.05 < tight < float(many)


def test_beta_free_nats_and_members():
    def make(**options):
        return dw.VAE(
            dw.nn.gaussian_encoder(SIZES, 3, (8,)), dw.nn.decoder(SIZES, 3, (8,)), **options
        )

    x = torch.rand(6, 1, 8, 8)
    torch.manual_seed(0)
    vae = make(free=2.0)
    loss, logs = vae(x)
    assert float(loss.detach()) == pytest.approx(float(logs["reconstruction"]) + 3 * 2.0, rel=1e-5)
    assert float(logs["kl"]) < 6
    many = dw.Population([make(beta=b) for b in (0.0, 1.0, 50.0)], optimizer="Adam", lr=1e-2,
                         shared=True)  # fmt: skip
    for _ in range(60):
        logs = many((x,))
    assert logs["kl"][0] > logs["kl"][1] > logs["kl"][2]


@pytest.mark.parametrize(
    "kind", [Bernoulli(), Gaussian(0.2), Gaussian(), Logistic(17), Categorical(17)]
)
@pytest.mark.parametrize("widths", [(), (4, 6)])
def test_every_likelihood_learns(kind, widths):
    x = (torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 16).round() / 16

    def make():
        return dw.VAE(
            dw.nn.gaussian_encoder(SIZES, 2, (6,), widths=widths),
            dw.nn.decoder(SIZES, 2, (6,), numbers=kind.numbers, widths=widths[::-1]),
            kind,
        )

    check_objective(make, x, lr=1e-2, random=True)
    vae = make()
    assert vae.predict(x).shape == vae.sample(5).shape == vae.sample(5, drawn=True).shape == x.shape


def test_classes_and_a_prior():
    torch.manual_seed(0)
    options = {"classes": 3}
    vae = dw.VAE(
        dw.nn.gaussian_encoder(SIZES, 2, (6,), widths=(4,), **options),
        dw.nn.decoder(SIZES, 2, (6,), widths=(4,), **options),
        classes=3,
    )
    batch = torch.rand(6, 1, 8, 8), torch.arange(6) % 3
    vae.check(batch)
    assert vae.sample(6, batch[1]).shape == batch[0].shape
    assert float(vae(batch)[0].detach()) > 0
    for wrong, told in (
        (batch[0], "a batch must be"),
        ((batch[0], batch[1] + 1), r"0\.\.2, got 1\.\.3"),
    ):
        with pytest.raises(ValueError, match=told):
            vae.check(wrong)

    class Wide(nn.Module):
        def log_prob(self, z):
            return torch.distributions.Normal(0.0, 3.0).log_prob(z).sum(-1)

        def sample(self, count):
            return 3 * torch.randn(count, 2)

    own = dw.VAE(dw.nn.gaussian_encoder(SIZES, 2), dw.nn.decoder(SIZES, 2), prior=Wide())
    assert own.sample(4).shape == (4, 1, 8, 8)
    mean, log_var = torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2)
    z = mean + torch.randn(20_000, 2)
    found = own.divergence(z, mean, log_var).mean().detach()
    exact = sum(math.log(3) + (1 + m**2) / 18 - 0.5 for m in (0.0, 1.0))
    assert float(found) == pytest.approx(exact, abs=0.02)


def test_a_prior_that_is_told_the_class():
    """Where classes lie apart among the latent numbers, and the prior knows where."""
    torch.manual_seed(0)
    y = torch.arange(2).repeat(2000)
    prior = dw.nn.affine_flow(2, 2, (8,), context=2)

    class Placed(nn.Module):  # q(z | x, y) is N(+-3, 1)
        latent = 2

        def forward(self, x, told):
            middle = (told[:, :1] - told[:, 1:]) * 3
            return torch.cat([middle.expand(-1, 2), torch.zeros(len(x), 2)], 1)

    vae = dw.VAE(Placed(), dw.nn.decoder((4, 1), 2, (4,), classes=2), classes=2, prior=prior)
    z = vae.encode(torch.zeros(4000, 4), y)[0] + torch.randn(4000, 2)
    split = dw.data.Split(z, y)

    class Told(dw.Objective):
        def __init__(self):
            super().__init__()
            self.model = prior

        def forward(self, batch):
            z, y = batch
            return -self.model.log_prob(z, torch.eye(2)[y]).mean(), {}

    dw.fit(dw.Descent(Told(), "Adam", lr=0.02), split, epochs=6, batch=100, out=False)
    drawn = prior.eval().sample(2000, torch.eye(2)[y[:2000]])
    middle = torch.stack([drawn[y[:2000] == k].mean(0) for k in (0, 1)])
    assert torch.allclose(middle, torch.tensor([[3.0, 3.0], [-3.0, -3.0]]), atol=0.3)
    x = torch.full((4000, 4), 0.5).round()
    mean, log_var = vae.encode(x, y)
    assert float(vae.divergence(z, mean, log_var, y).mean().detach()) < 0.1
    assert float(vae.divergence(z, mean, log_var, 1 - y).mean().detach()) > 5
    cost = -vae.log_likelihood(x[:50], y[:50], samples=50)[0].mean()
    assert float(cost) < float(-vae.log_likelihood(x[:50], 1 - y[:50], samples=50)[0].mean()) + 1
    assert vae.sample(6, y[:6]).shape == (6, 4)
    with pytest.raises(ValueError, match="VAE: it is told classes"):
        vae.sample(6)
    with pytest.raises(ValueError, match=r"context=0 or context=3, the classes, got 2"):
        dw.VAE(Placed(), dw.nn.decoder((4, 1), 2, classes=3), classes=3, prior=prior)


def test_a_run_and_its_model(tmp_path):
    data = dw.data.load("digits", limit=200)
    vae = dw.VAE(dw.nn.gaussian_encoder(data.spec, 2, (16,)), dw.nn.decoder(data.spec, 2, (16,)))
    run = dw.fit(vae, data, epochs=2, batch=64, out=tmp_path / "run")
    back = dw.load(tmp_path / "run")
    scores = run.test()
    assert scores == run.test()  # what is drawn is fixed
    assert set(scores) == {"test/nll", "test/bits_per_dim"}
    assert scores["test/nll"].low < float(scores["test/nll"]) < scores["test/nll"].high
    per = float(scores["test/nll"]) / (64 * math.log(2))
    assert float(scores["test/bits_per_dim"]) == pytest.approx(per)
    x = data.test.x
    share = ((data.train.x.sum(0) + 1) / (len(data.train.x) + 2)).clamp(0, 1)
    wanted = -(x * share.log() + (1 - x) * (1 - share).log()).flatten(1).sum(1).mean()
    assert run.info["baseline"]["test/nll"]["value"] == pytest.approx(float(wanted), rel=1e-5)
    page = run.report().read_text()
    assert "Nats per sample" in page
    assert "each value by itself" in page
    assert torch.allclose(back(data.test.x), vae.model(data.test.x))


def test_codes_of_a_vector_quantised_one():
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.SiLU(), nn.Conv2d(16, 8, 3, 2, 1))
    decoder = nn.Sequential(
        nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1),
        nn.Unflatten(1, (1, 1)),
    )  # fmt: skip
    vq = dw.VQVAE(encoder, decoder, 32, features=8)
    x = (dw.data.load("digits", limit=300).train.x > 0.5).float()
    vq.check(x)
    step = dw.Descent(vq, "Adam", lr=3e-3)
    first = step.evaluate(x)
    for _ in range(150):
        logs = step(x)
    assert float(logs["reconstruction"]) < 0.6 * float(first["reconstruction"])
    assert float(logs["codes_used"]) > 4
    index = vq.codes(x)
    assert index.shape == (len(x), 2, 2)
    assert torch.equal(vq.predict(x), vq.decode(index))
    z = vq.encoder(x[:3]).detach().requires_grad_()  # the slope goes straight through
    code, _ = vq.codebook(z)
    assert torch.allclose(code.norm(dim=1), torch.ones(3, 2, 2))
    nearest = (torch.einsum("bfhw,kf->bkhw", z, vq.codebook.vectors())).argmax(1)
    assert torch.equal(index[:3], nearest)
    vq(x)[0].backward()
    assert all(w.grad is not None and bool((w.grad != 0).any()) for w in vq.encoder.parameters())


def test_what_a_code_costs():
    """Codes alike, and x given them: one term of the sum over all codes that p(x) is."""
    std, codes = 0.3, 4
    vq = dw.VQVAE(nn.Identity(), nn.Unflatten(1, (1, 2)), codes, Gaussian(std), features=2)
    with torch.no_grad():
        vq.codebook.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -3.0]]))
    centre = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    x = centre + 0.1 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    found = vq.judge((x, torch.arange(4)))
    assert set(found) == {"nll"}  # real values have no bits
    part = torch.distributions.Normal(centre[:, None], std).log_prob(x).sum(-1)  # (codes, samples)
    assert torch.allclose(found["nll"], math.log(codes) - part.diagonal(), atol=1e-5)
    truth = math.log(codes) - part.logsumexp(0)
    assert bool((found["nll"] >= truth).all())
    assert torch.allclose(found["nll"], truth, atol=0.01)  # no other code could have made them

    places = nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv2d(1, 3, 1))
    vq = dw.VQVAE(places, nn.Conv2d(3, 5, 1), 7, Categorical(5), features=3)
    x = torch.randint(5, (6, 2, 4)) / 4
    said = vq.decoder(vq.codebook.look_up(vq.codes(x))).log_softmax(1)
    nll = -said.gather(1, (x * 4).round().long()[:, None]).flatten(1).sum(1) + 8 * math.log(7)
    found = vq.judge(x)
    assert torch.allclose(found["nll"], nll, atol=1e-4)
    assert torch.allclose(found["bits_per_dim"], nll / (8 * math.log(2)), atol=1e-5)


def test_a_run_of_codes_is_scored(tmp_path):
    data = dw.data.load("digits", limit=200)
    draws = nn.Sequential(nn.ConvTranspose2d(4, 17, 4, 4), nn.Unflatten(1, (17, 1)))
    vq = dw.VQVAE(nn.Conv2d(1, 4, 4, 4), draws, 8, Categorical(17), features=4)
    run = dw.fit(vq, data, epochs=1, batch=64, out=tmp_path / "run")
    scores = run.test()
    assert set(scores) == {"test/nll", "test/bits_per_dim"}
    x = data.test.x
    seen = torch.stack([(data.train.x * 16 == level).sum(0) + 1.0 for level in range(17)])
    share = (seen / seen.sum(0)).log()[None].expand(len(x), *seen.shape)
    nll = -share.gather(1, (x * 16).round().long()[:, None]).flatten(1).sum(1)
    assert run.info["baseline"]["test/nll"]["value"] == pytest.approx(float(nll.mean()), rel=1e-5)
    assert "Nats per sample" in run.report().read_text()


@pytest.mark.parametrize("widths", [(), (4, 6), (3, 4, 5)])
def test_networks_are_models(widths):
    for sizes in (((2, 7, 9), 1), ((1, 8, 8), 1), ((1, 7, 7), 1), ((3, 28, 28), 1), ((3, 1, 5), 1)):
        x = torch.rand(4, *sizes[0])
        check_model(lambda s=sizes: dw.nn.gaussian_encoder(s, 3, (5,), widths=widths), x)
        z = torch.randn(4, 3)
        back = widths[::-1]
        made = dw.nn.decoder(sizes, 3, (5,), numbers=2, widths=back)
        assert made(z).shape == (4, 2, *sizes[0])
        check_model(lambda s=sizes, b=back: dw.nn.decoder(s, 3, (5,), widths=b), z)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dw.nn.decoder(SIZES, 0), "latent must be at least 1, got 0"),
        (lambda: dw.nn.gaussian_encoder((5, 1), 2, widths=(4,)), r"images \(C, H, W\), got \(5,\)"),
        (lambda: dw.nn.decoder(SIZES, 2)(torch.zeros(3, 4)), r"z must be \(B, 2\), got \(3, 4\)"),
        (lambda: dw.VAE(nn.Linear(2, 2), nn.Linear(2, 2), beta=-1.0), "beta must be finite"),
        (
            lambda: dw.IWAE(nn.Linear(2, 2), nn.Linear(2, 2), samples=0),
            "samples must be at least 1",
        ),
        (
            lambda: dw.IWAE(nn.Linear(2, 2), nn.Linear(2, 2), samples=2.5),
            "samples must be at least 1, got 2.5",
        ),
        (
            lambda: dw.VAE(nn.Linear(2, 2), nn.Linear(2, 2)).log_likelihood(X, samples=0),
            "samples must be at least 1, got 0",
        ),
        (lambda: QUANTISED.decode(torch.full((3, 1), 4)), r"whole numbers in 0\.\.3"),
        (lambda: QUANTISED.decode(torch.full((3, 1), -1)), r"whole numbers in 0\.\.3"),
        (lambda: QUANTISED.decode(torch.zeros(3, 1)), r"whole numbers in 0\.\.3"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_each_class_says_its_own_name():
    coders = dw.nn.gaussian_encoder(SIZES, 2), dw.nn.decoder(SIZES, 2)
    for kind in (dw.VAE, dw.IWAE):
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: 192 of the inputs"):
            kind(*coders).check(torch.full((3, 1, 8, 8), torch.nan))
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: a batch must be x"):
            kind(*coders).judge((1, 2, 3, 4))
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: with classes a batch must"):
            kind(*coders, classes=2).check(torch.zeros(3, 1, 8, 8))
        with pytest.raises(ValueError, match=rf"^{kind.__name__}: free|^{kind.__name__}: samples"):
            kind(*coders, **{"VAE": {"free": -1.0}, "IWAE": {"samples": 0}}[kind.__name__])


@pytest.mark.parametrize(
    ("likelihood", "told"), [(Gaussian, "Gaussian"), ("logistic", "'logistic'"), (0.1, "0.1")]
)
def test_likelihoods_that_are_none(likelihood, told):
    for make in (
        lambda: dw.VAE(nn.Linear(2, 2), nn.Linear(2, 2), likelihood),
        lambda: dw.VQVAE(nn.Linear(2, 2), nn.Linear(2, 2), 4, likelihood, features=2),
    ):
        with pytest.raises(TypeError, match=rf"likelihood must be one such as .*, got {told}$"):
            make()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((3, 1, 8, 8), 2.0), r"values must lie in \[0, 1\], got 2"),
        (torch.full((3, 1, 8, 8), torch.nan), "192 of the inputs are not finite"),
        (torch.zeros(3, 1, 7, 8), "the networks cannot take"),
        (torch.zeros(3, 1, 8, 8).long(), "a tensor of floats, got torch.int64"),
    ],
)
def test_first_batches_that_are_refused(x, message):
    vae = dw.VAE(dw.nn.gaussian_encoder(SIZES, 2), dw.nn.decoder(SIZES, 2))
    with pytest.raises(ValueError, match=message):
        vae.check(x)
    two = dw.VAE(dw.nn.gaussian_encoder(SIZES, 2), dw.nn.decoder(SIZES, 2, numbers=2))
    with pytest.raises(ValueError, match=r"decoder must give \(2, 1, 1, 8, 8\), got \(2, 2, 1"):
        two.check(torch.zeros(2, 1, 8, 8))
