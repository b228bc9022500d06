"""Metrics beside torchmetrics and scikit-learn: the same numbers, and how long they take.

Run from the root of the project, with one thread, in an environment that has both peers:

    OMP_NUM_THREADS=1 python -m benchmarks.speed.metrics          measure and save
    python -m benchmarks.speed.metrics --docs                     write the saved table to the page
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import RESULTS, compare, save
from deepweave import metrics
from deepweave.metrics import rates

COMMAND = "OMP_NUM_THREADS=1 python -m benchmarks.speed.metrics"
PAGE = Path(__file__).parents[2] / "docs" / "topics" / "08-measuring.md"
TITLES = {
    "auc_1e6": "AUC of 1,000,000 float32 scores",
    "auc_1e6_float64": "AUC of 1,000,000 float64 scores",
    "auc_interval_1e5": "AUC of 100,000 scores with a 95 % interval",
    "update_128x10": "One update, 128 x 10 probabilities: accuracy, precision, recall, F1",
    "epoch_100x128x10": "100 updates and the result, 128 x 10",
}


def scores(n: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with a fair amount of skill, and their labels."""
    g = torch.Generator().manual_seed(0)
    label = (torch.rand(n, generator=g) < 0.3).long()
    score = (label + 1.4 * torch.randn(n, generator=g, dtype=torch.float64)).sigmoid()
    return score.to(dtype), label


def agree(contenders: dict[str, Callable[[], Any]], tolerance: float) -> dict[str, float]:
    """Each contender's number; an error if one is far from ours."""
    found = {name: float(call()) for name, call in contenders.items()}
    ours = found["deepweave"]
    for name, value in found.items():
        if abs(value - ours) > tolerance:
            raise ValueError(f"{name} says {value}, deepweave {ours}: not the same work")
    return found


def areas(dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    from sklearn.metrics import roc_auc_score
    from torchmetrics.functional.classification import binary_auroc

    s, y = scores(1_000_000, dtype)
    sn, yn = s.numpy(), y.numpy()
    contenders: dict[str, Callable[[], Any]] = {
        "deepweave": lambda: metrics.auc(s, y, confidence=None),
        "deepweave, with DeLong's interval": lambda: metrics.auc(s, y),
        "torchmetrics": lambda: binary_auroc(s, y),
        "torchmetrics, validate_args=False": lambda: binary_auroc(s, y, validate_args=False),
        "scikit-learn": lambda: roc_auc_score(yn, sn),
    }
    values = agree(contenders, 1e-6)
    return {"values": values, "times": compare(contenders, rounds=rounds)}


def intervals(rounds: int) -> dict[str, Any]:
    import numpy as np
    from sklearn.metrics import roc_auc_score
    from torchmetrics.classification import BinaryAUROC
    from torchmetrics.wrappers import BootStrapper

    s, y = scores(100_000)
    sn, yn = s.numpy(), y.numpy()
    ends = torch.tensor([0.025, 0.975])

    def torchmetrics() -> torch.Tensor:
        torch.manual_seed(0)
        wrapper = BootStrapper(BinaryAUROC(), num_bootstraps=100, quantile=ends)
        wrapper.update(s, y)
        return wrapper.compute()["quantile"]

    def sklearn() -> Any:
        rng = np.random.default_rng(0)
        draws = (rng.integers(0, len(yn), len(yn)) for _ in range(100))
        return np.quantile([roc_auc_score(yn[i], sn[i]) for i in draws], [0.025, 0.975])

    contenders: dict[str, Callable[[], Any]] = {
        "deepweave": lambda: metrics.auc(s, y),
        "torchmetrics, BootStrapper(100)": torchmetrics,
        "scikit-learn, 100 resamples": sklearn,
    }
    ours = metrics.auc(s, y)
    values = {"deepweave": [ours.low, ours.high]}
    for name in list(contenders)[1:]:
        values[name] = [float(x) for x in contenders[name]()]
        for a, b in zip(values[name], values["deepweave"]):
            if abs(a - b) > 2e-3:
                raise ValueError(f"{name} says {values[name]}, deepweave {values['deepweave']}")
    return {"values": values, "times": compare(contenders, rounds=rounds, warmup=0)}


def updates(rounds: int) -> dict[str, Any]:
    g = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(128, 10, generator=g).softmax(1), torch.randint(10, (128,), generator=g))
        for _ in range(100)
    ]
    p, y = batches[0]

    def theirs(validate: bool, groups: bool) -> Any:
        from torchmetrics import MetricCollection
        from torchmetrics.classification import (
            MulticlassAccuracy,
            MulticlassF1Score,
            MulticlassPrecision,
            MulticlassRecall,
        )

        kinds = (MulticlassAccuracy, MulticlassPrecision, MulticlassRecall, MulticlassF1Score)
        members = [kind(10, average="macro", validate_args=validate) for kind in kinds]
        collection = MetricCollection(members, compute_groups=groups)
        collection.update(p, y)  # the groups are found in the first update
        return collection

    ours, stream = metrics.Confusion(10), metrics.Stream("multiclass", 10, ranking=False)
    variants = {
        "torchmetrics, collection": theirs(True, True),
        "torchmetrics, collection, validate_args=False": theirs(False, True),
        "torchmetrics, collection, no compute groups": theirs(True, False),
        "torchmetrics, no compute groups, validate_args=False": theirs(False, False),
    }
    contenders: dict[str, Callable[[], Any]] = {"deepweave": lambda: ours.update(p, y)}
    for name, collection in variants.items():
        contenders[name] = lambda collection=collection: collection.update(p, y)
    contenders["deepweave, all of evaluate but AUC"] = lambda: stream.update(p, y)
    update = compare(contenders, rounds=rounds, repeats=200)

    def epoch() -> Any:
        tally = metrics.Confusion(10)
        for q, t in batches:
            tally.update(q, t)
        return tally.accuracy(), [tally.rate(rate, "macro") for rate in RATES]

    def theirs_epoch(collection: Any) -> Any:
        collection.reset()
        for q, t in batches:
            collection.update(q, t)
        return collection.compute()

    whole: dict[str, Callable[[], Any]] = {"deepweave": epoch}
    for name in list(variants)[:2]:
        whole[name] = lambda c=variants[name]: theirs_epoch(c)
    ours_f1, theirs_f1 = float(epoch()[1][2]), theirs_epoch(variants["torchmetrics, collection"])
    values = {"deepweave": ours_f1, "torchmetrics": float(theirs_f1["MulticlassF1Score"])}
    if abs(values["deepweave"] - values["torchmetrics"]) > 1e-6:
        raise ValueError(f"F1 differs: {values}")
    return {
        "update_128x10": {"values": values, "times": update},
        "epoch_100x128x10": {"values": values, "times": compare(whole, rounds=rounds, repeats=2)},
    }


