"""Topic 20: a variational autoencoder: what it costs, what it keeps, what it makes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import deepweave as dw
from deepweave.recipes import home, recipe, subject
from deepweave.recipes.flow import levels_of
from deepweave.recipes.gan import need_images, reader, recognised, seen, sheet, shown

SHOWN = 10  # images in a row of a picture


@recipe("20 Variational autoencoders", seconds=75)
def vae(
    data: str = "digits",
    *,
    target: str | None = None,
    likelihood: Literal["logistic", "bernoulli", "categorical", "gaussian"] = "logistic",
    latent: int = 16,
    hidden: tuple[int, ...] = (256, 256),
    widths: tuple[int, ...] = (),
    beta: float = 1.0,
    samples: int = 4000,
    epochs: int = 100,
    batch: int = 128,
    lr: float = 0.003,
    decay: float = 0.01,
    betas: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    study_epochs: int = 40,
    draws: int = 500,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """An autoencoder of few numbers for images: nats per image, use of each number, new images.

    Args:
        data: a named set of images (digits, mnist, fashion_mnist), or a folder of your own.
        target: the column of classes, for a table of your own.
        likelihood: of a pixel given the latent numbers; bernoulli cuts greys at one half first.
        latent: how many numbers stand for an image.
        hidden: dense layers of the encoder; of the decoder in reverse.
        widths: channels of convolutions before them.
        beta: the weight of the divergence.
        samples: training samples taken, unless full.
        epochs: passes over the training data.
        batch: samples per step.
        lr: the highest learning rate of the cycle.
        decay: of the weights.
        betas: weights of the divergence in the study of rate and distortion, all at once.
        study_epochs: passes of the study, and of the model with two latent numbers.
        draws: importance samples of the sharpest bound.
        full: all samples and convolutions: made for mnist.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    need_images(table, "vae")
    if quick:
        samples, epochs, study_epochs, hidden, draws, betas = 400, 3, 2, (64,), 64, betas[:3]
    if full:
        samples, epochs, study_epochs = len(table.train), 15, 6
        hidden, widths = (256,), (32, 64)
    observed, table = _observed(table, likelihood)  # before the reader: it must know such images
    judge = reader(table, home(out), seed, quick)
    table = replace(
        table, train=table.train[:samples], validation=table.validation[: max(100, samples // 4)],
        test=table.test[:500] if not full else table.test[:2000],
    )  # fmt: skip

    def made(size, classes=0, beta=beta, hidden=hidden, widths=widths):
        encoder = dw.nn.gaussian_encoder(table.spec, size, hidden, widths=widths, classes=classes)
        decoder = dw.nn.decoder(
            table.spec, size, hidden[::-1], numbers=observed.numbers, widths=widths[::-1],
            classes=classes,
        )  # fmt: skip
        prior = dw.nn.spline_flow(size, 4, (128,), context=classes) if classes else None
        return dw.VAE(encoder, decoder, observed, beta=beta, classes=classes, prior=prior)

    def train(size, epochs, out, classes=0):
        dw.chance.seed_all(dw.run.derive(seed, "weights"))
        step = dw.Descent(made(size, classes), "AdamW", lr=lr, weight_decay=decay)
        hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Clip(norm=100.0)]
        return dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=out)

    plane = train(2, study_epochs, home(out) / "plane")
    classes = len(table.spec.classes)
    told = train(latent, epochs, home(out) / "told", classes)
    told.test()
    run = train(latent, epochs, home(out))
    run.test()
    run.tell(
        question="How few numbers describe an image, and what do they cost?",
        title=f"A variational autoencoder describes {subject(table)}",
    )
    _pictures(run, table, seed)
    fitted = _fitted(run, table, seed, quick)
    _judged(run, told, fitted, table, judge, seed)
    _bounds(run, told, fitted, table, draws, seed)
    _use(run, table)
    _plane(run, plane)
    members = [made(latent, beta=b, hidden=hidden[:1], widths=()) for b in betas]
    _study(run, table, members, (study_epochs, batch, lr, seed))
    return run


def _observed(table, name):
    """The likelihood by name, for the levels that the images have; greys cut for bernoulli."""
    from deepweave.functional import observation as kinds

    if name == "bernoulli":
        parts = {name: getattr(table, name) for name in ("train", "validation", "test")}
        cut = {name: replace(one, x=(one.x > 0.5).float()) for name, one in parts.items()}
        return kinds.Bernoulli(), replace(table, **cut)
    if name == "gaussian":
        return kinds.Gaussian(), table
    levels = levels_of(table)
    if levels is None:
        raise ValueError(f"vae: pixels of {table.name} have no levels: take --likelihood gaussian")
    return (kinds.Logistic if name == "logistic" else kinds.Categorical)(levels), table


