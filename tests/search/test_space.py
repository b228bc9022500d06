from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, strategies as st

from deepweave.search import Space, space

DIMENSIONS = {
    "uniform": space.uniform(-2.0, 3.0),
    "log": space.log(1e-4, 1e-1),
    "integer": space.integer(-3, 5),
    "integer, log": space.integer(1, 300, log=True),
    "choice": space.choice("a", (1, 2), None, True, 1),
}


@pytest.mark.parametrize("name", DIMENSIONS)
@given(unit=st.floats(0, 1))
def test_values_and_places_are_inverse(name, unit):
    one = DIMENSIONS[name]
    value = one.at(unit)
    assert value in one
    assert one.at(one.place(value)) == pytest.approx(value) if name in ("uniform", "log") else True
    if name not in ("uniform", "log"):
        again = one.at(one.place(value))
        assert again == value
        assert type(again) is type(value)


def test_every_whole_number_has_its_share():
    found = [space.integer(1, 4).at((i + 0.5) / 1000) for i in range(1000)]
    assert [found.count(k) for k in (1, 2, 3, 4)] == [250] * 4
    wide = [space.integer(1, 100, log=True).at((i + 0.5) / 1000) for i in range(1000)]
    assert abs(wide.count(1) - 1000 * math.log(3) / math.log(201)) < 2
    assert {min(wide), max(wide)} == {1, 100}


def test_log_is_even_in_the_logarithm():
    rates = space.log(1e-4, 1e-1)(4)
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert min(rates) >= 1e-4
    assert max(rates) <= 1e-1


def test_grids():
    assert space.uniform(0, 1).grid(3) == [0, 0.5, 1]
    assert space.integer(1, 3).grid(9) == [1, 2, 3]
    assert space.integer(1, 100, log=True).grid(3) == [1, 10, 100]
    assert space.choice("a", "b").grid(7) == ["a", "b"]
    assert space.log(1e-2, 1.0).grid(1) == pytest.approx([0.1])


def test_conditions():
    one = Space(
        {
            "momentum": space.uniform(0, 0.99).when(optimizer="SGD"),
            "nesterov": space.choice(True, False).when(optimizer=("SGD",), depth=2),
            "optimizer": space.choice("SGD", "Adam"),
            "depth": space.integer(1, 2),
        }
    )
    many = one.settings(torch.rand(400, 4, generator=torch.Generator().manual_seed(0)))
    for each in many:
        one.check(each)
        assert ("momentum" in each) == (each["optimizer"] == "SGD")
        assert ("nesterov" in each) == (each["optimizer"] == "SGD" and each["depth"] == 2)
        assert list(each) == [name for name in one.dimensions if name in each]
    places = one.places(many)
    assert places.shape == (400, 4)
    assert bool(places.isnan().any())
    assert bool((places.nan_to_num(0.5) >= 0).all())


def circle():
    return {
        "a": space.choice(1, 2).when(b=1),
        "b": space.choice(1, 2).when(a=1),
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Space({}), "space: it is empty"),
        (lambda: Space([space.choice(1)]), "expected names with dimensions"),
        (lambda: Space({"lr": 0.1}), "space: lr must be a dimension .* got 0.1"),
        (lambda: space.uniform(1, 1), "uniform: low must be below high, got 1 and 1"),
        (lambda: space.uniform(2, 1), "uniform: low must be below high"),
        (lambda: space.uniform(0, math.inf), "uniform: bounds must be finite"),
        (lambda: space.uniform(math.nan, 1), "uniform: bounds must be finite"),
        (lambda: space.log(0.0, 1.0), "log: low must be above 0, got 0.0"),
        (lambda: space.log(-1.0, 1.0), "log: low must be above 0"),
        (lambda: space.integer(0.5, 2), "integer: bounds must be whole numbers, got 0.5"),
        (lambda: space.integer(0, 9, log=True), "integer: low must be at least 1"),
        (lambda: space.choice(), "choice: give at least one value"),
        (lambda: space.choice("a", "a"), "choice: the values must differ"),
        (lambda: space.choice(1).when(), "when: name the dimension"),
        (lambda: Space({"a": space.choice(1).when(b=1)}), "a depends on 'b', which is not there"),
        (lambda: Space({"a": space.choice(1).when(a=1)}), "a depends on 'a', which is not there"),
        (lambda: Space({"a": space.choice(1).when(b=3), "b": space.choice(1, 2)}),
         "a waits for b = 3, but b is Choice"),
        (lambda: Space(circle()), "the conditions of a, b go in a circle"),
        (lambda: Space({"a": space.choice(1)}).check({"b": 1}), "there is no 'b'"),
        (lambda: Space({"a": space.choice(1)}).check({"a": 2}), "a must lie in Choice"),
        (lambda: Space({"a": space.choice(1)}).check({}), "a is missing"),
    ],
)  # fmt: skip
def test_refuses(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
