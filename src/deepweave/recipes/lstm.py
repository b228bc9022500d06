"""Topic 11: long short-term memory beside a plain recurrent network, and what it is for."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe
from deepweave.recipes.rnn import averaged, heard, hits, learn, named, paired, reached, spoken


@recipe("11 LSTM", seconds=110)
def lstm(
    data: str = "spoken_digits",
    *,
    target: str | None = None,
    hidden: int = 64,
    layers: int = 1,
    bidirectional: bool = False,
    dropout: float = 0.3,
    noise: float = 0.5,
    epochs: int = 15,
    batch: int = 64,
    lr: float = 0.005,
    seeds: int = 4,
    lengths: tuple[int, ...] = (100,),
    steps: int = 900,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Memory with gates hears recordings, and adds two numbers a hundred steps apart.

    Args:
        data: a named set of sequences, or a file of your own.
        target: what to predict, for data of your own.
        hidden: units of each layer.
        layers: how many.
        bidirectional: read from both ends.
        dropout: share of what the last layer sees that is dropped while training.
        noise: standard deviation of noise on the inputs while training.
        epochs: passes over the training data.
        batch: sequences per step.
        lr: the highest learning rate.
        seeds: draws of each network that are compared.
        lengths: of the sequences of the adding problem.
        steps: of learning to add.
        full: lengths of 100, 200 and 400, and ten seeds.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = spoken(data, target, seed, quick)
    if full:
        lengths, seeds = (100, 200, 400), 10
    if quick:
        epochs, seeds, lengths, steps = 2, 2, (20,), 60
    options = {"dropout": dropout, "read": "mean", "centre": True, "bidirectional": bidirectional}
    makers = {
        "LSTM": lambda: dw.nn.lstm(table.spec, hidden, layers, **options),
        "plain": lambda: dw.nn.rnn(table.spec, hidden, layers, **options),
    }
    setting = (epochs, batch, lr, noise)
    plain = learn(makers["plain"], table, *setting, seed, home(out) / "plain")
    run = learn(makers["LSTM"], table, *setting, seed, home(out))
    run.test()
    run.rival("plain recurrent network of as many units", plain.predict(table.test.x))
    averaged(run, table)
    run.tell(
        question=f"What does memory with gates add on {named(table)}?",
        title=f"Long short-term memory on {named(table)}",
    )
    heard(run, table, {"input": "input gates", "forget": "forget gates", "output": "output gates"})
    first = {"LSTM": hits(run.objective, table), "plain": hits(plain.objective, table)}
    paired(run, table, makers, setting, seeds, seed, first)
    _adding(run, lengths, steps, seed)
    return run


def addition(size: int, steps: int, generator):
    """The adding problem: numbers in [0, 1], two of them marked; the target is their sum.

    Shapes: -> x (size, steps, 2), y (size,)

    Source: Hochreiter & Schmidhuber, Long short-term memory, 1997.
    """
    import torch

    values = torch.rand(size, steps, generator=generator)
    half = steps // 2
    first = torch.randint(half, (size, 1), generator=generator)
    second = torch.randint(half, steps, (size, 1), generator=generator)
    marks = torch.zeros(size, steps).scatter_(1, torch.cat([first, second], 1), 1.0)
    return torch.stack([values, marks], 2), (values * marks).sum(1)


def _adding(run, lengths, steps, seed):
    """One number from each half of a sequence: only what remembers the first can add them."""
    import torch

    lines, rows, nets = {}, [], {}
    for length in lengths:
        for name, rate, net in (
            ("LSTM", 0.01, lambda n=length: dw.nn.lstm(((n, 2), 1), 32, memory=n)),
            ("plain", 0.001, lambda n=length: dw.nn.rnn(((n, 2), 1), 32)),
        ):
            generator = torch.Generator().manual_seed(dw.run.derive(seed, "adding", length))
            dw.chance.seed_all(dw.run.derive(seed, "adding", name))
            objective = dw.Regress(net())
            before = dw.Regress(net()).model
            step = dw.Descent(objective, "Adam", lr=rate)
            clip = dw.hooks.Clip(norm=1.0)
            batches = [addition(64, length, generator) for _ in range(steps)]
            made = dw.fit(
                step, batches, steps=steps, hooks=[clip, dw.hooks.Log(every=10)], out=False
            )
            losses = [row["train/loss"] for row in made.history if "train/loss" in row]
            x, y = addition(2000, length, generator)
            with torch.no_grad():
                error = (objective.eval().model(x)[:, 0] - y).square()
            score = error.mean(), 1.96 * error.std() / len(error) ** 0.5
            key = f"{name}, {length}" if len(lengths) > 1 else name
            lines[key] = (list(range(10, 10 * len(losses) + 1, 10)), losses)
            rows.append([key, f"{score[0]:.4f} ± {score[1]:.4f}", f"{1 - score[0] * 6:.3f}"])
            if length == max(lengths):
                nets[name] = before
    alt = "; ".join(f"{row[0]}: {row[1]}" for row in rows)
    run.figure(
        "adding",
        dw.report.plots.curves(lines, y="squared error", log=True, height=3.1, alt=alt),
        title="Two numbers far apart",
        caption=f"The adding problem: of {' or '.join(map(str, lengths))} numbers two are marked, "
        "one in each half; the network says their sum at the end. Guessing 1 has an error of 1/6.",
        alt=f"Squared error while learning to add. {alt}.",
    )
    run.table(
        "The adding problem", ["network, length", "squared error", "R squared"], rows,
        "2,000 new sequences, with 95 % intervals; 32 units, Adam at 0.01 (LSTM) and 0.001 "
        "(plain); the LSTM's forget gates start at spans up to the length.",
    )  # fmt: skip
    reached(run, nets, max(lengths))
