from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st
from safetensors.torch import save as to_bytes

from deepweave import archive


def same(one, two) -> bool:
    """Equal in every value, type and key order."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(two, torch.Tensor)
            and one.dtype == two.dtype
            and torch.equal(
                one.nan_to_num() if one.is_floating_point() else one,
                two.nan_to_num() if two.is_floating_point() else two,
            )
            and one.shape == two.shape
        )
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        return list(one) == list(two) and all(same(one[k], two[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two or (isinstance(one, float) and math.isnan(one) and math.isnan(two))


def back(path, tree):
    return archive.load(archive.save(path, tree))


DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32]
DTYPES += [torch.int8, torch.uint8, torch.bool, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3)])
def test_tensors_of_every_kind(tmp_path, dtype, shape):
    value = (torch.rand(shape) * 5).to(dtype)
    assert same(back(tmp_path / "a", {"x": [value]}), {"x": [value]})


def test_nested_trees_keep_their_kinds(tmp_path):
    tree = {
        "state": {0: {"step": torch.tensor(3.0), "rate": 0.1}, 1: {}, -2: None},
        ("a", 1): [1, (2, [3, ()]), "text", True, False, None, {}],
        "numbers": [1e-300, -0.0, math.inf, -math.inf, math.nan, 2**70, 0.1 + 0.2],
        "odd names": {"tensor": "0", "dict": [], "": "é\n\x00"},
    }
    assert same(back(tmp_path / "a", tree), tree)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
tensors = st.lists(st.floats(width=32), max_size=4).map(torch.tensor)
trees = st.recursive(
    leaves | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(tree=trees)
def test_any_tree_comes_back(tmp_path_factory, tree):
    assert same(back(tmp_path_factory.getbasetemp() / "any", tree), tree)


def test_shared_and_sliced_tensors(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    tree = {"whole": base, "again": base, "row": base[1], "turned": base.T, "step": base[:, ::2]}
    found = back(tmp_path / "a", tree)
    assert same(found, tree)
    found["whole"].zero_()
    assert torch.equal(found["again"], base), "what is read back shares nothing"


def test_gradients_are_not_kept(tmp_path):
    assert not back(tmp_path / "a", torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize("leaf", [object(), {1, 2}, 1j, b"raw", torch.float32])
def test_other_leaves_are_refused_and_nothing_is_written(tmp_path, leaf):
    with pytest.raises(TypeError, match="archive: expected tensors and plain values, got"):
        archive.save(tmp_path / "a", {"x": [leaf]})
    assert not list(tmp_path.iterdir())


def test_every_damaged_byte_is_noticed(tmp_path):
    """A changed byte anywhere either is found, or was one that says nothing."""
    tree = {"count": 17, "rate": 0.125, "weights": torch.arange(6.0), "name": "net"}
    path = archive.save(tmp_path / "a", tree)
    content = path.read_bytes()
    for place in range(len(content)):
        harmed = bytearray(content)
        harmed[place] ^= 0x01
        path.write_bytes(harmed)
        said = ""
        try:
            found = archive.load(path)
        except ValueError as error:
            said = str(error)
        if said:
            assert str(path) in said
            assert "\n" not in said
        else:
            assert same(found, tree), f"byte {place} was changed and not noticed"


@pytest.mark.parametrize("length", [0, 1, 8, 40, -1])
def test_a_cut_file_is_damaged(tmp_path, length):
    path = archive.save(tmp_path / "a", {"weights": torch.arange(6.0)})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=rf"archive: {path} is damaged"):
        archive.load(path)


def test_foreign_files(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(to_bytes({"x": torch.zeros(2)}))
    with pytest.raises(ValueError, match="got a safetensors file of another program"):
        archive.load(path)
    path.write_bytes(to_bytes({"x": torch.zeros(2)}, {"format": "deepweave archive 9"}))
    with pytest.raises(ValueError, match="expected 'deepweave archive 1', got deepweave archive 9"):
        archive.load(path)
    with pytest.raises(FileNotFoundError, match="archive: there is no file"):
        archive.load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="archive: there is no file"):
        archive.load(tmp_path)
