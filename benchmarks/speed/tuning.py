"""Fifty trials of a network on digits: trained in one program, against Optuna driving a loop.

A trial is a network with two hidden layers, 20 epochs of batches of 64, AdamW; searched are the
learning rate, the decay, dropout and, in ``mixed``, the width of 16 to 128 (in ``one width`` it is
32). Optuna runs its default sampler over a plain hand-written loop: batches by index, the fused
optimizer, one thread. The yardstick of quality is the validation loss of the best trial, and the
test accuracy and loss of its network, over five seeds.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.tuning
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepweave as dw
from benchmarks import harness
from deepweave.search import TPE, Halving, Hyperband, Sobol, Whole

EPOCHS, BATCH, TRIALS = 20, 64, 50
Found = tuple[float, Any]  # validation loss, and what predicts


def optuna_loop(table: Any, mixed: bool, seed: int, pruned: bool) -> Found:
    """Optuna as its page on PyTorch shows it, over a loop without avoidable cost."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    x, y, held = table.train.x.flatten(1), table.train.y, table.validation
    torch.manual_seed(seed)
    best: list[Any] = [float("inf"), None]

    def validate(net: nn.Module) -> float:
        net.eval()
        with torch.no_grad():
            loss = F.cross_entropy(net(held.x.flatten(1)), held.y).item()
        net.train()
        return loss

    def objective(trial: Any) -> float:
        width = trial.suggest_int("width", 16, 128, log=True) if mixed else 32
        rate = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        share = trial.suggest_float("dropout", 0.0, 0.5)
        decay = trial.suggest_float("decay", 1e-6, 1e-1, log=True)
        net = nn.Sequential(
            nn.Linear(64, width), nn.ReLU(), nn.Dropout(share),
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(share), nn.Linear(width, 10),
        )  # fmt: skip
        optimizer = torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay, fused=True)
        for epoch in range(EPOCHS):
            for index in torch.randperm(len(x)).split(BATCH):
                loss = F.cross_entropy(net(x[index]), y[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            if pruned and epoch < EPOCHS - 1:
                trial.report(validate(net), epoch + 1)
                if trial.should_prune():
                    raise optuna.TrialPruned
        value = validate(net)
        if value < best[0]:
            best[:] = value, net
        return value

    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.HyperbandPruner(1, EPOCHS, 3) if pruned else None,
    )
    study.optimize(objective, n_trials=TRIALS)
    net = best[1].eval()
    return best[0], lambda x: net(x.flatten(1))


def woven(table: Any, mixed: bool, seed: int, sampler: Any, budget: Any) -> Found:
    """The same search as one call."""

    def make(dropout: float, width: int = 32) -> dw.Objective:
        return dw.Classify(dw.nn.mlp(table.spec, (width, width), dropout=dropout))

    space: dict[str, Any] = {
        "lr": dw.space.log(1e-4, 1e-1),
        "dropout": dw.space.uniform(0.0, 0.5),
        "decay": dw.space.log(1e-6, 1e-1),
    }
    if mixed:
        space["width"] = dw.space.integer(16, 128, log=True)
    study = dw.tune(
        make, space, table, trials=TRIALS, epochs=EPOCHS, batch=BATCH, seed=seed,
        sampler=sampler, budget=budget,
    )  # fmt: skip
    net = study.winner.model.eval()
    return study.value, net


CONTENDERS: dict[str, Callable[[Any, bool, int], Found]] = {
    "Optuna, plain loop": lambda t, m, s: optuna_loop(t, m, s, False),
    "Optuna, plain loop, Hyperband": lambda t, m, s: optuna_loop(t, m, s, True),
    "deepweave, Sobol": lambda t, m, s: woven(t, m, s, Sobol(), Whole()),
    "deepweave, TPE in waves of 10": lambda t, m, s: woven(t, m, s, TPE(wave=10), Whole()),
    "deepweave, halving by 2": lambda t, m, s: woven(t, m, s, Sobol(), Halving(eta=2, least=4)),
    "deepweave, halving by 3": lambda t, m, s: woven(t, m, s, Sobol(), Halving(eta=3, least=2)),
    "deepweave, Hyperband": lambda t, m, s: woven(t, m, s, Sobol(), Hyperband(eta=3, least=2)),
}


def score(predict: Callable[[Tensor], Tensor], split: Any) -> tuple[float, float]:
    """Accuracy and loss on the test split."""
    with torch.no_grad():
        z = predict(split.x)
    return float((z.argmax(1) == split.y).float().mean()), float(F.cross_entropy(z, split.y))


def main() -> None:
    """Every contender on every seed, alternating; medians of the ratios."""
    options = argparse.ArgumentParser()
    options.add_argument("--seeds", type=int, default=5)
    options.add_argument("--only", default="")
    options.add_argument("--name", default="tuning")
    given = options.parse_args()
    chosen = {k: v for k, v in CONTENDERS.items() if given.only in k or k == "Optuna, plain loop"}
    results: dict[str, Any] = {}
    for mixed in (True, False):
        rows: dict[str, dict[str, list[float]]] = {
            name: {"seconds": [], "validation": [], "accuracy": [], "loss": []} for name in chosen
        }
        for seed in range(given.seeds):
            table = dw.data.load("digits", seed=seed)
            for name, call in chosen.items():
                began = time.perf_counter()
                value, predict = call(table, mixed, seed)
                taken = time.perf_counter() - began
                accuracy, loss = score(predict, table.test)
                for key, one in zip(rows[name], (taken, value, accuracy, loss)):
                    rows[name][key].append(one)
        base = rows["Optuna, plain loop"]["seconds"]
        for name, row in rows.items():
            ratios = [a / b for a, b in zip(base, row["seconds"])]
            entry: dict[str, Any] = {
                "trials_per_second": round(TRIALS / statistics.median(row["seconds"]), 2),
                "ratio": round(statistics.median(ratios), 2),
                "ratio_low": round(min(ratios), 2),
                "ratio_high": round(max(ratios), 2),
            }
            for key in ("validation", "accuracy", "loss"):
                values = row[key]
                error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
                entry[key] = round(statistics.mean(values), 4)
                entry[f"{key}_error"] = round(error, 4)
            results[f"{'mixed widths' if mixed else 'one width'}: {name}"] = entry
            print("mixed" if mixed else "one width", name, entry, flush=True)
    harness.save(given.name, results, command="OMP_NUM_THREADS=1 python -m benchmarks.speed.tuning")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
