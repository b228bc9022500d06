"""Topic 10a: a convolutional net, beside a dense one of as many weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe


@recipe("10a Convolutional neural networks", seconds=30)
def cnn(
    data: str = "digits",
    *,
    target: str | None = None,
    widths: tuple[int, ...] = (16, 32, 64),
    depth: int = 1,
    kernel: int = 3,
    dropout: float = 0.0,
    smoothing: float = 0.1,
    epochs: int = 40,
    batch: int = 128,
    lr: float = 0.01,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A convolutional net on images, what its filters and maps look like, what each unit sees.

    Args:
        data: a named set of images (digits, mnist, fashion_mnist), or a folder of your own.
        target: the column to predict, for a table of your own.
        widths: the channels of each stage; between stages the sides are halved.
        depth: convolutions in each stage.
        kernel: their size.
        dropout: share of features dropped before the last layer.
        smoothing: of the labels.
        epochs: passes over the training data.
        batch: samples per step.
        lr: the highest learning rate of the cycle.
        full: the long form: a fourth stage, and more epochs; for mnist.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    if len(table.spec.shape) != 3 or table.spec.task == "segmentation":
        raise ValueError(f"cnn: needs labelled images, {data} is {table.spec.task} of "
                         f"{table.spec.shape}")  # fmt: skip
    if full:
        widths, epochs = (*widths, 2 * widths[-1]), 20
    if quick:
        table, epochs = replace(table, train=table.train[:1000]), 3
    while 2 ** (len(widths) - 1) > min(table.spec.shape[1:]):
        widths = widths[:-1]  # so small images cannot be halved so often
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    net = dw.nn.convnet(table.spec, widths, depth=depth, kernel=kernel, dropout=dropout)
    dense = dw.nn.mlp(table.spec, _as_many(net, table.spec))
    soft = {"smoothing": smoothing} if table.spec.task in ("binary", "multiclass") else {}

    def train(model, out):
        objective = dw.Augment(dw.supervise(model, table.spec, **soft), *changes(table))
        step = dw.Descent(objective, "AdamW", lr=lr, weight_decay=0.02)
        hooks = [
            dw.hooks.Schedule(dw.hooks.one_cycle),
            dw.hooks.Average(0.99),
            dw.hooks.Validate(table.validation, restore=False),  # the cycle's end is its best
        ]
        return dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=out)

    rival = train(dense, home(out) / "dense")
    run = train(net, home(out))
    run.test()
    run.rival("a dense net of as many weights", rival.predict(table.test.x))
    run.tell(
        question=f"What do convolutions add on {dw.recipes.subject(table)}?",
        title=f"A convolutional net on {dw.recipes.subject(table)}",
    )
    read = dw.nn.summary(run.model, table.spec)
    _layers(run, read)
    _filters(run)
    _maps(run, table)
    _seen(run, table, read)
    return run


def changes(table):
    """What may happen to the images of a set in training, such that their labels stay true."""
    from functools import partial

    augment = dw.functional
    if table.name == "fashion_mnist":  # clothes have no left and right
        return augment.flip, augment.shift, partial(augment.erase, share=0.5)
    return (partial(augment.affine, degrees=12, scale=0.12, translate=0.07, shear=0.1),)


def _as_many(net, spec):
    """Two equal hidden layers with which a dense net has as many weights as a given net."""
    goal = sum(weight.numel() for weight in net.parameters())
    ends = spec.size + spec.outputs + 2
    width = round(((ends * ends + 4 * goal) ** 0.5 - ends) / 2)
    return [max(1, width)] * 2


def _layers(run, read):
    """What the net is made of, layer by layer."""
    rows = []
    for row in read.rows:
        if row.kind in ("ReLU", "Flatten"):
            continue
        shape = " x ".join(map(str, (row.shape or ())[1:]))
        sees = " x ".join(map(str, row.field)) if len(row.shape or ()) > 2 else "all"
        rows.append([row.kind, shape, f"{row.parameters:,}", f"{(row.flops or 0) / 1e6:.3g}", sees])
    run.table(
        "Layers",
        ["layer", "output", "parameters", "million FLOPs", "pixels that one unit sees"],
        rows,
        f"{read.parameters:,} parameters and {read.flops / 1e6:.3g} million FLOPs for an image, "
        "a multiply-add being two.",
    )


def _grey(pictures):
    """Pictures (N, H, W), each stretched to [0, 1]."""
    low, high = pictures.amin((1, 2), True), pictures.amax((1, 2), True)
    return (pictures - low) / (high - low).clamp_min(1e-9)


def _filters(run, most=32):
    """The first layer's weights, one picture for each filter."""
    import torch

    first = next(m for m in run.model.modules() if isinstance(m, torch.nn.Conv2d))
    weights = first.weight.detach()[:most]
    if weights.shape[1] == 3:
        pictures = _grey(weights.flatten(1)[:, None]).view(weights.shape).movedim(1, -1)
    else:
        pictures = _grey(weights.mean(1))
    told = f"{len(pictures)} filters of {weights.shape[-2]} x {weights.shape[-1]} pixels."
    run.figure(
        "filters",
        dw.report.plots.images(pictures.numpy(), alt=told),
        title="The filters of the first layer",
        caption="White weighs most, black least: edges in several directions, spots, corners. Each "
        "filter is stretched to its own range.",
        alt=told,
    )


