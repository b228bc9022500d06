"""Generative diffusion: a network that takes noise off, and what follows from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from deepweave import chance
from deepweave.core import Batch, Logs, Objective
from deepweave.core.objective import evaluating
from deepweave.functional.chain import HALF, chain_nats, flow_nats, level_nats, prior_nats
from deepweave.functional.entropy import one_hot
from deepweave.functional.observation import Categorical
from deepweave.functional.pairing import pair
from deepweave.functional.reduction import weighted_mean
from deepweave.functional.samplers import SAMPLERS
from deepweave.functional.schedule import TARGETS, WEIGHTS, Schedule, coefficients, importance
from deepweave.objectives.sampling import asked, kept
from deepweave.objectives.unlabelled import costs, parts, sound

EXACT = 64  # values of a sample up to which the divergence is exact
PROBES = 4  # random directions above that


class Denoise(Objective):
    """E w(s) |F(y, s) - target|^2 over noise levels s, y = x + s e: any target of one schedule.

    Values are centred first, x - ``centre``; images in [0, 1] have their middle there.

    Args:
        model: (y / sqrt(s^2 + d^2), log(s) / 4 of each sample (B,)[, told (B, classes)]) -> F,
            of the shape of x.
        schedule: how often each level is trained on; None: EDM's lognormal, from 0.002 up, or from
            1/6 of a step between the data's levels if that is less.
        target: what F is: ``"balanced"``, ``"noise"``, ``"data"``, ``"velocity"`` or ``"flow"``.
        weight: ``"simple"`` (each level alike, of F), ``"edm"``, ``"min-snr"`` or ``"bound"``: see
            :func:`deepweave.functional.schedule.importance`. With the bound's the loss is nats per
            sample, that of :meth:`bound` in the mean.
        shape: of one sample, so that new ones can be made; None: of the first batch.
        classes: 0, or how many classes y has, which the model is told.
        drop: the share of samples that are told nothing, so that guidance is possible.
        levels: of the data, such as 17 or 256 in [0, 1]: its likelihood is then that of levels, and
            in bits per dimension too.
        start: of their step, the noise at which a likelihood of levels ends its chain: above, it
            is the network that pays for what it does not know, below, levels tell themselves. The
            more levels, the lower it is worth to train (``"loguniform"``) and to start.
        centre: what is taken off the data.
        pairing: whether noise goes to the samples of a batch (and class) that are nearest, by
            optimal transport: straighter paths for few steps, O(B^3) on the CPU. Noise is then not
            independent of the data: there is no bound, and no ancestral sampler.

    Shapes: a batch x (B, ...), (x, y) or (x, y, weight) -> ()

    Raises:
        ValueError: unknown names, numbers out of range; with the first batch: a model of another
            shape, classes or values that do not fit.
    Source: Ho, Jain & Abbeel, Denoising diffusion probabilistic models, 2020; Karras et al.,
    Elucidating the design space of diffusion-based generative models, 2022; Ho & Salimans,
    Classifier-free diffusion guidance, 2021; Lipman et al., Flow matching, 2023.

    >>> class Net(nn.Linear):
    ...     def forward(self, y, level):
    ...         return super().forward(y)
    >>> method = Denoise(Net(2, 2), shape=(2,))
    >>> method.sample(5, steps=3).shape, float(method(torch.rand(4, 2))[0].detach()) > 0
    (torch.Size([5, 2]), True)
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
        start: float = 0.3,
        centre: float = 0.5,
        pairing: bool = False,
    ):
        super().__init__()
        if target not in TARGETS:
            raise ValueError(f"Denoise: target must be one of {', '.join(TARGETS)}, got {target!r}")
        if weight not in WEIGHTS:
            raise ValueError(f"Denoise: weight must be one of {', '.join(WEIGHTS)}, got {weight!r}")
        if not 0 <= drop < 1 or classes < 0:
            told = f"drop must lie in [0, 1) and classes not be below 0, got {drop} and {classes}"
            raise ValueError(f"Denoise: {told}")
        if levels is not None and levels < 2:
            raise ValueError(f"Denoise: levels must be at least 2, got {levels}")
        if not 0 < start < 10:
            raise ValueError(f"Denoise: start must lie between 0 and 10 steps, got {start}")
        if not math.isfinite(centre):
            raise ValueError(f"Denoise: centre must be finite, got {centre}")
        if pairing and weight == "bound":
            raise ValueError("Denoise: with pairing there is no bound: take another weight")
        self.model: Any = model
        if schedule is None:
            schedule = Schedule(
                lowest=0.002 if levels is None else min(0.002, 1 / 6 / (levels - 1))
            )
        self.schedule, self.target, self.weight = schedule, target, weight
        self.classes, self.drop, self.levels = classes, drop, levels
        self.start, self.centre, self.pairing = start, centre, pairing
        self.shape = None if shape is None else tuple(shape)

    def forward(self, batch: Batch) -> tuple[Tensor, Logs]:
        x, y, weight = parts(batch, "Denoise")
        clean, noise = x - self.centre, torch.randn_like(x)
        if self.pairing:
            noise = pair(clean, noise, y if self.classes else None)
        s = self.schedule.draw(len(x), clean)
        error = self._errors(clean, noise, s, self._told(y, clean, self.training))
        loss = error * importance(self.weight, self.target, self.schedule, s)
        if self.weight == "bound":
            loss = loss * x[0].numel() + self._ends(clean, self.schedule.lowest)
        return weighted_mean(loss, weight), {}

    def denoise(self, noisy: Tensor, s: Tensor, told: Tensor | None = None) -> Tensor:
        """What the data, less its centre, is expected to be: E[x | y].

        Shapes: noisy (B, ...), s () or (B,), told (B, classes) -> (B, ...)
        """
        s = s.to(noisy.dtype).expand(len(noisy))
        skip, out, inner = (_beside(c, noisy) for c in self._coefficients(s))
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
        """New samples, from noise; of data with levels they are on the nearest ones.

        Args:
            count: how many.
            y: their classes, (count,); None: of no class that is told.
            steps: of the sampler.
            sampler: ``"dpm"``, ``"euler"``, ``"heun"``, ``"ancestral"``, or a function of
                (denoise, noise, levels).
            spacing: of the levels, as of :meth:`deepweave.functional.schedule.Schedule.levels`.
            guidance: x = x_untold + guidance (x_told - x_untold); above 1 more of the class, at
                twice the calls.
            clip: the range of the data, to which what is expected is cut.
            known, mask: see :meth:`inpaint`.

        Shapes: -> (count, *shape)

        Raises:
            ValueError: an unknown sampler or spacing, guidance without classes, no shape known,
                classes or a mask that do not fit.
        """
        asked(self, count, y, sampler, guidance, clip)
        run: Any = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        levels = self.schedule.levels(steps, spacing)
        like = next(self.model.parameters())
        shape = (count, *(self.shape or ()))
        held = kept(known, mask, shape, like, self.centre)
        blank = like.new_empty(count, 1)
        told, untold = self._told(y, blank, False), self._told(None, blank, False)

        def expected(noisy: Tensor, s: Tensor) -> Tensor:
            x = self.denoise(noisy, s, told)
            if guidance != 1:
                other = self.denoise(noisy, s, untold)
                x = other + guidance * (x - other)
            if clip is not None:
                x = x.clamp(clip[0] - self.centre, clip[1] - self.centre)
            return x if held is None else torch.where(held[1], held[0], x)

        with torch.no_grad(), evaluating(self):
            noise = torch.randn(shape, dtype=like.dtype, device=like.device)
            made = run(expected, noise * self.schedule.highest, levels) + self.centre
            last = (self.levels or 2) - 1
            return made if self.levels is None else (made.clamp(0, 1) * last).round() / last

    def inpaint(
        self, known: Tensor, mask: Tensor, y: Tensor | None = None, *, steps: int = 50,
        sampler: str | Callable[..., Tensor] = "ancestral", **options: Any,
    ) -> Tensor:  # fmt: skip
        """Samples that are ``known`` where ``mask`` is True; the rest is made to fit.

        At every level the known part is what is expected there, so that the network sees it with
        the right noise. That is not exact conditioning (the unknown part is not told what the
        known one will say later), but close with many steps and fresh noise.

        Shapes: known (B, *shape), mask of bools that expands to it -> (B, *shape)

        Raises:
            ValueError: shapes or a mask that do not fit; what ``sample`` refuses.

        Source: Song et al., Score-based generative modeling through stochastic differential
        equations, 2021; Lugmayr et al., RePaint, 2022.
        """
        return self.sample(
            len(known), y, steps=steps, sampler=sampler, known=known, mask=mask, **options
        )

    def predict(self, x: Any) -> Tensor:
        """-log p(x) of each sample, in nats, as in ``judge``. Shapes: x (B, ...) -> (B,)"""
        return self.judge(x)["nll"]

    def bound(
        self, x: Tensor, y: Tensor | None = None, *, draws: int = 64, step: int = 4096
    ) -> tuple[Tensor, Tensor]:
        """A bound on -log p(x) by the chain of noise levels, and its standard error over draws.

        KL(q(y_end | x) || p(y_end)) + integral of |x - x(y, s)|^2 / s^3 ds + what the lowest level
        leaves open: -log P(x | y) for data with levels, and else the entropy of its noise (the
        density is then that of y at the lowest level). The integral is over ``draws`` levels of
        each sample, one from each of as many equal parts of log s.

        With levels it starts at 0.4 of their step: below that the lattice itself tells more than
        a network that does not know it, and P(x | y) has it exactly.

        Shapes: x (B, ...) -> (B,), (B,) nats

        Raises:
            ValueError: fewer than one draw; with pairing, where it does not hold.

        Source: Kingma et al., Variational diffusion models, 2021.
        """
        if draws < 1:
            raise ValueError(f"Denoise: draws must be at least 1, got {draws}")
        if self.pairing:
            raise ValueError("Denoise: with pairing there is no bound: ask log_likelihood")
        low, each = self._start(), max(1, step // draws)
        nats, errors = [], []
        with torch.no_grad(), evaluating(self):
            for place in range(0, len(x), each):
                clean = x[place : place + each] - self.centre
                told = self._told(None if y is None else y[place : place + each], clean, False)
                many = None if told is None else told.repeat(draws, 1)
                found, error = chain_nats(
                    partial(self.denoise, told=many), clean, low, self.schedule.highest, draws
                )
                nats.append(found + self._ends(clean, low))
                errors.append(error)
        return torch.cat(nats), torch.cat(errors)

    def log_likelihood(
        self, x: Tensor, y: Tensor | None = None, *, steps: int = 32, probes: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """log p(x) by the flow that noise takes without chance, and its standard error.

        log p(y_0) = log N(y_end; 0, highest^2 + data^2) + integral of div((y - x(y, s)) / s) ds, in
        ``steps`` levels (:func:`deepweave.functional.chain.flow_nats`). The divergence is exact,
        or, with ``probes``, estimated by as many random directions (None: exact up to 64 values,
        else 4 directions); the error is that of the directions, 0 where it is exact.

        Of data with levels y_0 = x + s e at ``start`` of their step, and the value is one draw of a
        bound on log P(x): log p(y_0) + log P(x | y_0) - log N(y_0; x, s^2).

        Shapes: x (B, ...) -> (B,), (B,) nats

        Raises:
            ValueError: fewer than two steps, fewer than no probes.

        Source: Song et al., Score-based generative modeling through stochastic differential
        equations, 2021.
        """
        if steps < 2 or (probes is not None and probes < 0):
            raise ValueError(
                f"Denoise: at least 2 steps and no fewer than 0 probes, got {steps} and {probes}"
            )
        with torch.no_grad(), evaluating(self):
            noisy, extra, low = x - self.centre, x.new_zeros(len(x)), self._start()
            if self.levels is not None:
                noise = torch.randn_like(x)
                noisy = noisy + low * noise
                extra = level_nats(x, noisy + self.centre, low, self.levels)
                extra = extra - (noise.square() / 2 + HALF + math.log(low)).flatten(1).sum(1)
            size = x[0].numel()
            count = probes if probes is not None else (0 if size <= EXACT else PROBES)
            ways = x.new_empty(count, *x.shape).bernoulli_() * 2 - 1
            ends = math.log(low), math.log(self.schedule.highest)
            levels = torch.linspace(*ends, steps, dtype=torch.float64).exp().to(noisy)
            told = partial(self.denoise, told=self._told(y, x, False))
            nats, error = flow_nats(told, noisy, levels, ways, data=self.schedule.data)
            return -(nats + extra), error

    def judge(self, batch: Batch) -> dict[str, Tensor]:
        """The bound on -log p(x), nats, and in bits per dimension where data have levels. -> (B,)

        With pairing, where there is no bound, the value of ``log_likelihood``.
        """
        x, y, _ = parts(batch, "Denoise")
        if self.pairing:
            return costs(-self.log_likelihood(x, y)[0], x, self.levels)
        return costs(self.bound(x, y)[0], x, self.levels)

    def plain(self, x: Tensor) -> Callable[[Batch], dict[str, Tensor]]:
        """The baseline: each value by itself, how often it has a level, or as a Gaussian."""
        kind = Categorical(self.levels or 2)
        said = None if self.levels is None else kind.marginal(x)[None]
        mean, scale = x.mean(0), x.std(0).clamp_min(self.schedule.lowest)

        def judge(batch: Batch) -> dict[str, Tensor]:
            x = parts(batch, "Denoise")[0]
            if said is not None:
                return costs(kind.nll(said.expand(len(x), *said.shape[1:]), x), x, self.levels)
            z = (x - mean) / scale
            return costs((z.square() / 2 + scale.log() + HALF).flatten(1).sum(1), x, self.levels)

        return judge

    def _coefficients(self, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return coefficients(self.target, s, self.schedule.data)

    def _errors(self, x: Tensor, noise: Tensor, s: Tensor, told: Tensor | None) -> Tensor:
        """The mean squared error of F for each sample at its level, (B,)."""
        noisy = x + _beside(s, x) * noise
        skip, out, inner = (_beside(c, x) for c in self._coefficients(s))
        found = self._network(inner * noisy, s, told)
        if self.target == "noise":
            goal = noise  # as a difference of large numbers it would lose digits at low levels
        else:
            goal = (x - skip * noisy) / out
        return (found - goal).square().flatten(1).mean(1)

    def _network(self, x: Tensor, s: Tensor, told: Tensor | None) -> Tensor:
        return self.model(x, s.log() / 4, *(() if told is None else (told,)))

    def _start(self) -> float:
        """The level at which a likelihood starts."""
        if self.levels is None:
            return self.schedule.lowest
        return max(self.schedule.lowest, self.start / (self.levels - 1))

    def _ends(self, x: Tensor, low: float) -> Tensor:
        """Nats of a sample at both ends of the chain, (B,): of the prior, of the lowest level."""
        prior = prior_nats(x, self.schedule.highest, self.schedule.data)
        if self.levels is None:
            return prior + x[0].numel() * (HALF + 0.5 + math.log(low))
        noisy = x + low * torch.randn_like(x)
        return prior + level_nats(x + self.centre, noisy + self.centre, low, self.levels)

    def _told(self, y: Tensor | None, like: Tensor, dropped: bool) -> Tensor | None:
        """Classes one-hot, some of them dropped; zeros where none is told; None without classes."""
        if not self.classes:
            return None
        if y is None:
            return like.new_zeros(len(like), self.classes)
        told = one_hot(y.to(like.device), self.classes).to(like.dtype)
        if dropped and self.drop:
            kept = torch.rand(len(told), 1, dtype=like.dtype, device=like.device) >= self.drop
            told = told * kept
        return told

    def check(self, batch: Batch) -> None:
        x, y, _ = sound(batch, "Denoise", self.classes)
        if self.levels is not None:
            Categorical(self.levels).check(x)
        if self.shape is not None and tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"Denoise: samples must be {self.shape}, got {tuple(x.shape[1:])}")
        try:
            with chance.aside(0), torch.no_grad(), evaluating(self):
                found = self._network(x, torch.zeros(len(x)).to(x) + 1, self._told(y, x, False))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"Denoise: the model cannot take {tuple(x.shape)}: {reason}") from None
        if found.shape != x.shape:
            raise ValueError(f"Denoise: the model must give {tuple(x.shape)}, got "
                             f"{tuple(found.shape)}")  # fmt: skip
        self.shape = tuple(x.shape[1:])


def _beside(c: Tensor, x: Tensor) -> Tensor:
    """A number of each sample beside the sample. Shapes: (B,) -> (B, 1, ...)"""
    return c.view(-1, *[1] * (x.dim() - 1))
