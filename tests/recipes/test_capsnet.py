"""The recipe of topic 12: pairs that overlap, its pictures, other data, and what it must reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import deepweave as dw
from deepweave import recipes
from deepweave.recipes.capsnet import overlapped


def test_overlapping_pairs():
    x = torch.zeros(6, 1, 4, 4)
    for label in range(3):
        x[label::3] = (label + 1) / 4  # the ink tells the class
    x[:, :, 0] = 0
    split = dw.data.Split(x, torch.arange(6) % 3)
    images, labels = overlapped(split, 500, seed=1)
    again, same = overlapped(split, 500, seed=1)
    assert images.shape == (500, 1, 6, 6)
    assert torch.equal(images, again)
    assert torch.equal(labels, same)
    assert set(labels.unique().tolist()) == {0.0, 1.0}
    count = labels.sum(1)
    assert set(count.unique().tolist()) == {1.0, 2.0}
    assert 0.3 < (count == 2).float().mean() < 0.7  # 3/4 of pairs of which 2/3 are of two classes
    for image, label in zip(images, labels):
        ink = {round(4 * value) - 1 for value in image.unique().tolist() if value}
        there = set(label.nonzero()[:, 0].tolist())
        assert ink <= there
        assert max(there) in ink  # a paler one may lie under it
    alone = images[count == 1].flatten(1)
    assert ((alone > 0).sum(1) == 12).all(), "one that is moved stays whole"


@pytest.mark.long
def test_it_shows_what_capsules_hold(tmp_path, capsys):
    run = recipes.find("capsnet")(quick=True, kinds=4, pairs=120, out=tmp_path / "run")
    files = [figure["file"] for figure in run.info["figures"]]
    assert files[:3] == ["figures/sweep.svg", "figures/remade.svg", "figures/votes.svg"]
    titles = [table["title"] for table in run.info["tables"]]
    assert titles == ["Changed test images", "Two in one image"]
    rival = (tmp_path / "run" / "convolutional" / "run.json").read_text()
    counts = [run.info["model"]["parameters"], dw.run.read_info(tmp_path / "run" / "convolutional")]
    assert rival
    own = sum(w.numel() for w in run.model.decoder.parameters())
    assert counts[1]["model"]["parameters"] == pytest.approx(counts[0] - own, rel=0.05)


@pytest.mark.long
def test_a_folder_of_colour_images(tmp_path, capsys):
    random = np.random.default_rng(0)
    for k, label in enumerate(("dark", "grey", "light")):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(30):
            pixels = random.integers(0, 100, (12, 10, 3)) + 70 * k
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"pets/{label}/{i}.png")
    run = recipes.find("capsnet")(
        str(tmp_path / "pets"), quick=True, pairs=0, routing="self", pose=7, out=tmp_path / "run"
    )
    assert run.info["data"]["spec"]["shape"] == [3, 12, 10]
    assert len(run.info["figures"]) == 3


@pytest.mark.long
def test_it_learns_digits(tmp_path, capsys):
    run = recipes.find("capsnet")(epochs=15, pairs=0, out=tmp_path / "run")
    assert run.info["scores"]["test/accuracy"]["value"] > 0.95


def test_what_is_no_image_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="capsnet: needs images of several classes, iris is"):
        recipes.find("capsnet")("iris", quick=True, out=tmp_path / "run")
