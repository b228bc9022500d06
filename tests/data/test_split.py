from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from deepweave.data import Batches, Split
from deepweave.data.split import divide
from deepweave.run import derive


def made(count: int = 50, weight: bool = False) -> Split:
    x = torch.arange(count * 3, dtype=torch.float32).reshape(count, 3)
    return Split(x, torch.arange(count), torch.ones(count) if weight else None)


@pytest.mark.parametrize("start", [0, 1, 5, 7])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("drop_last", [True, False])
def test_entering_an_epoch_in_the_middle_gives_its_tail(start, shuffle, drop_last):
    batches = made(50, weight=True).batches(7, shuffle, drop_last=drop_last)
    whole = list(batches.epoch(4, seed=3))
    tail = list(batches.epoch(4, seed=3, start=start))
    assert len(whole) == len(batches) == (7 if drop_last else 8)
    assert len(tail) == len(whole) - start
    for one, other in zip(whole[start:], tail):
        assert len(one) == 3
        assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_an_epoch_has_every_row_once_with_its_own_target():
    x, y = zip(*made(50).batches(8).epoch(0))
    x, y = torch.cat(x), torch.cat(y)
    assert torch.equal(y.sort().values, torch.arange(50))
    assert torch.equal(x[:, 0], y.float() * 3)


def test_the_order_depends_on_seed_and_epoch_alone():
    batches, again = made().batches(50), made().batches(50)
    torch.manual_seed(1)
    first = next(batches.epoch(2, seed=5))[1]
    torch.manual_seed(2)
    assert torch.equal(first, next(again.epoch(2, seed=5))[1])
    assert not torch.equal(first, next(batches.epoch(3, seed=5))[1])
    assert not torch.equal(first, next(batches.epoch(2, seed=6))[1])


def test_iterating_goes_through_the_epochs():
    batches = made().batches(50)
    assert torch.equal(next(iter(batches))[1], next(batches.epoch(0))[1])
    assert torch.equal(next(iter(batches))[1], next(batches.epoch(1))[1])


def test_batches_without_shuffling_are_views():
    split = made()
    x, _ = list(split.batches(8, shuffle=False))[2]
    assert x.data_ptr() == split.x[16].data_ptr()


def test_slicing_gives_splits():
    split = made(10, weight=True)
    part = split[torch.tensor([3, 1])]
    assert part.y.tolist() == [3, 1]
    assert part.weight is not None
    assert len(split[split.y > 6]) == 3
    with pytest.raises(TypeError, match=r"take split\[i : i \+ 1\]"):
        split[3]  # type: ignore[index]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Split(torch.zeros(3, 1), torch.zeros(4)), "x has 3, y has 4"),
        (lambda: Split(torch.zeros(3, 1), torch.zeros(3), torch.zeros(2)), "weight has 2"),
        (lambda: made().batches(0), "at least 1, got 0"),
        (lambda: made(5).batches(8, drop_last=True), "5 samples make no whole batch of 8"),
        (lambda: made(5).batches(2).epoch(0, start=4), "within 0 and 3 batches, got 4"),
        (lambda: Batches(made(5), -1), "at least 1"),
    ],
)
def test_errors(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(3, 60), min_size=1, max_size=12),
    shares=st.sampled_from([(0.7, 0.15, 0.15), (0.1, 0.45, 0.45), (0.98, 0.01, 0.01)]),
    seed=st.integers(0, 5),
)
def test_a_division_is_stratified_and_whole(sizes, shares, seed):
    codes = torch.cat([torch.full((size,), code) for code, size in enumerate(sizes)])
    codes = codes[torch.randperm(len(codes), generator=torch.Generator().manual_seed(seed))]
    parts = divide(len(codes), shares, seed, codes)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(len(codes)))
    for part, share in zip(parts, shares):
        counts = torch.bincount(codes[part], minlength=len(sizes))
        assert counts.min() >= 1
        exact = torch.tensor(sizes) * share
        # one row of rounding, and what every class of three rows must have
        assert (counts - exact).abs().max() <= 2 + 1e-6
    again = divide(len(codes), shares, seed, codes)
    assert all(torch.equal(a, b) for a, b in zip(parts, again))


def test_rounding_does_not_add_up_over_many_classes():
    codes = torch.arange(40).repeat_interleave(10)  # exact shares are 7, 1.5 and 1.5
    sizes = [len(part) for part in divide(400, (0.7, 0.15, 0.15), 0, codes)]
    assert sizes == [280, 60, 60]


def test_classes_of_one_and_two_rows_are_learned_first():
    codes = torch.tensor([0, 1, 1, *[2] * 20])
    train, validation, test = divide(23, (0.7, 0.15, 0.15), 0, codes)
    assert 0 in codes[train]
    assert 1 in codes[train]
    assert 1 in codes[test]
    assert 1 not in codes[validation]


def test_another_seed_is_another_division():
    one, other = (divide(100, (0.7, 0.15, 0.15), seed)[0] for seed in (0, 1))
    assert not torch.equal(one, other)


def test_members_have_orders_of_their_own():
    split = Split(torch.arange(10.0)[:, None], torch.arange(10))
    batches = list(split.batches(4, members=3).epoch(1, seed=5))
    assert [tuple(x.shape) for x, _ in batches] == [(3, 4, 1), (3, 4, 1), (3, 2, 1)]
    for i in range(3):
        alone = list(split.batches(4).epoch(1, seed=derive(5, "member", i)))
        for (x, y), (own_x, own_y) in zip(batches, alone, strict=True):
            assert torch.equal(x[i], own_x)
            assert torch.equal(y[i], own_y)
    again = list(split.batches(4, members=3).epoch(1, seed=5, start=2))
    assert torch.equal(again[0][0], batches[2][0])
    plain = list(split.batches(4, shuffle=False, members=2).epoch(0))
    assert plain[0][1].tolist() == [[0, 1, 2, 3]] * 2
