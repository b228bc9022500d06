"""The page: whole, self-contained, readable without sight, true to run.json, safe, complete."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from deepweave import report
from deepweave.report import plots
from deepweave.report.words import amount, interval, metric, scores_of

VOID = {"meta", "link", "img", "br", "hr", "input"}
TASKS = ("multiclass", "binary", "regression", "multilabel", "segmentation")


class Strict(HTMLParser):
    """Fails on a tag closed out of order; keeps the tags, the text and what lacks words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag, f"</{tag}> closes nothing at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] != "style":
            self.words += data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def check(text: str) -> Strict:
    """What every page must hold."""
    seen = Strict(text)
    assert len(text.encode()) <= 2_000_000
    assert not seen.all("script")
    for tag, attrs in seen.tags:
        assert not [name for name in attrs if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"data:|#|$", attrs.get(name, "")), (tag, attrs[name])
        assert "http" not in attrs.get("style", "")
        if tag == "img":
            assert attrs["alt"].strip()
        if tag == "svg":
            assert attrs["role"] == "img"
            assert attrs["aria-label"].strip()
    assert not re.search(r"@import|url\((?!#)", text)
    ids = [attrs["id"] for _, attrs in seen.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    asked = set(re.findall(r"url\(#([^)]+)\)", text))
    asked |= {a["href"][1:] for _, a in seen.tags if a.get("href", "").startswith("#")}
    assert asked <= set(ids)
    return seen


@pytest.fixture(scope="module")
def pages(runs: dict[str, Path]) -> dict[str, str]:
    made = {task: report.page(runs[task]) for task in TASKS}
    assert all(path == runs[task] / "report.html" for task, path in made.items())
    return {task: path.read_text() for task, path in made.items()}


@pytest.mark.parametrize("task", TASKS)
def test_page_is_whole_and_self_contained(task: str, pages: dict[str, str]) -> None:
    seen = check(pages[task])
    assert "Notes on this page" not in seen.words
    sections = {attrs.get("id") for attrs in seen.all("section")}
    assert sections >= {"data", "training", "scores", "errors", "settings", "repeat"}
    assert len(seen.all("h1")) == 1


@pytest.mark.parametrize("task", TASKS)
def test_numbers_equal_those_of_the_run(
    task: str, pages: dict[str, str], runs: dict[str, Path]
) -> None:
    run = json.loads((runs[task] / "run.json").read_text())
    seen = Strict(pages[task])
    values = {attrs["value"] for attrs in seen.all("data")}
    for key, score in scores_of(run["scores"]).items():
        assert repr(score.value) in values
        assert amount(key, score.value, run["data"]["spec"]["unit"]) in seen.words
        assert interval(key, score) in seen.words
        assert metric(key).label in seen.words
    for key, base in scores_of(run["baseline"]).items():
        assert amount(key, base.value, run["data"]["spec"]["unit"]) in seen.words
    assert run["command"] in seen.words
    assert f"{run['model']['parameters']:,}" in seen.words


def test_title_is_a_sentence(pages: dict[str, str], runs: dict[str, Path]) -> None:
    score = json.loads((runs["multiclass"] / "run.json").read_text())["scores"]["test/accuracy"]
    heading = re.findall(r"<h1>(.*?)</h1>", pages["multiclass"])[0]
    words = re.sub(r"<[^>]+>", "", heading).replace("\u00a0", " ")
    value, low, high = (f"{100 * score[name]:.1f}" for name in ("value", "low", "high"))
    start = f"A deep network reads handwritten digits: {value} % [{low}, {high}] right, baseline "
    assert words.startswith(start)


def test_drawn_intervals_stand_where_the_numbers_are(
    pages: dict[str, str], runs: dict[str, Path]
) -> None:
    score = json.loads((runs["binary"] / "run.json").read_text())["scores"]["test/accuracy"]
    found = re.findall(r'class="bar" style="left:([\d.]+)%;width:([\d.]+)%', pages["binary"])
    left, width = map(float, found[0])
    assert left == pytest.approx(100 * score["low"], abs=0.02)
    assert left + width == pytest.approx(100 * score["high"], abs=0.03)


def test_worst_cases_say_what_was_said_and_true(
    pages: dict[str, str], runs: dict[str, Path]
) -> None:
    test = load_file(runs["multiclass"] / "test.safetensors")
    at = int(load_file(runs["multiclass"] / "examples.safetensors")["worst_index"][0])
    said = test["prediction"][at]
    sure = f"{100 * said.max():.0f}\u00a0%"
    words = f"test sample {at}: said {said.argmax()} ({sure}), true {test['target'][at]}"
    assert words in [attrs["alt"] for attrs in Strict(pages["multiclass"]).all("img")]


def test_same_folder_gives_the_same_bytes(runs: dict[str, Path], pages: dict[str, str]) -> None:
    assert report.page(runs["multiclass"]).read_text() == pages["multiclass"]


def test_light_dark_phone_and_print_are_provided_for(pages: dict[str, str]) -> None:
    for words in ("prefers-color-scheme:dark", "max-width:700px", "@media print"):
        assert words in pages["binary"]
    assert "var(--series-1, #0072b2)" in pages["binary"]
    drawn = "".join(re.findall(r"<svg.*?</svg>", pages["binary"], re.S))
    assert not re.findall(r"(?<!, )#[0-9a-f]{6}\b", drawn)  # no tone that stays when it is dark
    assert "default-src 'none'" in pages["binary"]


def test_figure_text_is_at_least_nine_pixels_on_a_phone(pages: dict[str, str]) -> None:
    for text in pages.values():
        for attrs in Strict(text).all("svg"):
            width = float(attrs["viewbox"].split()[2])
            assert 328 / width * float(attrs["data-text"]) >= 9 or width > 440


def test_hostile_names_stay_text(copy: Callable[..., Path]) -> None:
    folder = copy("multiclass")
    run = json.loads((folder / "run.json").read_text())
    evil = "<script>alert(1)</script>\"'>&\x00$\\frac{"
    run["data"]["spec"]["classes"][3] = evil
    run["data"]["title"] = run["title"] = run["question"] = run["command"] = evil
    run["settings"] = {evil: evil}
    run["advice"] = run["data"]["preparation"] = [evil]
    run["rivals"] = {evil: run["scores"]}
    run["tables"] = [
        {"title": evil, "columns": [evil, evil], "rows": [[evil, 1.5]], "caption": evil}
    ]
    (folder / "run.json").write_text(json.dumps(run))
    text = report.page(folder).read_text()
    seen = check(text)
    assert "<script" not in text.lower()
    assert "<script>alert(1)</script>" in seen.words


FIGURE = """<?xml version="1.0"?><!DOCTYPE svg>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 99 50" onload="alert(1)">
<script>alert(1)</script><style>@import "https://far.example/a.css";</style>
<defs><clipPath id="a"><path d="M0 0"/></clipPath></defs>
<g clip-path="url(#a)"><a href="https://far.example"><text>x</text></a>
<image href="https://far.example/x.png"/><rect fill="url(https://far.example/p)"/>
<text font-size="9px">kept</text></g></svg>"""


def test_figures_of_the_topic_are_shown_and_washed(copy: Callable[..., Path]) -> None:
    entries = [{"file": f"figures/{i}.svg", "title": f"Figure {i}", "caption": "c"} for i in (1, 2)]
    folder = copy("binary", figures=[*entries, {"file": "figures/gone.svg"}, {"file": "../x.svg"}])
    (folder / "figures").mkdir()
    for i in (1, 2):
        (folder / f"figures/{i}.svg").write_text(FIGURE)
    (folder.parent / "x.svg").write_text(FIGURE)
    seen = check(report.page(folder).read_text())
    assert seen.words.count("kept") == 2
    assert "The figure figures/gone.svg is not in the folder" in seen.words
    assert "The figure ../x.svg is not in the folder" in seen.words


def test_picture_names_a_figure(copy: Callable[..., Path]) -> None:
    folder = copy("binary", figures=[{"file": "1.svg", "title": "The lead"}], picture="1.svg")
    (folder / "1.svg").write_text(FIGURE)
    text = report.page(folder).read_text()
    check(text)
    assert text.index("kept") < text.index("<nav")
    assert 'id="topic"' not in text


def test_large_figures_give_way(copy: Callable[..., Path]) -> None:
    folder = copy("binary", figures=[{"file": "1.svg", "title": "Endless"}])
    path = "M 0 0 " + "L 1.234567 9.876543 " * 100_000
    (folder / "1.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg"><path d="{path}"/></svg>'
    )
    seen = check(report.page(folder).read_text())
    assert "“Endless” is too large for the page" in seen.words


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("gone", ["log.jsonl", "test.safetensors", "examples.safetensors", "all"])
def test_page_does_without_what_is_missing(task: str, gone: str, copy: Callable[..., Path]) -> None:
    folder = copy(task)
    for name in ("log.jsonl", "test.safetensors", "examples.safetensors"):
        if gone in (name, "all"):
            (folder / name).unlink()
    assert "Scores" in check(report.page(folder).read_text()).words


def test_the_barest_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": "deepweave run 1"}')
    check(report.page(tmp_path).read_text())


@pytest.mark.parametrize("status", ["running", "failed"])
def test_unfinished_runs_say_so(status: str, copy: Callable[..., Path]) -> None:
    folder = copy("binary", status=status, scores={}, seconds=None)
    assert "not finish" in check(report.page(folder).read_text()).words


def test_many_classes_give_pairs_instead_of_a_matrix(copy: Callable[..., Path]) -> None:
    folder, rng = copy("multiclass"), np.random.default_rng(0)
    run = json.loads((folder / "run.json").read_text())
    run["data"]["spec"]["classes"] = [f"kind {i}" for i in range(100)]
    (folder / "run.json").write_text(json.dumps(run))
    target = rng.integers(0, 100, 500)
    prediction = np.full((500, 100), 0.001, np.float32)
    prediction[np.arange(500), np.where(target == 7, 8, target)] = 0.901
    save_file({"prediction": prediction, "target": target}, folder / "test.safetensors")
    (folder / "examples.safetensors").unlink()
    seen = check(report.page(folder).read_text())
    assert "The most confused pairs of 100 classes." in seen.words
    assert re.search(r"kind 7\s*kind 8\s*" + str(int((target == 7).sum())), seen.words)


def test_predictions_that_do_not_fit_are_noted(copy: Callable[..., Path]) -> None:
    folder = copy("multiclass")
    save_file({"prediction": np.ones((5, 10), np.float32), "target": np.ones(4, np.int64)},
              folder / "test.safetensors")  # fmt: skip
    words = check(report.page(folder).read_text()).words
    assert "it needs prediction and target of one length" in words


def test_one_class_in_the_test_set_is_noted_not_fatal(copy: Callable[..., Path]) -> None:
    folder = copy("binary")
    save_file({"prediction": np.full(9, 0.7, np.float32), "target": np.ones(9, np.int64)},
              folder / "test.safetensors")  # fmt: skip
    words = check(report.page(folder).read_text()).words
    assert "“ROC” could not be drawn: plots.roc: target holds one class only" in words


def test_wide_figures_scroll_in_their_frame(copy: Callable[..., Path]) -> None:
    folder = copy("binary", figures=[{"file": "1.svg", "title": "Wide"}])
    names = [f"class number {i}" for i in range(20)]
    (folder / "1.svg").write_text(plots.confusion(np.eye(20) * 3, names))
    text = report.page(folder).read_text()
    check(text)
    start = r'class="plot wide">\s*<h3>Wide</h3>\s*<div class="frame" tabindex="0">'
    assert re.search(start + '<div style="min-width:[0-9]+px">', text)


def test_test_samples_lead_when_the_run_keeps_them(copy: Callable[..., Path]) -> None:
    folder = copy("multiclass")
    found = load_file(folder / "examples.safetensors")
    more = {f"test_{name}": found[f"worst_{name}"][:10].copy() for name in ("x", "y", "prediction")}
    save_file(found | more, folder / "examples.safetensors")
    text = report.page(folder).read_text()
    check(text)
    assert "Test samples and what the model said of them." in text
