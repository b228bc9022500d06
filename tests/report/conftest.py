"""Small real runs in the folder format: data of scikit-learn, a network fitted in a second."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier, MLPRegressor

TITLES = {
    "multiclass": (
        "A deep network reads handwritten digits",
        "Can two layers of numbers tell ten digits apart?",
    ),
    "binary": (
        "A network tells benign tumours from malignant ones",
        "Can 30 measurements of cells replace a second look?",
    ),
    "regression": (
        "A network predicts how diabetes progresses",
        "How far do ten measurements reach into the next year?",
    ),
    "multilabel": (
        "A network names three properties of a digit",
        "Can one network answer three questions at once?",
    ),
    "segmentation": (
        "A pixel classifier finds the ink under noise",
        "Which pixels belong to the digit?",
    ),
}
TASKS = ("multiclass", "binary", "regression", "multilabel", "segmentation")


def wilson(right: np.ndarray) -> dict[str, Any]:
    n, p, z = len(right), float(np.mean(right)), 1.96
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    ends = [float((middle + sign * half) / (1 + z * z / n)) for sign in (-1, 1)]
    return {"value": p, "low": ends[0], "high": ends[1], "method": "Wilson"}


def bootstrap(statistic: Callable[..., float], *columns: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    n = len(columns[0])
    draws = [statistic(*(c[at] for c in columns)) for at in rng.integers(0, n, (200, n))]
    low, high = np.quantile(draws, [0.025, 0.975])
    value = float(statistic(*columns))
    return {"value": value, "low": float(low), "high": float(high), "method": "bootstrap"}


def f1_micro(said: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (said * true).sum() / (said.sum() + true.sum()))


def write(
    folder: Path,
    run: dict[str, Any],
    log: list[dict[str, Any]],
    test: dict[str, np.ndarray],
    examples: dict[str, np.ndarray],
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run))
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    save_file({k: np.ascontiguousarray(v) for k, v in test.items()}, folder / "test.safetensors")
    save_file(
        {k: np.ascontiguousarray(v) for k, v in examples.items()}, folder / "examples.safetensors"
    )
    return folder


def make(task: str, folder: Path, *, hidden: int = 32, seed: int = 0) -> Path:
    """Fit a small model on real data and write its run."""
    rng = np.random.default_rng(0)
    x: Any
    y: Any
    names: dict[str, Any] = {"classes": [], "features": [], "targets": [], "unit": ""}
    if task in ("multiclass", "multilabel", "segmentation"):
        x, y = datasets.load_digits(return_X_y=True)
        x, title, name = x / 16, "Handwritten digits", "digits"
        names["classes"] = [str(i) for i in range(10)]
        if task == "multilabel":
            y = np.stack([y % 2 == 0, np.isin(y, (2, 3, 5, 7)), y > 4], 1).astype(np.float32)
            names["classes"] = ["even", "prime", "above four"]
    elif task == "binary":
        found: Any = datasets.load_breast_cancer()
        x, y, title, name = found.data, found.target, "Breast tumours, Wisconsin", "breast_cancer"
        names |= {
            "classes": ["malignant", "benign"],
            "features": list(map(str, found.feature_names)),
        }
    else:
        found = datasets.load_diabetes()
        x, y, title, name = found.data, found.target, "Diabetes progression", "diabetes"
        names |= {
            "features": list(found.feature_names),
            "targets": ["progression"],
            "unit": "points",
        }
    order = rng.permutation(len(x))
    x, y = np.asarray(x)[order], np.asarray(y)[order]
    a, b = int(0.7 * len(x)), int(0.8 * len(x))
    image = task in ("multiclass", "multilabel", "segmentation")
    if not image:
        x = (x - x[:a].mean(0)) / x[:a].std(0)
    middle, spread = (y[:a].mean(), y[:a].std()) if task == "regression" else (0.0, 1.0)
    log: list[dict[str, Any]] = []
    scores: dict[str, Any] = {}
    baseline: dict[str, Any] = {}
    rivals: dict[str, Any] = {}
    worst: Any
    prediction: Any
    if task == "segmentation":
        mask = (x > 0.45).astype(np.int64).reshape(-1, 8, 8)
        noisy = np.clip(x + rng.normal(0, 0.25, x.shape), 0, 1).reshape(-1, 8, 8)
        model: Any = LogisticRegression().fit(noisy[:a].reshape(-1, 1), mask[:a].reshape(-1))
        prediction = model.predict_proba(noisy[b:].reshape(-1, 1))[:, 1].reshape(-1, 8, 8)
        x, y = noisy.reshape(len(x), -1), mask
        hit = (prediction >= 0.5) == mask[b:]
        dice = (
            2
            * ((prediction >= 0.5) & (mask[b:] == 1)).sum((1, 2))
            / ((prediction >= 0.5).sum((1, 2)) + mask[b:].sum((1, 2)))
        )
        scores = {
            "test/dice": bootstrap(np.mean, dice),
            "test/pixel_accuracy": bootstrap(np.mean, hit),
        }
        baseline = {"test/dice": 0.0, "test/pixel_accuracy": float((mask[b:] == 0).mean())}
        worst = np.argsort(dice)[:6]
    else:
        kind: Any = MLPRegressor if task == "regression" else MLPClassifier
        model = kind(
            hidden_layer_sizes=(hidden,), random_state=seed, batch_size=64, learning_rate_init=0.003
        )
        goal = (y - middle) / spread
        classes = (
            {}
            if task == "regression"
            else {"classes": np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])}
        )
        for epoch in range(30):
            model.partial_fit(x[:a], goal[:a], **(classes if epoch == 0 else {}))
            step = (epoch + 1) * -(-a // 64)
            log.append(
                {
                    "step": step,
                    "epoch": epoch,
                    "seconds": 0.1 * epoch,
                    "lr": 0.003 * 0.95**epoch,
                    "train/loss": float(model.loss_),
                    "train/gradient_norm": float(model.loss_) ** 0.5,
                }
            )
            if task == "regression":
                value = float(np.mean((model.predict(x[a:b]) - goal[a:b]) ** 2))
                log.append(
                    {
                        "step": step,
                        "epoch": epoch,
                        "validation/loss": value / 2,
                        "validation/rmse": spread * value**0.5,
                    }
                )
            elif task == "multilabel":
                p = model.predict_proba(x[a:b]).clip(1e-7, 1 - 1e-7)
                value = float(-np.mean(y[a:b] * np.log(p) + (1 - y[a:b]) * np.log(1 - p)))
                log.append({"step": step, "epoch": epoch, "validation/loss": value})
            else:
                p = model.predict_proba(x[a:b])
                log.append(
                    {
                        "step": step,
                        "epoch": epoch,
                        "validation/loss": float(log_loss(y[a:b], p)),
                        "validation/accuracy": float((p.argmax(1) == y[a:b]).mean()),
                    }
                )
        true = y[b:]
        if task == "regression":
            prediction = model.predict(x[b:]) * spread + middle
            squared = (prediction - true) ** 2
            scores = {
                "test/rmse": bootstrap(lambda e: float(np.sqrt(e.mean())), squared),
                "test/mae": bootstrap(lambda e: float(np.sqrt(e).mean()), squared),
                "test/r2": bootstrap(
                    lambda p, t: 1 - float(((p - t) ** 2).mean() / t.var()), prediction, true
                ),
            }
            base = np.full(len(true), y[:a].mean())
            baseline = {
                "test/rmse": float(np.sqrt(((base - true) ** 2).mean())),
                "test/mae": float(np.abs(base - true).mean()),
                "test/r2": 0.0,
            }
            worst = np.argsort(-squared)[:12]
        elif task == "multilabel":
            prediction = model.predict_proba(x[b:])
            said = prediction >= 0.5
            scores = {
                "test/f1_micro": bootstrap(f1_micro, said, true),
                "test/subset_accuracy": wilson((said == true).all(1)),
            }
            baseline = {"test/f1_micro": 0.62, "test/subset_accuracy": 0.1}
            worst = np.argsort(-np.abs(prediction - true).max(1))[:12]
        else:
            p = model.predict_proba(x[b:])
            prediction = p[:, 1] if task == "binary" else p
            likely = p[np.arange(len(true)), true].clip(1e-12)
            scores = {
                "test/accuracy": wilson(p.argmax(1) == true),
                "test/log_loss": bootstrap(lambda q: float(-np.log(q).mean()), likely),
            }
            share = np.bincount(y[:a]) / a
            common = int(share.argmax())
            baseline = {
                "test/accuracy": float((true == common).mean()),
                "test/log_loss": float(-np.log(share[true]).mean()),
            }
            rival = LogisticRegression(max_iter=2000).fit(x[:a], y[:a]).predict_proba(x[b:])
            rivals = {
                "logistic regression": {
                    "test/accuracy": wilson(rival.argmax(1) == true),
                    "test/log_loss": {
                        "value": float(log_loss(true, rival, labels=np.arange(rival.shape[1])))
                    },
                }
            }
            worst = np.argsort(likely)[:16]
    shape = (1, 8, 8) if image else (x.shape[1],)
    train_x, train_y = x[:a], y[:a]
    if task in ("multiclass", "binary"):
        pick = np.concatenate([np.flatnonzero(train_y == k)[:6] for k in np.unique(train_y)])
    else:
        pick = np.arange(12)
    outputs = {"multiclass": 10, "multilabel": 3}.get(task, 1)
    kind = "image" if image else "table"
    spec = {"task": task, "shape": shape, "outputs": outputs, "kind": kind, **names}
    if task == "segmentation":
        spec["classes"] = ["paper", "ink"]
    counts = {}
    if task in ("multiclass", "binary"):
        parts = {"train": y[:a], "validation": y[a:b], "test": y[b:]}
        counts = {k: np.bincount(v).tolist() for k, v in parts.items()}
    losses = [(row["validation/loss"], row) for row in log if "validation/loss" in row]
    best = min(losses, key=lambda pair: pair[0])[1] if losses else None
    size = 64 * hidden + hidden * outputs + hidden + outputs
    title_of_run, question = TITLES[task]
    preparation = "Each input standardised with the mean and deviation of the training set."
    layers = (
        {"layer": "0", "gradient_norm": 0.031, "weight_norm": 5.2, "dead": 0.03},
        {"layer": "2", "gradient_norm": 0.074, "weight_norm": 4.1, "dead": 0.0},
    )
    text = f"Sequential(\n  (0): Linear({x.shape[1]}, {hidden})\n  (1): ReLU()\n)"
    losses_of_best = {k: v for k, v in best.items() if "/" in k} if best else {}
    run = {
        "format": "deepweave run 1",
        "recipe": "deep",
        "settings": {"hidden": [hidden], "epochs": 30, "lr": 0.003},
        "seed": seed,
        "command": f"deepweave run deep --data {name} --seed {seed}",
        "status": "finished",
        "started": "2026-11-22T17:56:00+00:00",
        "seconds": 9.3,
        "steps": 600,
        "epochs": 30,
        "steps_per_second": 900.0,
        "peak_memory_mb": 410,
        "device": "cpu",
        "threads": 2,
        "versions": {"deepweave": "0.1.0", "python": "3.11.7", "torch": "2.13.0", "numpy": "2.4.6"},
        "data": {
            "name": name,
            "title": title,
            "source": "scikit-learn",
            "licence": "CC BY 4.0",
            "fingerprint": hashlib.sha256(x.tobytes()).hexdigest(),
            "splits": {"train": a, "validation": b - a, "test": len(x) - b},
            "class_counts": counts,
            "spec": spec,
            "preparation": ["Pixels divided by 16." if image else preparation],
        },
        "model": {"blueprint": {}, "parameters": size, "bytes": 4 * size, "text": text},
        "objective": "Classify" if task != "regression" else "Regress",
        "optimizer": {"name": "AdamW", "lr": 0.003, "weight_decay": 0.01},
        "best": {"step": best["step"], "epoch": best["epoch"], "scores": losses_of_best}
        if best
        else {},
        "diagnostics": list(layers),
        "advice": ["Gradients are of one size in all layers: depth costs nothing here."],
        "scores": scores,
        "baseline": {k: {"value": v, "low": None, "high": None} for k, v in baseline.items()},
        "baseline_name": "training mean" if task == "regression" else "most frequent class",
        "rivals": rivals,
        "question": question,
        "title": title_of_run,
        "figures": [],
        "tables": [],
    }
    reshape = (-1, *shape)
    return write(
        folder,
        run,
        log,
        {"prediction": np.asarray(prediction, np.float32), "target": np.asarray(y[b:])},
        {
            "train_x": train_x[pick].reshape(reshape).astype(np.float32),
            "train_y": np.asarray(train_y[pick]),
            "worst_x": x[b:][worst].reshape(reshape).astype(np.float32),
            "worst_y": np.asarray(y[b:][worst]),
            "worst_prediction": np.asarray(prediction[worst], np.float32),
            "worst_index": np.asarray(worst, np.int64),
        },
    )


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One finished run per task, made once; never write into these."""
    here = tmp_path_factory.mktemp("runs")
    return {task: make(task, here / task) for task in TASKS}


@pytest.fixture
def copy(runs: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a task's run to write into, its run.json changed by the given fields."""

    def copied(task: str = "multiclass", name: str = "run", **fields: Any) -> Path:
        folder = Path(shutil.copytree(runs[task], tmp_path / name))
        run = json.loads((folder / "run.json").read_text())
        (folder / "run.json").write_text(json.dumps(run | fields))
        return folder

    return copied
