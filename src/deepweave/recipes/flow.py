"""Topic 18: a normalizing flow learns a density, and is asked whether it is one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Literal

import deepweave as dw
from deepweave.recipes import home, recipe

# Effects of coaching in eight schools, and their standard errors: Rubin, 1981.
EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


@recipe("18 Normalizing flows", seconds=75)
def flow(
    data: str = "digits",
    *,
    target: str | None = None,
    kind: Literal["autoregressive", "spline", "affine", "glow", "continuous"] = "autoregressive",
    layers: int = 2,
    hidden: tuple[int, ...] = (128, 128),
    samples: int = 4000,
    epochs: int = 60,
    batch: int = 128,
    lr: float = 0.004,
    moons: int = 1000,
    posterior: int = 600,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A flow on images or a table: density beside Gaussians and kernels, samples, errors.

    Args:
        data: a named data set, or a path to your own; its inputs are learnt, its targets left out.
        target: the column that is no input, for a table of your own.
        kind: of the flow.
        layers: of the flow; of glow, steps at each scale.
        hidden: widths of each layer's network; of glow, channels of its first.
        samples: training samples taken, unless full.
        epochs: passes over them, at most: it stops where validation does not improve.
        batch: samples per step.
        lr: the highest learning rate of the cycle.
        moons: steps on two moons, whose exact entropy is known; 0: none.
        posterior: steps on a posterior that is known as a formula only; 0: none.
        full: all samples, twice the layers, longer: made for mnist with --kind glow.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    import torch

    table = dw.data.load(data, target=target, seed=seed)
    if not isinstance(table.train.x, torch.Tensor) or not table.train.x.is_floating_point():
        raise ValueError(f"flow: needs images or a table of numbers, {data} is {table.spec.kind}")
    if full:
        layers, epochs = 2 * layers, max(8, min(4 * epochs, 400_000 // len(table.train)))
    if quick:
        samples, epochs, moons, posterior = 1500, 3, min(moons, 60), min(posterior, 60)
        hidden = tuple(min(width, 32) for width in hidden)
    most = {"train": len(table.train) if full else samples, "validation": 2000, "test": 2000}
    table = replace(table, **{part: getattr(table, part)[:n] for part, n in most.items()})
    levels = levels_of(table)
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    model = _make(kind, table.spec, layers, hidden, levels)
    step = dw.Descent(dw.Likelihood(model), "AdamW", lr=lr, weight_decay=0.01)
    hooks = [
        dw.hooks.Schedule(dw.hooks.one_cycle),
        dw.hooks.Clip(norm=20.0 * math.sqrt(table.spec.size)),  # nats per sample add up over pixels
        dw.hooks.Validate(table.validation, patience=12),
    ]
    run = dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=home(out))
    _score(run, model, table, levels, seed, quick)
    run.tell(
        question=f"How well does a flow know what {dw.recipes.subject(table)} look like?",
        title=f"A{'n' * (kind[0] == 'a')} {kind} flow learns the density of "
        f"{dw.recipes.subject(table)}",
    )
    if table.spec.kind == "image":
        _drawn(run, model, table, seed)
    run.info["picture"] = f"figures/{'samples' if table.spec.kind == 'image' else 'moons'}.svg"
    if moons:
        _moons(run, moons, seed)
    if posterior:
        _schools(run, posterior, seed)
    _trust(run, model, table, levels, seed)
    return run


def levels_of(table):
    """How many levels the pixels have, or None where the data are any numbers."""
    if table.spec.kind != "image":
        return None
    seen = table.train.x[:2000].unique().double()
    levels = round(1 / float(seen.diff().min())) + 1 if len(seen) > 1 else 2
    place = seen * (levels - 1)
    return levels if levels <= 2**16 and (place - place.round()).abs().max() < 0.01 else None


def _make(kind, spec, layers, hidden, levels):
    if kind == "glow":
        return dw.nn.glow(spec, 2, layers, width=hidden[0], levels=levels)
    return getattr(dw.nn, f"{kind}_flow")(spec, layers, hidden, levels=levels)


def _mean(nats, size, levels):
    """Nats of test samples as a score with its interval, and bits per dimension with it."""
    found = {"nll": dw.metrics.over_samples(nats)}
    if levels:
        found["bits_per_dim"] = dw.metrics.over_samples(nats.double() / (size * math.log(2)))
    return found


def _score(run, model, table, levels, seed, quick):
    """The flow's nats on the test samples, beside Gaussians and kernels; noise drawn anew."""
    import torch

    model.eval()
    with dw.chance.aside(dw.run.derive(seed, "test")), torch.no_grad():
        draws = [torch.cat([-model(part) for part in table.test.x.split(500)])
                 for _ in range(8 if levels else 1)]  # fmt: skip
        nats = torch.stack(draws).mean(0)
        others = _rivals(table, levels, quick)
    size = table.spec.size
    scores = {name: _mean(values, size, levels) for name, values in others.items()}
    first, *rest = scores
    run.info["scores"] = {f"test/{k}": s.to_json() for k, s in _mean(nats, size, levels).items()}
    run.info["baseline"] = {f"test/{k}": s.to_json() for k, s in scores[first].items()}
    run.info["baseline_name"], run.info["main"] = first, "test/nll"
    for name in rest:
        run.rival(name, scores[name])


