"""The pages: code blocks run, included code is current, links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")


@pytest.mark.parametrize(
    "path",
    [p for p in PAGES if BLOCK.search(p.read_text())],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_code_blocks_run(path, tmp_path, monkeypatch, capsys):
    """All python blocks of a page, in order, in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__page__"}
    for i, block in enumerate(BLOCK.findall(path.read_text())):
        exec(compile(block, f"{path.name}, block {i + 1}", "exec"), names)


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links(path):
    text = re.sub(
        r"^```.*?^```|^    .*?$|`[^`]*`", "", path.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    for target, _ in LINK.findall(text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name}: there is no {target}"


def test_included_code_is_current():
    spec = importlib.util.spec_from_file_location("include", ROOT / "docs" / "include.py")
    assert spec is not None
    assert spec.loader is not None
    include = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(include)
    for path, text in include.pages().items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)} is out of date: make docs"
