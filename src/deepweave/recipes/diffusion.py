"""Topic 22: generative diffusion, from noise to images, and how good they are."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import deepweave as dw
from deepweave.recipes import home, recipe
from deepweave.recipes.flow import levels_of
from deepweave.recipes.gan import need_images, reader, shown


@recipe("22 Diffusion, generative", seconds=75)
def diffusion(
    data: str = "digits",
    *,
    target: str | None = None,
    widths: tuple[int, ...] = (32, 64),
    blocks: int = 1,
    asked: Literal["balanced", "noise", "data", "velocity", "flow"] = "balanced",
    schedule: Literal["lognormal", "cosine", "linear", "straight", "loguniform"] = "lognormal",
    weight: Literal["simple", "edm", "min-snr", "bound"] = "simple",
    guidance: float = 1.5,
    steps: int = 10,
    epochs: int = 50,
    batch: int = 64,
    lr: float = 0.004,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Images out of noise, class by class: how good, how varied, how new, by how many calls.

    Args:
        data: a named set of labelled images (digits, mnist, fashion_mnist), or a folder of yours.
        target: the column of classes, for arrays of your own.
        widths: channels of the U-Net at each size; between them the sides are halved.
        blocks: at each size, on the way down and up.
        asked: what the network predicts.
        schedule: which noise levels it learns from, and how often.
        weight: of each level.
        guidance: of the samples by class; 1: none.
        steps: of the default sampler, a network call each.
        epochs: passes over the training data.
        batch: samples per step.
        lr: the highest learning rate of the cycle.
        full: the long form, for mnist: three sizes, larger batches.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    need_images(table, "diffusion")
    levels = levels_of(table)
    if levels is None:
        raise ValueError(f"diffusion: pixels must have levels, such as 256, {data} has none")
    if full:
        widths, batch = (24, 48, 64), 128
        epochs = max(12, min(100, 600_000 // len(table.train)))
    if quick:
        parts = {"validation": table.validation[:400], "test": table.test[:400]}
        table = replace(table, train=table.train[:600], **parts)
        epochs, widths = 3, (8, 16)
    judge = reader(table, home(out), seed, quick)
    classes = max(2, table.spec.outputs)
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    net = dw.nn.unet(table.spec, widths, blocks, classes=classes)
    noise = dw.functional.Schedule(
        schedule, lowest=0.4 / (levels - 1) / 4, data=float(table.train.x.std())
    )
    method = dw.Denoise(net, noise, asked, weight=weight, classes=classes, levels=levels)
    hooks = [
        dw.hooks.Schedule(dw.hooks.one_cycle),
        dw.hooks.Clip(norm=1.0),
        dw.hooks.Average(0.99),
        dw.hooks.Validate(table.validation, restore=False),  # the cycle's end is its best
    ]
    step = dw.Descent(method, "AdamW", lr=lr, weight_decay=0.01)
    run = dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=home(out))
    method = run.objective.eval()
    some = len(table.test) if table.spec.size < 200 else 500  # 64 calls for each image take long
    run.data = replace(table, test=table.test[:some])
    run.test()
    run.info["main"] = "test/bits_per_dim"
    run.tell(
        question=f"Can noise be turned into {dw.recipes.subject(table)}?",
        title=f"Diffusion draws {dw.recipes.subject(table)}",
    )
    further = _trained_on(run, table, noise, levels, batch, seed) if full else None
    _likelihood(run, further)
    clock = _Clock(method, seed, steps)
    _grid(run, table, clock, guidance)
    _frames(run, table, clock, guidance)
    made = _measured(run, table, clock, judge, guidance, quick)
    _calls(run, table, clock, quick)
    _nearest(run, table, made)
    _filled(run, table, clock)
    run.info["picture"] = "figures/samples.svg"
    run.save()
    return run


class _Clock:
    """Samples of a method, each under a seed of its own; images are cut to [0, 1]."""

    def __init__(self, method, seed, steps):
        self.method, self.seed, self.steps = method, seed, steps

    def __call__(self, name, y, **options):
        import torch

        options = {"steps": self.steps, "clip": (0.0, 1.0), **options}
        with dw.chance.aside(dw.run.derive(self.seed, "samples", name)):
            parts = [self.method.sample(len(part), part, **options) for part in y.split(250)]
        return torch.cat(parts).clamp(0, 1)


def _label(table, k):
    names = table.spec.classes
    return str(names[k]) if names else str(k)


def _trained_on(run, table, noise, levels, batch, seed):
    """Bits per dimension after a further quarter of the training, on levels for the bound.

    Pictures are made at middle levels of noise, likelihoods of many greys at low ones: so all
    levels come equally often on a logarithmic scale, and the copy learns on.
    """
    import torch

    net, first = copy.deepcopy(run.model), run.objective
    even = replace(noise, kind="loguniform", lowest=0.1 / (levels - 1))
    method = dw.Denoise(net, even, first.target, classes=first.classes, levels=levels, start=0.25)
    hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Clip(norm=1.0), dw.hooks.Average(0.99)]
    step = dw.Descent(method, "AdamW", lr=0.002, weight_decay=0.01)
    found = dw.fit(step, table, epochs=3, batch=batch, seed=seed, hooks=hooks, out=False)
    method: Any = found.objective
    method.eval()
    with dw.chance.aside(seed):
        parts = [method.judge(one) for one in run.data.test.batches(250, shuffle=False)]
    return {k: dw.metrics.over_samples(torch.cat([p[k] for p in parts])) for k in parts[0]}


def _likelihood(run, further):
    """What the bound says, and on how many images."""
    read = dw.metrics.Score.from_json
    score, plain = (read(run.info[k]["test/bits_per_dim"]) for k in ("scores", "baseline"))
    known = {"diffusion, at most": score, "each pixel by itself": plain}
    if further:
        run.info["further"] = {name: one.to_json() for name, one in further.items()}
        known["trained on for the bound"] = further["bits_per_dim"]
    rows = [[name, f"{float(s):.3f}", f"[{s.low:.3f}, {s.high:.3f}]"] for name, s in known.items()]
    run.table(
        "Likelihood",
        ["model", "bits per dimension", "95 % interval"],
        rows,
        f"Of {len(run.data.test)} test images, told their class. Diffusion: the bound by its chain "
        "of noise, 64 network calls for each image. Baseline: how often a pixel has each level; it "
        "is not told the class, which is worth at most log(classes) nats for an image.",
    )


def _grid(run, table, made, guidance, rows=4):
    import torch

    classes = min(10, made.method.classes)
    y = torch.arange(classes).repeat(rows)
    x = made("grid", y, guidance=guidance)
    first = [_label(table, k) for k in range(classes)] + [""] * (classes * (rows - 1))
    told = f"{rows} samples of each of {classes} classes, not chosen."
    run.figure(
        "samples",
        dw.report.plots.images(shown(x), first, columns=classes, alt=told),
        title="What it draws",
        caption=f"{rows} samples of each class, not chosen: {made.steps} steps of DPM-Solver++, "
        f"guidance {guidance:g}.",
        alt=told,
    )


def _frames(run, table, made, guidance, rows=4, columns=8):
    """The same samples on their way: the noisy image at a level, and what is expected of it."""
    import torch

    classes, seen = made.method.classes, []
    y = torch.arange(rows) * max(1, classes // rows) % classes

    def watched(denoise, noise, levels):
        def look(noisy, s):
            x = denoise(noisy, s)
            scale = (s**2 + made.method.schedule.data**2).sqrt()
            seen.append((float(s), noisy / scale * 0.35, x))
            return x

        return dw.functional.dpm(look, noise, levels)

    made("frames", y, guidance=guidance, steps=24, sampler=watched)
    wanted = (10.0, 2.0, 1.0, 0.5, 0.3, 0.15, 0.08, 0.0)
    chosen = [min(seen, key=lambda one: abs(one[0] - level)) for level in wanted]
    pictures, captions = [], []
    for row in range(2):
        for part in (1, 2):
            for level, *parts in chosen:
                pictures.append((parts[part - 1][row] + 0.5).clamp(0, 1))
                captions.append(f"{level:.2g}" if not (row or part > 1) else "")
    told = f"{columns} noise levels of two samples: with noise above, what is expected below."
    run.figure(
        "frames",
        dw.report.plots.images(shown(torch.stack(pictures)), captions, columns=columns,
                               alt=told),
        title="From noise to image",
        caption="Two samples at falling noise levels, whose numbers stand above (the data lie in "
        "[0, 1]). Of each: the noisy image, scaled to one contrast, and below it what the network "
        "expects behind it, a mean of what is possible.",
        alt=told,
    )  # fmt: skip


def _halves(table):
    """Real images that were not learnt from, in two halves of one size."""
    import torch

    x = torch.cat([table.validation.x[:2000], table.test.x[:2000]])
    y = torch.cat([table.validation.y[:2000], table.test.y[:2000]])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    half = min(1000, len(x) // 2)
    return [(x[part], y[part]) for part in (order[:half], order[half : 2 * half])]


def _measured(run, table, made, judge, guidance, quick):
    """Samples beside real images, by every reading; and what a classifier sees in them."""
    import torch

    (real, _), (other, y) = _halves(table)
    samples = made("measured", y)
    train = table.train.x[:10_000]
    found = dw.metrics.generative.compare(samples, real, other, train)
    words = {
        "mmd": "MMD^2, pixels",
        "c2st": "told from real ones by a classifier",
        "frechet": "Frechet distance, pixels",
        "memorised": "nearer to training images than new ones",
    }
    rows = [[words.get(name, name), a.text(3), b.text(3)] for name, (a, b) in found.items()]
    run.table(
        "Samples beside real images",
        ["reading", "samples", "real images"],
        rows,
        f"{len(samples)} samples without guidance, and as many real images, against {len(real)} "
        "other real ones; none was learnt from. A difference within the second column's scatter "
        "is none. One half is what copies no more than chance would.",
    )
    run.info["compare"] = {k: [a.to_json(), b.to_json()] for k, (a, b) in found.items()}
    rows = []
    classes = made.method.classes
    asked = torch.arange(50 * classes if not quick else 10 * classes) % classes
    sets = {
        "test images": (table.test.x[:2000], table.test.y[:2000]),
        "samples": (made("told", asked), asked),
        f"samples, guidance {guidance:g}": (made("guided", asked, guidance=guidance), asked),
    }
    scores = {}
    for name, (x, y) in sets.items():
        said = judge.predict(x)
        right = said.argmax(1) == y
        scores[name] = dw.metrics.uncertainty.wilson(int(right.sum()), len(y))
        each = [float(right[y == k].double().mean()) for k in y.unique()]
        sure = dw.metrics.generative.modes(said)[0]
        told = [one.text(3, percent=True) for one in (scores[name], sure)]
        rows.append([name, told[0], f"{min(each):.0%}", told[1]])
    run.info["recognised"] = {k: s.to_json() for k, s in scores.items()}
    run.table(
        "What a classifier recognises",
        ["images", "as the class that was asked for", "of the worst class", "sure of"],
        rows,
        "A convolutional net that has seen the training images only, and no sample. Sure: a "
        "probability of 0.9 at least.",
    )
    return samples


def _calls(run, table, made, quick):
    """Quality against network calls, for every sampler."""
    (real, _), (other, y) = _halves(table)
    real, other, y = real[:300], other[:300], y[:300]
    from deepweave.functional.samplers import calls

    tried = {
        "DPM-Solver++": ("dpm", (5, 10, 20)),
        "Euler (DDIM)": ("euler", (5, 10, 20, 50)),
        "Heun (EDM)": ("heun", (5, 10, 25)),
        "ancestral (DDPM)": ("ancestral", (10, 20, 50)),
    }
    lines, rows, most = {}, [], 5 if quick else 50
    for name, (sampler, counts) in tried.items():
        counted, values = [], []
        for steps in (n for n in counts if n <= most):
            samples = made(f"{sampler} {steps}", y, sampler=sampler, steps=steps)
            found = dw.metrics.generative.mmd(samples, real)
            counted.append(calls(sampler, steps))
            values.append(float(found))
            rows.append([name, str(counted[-1]), found.text(3)])
        if counted:
            lines[name] = (counted, values)
    band = dw.metrics.generative.mmd(other, real)
    ends = [min(a[0] for a, _ in lines.values()), max(a[-1] for a, _ in lines.values())]
    lines["real images"] = (ends, [float(band)] * 2)
    run.table("Samplers", ["sampler", "network calls", "MMD^2 to real images"],
              [*rows, ["real images", "", band.text(3)]],
              f"{len(y)} samples without guidance against {len(real)} real images, in pixels; the "
              "last row is real against real, and its interval the scatter to expect.")  # fmt: skip
    told = f"MMD^2 by network calls; real images are at {float(band):.2g}."
    run.figure(
        "calls",
        dw.report.plots.curves(lines, x="network calls", y="MMD^2 to real images", log=False,
                               alt=told),
        title="Quality by network calls",
        caption=f"The squared maximum mean discrepancy of {len(y)} samples to real images, which "
        f"are {band.text(2)} from each other. Second-order solvers need fewer calls.",
        alt=told,
    )  # fmt: skip


def _nearest(run, table, samples, many=8):
    import torch

    train = table.train.x
    near = torch.cdist(samples[:many].flatten(1), train.flatten(1)).argmin(1)
    told = f"{many} samples above, the nearest training image of each below."
    run.figure(
        "nearest",
        dw.report.plots.images(shown(torch.cat([samples[:many], train[near]])), columns=many,
                               alt=told),
        title="Beside the nearest training images",
        caption="Samples, and below each the training image that is nearest to it in pixels.",
        alt=told,
    )  # fmt: skip


def _filled(run, table, made, many=4, tries=5):
    """The lower half of test images, filled in several times."""
    import torch

    classes = table.test.y[:200].unique()[:many]
    index = torch.stack([(table.test.y == k).nonzero()[0, 0] for k in classes])
    x = table.test.x[index]
    mask = torch.zeros(x.shape[2], 1, dtype=torch.bool)
    mask[: x.shape[2] // 2] = True
    known = x.repeat_interleave(tries, 0)
    with dw.chance.aside(dw.run.derive(made.seed, "filled")):
        found = made.method.inpaint(known, mask, clip=(0.0, 1.0), steps=30).clamp(0, 1)
    pictures = []
    for i in range(len(x)):
        seen = torch.where(mask, x[i], torch.full_like(x[i], 0.35))
        pictures += [x[i], seen, *found[i * tries : (i + 1) * tries]]
    captions = ["image", "told"] + [""] * tries
    captions += [""] * ((2 + tries) * (len(x) - 1))
    told = f"{len(x)} test images, their upper half, and {tries} ways to fill in the lower one."
    run.figure(
        "filled",
        dw.report.plots.images(shown(torch.stack(pictures)), captions, columns=2 + tries,
                               alt=told),
        title="Filled in",
        caption="Test images, the upper half that is told (the class is not), and five ways to "
        "fill in the lower one, each drawn anew.",
        alt=told,
    )  # fmt: skip
