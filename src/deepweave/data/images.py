"""Images: arrays of pixels or folders of files, brought to one size, mode and scale."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

ENDINGS = frozenset(
    [".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"]
)
LARGEST = 224  # pixels of the longer side; larger photographs would fill the memory
GRAY = frozenset({"1", "L", "LA", "I;16", "I", "F"})


@dataclass(frozen=True)
class Images:
    """How raw images become tensors: channels first, divided so that they lie in [0, 1].

    Shapes: raw ``(N, H, W)``, ``(N, C, H, W)`` or ``(N, H, W, C)``, or N paths of files
    -> ``(N, C, H, W)`` float32.
    """

    shape: tuple[int, int, int]
    divisor: float = 255.0
    kind: ClassVar[Literal["image"]] = "image"

    @property
    def names(self) -> tuple[str, ...]:
        """Pixels have no names."""
        return ()

    def inputs(self, raw: Any) -> Tensor:
        """Raw images as the model sees them.

        Raises:
            ValueError: images of another shape, or a file that is no image.
        """
        if not isinstance(raw, np.ndarray | Tensor):
            pixels = decode([Path(path) for path in raw], self.shape)
        else:
            pixels = np.ascontiguousarray(channels_first(np.asarray(raw)))
        if pixels.shape[1:] != self.shape:
            sizes = ", ".join(map(str, self.shape))
            raise ValueError(f"inputs: images must be (N, {sizes}), got {pixels.shape}")
        return torch.from_numpy(pixels).float().div_(self.divisor)

    def to_json(self) -> dict[str, Any]:
        """The preparation of images as plain lists, numbers and strings."""
        return asdict(self) | {"shape": list(self.shape)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Images:
        """The preparation that ``to_json`` wrote."""
        return cls(**{**record, "shape": tuple(record["shape"])})


def fit_array(train: np.ndarray) -> tuple[Images, list[str]]:
    """The preparation that training images ask for, and what it does in plain sentences."""
    shape = _shape(channels_first(train).shape[1:])
    if train.dtype == np.uint8:
        return Images(shape), [f"Images of {_size(shape)}, divided by 255."]
    top = float(np.abs(train).max())
    if top <= 1:
        return Images(shape, 1.0), [f"Images of {_size(shape)}, used as they are."]
    return Images(shape, top), [f"Images of {_size(shape)}, divided by {top:g}, the most seen."]


def fit_files(train: Sequence[Path]) -> tuple[Images, list[str]]:
    """The one size and mode that the training files ask for.

    The size is theirs where it is one; else the median height and width. Either is scaled down
    until the longer side has at most 224 pixels. Colour where at least one image has colour.
    """
    seen = _each(_header, train)
    sizes = Counter((height, width) for height, width, _ in seen)
    channels = 1 if all(mode in GRAY for _, _, mode in seen) else 3
    tall = float(np.median([height for height, _, _ in seen]))
    wide = float(np.median([width for _, width, _ in seen]))
    one = len(sizes) == 1
    said = "as they all are" if one else f"the median of {len(sizes)} sizes"
    shrink = min(1.0, LARGEST / max(tall, wide))
    if shrink < 1:
        said = f"from {tall:g} x {wide:g}, " + ("the size of all" if one else said)
        said += f", to at most {LARGEST} a side"
    height, width = max(1, round(tall * shrink)), max(1, round(wide * shrink))
    said += " in training" if shrink == 1 else ""
    shape = (channels, height, width)
    return Images(shape), [f"Images brought to {_size(shape)} ({said}), divided by 255."]


def decode(paths: Sequence[Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Files as pixels ``(N, C, H, W)`` uint8, resized where they have another size.

    Raises:
        ValueError: a file is no image that can be read; it is named.
    """
    _pillow()
    from PIL import Image, ImageOps

    channels, height, width = shape
    pixels = np.empty((len(paths), channels, height, width), dtype=np.uint8)

    def read(place: int) -> None:
        path = paths[place]
        try:
            with Image.open(path) as file:
                image = ImageOps.exif_transpose(file)
                if image.mode in ("I;16", "I"):  # 16 bits a pixel: convert("L") would clip them
                    deep = np.asarray(image).astype(np.int64) // 256
                    image = Image.fromarray(deep.clip(0, 255).astype(np.uint8))
                image = image.convert("L" if channels == 1 else "RGB")
                if image.size != (width, height):
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                array = np.asarray(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"load: cannot read the image {path}: {_short(error)}") from None
        pixels[place] = array[None] if channels == 1 else array.transpose(2, 0, 1)

    _each(read, range(len(paths)))
    return pixels


def by_class(folder: Path) -> dict[str, list[Path]]:
    """The image files of each class folder, both in the order of their names.

    Raises:
        ValueError: no class folders, one of them without an image, or none with.
    """
    classes = {inner.name: files(inner) for inner in _folders(folder)}
    if not classes:
        loose = len(files(folder))
        what = f"{loose} images outside of any class folder" if loose else "no images"
        raise ValueError(
            f"load: {folder} has {what}; expected one folder per class, such as {folder.name}/cat"
        )
    empty = [name for name, found in classes.items() if not found]
    if empty:
        raise ValueError(f"load: the class folder {folder / empty[0]} has no images")
    return classes


def files(folder: Path) -> list[Path]:
    """The image files of a folder and the folders in it, in the order of their names."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def parts(folder: Path) -> dict[str, Path]:
    """The subfolders train, validation and test, where there are; else the folder as train."""
    also = {"train": "train", "training": "train", "test": "test", "validation": "validation"}
    also |= {"val": "validation", "valid": "validation"}
    found = {inner.name.lower(): inner for inner in _folders(folder)}
    named = {also[name]: inner for name, inner in found.items() if name in also}
    return named if "train" in named else {"train": folder}


def channels_first(array: np.ndarray) -> np.ndarray:
    """Images as ``(N, C, H, W)``; the last axis is taken for channels where only it can be."""
    if array.ndim == 3:
        return array[:, None]
    if array.ndim != 4:
        raise ValueError(
            "load: images must be (N, H, W), (N, C, H, W) or (N, H, W, C), "
            f"got an array of shape {array.shape}"
        )
    if array.shape[-1] in (1, 3, 4) and array.shape[1] not in (1, 3, 4):
        return array.transpose(0, 3, 1, 2)
    return array


def _folders(folder: Path) -> list[Path]:
    inside = (path for path in folder.iterdir() if not path.name.startswith((".", "__")))
    return sorted(path for path in inside if path.is_dir())


def _header(path: Path) -> tuple[int, int, str]:
    """Height, width and mode of an image, without decoding its pixels."""
    _pillow()
    from PIL import Image

    try:
        with Image.open(path) as file:
            turned = file.getexif().get(0x0112, 1) >= 5  # stored on its side
            width, height = file.size
            return (width, height, file.mode) if turned else (height, width, file.mode)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"load: cannot read the image {path}: {_short(error)}") from None


def _each(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, items))


def _pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError(
            'load: reading images needs pillow: pip install "deepweave[images]"'
        ) from None


def _short(error: Exception) -> str:
    return str(error).split(" '/")[0].split(" <")[0] or type(error).__name__


def _shape(sizes: Sequence[int]) -> tuple[int, int, int]:
    channels, height, width = sizes
    return int(channels), int(height), int(width)


def _size(shape: tuple[int, int, int]) -> str:
    colour = {1: "gray", 3: "colour"}.get(shape[0], f"{shape[0]} channels")
    return f"{shape[1]} x {shape[2]} pixels, {colour}"
