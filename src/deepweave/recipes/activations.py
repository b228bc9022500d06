"""Topic 04: one deep network under a dozen activations, all of them trained at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import home, recipe

KINDS = (
    "sigmoid", "tanh", "softplus", "relu", "leaky_relu", "prelu", "elu", "selu", "gelu", "silu",
    "mish",
)  # fmt: skip
DRAWN = ("sigmoid", "tanh", "relu", "prelu", "selu", "gelu", "mish")  # a palette has seven tones
WORDS = {"leaky_relu": "leaky ReLU", "relu": "ReLU", "prelu": "PReLU", "elu": "ELU", "selu": "SELU",
         "gelu": "GELU", "silu": "SiLU", "mish": "Mish"}  # fmt: skip


@recipe("04 Activation functions", seconds=45)
def activations(
    data: str = "digits",
    *,
    target: str | None = None,
    kinds: tuple[str, ...] = KINDS,
    depth: int = 10,
    width: int = 48,
    seeds: int = 5,
    epochs: int = 30,
    batch: int = 64,
    lr: float = 0.001,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Eleven activations in one deep network, several seeds each: curves, dead units, slopes.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        kinds: the activations, by name.
        depth: hidden layers: deep enough that slopes have a way to go.
        width: of each hidden layer.
        seeds: networks for each activation.
        epochs: passes over the training data.
        batch: samples per step.
        lr: the learning rate of all.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if quick:
        seeds, epochs, depth = 2, 2, min(depth, 4)
    table = dw.data.load(data, target=target, seed=seed)
    members, names = [], []
    for place, name in enumerate(kinds):
        for i in range(seeds):  # the first draws are the same for all, up to their scale
            dw.chance.seed_all(dw.run.derive(seed, "weights", i))
            net = dw.nn.mlp(table.spec, (width,) * depth, dw.nn.Choice(kinds, place))
            members.append(dw.supervise(net, table.spec))
            names.append(name)
    before = [_slopes(one, table) for one in members]
    many = dw.Population(members, optimizer="Adam", lr=lr, shared=True)
    hooks = [dw.hooks.Validate(table.validation)]
    run = dw.fit(many, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=home(out))
    run.test()
    run.tell(
        question="What does the activation do to a deep network, forwards and back?",
        title=f"{len(kinds)} activations in {depth} layers on {dw.recipes.subject(table)}",
    )
    trained = [many.member(i).eval() for i in range(len(members))]
    rows = _scored(run, table, many, names, kinds, depth, seeds, trained)
    _functions(run)
    _learnt(run, names, kinds, seeds)
    _flow(run, names, kinds, before, depth)
    best = rows[0][0]
    run.info["advice"] = [
        f"Best mean test score over {seeds} seeds: {best}. The score at the top of this page is of "
        "the one network with the lowest validation loss."
    ]
    run.save()
    return run


def _slopes(objective, table) -> list[float]:
    """The mean square of the loss' slope in the outputs of each layer, from the input on."""
    found = dw.explain.signals(objective, (table.train.x[:256], table.train.y[:256]))
    return [signal.gradient_variance for signal in found]


def _scored(run, table, many, names, kinds, depth, seeds, trained) -> list[Any]:
    """Test scores over seeds, dead units and saturation of each activation, best first."""
    task = table.spec.task
    metric: Any = dw.metrics.rmse if task == "regression" else dw.metrics.accuracy
    truth = table.preparation.restore(table.test.y)
    said = many.predict(table.test.x)
    scores = [float(metric(table.preparation.restore(one), truth, confidence=None)) for one in said]
    rows, drawn = [], {}
    for name in kinds:
        own = [i for i, other in enumerate(names) if other == name]
        score = dw.metrics.over_seeds([scores[i] for i in own])
        health = [_health(trained[i], table) for i in own]
        dead, weak = (sum(part) / len(own) for part in zip(*health))
        rows.append([_word(name), score, f"{100 * dead:.0f} %", f"{100 * weak:.0f} %"])
    rows.sort(key=lambda row: row[1] if task == "regression" else -row[1])
    # one that has hardly learnt would squeeze all others into a corner of the drawing
    near = [row for row in rows if abs(row[1] - rows[0][1]) < 0.2 * abs(rows[0][1])]
    drawn = {row[0]: (float(row[1]), row[1].low, row[1].high) for row in near}
    far = [f"{row[0]} ({float(row[1]):.3g})" for row in rows if row not in near]
    left = f" Far off, and not drawn: {', '.join(far)}." if far else ""
    base = run.info["baseline"].get(f"test/{metric.__name__}", {}).get("value")
    what = f"test {metric.__name__.upper() if task == 'regression' else 'accuracy'}"
    alt = f"{what} of each activation: mean over seeds with its interval."
    run.figure(
        "scores",
        dw.report.plots.intervals(drawn, x=what, alt=alt),
        title=f"After training, {depth} layers",
        caption=f"Mean of {seeds} networks with its 95 % interval (Student's). What varies is the "
        "draw of the first weights; data, order and test set are the same, so the interval is of "
        f"the mean over such draws, not of another test set. Baseline: {base:.3f}.{left}",
        alt=alt,
    )
    run.info["picture"] = "figures/scores.svg"
    percent = task != "regression"
    run.table(
        "Eleven activations" if len(kinds) == 11 else f"{len(kinds)} activations",
        ["activation", what, "dead", "flat"],
        [[name, score.text(3, percent=percent), *rest] for name, score, *rest in rows],
        "Mean over seeds with its 95 % interval. Dead: units that are exactly 0 for all of 256 "
        "training samples. Flat: how often the activation's own slope lies within ±0.1, over units "
        "and samples: what comes back there is all but lost.",
    )
    return rows


