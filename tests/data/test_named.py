from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest
import torch

from deepweave.data import load, named
from deepweave.data.named import idx
from deepweave.data.resolve import Found


def packed(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + (
        array.astype(np.uint8).tobytes()
    )  # fmt: skip


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The four files of MNIST with 40 and 20 images, found in one folder."""
    for part, count in (("train", 40), ("t10k", 20)):
        pixels = np.random.default_rng(0).integers(0, 256, (count, 28, 28))
        images, labels = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
        (tmp_path / f"{images}.gz").write_bytes(gzip.compress(packed(pixels)))
        (tmp_path / f"{labels}.gz").write_bytes(gzip.compress(packed(np.arange(count) % 10)))
    monkeypatch.setattr(
        named, "locate", lambda source, file: Found(tmp_path / f"{file}.gz", "the cache")
    )


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_full_set_is_taken_where_it_is(tiny, name):
    data = load(name)
    assert "the full set, from the cache" in data.source
    assert data.spec.shape == (1, 28, 28)
    assert len(data.test) == 20
    assert torch.equal(data.test.y, torch.arange(20) % 10)
    assert sum(data.summary()["splits"].values()) == 60
    assert len(data.spec.classes) == 10


def test_without_it_the_shipped_subset_is(monkeypatch):
    def nowhere(source, file):
        raise FileNotFoundError(f"load: {source} is not on this machine")

    monkeypatch.setattr(named, "locate", nowhere)
    data = load("fashion_mnist")
    assert "the shipped subset of 2,000 + 500" in data.source
    assert data.summary()["class_counts"]["test"] == [50] * 10
    assert len(data.train) + len(data.validation) == 2000
    with pytest.raises(FileNotFoundError, match="mnist is not on this machine"):
        load("mnist")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not an IDX file"),
        (b"\x1f\x8b\x08\x00", "not an IDX file"),
        (bytes([0, 0, 8, 2, 0, 0]), "header is cut"),
        (bytes([0, 0, 8, 1, 0, 0, 0, 3, 7]), r"expected \(3,\) bytes, got 1"),
    ],
)
def test_broken_idx_files(raw, said):
    with pytest.raises(ValueError, match=said):
        idx(raw)