def _fitted(run, table, seed, quick):
    """The same autoencoder with a flow as its prior, fitted to what its encoder gives."""
    import torch

    model, x = run.objective, table.train.x
    dw.chance.seed_all(dw.run.derive(seed, "prior"))
    with torch.no_grad():
        parts = zip(*[model.encode(part) for part in x.split(1000)])
    many = max(1, 40_000 // len(x))  # draws of each image
    mean, log_var = (torch.cat(part).repeat(many, 1) for part in parts)
    z = mean + (log_var / 2).exp() * torch.randn_like(mean)
    prior = dw.nn.spline_flow(z.shape[1], 4, (128,))
    step = dw.Descent(dw.Likelihood(prior), "AdamW", lr=0.003)
    hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Clip(norm=20.0)]
    split = dw.data.Split(z, table.train.y.repeat(many))
    dw.fit(step, split, steps=20 if quick else 1000, batch=256, seed=seed, hooks=hooks, out=False)
    return dw.VAE(model.encoder, model.decoder, model.likelihood, prior=prior).eval()


def _pictures(run, table, seed):
    """Reconstructions, samples, a way between two images, and each latent number moved."""
    import torch

    model, first = run.objective, _one_each(table.test)
    x = table.test.x[first]
    with dw.chance.aside(dw.run.derive(seed, "samples")), torch.no_grad():
        drawn = model.sample(4 * SHOWN)
        again = model.predict(x)
    run.figure(
        "samples", sheet(drawn, SHOWN),
        title="New images",
        caption="Latent numbers drawn from N(0, I), and the expected image of each: what the "
        "decoder is sure of. Not chosen.",
        alt="A grid of forty new images.",
    )  # fmt: skip
    run.info["picture"] = "figures/samples.svg"
    run.figure(
        "again", sheet(torch.cat([x, again]), len(x)),
        title="Test images and what is left of them",
        caption=f"Above, the first test image of each class; below, made again from the mean of "
        f"its {model.encoder.latent} numbers.",
        alt="Two rows: test images, and their reconstructions, which are smoother.",
    )  # fmt: skip
    cost = model.judge(table.test.x[:500])["nll"]
    with torch.no_grad():
        mean, log_var = model.encode(table.test.x)
        a, b = mean[first[0]], mean[first[-1]]
        steps = torch.linspace(0, 1, SHOWN)[:, None]
        pairs = ((a, b), (mean[first[1]], mean[first[-2]]), (b, mean[first[len(first) // 2]]))
        ways = [model.decode(torch.lerp(one, other, steps)) for one, other in pairs]
        use = dw.metrics.generative.latent_use(mean, log_var)
        order = use.kl.argsort(descending=True)[:6]
        moved = []
        for number in order:
            z = a.repeat(SHOWN, 1)
            z[:, number] = torch.linspace(-2.5, 2.5, SHOWN)
            moved.append(model.decode(z))
        ways, moved = (model.likelihood.mean(torch.cat(part)) for part in (ways, moved))
    run.figure(
        "between", sheet(ways, SHOWN),
        title="From one image to another",
        caption="Each row goes straight from the numbers of one test image to those of another. "
        "Where it passes from class to class the images in between are no mixtures of pixels.",
        alt="Three rows of images that change from one digit into another step by step.",
    )  # fmt: skip
    run.figure(
        "moved", sheet(moved, SHOWN),
        title="One number at a time",
        caption="Each row moves one latent number of a test image from -2.5 to 2.5, the others "
        "held; the six that tell most, from the top: "
        + ", ".join(f"{use.kl[i]:.2f}" for i in order) + " nats.",
        alt="Six rows of images, each changing one property.",
    )  # fmt: skip
    worst = cost.argsort(descending=True)[:SHOWN]
    nats = [f"{c:.0f}" for c in cost[worst]]
    run.figure(
        "unlikely", dw.report.plots.images(shown(table.test.x[worst]), nats, columns=SHOWN),
        title="The least likely test images",
        caption=f"Of {len(cost)}, with their nats; what it does not know is here before anybody "
        "labels it.",
        alt="Ten odd test images with their costs.",
    )  # fmt: skip


def _one_each(split):
    """The first sample of each class, ten at most."""
    import torch

    classes = split.y.unique()[:SHOWN]
    return torch.stack([(split.y == label).nonzero()[0, 0] for label in classes])


def _judged(run, told, fitted, table, judge, seed):
    """Samples by class, what a classifier sees in samples, and readings beside real ones."""
    import torch

    classes = len(table.spec.classes)
    label = torch.arange(classes).repeat_interleave(max(1, 2000 // classes))
    rows = [seen("real test images", judge, table.test.x, table.test.y)]
    with dw.chance.aside(dw.run.derive(seed, "judged")):
        for name, drawn in (("expected", False), ("drawn", True)):
            free, flow = (m.sample(len(label), drawn=drawn) for m in (run.objective, fitted))
            asked = told.objective.sample(len(label), label, drawn=drawn)
            rows.append(seen(f"from N(0, I), {name}", judge, free))
            rows.append(seen(f"from a flow, {name}", judge, flow))
            rows.append(seen(f"of a class that is told, {name}", judge, asked, label))
            if not drawn:
                right, kinds, _ = recognised(judge, asked, label)
                run.info["told"] = {"right": right.to_json(), "classes": kinds}
        few = min(len(table.validation), len(table.test))
        made = run.objective.sample(few, drawn=True)
        by_class = told.objective.sample(classes * SHOWN, torch.arange(classes).repeat(SHOWN))
    run.table(
        "What a classifier sees in them",
        ["images", "sure of", "classes seen", "entropy, bits", "told rightly"], rows,
        "A convolutional net, trained apart on the training images. Sure: a probability of 0.9 at "
        "least. Told rightly: the class it was asked for. Expected images are the decoder's means; "
        "drawn ones have each pixel drawn, as the likelihood has it. From a flow: the same "
        "autoencoder, whose latent numbers are drawn as its encoder has them, by a flow that was "
        "fitted to them afterwards, not from N(0, I). Told a class: another one, trained together "
        "with a flow of each class as its prior.",
    )  # fmt: skip
    run.figure(
        "told", sheet(by_class, classes),
        title="New images of a class",
        caption="Encoder and decoder are told the class; each row is another draw of the latent "
        "numbers, each column a class.",
        alt="A grid of new images, one class in each column.",
    )  # fmt: skip
    _compared(run, made, table)


def _compared(run, made, table):
    """Every reading of samples beside the same reading of real ones."""
    real, other, train = table.test.x, table.validation.x, table.train.x
    readings = dw.metrics.generative.compare(made, real, other, train, seed=run.seed)
    rows = [[key, *(one.text(3) for one in pair)] for key, pair in readings.items()]
    run.info["compare"] = {k: [one.to_json() for one in pair] for k, pair in readings.items()}
    run.table(
        "New images beside real ones", ["reading", "draws of the model", "other real images"], rows,
        f"Against {len(table.test)} test images, in pixels, with 95 % intervals; the last column "
        "is what validation images get: a difference within it is none. c2st: how often a network "
        "tells them from test images (0.5: never); memorised: how often one lies nearer to a "
        "training image than a test image does (0.5: as often).",
    )  # fmt: skip


def _bounds(run, told, fitted, table, draws, seed):
    """The bound by more and more samples; beside it pixels by themselves, and told classes."""
    import torch

    model, x, rows = run.objective.eval(), table.test.x, []
    levels, scale = model.likelihood.levels, x[0].numel() * math.log(2)

    def row(name, cost, error=""):
        score, bits = dw.metrics.over_samples(cost), dw.metrics.over_samples(cost / scale)
        said = "" if levels is None else bits.text(4)
        rows.append([name, score.text(4), said, error])
        run.info.setdefault("bounds", {})[name] = score.to_json()
        return {"nll": score, "bits_per_dim": bits}

    for count in sorted({1, 8, 64, draws}):
        with dw.chance.aside(dw.run.derive(seed, "bounds", count)):
            log_p, error = model.log_likelihood(x, samples=count)
        name = "ELBO" if count == 1 else f"of {count} samples"
        row(name, -log_p, f"{float(error.mean()):.2f}" if count > 1 else "")
    with dw.chance.aside(dw.run.derive(seed, "bounds")):
        row("a flow for N(0, I), of 64", fitted.judge(x)["nll"])
        row("told the class, of 64", told.objective.eval().judge((x, table.test.y))["nll"])
    row("each pixel by itself", model.plain(table.train.x)(x)["nll"])
    if levels is not None and levels > 2:
        from deepweave.functional.observation import Categorical
        from deepweave.objectives.unlabelled import by_value

        plain = by_value(Categorical(levels), table.train.x, "vae")
        parts = [plain(part)["nll"] for part in x.split(250)]
        name = "frequencies of levels"
        run.rival(name, row(name, torch.cat(parts)))
    run.table(
        "What a test image costs", ["-log p(x)", "nats", "bits per pixel", "error of one image"],
        rows,
        "Upper bounds of the mean of -log p(x), lower ones are better; the ELBO is that of one "
        "sample. More importance samples come closer to -log p(x). 95 % intervals over test "
        "images; the error is that of the estimate of one image, in nats.",
    )  # fmt: skip


def _use(run, table):
    """How many nats each latent number has: which are used, which are lost."""
    import torch

    with torch.no_grad():
        mean, log_var = run.objective.encode(table.test.x)
    use = dw.metrics.generative.latent_use(mean, log_var)
    order, active = use.kl.argsort(descending=True), int(use.active.sum())
    run.info["latent"] = {
        "active": active, "of": len(use.kl), "information": use.information, "kl": use.kl.tolist()
    }  # fmt: skip
    names = [f"{i}{'' if use.active[i] else ' (lost)'}" for i in order.tolist()]
    run.figure(
        "use",
        dw.report.plots.bars(names, use.kl[order].numpy(), x="nats of each latent number"),
        title=f"{active} of {len(use.kl)} latent numbers are used",
        caption=f"The divergence from N(0, 1) of each number, over test images; together "
        f"{float(use.kl.sum()):.1f} nats. A number is used when its mean varies by more than 0.01. "
        f"All together tell {use.information:.2f} nats of which image it was (at most "
        f"log {len(mean)} = {math.log(len(mean)):.2f}).",
        alt=f"Bars of nats per latent number, {active} of {len(use.kl)} in use.",
    )
    if active < len(use.kl):
        run.info.setdefault("advice", []).append(
            f"{len(use.kl) - active} of {len(use.kl)} latent numbers are lost (their posterior is "
            "the prior): fewer would do; if all are lost, lower beta or give free nats."
        )
        run.save()


def _plane(run, plane):
    """The images of a model with two latent numbers, over the plane that they span."""
    import torch

    ends = torch.special.ndtri(torch.linspace(0.03, 0.97, 14))
    z = torch.stack([ends.repeat(14), ends.flip(0).repeat_interleave(14)], 1)
    with torch.no_grad():
        made = plane.objective.likelihood.mean(plane.objective.decode(z))
    run.figure(
        "plane", sheet(made, 14),
        title="Two numbers alone",
        caption="Another model with two latent numbers: the image at each place of their plane, at "
        "quantiles of N(0, 1) from 3 to 97 %.",
        alt="A square of images in which classes pass into each other.",
    )  # fmt: skip


def _study(run, table, members, settings):
    """Rate and distortion for every beta: all models at once."""
    import torch

    epochs, batch, lr, seed = settings
    step = dw.Population(members, optimizer="AdamW", lr=lr, shared=True)
    few = replace(table, train=table.train[:4000])
    hooks = [dw.hooks.Schedule(dw.hooks.one_cycle), dw.hooks.Validate(table.validation)]
    dw.fit(step, few, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=False)
    with dw.chance.aside(dw.run.derive(seed, "study")):
        found = step.evaluate((table.test.x, table.test.y))
    rows = []
    for i, one in enumerate(members):
        member: Any = step.member(i)
        with torch.no_grad():
            use = dw.metrics.generative.latent_use(*member.encode(table.test.x))
        rate, distortion = float(found["kl"][i]), float(found["reconstruction"][i])
        nats = [f"{value:.1f}" for value in (distortion, rate, distortion + rate)]
        rows.append([f"{float(one.beta):g}", *nats, f"{int(use.active.sum())} of {len(use.kl)}"])
    rates, distortions = found["kl"].tolist(), found["reconstruction"].tolist()
    plot = dw.report.plots.curves({"": (rates, distortions)}, x="rate: KL, nats", log=False,
                                  y="distortion: -log p(x | z), nats")  # fmt: skip
    run.figure(
        "rate", plot,
        title="What a nat of latent numbers buys",
        caption="One point for each beta, from "
        f"{float(members[-1].beta):g} (left) to {float(members[0].beta):g} (right). Their sum is "
        "the bound, which is best near beta = 1; below it the model pays for what the prior never "
        "draws, above it numbers are lost.",
        alt="A falling curve of distortion over rate.",
    )  # fmt: skip
    run.table(
        "Weights of the divergence",
        ["beta", "distortion, nats", "rate, nats", "sum", "numbers used"], rows,
        f"{len(members)} models at once as a Population, {epochs} epochs, one hidden layer each; "
        "over test images, one draw of each.",
    )  # fmt: skip
