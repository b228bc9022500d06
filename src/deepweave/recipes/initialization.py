"""Topics 05 and 06: where weights start, and what becomes of signals and slopes in deep nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import home, recipe

DRAWN = ("Gaussian 0.1", "Gaussian 0.5", "1/in", "He, 2/in", "orthogonal", "LSUV")


@recipe("05 06 Initialisation of weights and gradients", seconds=55)
def initialization(
    data: str = "digits",
    *,
    target: str | None = None,
    activation: str = "relu",
    depths: tuple[int, ...] = (2, 8, 32),
    width: int = 64,
    rates: tuple[float, ...] = (0.03, 0.1),
    clip: float = 0.3,
    seeds: int = 4,
    epochs: int = 16,
    batch: int = 64,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Eight ways to draw the first weights, in nets of 2 to 32 layers: signals, slopes, scores.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        activation: of the hidden layers.
        depths: numbers of hidden layers.
        width: of each hidden layer.
        rates: learning rates; each scheme is judged at its own best one.
        clip: the norm to which the slopes of each net are clipped.
        seeds: draws of each scheme.
        epochs: passes over the training data.
        batch: samples per step.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if quick:
        depths, rates, seeds, epochs = (2, 8), rates[:1], 2, 1
    table = dw.data.load(data, target=target, seed=seed)
    schemes = _schemes(activation, table.train.x[:256])

    def train(depth, whole):
        """All schemes, rates and seeds at one depth, at once."""
        made = {}
        for name, draw in schemes.items():
            for i in range(seeds):
                dw.chance.seed_all(dw.run.derive(seed, "weights", depth, name, i))
                net = draw(dw.nn.mlp(table.spec, [width] * depth, activation))
                made[name, i] = dw.supervise(net, table.spec)
        readings = {key: _read(one, table) for key, one in made.items()} if whole else {}
        grid = _grid(schemes, seeds, rates)
        step = dw.Population([made[name, i] for name, i, _ in grid], optimizer="SGD", momentum=0.9,
                             lr=[rate for _, _, rate in grid], shared=True)  # fmt: skip
        hooks = [dw.hooks.Validate(table.validation), dw.hooks.Clip(norm=clip)]
        # the members of the deepest net are the run; the shallower ones stand beside it
        source, place = (table, home(out)) if whole else (table.train, None)
        run = dw.fit(step, source, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=place)
        return run, step, readings

    found: dict[int, list[Any]] = {}
    *shallower, deepest = sorted(set(depths))
    for depth in shallower:
        _, step, _ = train(depth, whole=False)
        found[depth] = _judge(step, table, schemes, seeds, rates)
    run, step, readings = train(deepest, whole=True)
    found[deepest] = _judge(step, table, schemes, seeds, rates)
    _best(run, step, found[deepest], table)
    name = found[deepest][0][0]
    run.tell(
        question="Where should weights start, so that signals and slopes survive many layers?",
        title=f"First weights for {deepest} layers: {name} on {dw.recipes.subject(table)}",
    )
    _signals(run, readings, seeds, deepest, activation)
    _trained(run, found, schemes, table.spec.task)
    _symmetry(run, table, width, seed)
    return run


def _schemes(activation, x):
    """Every way to draw the weights of a net, by its name on the page."""
    from functools import partial

    from deepweave.functional import gain, he, initial, lecun, orthogonal, xavier
    from deepweave.nn import initialize, lsuv

    def draw(kind, **options):
        return lambda net: initialize(net, partial(kind, **options))

    g = gain(activation)
    return {
        "zero": draw(initial.zeros),
        "Gaussian 0.1": draw(initial.normal, sigma=0.1),
        "Gaussian 0.5": draw(initial.normal, sigma=0.5),
        "Xavier, 2/(in+out)": draw(xavier),
        "1/in": draw(lecun),
        "He, 2/in": draw(he, gain=g),
        "orthogonal": draw(orthogonal, gain=g),
        "LSUV": lambda net: lsuv(net, x),
    }


def _grid(schemes, seeds, rates):
    return [(name, i, rate) for name in schemes for rate in rates for i in range(seeds)]


def _read(objective, table):
    return dw.explain.signals(objective, (table.train.x[:256], table.train.y[:256]))


def _scores(step, split, task):
    """Accuracy of every member (R squared for numbers); what is not finite scores nothing."""
    prediction = step.predict(split.x)
    if task == "regression":
        prediction = prediction.reshape(len(prediction), *split.y.shape)
        spread = (split.y - split.y.mean(0)).square().sum()
        fit = 1 - (prediction - split.y).square().flatten(1).sum(1) / spread
        return fit.nan_to_num(0.0, neginf=0.0).clamp_min(-1.0)
    if task == "multiclass":
        return (prediction.argmax(2) == split.y).double().mean(1)
    return ((prediction > 0.5) == (split.y > 0.5)).double().flatten(1).mean(1)


def _judge(step, table, schemes, seeds, rates):
    """For each scheme: its rate of the best validation score, and its test scores at it."""
    known = _scores(step, table.validation, table.spec.task).view(len(schemes), len(rates), seeds)
    test = _scores(step, table.test, table.spec.task).view(len(schemes), len(rates), seeds)
    rows = []
    for i, name in enumerate(schemes):
        at = int(known[i].mean(1).argmax())
        score = dw.metrics.over_seeds(test[i, at])
        place = (i * len(rates) + at) * seeds + int(known[i, at].argmax())
        rows.append((name, float(known[i, at].mean()), score, rates[at], place))
    return sorted(rows, key=lambda row: -row[1])


def _best(run, step, rows, table):
    """Test the best scheme's net; the notes' 1/in stands beside it."""
    step.best = rows[0][4]
    run.test()
    if table.spec.task in ("binary", "multiclass"):
        other = next(row for row in rows if row[0] == "1/in")
        prediction = step.member(other[4]).eval().predict(table.test.x).detach()
        run.rival("drawn with 1/in", prediction)


def _mean(readings, name, seeds, what):
    """The geometric mean over seeds of a reading, layer by layer."""
    import math

    rows = [[getattr(signal, what) for signal in readings[name, i]] for i in range(seeds)]
    return [
        math.exp(sum(math.log(max(value, 1e-45)) for value in layer) / seeds)
        for layer in zip(*rows)
    ]


def _signals(run, readings, seeds, depth, activation):
    kept = dw.functional.gain(activation) ** -2
    titles = {
        "variance": (
            "What is left of the signal",
            "variance of the outputs of each layer",
            "Before any training, 256 training samples. With weights of variance 1/in a layer of "
            f"{activation} keeps {kept:.2g} of the variance, {depth} layers {kept**depth:.1g}. "
            "He's gain, orthogonal weights times the same gain, and LSUV, which measures, keep it. "
            "Xavier's 2/(in+out) is 1/in where widths are equal.",
        ),
        "gradient_variance": (
            "What comes back of the slope",
            "mean square of the loss' slope in each layer's outputs",
            "The same nets, from the loss backwards: the slope enters at the last layer, on the "
            "left, and must reach the first, on the right. Where signals vanish or explode, slopes "
            "do: the first layers learn nothing, or everything breaks.",
        ),
    }
    for what, (title, y, caption) in titles.items():
        back = what == "gradient_variance"
        lines = {name: _mean(readings, name, seeds, what) for name in DRAWN}
        lines = {name: line[::-1] if back else line for name, line in lines.items()}
        ends = "; ".join(f"{name} {line[0]:.1g} to {line[-1]:.1g}" for name, line in lines.items())
        alt = f"{y.capitalize()}, layer by layer: {ends}."
        series = {name: (list(range(1, depth + 2)), line) for name, line in lines.items()}
        x = "layers back from the loss" if back else "layer"
        svg = dw.report.plots.curves(series, x=x, y=y, log=True, height=3.2, alt=alt)
        run.figure(what, svg, title=title, caption=caption, alt=alt)


def _trained(run, found, schemes, task):
    depths = sorted(found)
    score = "R squared" if task == "regression" else "accuracy"
    deepest = {name: (float(s), s.low, s.high) for name, _, s, _, _ in found[depths[-1]]}
    alt = f"Test {score} after training of {depths[-1]} layers, by scheme, with intervals."
    run.figure(
        "trained",
        dw.report.plots.intervals(deepest, x=f"test {score}, {depths[-1]} layers", alt=alt),
        title="And after training",
        caption="Mean over seeds with its 95 % interval (Student's); each scheme at the learning "
        "rate that suits it on validation, all trained at once as one Population. Sorted by "
        "validation. A scheme that is no better than the guess has not learnt at all.",
        alt=alt,
    )
    by_name = {d: {name: (s, rate) for name, _, s, rate, _ in found[d]} for d in depths}
    rows = []
    for name in schemes:
        cells = [by_name[d][name][0].text(3, percent=task != "regression") for d in depths]
        rows.append([name, *cells, f"{by_name[depths[-1]][name][1]:g}"])
    run.table(
        f"Test {score} by depth",
        ["first weights", *(f"{d} layers" for d in depths), "rate of the deepest"],
        rows,
        "Mean over seeds with its 95 % interval; one Population per depth, every scheme and rate "
        "a member of it. Each scheme at its own best rate.",
    )


def _symmetry(run, table, width, seed):
    """Two hidden layers from zeros, one constant, and He: how many units there really are."""
    from functools import partial

    from deepweave.functional import he, initial
    from deepweave.nn import initialize

    draws = {"all 0": initial.zeros, "all 0.1": partial(initial.constant, value=0.1), "He": he}
    rows = []
    for activation in ("sigmoid", "relu"):
        nets = []
        for draw in draws.values():
            dw.chance.seed_all(dw.run.derive(seed, "symmetry"))
            nets.append(initialize(dw.nn.mlp(table.spec, [width] * 2, activation), draw))
        step = dw.Population(
            [dw.supervise(net, table.spec) for net in nets],
            optimizer="SGD", lr=0.1, momentum=0.9, shared=True,
        )  # fmt: skip
        before = [_ranks(step, i, table) for i in range(len(nets))]
        dw.fit(step, table.train, batch=128, steps=200, seed=seed)
        scores = _scores(step, table.test, table.spec.task)
        for i, name in enumerate(draws):
            now = _ranks(step, i, table)
            pairs = [f"{a} → {b}" for a, b in zip(before[i], now)]
            rows.append([name, activation, *pairs, f"{float(scores[i]):.3f}"])
    run.table(
        "The symmetry of zero",
        [
            "all weights",
            "activation",
            "rank of W1",
            "rank of W2",
            "hidden units",
            "slope of W2",
            "score",
        ],
        rows,
        f"Two hidden layers of {width} units, before and after 200 steps. The rank counts what is "
        "independent: units that start equal get equal slopes, so their weights stay of rank 1 and "
        "all units are one unit, however long one trains. With ReLU zeros get no slope at all: "
        "only the last biases learn.",
    )


def _ranks(step, i, table):
    """Ranks in member i: weights of both hidden layers, units of the second, its slope."""
    one = step.member(i)
    first, second, _ = _read(one, table)
    return first.weight_rank, second.weight_rank, second.unit_rank, second.update_rank
