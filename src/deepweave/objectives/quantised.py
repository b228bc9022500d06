"""The vector-quantised autoencoder: what is behind an image, as words of a learned code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepweave import chance
from deepweave.blueprint import blueprint
from deepweave.core import Batch, Logs, Objective
from deepweave.functional.observation import Bernoulli, Observation
from deepweave.functional.reduction import weighted_mean
from deepweave.objectives.unlabelled import by_value, costs, observed, parts, sound


class Codebook(nn.Module):
    """Vectors of length 1, and the nearest of them to each of many others.

    Shapes: z (B, features, ...) -> the nearest vectors (B, features, ...), their numbers (B, ...)
    """

    def __init__(self, codes: int, features: int):
        super().__init__()
        if codes < 2 or features < 1:
            raise ValueError(
                f"Codebook: codes must be at least 2 and features 1, got {codes} and {features}"
            )
        self.codes, self.features = codes, features
        self.weight = nn.Parameter(torch.empty(codes, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Directions drawn alike."""
        nn.init.normal_(self.weight)

    def vectors(self) -> Tensor:
        """The codes, (codes, features)."""
        return F.normalize(self.weight, dim=1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        likeness = torch.einsum("bf...,kf->bk...", F.normalize(z, dim=1).detach(), self.vectors())
        index = likeness.argmax(1)
        return self.look_up(index), index

    def look_up(self, index: Tensor) -> Tensor:
        """The vectors of numbers. Shapes: (B, ...) int64 -> (B, features, ...)"""
        return self.vectors()[index].movedim(-1, 1)


@blueprint
class Quantised(nn.Module):
    """An encoder, codes and a decoder as one model. Shapes: x -> what the decoder says"""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, codes: int, features: int):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.codebook = Codebook(codes, features)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.codebook(self.encoder(x))[0])


class VQVAE(Objective):
    """-log p(x | e) + |z - sg(e)|^2 commitment + |sg(z) - e|^2, e the code nearest to z.

    The encoder's features z and the codes e have length 1; the slope of the reconstruction goes
    straight through from e to z. A sample is then words of a code: a grid of numbers, of which any
    model of sequences can be the prior (:class:`deepweave.objectives.NextToken`).

    Args:
        encoder: x -> (B, features, ...).
        decoder: (B, features, ...) -> (B, P, *shape of x).
        codes: how many there are.
        likelihood: what x is given its code; None: Bernoulli.
        commitment: how strongly z is drawn to its code.

    Shapes: a batch x (B, ...), (x, y) or (x, y, weight) -> ()

    Source: van den Oord, Vinyals & Kavukcuoglu, Neural discrete representation learning, 2017;
    codes of length 1: Yu et al., Vector-quantized image modeling with improved VQGAN, 2022.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, codes: int,
        likelihood: Observation | None = None, *, features: int, commitment: float = 0.25,
    ):  # fmt: skip
        super().__init__()
        if not 0 <= commitment < math.inf:
            raise ValueError(f"VQVAE: commitment must not be below 0, got {commitment}")
        self.model = Quantised(encoder, decoder, codes, features)
        self.likelihood: Any = observed(Bernoulli() if likelihood is None else likelihood, "VQVAE")
        self.commitment = commitment

    @property
    def encoder(self) -> Any:
        """x -> (B, features, ...)."""
        return self.model.encoder

    @property
    def decoder(self) -> Any:
        """(B, features, ...) -> (B, P, ...)."""
        return self.model.decoder

    @property
    def codebook(self) -> Any:
        """The codes."""
        return self.model.codebook

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, _, weight = parts(batch, "VQVAE")
        z = F.normalize(self.encoder(x), dim=1)
        code, index = self.codebook(z)
        through = z + (code - z).detach()
        reconstruction = self.likelihood.nll(self.decoder(through), x)
        pull = (z - code.detach()).square().flatten(1).sum(1) * self.commitment
        pull = pull + (z.detach() - code).square().flatten(1).sum(1)
        used = F.one_hot(index.flatten(), self.codebook.codes).to(z.dtype).mean(0)
        logs = {
            "reconstruction": weighted_mean(reconstruction.detach(), weight),
            "codes_used": torch.exp(-torch.xlogy(used, used).sum()).detach(),
        }
        return weighted_mean(reconstruction + pull, weight), logs

    def codes(self, x: Tensor) -> Tensor:
        """The numbers of the codes of each sample. Shapes: x (B, ...) -> (B, ...) int64"""
        return self.codebook(self.encoder(x))[1]

    def decode(self, index: Tensor) -> Tensor:
        """The expected samples of numbers of codes. Shapes: (B, ...) int64 -> (B, ...)

        Raises:
            ValueError: numbers that no code has.
        """
        last = self.codebook.codes - 1
        if index.is_floating_point() or not bool(((index >= 0) & (index <= last)).all()):
            raise ValueError(f"VQVAE: codes must be whole numbers in 0..{last}")
        return self._made(index)

    def predict(self, x: Any) -> Tensor:
        """The image made again from its code. Shapes: -> (B, ...)"""
        return self._made(self.codes(parts(x, "VQVAE")[0]))

    def _made(self, index: Tensor) -> Tensor:
        return self.likelihood.mean(self.decoder(self.codebook.look_up(index)))

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """A bound on -log p(x) of each sample: its codes, then itself given them. -> (B,) nats

        Codes alike: log ``codes`` nats for each place, and -log p(x | codes); p(x) is a sum over
        all codes of which that is one term. It is what it takes to send x by code, and stands
        beside the bound of a VAE. A prior of codes that has learned from some makes it less.

        Of values with levels also bits for each dimension, nats / (D log 2).
        """
        x, _, _ = parts(batch, "VQVAE")
        index = self.codes(x)
        said = self.decoder(self.codebook.look_up(index))
        told = index[0].numel() * math.log(self.codebook.codes)
        return costs(self.likelihood.nll(said, x) + told, x, self.likelihood.levels)

    def plain(self, x: Tensor) -> Callable[[Batch], dict[str, Tensor]]:
        """The baseline: each value by itself, as it is among x, with nothing behind it."""
        return by_value(self.likelihood, x, "VQVAE")

    def check(self, batch: Batch) -> None:
        x, _, _ = sound(batch, "VQVAE")
        self.likelihood.check(x)
        was = self.training
        self.eval()
        try:
            with chance.aside(0), torch.no_grad():
                z = self.encoder(x)
                if z.dim() < 2 or z.shape[1] != self.codebook.features:
                    raise ValueError(
                        f"VQVAE: the encoder must give (B, {self.codebook.features}, ...), got "
                        f"{tuple(z.shape)}"
                    )
                said = self.decoder(z)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"VQVAE: the networks cannot take {tuple(x.shape)}: {reason}"
            ) from None
        finally:
            self.train(was)
        wanted = (len(x), self.likelihood.numbers, *x.shape[1:])
        if said.shape != wanted:
            raise ValueError(f"VQVAE: the decoder must give {wanted}, got {tuple(said.shape)}")
