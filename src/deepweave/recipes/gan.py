"""Topic 17: a generator against a discriminator: on a ring of modes, and on images."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import home, recipe, subject
from deepweave.recipes.cnn import changes

MODES, SPREAD = 8, 0.05
SHOWN = 10


@recipe("17 Generative adversarial networks", seconds=90)
def gan(
    data: str = "digits",
    *,
    target: str | None = None,
    latent: int = 32,
    hidden: tuple[int, ...] = (256, 256),
    widths: tuple[int, ...] = (),
    penalty: float = 1.0,
    samples: int = 4000,
    steps: int = 1500,
    batch: int = 128,
    lr: float = 0.001,
    critic_lr: float | None = None,
    ratio: int = 1,
    average: float = 0.995,
    seeds: int = 4,
    ring_steps: int = 600,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Images against a discriminator, watched for collapse; losses compared on eight modes.

    Args:
        data: a named set of images (digits, mnist, fashion_mnist), or a folder of your own.
        target: the column of classes, for a table of your own.
        latent: how many numbers the generator starts from.
        hidden: dense layers of the discriminator; of the generator in reverse.
        widths: channels of convolutions before them.
        penalty: the weight of R1 and R2, the squared slopes at real and at generated images.
        samples: training samples taken, unless full.
        steps: of both sides.
        batch: samples per step.
        lr: the generator's learning rate.
        critic_lr: the discriminator's; the same unless given.
        ratio: steps of the discriminator for one of the generator.
        average: of the generator's weights over training: the share of the old ones.
        seeds: of each loss on the ring, at once.
        ring_steps: of each run on the ring.
        full: all samples, wider and longer: made for mnist and fashion_mnist.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    need_images(table, "gan")
    if quick:
        samples, steps, ring_steps, hidden, seeds = 400, 12, 20, (32,), 2
    if full:
        samples, steps, hidden = len(table.train), 8000, (512, 256)
    judge = reader(table, home(out), seed, quick)
    table = replace(
        table, train=table.train[:samples], validation=table.validation[:1000],
        test=table.test[:1000],
    )  # fmt: skip
    classes = len(table.spec.classes)

    def train(steps, out, classes=0):
        dw.chance.seed_all(dw.run.derive(seed, "weights"))
        generator = dw.nn.decoder(
            table.spec, latent, hidden[::-1], widths=widths[::-1], output="sigmoid",
            classes=classes,
        )  # fmt: skip
        critic = dw.nn.discriminator(table.spec, hidden, widths=widths, classes=classes)
        sides = dw.GAN(generator, critic, r1=penalty, r2=penalty, classes=classes)
        step = dw.Alternate(sides, lr=lr, critic_lr=critic_lr, ratio=ratio)
        every = max(1, steps // 12)
        hooks = [
            dw.hooks.Average(average),
            dw.hooks.Collapse(table.validation, every=every),
            dw.hooks.Validate(table.validation, every=every, restore=False),
            dw.hooks.Log(max(1, steps // 100)),
        ]
        return dw.fit(step, table, steps=steps, batch=batch, seed=seed, hooks=hooks, out=out)

    told = train(steps, home(out) / "told", classes)
    run = train(steps, home(out))
    run.test()
    run.tell(
        question="Can a network learn to make images that another cannot tell from real ones?",
        title=f"A GAN makes {subject(table)}",
    )
    _pictures(run, told, table, seed)
    _seen(run, told, table, judge, seed)
    _course(run)
    _ring(run, ring_steps, seeds, seed)
    return run


def need_images(table, name):
    """Raise ValueError unless a set holds images of classes."""
    task, shape = table.spec.task, table.spec.shape
    if len(shape) != 3 or task not in ("binary", "multiclass"):
        raise ValueError(f"{name}: needs images of classes, {table.name} is {task} of {shape}")


def reader(table, run, seed, quick):
    """A classifier of the same images, trained apart: it tells what new images show."""
    dw.chance.seed_all(dw.run.derive(seed, "reader"))
    small = min(table.spec.shape[1:]) < 16
    widths = (32, 64) if small else (16, 32, 64)
    net = dw.nn.convnet(table.spec, widths, hidden=(128,), dropout=0.2)
    objective = dw.Augment(dw.supervise(net, table.spec), *changes(table))
    step = dw.Descent(objective, "AdamW", lr=0.005, weight_decay=0.02)
    some = replace(table, train=table.train[:300]) if quick else table
    hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Validate(table.validation)]
    found = dw.fit(
        step, some, epochs=2 if quick else max(2, 40_000 // len(some.train)), batch=128, seed=seed,
        hooks=hooks, out=run / "reader",
    )  # fmt: skip
    found.test()
    return found


def recognised(judge, x, y=None):
    """What a classifier sees in images; see :func:`deepweave.metrics.generative.modes`."""
    return dw.metrics.generative.modes(judge.predict(x), y)


def seen(name, judge, x, y=None):
    """That as a row: sure of, classes, entropy, and of those told a class, told rightly."""
    sure, kinds, entropy = recognised(judge, x)
    right = "" if y is None else recognised(judge, x, y)[0].text(3, percent=True)
    return [name, sure.text(3, percent=True), str(kinds), f"{entropy:.2f}", right]


def shown(x):
    """Images as a picture takes them."""
    from deepweave.report.mistakes import pictures

    return pictures(x.detach().cpu().clamp(0, 1).numpy())


def sheet(x, columns):
    """Images side by side."""
    return dw.report.plots.grid(shown(x), columns)


def _pictures(run, told, table, seed):
    """Samples, the training images next to them, ways between two, and images by class."""
    import torch

    classes = len(table.spec.classes)
    with dw.chance.aside(dw.run.derive(seed, "samples")), torch.no_grad():
        made = run.objective.sample(4 * SHOWN)
        label = torch.arange(classes).repeat(8)
        asked = told.objective.sample(len(label), label)
        a, b = torch.randn(2, 3, 1, run.objective.latent)
        share = torch.linspace(0, 1, SHOWN)[:, None]
        angle = torch.arccos(torch.cosine_similarity(a, b, dim=-1))[..., None]
        z = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / torch.sin(angle)
        ways = run.model(z.flatten(0, 1)).squeeze(1)
    run.figure(
        "samples", sheet(made, SHOWN),
        title="Images that it made", caption="From random numbers, not chosen; the generator is "
        "the average of its weights over training.", alt="A grid of forty generated images.",
    )  # fmt: skip
    run.info["picture"] = "figures/samples.svg"
    far = torch.cdist(made[:SHOWN].flatten(1), table.train.x.flatten(1))
    near = table.train.x[far.argmin(1)]
    run.figure(
        "nearest",
        sheet(torch.cat([made[:SHOWN], near]), SHOWN),
        title="Are they copies?", caption="Above, images that it made; below, the training image "
        "next to each. How often that is nearer than to a new real image stands among the scores: "
        "one half is as often.", alt="Two rows: generated images, and the nearest real ones.",
    )  # fmt: skip
    run.figure(
        "between", sheet(ways, SHOWN),
        title="From one image to another", caption="Each row goes along the sphere from one draw "
        "of the generator's numbers to another.", alt="Three rows of images that change gradually.",
    )  # fmt: skip
    run.figure(
        "told", sheet(asked, classes),
        title="Images of a class", caption="Another GAN, both of whose sides are told the class: "
        "each column a class, each row another draw.",
        alt="A grid of generated images, one class in each column.",
    )  # fmt: skip


def _seen(run, told, table, judge, seed):
    """What a classifier that was trained apart sees in the images."""
    import torch

    classes = len(table.spec.classes)
    with dw.chance.aside(dw.run.derive(seed, "judged")):
        label = torch.arange(classes).repeat(max(1, 1000 // classes))
        free, asked = run.objective.sample(len(label)), told.objective.sample(len(label), label)
    rows = []
    for name, x, y in (
        ("real test images", table.test.x, table.test.y),
        ("made", free, None),
        ("made of a class that is told", asked, label),
    ):
        rows.append(seen(name, judge, x, y))
        sure, kinds, entropy = recognised(judge, x)
        found = {"sure": sure.to_json(), "classes": kinds, "entropy": entropy}
        if y is not None:
            found["right"] = recognised(judge, x, y)[0].to_json()
        run.info.setdefault("seen", {})[name] = found
    most = f"{math.log2(classes):.2f}"
    run.table(
        "Which modes it makes",
        ["images", "sure of", f"classes of {classes}", f"entropy, bits of {most}", "told rightly"],
        rows,
        "By a convolutional net, trained apart on the training images. Sure: a probability of 0.9 "
        "at least. A generator that drops modes loses classes, and entropy.",
    )


def _lines(history, keys):
    """Series by name: (steps, values) of what a history holds."""
    found = {}
    for name, key in keys.items():
        rows = [(line["step"], line[key]) for line in history if line.get(key) is not None]
        if rows:
            found[name] = tuple(zip(*rows))
    return found


def _course(run):
    """Coverage and precision while it learns; both sides' losses beside them, which say less."""
    seen = _lines(run.history, {"coverage": "samples/coverage", "precision": "samples/precision"})
    run.figure(
        "coverage",
        dw.report.plots.curves(seen, y="share", percent=True, alt="Coverage and precision rise."),
        title="Variety and quality while it learns",
        caption="Coverage: validation images with a generated one among their neighbours. "
        "Precision: generated images near real ones. This is how collapse is seen; the losses of "
        "both sides hardly tell.",
        alt="Lines of coverage and precision over steps.",
    )
    sides = _lines(
        run.history,
        {
            "discriminator": "train/critic",
            "generator": "train/generator",
            "real told": "train/told",
        },
    )
    run.figure(
        "sides",
        dw.report.plots.curves(sides, y="loss; real told above fake", alt="The two sides' losses."),
        title="The two sides",
        caption="Losses of discriminator and generator, and how often a real image has a higher "
        "logit than a fake one (one half: it cannot tell them).",
        alt="Lines of both losses and of how often real images are told from made ones.",
    )


