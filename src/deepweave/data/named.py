"""The data sets that have a name: what each is, where it is from, under which licence."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepweave.data.raw import Raw
from deepweave.data.resolve import locate
from deepweave.data.scenes import emoji, shapes

SHIPPED = Path(__file__).with_name("files")
PHOTOS = "CC0, public domain and CC BY (the photographs, see scikit-image and scikit-learn)"
UCI = "CC BY 4.0 (UCI), packaged by scikit-learn (BSD-3-Clause)"
CLOTHES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True)
class Named:
    """One named set; ``open`` gives its rows, targets and what else is known of it."""

    name: str
    title: str
    source: str
    licence: str
    open: Callable[[], dict[str, Any]]

    def raw(self) -> Raw:
        """The set before any split.

        Raises:
            FileNotFoundError: it is not on this machine; the message says how to get it.
        """
        known: dict[str, Any] = {"source": self.source, "licence": self.licence}
        return Raw(name=self.name, title=self.title, **(known | self.open()))


def idx(raw: bytes) -> np.ndarray:
    """An array in the IDX format of MNIST: two zeros, the type 8, the axes, their lengths.

    Raises:
        ValueError: the bytes are no whole IDX file of unsigned bytes.

    >>> idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9])).tolist()
    [7, 8, 9]
    """
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise ValueError(f"idx: not an IDX file of bytes, it begins with {raw[:4].hex()}")
    axes, start = raw[3], 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(f"idx: the header is cut after {len(raw)} of {start} bytes")
    sizes = struct.unpack(f">{axes}I", raw[4:start])
    if len(raw) - start != int(np.prod(sizes)):
        raise ValueError(f"idx: expected {sizes} bytes, got {len(raw) - start}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(sizes)


def _digits() -> dict[str, Any]:
    from sklearn.datasets import load_digits

    pixels, digit = load_digits(return_X_y=True)
    return {
        "rows": np.asarray(pixels).reshape(-1, 8, 8),
        "target": {"digit": np.asarray(digit)},
        "classes": tuple("0123456789"),
    }


def _sklearn(name: str, target: str, **options: Any) -> Callable[[], dict[str, Any]]:
    def opened() -> dict[str, Any]:
        from sklearn import datasets

        bunch = getattr(datasets, f"load_{name}")(**options)
        classes = bunch.get("target_names", ())
        return {
            "rows": np.asarray(bunch["data"], dtype=np.float64),
            "target": {target: np.asarray(bunch["target"])},
            "columns": tuple(map(str, bunch["feature_names"])),
            "classes": tuple(map(str, classes)),
        }

    return opened


def _official(name: str) -> dict[str, Any]:
    """The full training and test images of MNIST or Fashion-MNIST, wherever they are."""
    rows, labels, places = [], [], []
    for part in ("train", "t10k"):
        for kind, held in (("images-idx3", rows), ("labels-idx1", labels)):
            found = locate(name, f"{part}-{kind}-ubyte")
            held.append(idx(found.content()))
            places.append(found.place)
    ends = (len(rows[0]), len(rows[0]) + len(rows[1]))
    return {
        "rows": np.concatenate(rows),
        "target": {"class": np.concatenate(labels)},
        "parts": {"train": np.arange(ends[0]), "test": np.arange(*ends)},
        "place": places[0],
    }


def _mnist() -> dict[str, Any]:
    held = _official("mnist")
    source = f"MNIST (LeCun, Cortes, Burges), the full set, from {held.pop('place')}"
    return {**held, "source": source, "classes": tuple("0123456789")}


def _fashion_mnist() -> dict[str, Any]:
    try:
        held = _official("fashion_mnist")
        told = f"the full set, from {held.pop('place')}"
    except FileNotFoundError:
        with np.load(SHIPPED / "fashion_mnist.npz", allow_pickle=False) as file:
            shipped = {key: file[key] for key in file.files}
        count = len(shipped["train_x"])
        whole = count + len(shipped["test_x"])
        held = {
            "rows": np.concatenate([shipped["train_x"], shipped["test_x"]]),
            "target": {"class": np.concatenate([shipped["train_y"], shipped["test_y"]])},
            "parts": {"train": np.arange(count), "test": np.arange(count, whole)},
        }
        told = "the shipped subset of 2,000 + 500"
    return {**held, "source": f"Fashion-MNIST (Zalando), {told}", "classes": CLOTHES}


_ROWS = (
    Named(
        "digits",
        "Handwritten digits, 8 x 8 pixels",
        "scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits, test part)",
        UCI,
        _digits,
    ),
    Named(
        "breast_cancer",
        "Breast cancer: benign or malignant, from cell nuclei",
        "scikit-learn load_breast_cancer (UCI Breast Cancer Wisconsin, Diagnostic)",
        UCI,
        _sklearn("breast_cancer", "diagnosis"),
    ),
    Named(
        "wine",
        "Wine: three growers, from a chemical analysis",
        "scikit-learn load_wine (UCI Wine)",
        UCI,
        _sklearn("wine", "grower"),
    ),
    Named(
        "iris",
        "Iris: three species, from the sizes of petals and sepals",
        "scikit-learn load_iris (UCI Iris, Fisher 1936)",
        UCI,
        _sklearn("iris", "species"),
    ),
    Named(
        "diabetes",
        "Diabetes: progression after one year",
        "scikit-learn load_diabetes, unscaled (Efron, Hastie, Johnstone, Tibshirani 2004)",
        "not stated, packaged by scikit-learn (BSD-3-Clause)",
        # unscaled: scikit-learn's scaled form carries statistics of the test rows
        _sklearn("diabetes", "progression", scaled=False),
    ),
    Named(
        "fashion_mnist",
        "Fashion-MNIST: ten kinds of clothes, 28 x 28 pixels",
        "Fashion-MNIST (Zalando)",
        "MIT",
        _fashion_mnist,
    ),
    Named(
        "mnist",
        "MNIST: handwritten digits, 28 x 28 pixels",
        "MNIST (LeCun, Cortes, Burges), the full set",
        "CC BY-SA 3.0 (as usually given)",
        _mnist,
    ),
    Named(
        "shapes",
        "Shapes on photographs, 48 x 48 pixels, with masks",
        "drawn shapes on photographs of scikit-image and scikit-learn",
        PHOTOS,
        shapes,
    ),
    Named(
        "emoji",
        "Emoji on photographs, 48 x 48 pixels, with masks",
        "Noto Color Emoji on photographs of scikit-image and scikit-learn",
        f"{PHOTOS}, OFL-1.1 (the emoji)",
        emoji,
    ),
)

NAMED: dict[str, Named] = {named.name: named for named in _ROWS}