RATES = (rates.PRECISION, rates.RECALL, rates.F1)


def measure(rounds: int) -> Path:
    """Run everything and save benchmarks/results/metrics.json."""
    torch.set_num_threads(1)
    results = {
        "auc_1e6": areas(torch.float32, rounds),
        "auc_1e6_float64": areas(torch.float64, rounds),
        "auc_interval_1e5": intervals(max(rounds // 2, 3)),
        **updates(rounds),
    }
    return save("metrics", results, command=COMMAND)


def tables() -> str:
    """The saved results as Markdown."""
    saved = json.loads((RESULTS / "metrics.json").read_text())
    m = saved["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in m["versions"].items())
    rows = [
        f"{m['cpu']}, {m['threads']} thread, Python {m['python']}, {versions}; commit "
        f"{m['commit'] or 'none yet'}, {m['date']}. A ratio above 1 means that deepweave is faster;"
        " median and quartiles over alternating rounds.",
        "",
    ]
    for key, title in TITLES.items():
        rows += [f"| {title} | time | ratio to deepweave (quartiles) |", "|---|---:|---:|"]
        for who, row in saved["results"][key]["times"].items():
            unit, scale = ("us", 1e6) if row["seconds"] < 1e-3 else ("ms", 1e3)
            ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
            rows.append(f"| {who} | {row['seconds'] * scale:,.3g} {unit} | {ratio} |")
        rows.append("")
    return "\n".join(rows)


def write_page() -> None:
    """Put the tables between the marks of the page."""
    marks = r"(<!-- benchmark -->\n).*?(<!-- end of benchmark -->)"
    text = PAGE.read_text()
    PAGE.write_text(re.sub(marks, lambda m: m[1] + tables() + m[2], text, flags=re.DOTALL))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--docs", action="store_true")
    chosen = parser.parse_args()
    print(tables() if chosen.docs else measure(chosen.rounds))
    if chosen.docs:
        write_page()
