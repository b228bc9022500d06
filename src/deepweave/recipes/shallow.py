"""Topic 00: one layer of weights, an activation, and nothing else."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import recipe


@recipe("00 Shallow neural networks", seconds=5)
def shallow(
    data: str = "digits",
    *,
    target: str | None = None,
    epochs: int = 60,
    batch: int = 64,
    lr: float = 0.01,
    decay: float = 0.01,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A single layer: softmax, logistic or linear regression, whichever the data asks for.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        epochs: passes over the training data, at most.
        batch: samples per step.
        lr: learning rate.
        decay: weight decay.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    net = dw.nn.shallow(table.spec)
    step = dw.Descent(dw.supervise(net, table.spec), "AdamW", lr=lr, weight_decay=decay)
    schedule = dw.hooks.Schedule(dw.hooks.cosine)
    run = dw.fit(
        step,
        table,
        epochs=3 if quick else epochs,
        batch=batch,
        seed=seed,
        hooks=[schedule],
        out=out,
    )
    run.test()
    run.tell(
        question=f"How far does a single layer of weights get on {dw.recipes.subject(table)}?",
        title=f"A single layer on {dw.recipes.subject(table)}",
    )
    if table.spec.kind == "image" and table.spec.task == "multiclass":
        weights = next(net.parameters()).detach().cpu().view(-1, *table.spec.shape).mean(1)
        reach = weights.abs().max()
        run.figure(
            "weights",
            dw.report.plots.images(
                (0.5 + 0.5 * weights / reach).numpy(),
                [f"for {name}" for name in table.spec.classes],
            ),
            title="What each output looks for",
            caption="The weights of each class as a picture: a pixel counts for the class where "
            "it is bright and against it where it is dark. The layer adds up the products, "
            "z = W x + b; the largest z wins.",
            alt="One small weight picture per class.",
        )
    return run
