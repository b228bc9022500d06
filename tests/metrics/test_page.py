"""The page on measuring runs from top to bottom, and its table is the measured one."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import torch

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "topics" / "08-measuring.md"


def test_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    assert len(blocks) >= 9
    state = torch.get_rng_state()
    space: dict = {}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            for block in blocks:
                exec(compile(block, str(PAGE), "exec"), space)
    finally:
        torch.set_rng_state(state)
    assert "baseline" in printed.getvalue()


def test_the_table_is_the_measured_one():
    saved = json.loads((ROOT / "benchmarks" / "results" / "metrics.json").read_text())
    text = PAGE.read_text()
    for result in saved["results"].values():
        for who, row in result["times"].items():
            ratio = f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})"
            assert any(who in line and ratio in line for line in text.splitlines()), (who, ratio)
