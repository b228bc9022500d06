"""Topic 03: the ten steps of training, and how much hangs on the learning rate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import deepweave as dw
from deepweave.recipes import recipe

OPTIMIZERS = {
    "SGD": {},
    "SGD, momentum": {"momentum": 0.9, "nesterov": True},
    "RMSprop": {},
    "Adam": {},
    "AdamW": {},
}


@recipe("03 Training models", seconds=30)
def training(
    data: str = "digits",
    *,
    target: str | None = None,
    hidden: tuple[int, ...] = (128, 128),
    epochs: int = 60,
    batch: int = 64,
    rates: int = 13,
    study_epochs: int = 10,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """Every step of training, and five optimizers at a dozen learning rates each, trained at once.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        hidden: the width of each hidden layer.
        epochs: passes over the training data, at most.
        batch: samples per step.
        rates: learning rates in the study, from 1e-5 to 10.
        study_epochs: passes over the training data in the study.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if quick:
        epochs, rates, study_epochs = 3, 4, 1
    # 1 preparation: read, split, then scaled by what the training rows say
    table = dw.data.load(data, target=target, seed=seed)
    # 2 architecture, 3 initialisation
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    net = dw.nn.mlp(table.spec, hidden)
    objective = dw.supervise(net, table.spec)
    # a learning rate, from one sweep
    sweep = dw.find_lr(objective, table, batch=batch, seed=seed)
    # 4 forward, 5 loss, 6 backward, 7 update, 8 iterate until nothing improves, 9 validation
    hooks = [
        dw.hooks.Validate(table.validation, patience=15, scores=_scores(table.spec.task)),
        dw.hooks.Schedule(dw.hooks.one_cycle),
        dw.hooks.Clip(norm=1.0),
        dw.hooks.Average(0.99),
    ]
    step = dw.Descent(objective, "AdamW", lr=sweep.suggestion, weight_decay=0.01)
    run = dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=out)
    # 10 test
    run.test()
    run.tell(
        question="What does each step of training do, and how much hangs on the learning rate?",
        title=f"The ten steps of training on {dw.recipes.subject(table)}",
    )
    run.figure(
        "sweep",
        dw.report.plots.curves(
            {"loss": ([_power(r) for r in sweep.rates], sweep.losses)},
            x="learning rate, as a power of ten",
            y="smoothed loss",
            mark=(_power(sweep.suggestion), f"taken: {sweep.suggestion:.2g}"),
            alt="The loss while the learning rate rises step by step.",
        ),
        title="Finding a learning rate",
        caption="One sweep: the rate rises with every step until the loss blows up. The rate where "
        "the loss falls fastest is taken.",
        alt="The loss while the learning rate rises step by step.",
    )
    _study(run, table, hidden, rates, study_epochs, batch, seed)
    return run


def _study(run, table, hidden, rates, epochs, batch, seed):
    """Optimizers x learning rates: one Population per optimizer, all its rates in one program."""
    grid = [10 ** (-5 + 6 * i / (rates - 1)) for i in range(rates)]
    lines, rows = {}, []
    for name, options in OPTIMIZERS.items():
        members = dw.Population(
            dw.supervise(dw.nn.mlp(table.spec, hidden), table.spec),
            rates,
            name.split(",")[0],
            lr=grid,
            seed=seed,
            **options,
        )
        study = dw.fit(
            members,
            table.train,
            batch=batch,
            epochs=epochs,
            seed=seed,
            hooks=[dw.hooks.Validate(table.validation, restore=False)],
        )
        losses = study.history[-1]["validation/loss"]
        worst = max(2 * baseline_loss(table), 1e-9)
        losses = [worst if loss is None else min(loss, worst) for loss in losses]
        best = min(range(rates), key=losses.__getitem__)
        lines[name] = ([_power(rate) for rate in grid], losses)
        rows.append(
            [name, f"{grid[best]:.1e}", f"{losses[best]:.4f}", f"{study.info['seconds']:.1f}"]
        )
    run.figure(
        "study",
        dw.report.plots.curves(
            lines,
            x="learning rate, as a power of ten",
            y=f"validation loss after {epochs} epochs",
            alt="Validation loss against learning rate for five optimizers.",
        ),
        title="Five optimizers, each at its own best rate",
        caption=f"{rates} copies of one net per optimizer, each with its own learning rate, "
        "trained at once as a Population. Compare optimizers at the bottom of their curves, "
        "never at one common rate. Losses above twice that of the constant guess are cut off.",
        alt="Validation loss against learning rate for five optimizers.",
    )
    run.table(
        "The best rate of each optimizer",
        ["optimizer", "best rate", "validation loss", "seconds for all rates"],
        rows,
        "One seed: differences in the last digit are noise.",
    )


def baseline_loss(table) -> float:
    """The loss of the constant guess: the entropy of the classes, or the variance."""
    y = table.train.y
    if table.spec.task in ("binary", "multiclass"):
        share = y.bincount().double() / len(y)
        return float(-(share * share.clamp_min(1e-12).log()).sum())
    return float(y.double().var(correction=0)) if table.spec.task == "regression" else 0.7


def _scores(task: str):
    """Precision, recall and F1 on the validation samples; none for numbers."""
    if task not in ("binary", "multiclass"):
        return None
    average: Any = {} if task == "binary" else {"average": "macro"}
    kinds = {"precision": dw.metrics.precision, "recall": dw.metrics.recall, "f1": dw.metrics.f1}

    def score(prediction, target):
        return {name: metric(prediction, target, **average) for name, metric in kinds.items()}

    return score


def _power(rate: float) -> float:
    import math

    return math.log10(rate)
