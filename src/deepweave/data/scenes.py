"""Objects pasted on photographs, with exact masks: the segmentation sets ``shapes`` and ``emoji``.

An object is a picture with its own transparency, so that the mask is known to the pixel. Each
photograph, and each emoji, belongs to one split: what is tested stands on photographs, and shows
emoji, that no training image has.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from colorsys import hsv_to_rgb
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from deepweave.data.resolve import locate
from deepweave.run import derive

Sprite = Callable[[np.random.Generator, int], Any]  # an RGBA picture of so many pixels a side

SIZE = 48
TINT = 0.6  # how much of a shape is one plain colour; the rest is a photograph
COUNTS = {"train": 960, "validation": 160, "test": 240}
PHOTOS = {  # each photograph in one split alone
    "train": ("astronaut.png", "coffee.png", "ihc.png", "motorcycle_left.png", "retina.jpg"),
    "validation": ("flower.jpg", "hubble_deep_field.jpg"),
    "test": ("chelsea.png", "china.jpg", "rocket.jpg"),
}
FONT, FONT_SIZE = "NotoColorEmoji.ttf", 109  # the one size that its bitmaps have
BLOCKS = ((0x1F300, 0x1F5FF), (0x1F600, 0x1F64F), (0x1F680, 0x1F6FF), (0x1F900, 0x1F9FF))
EMOJI = {"train": 240, "validation": 60, "test": 100}


def paste(
    photos: Sequence[Any], sprite: Sprite, count: int, *, size: int = SIZE, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Images of objects pasted on crops of photographs, and which pixels are theirs.

    A crop is a random square of a random photograph, mirrored half of the time; one to three
    objects of a sixth to a half of its side lie on it at random places, the last on top. A pixel
    is the object's where at least half of it is covered.

    Shapes: (count, size, size, 3) and (count, size, size), both uint8
    """
    from PIL import Image, ImageOps

    rng = np.random.default_rng(derive(seed, "paste"))
    images = np.empty((count, size, size, 3), np.uint8)
    masks = np.zeros((count, size, size), np.uint8)
    for i in range(count):
        scene = crop(photos[int(rng.integers(len(photos)))], rng, size)
        cover = Image.new("L", (size, size))
        for _ in range(rng.integers(1, 4)):
            side = int(rng.integers(size // 6, size // 2 + 1))
            thing = sprite(rng, side)
            x, y = (int(at) for at in rng.integers(-side // 4, size - 3 * side // 4, 2))
            scene.paste(thing, (x, y), thing)
            cover.paste(255, (x, y), thing.getchannel("A").point(lambda a: 255 * (a >= 128)))
        if rng.random() < 0.5:
            scene, cover = ImageOps.mirror(scene), ImageOps.mirror(cover)
        images[i], masks[i] = np.asarray(scene), np.asarray(cover) > 0
    return images, masks


def crop(photo: Any, rng: np.random.Generator, size: int) -> Any:
    """A random square of a photograph, at least a third of its shorter side, brought to a size."""
    from PIL import Image

    low = min(photo.size)
    side = int(rng.integers(max(size // 2, low // 3), low + 1))
    x, y = (int(rng.integers(0, whole - side + 1)) for whole in photo.size)
    box = (x, y, x + side, y + side)
    return photo.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0)


def shape_sprite(photos: Sequence[Any]) -> Sprite:
    """Ellipses, polygons and stars, turned at random, of a photograph in one bright colour."""

    def draw(rng: np.random.Generator, side: int) -> Any:
        from PIL import Image, ImageDraw

        fine = 4 * side  # drawn large and brought down, for smooth edges
        cover = Image.new("L", (fine, fine))
        kind, corners = int(rng.integers(3)), int(rng.integers(3, 8))
        corners = 48 if kind == 0 else 2 * corners if kind == 2 else corners
        turn, narrow = rng.uniform(0, 2 * math.pi), rng.uniform(0.5, 1.0)
        angles = np.arange(corners) * 2 * math.pi / corners
        reach = np.where(np.arange(corners) % 2 * (kind == 2), rng.uniform(0.35, 0.6), 1.0)
        flat = np.stack([reach * np.cos(angles), reach * np.sin(angles) * narrow])
        spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        points = (spin @ flat * 0.5 + 0.5) * (fine - 1)
        ImageDraw.Draw(cover).polygon([(float(x), float(y)) for x, y in points.T], fill=255)
        hue = tuple(int(255 * part) for part in hsv_to_rgb(rng.random(), 0.9, 1.0))
        texture = crop(photos[int(rng.integers(len(photos)))], rng, side)
        filled = Image.blend(texture, Image.new("RGB", texture.size, hue), TINT)
        filled.putalpha(cover.resize((side, side), Image.Resampling.BOX))
        return filled

    return draw


def emoji_sprite(pictures: Sequence[Any]) -> Sprite:
    """Emoji from a list of their pictures, turned by up to a quarter of a half turn."""

    def draw(rng: np.random.Generator, side: int) -> Any:
        from PIL import Image

        picture = pictures[int(rng.integers(len(pictures)))]
        small = picture.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        return small.rotate(float(rng.uniform(-45, 45)), Image.Resampling.BILINEAR)

    return draw


def shapes() -> dict[str, Any]:
    """The set ``shapes``: what :class:`deepweave.data.raw.Raw` takes."""
    photos = {part: photographs(names) for part, names in PHOTOS.items()}
    return _whole(
        {part: shape_sprite(found) for part, found in photos.items()}, photos, 0, "Each photograph"
    )


def emoji() -> dict[str, Any]:
    """The set ``emoji``: what :class:`deepweave.data.raw.Raw` takes.

    Raises:
        FileNotFoundError: the font is not on this machine; the message says how to get it.
    """
    photos = {part: photographs(names) for part, names in PHOTOS.items()}
    pictures, at, sprites = draw_emoji(sum(EMOJI.values())), 0, {}
    for part, count in EMOJI.items():
        sprites[part] = emoji_sprite(pictures[at : at + count])
        at += count
    return _whole(sprites, photos, 1, "Each emoji and each photograph")


def draw_emoji(count: int, seed: int = 0) -> list[Any]:
    """Pictures of so many different emoji, chosen at random, each cut to what is drawn."""
    _needed()
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(io.BytesIO(locate("emoji", FONT).content()), FONT_SIZE)
    codes = np.concatenate([np.arange(low, high + 1) for low, high in BLOCKS])
    found: list[Any] = []
    for code in np.random.default_rng(derive(seed, "emoji")).permutation(codes).tolist():
        picture = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(picture).text((10, 10), chr(code), font=font, embedded_color=True)
        box = picture.getbbox()
        # a letter that the font lacks is left out or drawn as a thin frame
        if box is None or min(box[2] - box[0], box[3] - box[1]) < 60:
            continue
        if np.asarray(picture.getchannel("A"))[box[1] : box[3], box[0] : box[2]].mean() < 60:
            continue
        wide, high = box[2] - box[0], box[3] - box[1]
        side = max(wide, high)
        square = Image.new("RGBA", (side, side))
        square.paste(picture.crop(box), ((side - wide) // 2, (side - high) // 2))
        found.append(square)
        if len(found) == count:
            return found
    raise ValueError(f"load: the emoji font draws {len(found)} of {count} emoji")


def _whole(
    sprites: dict[str, Sprite], photos: dict[str, Any], seed: int, told: str
) -> dict[str, Any]:
    made = {
        part: paste(photos[part], sprites[part], count, seed=derive(seed, part))
        for part, count in COUNTS.items()
    }
    ends = np.cumsum([0, *COUNTS.values()])
    masks = np.concatenate([mask for _, mask in made.values()])
    return {
        "rows": np.concatenate([images for images, _ in made.values()]),
        "target": {"mask": masks},
        "classes": ("background", "object"),
        "parts": {p: np.arange(a, b) for p, a, b in zip(COUNTS, ends, ends[1:])},
        "sentences": [
            f"{told} belongs to one split alone: "
            + "; ".join(f"{part} {', '.join(map(_bare, names))}" for part, names in PHOTOS.items())
            + ".",
            f"Objects cover {100 * masks.mean():.1f} % of the pixels.",
        ],
    }


def _bare(name: str) -> str:
    return name.partition(".")[0].partition("_")[0]


def photographs(names: Sequence[str]) -> list[Any]:
    """Photographs that scikit-image and scikit-learn bring along, at most 384 pixels high."""
    _needed()
    from PIL import Image

    found = []
    for name in names:
        with Image.open(_photo(name)) as file:
            picture = file.convert("RGB")
        picture.thumbnail((512, 384), Image.Resampling.BILINEAR)
        found.append(picture)
    return found


def _photo(name: str) -> Path:
    for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
        spec = find_spec(package)
        for base in (spec.submodule_search_locations or ()) if spec else ():
            path = Path(base) / folder / name
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"load: the photograph {name} is in neither scikit-image nor scikit-learn: "
        'pip install --upgrade "deepweave[images]"'
    )


def _needed() -> None:
    if find_spec("PIL") is None or find_spec("skimage") is None:
        raise ImportError(
            "load: photographs with masks need pillow and scikit-image: "
            'pip install "deepweave[images]"'
        )
