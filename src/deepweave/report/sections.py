"""The sections of a run's page, from its data to its settings, as the template takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from deepweave.report import mistakes, plots
from deepweave.report.reading import Reading
from deepweave.report.sheet import Sheet
from deepweave.report.words import (
    Metric,
    Score,
    amount,
    column,
    duration,
    interval,
    metric,
    number,
    scores_of,
)


def tiles(reading: Reading) -> list[dict[str, Any]]:
    """One sample of each class with the share of its test samples answered right."""
    x, y = (reading.examples.get(f"train_{name}") for name in "xy")
    counts = mistakes.matrix(reading) if reading.task in ("binary", "multiclass") else None
    if x is None or y is None or counts is None or len(counts) > mistakes.DRAWN:
        return []
    shown, found = mistakes.pictures(x), []
    for k, name in enumerate(reading.classes(len(counts))):
        at = np.flatnonzero(y.reshape(-1) == k)
        if len(at) and counts[k].sum():
            right, total = int(counts[k, k]), int(counts[k].sum())
            found.append({
                "image": plots.png(shown[at[0]]), "name": name, "share": 100 * right / total,
                "words": f"{right} of {total}",
            })  # fmt: skip
    return found


def data(reading: Reading, sheet: Sheet) -> dict[str, Any]:
    """What the data is: its size, splits, classes, preparation and a look at it."""
    about, spec = reading.data, reading.spec
    splits = {str(name): int(n) for name, n in (about.get("splits") or {}).items()}
    shape = [int(n) for n in spec.get("shape") or ()]
    total = sum(splits.values())
    if reading.image and len(shape) == 3:
        what = f"images of {shape[1]} × {shape[2]} pixels" + (" in colour" if shape[0] == 3 else "")
    elif (kind := spec.get("kind")) == "text":
        what = f"texts of at most {number(shape[0])} tokens"
    elif kind == "sequence":
        what = f"sequences of at most {number(shape[0])} steps of {number(shape[1])} numbers"
    elif kind == "graph":
        what = f"samples of graphs whose nodes have {number(shape[0])} features"
    else:
        what = f"rows of {number(shape[0])} inputs" if len(shape) == 1 else "samples"
        what += f" of shape {' × '.join(map(str, shape))}" if len(shape) > 1 else ""
    counts = {
        str(k): [int(n) for n in v] for k, v in (about.get("class_counts") or {}).items() if v
    }
    names = reading.classes(max((len(v) for v in counts.values()), default=0))
    balance = None
    if names and len(names) <= 40 and reading.task != "segmentation":
        rows = [
            [n, *(number(v[i]) if i < len(v) else "–" for v in counts.values())]
            for i, n in enumerate(names)
        ]
        balance = {
            "columns": ["class", *counts],
            "rows": rows,
            "caption": "Samples of each class.",
            "text": 1,
        }
    return {
        "sentence": f"{number(total)} {what}." if total else "",
        "splits": [(name, n, 100 * n / total) for name, n in splits.items() if total],
        "preparation": [str(line) for line in about.get("preparation") or ()],
        "balance": balance,
        **_look(reading, sheet),
    }


def _look(reading: Reading, sheet: Sheet) -> dict[str, Any]:
    x, y = (reading.examples.get(f"train_{name}") for name in "xy")
    empty: dict[str, Any] = {"strips": [], "sample_table": None}
    said = mistakes.texts(reading, "train")
    if said is not None and y is not None and len(said) == len(y):
        pick = np.unique(np.linspace(0, len(said) - 1, min(6, len(said))).round().astype(int))
        names = reading.classes(int(y.max()) + 1) if y.dtype.kind in "iu" else []
        rows = [[names[int(y[i])] if names else number(float(y[i])), said[i]] for i in pick]
        table = {"columns": ["target", "text"], "rows": rows, "text": 2,
                 "caption": "Training texts, as the model receives them."}  # fmt: skip
        return empty | {"sample_table": table}
    if x is None or y is None or len(x) != len(y) or not len(x):
        return empty
    if reading.image:
        try:
            shown = mistakes.pictures(x)
        except ValueError as error:
            sheet.notes.append(f"Samples are left out: {error}.")
            return empty
        flat = y.reshape(len(y), -1)
        if reading.task in ("binary", "multiclass"):
            names = reading.classes(
                int(reading.spec.get("outputs") or 2) if reading.task != "binary" else 2
            )
            groups = [(n, np.flatnonzero(flat[:, 0] == k)[:6]) for k, n in enumerate(names[:20])]
        else:
            groups = [("", np.arange(min(12, len(x))))]
        strips = [
            {"name": n, "images": [plots.png(shown[i]) for i in at]} for n, at in groups if len(at)
        ]
        return empty | {"strips": strips}
    if x.ndim != 2:
        return empty
    pick = np.unique(np.linspace(0, len(x) - 1, min(6, len(x))).round().astype(int))
    names = [str(name) for name in reading.spec.get("features") or ()]
    names = (names if len(names) == x.shape[1] else [f"input {i}" for i in range(x.shape[1])])[:7]
    inputs = zip(*(column(x[pick, i].tolist()) for i in range(len(names))))
    rows = [[_true(reading, y[i]), *values] for i, values in zip(pick, inputs)]
    few = f" The first {len(names)} of {x.shape[1]} inputs." if len(names) < x.shape[1] else ""
    caption = f"Rows of the training set as the model receives them.{few}"
    return empty | {
        "sample_table": {"columns": ["target", *names], "rows": rows, "caption": caption, "text": 1}
    }


def _true(reading: Reading, target: np.ndarray) -> str:
    values = np.asarray(target, float).reshape(-1)
    if reading.task in ("binary", "multiclass") and values.size == 1:
        names = reading.classes(max(2, int(reading.spec.get("outputs") or 0)))
        return names[int(values[0])] if 0 <= values[0] < len(names) else number(values[0])
    return ", ".join(map(number, values))


def series(log: list[dict[str, Any]]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Every number in the log over its steps, by key."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in log:
        step = row.get("step")
        for key, value in row.items():
            usable = isinstance(value, int | float) and isinstance(step, int | float)
            if usable and step is not None and key not in ("step", "epoch", "seconds"):
                steps, values = found.setdefault(key, ([], []))
                steps.append(step)
                values.append(value)
    arrays = {k: (np.array(a, float), np.array(b, float)) for k, (a, b) in found.items()}
    return {k: v for k, v in arrays.items() if np.isfinite(v[1]).any()}


def training(reading: Reading, sheet: Sheet) -> dict[str, Any]:
    """Curves, the best step, the gradients of each layer and the advice."""
    run, found = reading.run, series(reading.log)
    groups: dict[str, dict[str, Any]] = {}
    for key in sorted(found, key=lambda key: not key.startswith("validation/")):
        groups.setdefault(key.rsplit("/", 1)[-1], {})[key.rsplit("/", 1)[0]] = found[key]
    main = (reading.main() or "").rsplit("/", 1)[-1]
    scored = [n for n in groups if n != "loss" and "validation" in groups[n]]
    order = ["loss", *([main] if main in scored else scored[:1])]
    order += [n for n in groups if n not in (*order, "lr", "gradient_norm")][:4]
    best = run.get("best") or {}
    mark = (float(best["step"]), f"best, step {number(best['step'])}") if best.get("step") else None
    figures = []
    for name in [n for n in order if n in groups]:
        how, line = metric(name), groups[name]
        label = how.label + (f" ({reading.unit})" if how.unit and reading.unit else "")
        known = name == "loss" or how != Metric(how.label, bounded=False)
        better = f", {'higher' if how.higher else 'lower'} is better" if known else ""
        plan = partial(
            plots.curves, line, y=lower(label) + better, percent=how.percent,
            mark=mark if "validation" in line else None,
        )  # fmt: skip
        figures.append(sheet.draw(f"{how.label} over steps", plan))
    for name, label in (("lr", "Learning rate"), ("gradient_norm", "Gradient norm")):
        if name in groups and np.ptp(next(iter(groups[name].values()))[1]) > 0:
            line = {lower(label): next(iter(groups[name].values()))}
            plan = partial(plots.curves, line, y=lower(label), height=1.75)
            figures.append(sheet.draw(f"{label} over steps", plan))
    figures = [one for one in figures if one]
    return {
        "figures": figures,
        "sentence": course(reading),
        "health": _health(run.get("diagnostics") or []),
        "advice": [str(line) for line in run.get("advice") or ()],
    }


def course(reading: Reading) -> str:
    """How the training went, in two sentences."""
    run, optimizer, best = (
        reading.run,
        reading.run.get("optimizer") or {},
        reading.run.get("best") or {},
    )
    length = [f"{number(run[n])} {n}" for n in ("epochs", "steps") if run.get(n)]
    words = f"{', '.join(length)} in {duration(run.get('seconds'))}" if length else ""
    if run.get("steps_per_second"):
        words += f", {number(run['steps_per_second'])} steps a second"
    if optimizer.get("name"):
        words += f"; {optimizer['name']}"
        words += f" at learning rate {cell(optimizer['lr'])}" if optimizer.get("lr") else ""
        low, high = optimizer.get("lr_low"), optimizer.get("lr_high")
        if low and high:
            words += f" at learning rate{'' if low == high else 's'} {cell(low)}"
            words += "" if low == high else f" to {cell(high)}"
    words += "." if words else ""
    if best.get("step"):
        said = [
            f"{lower(metric(k).label)} {amount(k, s.value, reading.unit)}"
            for k, s in scores_of(best.get("scores") or {}).items()
        ]
        epoch = f" (epoch {number(best['epoch'])})" if best.get("epoch") is not None else ""
        words += f" Best on validation at step {number(best['step'])}{epoch}"
        words += f": {', '.join(said)}." if said else "."
    return words


def lower(label: str) -> str:
    """A label inside a sentence: names such as RMSE stay as they are."""
    return label[:1].lower() + label[1:] if label[1:2].islower() else label


def share(value: float | None) -> str:
    """A share of one in percent; a number above one is a count and stays as it is."""
    return f"{100 * value:.0f}\u00a0%" if value is not None and value <= 1 else number(value)


def _health(layers: list[Any]) -> dict[str, Any] | None:
    names = {"gradient_norm": "gradient norm", "weight_norm": "weight norm",
             "activation_std": "activation deviation", "dead": "dead units"}  # fmt: skip
    rows = [row for row in layers if isinstance(row, dict)]
    shown = [name for name in names if any(row.get(name) is not None for row in rows)]
    if not shown:
        return None
    cells = [
        [
            str(row.get("layer", "")),
            *(share(row.get(n)) if n == "dead" else number(row.get(n)) for n in shown),
        ]
        for row in rows
    ]
    if len(cells) > 40:
        cells = [*cells[:20], [f"… {len(cells) - 40} more", *[""] * len(shown)], *cells[-20:]]
    return {"columns": ["layer", *(names[n] for n in shown)], "rows": cells, "text": 1,
            "caption": "Each layer at the end of training."}  # fmt: skip


def score_table(reading: Reading) -> dict[str, Any]:
    """The scores beside baseline and rivals, with places in percent for the drawn interval."""
    base, rivals = reading.scores("baseline"), reading.rivals()
    scores = reading.scores()
    alone = len({key.rsplit("/", 1)[0] for key in scores}) < 2
    main = reading.main()
    rows = []
    for key in sorted(scores, key=lambda key: (not key.startswith("test/"), key != main)):
        score, how = scores[key], metric(key)
        others = [base.get(key), *(rival.get(key) for rival in rivals.values())]
        place = scale(key, [score, *(other for other in others if other)])
        bar = None
        if score.low is not None and score.high is not None:
            bar = (place(score.low), max(place(score.high) - place(score.low), 0.6))
        rows.append({
            "key": key, "label": how.label + ("" if alone else f", {key.rsplit('/', 1)[0]}"),
            "better": "higher" if how.higher else "lower",
            "score": amount(key, score.value, reading.unit),
            "value": repr(score.value), "interval": interval(key, score), "method": score.method,
            "dot": place(score.value), "bar": bar,
            "others": [
                {"text": amount(key, o.value if o else None, reading.unit),
                 "dot": place(o.value) if o else None}
                for o in others
            ],
        })  # fmt: skip
    name = reading.run.get("baseline_name") or ""
    return {"rows": rows, "baseline": str(name), "rivals": list(rivals), "has_baseline": bool(base)}


def scale(key: str, scores: list[Score]) -> Callable[[float], float]:
    """Where a score stands on its row, in percent; bounded rows end at 1, others at the largest."""
    ends = [end for s in scores for end in (s.value, s.low, s.high) if end is not None]
    low, high = min(0.0, *ends), max(ends)
    if metric(key).bounded or key.rsplit("/", 1)[-1] in ("r2", "mcc", "kappa"):
        high = max(1.0, high)
    elif high > 0:
        high *= 1.06
    span = (high - low) or 1.0
    return lambda value: round(100 * (value - low) / span, 2)


def errors(reading: Reading, sheet: Sheet) -> dict[str, Any]:
    """The worst cases, the plots of the task, and the tables where a plot would not fit."""
    found: dict[str, Any] = {"figures": [], "cases": [], "tables": []}
    try:
        rows = mistakes.cases(reading)
        plans = mistakes.drawn(reading)
        counts = mistakes.matrix(reading)
    except (ValueError, IndexError) as error:
        sheet.notes.append(f"Errors are left out: {error}.")
        return found
    if reading.image:
        found["cases"] = rows
    else:
        found["tables"] += [table] if (table := mistakes.case_table(reading, rows)) else []
    if counts is not None and len(counts) > mistakes.DRAWN:
        found["tables"].append(mistakes.confused(counts, reading.classes(len(counts))))
    if reading.task == "multilabel":
        found["tables"] += [table] if (table := mistakes.labels(reading)) else []
    made = [sheet.draw(*plan) for plan in plans]
    found["figures"] = [one for one in made if one]
    return found


def cell(value: Any) -> str:
    """A value of a table or setting as text."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.6g}".replace("e-0", "e-")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def tables(reading: Reading) -> list[dict[str, Any]]:
    """The tables that the topic adds; columns of text stand left, numbers right."""
    found = []
    for table in reading.run.get("tables") or []:
        if isinstance(table, dict) and table.get("columns"):
            rows = [list(row) for row in table.get("rows") or []][:200]
            text = 0
            while text < len(table["columns"]) and any(
                isinstance(r[text], str) for r in rows if text < len(r)
            ):
                text += 1
            words = {name: str(table.get(name) or "") for name in ("title", "caption")}
            found.append({
                **words, "columns": [str(name) for name in table["columns"]], "text": text,
                "rows": [[cell(value) for value in row] for row in rows],
            })  # fmt: skip
    return found


def facts(reading: Reading) -> dict[str, Any]:
    """Settings, versions and what the model is."""
    run, model = reading.run, reading.run.get("model") or {}
    optimizer = run.get("optimizer") or {}
    made = {"objective": run.get("objective"), "optimizer": optimizer.get("name")}
    made |= {name: run.get(name) for name in ("seed", "device", "threads")}
    made |= {f"optimizer {k}": v for k, v in optimizer.items() if k != "name"}
    text = str(model.get("text") or "")
    return {
        "settings": {str(k): cell(v) for k, v in (run.get("settings") or {}).items()},
        "method": {k: cell(v) for k, v in made.items() if v is not None},
        "versions": {str(k): cell(v) for k, v in (run.get("versions") or {}).items()},
        "model": text if len(text) <= 6000 else text[:6000] + "\n…",
    }