def ring(count, seed=0):
    """Eight Gaussians on a circle of radius 1, deviation 0.05. Shapes: -> (count, 2)"""
    import torch

    random = torch.Generator().manual_seed(seed)
    angle = torch.randint(MODES, (count,), generator=random) * (2 * math.pi / MODES)
    centre = torch.stack([angle.cos(), angle.sin()], 1)
    return centre + SPREAD * torch.randn(count, 2, generator=random)


def modes(x):
    """How many of the eight hold at least 1 % of x, and the share within 3 deviations of one."""
    import torch

    angle = torch.arange(MODES) * (2 * math.pi / MODES)
    far, at = torch.cdist(x, torch.stack([angle.cos(), angle.sin()], 1)).min(1)
    good = far < 3 * SPREAD
    counts = at[good].bincount(minlength=MODES)
    return int((counts >= len(x) / 100).sum()), float(good.float().mean())


def _ring(run, steps, seeds, seed):
    """Losses on eight modes, every seed at once; and a collapse, provoked and seen."""
    import torch

    from deepweave.functional import adversarial as losses

    x, held = ring(4000, 1), ring(500, 2)
    split = dw.data.Split(x, torch.zeros(len(x), dtype=torch.long))
    sizes = ((2,), 1)

    def made(loss, spectral=False, **options):
        generator = dw.nn.decoder(sizes, 8, (64, 64))
        critic = dw.nn.discriminator(sizes, (64, 64), spectral=spectral)
        return dw.GAN(generator, critic, loss, **options)

    kinds = {
        "non-saturating (the notes')": (made(losses.nonsaturating), 2e-3),
        "least squares": (made(losses.least_squares), 2e-3),
        "hinge, spectral norm": (made(losses.hinge_gan, True), 1e-3),
        "Wasserstein, penalty 0.1": (made(losses.wasserstein, penalty=0.1), 2e-3),
        "relativistic, R1 and R2 of 0.02": (made(losses.relativistic, r1=0.02, r2=0.02), 2e-3),
    }
    rows = []
    for name, (one, rate) in kinds.items():
        dw.chance.seed_all(dw.run.derive(seed, "ring"))
        step = dw.Population(one, seeds, "Adam", lr=rate, betas=(0.0, 0.99), shared=True)
        dw.fit(step, split, batch=256, steps=steps, seed=seed, out=False)
        found = []
        for i in range(seeds):
            with dw.chance.aside(dw.run.derive(seed, "ring", i)):
                member: Any = step.member(i)
                points = member.sample(1000)
            near = dw.metrics.generative.manifold(points[: len(held)], held)
            found.append((*modes(points), float(near.coverage)))
        count, good, covered = zip(*found)
        told = [dw.metrics.over_seeds(part).text(3, percent=True) for part in (good, covered)]
        rows.append([name, f"{rate:g}", f"{min(count)} to {max(count)}", *told])
    run.table(
        "Losses on eight Gaussians",
        ["loss", "rate", "modes", "near a mode", "coverage"],
        rows,
        f"{seeds} seeds of each at once, as a Population of the objective that is both losses; "
        f"Adam without momentum, {steps} steps of both sides, networks of 64 and 64. Modes: that "
        "hold 1 % of 1,000 samples, over seeds; near: within three deviations. Student's 95 % "
        "intervals over seeds. Rates and the weights of penalties are the best of a few, by other "
        "seeds: the usual 10 of Wasserstein's is for images, and finds hardly a mode here; five "
        "steps of the discriminator for one cover less at as many updates. "
        "Under spectral norm logits rise slowly: that row is not done.",
    )
    curves: dict[str, Any] = {}
    advice: list[str] = []
    watched_runs: tuple[tuple[str, Any, dict[str, Any], dict[str, Any]], ...] = (
        ("relativistic", losses.relativistic, {"lr": 1e-3}, {"r1": 0.1, "r2": 0.1}),
        ("provoked", losses.nonsaturating, {"lr": 2e-2, "critic_lr": 1e-3, "betas": (0.9, 0.999)},
         {}),
    )  # fmt: skip
    for name, loss, rate, options in watched_runs:
        dw.chance.seed_all(dw.run.derive(seed, "watched"))
        hook = dw.hooks.Collapse(held, every=max(1, steps // 15))
        step = dw.Alternate(made(loss, **options), **rate)
        watched = dw.fit(step, split, batch=256, steps=steps, seed=seed, hooks=[hook], out=False)
        curves |= _lines(watched.history, {name: "samples/coverage"})
        advice += [f"{name}: {line}" for line in watched.info.get("advice", [])]
    run.info["ring"] = advice
    said = " What the hook said of it: " + "; ".join(advice) if advice else ""
    run.figure(
        "collapse",
        dw.report.plots.curves(curves, y="coverage of held-out points", percent=True,
                               alt="Coverage of two runs on the ring."),
        title="A collapse, provoked and named",
        caption="Eight Gaussians. The relativistic loss with R1 and R2; and the notes' losses with "
        "a generator rate twenty times the discriminator's and Adam's usual momentum." + said,
        alt="Two lines of coverage over steps: one rises, the other stays near nothing.",
    )  # fmt: skip
