"""Generative diffusion: a network that takes noise off, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.functional.diffusion import TARGETS, Schedule, coefficients
from deepweave.functional.entropy import one_hot
from deepweave.functional.reduction import weighted_mean
from deepweave.functional.samplers import SAMPLERS
from deepweave.objectives.variational import HALF, parts

WEIGHTS = ("simple", "min-snr", "bound")


class Denoise(Objective):
    """E |F(y, s) - target|^2 over noise levels s, y = x + s e: any target of one schedule.

    Values are centred first, x - ``centre``; images in [0, 1] have their middle there.

    Args:
        model: (y / sqrt(s^2 + d^2), log(s) / 4 of each sample (B,)[, told (B, classes)]) -> F,
            of the shape of x.
        schedule: how often each level is trained on; None: EDM's lognormal.
        target: what F is: ``"balanced"``, ``"noise"``, ``"data"``, ``"velocity"`` or ``"flow"``.
        weight: ``"simple"`` (each level alike, of F), ``"min-snr"`` (of the data's error,
            min(1 / s^2, 5), as of F) or ``"bound"`` (the loss is then nats per sample, a bound on
            -log p of y at the lowest level).
        shape: of one sample, so that new ones can be made; None: of the first batch.
        classes: 0, or how many classes y has, which the model is told.
        drop: the share of samples that are told nothing, so that guidance is possible.
        levels: of the data, such as 17 or 256 in [0, 1]: its likelihood is then in bits per
            dimension.
        centre: what is taken off the data.

    Shapes: a batch x (B, ...), (x, y) or (x, y, weight) -> ()

    Raises:
        ValueError: unknown names, numbers out of range; with the first batch: a model of another
            shape, classes or values that do not fit.
    Source: Ho, Jain & Abbeel, 2020; Karras et al., 2022; Hang et al., Efficient diffusion training
    via min-SNR weighting strategy, 2023; Ho & Salimans, Classifier-free diffusion guidance, 2021.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule | None = None,
        target: str = "balanced",
        *,
        weight: str = "simple",
        shape: tuple[int, ...] | None = None,
        classes: int = 0,
        drop: float = 0.1,
        levels: int | None = None,
        centre: float = 0.5,
    ):
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"Denoise: target must be one of {', '.join(TARGETS)}, got {target!r}")
        if weight not in WEIGHTS:
            raise ValueError(f"Denoise: weight must be one of {', '.join(WEIGHTS)}, got {weight!r}")
        if not 0 <= drop < 1 or classes < 0:
            raise ValueError(f"Denoise: drop must lie in [0, 1), got {drop}")
        if levels is not None and levels < 2:
            raise ValueError(f"Denoise: levels must be at least 2, got {levels}")
        self.model: Any = model
        self.schedule = Schedule("lognormal") if schedule is None else schedule
        self.target, self.weight, self.classes, self.drop = target, weight, classes, drop
        self.levels, self.centre = levels, centre
        self.shape = None if shape is None else tuple(shape)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, weight = parts(batch, "Denoise")
        x = self._dequantised(x) - self.centre
        s = self.schedule.draw(len(x), x)
        loss = self._losses(x, s, self._told(y, x, self.training))
        return weighted_mean(loss, weight), {}

    def denoise(self, noisy: Tensor, s: Tensor, told: Tensor | None = None) -> Tensor:
        """What the data, less its centre, is expected to be.

        Shapes: noisy (B, ...), s () or (B,) -> (B, ...)
        """
        s = s.to(noisy.dtype).expand(len(noisy))
        skip, out, inner = (
            c.view(-1, *[1] * (noisy.dim() - 1))
            for c in coefficients(self.target, s, self.schedule.data)
        )
        return skip * noisy + out * self._network(inner * noisy, s, told)

    def sample(
        self,
        count: int,
        y: Tensor | None = None,
        *,
        steps: int = 10,
        sampler: str | Callable[..., Tensor] = "dpm",
        spacing: str = "karras",
        guidance: float = 1.0,
        clip: tuple[float, float] | None = None,
        known: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """New samples, from noise.

        Args:
            count: how many.
            y: their classes, (count,).
            steps: of the sampler.
            sampler: ``"dpm"``, ``"euler"``, ``"heun"``, ``"ancestral"``, or a function of
                (denoise, noise, levels).
            spacing: of the levels, as of :meth:`deepweave.functional.diffusion.Schedule.levels`.
            guidance: x = x_untold + guidance (x_told - x_untold); above 1 more of the class.
            clip: the range of the data, to which what is expected is cut.
            known, mask: inpainting: where mask is True the sample is ``known`` (count, ...).

        Shapes: -> (count, *shape)

        Raises:
            ValueError: an unknown sampler or spacing, guidance without classes, no shape known.
        """
        if isinstance(sampler, str) and sampler not in SAMPLERS:
            raise ValueError(f"Denoise: sampler must be one of {', '.join(SAMPLERS)}, got "
                             f"{sampler!r}")  # fmt: skip
        if self.shape is None:
            raise ValueError("Denoise: no sample was seen yet: say shape=")
        if guidance != 1 and not (self.classes and self.drop):
            raise ValueError("Denoise: guidance needs classes, some of them dropped in training")
        like = next(self.model.parameters())
        blank = like.new_empty(count, 1)
        told, untold = self._told(y, blank, False), self._told(None, blank, False)
        held = None if known is None else known - self.centre

        def expected(noisy: Tensor, s: Tensor) -> Tensor:
            x = self.denoise(noisy, s, told)
            if guidance != 1:
                other = self.denoise(noisy, s, untold)
                x = other + guidance * (x - other)
            if clip is not None:
                x = x.clamp(clip[0] - self.centre, clip[1] - self.centre)
            return x if held is None or mask is None else torch.where(mask, held, x)

        run: Any = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        levels = self.schedule.levels(steps, spacing)
        with torch.no_grad():
            noise = torch.randn(count, *self.shape, dtype=like.dtype, device=like.device)
            return run(expected, noise * float(levels[0]), levels) + self.centre

    def predict(self, x: Any) -> Tensor:
        """-log p(x) of each sample, in nats. Shapes: x (B, ...) or (x, y) -> (B,)"""
        x, y, _ = parts(x, "Denoise")
        return -self.log_likelihood(x, y)[0]

    def log_likelihood(
        self, x: Tensor, y: Tensor | None = None, *, steps: int = 32, probes: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p(x) by the flow that noise takes without chance, and its standard error.

        log p(x) = log N(y_end; 0, highest^2 + data^2) + integral of div((y - x(y, s)) / s) ds, by
        Heun's method on Karras' levels. The divergence is exact, or, with ``probes``, estimated by
        that many random directions (None: exact up to 64 values, else 4 directions).

        Of data with levels uniform noise of a step is added, and the value is a bound on the
        probability of the level.

        Shapes: x (B, ...) -> (B,), (B,) nats

        Source: Song et al., Score-based generative modeling through stochastic differential
        equations, 2021.
        """
        with torch.no_grad():
            noisy = self._dequantised(x) - self.centre
            told, size = self._told(y, noisy, False), noisy[0].numel()
            count = probes if probes is not None else (0 if size <= 64 else 4)
            ways = noisy.new_empty(count, *noisy.shape).bernoulli_() * 2 - 1
            levels = self.schedule.levels(steps)[:-1].flip(0).to(noisy)
            total = noisy.new_zeros(max(1, count), len(noisy))
            for s, after in pairwise(levels):
                slope, grown = self._flow(noisy, s, told, ways)
                ahead = noisy + (after - s) * slope
                other, more = self._flow(ahead, after, told, ways)
                noisy = noisy + (after - s) * (slope + other) / 2
                total = total + (after - s) * (grown + more) / 2
            scale = math.hypot(self.schedule.highest, self.schedule.data)
            log_p = -(noisy / scale).square().flatten(1).sum(1) / 2 - size * (
                HALF + math.log(scale)
            )
            error = total.std(0) / math.sqrt(count) if count > 1 else torch.zeros_like(log_p)
            if self.levels is not None:  # a density over steps of 1 / (levels - 1)
                log_p = log_p - size * math.log(self.levels - 1)
            return log_p + total.mean(0), error

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """-log p(x) of each sample, in nats, and in bits per dimension where data have levels."""
        x, y, _ = parts(batch, "Denoise")
        return self._costs(-self.log_likelihood(x, y)[0], x)

    def plain(self, x: Tensor) -> Callable[[Batch], dict[str, Tensor]]:
        """The baseline: a Gaussian for each value by itself, of values with noise of one step."""
        values = self._dequantised(x)
        mean, scale = values.mean(0), values.std(0).clamp_min(1e-3)

        def judge(batch: Batch) -> dict[str, Tensor]:
            x = parts(batch, "Denoise")[0]
            z = (self._dequantised(x) - mean) / scale
            nll = (z.square() / 2 + scale.log() + HALF).flatten(1).sum(1)
            if self.levels is not None:
                nll = nll + x[0].numel() * math.log(self.levels - 1)
            return self._costs(nll, x)

        return judge

    def _costs(self, nll: Tensor, x: Tensor) -> dict[str, Tensor]:
        if self.levels is None:
            return {"nll": nll}
        return {"nll": nll, "bits_per_dim": nll / (x[0].numel() * math.log(2))}

    def _losses(self, x: Tensor, s: Tensor, told: Tensor | None) -> Tensor:
        """The loss of each sample at its level, (B,)."""
        shape = (-1, *[1] * (x.dim() - 1))
        noise = torch.randn_like(x)
        noisy = x + s.view(shape) * noise
        skip, out, inner = coefficients(self.target, s, self.schedule.data)
        found = self._network(inner.view(shape) * noisy, s, told)
        goal = (x - skip.view(shape) * noisy) / out.view(shape)
        error = (found - goal).square().flatten(1)
        if self.weight == "simple":
            return error.mean(1)
        if self.weight == "min-snr":
            return error.mean(1) * out.square() * (1 / s**2).clamp_max(5.0)
        # d(1 / s^2) / 2 of the squared error of the data, over how often this level is drawn
        return error.sum(1) * out.square() / (s**3 * self.schedule.rate(s))

    def _network(self, x: Tensor, s: Tensor, told: Tensor | None) -> Tensor:
        told_ = () if told is None else (told,)
        return self.model(x, s.log() / 4, *told_)

    def _flow(
        self, noisy: Tensor, s: Tensor, told: Tensor | None, ways: Tensor
    ) -> tuple[Tensor, Tensor]:
        """dy/ds and its divergence: exact (1, B), or along each way (probes, B)."""

        def slope(v: Tensor) -> Tensor:
            return (v - self.denoise(v, s, told)) / s

        def along(way: Tensor) -> tuple[Tensor, Tensor]:
            found, turned = torch.func.jvp(slope, (noisy,), (way,))[:2]
            return found, turned

        if len(ways):
            found, turned = torch.func.vmap(along, randomness="same")(ways)
            return found[0], (turned * ways).flatten(2).sum(2)
        size = noisy[0].numel()
        every = torch.eye(size, dtype=noisy.dtype, device=noisy.device)
        every = every.view(size, 1, *noisy.shape[1:]).expand(size, *noisy.shape)
        found, turned = torch.func.vmap(along, randomness="same", chunk_size=16)(every)
        return found[0], (turned * every).flatten(2).sum(2).sum(0, keepdim=True)

    def _dequantised(self, x: Tensor) -> Tensor:
        """Values with uniform noise of one step, where data have levels and are not trained on."""
        if self.levels is None or self.training:
            return x
        return x + (torch.rand_like(x) - 0.5) / (self.levels - 1)

    def _told(self, y: Tensor | None, like: Tensor, dropped: bool) -> Tensor | None:
        """Classes one-hot, some of them dropped; zeros where none is told; None without classes."""
        if not self.classes:
            return None
        if y is None:
            return like.new_zeros(len(like), self.classes)
        told = one_hot(y, self.classes).to(like.dtype)
        if dropped and self.drop:
            kept = torch.rand(len(told), 1, dtype=like.dtype, device=like.device) >= self.drop
            told = told * kept
        return told

    def check(self, batch: Batch) -> None:
        x, y, weight = parts(batch, "Denoise")
        if not isinstance(x, Tensor) or not x.is_floating_point() or not x.isfinite().all():
            raise ValueError("Denoise: inputs must be a tensor of finite floats")
        low, high = float(x.min()), float(x.max())
        if self.levels is not None and (low < 0 or high > 1):
            raise ValueError(f"Denoise: data of {self.levels} levels must lie in [0, 1], got "
                             f"{low:.3g}..{high:.3g}")  # fmt: skip
        if self.classes:
            if y is None:
                raise ValueError("Denoise: with classes a batch must be (x, y), got x alone")
            if not 0 <= int(y.min()) <= int(y.max()) < self.classes:
                raise ValueError(
                    f"Denoise: classes must lie in 0..{self.classes - 1}, got {int(y.max())}"
                )
        if weight is not None and weight.shape != (len(x),):
            raise ValueError(f"Denoise: weight must be ({len(x)},), got {tuple(weight.shape)}")
        if self.shape is not None and tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"Denoise: samples must be {self.shape}, got {tuple(x.shape[1:])}")
        with chance.aside(0), torch.no_grad():
            found = self._network(x, torch.ones(len(x)).to(x), self._told(y, x, False))
        if found.shape != x.shape:
            raise ValueError(f"Denoise: the model must give {tuple(x.shape)}, got "
                             f"{tuple(found.shape)}")  # fmt: skip
        self.shape = tuple(x.shape[1:])
