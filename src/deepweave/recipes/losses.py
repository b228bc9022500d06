"""Topic 02: what a loss asks for is what one gets: masks by Dice, BCE and focal, and the curves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import home, recipe

READ = {  # the scores of the comparison, by task
    "segmentation": ("dice", "precision", "recall", "log_loss"),
    "binary": ("accuracy", "log_loss", "ece"),
    "multiclass": ("accuracy", "log_loss", "ece"),
    "multilabel": ("hamming", "log_loss"),
    "regression": ("rmse", "mae"),
}
COUNTS = {2: "Two", 4: "Four", 5: "Five"}
DRAWN = 5  # test images whose masks are shown


@recipe("02 Loss functions", seconds=60)
def losses(
    data: str = "shapes",
    *,
    target: str | None = None,
    widths: tuple[int, ...] = (8, 16, 32),
    hidden: tuple[int, ...] = (64, 64),
    seeds: int = 3,
    steps: int | None = None,
    lr: float = 0.004,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """One network under several losses: Dice, BCE and focal for masks, others for tables.

    Args:
        data: a named data set, or a path to your own; with masks (shapes, emoji), or a table.
        target: the column to predict, for a table of your own.
        widths: channels of the network for masks, level by level.
        hidden: widths of the hidden layers of the network for tables.
        seeds: how many networks each loss trains.
        steps: of each network; by default 130 for masks, 600 for tables.
        lr: the highest learning rate.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if quick:
        seeds, steps = 2, 6
    table = dw.data.load(data, target=target, seed=seed)
    if table.spec.task == "segmentation":
        run, said = _masks(table, widths, seeds, steps or 130, lr, seed, home(out))
    else:
        run, said = _table(table, hidden, seeds, steps or 600, lr, seed, home(out))
    _compared(run, table, said)
    _curves(run)
    run.tell(
        question="What does the choice of a loss change, when all else stays as it is?",
        title=f"{COUNTS[len(said)]} losses on {dw.recipes.subject(table)}",
    )
    return run


