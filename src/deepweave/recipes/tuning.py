"""Topic 07: a search over six settings, and its winner tested once."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import deepweave as dw
from deepweave.recipes import home, recipe


@recipe("07 Hyperparameter tuning", seconds=40)
def tuning(
    data: str = "digits",
    *,
    target: str | None = None,
    trials: int = 64,
    epochs: int = 27,
    seeds: int = 1,
    sampler: Literal["sobol", "random", "tpe", "gp"] = "sobol",
    budget: Literal["hyperband", "halving", "whole", "evolve"] = "hyperband",
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A search over six settings, its trials trained at once; the winner refitted and tested once.

    Args:
        data: a named data set, or a path to your own.
        target: the column to predict, for a table of your own.
        trials: settings to try.
        epochs: of a trial that goes to the end.
        seeds: networks per trial; its value is their mean.
        sampler: which settings are tried next (tpe and gp need the extra tune).
        budget: how epochs are spent on trials: fewer on the worse ones, or the whole on all.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    search = dw.search
    table = dw.data.load(data, target=target, seed=seed)
    if quick:
        trials, epochs = 12, 4
    space = {
        "lr": dw.space.log(3e-4, 1e-1),
        "decay": dw.space.log(1e-3, 1.0),
        "dropout": dw.space.uniform(0.0, 0.6),
        "width": dw.space.integer(16, 128, log=True),
        "depth": dw.space.integer(1, 3),
        "batch": dw.space.choice(32, 64, 128),
    }

    def make(width: int, depth: int, dropout: float) -> dw.Objective:
        net = dw.nn.mlp(table.spec, [width] * depth, dropout=dropout)
        return dw.supervise(net, table.spec)

    samplers = {
        "sobol": search.Sobol(),
        "random": search.Random(),
        "tpe": search.TPE(wave=16),
        "gp": search.GaussianProcess(wave=8),
    }
    budgets = {
        "hyperband": search.Hyperband(least=3),
        "halving": search.Halving(least=3),
        "whole": search.Whole(),
        "evolve": search.Evolve(every=3),
    }

    def hooks() -> list[dw.Hook]:  # rates that fall to zero: the last epochs judge more calmly
        return [dw.hooks.Schedule(dw.hooks.cosine, warmup=0.05)]

    study = dw.tune(
        make,
        space,
        table,
        trials=trials,
        epochs=epochs,
        seeds=seeds,
        sampler=samplers[sampler],
        budget=budgets[budget],
        hooks=hooks,
        seed=seed,
        out=home(out) / "search",
    )
    # the settings nobody searched for, trained in the same way: what the search is worth
    usual = {"lr": 1e-3, "decay": 0.01, "dropout": 0.0, "width": 64, "depth": 2, "batch": 64}
    plain = study.refit(settings=usual, epochs=epochs, out=home(out) / "usual")
    run = study.refit(epochs=epochs, out=home(out))
    run.test()
    run.rival("the usual settings", plain.objective.eval().predict(table.test.x))
    run.tell(
        question=f"Which settings suit {dw.recipes.subject(table)}, and what does a search gain?",
        title=f"{len(study.trials)} trials tune a network on {dw.recipes.subject(table)}",
    )
    show(run, study)
    return run


def show(run: dw.Run, study: dw.search.Study) -> None:
    """The pictures and tables of a search on a run's page."""
    count = {s: sum(t.status == s for t in study.trials) for s in ("finished", "stopped", "failed")}
    told = ", ".join(f"{n} {status}" for status, n in count.items() if n)
    studies = dw.report.studies
    run.figure(
        "history",
        studies.history(study),
        title="How the search went",
        caption=f"{len(study.trials)} trials ({told}) in {study.buckets} programs and "
        f"{study.seconds:.1f} s. A stopped trial's value is the one it was stopped at.",
        alt=f"The validation {study.goal} of every trial, and the best so far.",
    )
    run.figure(
        "slices",
        studies.slices(study),
        title="Each setting by itself",
        caption="The best trial is the orange one. Hollow: stopped early, after fewer epochs.",
        alt=f"The validation {study.goal} of the trials over each setting.",
    )
    run.figure(
        "parallel",
        studies.parallel(study),
        title="All settings together",
        caption="A line is a trial that went to the end; the best tenth in orange.",
        alt="Parallel coordinates of the settings of finished trials.",
    )
    if sum(t.value is not None for t in study.trials) >= 8:
        run.figure(
            "importance",
            studies.importance(study),
            title="Which settings mattered",
            caption="How much worse a random forest predicts a trial's rank when one setting is "
            "shuffled, as a share of the sum; the bars are 95 % intervals over bootstrap samples.",
            alt="The importance of each setting with an interval.",
        )
    names = list(study.space.dimensions)
    rows = []
    for one in study.ranked[:10]:
        shown = [one.settings.get(name, "") for name in names]
        words = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in shown]
        rows.append([str(one.number + 1), f"{one.value:.4f}", str(one.epochs), *words])
    run.table(
        "The ten best trials",
        ["trial", f"validation {study.goal}", "epochs", *names],
        rows,
        "Chosen on the validation split alone. Differences between the first few are noise of one "
        "split and one seed: the table says which region is good, not which row is best.",
    )
