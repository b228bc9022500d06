"""Topic 10b: a plain recurrent network, and how far back its slopes reach."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe, subject

REACH = (0.5, 0.9, 1.0, 1.1, 1.5)  # the recurrent matrix starts as this times an orthonormal one


@recipe("10b Recurrent neural networks", seconds=60)
def rnn(
    data: str = "spoken_digits",
    *,
    target: str | None = None,
    hidden: int = 64,
    layers: int = 1,
    activation: str = "tanh",
    bidirectional: bool = False,
    dropout: float = 0.3,
    noise: float = 0.5,
    epochs: int = 20,
    batch: int = 64,
    lr: float = 0.002,
    seeds: int = 3,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A plain recurrent network reads recordings step by step, and forgets what was long ago.

    Args:
        data: a named set of sequences, or a file of your own.
        target: what to predict, for data of your own.
        hidden: units of each layer.
        layers: how many.
        activation: tanh or relu.
        bidirectional: read from both ends.
        dropout: share of what the last layer sees that is dropped while training.
        noise: standard deviation of noise on the inputs while training.
        epochs: passes over the training data.
        batch: sequences per step.
        lr: the highest learning rate.
        seeds: draws of each start in the study.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = spoken(data, target, seed, quick)
    epochs, seeds = (2, 2) if quick else (epochs, seeds)

    def make():
        return dw.nn.rnn(
            table.spec, hidden, layers, activation=activation, bidirectional=bidirectional,
            dropout=dropout, read="mean", centre=True,
        )  # fmt: skip

    run = learn(make, table, epochs, batch, lr, noise, seed, home(out))
    run.test()
    averaged(run, table)
    run.tell(
        question=f"What does a network that reads step by step hear in {named(table)}?",
        title=f"A recurrent network on {named(table)}",
    )
    heard(run, table, {})
    starts = {f"{scale:g}": scale for scale in REACH}
    reached(run, {name: _started(make, scale, seed) for name, scale in starts.items()})
    _study(run, table, make, epochs, batch, lr, noise, seeds, seed)
    return run


def _started(make, scale, seed):
    """A net whose recurrent matrices are ``scale`` times an orthonormal one."""
    import torch

    from deepweave.functional import orthogonal

    dw.chance.seed_all(dw.run.derive(seed, "reach"))
    net = make()
    with torch.no_grad():
        for name, weight in net.layer.named_parameters():
            if name.startswith("weight_hh"):
                weight.copy_(orthogonal(weight, gain=scale))
    return net


def _study(run, table, make, epochs, batch, lr, noise, seeds, seed):
    """Every start and seed at once, as one Population."""
    nets = [
        _started(make, scale, dw.run.derive(seed, "study", i))
        for scale in REACH
        for i in range(seeds)
    ]
    members = [dw.Noise(dw.supervise(net, table.spec), noise) for net in nets]
    step = dw.Population(members, optimizer="AdamW", lr=lr, weight_decay=0.05, shared=True)
    dw.fit(step, table.train, epochs=epochs, batch=batch, seed=seed, hooks=[dw.hooks.Clip(norm=1)])
    rows, drawn = [], {}
    right = [hits(step.member(i).eval(), table) for i in range(len(nets))]
    for k, scale in enumerate(REACH):
        score = dw.metrics.over_seeds(right[k * seeds : (k + 1) * seeds])
        drawn[f"{scale:g}"] = (float(score), score.low, score.high)
        rows.append([f"{scale:g}", score.text(3, percent=True)])
    alt = "Test accuracy by the scale of the first recurrent matrix, with intervals."
    run.figure(
        "starts",
        dw.report.plots.intervals(drawn, x="test accuracy", alt=alt),
        title="Where the recurrent matrix starts",
        caption=f"Mean over {seeds} seeds with Student's 95 % interval; the first recurrent matrix "
        "is orthonormal times the number on the left. All networks are trained at once.",
        alt=alt,
    )
    run.table("Test accuracy by start", ["scale", "accuracy"], rows, "One Population.")


def spoken(data, target, seed, quick):
    """Sequences of numbers with one label each; a fifth of the training ones for a smoke run."""
    table = dw.data.load(data, target=target, seed=seed)
    if table.spec.kind != "sequence" or table.spec.task not in ("binary", "multiclass"):
        raise ValueError(
            f"rnn, lstm, gru: need sequences with a class each, {data} is {table.spec.task} of "
            f"kind {table.spec.kind}"
        )
    return replace(table, train=table.train[:: max(1, len(table.train) // 300)]) if quick else table


def named(table) -> str:
    """The title of a data set in the middle of a sentence, up to its explanation."""
    return subject(table).split(":")[0]


def learn(make, table, epochs, batch, lr, noise, seed, out):
    """Train a freshly drawn net on noisy inputs at a rate that rises and falls."""
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    objective = dw.Noise(dw.supervise(make(), table.spec, smoothing=0.1), noise)
    step = dw.Descent(objective, "AdamW", lr=lr, weight_decay=0.05)
    hooks = [
        dw.hooks.Schedule(dw.hooks.cosine, warmup=0.05),
        dw.hooks.Clip(norm=1.0),
        dw.hooks.Validate(table.validation, restore=False),
    ]
    return dw.fit(step, table if out else table.train, epochs=epochs, batch=batch, seed=seed,
                  hooks=hooks, out=out)  # fmt: skip


def paired(run, table, makers, setting, seeds, seed, first) -> None:
    """Several nets over seeds: accuracy, and the paired difference of each to the last one.

    ``first`` holds the accuracies of seed 0 that are known already.
    """
    found = {name: [first[name]] if name in first else [] for name in makers}
    for name, make in makers.items():
        for i in range(len(found[name]), seeds):
            each = seed if i == 0 else dw.run.derive(seed, "again", i)
            found[name].append(
                hits(learn(make, table, *setting, seed=each, out=False).objective, table)
            )
    *_, last = makers
    rows, drawn = [], {}
    for name, values in found.items():
        score = dw.metrics.over_seeds(values)
        drawn[name] = (float(score), score.low, score.high)
        gap = dw.metrics.over_seeds([a - b for a, b in zip(values, found[last])])
        rows.append([name, f"{sum(w.numel() for w in makers[name]().parameters()):,}",
                     score.text(3, percent=True),
                     "" if name == last else gap.text(3, percent=True)])  # fmt: skip
    alt = f"Test accuracy over {seeds} seeds, with intervals."
    run.figure(
        "seeds",
        dw.report.plots.intervals(drawn, x="test accuracy", alt=alt),
        title="Over seeds",
        caption=f"Mean over {seeds} seeds with Student's 95 % interval, all on the same test set; "
        "a seed draws weights, noise and order.",
        alt=alt,
    )
    run.table(
        "Over seeds", ["network", "parameters", "test accuracy", f"more than {last}"], rows,
        "Differences are paired seed by seed. An interval that leaves zero out is a difference "
        "that the seeds alone do not explain; the speakers of the test set are as they are.",
    )  # fmt: skip


def hits(objective, table) -> float:
    """The share of the test sequences that an objective names rightly."""
    import torch

    with torch.no_grad():
        said = objective.predict(table.test.x.take(torch.arange(len(table.test))))
    chosen = said.argmax(1) if said.dim() == 2 else said > 0.5
    return float((chosen == table.test.y).double().mean())


def averaged(run, table) -> None:
    """Beside it logistic regression on the mean and the spread of each feature, order left out."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def summary(rows):
        parts = rows.values.split(rows.lengths.tolist())
        return [[*one.mean(0).tolist(), *one.std(0, correction=0).tolist()] for one in parts]

    net = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    net.fit(summary(table.train.x), table.train.y.numpy())
    said = net.predict_proba(summary(table.test.x))
    said = said if table.spec.task == "multiclass" else said[:, 1]
    run.rival("mean and spread over time", torch.as_tensor(said, dtype=torch.float32))


