"""What a run gets wrong: its worst cases and the plots of its errors, task by task."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from deepweave.report import plots
from deepweave.report.reading import Reading
from deepweave.report.words import column, number

DRAWN = 20  # classes up to which a confusion matrix is drawn whole


def pictures(x: np.ndarray, most: int = 96) -> np.ndarray:
    """Images in model units as uint8, (N, H, W) or (N, H, W, 3), at most ``most`` pixels high.

    Shapes: x (N, C, H, W) or (N, H, W); channels other than 3 show the first alone.
    """
    x = np.asarray(x, float)
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim != 4:
        raise ValueError(f"pictures: expected images (N, C, H, W), got {x.shape}")
    stride = -(-max(x.shape[2:]) // most)
    x = np.nan_to_num(x[:, :, ::stride, ::stride])
    x = np.moveaxis(x, 1, -1) if x.shape[1] == 3 else x[:, 0]
    low, high = (x.min(), x.max()) if x.size else (0.0, 1.0)
    if low < -0.05 or high > 1.05:
        x = (x - low) / max(high - low, 1e-12)
    return (255 * x.clip(0, 1)).round().astype(np.uint8)


def matrix(reading: Reading) -> np.ndarray | None:
    """Counts of true class by said class, (K, K), for a task with one class per sample or pixel."""
    if reading.prediction is None or reading.target is None:
        return None
    said, true = answers(reading.task, reading.prediction), reading.target.reshape(-1)
    if reading.task not in ("binary", "multiclass", "segmentation"):
        return None
    count = 2
    if reading.task != "binary" and reading.prediction.ndim > 1:
        split = reading.prediction.ndim == 4 or reading.task == "multiclass"
        count = max(2, reading.prediction.shape[1]) if split else 2
    said, true = said.reshape(-1).astype(np.int64), true.astype(np.int64)
    if said.shape != true.shape:
        raise ValueError(f"expected {said.shape} targets, got {true.shape}")
    good = (true >= 0) & (true < count)  # a pixel of no class is marked below zero or above
    counts = np.bincount(true[good] * count + said[good], minlength=count * count)
    return counts.reshape(count, count)


def answers(task: str, prediction: np.ndarray) -> np.ndarray:
    """What was said: the class of the highest probability, labels over one half, or numbers."""
    if task == "multiclass" or (
        task == "segmentation" and prediction.ndim == 4 and prediction.shape[1] > 1
    ):
        return prediction.argmax(1)
    if task == "regression":
        return prediction
    said = (prediction >= 0.5).astype(np.int64)
    return said[:, 0] if task == "segmentation" and said.ndim == 4 else said


def words(reading: Reading, prediction: Any, target: Any) -> tuple[str, str]:
    """What was said of one sample and what is true, as text."""
    said, true = np.asarray(prediction, float), np.asarray(target)
    if reading.task == "multiclass" and said.ndim == 1:
        names = reading.classes(len(said))
        best = int(said.argmax())
        right = int(true)
        named = names[right] if 0 <= right < len(names) else str(right)
        return f"{names[best]} ({100 * said[best]:.0f}\u00a0%)", named
    if reading.task == "binary":
        names = reading.classes(2)
        share = float(said.reshape(-1)[0])
        sure = max(share, 1 - share)
        return f"{names[int(share >= 0.5)]} ({100 * sure:.0f}\u00a0%)", names[
            int(true.reshape(-1)[0] > 0)
        ]
    if reading.task == "multilabel":
        names = np.array(reading.classes(said.size))
        both = (names[said.reshape(-1) >= 0.5], names[true.reshape(-1) >= 0.5])
        return ", ".join(both[0]) or "none", ", ".join(both[1]) or "none"
    unit = f"\u00a0{reading.unit}" if reading.unit else ""
    return tuple(
        ", ".join(map(number, side.reshape(-1).astype(float))) + unit for side in (said, true)
    )  # pyright: ignore[reportReturnType]


def cases(reading: Reading, prefix: str = "worst", most: int = 16) -> list[dict[str, Any]]:
    """Samples of the examples with what was said and what is true; images as PNG addresses.

    ``prefix`` names the group: ``worst`` or ``test``. Where the test file holds the same
    sample, its prediction and target are taken: they are in the original unit.
    """
    found = reading.examples
    x, y, said = (found.get(f"{prefix}_{name}") for name in ("x", "y", "prediction"))
    index = found.get(f"{prefix}_index")
    if x is None:
        x = texts(reading, prefix)
    if x is None:
        return []
    if index is not None and reading.prediction is not None and reading.target is not None:
        index = index.reshape(-1).astype(int)
        if len(index) and index.max() < len(reading.prediction):
            said, y = reading.prediction[index], reading.target[index]
    if said is None or y is None or not len(x) == len(said) == len(y):
        return []
    shown = pictures(x[:most]) if reading.image else None
    rows = []
    for i in range(min(most, len(x))):
        row: dict[str, Any] = {
            "index": int(index[i]) if index is not None else None,
            "x": x[i],
            "masks": [],
        }
        if reading.task == "segmentation" and shown is not None:
            said_mask = answers(reading.task, said[i : i + 1])[0]
            top = max(1, said[i].shape[0] - 1) if said[i].ndim == 3 else 1
            masks = [
                np.asarray(mask, float).reshape(said_mask.shape) / top for mask in (y[i], said_mask)
            ]
            row["masks"] = [plots.png(mask) for mask in pictures(np.stack(masks))]
            share = float(np.mean(said_mask == np.asarray(y[i]).reshape(said_mask.shape)))
            row |= {
                "said": f"{100 * share:.1f}\u00a0% of the pixels right",
                "true": "",
                "right": False,
            }
        else:
            row["said"], row["true"] = words(reading, said[i], y[i])
            row["right"] = row["said"].split("\u00a0")[0].rsplit(" (", 1)[0] == row["true"]
        if shown is not None:
            row["image"] = plots.png(shown[i])
        rows.append(row)
    return rows


def texts(reading: Reading, prefix: str) -> np.ndarray | None:
    """The texts of a group of examples, (N,) strings, or None where they are no texts."""
    found = (reading.run.get("texts") or {}).get(f"{prefix}_x")
    if not found:
        return None
    return np.asarray([textwrap.shorten(str(one), 100, placeholder=" …") for one in found], object)


def case_table(reading: Reading, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The worst cases of a table, with the (at most six) inputs that stand out most in them."""
    if rows and isinstance(rows[0]["x"], str):
        return {
            "title": "The worst cases",
            "columns": ["said", "true", "text"],
            "rows": [[row["said"], row["true"], row["x"]] for row in rows[:10]],
            "caption": "The test samples with the largest loss, worst first.",
            "text": 3,
        }
    if not rows or np.ndim(rows[0]["x"]) != 1:
        return None
    rows = rows[:10]
    x = np.stack([row["x"] for row in rows]).astype(float)
    names = [str(name) for name in reading.spec.get("features") or ()]
    names = names if len(names) == x.shape[1] else [f"input {i}" for i in range(x.shape[1])]
    pick = np.sort(np.argsort(-np.abs(x).mean(0), kind="stable")[:6])
    names = [names[i] for i in pick]
    few = (
        "The inputs" if len(names) == x.shape[1] else f"{len(names)} of {x.shape[1]} inputs: those"
    )
    few += " as the model receives them." if len(names) == x.shape[1] else (
        " that stand out most, as the model receives them.")  # fmt: skip
    cells = zip(*(column(x[:, i].tolist()) for i in pick))
    return {
        "title": "The worst cases",
        "columns": ["test row", "said", "true", *names],
        "rows": [
            [row["index"] if row["index"] is not None else "–", row["said"], row["true"], *values]
            for row, values in zip(rows, cells)
        ],
        "caption": f"The test samples with the largest loss, worst first. {few}",
        "text": 3,
    }


