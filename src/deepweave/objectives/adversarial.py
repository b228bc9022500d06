"""Generative adversarial networks: one makes samples, the other tells them from real ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.functional.adversarial import (
    Sides,
    gradient_penalty,
    hinge_gan,
    least_squares,
    nonsaturating,
    relativistic,
    steepness,
    wasserstein,
)
from deepweave.functional.entropy import one_hot
from deepweave.objectives.unlabelled import parts, sound, wanted

# losses whose generator's side looks at the logits of its own samples alone
ALONE = (nonsaturating, least_squares, hinge_gan, wasserstein)


class GAN(Objective):
    """A generator z -> x' and a discriminator x -> logit, against each other.

    The two sides' losses (:meth:`critic`, :meth:`generate`) are what :class:`deepweave.Alternate`
    descends in turn. As an objective of its own it is their sum, in which neither side sees the
    other's slopes (the generator learns through a discriminator whose weights are held, the
    discriminator from samples that are): one optimizer then moves both at once, and everything that
    takes an objective takes a GAN, a Population of many seeds among them.

    Args:
        generator: (B, latent) -> samples (B, 1, ...) or (B, ...); with classes also told (B, K).
        discriminator: samples -> (B,) or (B, 1) logits; with classes also told (B, K).
        loss: real and fake logits -> both losses, such as those of
            :mod:`deepweave.functional.adversarial`.
        latent: how many numbers z has; None: as the generator says.
        r1, r2: half the weight of the squared slope of the logit at real and at generated samples.
        penalty: the weight of (|slope| - 1)^2 between them (Wasserstein: 10).
        classes: 0, or how many classes y has, which both are told.

    Shapes: a batch x (B, ...), (x, y) or (x, y, weight), whose weights are left out -> ()

    Raises:
        TypeError: a loss that is no function.
        ValueError: numbers out of range; with the first batch: samples of another shape, penalties
            of a discriminator with batch statistics.
    """

    comparable = False

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        loss: Callable[[Tensor, Tensor], Sides] = relativistic,
        *,
        latent: int | None = None,
        r1: float = 0.0,
        r2: float = 0.0,
        penalty: float = 0.0,
        classes: int = 0,
    ):
        super().__init__()
        for name, value in (("r1", r1), ("r2", r2), ("penalty", penalty), ("classes", classes)):
            if not 0 <= value < math.inf:
                raise ValueError(f"GAN: {name} must be finite and not below 0, got {value}")
        if not callable(loss):
            raise TypeError(f"GAN: loss must be a function of real and fake logits, got {loss!r}")
        found = getattr(generator, "latent", None) if latent is None else latent
        if not isinstance(found, int) or found < 1:
            raise ValueError(f"GAN: latent must be at least 1, got {found}: say latent=")
        self.generator, self.discriminator = generator, discriminator
        self.loss, self.latent, self.classes = loss, found, classes
        self.r1, self.r2, self.penalty = r1, r2, penalty

    @property
    def model(self) -> nn.Module:
        """What is kept of a run: the generator."""
        return self.generator

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, _ = parts(batch, "GAN")
        fake = self._made(len(x), x, y)
        critic, logs, real = self._critic(x, fake.detach(), y)
        held = {name: w.detach() for name, w in self.discriminator.named_parameters()}
        said = functional_call(self.discriminator, held, (fake, *self._told(y, x)))
        generator = self.loss(real, said.reshape(-1))[1]
        logs["generator"] = generator.detach()
        return critic + generator, logs

    def critic(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The discriminator's loss, with its penalties."""
        x, y, _ = parts(batch, "GAN")
        with torch.no_grad():
            fake = self._made(len(x), x, y)
        return self._critic(x, fake, y)[:2]

    def generate(self, batch: Batch) -> tuple[Tensor, Logs]:
        """The generator's loss."""
        x, y, _ = parts(batch, "GAN")
        said = self._logit(self._made(len(x), x, y), y)
        real = said.detach()  # whatever stands here, where it does not matter
        if not any(self.loss is one for one in ALONE):
            with torch.no_grad():
                real = self._logit(x, y)
        loss = self.loss(real, said)[1]
        return loss, {"generator": loss.detach()}

    def sample(self, count: int, y: Tensor | None = None) -> Tensor:
        """New samples. Shapes: y (count,) with classes -> (count, ...)

        Raises:
            ValueError: no samples, classes that are missing, not asked for, or beyond.
        """
        wanted(count, y, "GAN", self.classes)
        like = next(self.generator.parameters())
        with torch.no_grad():
            return self._made(count, like, y)

    def predict(self, x: Any) -> Tensor:
        """How real the discriminator finds samples: its logits. Shapes: -> (B,)"""
        x, y, _ = parts(x, "GAN")
        return self._logit(x, y)

    def _critic(self, x: Tensor, fake: Tensor, y: Tensor | None) -> tuple[Tensor, Logs, Tensor]:
        """The loss, what to log, and the logits of the real ones, held."""

        def logit(v: Tensor) -> Tensor:
            return self._logit(v, y)

        real, real_slope = steepness(logit, x) if self.r1 else (logit(x), None)
        said, fake_slope = steepness(logit, fake) if self.r2 else (logit(fake), None)
        loss = self.loss(real, said)[0]
        logs = {
            "critic": loss.detach(),
            # how often it is right: one half, it cannot tell; one, the generator has lost
            "told": ((real > said).to(x.dtype).mean()).detach(),
        }
        if self.r1 or self.r2 or self.penalty:
            extra = loss.new_zeros(())
            for weight, slope in ((self.r1, real_slope), (self.r2, fake_slope)):
                if slope is not None:
                    extra = extra + weight / 2 * slope.mean()
            if self.penalty:
                extra = extra + self.penalty * gradient_penalty(logit, x, fake).mean()
            logs["penalty"] = extra.detach()
            loss = loss + extra
        return loss, logs, real.detach()

    def _made(self, count: int, like: Tensor, y: Tensor | None) -> Tensor:
        z = torch.randn(count, self.latent, dtype=like.dtype, device=like.device)
        made = self.generator(z, *self._told(y, z))
        return made.squeeze(1) if getattr(self.generator, "numbers", 0) == 1 else made

    def _logit(self, x: Tensor, y: Tensor | None) -> Tensor:
        return self.discriminator(x, *self._told(y, x)).reshape(-1)

    def _told(self, y: Tensor | None, like: Tensor) -> tuple[Tensor, ...]:
        if not self.classes:
            return ()
        if y is None:
            raise ValueError("GAN: with classes a batch must be (x, y), got x alone")
        return (one_hot(y, self.classes).to(like.dtype),)

    def check(self, batch: Batch) -> None:
        x, y, _ = sound(batch, "GAN", self.classes)
        if self.r1 or self.r2 or self.penalty:
            for name, layer in self.discriminator.named_modules():
                if isinstance(layer, _BatchNorm):
                    raise ValueError(
                        f"GAN: r1, r2 and penalty are slopes of one sample's logit, which "
                        f"{type(layer).__name__} ({name or 'the discriminator'}) makes hang on the "
                        "whole batch: take spectral norm, GroupNorm or LayerNorm"
                    )
        was = self.training
        self.eval()
        try:
            with chance.aside(0), torch.no_grad():
                made = self._made(len(x), x, y)
                if made.shape != x.shape:
                    raise ValueError(
                        f"GAN: the generator must give {tuple(x.shape)}, got {tuple(made.shape)}"
                    )
                said = self.discriminator(x, *self._told(y, x))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"GAN: the networks cannot take {tuple(x.shape)}: {reason}") from None
        finally:
            self.train(was)
        if said.numel() != len(x):
            raise ValueError(
                f"GAN: the discriminator must give ({len(x)},) or ({len(x)}, 1), got "
                f"{tuple(said.shape)}"
            )
        sides: Any = self.loss(said.reshape(-1), said.reshape(-1))
        if not isinstance(sides, tuple | list) or [getattr(s, "shape", 0) for s in sides] != [
            (),
            (),
        ]:
            raise ValueError(
                "GAN: loss must give two numbers, the discriminator's and the generator's loss"
            )
