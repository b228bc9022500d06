"""The recipes of topics 10a and 14 on other data, and what they must show."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from deepweave import recipes

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_a_folder_of_colour_images(name, tmp_path, capsys):
    random = np.random.default_rng(0)
    for label in ("dark", "light"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(30):
            pixels = random.integers(0, 150, (12, 10, 3)) + 100 * (label == "light")
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"pets/{label}/{i}.png")
    run = recipes.find(name)(str(tmp_path / "pets"), quick=True, out=tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["data"]["spec"]["shape"] == [3, 12, 10]
    assert len(run.info["rivals"]) == 1


def test_cnn_shows_its_layers(tmp_path, capsys):
    run = recipes.find("cnn")(quick=True, widths=(4, 6), out=tmp_path / "run")
    files = [figure["file"] for figure in run.info["figures"]]
    assert files == ["figures/filters.svg", "figures/maps.svg", "figures/field.svg"]
    rows = run.info["tables"][0]["rows"]
    seen = [row[4] for row in rows if row[0] == "Convolution2d"]
    assert seen == ["3 x 3", "8 x 8"]
    counts = [info["model"]["parameters"] for info in _infos(tmp_path / "run")]
    assert counts[1] == pytest.approx(counts[0], rel=0.1), "as many weights in both"


def _infos(folder):
    return [json.loads((folder / part / "run.json").read_text()) for part in ("", "dense")]


def test_cnn_learns_digits_better_than_a_dense_net_of_its_size(tmp_path, capsys):
    run = recipes.find("cnn")(epochs=15, out=tmp_path / "run")
    assert run.info["scores"]["test/accuracy"]["value"] > 0.96


def test_resnet_proves_its_point(tmp_path, capsys):
    run = recipes.find("resnet")(
        "digits", epochs=1, samples=300, depth=32, rates=(0.03,), study_epochs=3,
        out=tmp_path / "run",
    )  # fmt: skip
    rows = {row[0]: row for row in run.info["tables"][0]["rows"]}
    assert list(rows) == ["residual, 8", "plain, 8", "residual, 32", "plain, 32"]
    losses = {name: float(row[2]) for name, row in rows.items()}
    assert losses["residual, 32"] < 0.5 * losses["plain, 32"]
    slopes = {name: float(row[4]) for name, row in rows.items()}
    assert slopes["plain, 32"] > 5 * slopes["residual, 32"]


@pytest.mark.parametrize("name", ["cnn", "resnet"])
def test_what_is_no_image_is_refused(name, tmp_path, capsys):
    with pytest.raises(ValueError, match=f"{name}: needs labelled images, iris is multiclass"):
        recipes.find(name)("iris", quick=True, out=tmp_path / "run")


def test_depths_that_there_are_not(tmp_path):
    with pytest.raises(ValueError, match=r"depth must be 6 n \+ 2 and at least 14, got 15"):
        recipes.find("resnet")(depth=15, out=tmp_path / "run")
