"""The plots of a search, in the house style."""

from __future__ import annotations

import re

import pytest

from deepweave.report import studies
from deepweave.search import Random, minimize, space

SPACE = {
    "lr": space.log(1e-4, 1e-1),
    "width": space.integer(4, 64, log=True),
    "share": space.uniform(0, 0.5).when(kind="a"),
    "kind": space.choice("a", (64, 64), len),
    "count": space.integer(0, 3),
}


def value(s):
    if s["count"] == 3:
        raise RuntimeError("no")
    return (s["lr"] - 0.01) ** 2 * 1e4 + s["width"] / 640


def study(**options):
    found = minimize(value, SPACE, trials=40, sampler=Random(), **options)
    for one in found.trials[:9]:
        if one.status == "finished":
            one.status = "stopped"
    return found


@pytest.mark.parametrize("name", ["history", "slices", "parallel", "importance"])
def test_house_style(name):
    draw = getattr(studies, name)
    svg = draw(study())
    assert svg == draw(study())
    assert re.match(r"<svg [^>]*viewBox", svg)
    assert re.search(r'aria-label="[^"]{8,}"', svg)
    assert not re.search(r"(?<!, )#[0-9a-f]{6}\b", svg)
    assert float(re.findall(r'data-text="([\d.]+)"', svg)[0]) >= 9
    if name in ("slices", "parallel"):
        assert all(word in svg for word in SPACE)
        assert "64 64" in svg
        assert "len" in svg
    if name == "history":
        assert "failed" in svg
        assert "stopped early" in svg


def test_one_trial_and_none():
    one = minimize(value, {**SPACE, "count": space.choice(1)}, trials=1)
    for name in ("history", "slices", "parallel"):
        assert getattr(studies, name)(one).startswith("<svg")
    none = minimize(lambda s: float("nan"), SPACE, trials=3)
    with pytest.raises(ValueError, match="no trial gave a value"):
        studies.history(none)
