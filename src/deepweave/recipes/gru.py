"""Topic 11: gated recurrent units in both conventions, and beside an LSTM of as many weights."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe
from deepweave.recipes.rnn import averaged, heard, hits, learn, named, paired, spoken


@recipe("11 GRU", seconds=110)
def gru(
    data: str = "spoken_digits",
    *,
    target: str | None = None,
    hidden: int = 64,
    layers: int = 1,
    reset: str = "after",
    bidirectional: bool = False,
    dropout: float = 0.3,
    noise: float = 0.5,
    epochs: int = 15,
    batch: int = 64,
    lr: float = 0.005,
    seeds: int = 4,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Gated recurrent units hear recordings: reset before or after, and an LSTM of equal size.

    Args:
        data: a named set of sequences, or a file of your own.
        target: what to predict, for data of your own.
        hidden: units of each layer.
        layers: how many.
        reset: before or after the recurrent product.
        bidirectional: read from both ends.
        dropout: share of what the last layer sees that is dropped while training.
        noise: standard deviation of noise on the inputs while training.
        epochs: passes over the training data.
        batch: sequences per step.
        lr: the highest learning rate.
        seeds: draws of each network that are compared.
        full: ten seeds.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = spoken(data, target, seed, quick)
    seeds = 10 if full else seeds
    if quick:
        epochs, seeds = 2, 2
    options = {"dropout": dropout, "read": "mean", "centre": True, "bidirectional": bidirectional}

    def units(reset):
        return lambda: dw.nn.gru(table.spec, hidden, layers, reset=reset, **options)

    def memory(size):
        return lambda: dw.nn.lstm(table.spec, size, layers, **options)

    makers = {f"GRU, reset {reset}": units(reset)}
    other = "before" if reset == "after" else "after"
    makers[f"GRU, reset {other}"] = units(other)
    makers["LSTM"] = memory(_as_many(units(reset), memory, hidden))
    setting = (epochs, batch, lr, noise)
    rival = learn(makers["LSTM"], table, *setting, seed, home(out) / "lstm")
    run = learn(makers[f"GRU, reset {reset}"], table, *setting, seed, home(out))
    run.test()
    run.rival("LSTM of as many weights", rival.predict(table.test.x))
    averaged(run, table)
    run.tell(
        question=f"Are two gates as good as three on {named(table)}?",
        title=f"Gated recurrent units on {named(table)}",
    )
    heard(run, table, {"reset": "reset gates", "update": "update gates"})
    first = {"LSTM": hits(rival.objective, table)}
    first[f"GRU, reset {reset}"] = hits(run.objective, table)
    paired(run, table, makers, setting, seeds, seed, first)
    return run


def _as_many(make, memory, hidden):
    """The hidden size at which an LSTM has about as many weights as a net."""

    def count(net):
        return sum(weight.numel() for weight in net.parameters())

    goal = count(make())
    return min(range(1, 2 * hidden), key=lambda size: abs(count(memory(size)()) - goal))