def _maps(run, table, most=8):
    """One test image, and some channels behind each stage."""
    import torch
    import torch.nn.functional as F

    image, layers = table.test.x[:1], list(run.model.features)
    rows, x = [], image
    with torch.no_grad():
        for place, layer in enumerate(layers):
            x = layer(x)
            ahead = layers[place + 1] if place + 1 < len(layers) else None
            if ahead is None or isinstance(ahead, torch.nn.MaxPool2d):
                loud = x[0].flatten(1).amax(1).argsort(descending=True)[:most]
                rows.append(F.interpolate(_grey(x[0, loud])[None], image.shape[2:])[0])
    whole = torch.cat([F.pad(row, (0, 0, 0, 0, 0, most - len(row))) for row in rows])
    told = f"One image behind {len(rows)} stages, {most} channels of each."
    run.figure(
        "maps",
        dw.report.plots.images(whole.numpy(), columns=most, alt=told),
        title="What one image becomes",
        caption=f"The {most} loudest channels behind each stage, top to bottom, of the first test "
        f"image, {_label(table)}. Places get fewer, and each says more: from edges to parts.",
        alt=told,
    )


def _label(table):
    """What the first test image is, where it is one of several classes."""
    if table.spec.task == "multiclass" and table.spec.classes:
        return f"a {table.spec.classes[int(table.test.y[0])]}"
    return "whatever it may be"


def _seen(run, table, read):
    """The receptive field of the middle unit behind each layer, drawn on an image."""
    plots = dw.report.plots
    sides: dict[int, str] = {}
    for row in read.rows:
        if len(row.shape or ()) == 4 and row.field:
            sides.setdefault(row.field[0], "pooling" if "Pool" in row.kind else "convolution")
    image = table.test.x[0].mean(0).numpy()
    height, width = image.shape
    room = min(max(sides), 1.6 * max(height, width)) / 2 + 0.5
    told = f"A unit sees {', then '.join(map(str, sides))} pixels a side, layer by layer."
    with plots.style():
        drawn, axes = plots.figure(height=2.6, left=0.05, right=1.9, top=0.05, bottom=0.05)
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.set_xlim((width - 1) / 2 - room, (width - 1) / 2 + room)
        axes.set_ylim((height - 1) / 2 + room, (height - 1) / 2 - room)
        for i, (side, kind) in enumerate(sides.items()):
            tone, words = plots.SERIES[i % 7], plots.WORDS[i % 7]
            left, right = (width - 1 - side) / 2, (width - 1 + side) / 2
            top, bottom = (height - 1 - side) / 2, (height - 1 + side) / 2
            box = ([left, right, right, left, left], [top, top, bottom, bottom, top])
            axes.plot(*box, color=tone, linewidth=2)
            spot = 0.95 - 0.9 * i / max(1, len(sides) - 1)
            label = f"{kind}: {side} x {side}"
            axes.text(1.04, spot, label, transform=axes.transAxes, color=words, va="center")
        axes.set_axis_off()
        picture = plots.save(drawn, told)
    run.figure(
        "field",
        picture,
        title="What one unit sees",
        caption="The pixels that the unit in the middle depends on, behind each convolution and "
        "pooling. What lies outside of the image is padding.",
        alt=told,
    )
