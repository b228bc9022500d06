"""A photograph of one's own: what is said of it, and which files are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from deepweave import cli, recipes

pytestmark = pytest.mark.long


def test_one_photograph_has_no_interval(tmp_path, capsys):
    place = np.linspace(0, 255, 90, dtype=np.uint8)
    Image.fromarray(np.tile(place, (80, 1))).save(tmp_path / "photo.png")
    out = tmp_path / "run"
    run = recipes.find("heat")(str(tmp_path / "photo.png"), quick=True, out=out)
    info = json.loads((out / "run.json").read_text())
    assert info["title"] == "Heat that stops at edges cleans a noisy photograph"
    (table,) = (one for one in info["tables"] if one["title"].startswith("PSNR"))
    assert "One photograph, 1 draw of the noise: there is no interval" in table["caption"]
    assert "Intervals" not in table["caption"]
    assert [row[0] for row in table["rows"]][:2] == ["photograph 1", "Perona-Malik minus Gaussian"]
    assert info["scores"]["test/psnr"]["low"] is None
    capsys.readouterr()
    cli.tell(run)
    assert "[" not in capsys.readouterr().out  # no brackets around nothing


def test_what_is_no_photograph(tmp_path):
    (tmp_path / "no.png").write_text("hello")
    with pytest.raises(ValueError, match=r"heat: .*no\.png is no photograph"):
        recipes.find("heat")(str(tmp_path / "no.png"), quick=True, out=tmp_path / "run")
    Image.new("L", (90, 80)).save(tmp_path / "small.png")
    with pytest.raises(ValueError, match="photograph of 90 x 80 has no square of 256: take a"):
        recipes.find("heat")(str(tmp_path / "small.png"), out=tmp_path / "run")
