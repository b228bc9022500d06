"""Topic 08: every score with its interval, and what an interval is for."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe


@recipe("08 Measuring performance", seconds=10)
def metrics(
    data: str = "breast_cancer",
    *,
    target: str | None = None,
    hidden: tuple[int, ...] = (64, 64),
    epochs: int = 60,
    batch: int = 32,
    lr: float = 0.002,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """All scores of a trained network with intervals, thresholds, and a paired comparison.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        hidden: the width of each hidden layer.
        epochs: passes over the training data, at most.
        batch: samples per step.
        lr: learning rate.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    table = dw.data.load(data, target=target, seed=seed)
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    epochs = 3 if quick else epochs

    def train(net, out):
        step = dw.Descent(dw.supervise(net, table.spec), "AdamW", lr=lr, weight_decay=0.05)
        hooks = [dw.hooks.Schedule(dw.hooks.cosine)]
        return dw.fit(step, table, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=out)

    single = train(dw.nn.shallow(table.spec), home(out) / "shallow")
    run = train(dw.nn.mlp(table.spec, hidden, dropout=0.2), home(out))
    run.test()
    others = single.predict(table.test.x)
    run.rival("a single layer", others)
    run.tell(
        question="How good is it, how sure is that, and is it better than something simpler?",
        title=f"Every score with its interval, on {dw.recipes.subject(table)}",
    )
    prediction = run.predict(table.test.x)
    truth = table.preparation.restore(table.test.y)
    _compare(run, table.spec.task, prediction, others, truth)
    if table.spec.task == "binary":
        _thresholds(run, prediction, truth, table.spec.classes[1])
    _sizes(run, table.spec.task, prediction, truth)
    return run


def _compare(run, task, ours, others, truth):
    """The paired difference to the single layer, score by score."""
    chosen = {
        "binary": ("accuracy", "auc", "f1", "log_loss", "brier"),
        "multiclass": ("accuracy", "balanced_accuracy", "log_loss", "brier"),
        "multilabel": ("accuracy", "log_loss"),
        "regression": ("rmse", "mae", "r2"),
    }[task]
    rows = []
    for name in chosen:
        gap = dw.metrics.difference(getattr(dw.metrics, name), ours, others, truth)
        rows.append([name, f"{gap:+.4f}", f"[{gap.low:+.4f}, {gap.high:+.4f}]", gap.method])
    run.table(
        "Network minus single layer, on the same test samples",
        ["score", "difference", "95 % interval", "method"],
        rows,
        "Paired: both judged the same samples, so what is hard for both cancels. An interval "
        "that holds 0 means that this test set cannot tell them apart.",
    )


def _thresholds(run, prediction, truth, positive):
    """Precision, recall and F1 over the threshold of the decision."""
    places = [i / 100 for i in range(2, 99, 2)]
    kinds = {"precision": dw.metrics.precision, "recall": dw.metrics.recall, "F1": dw.metrics.f1}
    lines = {
        name: (places, [float(metric(prediction >= place, truth)) for place in places])
        for name, metric in kinds.items()
    }
    run.figure(
        "thresholds",
        dw.report.plots.curves(
            lines, x="threshold of the decision", y="score", percent=True, log=False,
            alt="Precision, recall and F1 over the threshold.",
        ),
        title="The threshold is a choice",
        caption=f"Above the threshold the answer is {positive!r}. A low one finds more and errs "
        "more; 0.5 is only a habit.",
        alt="Precision, recall and F1 over the threshold.",
    )  # fmt: skip


def _sizes(run, task, prediction, truth):
    """How the interval of the main score narrows with the number of test samples."""
    name = "rmse" if task == "regression" else "accuracy"
    metric, count = getattr(dw.metrics, name), len(truth)
    sizes = sorted({max(10, round(count * share)) for share in (0.1, 0.25, 0.5, 0.75, 1.0)})
    rows = {}
    for size in sizes:
        score = metric(prediction[:size], truth[:size])
        rows[f"{size} samples"] = (float(score), score.low, score.high)
    run.figure(
        "sizes",
        dw.report.plots.intervals(rows, x=name, alt=f"{name} with its interval by test size."),
        title="How sure a test set of this size can be",
        caption="The same network, judged by the first so many test samples. Four times "
        "the samples make the interval about half as wide.",
        alt=f"{name} with its interval by test size.",
    )