def _health(objective, table) -> tuple[float, float]:
    """The share of dead units, and of small slopes, over all hidden layers."""
    import torch

    dead, weak = [], []
    layers = [m for m in objective.modules() if isinstance(m, dw.nn.Choice)]

    def look(module, inputs, output):
        x = inputs[0].detach().requires_grad_()
        with torch.enable_grad():
            slope = torch.autograd.grad(module.forward(x).sum(), x)[0]
        dead.append((output == 0).all(0).float().mean())
        weak.append((slope.abs() < 0.1).float().mean())

    handles = [layer.register_forward_hook(look) for layer in layers]
    with torch.no_grad():
        objective.model(table.train.x[:256])
    for handle in handles:
        handle.remove()
    return tuple(float(torch.stack(part).mean()) for part in (dead, weak))  # pyright: ignore[reportReturnType]


def _functions(run) -> None:
    """The functions of the notes and those beside them, and their slopes."""
    import torch

    x = torch.linspace(-4, 4, 161)
    f = dw.functional
    shown = {
        "sigmoid": f.sigmoid, "tanh": f.tanh, "ReLU": f.relu,
        "PReLU, a = 0.25": lambda x: f.prelu(x, torch.tensor([0.25])), "SELU": f.selu,
        "GELU": f.gelu, "Mish": f.mish,
    }  # fmt: skip
    lines, slopes = {}, {}
    for name, function in shown.items():
        at = x.clone().requires_grad_()
        y = function(at)
        lines[name] = (x.tolist(), y.tolist())
        slopes[name] = (x.tolist(), torch.autograd.grad(y.sum(), at)[0].tolist())
    for key, series, title, caption in (
        ("functions", lines, "The functions",
         "Leaky ReLU is PReLU with a fixed slope of 0.01; ELU is SELU without its two constants; "
         "SiLU lies between GELU and Mish; softplus is a ReLU with its corner rounded."),
        ("slopes", slopes, "And their slopes",
         "What goes back through a unit is multiplied by this. A sigmoid passes on a quarter at "
         "most, ReLU all or nothing."),
    ):  # fmt: skip
        alt = f"{title}: {', '.join(shown)}."
        svg = dw.report.plots.curves(
            series,
            x="x",
            y="g(x)" if key == "functions" else "g'(x)",
            log=False,
            height=3.0,
            alt=alt,
        )
        run.figure(key, svg, title=title, caption=caption, alt=alt)


def _learnt(run, names, kinds, seeds) -> None:
    """Validation loss over steps: the mean over the seeds of an activation."""
    seen = [row for row in run.history if "validation/loss" in row]
    lines = {}
    for name in [kind for kind in DRAWN if kind in kinds] or kinds[:7]:
        own = [i for i, other in enumerate(names) if other == name]
        means = []
        for row in seen:
            each = [row["validation/loss"][i] for i in own]
            means.append(math.nan if None in each else sum(each) / len(own))
        lines[_word(name)] = ([row["epoch"] for row in seen], means)
    alt = "Validation loss over epochs, a line for each activation."
    run.figure(
        "learning",
        dw.report.plots.curves(
            lines, x="epoch", y="validation loss", log=True, height=3.2, alt=alt
        ),
        title="Learning",
        caption=f"Mean over {seeds} seeds. One Population: every line is trained in the same "
        "program, on the same batches.",
        alt=alt,
    )


def _flow(run, names, kinds, before, depth) -> None:
    """How much of the slope reaches each layer before training, beside the last layer's."""
    lines, told = {}, []
    for name in [kind for kind in DRAWN if kind in kinds] or kinds[:7]:
        own = [before[i] for i, other in enumerate(names) if other == name]
        logs = [[math.log10(max(v, 1e-45) / max(row[-1], 1e-45)) / 2 for v in row] for row in own]
        means = [10 ** (sum(part) / len(part)) for part in zip(*logs)][::-1]
        lines[_word(name)] = (list(range(len(means))), means)
        told.append(f"{_word(name)} {means[-1]:.1g}")
    alt = f"What reaches the first layer, of the slope at the last: {', '.join(told)}."
    run.figure(
        "flow",
        dw.report.plots.curves(
            lines, x=f"layers back from the output ({depth}: the first)", y="size of the slope",
            log=True, height=3.2, alt=alt,
        ),
        title="The way back",
        caption="How large the loss' slope is in each layer's outputs before training, beside "
        "the output layer's, root mean square. Every net starts with weights scaled for its "
        "activation; what shrinks by a factor at each layer is lost to the first ones.",
        alt=alt,
    )  # fmt: skip


def _word(name: str) -> str:
    return WORDS.get(name, name)
