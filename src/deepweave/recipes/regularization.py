"""Topic 09: the path of the lasso, and a dozen ways not to learn by heart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import home, recipe


@dataclass(frozen=True)
class Method:
    """A regulariser: the objective at a strength, and what else it brings."""

    make: Callable[[float], Any]
    strengths: Sequence[float] = (0.0,)
    decay: bool = False  # the strength is the optimizer's weight decay
    limit: bool = False  # the strength is the limit of MaxNorm
    stop: bool = False  # end with the weights of the best validation


@recipe("09 Regularization", seconds=30)
def regularization(
    data: str = "diabetes",
    *,
    target: str | None = None,
    samples: int = 100,
    hidden: tuple[int, ...] = (128, 128),
    steps: int = 200,
    lr: float = 0.003,
    seeds: int = 6,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A dozen regularisers on few samples, each at its best strength, and the path of the lasso.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        samples: training samples, drawn anew for every seed.
        hidden: the width of each hidden layer.
        steps: updates, each on all training samples.
        lr: learning rate.
        seeds: of samples and first weights.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if quick:
        seeds, steps = 2, 40
    table = dw.data.load(data, target=target, seed=seed)
    methods = _methods(table.spec, hidden)
    rows, curves = [], {}
    parts = [_some(table.train, samples, dw.run.derive(seed, "samples", i)) for i in range(seeds)]
    for name, method in methods.items():
        study = _study(method, table, parts, steps, lr, seed)
        known, test = study.scores
        at = int(known.mean(1).argmax())
        rows.append((name, method.strengths[at], float(known[at].mean()), test[at]))
        curves[name] = _line(study.history, at, seeds)
    bare = next(test for name, _, _, test in rows if name == "none")
    rows.sort(key=lambda row: -row[2])
    name, strength = rows[0][:2]
    run = _winner(methods[name], strength, table, parts[0], steps, lr, seed, home(out))
    single = _winner(methods["none"], 0.0, table, parts[0], steps, lr, seed, None)
    run.rival("no regulariser", single.predict(table.test.x))
    best, gain = name[:1].upper() + name[1:], dw.metrics.over_seeds(rows[0][3] - bare)
    sure = f"keeps a network from learning {samples} samples by heart"
    run.tell(
        question="What keeps a network with few samples from learning them by heart?",
        title=f"{best} {sure if gain.low > 0 else f'on {samples} samples, without a sure gain'}",
    )
    _compare(run, rows, bare, table.spec.task, samples)
    _overfit(run, curves, rows)
    if table.spec.task != "multilabel":
        _path(run, table, seed, quick)
    return run


def _methods(spec, hidden):
    """Every regulariser by its name; the strengths of one are members of one Population."""
    f = dw.functional

    def net(dropout=0.0):
        return dw.supervise(dw.nn.mlp(spec, hidden, dropout=dropout), spec)

    found = {
        "none": Method(lambda s: net()),
        "early stopping": Method(lambda s: net(), stop=True),
        "weight decay": Method(lambda s: net(), (0.1, 1.0, 3.0, 10.0), decay=True),
        "L2": Method(lambda s: dw.Penalize(net(), l2=s), (1e-4, 1e-3, 1e-2, 1e-1)),
        "L1": Method(lambda s: dw.Penalize(net(), l1=s), (1e-4, 1e-3, 1e-2, 3e-2)),
        "group lasso": Method(
            lambda s: dw.Penalize(net(), group=s, groups="columns"), (1e-4, 1e-3, 1e-2, 3e-2)
        ),
        "max-norm": Method(lambda s: net(), (0.25, 0.5, 1.0, 2.0), limit=True),
        "dropout": Method(net, (0.2, 0.4, 0.6, 0.8)),
        "noise": Method(lambda s: dw.Noise(net(), s), (0.1, 0.3, 0.6, 1.0)),
        "mixup": Method(lambda s: dw.Mixup(net(), s), (0.2, 1.0, 4.0)),
        "SAM": Method(lambda s: dw.SAM(net(), s), (0.1, 0.3, 1.0)),
    }
    found["dropout, noise, max-norm"] = Method(
        lambda s: dw.Noise(net(0.4), 0.3), (0.5, 1.0, 2.0), limit=True
    )
    if spec.task in ("binary", "multiclass"):
        found["label smoothing"] = Method(
            lambda s: dw.supervise(dw.nn.mlp(spec, hidden), spec, smoothing=0.1), (0.1,)
        )
    if spec.kind == "image":
        found["cutmix"] = Method(lambda s: dw.CutMix(net(), s), (0.3, 1.0))
        found["shifts by a pixel"] = Method(
            lambda s: dw.Augment(net(), lambda x: f.shift(x, 1)), (1.0,)
        )
        found["turns and zooms"] = Method(
            lambda s: dw.Augment(net(), lambda x: f.affine(x, degrees=15, scale=0.15)), (1.0,)
        )
        found["shifts, mixup, dropout"] = Method(
            lambda s: dw.Augment(dw.Mixup(net(0.2), s), lambda x: f.shift(x, 1)), (0.2, 1.0)
        )
    return found


def _some(split, count, seed):
    """So many samples of a split, as many of each class as can be."""
    import torch

    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    y = split.y[order]
    if y.dim() == 1 and not y.is_floating_point():
        one = torch.nn.functional.one_hot(y).cumsum(0).gather(1, y[:, None])[:, 0]
        order = order[one.argsort(stable=True)]
    return split[order[:count]]


@dataclass(frozen=True)
class Study:
    """What came of one method: scores of validation and test, (strengths, seeds)."""

    scores: tuple[Any, Any]
    history: list[dict[str, Any]]


def _study(method, table, parts, steps, lr, seed):
    """All strengths and seeds of a method at once; every seed has samples of its own."""
    import torch

    members, each = [], [s for s in method.strengths for _ in parts]
    for strength in method.strengths:
        for i in range(len(parts)):
            dw.chance.seed_all(dw.run.derive(seed, "weights", i))
            members.append(method.make(strength))
    batch = tuple(
        torch.stack([getattr(part, side) for part in parts]).repeat(
            len(method.strengths), *[1] * getattr(parts[0], side).dim()
        )
        for side in ("x", "y")
    )
    rates: Any = {"lr": [lr] * len(each), "decay": each} if method.decay else {"lr": lr}
    step = dw.Population(members, optimizer="AdamW", **{"weight_decay": 0.0} | rates)
    hooks: list[Any] = [dw.hooks.Validate(table.validation, every=10, restore=method.stop)]
    if method.limit:
        hooks.append(dw.hooks.MaxNorm(each))
    run = dw.fit(step, [batch], steps=steps, seed=seed, hooks=hooks)
    shape = (len(method.strengths), len(parts))
    scores = [
        _score(step, split, table.spec.task).view(shape) for split in (table.validation, table.test)
    ]
    return Study((scores[0], scores[1]), run.history)


def _score(step, split, task):
    """Accuracy of every member; R squared for numbers."""
    step.objective.eval()
    prediction = step.predict(split.x)
    if task == "regression":
        prediction = prediction.reshape(len(prediction), *split.y.shape)
        spread = (split.y - split.y.mean(0)).square().sum()
        return 1 - (prediction - split.y).square().flatten(1).sum(1) / spread
    if task == "multiclass":
        return (prediction.argmax(2) == split.y).double().mean(1)
    return ((prediction > 0.5) == (split.y > 0.5)).double().flatten(1).mean(1)


def _winner(method, strength, table, part, steps, lr, seed, out):
    """One network trained by one method, on the samples of the first seed."""
    dw.chance.seed_all(dw.run.derive(seed, "weights", 0))
    decay = strength if method.decay else 0.0
    step = dw.Descent(method.make(strength), "AdamW", lr=lr, weight_decay=decay)
    hooks: list[Any] = [dw.hooks.Validate(table.validation, every=10, restore=method.stop)]
    if method.limit:
        hooks.append(dw.hooks.MaxNorm(strength))
    small = replace(table, train=part)
    chosen = False if out is None else out
    run = dw.fit(step, small, steps=steps, epochs=steps, batch=len(part), seed=seed, hooks=hooks,
                 out=chosen)  # fmt: skip
    if out is not None:
        run.test()
    return run


def _line(history, at, seeds):
    """Steps and the mean validation loss over seeds at one strength."""
    lines = [line for line in history if "validation/loss" in line]
    rows = [line["validation/loss"][at * seeds : (at + 1) * seeds] for line in lines]
    return [line["step"] for line in lines], [sum(row) / len(row) for row in rows]


def _compare(run, rows, bare, task, samples):
    score = "R squared" if task == "regression" else "accuracy"
    percent = task != "regression"
    over = dw.metrics.over_seeds
    means = {name: over(test) for name, _, _, test in rows}
    alt = f"Test {score} of every method with its interval."
    run.figure(
        "methods",
        dw.report.plots.intervals(
            {name: (float(s), s.low, s.high) for name, s in means.items()},
            x=f"test {score}", mark=float(means["none"]), alt=alt,
        ),
        title=f"{len(rows)} methods on {samples} samples",
        caption=f"Mean over {len(bare)} seeds, each with {samples} training samples of its own, "
        "and its 95 % interval (Student's). Sorted by validation, where the strength was "
        "chosen. The grey line is the network without any.",
        alt=alt,
    )  # fmt: skip
    table = []
    for name, strength, known, test in rows:
        gap = over(test - bare)
        shown = f"{strength:g}" if strength else "-"
        unit, scale = (" points", 100) if percent else ("", 1)
        ends = (f"{end * scale:+.{2 if percent else 3}f}" for end in (gap, gap.low, gap.high))
        told = "{} [{}, {}]{}".format(*ends, unit)
        validation = f"{100 * known:.1f} %" if percent else f"{known:.3f}"
        table.append([name, shown, validation, means[name].text(3, percent=percent),
                      "-" if name == "none" else told])  # fmt: skip
    run.table(
        "Every method at its best strength",
        ["method", "strength", "validation", f"test {score}", "test, against none"],
        table,
        "The last column is paired: the same samples and first weights with and without. An "
        "interval that holds 0 means that so many seeds do not tell the two apart.",
    )


def _overfit(run, curves, rows):
    """Validation loss while training, of the best few methods and of none."""
    alike = [name for name, *_ in rows if name not in ("none", "early stopping", "label smoothing")]
    names = ["none", *alike[:4]]  # the loss of smoothed labels is another
    alt = "Validation loss by step, mean over seeds: " + ", ".join(
        f"{name} ends at {curves[name][1][-1]:.2f}" for name in names
    )
    run.figure(
        "overfit",
        dw.report.plots.curves(
            {name: curves[name] for name in names}, y="validation loss", log=False, alt=alt
        ),
        title="Learning by heart",
        caption="Mean over seeds. Where the loss of validation rises again the network learns its "
        "samples by heart; early stopping ends at its lowest point; the others are to keep it from "
        "rising.",
        alt=alt,
    )


def _path(run, table, seed, quick):
    """A linear model at 60 strengths of L1 in one program: weights, zeros, test error."""
    import torch

    count, steps = (12, 200) if quick else (60, 1500)
    net: Any = dw.nn.shallow(table.spec)
    inner = dw.supervise(net, table.spec)
    x, y = table.train.x, table.train.y
    inner((x, y))[0].backward()
    top = float(net[-1].weight.grad.abs().max())  # from here on every weight is zero
    inner.zero_grad()
    grid = [top * 10 ** (-3 * i / (count - 1)) for i in range(count)]
    members = dw.Penalize(inner, l1=0.0, proximal=True).path(l1=grid)
    steep = 2 * float(torch.linalg.matrix_norm(x.flatten(1), 2)) ** 2 / len(x)
    step = dw.Population(members, optimizer="SGD", lr=1 / steep, momentum=0.9, shared=True)
    dw.fit(step, [(x, y)], steps=steps, seed=seed)
    step.objective.eval()
    weights = next(w for n, w in step.weights().items() if n.endswith("weight"))
    known = step.evaluate((table.validation.x, table.validation.y))["loss"]
    best = int(known.argmin())
    features = list(table.spec.features)
    if weights.shape[1:] == (1, len(features)):
        _lines(run, grid, weights[:, 0], features, best)
    told = {}
    kept = (weights != 0).flatten(1).sum(1).tolist()
    word = "RMSE" if table.spec.task == "regression" else "accuracy"
    metric = dw.metrics.rmse if word == "RMSE" else dw.metrics.accuracy
    for i in sorted({*range(0, count, max(1, count // 9)), best}):
        prediction = step.member(i).eval().predict(table.test.x).detach()
        truth = table.test.y
        if word == "RMSE":
            prediction, truth = (table.preparation.restore(v) for v in (prediction, truth))
        score = metric(prediction, truth)
        mark = ", best" if i == best else ""
        told[f"{grid[i]:.2g}: {kept[i]} weights{mark}"] = (float(score), score.low, score.high)
    unit = f" ({table.spec.unit})" if table.spec.unit else ""
    alt = f"Test {word} of a linear model by strength of L1, with the number of weights left."
    run.figure(
        "sparsity",
        dw.report.plots.intervals(told, x=f"test {word}{unit}", alt=alt),
        title="Fewer weights, and the error",
        caption=f"A linear model on all {len(x)} training samples: the strength of L1, how many "
        f"of {weights[0].numel()} weights it leaves, and the test error with its 95 % interval. "
        "Validation chooses; the test set only tells.",
        alt=alt,
    )


def _lines(run, grid, weights, features, best):
    import math

    powers = [-math.log10(strength) for strength in grid]
    order = weights.abs().mean(0).argsort(descending=True)[:7].tolist()
    alt = "Weights of a linear model over the strength of L1: " + ", ".join(
        f"{features[j]} ends at {float(weights[-1, j]):.2f}" for j in order
    )
    run.figure(
        "path",
        dw.report.plots.curves(
            {features[j]: (powers, weights[:, j].tolist()) for j in order},
            x="strength of L1: 10 to the power of minus this", y="weight", log=False, height=3.2,
            mark=(powers[best], "best on validation"), alt=alt,
        ),
        title="The path of the lasso",
        caption=f"{len(grid)} linear models trained at once, each with its own strength, from "
        f"strong on the left to weak on the right; the {len(order)} largest of {len(features)} "
        "weights. Proximal steps make zeros exact: one feature after the other comes in.",
        alt=alt,
    )  # fmt: skip
