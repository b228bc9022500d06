from __future__ import annotations

import json

import pytest

from deepweave.data import Spec


def test_json_round_trip():
    spec = Spec("regression", (4,), 2, features=("a", "b", "c", "d"), targets=("u", "v"), unit="m")
    again = Spec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert hash(again) == hash(spec)


def test_size_is_the_number_of_values():
    assert Spec("binary", (3, 4, 5), 1, kind="image").size == 60


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "ranking"}, "task must be one of"),
        ({"kind": "sound"}, "kind must be one of"),
        ({"shape": ()}, "shape must be positive"),
        ({"shape": (3, 0)}, "shape must be positive"),
        ({"outputs": 0}, "at least 1"),
        ({"task": "binary", "outputs": 2}, "1 output"),
        ({"classes": ("a", "b")}, "3 class names, got 2"),
    ],
)
def test_errors(change, said):
    good = {"task": "multiclass", "shape": (2,), "outputs": 3}
    with pytest.raises(ValueError, match=said):
        Spec(**(good | change))
