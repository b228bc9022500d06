"""The page of a run: one file that opens anywhere and answers from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deepweave.report import mistakes, sections
from deepweave.report.reading import Reading, read
from deepweave.report.sheet import LIMIT, Sheet
from deepweave.report.style import plain
from deepweave.report.words import amount, duration, interval, metric, moment, number, storage
from deepweave.run import write_whole

_PHRASES = {"accuracy": "right", "pixel_accuracy": "of the pixels right"}


def page(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` of a run's folder, whole, and give its path.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no ``run.json``.
        ValueError: ``run.json`` is broken, or was written by a newer deepweave.
    """
    reading = read(folder)
    text = ""
    for room in (LIMIT - 400_000, 300_000, 0):  # figures give way if all else is very long
        text = render("page.html", **_context(reading, Sheet(room)))
        if len(text.encode()) <= LIMIT:
            break
    return write_whole(reading.folder / "report.html", text)


def render(template: str, **context: Any) -> str:
    """A template of this folder filled in; every value is escaped."""
    import jinja2
    from markupsafe import Markup

    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = Markup((here / "page.css").read_text())
    return environment.get_template(template).render(style=style, plain=plain, **context)


def _context(reading: Reading, sheet: Sheet) -> dict[str, Any]:
    run = reading.run
    training = sections.training(reading, sheet)
    errors = sections.errors(reading, sheet)
    extras = [
        (
            f,
            sheet.figure(
                f["svg"], f["title"], f["caption"], f["alt"] or f["caption"] or f["title"]
            ),
        )
        for f in reading.figures
    ]
    picture, kept = _picture(reading, errors, training, extras)
    return {
        "reading": reading,
        "run": run,
        "started": moment(run.get("started")),
        "headline": headline(reading),
        "figures": _figures(reading),
        "picture": picture,
        "data": sections.data(reading, sheet),
        "training": training,
        "scores": sections.score_table(reading),
        "errors": errors,
        "extras": kept,
        "tables": sections.tables(reading),
        "facts": sections.facts(reading),
        "notes": reading.notes + sheet.notes,
    }


def headline(reading: Reading) -> dict[str, str]:
    """The title as a sentence: what, how good, in which interval, beside which baseline."""
    key = reading.main()
    said = {
        "title": reading.title,
        "key": key or "",
        "score": "",
        "interval": "",
        "what": "",
        "baseline": "",
    }
    if key is None:
        return said
    score = reading.scores()[key]
    name = key.rsplit("/", 1)[-1]
    base = reading.scores("baseline").get(key)
    return said | {
        "score": amount(key, score.value, reading.unit),
        "value": repr(score.value),
        "interval": interval(key, score),
        "what": _PHRASES.get(name, metric(key).label),
        "phrase": "after" if name in _PHRASES else "before",
        "baseline": amount(key, base.value, reading.unit) if base else "",
    }


def _figures(reading: Reading) -> list[dict[str, str]]:
    run, head = reading.run, headline(reading)
    model = run.get("model") or {}
    below = [f"{number(run['steps'])} steps"] if run.get("steps") else []
    below += (
        [f"{run['device']}, {run['threads']} thread{'s' * (run['threads'] != 1)}"]
        if run.get("device") and run.get("threads")
        else []
    )
    memory = run.get("peak_memory_mb")
    parameters = model.get("parameters")
    found = []
    if head["score"]:
        under = f"baseline {head['baseline']}" if head["baseline"] else ""
        found.append({"name": metric(head["key"]).label, "value": head["score"], "below": under})
    found.append(
        {"name": "Training time", "value": duration(run.get("seconds")), "below": ", ".join(below)}
    )
    found.append({"name": "Parameters", "value": number(parameters, 9), "below": "numbers learned"})
    under = f"{storage(memory * 1e6)} memory at peak" if memory else "on disk"
    return [*found, {"name": "Model size", "value": storage(model.get("bytes")), "below": under}]


def _picture(
    reading: Reading, errors: dict[str, Any], training: dict[str, Any], extras: list[Any]
) -> Any:
    """The picture of the first screen, and the figures of the topic that stay below."""
    wanted = reading.run.get("picture")
    kept = [made for _, made in extras if made]
    for place, (entry, made) in enumerate(extras):
        if made and wanted is not None and wanted in (place, entry["file"], entry["title"]):
            return {"figure": made}, [other for other in kept if other is not made]
    if reading.image:
        # a mask beside its photo and the answer takes a row: three are what a first screen holds
        shown = mistakes.cases(reading, "test", 3 if reading.task == "segmentation" else 10)
        if shown:
            return {
                "cases": shown,
                "caption": "Test samples and what the model said of them.",
            }, kept
        if reading.task == "segmentation" and errors["cases"]:
            return {
                "cases": errors["cases"][:2],
                "caption": "Image, truth, answer: the worst cases.",
            }, kept
        tiles = sections.tiles(reading)
        if tiles:
            words = (
                "One sample of each class, and how many of its test samples were answered right."
            )
            return {"tiles": tiles, "caption": words}, kept
    for group in (errors["figures"], training["figures"]):
        if group:
            return {"figure": group.pop(0)}, kept
    return None, kept
