"""The page of a run, its model card, and runs side by side.

Recipes draw with `deepweave.report.plots`; a terminal prints `deepweave.report.comparison.table`.
"""

from __future__ import annotations

from deepweave.report import comparison as comparison, plots as plots, studies as studies
from deepweave.report.card import card
from deepweave.report.comparison import compare
from deepweave.report.page import page

__all__ = ["card", "compare", "page"]