def confused(counts: np.ndarray, names: list[str], most: int = 12) -> dict[str, Any]:
    """The pairs of classes most often taken for one another, for many classes."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(at), len(names)) for at in order if wrong.flat[at] > 0]
    rows = [
        [
            names[a],
            names[b],
            number(wrong[a, b]),
            f"{100 * wrong[a, b] / counts[a].sum():.1f}\u00a0%",
        ]
        for a, b in pairs
    ]
    return {
        "title": "Who is taken for whom",
        "columns": ["true", "said", "times", "of that class"],
        "rows": rows,
        "caption": f"The most confused pairs of {len(names)} classes.",
        "text": 2,
    }


def labels(reading: Reading) -> dict[str, Any] | None:
    """How each label of a multilabel task fares."""
    said, true = reading.prediction, reading.target
    if said is None or true is None or said.ndim != 2 or said.shape != true.shape:
        return None
    rows = []
    for i, name in enumerate(reading.classes(said.shape[1])):
        yes, hit = true[:, i] >= 0.5, said[:, i] >= 0.5
        both = float((yes & hit).sum())
        shares = [both / side.sum() if side.sum() else float("nan") for side in (hit, yes)]
        rows.append(
            [name, number(int(yes.sum()))]
            + [f"{100 * share:.1f}\u00a0%" if share == share else "–" for share in shares]
        )
    return {
        "title": "Each label",
        "columns": ["label", "in the test set", "precision", "recall"],
        "rows": rows[:60],
        "caption": "Each label at the threshold of one half.",
        "text": 1,
    }


def drawn(reading: Reading) -> list[tuple[str, Any, str]]:
    """The plots of the task as (title, function that draws, caption); the first one leads."""
    said, true, task = reading.prediction, reading.target, reading.task
    if said is None or true is None:
        return []
    found: list[tuple[str, Any, str]] = []
    if task == "regression":
        names = [str(name) for name in reading.spec.get("targets") or ()]
        columns = [a.reshape(len(a), -1).T for a in (said, true)]
        many = len(columns[0]) > 1
        for i, (p, t) in enumerate(list(zip(*columns))[:4]):
            of = f" of {names[i] if i < len(names) else f'target {i}'}" if many else ""
            tail = f" ({reading.unit})" if reading.unit else ""
            axes = (f"predicted{of}{tail}", f"true{of}{tail}")
            found += [
                (f"Predicted against true{of}",
                 lambda p=p, t=t, a=axes: plots.scatter(p, t, labels=a),
                 "Each point is a test sample; on the dashed line the prediction is exact."),
                (f"Residuals{of}", lambda p=p, t=t: plots.residuals(p, t, unit=reading.unit),
                 "What the model leaves; a pattern here is something it could still learn."),
                (f"Size of the errors{of}", lambda e=t - p, x=tail: plots.histogram(
                    {"residual": e}, x=f"residual: true − predicted{x}", mark=0),
                 "Right of zero the model said too little, left of it too much."),
            ]  # fmt: skip
        return found
    if task == "binary":
        names = reading.classes(2)
        groups = {names[k]: said.reshape(-1)[true.reshape(-1) == k] for k in (0, 1)}
        found.append(("What the model said, by what was true", lambda: plots.histogram(
            groups, x=f"probability of “{names[1]}”", mark=0.5, y="test samples"),
            "Each colour is a true class; left of the dashed line the model says "
            f"“{names[0]}”, right of it “{names[1]}”."))  # fmt: skip
    counts = matrix(reading)
    if counts is not None and len(counts) <= DRAWN:
        found.append(("Who is taken for whom", lambda: plots.confusion(
            counts, reading.classes(len(counts))),
            "Test samples by true class (rows) and answer (columns); errors in orange."
            if task != "segmentation" else "Test pixels by true class and answer."))  # fmt: skip
    if task != "segmentation":
        names = reading.classes(said.shape[1] if said.ndim == 2 else 2)
        found += [
            ("ROC", lambda: plots.roc(true, said, names),
             "Hits against false alarms at every threshold."),
            ("Precision and recall", lambda: plots.precision_recall(true, said, names),
             "How pure the finds are as more of the class is found."),
            ("Reliability", lambda: plots.reliability(true, said),
             "On the dashed line the model is right as often as it claims; bars are 95\u00a0% "
             "intervals."),
        ]  # fmt: skip
    return found
