"""Topic 01: a deep network, beside the shallow one."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe


@recipe("01 Deep neural networks", seconds=15)
def deep(
    data: str = "digits",
    *,
    target: str | None = None,
    hidden: tuple[int, ...] = (256, 256),
    activation: str = "relu",
    dropout: float = 0.3,
    norm: str | None = None,
    residual: bool = False,
    smoothing: float = 0.1,
    epochs: int = 100,
    batch: int = 64,
    lr: float = 0.002,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A network with hidden layers, trained, tested, and set beside a single layer.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        hidden: the width of each hidden layer.
        activation: of the hidden layers.
        dropout: share of hidden units dropped while training.
        norm: batch or layer, before each activation.
        residual: add a layer's input to its output where widths agree.
        smoothing: of the labels, for classes.
        epochs: passes over the training data, at most.
        batch: samples per step.
        lr: the highest learning rate, reached after a warm-up.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    if quick:
        epochs = 3
    soft = {"smoothing": smoothing} if table.spec.task in ("binary", "multiclass") else {}
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    net = dw.nn.mlp(table.spec, hidden, activation, dropout=dropout, norm=norm, residual=residual)

    # both are made before either is trained: a wrong setting is refused before any work
    network = dw.Descent(dw.supervise(net, table.spec, **soft), "AdamW", lr=lr, weight_decay=0.01)
    # the single layer as suits it: five times the rate, and labels as they are
    layer = dw.supervise(dw.nn.shallow(table.spec), table.spec)
    layer = dw.Descent(layer, "AdamW", lr=5 * lr, weight_decay=0.01)

    def train(step, out):
        hooks = [
            dw.hooks.Schedule(dw.hooks.cosine, warmup=0.05),
            dw.hooks.Clip(norm=1.0),
            dw.hooks.Average(0.99),
        ]
        return dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=out)

    single = train(layer, home(out) / "shallow")
    run = train(network, home(out))
    run.test()
    run.rival("a single layer", single.predict(table.test.x))
    layers = "one hidden layer" if len(hidden) == 1 else f"{len(hidden)} hidden layers"
    run.tell(
        question=f"What do hidden layers add on {dw.recipes.subject(table)}?",
        title=f"A network with {layers} on {dw.recipes.subject(table)}",
    )
    return run