def _rivals(table, levels, quick):
    """-log p of each test sample by a Gaussian, a mixture and kernels, chosen on validation."""
    import numpy as np
    import torch
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import KernelDensity

    from deepweave.functional.observation import Categorical
    from deepweave.objectives.unlabelled import by_value

    size = table.spec.size

    def rows(split):
        x = split.x.flatten(1).double()
        if levels:  # bins of width 1, so that a density is a probability
            x = x * (levels - 1) + torch.rand_like(x)
        return x.numpy()

    train, validation, test = (rows(s) for s in (table.train, table.validation, table.test))
    train = train[:5000]
    scale = float(train.std())
    floors = [scale**2 * 10.0**-k for k in (1, 2, 3)]
    groups = {
        "a Gaussian": [GaussianMixture(1, reg_covar=f) for f in floors],
        "a mixture of Gaussians": [
            GaussianMixture(k, covariance_type="diag" if size > 200 else "full", reg_covar=f,
                            random_state=0)
            for k in ((5,) if quick else (5, 20)) for f in floors[:2]
        ],
        "kernels": [
            KernelDensity(bandwidth=scale * width) for width in (0.05, 0.1, 0.2, 0.4, 0.8)
        ],
    }  # fmt: skip
    found = {}
    for name, tried in groups.items():
        fitted = [one.fit(train) for one in tried]
        best = max(fitted, key=lambda one: float(np.mean(one.score_samples(validation))))
        found[name] = torch.tensor(-best.score_samples(test))
    if levels:
        judge = by_value(Categorical(levels), table.train.x, "flow")
        parts = [judge(part)["nll"] for part in table.test.x.split(250)]
        found["frequencies of levels"] = torch.cat(parts)
    return found


