from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import deepweave as dw
from deepweave.data import scenes
from deepweave.data.resolve import locate

try:
    FONT = locate("emoji", scenes.FONT).place
except FileNotFoundError:
    FONT = ""


@pytest.fixture(scope="module")
def shapes() -> dw.data.Data:
    return dw.data.load("shapes")


def flat(colour: tuple[int, int, int], size: int = 100) -> Image.Image:
    return Image.new("RGB", (size, size), colour)


def disc(rng: np.random.Generator, side: int) -> Image.Image:
    """A green square with a hole: opaque but for its middle."""
    cover = np.full((side, side), 255, np.uint8)
    cover[side // 4 : side // 2, side // 4 : side // 2] = 0
    made = Image.new("RGBA", (side, side), (0, 255, 0, 255))
    made.putalpha(Image.fromarray(cover))
    return made


def test_masks_are_exact_to_the_pixel():
    images, masks = scenes.paste([flat((255, 0, 0))], disc, 20, size=32, seed=3)
    assert images.shape == (20, 32, 32, 3)
    assert masks.shape == (20, 32, 32)
    green = (images == (0, 255, 0)).all(-1)
    red = (images == (255, 0, 0)).all(-1)
    assert (green | red).all()
    assert (green == masks.astype(bool)).all()
    assert (masks.reshape(20, -1).sum(1) > 0).all(), "every image has an object"
    again, _ = scenes.paste([flat((255, 0, 0))], disc, 20, size=32, seed=3)
    assert (again == images).all()
    other, _ = scenes.paste([flat((255, 0, 0))], disc, 20, size=32, seed=4)
    assert not (other == images).all()


def test_half_transparent_pixels_are_the_objects_from_one_half_on():
    def veil(rng, side, alpha):
        return Image.merge("RGBA", [Image.new("L", (side, side), v) for v in (0, 0, 255, alpha)])

    for alpha, expected in ((127, 0), (128, 1)):
        _, masks = scenes.paste([flat((9, 9, 9))], partial(veil, alpha=alpha), 4, size=24)
        assert masks.max() == expected


def test_the_set(shapes):
    assert shapes.spec.task == "segmentation"
    assert shapes.spec.shape == (3, 48, 48)
    assert shapes.spec.outputs == 1
    assert shapes.spec.classes == ("background", "object")
    for part, count in scenes.COUNTS.items():
        split = shapes.splits[part]
        assert split.x.shape == (count, 3, 48, 48)
        assert split.y.shape == (count, 48, 48)
        assert split.y.dtype == torch.int64
        assert set(split.y.unique().tolist()) == {0, 1}
        assert 0.03 < float(split.y.float().mean()) < 0.3
    assert dw.data.load("shapes").fingerprint == shapes.fingerprint
    assert len(dw.data.load("shapes", limit=60).train) < 60


def test_no_photograph_stands_in_two_splits():
    seen = [name for names in scenes.PHOTOS.values() for name in names]
    assert len(seen) == len(set(seen))
    for name in seen:
        assert scenes._photo(name).is_file()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(scenes, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'pip install "deepweave\[images\]"'):
        dw.data.load("shapes")


def test_a_missing_font_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("DEEPWEAVE_CACHE", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    if FONT == "the system":
        pytest.skip("the font is installed here")
    with pytest.raises(FileNotFoundError, match=r"python -m deepweave.data.fetch emoji"):
        dw.data.load("emoji")


@pytest.mark.skipif(not FONT, reason="the emoji font is not on this machine")
def test_emoji():
    pictures = scenes.draw_emoji(40)
    assert len({picture.tobytes() for picture in pictures}) == 40, "each is drawn once"
    for picture in pictures:
        cover = np.asarray(picture)[..., 3]
        assert cover.shape[0] == cover.shape[1] >= 60
        assert 0.2 < (cover > 127).mean() < 1
    data = dw.data.load("emoji")
    assert data.spec.outputs == 1
    assert data.train.x.shape[1:] == (3, 48, 48)


# --- masks of one's own ----------------------------------------------------------------------


def own(classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 8, 10, 3), dtype=np.uint8)
    return x, rng.integers(0, classes, (40, 8, 10)).astype(np.uint8)


def test_masks_from_arrays(tmp_path):
    x, y = own()
    data = dw.data.load((x, y))
    assert (data.spec.task, data.spec.outputs, data.spec.shape) == ("segmentation", 1, (3, 8, 10))
    assert len(data.train) + len(data.validation) + len(data.test) == 40
    np.savez(tmp_path / "mine.npz", x=x, y=own(4)[1])
    data = dw.data.load(tmp_path / "mine.npz")
    assert data.spec.outputs == 4
    again = dw.data.Preparation.from_json(data.preparation.to_json())
    assert again.spec == data.spec
    inputs, targets, _ = dw.data.read(tmp_path / "mine.npz", again)
    assert inputs.shape == (40, 3, 8, 10)
    assert targets is not None
    assert targets.dtype == torch.int64
    assert (targets.numpy() == own(4)[1]).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (own()[1] * 255, "masks .* must be class numbers from 0, got 255; .* mask > 127"),
        (own()[1].astype(float), r"masks \(N, H, W\) of whole numbers, got .* of float64"),
        (own()[1].astype(int) - 1, "class numbers 0 to 1, got -1..0"),
        (own()[1][..., None], r"y must be \(N,\) or \(N, T\), or masks"),
    ],
)
def test_bad_masks(y, message):
    with pytest.raises(ValueError, match=message):
        dw.data.load((own()[0], y))


def test_a_segmenter_learns_and_predicts_in_a_folder(tmp_path, capsys):
    x, _ = own()
    y = (x[..., 0] > 127).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", x=x, y=y)
    data = dw.data.load(tmp_path / "mine.npz")
    net = dw.nn.segmenter(data.spec, widths=(8,))
    run = dw.fit(dw.Segment(net), data, epochs=25, batch=8, lr=0.03, out=tmp_path / "run")
    scores = run.test()
    assert scores["test/dice"] > 0.85
    assert float(run.info["baseline"]["test/dice"]["value"]) < 0.75
    run.report()
    from deepweave.outcome import predict_file

    assert predict_file(tmp_path / "run", str(tmp_path / "mine.npz"), tmp_path / "said.npz") == 40
    with np.load(tmp_path / "said.npz") as said:
        assert said["prediction"].shape == (40, 8, 10)
        assert ((said["prediction"] > 0.5) == y).mean() > 0.9
    with pytest.raises(ValueError, match=r"masks go into a \.npz"):
        predict_file(tmp_path / "run", str(tmp_path / "mine.npz"), tmp_path / "said.csv")