def heard(run, table, gates) -> None:
    """One test recording, what the network would say after each step, and its gates."""
    import torch

    from deepweave.report.sequences import over_time

    net = run.model.eval()
    lengths = table.test.x.lengths
    place = int((lengths - lengths.float().quantile(0.7)).abs().argmin())
    x, label = table.test.x.take(torch.tensor([place])), int(table.test.y[place])
    values = x.values[0]
    with torch.no_grad():  # the prefix of each length, all in one batch
        steps = torch.arange(1, len(values) + 1)
        prefixes = values.expand(len(values), *values.shape)
        said = net(type(x)(prefixes * (steps[:, None] > steps[None] - 1)[..., None], steps))
        said = said.softmax(1) if said.shape[1] > 1 else torch.cat([-said, said], 1).softmax(1)
    names = table.spec.classes
    top = [label, *[int(k) for k in said.mean(0).argsort(descending=True) if int(k) != label][:3]]
    lines = {names[k]: said[:, k].numpy() for k in top}
    maps = {"what is heard, a row per feature": values.T.clamp(-2.5, 2.5).numpy()}
    alt = f'A recording of "{names[label]}", {len(values)} steps, and the probabilities after each.'
    run.figure(
        "heard",
        over_time(maps, lines, y="probability after so many steps", span=(-2.5, 2.5), alt=alt),
        title=f'While it hears "{names[label]}"',
        caption="Above the recording as the network gets it, below what it would say if the "
        "recording ended there: the true class and its three strongest rivals.",
        alt=alt,
    )
    if gates:
        found = net.layer.gates(net.inputs(x))
        maps = {said: found[gate][0].T.numpy() for gate, said in gates.items()}
        alt = f"How far open each unit's gates are over {len(values)} steps."
        run.figure(
            "gates",
            over_time(maps, alt=alt),
            title="The gates while it hears it",
            caption="A row per unit, dark is open. Rows that stay as they are keep or show the "
            "same share at every step; what changes from step to step answers to the sound.",
            alt=alt,
        )


def reached(run, nets, steps: int = 60) -> None:
    """How strongly the last state depends on each earlier step, before any training."""
    import torch

    lines = {}
    for name, net in nets.items():
        torch.manual_seed(0)
        x = torch.randn(64, steps, net.layer.input_size, requires_grad=True)
        out, _ = net.layer(x)
        (slope,) = torch.autograd.grad((out[:, -1] * torch.randn_like(out[:, -1])).sum(), x)
        norm = slope.norm(dim=2).mean(0).flip(0).clamp_min(1e-30)
        lines[name] = (list(range(steps)), norm.tolist())
    alt = "; ".join(f"{name}: {line[0]:.2g} to {line[-1]:.2g}" for name, (_, line) in lines.items())
    run.figure(
        "reach",
        dw.report.plots.curves(
            lines, x="steps before the last", y="slope of the last state in an input", log=True,
            height=3.1, alt=f"Slopes by distance. {alt}.",
        ),
        title="How far back a slope reaches",
        caption="Before any training: the mean norm of the slope of the last state with respect to "
        "each earlier input. Each step back multiplies it by the recurrent matrix and the slope of "
        "the activation: below one it vanishes, above one it may explode.",
        alt=f"Slopes by distance. {alt}.",
    )  # fmt: skip
