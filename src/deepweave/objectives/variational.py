"""Variational autoencoders: what is behind the data, as a distribution over few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.blueprint import blueprint
from deepweave.core import Batch, Logs, Objective
from deepweave.functional.entropy import one_hot
from deepweave.functional.observation import Bernoulli, Observation
from deepweave.functional.reduction import weighted_mean
from deepweave.objectives.unlabelled import (
    by_value,
    costs,
    observed,
    parts,
    sound,
    wanted,
)

HALF = math.log(2 * math.pi) / 2


@blueprint
class Coder(nn.Module):
    """An encoder, a decoder and perhaps a prior as one model. Shapes: x -> what the decoder says"""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, prior: nn.Module | None = None):
        super().__init__()
        self.encoder, self.decoder, self.prior = encoder, decoder, prior

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x).chunk(2, 1)[0])


class VAE(Objective):
    """The evidence lower bound: -E_q log p(x | z) + beta KL(q(z | x) || p(z)), nats per sample.

    The encoder gives the mean and the log variance of q, the decoder what the likelihood needs for
    every value of x, and z = m + s e, e ~ N(0, I), carries the slope through. Both terms are sums
    over a sample, so that beta = 1 is the bound, whatever the size of x. beta is a buffer: each
    member of a Population may have its own.

    Args:
        encoder: x -> (B, 2 latent): means, then log variances.
        decoder: z (B, latent) -> (B, P, ...), P = ``likelihood.numbers``.
        likelihood: what x is given that: Bernoulli (None), Gaussian, Logistic or Categorical of
            :mod:`deepweave.functional.observation`.
        beta: the weight of the divergence (beta-VAE above 1).
        classes: 0, or how many classes y has: both are then given y one-hot, as a second input.
        free: nats of divergence of each latent number that cost nothing (against collapse).
        prior: p(z), with ``log_prob(z)`` and ``sample(n)``, such as a flow; None: N(0, I). A flow
            made with ``context=classes`` is told the class as well: p(z | y).

    Shapes: a batch x (B, ...), (x, y) or (x, y, weight) -> ()

    Raises:
        ValueError: numbers out of range; with the first batch: values that the likelihood cannot
            have, an encoder or decoder of another shape.
    Source: Kingma & Welling, Auto-encoding variational Bayes, 2014; Higgins et al., beta-VAE, 2017;
    free bits: Kingma et al., Improved variational inference with inverse autoregressive flow, 2016.

    >>> net = VAE(nn.Linear(4, 4), nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 4))))
    >>> net(torch.zeros(3, 4))[1].keys()
    dict_keys(['reconstruction', 'kl'])
    """

    beta: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Observation | None = None,
        *,
        beta: float = 1.0,
        classes: int = 0,
        free: float = 0.0,
        prior: nn.Module | None = None,
    ):
        super().__init__()
        if not 0 <= beta < math.inf:
            raise ValueError(f"{self._name}: beta must be finite and not below 0, got {beta}")
        if not 0 <= free < math.inf or classes < 0:
            raise ValueError(
                f"{self._name}: free and classes must not be below 0, got {free} and {classes}"
            )
        if prior is not None and free:
            raise ValueError(
                f"{self._name}: free nats need the divergence by numbers: leave prior out"
            )
        heard = getattr(prior, "context", 0)
        if heard not in (0, classes):
            raise ValueError(
                f"{self._name}: a prior must be made with context=0 or context={classes}, the "
                f"classes, got {heard}"
            )
        self.model = Coder(encoder, decoder, prior)
        made = Bernoulli() if likelihood is None else likelihood
        self.likelihood: Any = observed(made, self._name)
        self.classes, self.free = classes, free
        self.register_buffer("beta", torch.tensor(float(beta)))

    @property
    def _name(self) -> str:
        """Who refuses: this class, or the one that inherits from it."""
        return type(self).__name__

    @property
    def encoder(self) -> Any:
        """x -> (B, 2 latent)."""
        return self.model.encoder

    @property
    def decoder(self) -> Any:
        """z -> (B, P, ...)."""
        return self.model.decoder

    @property
    def prior(self) -> Any:
        """p(z), or None for N(0, I)."""
        return self.model.prior

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, weight = parts(batch, self._name)
        mean, log_var = self.encode(x, y)
        z = mean + (log_var / 2).exp() * torch.randn_like(mean)
        reconstruction = self.likelihood.nll(self.decode(z, y), x)
        kl = self.divergence(z, mean, log_var, y)
        cost = kl
        if self.free:
            each = kl_normal(mean, log_var)
            if weight is None:
                each = each.mean(0)
            else:
                each = (each * weight[:, None]).sum(0) / weight.sum().clamp_min(1e-30)
            cost = each.clamp_min(self.free).sum().expand_as(kl)
        loss = reconstruction + self.beta.to(kl.dtype) * cost
        logs = {
            "reconstruction": weighted_mean(reconstruction.detach(), weight),
            "kl": weighted_mean(kl.detach(), weight),
        }
        return weighted_mean(loss, weight), logs

    def encode(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of q(z | x). Shapes: x (B, ...) -> (B, latent) twice"""
        found = self.encoder(x) if not self.classes else self.encoder(x, self._told(y, x))
        mean, log_var = found.chunk(2, 1)
        return mean, 8 * torch.tanh(log_var / 8)  # neither vanishing nor exploding

    def decode(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """What the likelihood needs. Shapes: z (B, latent) -> (B, P, ...)"""
        return self.decoder(z) if not self.classes else self.decoder(z, self._told(y, z))

    def divergence(
        self, z: Tensor, mean: Tensor, log_var: Tensor, y: Tensor | None = None
    ) -> Tensor:
        """KL(q || p) of each sample: by numbers for N(0, I), else log q - log p at z. -> (B,)"""
        if self.prior is None:
            return kl_normal(mean, log_var).sum(1)
        return log_normal(z, mean, log_var) - self._prior(z, y)

    def predict(self, x: Any) -> Tensor:
        """The image made again from the mean of q; of (x, y) with classes. Shapes: -> (B, ...)"""
        x, y, _ = parts(x, self._name)
        return self.likelihood.mean(self.decode(self.encode(x, y)[0], y))

    def sample(self, count: int, y: Tensor | None = None, *, drawn: bool = False) -> Tensor:
        """New samples: the mean of p(x | z) for z of the prior; with ``drawn`` draws of it.

        Shapes: y (count,) with classes -> (count, ...)

        Raises:
            ValueError: no samples, classes that are missing, not asked for, or beyond.
        """
        wanted(count, y, self._name, self.classes)
        like = next(self.decoder.parameters())
        with torch.no_grad():
            z = self._draw(count, like, y)
            said = self.decode(z, y)
            return self.likelihood.sample(said) if drawn else self.likelihood.mean(said)

    def log_likelihood(
        self, x: Tensor, y: Tensor | None = None, *, samples: int = 100, step: int = 2000
    ) -> tuple[Tensor, Tensor]:
        """An estimate of log p(x), and its standard error, by importance sampling.

        log 1/K sum_k w_k, w_k = p(x | z_k) p(z_k) / q(z_k | x): a lower bound in the mean, which
        rises to log p(x) with K. The error is that of the mean of w, carried through the logarithm.
        All samples go through the decoder in slices of ``step``.

        Shapes: x (B, ...) -> (B,), (B,) nats

        Source: Burda, Grosse & Salakhutdinov, Importance weighted autoencoders, 2016.
        """
        if samples < 1:
            raise ValueError(f"{self._name}: samples must be at least 1, got {samples}")
        with torch.no_grad():
            each = max(1, step // samples)
            found = [
                self._weighed(part, None if y is None else y[i * each : (i + 1) * each], samples)
                for i, part in enumerate(x.split(each))
            ]
        return torch.cat([a for a, _ in found]), torch.cat([b for _, b in found])

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """The bound on -log p(x) by 64 importance samples, of each sample, in nats. -> (B,)

        Of values with levels also bits for each dimension, nats / (D log 2).
        """
        x, y, _ = parts(batch, self._name)
        nll = -self.log_likelihood(x, y, samples=64)[0]
        return costs(nll, x, self.likelihood.levels)

    def plain(self, x: Tensor) -> Callable[[Batch], dict[str, Tensor]]:
        """The baseline: each value by itself, as it is among x, with nothing behind it."""
        return by_value(self.likelihood, x, self._name)

    def _weighed(self, x: Tensor, y: Tensor | None, samples: int) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encode(x, y)
        shape = (samples, *mean.shape)
        z = mean + (log_var / 2).exp() * torch.randn(shape, dtype=mean.dtype, device=mean.device)
        flat = z.flatten(0, 1)
        many = y.repeat(samples) if self.classes and y is not None else None
        nll = self.likelihood.nll(self.decode(flat, many), x.repeat(samples, *[1] * (x.dim() - 1)))
        prior = self._prior(flat, many).view(samples, -1)
        log_w = prior - nll.view(samples, -1) - log_normal(z, mean, log_var)
        total = log_w.logsumexp(0)
        share = (log_w - total).softmax(0) * samples  # w / mean w
        error = share.std(0) / math.sqrt(samples) if samples > 1 else torch.zeros_like(total)
        return total - math.log(samples), error

    def _prior(self, z: Tensor, y: Tensor | None) -> Tensor:
        if self.prior is None:
            return -(z.square() / 2 + HALF).sum(-1)
        if getattr(self.prior, "context", 0):
            return self.prior.log_prob(z, self._told(y, z))
        return self.prior.log_prob(z)

    def _draw(self, count: int, like: Tensor, y: Tensor | None) -> Tensor:
        if self.prior is not None:
            told = (self._told(y, like),) if getattr(self.prior, "context", 0) else ()
            return self.prior.sample(count, *told)
        latent: Any = getattr(self.encoder, "latent", None) or getattr(self.decoder, "latent", None)
        if latent is None:
            raise ValueError(
                f"{self._name}: to sample, the encoder or decoder must say its number, .latent"
            )
        return torch.randn(count, int(latent), dtype=like.dtype, device=like.device)

    def _told(self, y: Tensor | None, like: Tensor) -> Tensor:
        if y is None:
            raise ValueError(f"{self._name}: with classes a batch must be (x, y), got x alone")
        return one_hot(y, self.classes).to(like.dtype)

    def check(self, batch: Batch) -> None:
        x, y, _ = sound(batch, self._name, self.classes)
        self.likelihood.check(x)
        was = self.training
        self.eval()
        try:
            with chance.aside(0), torch.no_grad():
                mean, log_var = self.encode(x, y)
                if mean.dim() != 2 or mean.shape[1] < 1 or log_var.shape != mean.shape:
                    raise ValueError(
                        f"{self._name}: the encoder must give (B, 2 latent), got means "
                        f"{tuple(mean.shape)} and log variances {tuple(log_var.shape)}"
                    )
                said = self.decode(mean, y)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{self._name}: the networks cannot take {tuple(x.shape)}: {reason}"
            ) from None
        finally:
            self.train(was)
        wanted = (len(x), self.likelihood.numbers, *x.shape[1:])
        if said.shape != wanted:
            raise ValueError(
                f"{self._name}: the decoder must give {wanted}, got {tuple(said.shape)}"
            )


class IWAE(VAE):
    """The bound of several samples, trained: -log 1/K sum_k p(x, z_k) / q(z_k | x).

    With K = 1 it is the VAE's bound; the larger K, the closer to -log p(x), and the less q must be
    the posterior itself.

    Source: Burda, Grosse & Salakhutdinov, Importance weighted autoencoders, 2016.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, likelihood: Observation | None = None,
        *, samples: int = 5, classes: int = 0, prior: nn.Module | None = None,
    ):  # fmt: skip
        super().__init__(encoder, decoder, likelihood, classes=classes, prior=prior)
        if not isinstance(samples, int) or samples < 1:
            raise ValueError(f"{self._name}: samples must be at least 1, got {samples}")
        self.samples = samples

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, weight = parts(batch, self._name)
        return weighted_mean(-self._weighed(x, y, self.samples)[0], weight), {}


def kl_normal(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - log s^2 - 1) / 2 of each number, nats.

    Shapes: (B, latent) twice -> (B, latent)

    >>> kl_normal(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
    tensor([[0., 2.]])
    """
    return (mean.square() + log_var.exp() - log_var - 1) / 2


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """log N(z; m, s^2), summed over the last dimension."""
    return -((z - mean).square() * torch.exp(-log_var) / 2 + log_var / 2 + HALF).sum(-1)
