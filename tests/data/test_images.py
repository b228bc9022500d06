from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deepweave.data import Preparation, load, read

Image = pytest.importorskip("PIL.Image")


def draw(path: Path, size: tuple[int, int] = (6, 8), mode: str = "RGB", value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for place in range(30):
        draw(tmp_path / "pets" / ("cat" if place % 3 else "dog") / f"{place:02}.png", value=place)
    (tmp_path / "pets" / ".hidden").mkdir()
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "pets"


def test_a_folder_of_images(folder):
    data = load(folder)
    assert data.spec.shape == (3, 8, 6)
    assert data.spec.classes == ("cat", "dog")
    assert (data.spec.task, data.spec.kind, data.name) == ("binary", "image", "pets")
    assert [len(split) for split in data.splits.values()] == [21, 4, 5]
    pixels = np.asarray(Image.open(folder / "dog" / "00.png")).transpose(2, 0, 1) / 255
    everything = torch.cat([split.x for split in data.splits.values()])
    gap = (everything - torch.from_numpy(pixels).float()).abs().amax((1, 2, 3))
    labels = torch.cat([split.y for split in data.splits.values()])
    assert gap.min() < 1e-6
    assert labels[gap.argmin()] == 1
    assert "8 x 6 pixels, colour (as they all are in training)" in data.preparation.sentences[-1]


def test_a_folder_keeps_its_own_splits(tmp_path):
    for part, count in (("train", 20), ("val", 4), ("test", 6)):
        for place in range(count):
            name = "ab"[place % 2]
            draw(tmp_path / part / name / f"{place}.png", mode="L", value=place)
    # the size comes from the training images alone
    draw(tmp_path / "test" / "a" / "large.png", (60, 80), "L")
    data = load(tmp_path)
    assert [len(split) for split in data.splits.values()] == [20, 4, 7]
    assert data.spec.shape == (1, 8, 6)
    assert "(as they all are in training)" in data.preparation.sentences[-1]
    draw(tmp_path / "test" / "new" / "1.png")
    with pytest.raises(ValueError, match=r"'new' in row .* not one of the classes a, b"):
        load(tmp_path)


def test_mixed_sizes_and_modes(tmp_path):
    for place in range(12):
        size, mode = ((400, 600), "L") if place % 2 else ((200, 300), "RGB")
        draw(tmp_path / "ab"[place // 6] / f"{place}.png", size, mode)
    data = load(tmp_path)
    channels, height, width = data.spec.shape
    assert (channels, height) == (3, 224)
    assert 145 <= width <= 150
    assert "the median of 2 sizes, to at most 224 a side" in data.preparation.sentences[-1]


def test_large_photographs_are_scaled_down(tmp_path):
    for place in range(8):
        draw(tmp_path / "ab"[place % 2] / f"{place}.png", (448, 300))
    assert load(tmp_path).spec.shape == (3, 150, 224)


def test_a_photograph_on_its_side_is_turned(tmp_path):
    stored = np.arange(48, dtype=np.uint8).reshape(6, 8)
    for place in range(8):
        path = tmp_path / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        tags = Image.Exif()
        tags[0x0112] = 6  # to be turned a quarter clockwise
        Image.fromarray(stored).save(path, exif=tags)
    x = load(tmp_path).train.x
    np.testing.assert_allclose(x[0, 0] * 255, np.rot90(stored, -1), atol=1e-4)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    for place in range(8):
        path = tmp_path / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), 257 * 100, dtype=np.uint16)).save(path)
    np.testing.assert_allclose(load(tmp_path).train.x, 100 / 255, atol=1e-6)


def test_reading_new_images(folder, tmp_path):
    preparation = load(folder).preparation
    again = Preparation.from_json(json.loads(json.dumps(preparation.to_json())))
    x, y, ids = read(folder, again)
    assert len(x) == 30
    assert y is not None
    assert y.sum() == 10
    assert ids[0] == "cat/01.png"
    draw(tmp_path / "new" / "b.png", (60, 80), "L")
    draw(tmp_path / "new" / "a.png", value=7)
    x, y, ids = read(tmp_path / "new", again)
    assert (x.shape, y, ids) == ((2, 3, 8, 6), None, ["a.png", "b.png"])
    one, _, ids = read(tmp_path / "new" / "a.png", again)
    assert torch.equal(one, x[:1])
    assert ids == ["a.png"]
    with pytest.raises(ValueError, match="learned from tables"):
        read(folder, load("iris").preparation)
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="no rows"):
        read(tmp_path / "none", again)


def test_a_broken_image_is_named(folder):
    broken = folder / "cat" / "01.png"
    broken.write_bytes(broken.read_bytes()[:80])
    with pytest.raises(ValueError, match=r"cannot read the image .*01\.png"):
        load(folder)
    broken.write_bytes(b"this is text")
    with pytest.raises(ValueError, match=r"cannot read the image .*01\.png") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_folders_that_cannot_be_learned_from(tmp_path):
    with pytest.raises(ValueError, match="has no images; expected one folder per class"):
        load(tmp_path)
    draw(tmp_path / "1.png")
    with pytest.raises(ValueError, match="1 images outside of any class folder"):
        load(tmp_path)
    draw(tmp_path / "a" / "1.png")
    draw(tmp_path / "a" / "2.png")
    with pytest.raises(ValueError, match=r"one class folder only \(a\)"):
        load(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(ValueError, match=r"class folder .*b has no images"):
        load(tmp_path)
    draw(tmp_path / "b" / "1.png")
    with pytest.raises(ValueError, match='class "b" of target "class" has one row only'):
        load(tmp_path)


def test_a_missing_extra_is_one_line(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'needs pillow: pip install "deepweave\[images\]"'):
        load(folder)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((20, 5, 4), (1, 5, 4)), ((20, 3, 5, 4), (3, 5, 4)), ((20, 5, 4, 3), (3, 5, 4))],
)
def test_arrays_of_images(shape, expected):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = load((x, np.arange(20) % 2))
    assert data.spec.shape == expected
    assert data.train.x.max() <= 1
    assert torch.equal(data.preparation.inputs(x), data.preparation.inputs(torch.from_numpy(x)))
    with pytest.raises(ValueError, match="images must be"):
        data.preparation.inputs(x[:, :2, :2])


def test_the_divisor_is_that_of_the_training_images():
    x = np.zeros((20, 4, 4))
    x[:, 0, 0] = 16
    assert load((x, np.arange(20) % 2)).train.x.max() == 1
    x[:, 0, 0] = 0.5
    assert load((x, np.arange(20) % 2)).train.x.max() == 0.5
