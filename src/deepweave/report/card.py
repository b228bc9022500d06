"""The model card of a run, in the format of the model hub: a YAML head, then Markdown."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepweave.report.page import headline
from deepweave.report.reading import Reading, read
from deepweave.report.sections import cell, course, score_table
from deepweave.report.style import plain
from deepweave.report.words import number, storage
from deepweave.run import write_whole

_PIPELINES = {
    ("binary", "table"): "tabular-classification",
    ("multiclass", "table"): "tabular-classification",
    ("multilabel", "table"): "tabular-classification",
    ("regression", "table"): "tabular-regression",
    ("binary", "image"): "image-classification",
    ("multiclass", "image"): "image-classification",
    ("multilabel", "image"): "image-classification",
    ("segmentation", "image"): "image-segmentation",
}


class Raw(str):
    """Text that stands in the card as it is; everything else is escaped for Markdown."""

    __slots__ = ()


def card(folder: str | os.PathLike[str]) -> Path:
    """Write ``card.md`` of a run's folder, whole, and give its path.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no ``run.json``.
        ValueError: ``run.json`` is broken, or was written by a newer deepweave.

    Source: Mitchell and others, Model Cards for Model Reporting, 2019.
    """
    import jinja2

    reading = read(folder)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, autoescape=False, finalize=markdown,
    )  # fmt: skip
    text = environment.get_template("card.md").render(**_context(reading))
    return write_whole(reading.folder / "card.md", text.rstrip() + "\n")


def markdown(value: Any) -> str:
    """A value as plain Markdown text: no HTML, table bars or emphasis can come of it.

    >>> markdown("<b>a|b*")
    '&lt;b&gt;a\\\\|b\\\\*'
    """
    if isinstance(value, Raw):
        return str(value)
    text = plain(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", text)


def yaml(value: Any, indent: int = 0) -> str:
    """Mappings, lists and scalars as YAML; every string in JSON's quotes, which YAML reads.

    >>> print(yaml({"tags": ["a: b", 1], "rest": {}}))
    tags:
    - "a: b"
    - 1
    rest: {}
    """
    pad = " " * indent
    if isinstance(value, Mapping) and value:
        lines = []
        for name, inner in value.items():
            nested = isinstance(inner, Mapping | list) and bool(inner)
            step = indent + 2 if isinstance(inner, Mapping) else indent
            body = "\n" + yaml(inner, step) if nested else " " + yaml(inner)
            lines.append(f"{pad}{name}:{body}")
        return "\n".join(lines)
    if isinstance(value, list) and value:
        return "\n".join(f"{pad}- {yaml(inner, indent + 2).lstrip()}" for inner in value)
    if isinstance(value, str):
        return json.dumps(plain(value), ensure_ascii=False)
    return json.dumps(value)


def head(reading: Reading) -> dict[str, Any]:
    """The metadata of the card, as the hub names it."""
    run, data, task = reading.run, reading.data, reading.task
    kind = "image" if reading.image else "table"
    pipeline = _PIPELINES.get((task, kind), "other")
    name = str(data.get("name") or reading.data_title)
    scores = {k: s for k, s in reading.scores().items() if k.startswith("test/")}
    measured = [
        {"type": key.removeprefix("test/"), "value": score.value, "name": row["label"]}
        for key, score in scores.items()
        for row in score_table(reading)["rows"]
        if row["key"] == key
    ]
    found: dict[str, Any] = {
        "license": str(run.get("license") or "other"),
        "library_name": "deepweave",
        "pipeline_tag": pipeline,
        "tags": [t for t in ("deepweave", str(run.get("recipe") or ""), task) if t],
        "datasets": [name],
        "metrics": [key.removeprefix("test/") for key in scores],
    }
    if pipeline == "other":
        del found["pipeline_tag"]
    if not measured:
        return found
    dataset = {"type": name, "name": reading.data_title, "split": "test"}
    if reading.fingerprint:
        dataset["revision"] = reading.fingerprint
    result = {"task": {"type": pipeline}, "dataset": dataset, "metrics": measured}
    return found | {
        "model-index": [{"name": str(run.get("recipe") or "model"), "results": [result]}]
    }


def _context(reading: Reading) -> dict[str, Any]:
    run, data, spec = reading.run, reading.data, reading.spec
    model, said = run.get("model") or {}, headline(reading)
    sentence = ""
    if said["score"]:
        what = [said["score"], said["interval"], said["what"]]
        what = what if said["phrase"] == "after" else [what[2], *what[:2]]
        base = f", baseline {said['baseline']}" if said["baseline"] else ""
        sentence = " ".join(part for part in what if part) + base + "."
    outputs = [str(name) for name in spec.get("classes") or spec.get("targets") or ()]
    listed = ", ".join(outputs[:20]) + (
        f" and {len(outputs) - 20} more" if len(outputs) > 20 else ""
    )
    table = score_table(reading)
    fence = "`"
    return {
        "head": Raw(yaml(head(reading))),
        "title": reading.title,
        "sentence": sentence,
        "question": run.get("question") or "",
        "recipe": Raw(plain(run.get("recipe") or "").replace(fence, "'")),
        "parameters": number(model.get("parameters"), 9),
        "size": storage(model.get("bytes")),
        "task": reading.task or "not stated",
        "input": "×".join(str(n) for n in spec.get("shape") or ()) or "not stated",
        "output": (listed or "not stated") + (f" ({reading.unit})" if reading.unit else ""),
        "data_title": reading.data_title,
        "source": data.get("source") or "",
        "licence": data.get("licence") or "",
        "splits": [(n, f"{int(c):,}") for n, c in (data.get("splits") or {}).items()],
        "preparation": data.get("preparation") or [],
        "fingerprint": Raw(plain(reading.fingerprint).replace(fence, "'")),
        "course": course(reading),
        "advice": [str(line) for line in run.get("advice") or ()],
        "settings": [(n, cell(v)) for n, v in (run.get("settings") or {}).items()],
        "rows": table["rows"],
        "baseline_name": table["baseline"],
        "rivals": table["rivals"],
        "limits": _limits(reading),
        "folder": Raw(json.dumps(plain(reading.folder.resolve().name))[1:-1]),
        "command": Raw(plain(run.get("command") or "").replace("```", "'''")),
    }


def _limits(reading: Reading) -> list[str]:
    count = (reading.data.get("splits") or {}).get("test")
    lines = (
        [f"The scores come from {int(count):,} test samples of one split and one seed."]
        if count
        else []
    )
    main, base = reading.main(), reading.scores("baseline")
    if main and main in base:
        score, low = reading.scores()[main], base[main].value
        ends = [end for end in (score.low, score.high) if end is not None]
        if ends and min(ends) <= low <= max(ends):
            lines.append("The baseline lies within the interval of the main score.")
    counts = list(((reading.data.get("class_counts") or {}).get("train")) or [])
    if counts and min(counts) * 5 < max(counts):
        lines.append(
            f"The classes are uneven: from {min(counts):,} to {max(counts):,} training samples."
        )
    return [*lines, "Nothing is known of its answers on data of another kind or origin."]
