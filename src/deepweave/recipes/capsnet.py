"""Topic 12: a capsule network, beside a convolutional net of as many weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import deepweave as dw
from deepweave.recipes import home, recipe


@recipe("12 Capsule networks", seconds=90)
def capsnet(
    data: str = "digits",
    *,
    target: str | None = None,
    widths: tuple[int, ...] = (32,),
    routing: Literal["dynamic", "full", "self"] = "dynamic",
    kinds: int = 8,
    pose: int = 16,
    rounds: int = 3,
    kernel: int = 3,
    decoder: tuple[int, ...] = (128, 256),
    samples: int = 6000,
    pairs: int = 6000,
    epochs: int = 30,
    batch: int = 64,
    lr: float = 0.004,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A capsule network on images: what its poses hold, who votes for what, and two digits in one.

    Args:
        data: a named set of images (digits, mnist, fashion_mnist), or a folder of your own.
        target: the column to predict, for a table of your own.
        widths: the channels of the convolutions before the primary capsules.
        routing: dynamic (couplings are constant on the way back), full (they are not) or self.
        kinds: of primary capsules at each place.
        pose: components of a class capsule.
        rounds: of routing.
        kernel: of the convolutions.
        decoder: hidden widths of the net that makes images of poses.
        samples: training samples taken, unless full.
        pairs: overlapping pairs of images to learn from, for the second net; 0: none.
        epochs: passes over the training data.
        batch: samples per step.
        lr: the highest learning rate of the cycle.
        full: the long form: all training samples, a larger net of 5 x 5 filters; for mnist.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    if len(table.spec.shape) != 3 or table.spec.task != "multiclass":
        raise ValueError(f"capsnet: needs images of several classes, {data} is {table.spec.task} "
                         f"of {table.spec.shape}")  # fmt: skip
    if full:
        samples, widths, kernel, pairs = len(table.train), (32, 64), 5, min(5 * pairs // 3, 10_000)
        decoder, epochs, batch = (256, 512), 15, 128
    if quick:
        samples, pairs, epochs = 800, min(pairs, 300), 4
    few = len(table.validation) if full else samples
    table = replace(table, train=table.train[:samples], validation=table.validation[:few])
    shape = {"kinds": kinds, "pose": pose, "rounds": rounds, "kernel": kernel, "norm": "batch"}
    share = 0.0005 * 784 / table.spec.size  # as much for each pixel as the paper's for MNIST
    move = partial(dw.functional.affine, translate=0.07)  # 2 pixels of 28, as in the paper

    def train(objective, out=None, *, table=table, passes=epochs):
        step = dw.Descent(objective, "AdamW", lr=lr, weight_decay=0.02)
        hooks = [
            dw.hooks.Schedule(dw.hooks.one_cycle),
            dw.hooks.Average(0.99),
            dw.hooks.Validate(table.validation, restore=False),  # the cycle's end is its best
        ]
        return dw.fit(step, table, epochs=passes, batch=batch, seed=seed, hooks=hooks, out=out)

    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    net = dw.nn.capsnet(table.spec, widths, routing, decoder=decoder, **shape)
    plain = _as_many(net, table.spec, widths)
    rival = train(dw.Augment(dw.Classify(plain, smoothing=0.1), move), home(out) / "convolutional")
    run = train(dw.Augment(dw.MarginReconstruct(net, share=share), move), home(out))
    run.test()
    run.rival("a convolutional net of as many weights", rival.predict(table.test.x))
    subject = dw.recipes.subject(table)
    run.tell(
        question=f"What do capsules know about {subject}, beside their class?",
        title=f"A capsule network on {subject}",
    )
    _sweep(run, table)
    _remade(run, table)
    _votes(run, table)
    _moved(run, rival, table, seed)
    if pairs:
        _overlapping(run, table, train, pairs, seed, widths, routing, decoder, shape, epochs)
    return run


def _as_many(net, spec, widths):
    """A convolutional net with as many weights as the capsules and what is below them."""
    goal = sum(w.numel() for part in (net.primary, net.capsules) for w in part.parameters())
    make = partial(dw.nn.convnet, spec, (*widths, 2 * widths[-1]))

    def size(width):
        return sum(w.numel() for w in make(hidden=(width,)).parameters())

    each = size(2) - size(1)
    return make(hidden=(max(8, round((goal - size(1)) / each) + 1),))


def _label(table, y):
    return str(table.spec.classes[int(y)]) if table.spec.classes else str(int(y))


def _picture(images):
    """Images (N, C, H, W) as plots.images takes them."""
    return images[:, 0].numpy() if images.shape[1] == 1 else images.movedim(1, -1).numpy()


def _sweep(run, table, steps=5, most=0.4):
    """Every dimension of one pose, moved up and down, through the decoder."""
    import torch

    x, y = table.test.x, table.test.y
    with torch.no_grad():
        poses = run.model.poses(x)
        long = dw.functional.lengths(poses)
        sure = long.gather(1, y.unsqueeze(1)).squeeze(1) - (long.argmax(1) != y).float()
        index = int(sure.argmax())
        mask = torch.nn.functional.one_hot(y[index : index + 1], long.shape[1])
        size = poses.shape[2]
        amounts = torch.linspace(-most, most, steps)
        moved = poses[index].expand(size, steps, *poses.shape[1:]).clone()
        for dim in range(size):
            moved[dim, :, int(y[index]), dim] += amounts
        made = run.model.reconstruct(moved.flatten(0, 1), mask.expand(size * steps, -1)).unflatten(
            0, (size, steps)
        )
        change = (made[:, -1] - made[:, 0]).abs().flatten(1).sum(1)
    made = made[change.argsort(descending=True)]
    half, blank = (size + 1) // 2, torch.nan if made.shape[2] == 1 else 1.0
    if size % 2:
        made = torch.cat([made, torch.full_like(made[:1], blank)])
    gap = torch.full_like(made[:half, :1], blank)
    grid = torch.cat([made[:half], gap, made[half:]], 1).flatten(0, 1)
    what = _label(table, y[index])
    told = f"A {what} whose {size} pose components are moved one at a time."
    run.figure(
        "sweep",
        dw.report.plots.images(_picture(grid), columns=2 * steps + 1, alt=told),
        title="What each component of a pose means",
        caption=f"One test image, a {what}, through the decoder: in every row one of the {size} "
        f"components of its pose is moved from -{most} to +{most}, in the middle left as it is. "
        "Ordered by how much the image changes, down the left half, then down the right. Nobody "
        "told the net what a component should mean.",
        alt=told,
    )


def _remade(run, table, count=8):
    """Test images, and what the decoder makes of their longest capsule."""
    import torch

    x = table.test.x[:count]
    with torch.no_grad():
        again = run.model.reconstruct(run.model.poses(x))
        whole = run.model.reconstruct(run.model.poses(table.test.x))
    error = float((whole - table.test.x).square().mean())
    mean = float((table.train.x.mean(0) - table.test.x).square().mean())
    told = f"{len(x)} test images above what was made of their poses."
    run.figure(
        "remade",
        dw.report.plots.images(_picture(torch.cat([x, again])), columns=len(x), alt=told),
        title="Images made again from one capsule",
        caption="Above: test images. Below: what the decoder makes of the longest capsule alone, "
        f"{run.model.capsules.pose} numbers. Mean squared error of a pixel over the test set: "
        f"{error:.3f}; of the mean training image: {mean:.3f}.",
        alt=told,
    )


def _votes(run, table, count=4):
    """Where the primary capsules lie that vote for a class, and for the runner-up."""
    import torch
    import torch.nn.functional as F

    plots, x, y = dw.report.plots, table.test.x, table.test.y
    with torch.no_grad():
        front = run.model.primary
        share = run.model.coupling(x[:500])
        weight = dw.functional.lengths(front(x[:500])).unsqueeze(2)
        long = run.model.lengths(x[:500])
        there = front.layers.features(x[:1]).shape[2:]
    best = long.topk(2, 1).indices
    spread = (share * weight).sum(1) / weight.sum(1)
    first, second = spread.gather(1, best).mean(0).tolist()
    shown = [int((y == k).nonzero()[0]) for k in y.unique().tolist()[:count]
             if bool((y[:500] == k).any())]  # fmt: skip
    shown = [i for i in shown if i < 500]
    pictures, captions = [], []
    for i in shown:
        maps = (share[i] * weight[i])[:, best[i]].T.unflatten(1, (-1, *there)).sum(1)
        maps = F.interpolate(maps[None], x.shape[2:])[0] / maps.amax()
        pictures += [x[i].mean(0), *maps]
        captions += [f"a {_label(table, y[i])}", *(f"for {_label(table, k)}" for k in best[i])]
    told = f"{len(shown)} images, each with the places that vote for its two longest classes."
    run.figure(
        "votes",
        plots.images(torch.stack(pictures).numpy(), captions, columns=6, alt=told),
        title="Who votes for what",
        caption="Each image with two maps: how much of the primary capsules at a place goes to "
        "the longest class, and to the runner-up; white is most. Over the test images "
        f"{100 * first:.0f} % of all capsules' length goes to the longest class and "
        f"{100 * second:.0f} % to the runner-up; shared alike it would be "
        f"{100 / share.shape[2]:.0f} %.",
        alt=told,
    )


def _moved(run, rival, table, seed):
    """Both nets on test images that are moved, turned and sheared more than in training."""
    metrics, affine = dw.metrics, dw.functional.affine
    changes = {
        "as they are": {},
        "moved by up to 15 % of the side": {"translate": 0.15},
        "turned by up to 30 degrees": {"degrees": 30.0},
        "all at once, and sheared": {
            "translate": 0.1, "degrees": 20.0, "scale": 0.15, "shear": 0.2,
        },
    }  # fmt: skip
    rows, y = [], table.test.y
    for name, amounts in changes.items():
        dw.chance.seed_all(dw.run.derive(seed, "moved"))
        x = affine(table.test.x, **amounts) if amounts else table.test.x
        own, other = run.predict(x), rival.predict(x)
        cells = []
        for found in (own, other):
            score = metrics.accuracy(found, y)
            cells.append(f"{100 * score:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}]")
        gap = metrics.difference(metrics.accuracy, own, other, y)
        told = f"{100 * gap:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        rows.append([name, *cells, told.replace("-", "−")])
    run.table(
        "Changed test images",
        ["test images", "capsules", "convolutional", "difference, points"],
        rows,
        "Accuracy with Wilson's 95 % intervals, and the difference on the same images with Bonett "
        "and Price's. Both nets were trained on images moved by up to 7 % of the side, for as many "
        "epochs, at the same rate; one seed.",
    )


def overlapped(split, count, seed, alone=0.25):
    """Images with two of other classes one over the other, on a canvas half as wide again.

    A share of them has one alone. Where both have ink the darker counts.

    Shapes: split of x (N, C, H, W), y (N,) -> x (count, C, 1.5 H, 1.5 W), y (count, K) of 0 and 1
    """
    import torch

    dw.chance.seed_all(seed)
    height, width = split.x.shape[2:]
    tall, wide = height + height // 2, width + width // 2
    made = torch.zeros(count, split.x.shape[1], tall, wide)
    first, second = torch.randint(len(split), (2, count))
    labels = torch.zeros(count, int(split.y.max()) + 1)
    single = torch.rand(count) < alone
    for index, keep in ((first, torch.ones(count)), (second, (~single).float())):
        keep = keep * (1 - labels.gather(1, split.y[index][:, None]).squeeze(1))  # another class
        image = torch.nn.functional.pad(split.x[index], (0, wide - width, 0, tall - height))
        for dim, room in ((2, tall - height), (3, wide - width)):
            by = torch.randint(room + 1, (count, 1, 1, 1))
            line = torch.arange(image.shape[dim]).view(-1, *[1] * (3 - dim))
            image = image.gather(dim, ((line - by) % image.shape[dim]).expand(image.shape))
        made = torch.maximum(made, image * keep.view(-1, 1, 1, 1))
        labels.scatter_add_(1, split.y[index][:, None], keep[:, None])
    return made, labels


def _overlapping(run, table, train, pairs, seed, widths, routing, decoder, shape, epochs):
    """A second capsule net, and its rival, on overlapping images of two classes."""
    import torch

    parts = {}
    for name, count in (("train", pairs), ("validation", pairs // 4), ("test", pairs // 2)):
        x, y = overlapped(getattr(table, name), count, dw.run.derive(seed, "pairs", name))
        parts[name] = dw.data.Split(x, y)
    spec = replace(table.spec, task="multilabel", shape=tuple(parts["train"].x.shape[1:]))
    both = replace(table, spec=spec, **parts)
    dw.chance.seed_all(dw.run.derive(seed, "pairs"))
    net = dw.nn.capsnet(spec, widths, routing, decoder=decoder, **shape)
    plain = _as_many(net, spec, widths)
    share, passes = 0.0005 * 784 / spec.size, max(1, epochs // 3)
    learnt = train(
        dw.MarginReconstruct(net, multilabel=True, share=share), table=both, passes=passes
    )
    other = train(dw.Classify(plain, multilabel=True), table=both, passes=passes)
    y, rows, right = both.test.y, [], {}
    two = y.sum(1) == 2
    for name, one in (("capsules", learnt), ("convolutional", other)):
        said = (one.predict(both.test.x) > 0.5).float()
        right[name] = (said == y).all(1)
        cells = []
        for which in (two, ~two):
            score = dw.metrics.accuracy(
                right[name][which].long(), torch.ones(int(which.sum())).long()
            )
            cells.append(f"{100 * score:.1f} % [{100 * score.low:.1f}, {100 * score.high:.1f}]")
        rows.append([name, *cells])
    run.table(
        "Two in one image",
        ["net", "both labels right, and no other", "of single ones"],
        rows,
        f"{int(two.sum()):,} test images of two classes that overlap and {int((~two).sum()):,} of "
        f"one, on a canvas half as wide again; a label counts as given above 1/2. Trained on "
        f"{pairs:,} such images.",
    )
    index = (two & right["capsules"]).nonzero()[:6, 0]
    if not len(index):
        return
    x, labels = both.test.x[index], y[index]
    with torch.no_grad():
        poses = learnt.model.poses(x)
        pictures, captions = [], []
        for i, image in enumerate(x):
            pictures.append(image)
            captions.append(" and ".join(_label(table, k) for k in labels[i].nonzero()[:, 0]))
            for k in labels[i].nonzero()[:, 0]:
                mask = torch.nn.functional.one_hot(k, labels.shape[1])[None]
                pictures.append(learnt.model.reconstruct(poses[i : i + 1], mask)[0])
                captions.append(f"the {_label(table, k)}")
    told = f"{len(x)} overlapping pairs, each beside what its two capsules hold."
    run.figure(
        "pairs",
        dw.report.plots.images(_picture(torch.stack(pictures)), captions, columns=6, alt=told),
        title="Two in one image, taken apart",
        caption="Test images whose two labels were both found, each followed by what the decoder "
        "makes of either capsule alone. In training it saw the whole image only.",
        alt=told,
    )
