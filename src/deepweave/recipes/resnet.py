"""Topic 14: a residual network, and the proof: fifty layers with shortcuts and without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe
from deepweave.recipes.cnn import changes

MOST = 10  # of a loss that is drawn


@recipe("14 Residual networks", seconds=110)
def resnet(
    data: str = "fashion_mnist",
    *,
    target: str | None = None,
    blocks: int = 1,
    widths: tuple[int, ...] = (32, 64, 128),
    kind: str = "basic",
    squeeze: int = 0,
    drop: float = 0.0,
    smoothing: float = 0.1,
    samples: int = 4000,
    epochs: int = 8,
    batch: int = 128,
    lr: float = 0.01,
    depth: int = 50,
    rates: tuple[float, ...] = (0.01, 0.03, 0.1),
    study_epochs: int = 8,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A residual net on images; and nets of 50 layers, with shortcuts and without, on digits.

    Args:
        data: a named set of images (fashion_mnist, mnist, digits), or a folder of your own.
        target: the column to predict, for a table of your own.
        blocks: residual blocks in each stage.
        widths: the channels of each stage.
        kind: basic, bottleneck or preactivation.
        squeeze: the reduction of squeeze-and-excitation; 0: none.
        drop: stochastic depth: the share of samples that skip the last block.
        smoothing: of the labels.
        samples: training samples taken, unless full.
        epochs: passes over the training data.
        batch: samples per step.
        lr: the highest learning rate of the cycle.
        depth: layers of the deep twins in the study, 6 n + 2.
        rates: learning rates in the study; each net is judged at its own best one.
        study_epochs: passes over the digits in the study.
        full: train on all images, long; the plain twin is then left to the study.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if depth < 14 or depth % 6 != 2:
        raise ValueError(f"resnet: depth must be 6 n + 2 and at least 14, got {depth}")
    table = dw.data.load(data, target=target, seed=seed)
    if len(table.spec.shape) != 3 or table.spec.task == "segmentation":
        raise ValueError(f"resnet: needs labelled images, {data} is {table.spec.task} of "
                         f"{table.spec.shape}")  # fmt: skip
    if full:
        samples, epochs, blocks = len(table.train), 20, 2
    if quick:
        samples, epochs, depth, rates, study_epochs = 500, 1, 14, (0.1,), 1
    few = len(table.validation) if full else samples // 4
    table = replace(table, train=table.train[:samples], validation=table.validation[:few])
    pooled = min(table.spec.shape[1:]) >= 16  # smaller images are not halved at once
    options = {"kind": kind, "squeeze": squeeze, "pooled": pooled}
    soft = {"smoothing": smoothing} if table.spec.task in ("binary", "multiclass") else {}

    def train(residual, out):
        dw.chance.seed_all(dw.run.derive(seed, "weights"))
        net = dw.nn.resnet_small(
            table.spec, blocks, widths, residual=residual, drop=drop if residual else 0.0, **options
        )
        objective = dw.Augment(dw.supervise(net, table.spec, **soft), *changes(table))
        step = dw.Descent(objective, "AdamW", lr=lr, weight_decay=0.02)
        hooks = [
            dw.hooks.Schedule(dw.hooks.one_cycle),
            dw.hooks.Average(0.99),
            dw.hooks.Validate(table.validation, restore=False),  # the cycle's end is its best
        ]
        return dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=out)

    plain = None if full else train(False, home(out) / "plain")
    run = train(True, home(out))
    run.test()
    if plain is not None:
        run.rival("the same without shortcuts", plain.predict(table.test.x))
    layers = sum(len(w.shape) > 1 for n, w in run.model.named_parameters() if "down" not in n)
    run.tell(
        question="What do shortcuts add, in a net of some layers and in one of fifty?",
        title=f"A residual net of {layers} layers on {dw.recipes.subject(table)}",
    )
    _study(run, depth, rates, study_epochs, seed)
    return run


def _study(run, depth, rates, epochs, seed):
    """Nets of 8 and of many layers, plain and residual, on digits: all rates at once."""
    digits = dw.data.load("digits", seed=seed)
    some = (digits.train.x[:256], digits.train.y[:256])
    curves, slopes, rows = {}, {}, []
    for layers in (8, depth):
        for residual in (True, False):
            name = f"{'residual' if residual else 'plain'}, {layers}"
            made = []
            for _ in rates:  # the same first weights at every rate
                dw.chance.seed_all(dw.run.derive(seed, "study", layers))
                net = dw.nn.resnet_small(digits.spec, layers // 6, (8, 16, 32), residual=residual)
                made.append(dw.Classify(net))
            slopes[name] = _slopes(made[0], some)
            step = dw.Population(made, optimizer="SGD", lr=rates, momentum=0.9, shared=True)
            hooks = [
                dw.hooks.Schedule(dw.hooks.cosine, warmup=0.1),
                dw.hooks.Validate(digits.train, restore=False),  # what is asked is how well it fits
            ]
            study = dw.fit(step, digits.train, batch=64, epochs=epochs, seed=seed, hooks=hooks)
            step.objective.eval()
            known = step.evaluate((digits.validation.x, digits.validation.y))["loss"]
            at = int(known.argmin())
            # early averages of batch norm can be far off through 50 layers: cut for the eye
            losses = [_cut(line["validation/loss"][at]) for line in study.history]
            curves[name] = (list(range(1, len(losses) + 1)), losses)
            score = dw.metrics.accuracy(step.predict(digits.test.x)[at], digits.test.y)
            told = f"{100 * score:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}]"
            ends = slopes[name][0] / slopes[name][-1]
            rows.append([name, f"{rates[at]:g}", f"{losses[-1]:.3g}", told, f"{ends:.3g}"])
    last = {name: losses[-1] for name, (_, losses) in curves.items()}
    alt = "Training loss by epoch: " + ", ".join(f"{n} layers {v:.2g}" for n, v in last.items())
    run.figure(
        "depth",
        dw.report.plots.curves(curves, x="epoch", y="training loss", log=True, height=3.0, alt=alt),
        title=f"The same net of {depth} layers, with shortcuts and without",
        caption="Loss over the training samples of digits, each net at its own best of "
        f"{len(rates)} learning rates. If depth alone were no harm, {depth} plain layers would fit "
        "at least as well as 8: they could copy them and pass the rest on. They do not find it; "
        "a block with a shortcut passes on what it gets unless it learns to add something. Losses "
        f"above {MOST} are cut.",
        alt=alt + ".",
    )
    deep = {name: line for name, line in slopes.items() if name.endswith(f" {depth}")}
    ends = ", ".join(f"{name} layers {line[0] / line[-1]:.3g}" for name, line in deep.items())
    alt = f"Norm of each layer's slope; that of the first layer over that of the last: {ends}."
    run.figure(
        "slopes",
        dw.report.plots.curves(
            {name: (list(range(1, len(line) + 1)), line) for name, line in deep.items()},
            x="layer", y="norm of the slope of each layer's weights", log=True, alt=alt,
        ),
        title="What comes back to the first layers",
        caption="Before any training, one batch of 256. Batch norm keeps the signal's size on its "
        "way forward, and pays on the way back: without shortcuts slopes grow from layer to layer, "
        "so that no learning rate suits the first and the last of them.",
        alt=alt,
    )  # fmt: skip
    run.table(
        "With shortcuts and without",
        ["net, layers", "best rate", "training loss", "test accuracy", "slope, first : last layer"],
        rows,
        f"Digits, {epochs} epochs, one seed; rates {', '.join(f'{rate:g}' for rate in rates)} at "
        "once as a Population, chosen on validation; Wilson's 95 % intervals.",
    )


def _cut(loss):
    """A loss as it is drawn; one that is not finite is null in the history."""
    return MOST if loss is None else min(loss, MOST)


def _slopes(objective, batch):
    """The norm of the loss' slope in the weights of each 3 x 3 convolution, first to last."""
    import torch

    weights = [w for w in objective.parameters() if w.dim() == 4 and w.shape[2] > 1]
    found = torch.autograd.grad(objective(batch)[0], weights)
    return [float(slope.norm()) for slope in found]