def _masks(table, widths, seeds, steps, lr, seed, out) -> tuple[dw.Run, dict[str, list[Any]]]:
    """A small U-Net for each loss and seed; those of one seed start alike and see the same."""
    kinds: dict[str, dict[str, Any]] = {
        "BCE + Dice": {},
        "BCE": {"share": 0.0},
        "Dice": {"share": 1.0},
        "focal": {"loss": partial(dw.functional.focal, gamma=2.0)},
    }
    if table.spec.outputs > 1:
        kinds = {name.replace("BCE", "CE"): options for name, options in kinds.items()}
    said: dict[str, list[Any]] = {name: [] for name in kinds}
    run = dw.Run()
    for i in range(seeds):
        for name, options in kinds.items():
            dw.chance.seed_all(dw.run.derive(seed, "weights", i))
            net = dw.nn.segmenter(table.spec, widths)
            step = dw.Descent(dw.Segment(net, **options), "Adam", lr=lr)
            hooks: list[Any] = [dw.hooks.Schedule(dw.hooks.one_cycle)]
            how: dict[str, Any] = {"batch": 16, "steps": steps, "seed": seed + i}
            if i == 0 and not options:  # the library's own mixture is the run; others beside it
                often = max(1, steps // 10)
                hooks.append(dw.hooks.Validate(table.validation, every=often, restore=False))
                run = dw.fit(step, table, hooks=hooks, out=out, **how)
                run.test()
                said[name].append(run.predict(table.test.x))
            else:
                alone = dw.fit(step, table.train, hooks=hooks, **how)
                said[name].append(alone.predict(table.test.x))
    for name in list(kinds)[1:]:
        run.rival(name, said[name][0])
    _drawn(run, table, {name: found[0] for name, found in said.items()})
    return run, said


def _drawn(run, table, said) -> None:
    """Photographs, true masks, and what each loss has the network say."""
    import torch

    x, y = table.test.x[:DRAWN], table.test.y[:DRAWN]
    pictures, captions = [], []
    for i in range(len(x)):
        pictures += [x[i].expand(3, -1, -1), (y[i] > 0).float().expand(3, -1, -1)]
        captions += ["photo", "true"]
        for name, found in said.items():
            one = found[i] if found.dim() == 3 else 1 - found[i, 0]
            pictures.append(one.expand(3, -1, -1))
            overlap = dw.metrics.dice(found[i : i + 1], y[i : i + 1], confidence=None)
            short = "both" if "+" in name else name
            captions.append(f"{short} {float(overlap):.2f}".replace(" 0.", " ."))
    grid = torch.stack(pictures).permute(0, 2, 3, 1).numpy()
    alt = f"Photographs, their true masks, and the masks after training with {', '.join(said)}."
    run.figure(
        "masks",
        dw.report.plots.images(grid, captions, columns=2 + len(said), alt=alt),
        title="The same network under each loss",
        caption=f"The first {len(x)} test images, the first seed's networks. Gray is a "
        "probability, the number the Dice overlap at one half; both: BCE and Dice. Dice asks for "
        "overlap, BCE for every pixel alike, and most are background; focal lets go of a pixel "
        "once it is more right than wrong, so its masks stay gray.",
        alt=alt,
    )
    run.info["picture"] = "figures/masks.svg"


def _table(table, hidden, seeds, steps, lr, seed, out) -> tuple[dw.Run, dict[str, list[Any]]]:
    """One Population per loss: all its seeds learn at once."""
    f = dw.functional
    kinds: dict[str, dict[str, Any]] = {
        "binary": {
            "cross-entropy": {},
            "smoothed, 0.1": {"smoothing": 0.1},
            "focal": {"loss": f.focal},
            "hinge": {"loss": f.hinge},
            "squared hinge": {"loss": partial(f.hinge, squared=True)},
        },
        "multiclass": {
            "cross-entropy": {},
            "smoothed, 0.1": {"smoothing": 0.1},
            "focal": {"loss": f.focal},
            "hinge, worst rival": {"loss": f.multiclass_hinge},
            "hinge, every rival": {"loss": partial(f.multiclass_hinge, kind="weston_watkins")},
        },
        "multilabel": {"cross-entropy": {}, "focal": {"loss": f.focal}},
        "regression": {
            "squared": {},
            "absolute": {"loss": f.absolute_error},
            "Huber": {"loss": f.huber},
            "Gaussian": {"loss": f.gaussian_nll},
            "Student t": {"loss": f.student_nll},
        },
    }[table.spec.task]
    said: dict[str, list[Any]] = {}
    run = dw.Run()
    for name, options in kinds.items():
        wide = 2 if name in ("Gaussian", "Student t") else 1  # a centre and a scale
        dw.chance.seed_all(dw.run.derive(seed, "weights"))
        net = dw.nn.mlp((table.spec.shape, wide * table.spec.outputs), hidden)
        many = dw.Population(
            dw.supervise(net, table.spec, **options), seeds, "Adam", lr=lr, seed=seed
        )
        hooks: list[Any] = [dw.hooks.Schedule(dw.hooks.one_cycle)]
        how: dict[str, Any] = {"batch": 64, "steps": steps, "seed": seed}
        if not options:
            hooks.append(dw.hooks.Validate(table.validation, restore=False))
            run = dw.fit(many, table, hooks=hooks, out=out, **how)
            run.test()
        else:
            dw.fit(many, table.train, hooks=hooks, **how)
        found = many.predict(table.test.x)
        said[name] = [table.preparation.restore(one) for one in found]
    for name in list(said)[1:]:
        run.rival(name, said[name][0])
    return run, said


def _compared(run, table, said) -> None:
    """The scores of each loss over its seeds, and the paired difference to the first loss."""
    task, y = table.spec.task, table.test.y
    truth = table.preparation.restore(y) if task == "regression" else y
    names = READ[task]
    if task == "segmentation" and table.spec.outputs > 1:
        names = ("dice", "log_loss")
    main, first = getattr(dw.metrics, names[0]), next(iter(said))
    rows, drawn = [], {}
    for loss, found in said.items():
        cells = []
        for name in names:
            metric = getattr(dw.metrics, name)
            each = [float(metric(one, truth, confidence=None)) for one in found]
            score = dw.metrics.over_seeds(each)
            cells.append(f"{score:.3f} [{score.low:.3f}, {score.high:.3f}]")
            if name == names[0]:
                drawn[loss] = (float(score), score.low, score.high)
        gap = dw.metrics.difference(main, found[0], said[first][0], truth)
        told = "–" if loss == first else f"{gap:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        rows.append([loss, *cells, told])
    words = {"dice": "Dice", "log_loss": "log-loss", "ece": "ECE", "rmse": "RMSE", "mae": "MAE"}
    count = len(said[first])
    alt = f"Test {words.get(names[0], names[0])} of each loss with its interval over seeds."
    run.figure(
        "scores",
        dw.report.plots.intervals(drawn, x=f"test {words.get(names[0], names[0])}", alt=alt),
        title="What each loss reaches",
        caption=f"Mean of {count} networks with its 95 % interval over seeds (Student's): other "
        "first weights and another order of the data, the same test set.",
        alt=alt,
    )
    unit = "image" if task == "segmentation" else "sample"
    run.table(
        f"{len(said)} losses, {count} seeds each",
        ["loss", *(words.get(name, name) for name in names), f"to {first}, paired"],
        rows,
        f"Mean and 95 % interval over seeds. Last column: the difference in "
        f"{words.get(names[0], names[0])} of the first seed's networks, which started alike, with "
        f"its interval over the test {unit}s. An interval that holds 0 decides nothing.",
    )


def _curves(run) -> None:
    """The six losses of the notes, and those beside them, over what they are functions of."""
    import torch

    f = dw.functional
    p = torch.linspace(0.005, 0.995, 100)
    one = torch.ones_like(p)
    two = torch.stack([p, 1 - p], 1)  # q of the true class and of the other
    soft = torch.tensor([0.7, 0.3]).expand(len(p), 2)
    square = one.view(-1, 1, 1).repeat(1, 1, 4)
    lines = {
        "BCE, CCE": f.binary_cross_entropy(p.logit(), one),
        "KL, true p 0.7": f.kl_divergence(two.log(), soft),
        "Dice, 4 pixels": f.dice(p.view(-1, 1, 1) * square, square),
        "squared": f.squared_error(p, one),
        "focal": f.focal(p.logit(), one),
    }
    alt = "Losses over the probability that the network gives to what is true."
    run.figure(
        "probability",
        dw.report.plots.curves(
            {name: (p.tolist(), line.clamp_max(3).tolist()) for name, line in lines.items()},
            x="probability given to the truth", y="loss (cut at 3)", log=False, height=3.0, alt=alt,
        ),
        title="Losses of a probability",
        caption="Cross-entropy alone punishes without bound what is sure and wrong; BCE and "
        "CCE are the same function of the probability of the truth. KL is cross-entropy less the "
        "entropy of the target, so it is 0 where prediction and target agree, here at 0.7. Dice "
        "and the squared error are bounded, focal ignores what is nearly right.",
        alt=alt,
    )  # fmt: skip
    s = torch.linspace(-3, 3, 121)
    up = torch.ones_like(s)
    lines = {
        "hinge": f.hinge(s, up),
        "squared hinge": f.hinge(s, up, squared=True),
        "BCE": f.binary_cross_entropy(s, up),
        "focal": f.focal(s, up),
        "wrong or not": (s < 0).float(),
    }
    alt = "Losses over the margin: the label times the score."
    run.figure(
        "margin",
        dw.report.plots.curves(
            {name: (s.tolist(), line.clamp_max(4).tolist()) for name, line in lines.items()},
            x="margin: label (−1 or +1) times score", y="loss (cut at 4)", log=False, height=3.0,
            alt=alt,
        ),
        title="Losses of a margin",
        caption="Right of 0 the answer is right. The hinge is 0 from a margin of 1 on, so that "
        "only what is near the border, or wrong, still pulls; BCE never quite lets go.",
        alt=alt,
    )  # fmt: skip
