"""The card: a head that parses back, numbers of the run, nothing a name could break."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deepweave import report
from deepweave.report.card import yaml


def parse(text: str) -> Any:
    """The block mappings, block lists and JSON scalars of YAML, strictly."""
    lines = [((len(raw) - len(raw.lstrip())), raw.lstrip()) for raw in text.split("\n") if raw]

    def block(indent: int) -> Any:
        if lines[0][1].startswith("- "):
            found: list[Any] = []
            while lines and lines[0][0] == indent and lines[0][1].startswith("- "):
                lines[0] = (indent + 2, lines[0][1][2:])
                found.append(value(indent + 2))
            return found
        named: dict[str, Any] = {}
        while lines and lines[0][0] == indent and not lines[0][1].startswith("- "):
            name, rest = lines[0][1].split(":", 1)
            if rest:
                lines.pop(0)
                named[name] = json.loads(rest)
            else:
                lines.pop(0)
                named[name] = block(lines[0][0])
        return named

    def value(indent: int) -> Any:
        try:
            found = json.loads(lines[0][1])
        except ValueError:
            return block(indent)
        lines.pop(0)
        return found

    result = block(0)
    assert not lines
    return result


def head(text: str) -> dict[str, Any]:
    start, body = text.split("---\n", 2)[1:]
    assert body.startswith("\n# ")
    return parse(start)


@pytest.mark.parametrize(
    "value",
    [
        {"a": "x: y # no", "b": [1, 2.5, None, True, "- z"], "c": {"d": {"e": "\u00e9\U0001f600"}}},
        {"list": [{"a": 1, "b": [{"c": "d"}]}, {"a": 2}], "empty": [], "none": {}},
    ],
)
def test_yaml_parses_back(value: dict[str, Any]) -> None:
    assert parse(yaml(value)) == value


@pytest.mark.parametrize(
    "task", ["multiclass", "binary", "regression", "multilabel", "segmentation"]
)
def test_card_holds_the_run(task: str, runs: dict[str, Path]) -> None:
    run = json.loads((runs[task] / "run.json").read_text())
    path = report.card(runs[task])
    assert path == runs[task] / "card.md"
    text = path.read_text()
    found = head(text)
    assert found["library_name"] == "deepweave"
    assert found["datasets"] == [run["data"]["name"]]
    result = found["model-index"][0]["results"][0]
    measured = {row["type"]: row["value"] for row in result["metrics"]}
    assert measured == {k.removeprefix("test/"): v["value"] for k, v in run["scores"].items()}
    assert found["metrics"] == list(measured)
    assert result["dataset"]["revision"] == run["data"]["fingerprint"]
    for part in (
        "Description",
        "Intended use",
        "Data",
        "Training",
        "Evaluation",
        "Limits",
        "How to use",
    ):
        assert f"\n## {part}\n" in text
    assert run["command"] in text
    rows = [line for line in text.split("## Evaluation")[1].split("\n") if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert len(rows) == 2 + len(run["scores"])


def test_hostile_names_stay_text(copy: Callable[..., Path]) -> None:
    evil = '<script>x</script> | *a* "\n---\nlicense: mit'
    folder = copy("binary", title=evil, recipe=evil, question=evil, settings={evil: evil})
    text = report.card(folder).read_text()
    body = re.sub(r"`[^`\n]*`", "", text.split("---\n", 2)[2])  # code stands as it is
    assert "<script" not in body
    assert head(text)["tags"][1] == evil.replace("\n", " ")
    assert head(text)["license"] == "other"
    assert text.split("\n").count("---") == 2


def test_a_card_of_the_barest_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"format": "deepweave run 1"}')
    assert "model-index" not in head(report.card(tmp_path).read_text())