def _drawn(run, model, table, seed, many=24):
    """Real images, and what the flow draws."""
    import torch

    with dw.chance.aside(dw.run.derive(seed, "samples")):
        made = model.sample(many).clamp(0, 1)
    shown = torch.cat([table.test.x[: many // 3], made])
    picture = shown[:, 0] if shown.shape[1] == 1 else shown.movedim(1, -1)
    told = f"{many // 3} test images in the first row, {many} samples of the flow below."
    run.figure(
        "samples",
        dw.report.plots.images(picture.numpy(), columns=8, alt=told),
        title="What it draws",
        caption="First row: images of the test set. Below: samples of the flow, not chosen.",
        alt=told,
    )


def points(count, seed, sigma=0.1):
    """Two moons: half circles of radius 1, with noise. Shapes: -> (N, 2)"""
    import torch

    random = torch.Generator().manual_seed(seed)
    angle = math.pi * torch.rand(count, generator=random)
    upper = torch.rand(count, generator=random) < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return torch.stack([x, y], 1) + sigma * torch.randn(count, 2, generator=random)


def exact(x, sigma=0.1, count=1000):
    """The log density of the moons. Shapes: x (N, 2) -> (N,)"""
    import torch

    angle = (torch.arange(count) + 0.5) / count * math.pi
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    centres = torch.cat([upper, torch.tensor([1.0, 0.5]) - upper])
    parts = [(-torch.cdist(some, centres).square() / (2 * sigma**2)).logsumexp(1)
             for some in x.split(2000)]  # fmt: skip
    return torch.cat(parts) - math.log(2 * count * 2 * math.pi * sigma**2)


def _plane(extent, side=120):
    """The points of a grid, row by row from the lowest. Shapes: -> (side^2, 2)"""
    import torch

    left, right, bottom, top = extent
    up, across = torch.linspace(bottom, top, side), torch.linspace(left, right, side)
    return torch.stack([across.repeat(side), up.repeat_interleave(side)], 1)


def _moons(run, steps, seed):
    import torch

    dw.chance.seed_all(dw.run.derive(seed, "moons"))
    model = dw.nn.spline_flow(2)
    step = dw.Descent(dw.Likelihood(model), "Adam", lr=5e-3)
    feed = points(512 * steps, 1).view(steps, 512, 2)
    hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Clip(norm=10.0)]
    dw.fit(step, list(feed), epochs=1, seed=seed, hooks=hooks)
    model.eval()
    test, extent = points(20_000, 2), (-1.6, 2.6, -1.1, 1.6)
    grid = _plane(extent)
    with torch.no_grad():
        gap = dw.metrics.over_samples(exact(test) - model(test))
        shade, true = model(grid).exp().view(120, 120), exact(grid).exp().view(120, 120)
    nats, off = -float(model(test).detach().mean()), float(gap)
    panels = {
        "exact density": true.numpy(),
        "the flow's density": shade.numpy(),
        "samples of the data": test[:1500].numpy(),
        "samples of the flow": model.sample(1500).numpy(),
    }
    told = f"Two moons: exact density and data, a flow's density and samples, {off:.3f} nats off."
    run.figure(
        "moons",
        dw.report.plots.densities(panels, extent, alt=told),
        title="Two moons, whose density is known",
        caption=f"A flow of four spline couplings after {steps:,} steps: {nats:.3f} nats on 20,000 "
        f"new points. That is {off:.3f} [{gap.low:.3f}, {gap.high:.3f}] above the least that "
        "is possible, the entropy of the moons; the difference is the KL divergence.",
        alt=told,
    )


def schools(x):
    """log of prior x likelihood of mean and log deviation of eight schools. Shapes: (N, 2) -> (N,)

    The effects of the schools themselves are integrated out: y_j is N(m, s_j^2 + t^2). Priors:
    m is N(0, 5^2), t half-Cauchy(0, 5).
    """
    import torch

    mean, log_t = x.unbind(-1)
    y, s = torch.tensor(EFFECTS).to(x), torch.tensor(ERRORS).to(x)
    log_t = log_t.clamp(-20, 20)
    t = log_t.exp()
    spread = s.square() + t.square().unsqueeze(-1)
    off = (y - mean.unsqueeze(-1)).square() / spread
    likelihood = -(off + spread.log() + math.log(2 * math.pi)).sum(-1) / 2
    prior = -(mean / 5).square() / 2 - math.log(5 * math.sqrt(2 * math.pi))
    deviation = math.log(2 / (5 * math.pi)) - torch.log1p((t / 5).square()) + log_t
    return likelihood + prior + deviation


def _schools(run, steps, seed):
    """A posterior learnt from its formula, beside the one on a grid."""
    import torch

    dw.chance.seed_all(dw.run.derive(seed, "posterior"))
    model = dw.nn.autoregressive_flow(2, 3, (32, 32), kind="spline", inverse=True)
    objective = dw.ReverseKL(model, lambda z: schools(_unscaled(z)), samples=256)
    hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Clip(norm=5.0)]
    step = dw.Descent(objective, "Adam", lr=5e-3)
    dw.fit(step, [torch.zeros(1)], steps=steps, seed=seed, hooks=hooks)
    objective.eval()
    extent, wide = (-10.0, 18.0, -4.0, 4.0), (-30.0, 35.0, -12.0, 9.0)
    fine = _plane(wide, 600)
    cell = (wide[1] - wide[0]) * (wide[3] - wide[2]) / 599**2
    log_p = schools(fine.double())
    evidence = float(log_p.logsumexp(0)) + math.log(cell)
    share = (log_p - log_p.logsumexp(0)).exp()
    found = objective.importance(20_000)
    made = _unscaled(model.sample(20_000))
    grid = _plane(extent)
    with torch.no_grad():
        shade = model(_scale(grid)).exp().view(120, 120).numpy()
    panels = {"on a grid": schools(grid.double()).exp().view(120, 120).numpy(), "the flow": shade}
    told = "Posterior of mean and log deviation: exact on a grid, and a flow learnt by reverse KL."
    run.figure(
        "posterior",
        dw.report.plots.densities(panels, extent, labels=("mean effect", "log deviation"),
                                  alt=told),
        title="A posterior, from its formula alone",
        caption="Eight schools (Rubin, 1981): the mean effect of coaching and the log of how much "
        "schools differ. No sample was given, only the unnormalised density; the flow is an "
        "inverse autoregressive one, trained by reverse KL.",
        alt=told,
    )  # fmt: skip
    deviation = made[:, 1].exp()
    exact_t = fine[:, 1].double().exp()
    known = float((share * fine[:, 0]).sum()), float(share @ exact_t.clamp_max(50))
    said = float(made[:, 0].mean()), float(deviation.clamp_max(50).mean())
    low, middle, high = (value + LOG_UNIT for value in (found.low, found.log_evidence, found.high))
    rows = [
        ["mean effect", f"{known[0]:.2f}", f"{said[0]:.2f}"],
        ["deviation between schools", f"{known[1]:.2f}", f"{said[1]:.2f}"],
        ["log evidence", f"{evidence:.3f}", f"{middle:.3f}"],
        ["its interval", "", f"{low:.3f} to {high:.3f}"],
        ["effective samples", "", f"{100 * found.efficiency:.0f} %"],
    ]
    run.table(
        "The posterior in numbers",
        ["", "on a grid", "flow"],
        rows,
        "Deviations above 50 count as 50. The evidence is by importance weights of 20,000 samples "
        "of the flow, with its 95 % interval; effective samples are those weights' size.",
    )


CENTRE, UNIT = (4.0, 1.0), (5.0, 1.5)  # what the flow's numbers stand for
LOG_UNIT = math.log(UNIT[0] * UNIT[1])


def _unscaled(z):
    return z * z.new_tensor(UNIT) + z.new_tensor(CENTRE)


def _scale(x):
    return (x - x.new_tensor(CENTRE)) / x.new_tensor(UNIT)


def _trust(run, model, table, levels, seed):
    """Whether it is a density: what inversion loses, and whether noise is noise."""
    import torch

    body = model
    x = table.test.x[:256]
    if levels:  # what comes after the noise on levels, which has no inverse to be measured
        parts = model.bijection.parts
        at = next(i for i, part in enumerate(parts) if isinstance(part, dw.nn.Dequantize))
        with dw.chance.aside(dw.run.derive(seed, "noise")), torch.no_grad():
            for part in parts[: at + 1]:
                x = part(x)[0]
        body = dw.nn.Flow(dw.nn.Composition(list(parts[at + 1 :])), x.shape[1:], noise=model.noise)
    body = body.eval()
    with torch.no_grad():
        z = body.encode(x)[0].flatten(1)
    rows = []
    for name, kind in (("float32", torch.float32), ("float64", torch.float64)):
        error = body.to(kind).inversion_error(x.to(kind))
        rows.append([name, f"{error.largest:.1e}", f"{error.median:.1e}", f"{error.log_det:.1e}"])
    body.float()
    run.table(
        "What is lost there and back",
        ["numbers", "largest", "median of samples", "log-determinant"],
        rows,
        "Test samples taken to noise and back: the largest difference, in units where the data "
        "span 0 to 1 (images) or have deviation 1 (tables); and how far the two log-determinants "
        "are from cancelling, in nats.",
    )
    drawn = torch.randn(z.shape)
    size, far = z.shape[1], float((z.abs() > 2).float().mean())
    long, by_chance = (((v.square().sum(1) - size) / math.sqrt(2 * size)) for v in (z, drawn))
    run.figure(
        "noise",
        dw.report.plots.histogram(
            {"test data": long.clamp(-6, 12).numpy(), "true noise": by_chance.numpy()},
            x="squared length of the noise, standardised",
        ),
        title="Is what it makes of test data noise?",
        caption="A flow that knew the density would take test samples to independent normal "
        "numbers, whose squared length is chi-squared. Test samples longer than true noise are "
        "those that the flow finds less likely than it should: it has learnt training samples by "
        f"heart. Of single numbers {100 * far:.1f} % lie beyond 2, of true noise 4.6 %.",
        alt="Histogram of squared lengths of the noise of test samples beside true noise.",
    )
