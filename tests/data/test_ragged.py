"""Rows that are no rectangle: sequences end to end, batches of like lengths, tuples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings, strategies as st

from deepweave.data.ragged import Ragged, buckets
from deepweave.data.split import Split
from deepweave.functional.ragged import Padded, backwards, pad, unpad

sizes = st.lists(st.integers(1, 7), min_size=1, max_size=12)


def made(lengths, features=2):
    total = sum(lengths)
    return Ragged(torch.arange(1.0, 1 + total * features).view(total, features), lengths)


@given(sizes, st.data())
@settings(max_examples=40, deadline=None)
def test_take_is_each_sequence_padded_with_zeros(lengths, data):
    rows = made(lengths)
    index = torch.tensor(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1)))
    batch = rows.take(index)
    wanted = pad([rows.values.split(lengths)[i] for i in index.tolist()])
    assert torch.equal(batch.values, wanted.values)
    assert torch.equal(batch.lengths, wanted.lengths)
    assert bool((batch.values[~batch.mask] == 0).all())
    assert torch.equal(batch.mask.sum(1), batch.lengths)


@given(sizes, st.data())
@settings(max_examples=40, deadline=None)
def test_fewer_rows_are_the_same_sequences(lengths, data):
    rows = made(lengths)
    index = torch.tensor(data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1)))
    some, whole = rows[index].take(torch.arange(len(index))), rows.take(index)
    assert torch.equal(some.values, whole.values)
    assert torch.equal(rows[1:].lengths, rows.lengths[1:])


@given(sizes)
@settings(max_examples=30, deadline=None)
def test_backwards_turns_within_each_length_and_twice_is_nothing(lengths):
    batch = made(lengths).take(torch.arange(len(lengths)))
    turned = backwards(batch.values, batch.lengths)
    for i, length in enumerate(lengths):
        assert torch.equal(turned[i, :length], batch.values[i, :length].flip(0))
    assert torch.equal(backwards(turned, batch.lengths), batch.values)


def test_buckets_keep_every_row_and_pad_less():
    lengths = torch.randint(1, 60, (1000,), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(1000, generator=torch.Generator().manual_seed(1))
    drawn = buckets(lengths, order, 32, torch.Generator().manual_seed(2))
    assert torch.equal(drawn.sort().values, torch.arange(1000))

    def padded(index):
        return sum(int(lengths[part].max()) * len(part) for part in index.split(32))

    assert padded(drawn) < 1.05 * int(lengths.sum()) < padded(order) / 1.5


def test_buckets_come_in_any_order():
    lengths = torch.arange(200)
    drawn = [
        buckets(lengths, torch.arange(200), 10, torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    ]
    firsts = [one.view(20, 10)[:, 0] for one in drawn]
    assert not bool((firsts[0].diff() > 0).all())  # short ones first would be a curriculum
    assert torch.equal(firsts[0].sort().values, torch.arange(0, 200, 10))
    assert not torch.equal(*firsts)


def test_epochs_differ_and_can_be_entered_in_the_middle():
    rows = made([1 + i % 9 for i in range(200)])
    split = Split(rows, torch.arange(200))
    batches = split.batches(16)
    first, second = ([y.tolist() for _, y in batches.epoch(n, seed=3)] for n in (0, 1))
    assert first != second
    assert sorted(one for batch in first for one in batch) == list(range(200))
    assert [y.tolist() for _, y in batches.epoch(1, seed=3, start=5)] == second[5:]
    for x, y in batches.epoch(0):
        assert torch.equal(x.lengths, rows.lengths[y])


def test_members_have_orders_of_their_own():
    rows = made([1 + i % 9 for i in range(50)])
    split = Split(rows, torch.arange(50))
    x, y = next(iter(split.batches(8, members=3).epoch(0, seed=1)))
    assert isinstance(x, Padded)
    assert x.values.shape[:2] == (3, 8)
    assert torch.equal(x.lengths, rows.lengths[y])
    assert not torch.equal(y[0], y[1])


def test_tuples_of_rows_keep_their_form():
    split = Split((made([2, 1, 3]), torch.arange(3)), made([1, 1, 2]))
    assert len(split) == len(split[1:]) + 1 == 3
    (x, place), y = next(iter(split.batches(2, shuffle=False)))
    assert x.lengths.tolist() == [2, 1]
    assert place.tolist() == [0, 1]
    assert y.lengths.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Ragged(torch.zeros(3), [2, 0, 1]), "sequence 1 is empty"),
        (lambda: Ragged(torch.zeros(3), [2, 2]), "add up to 4"),
        (lambda: Split(made([1, 2]), torch.zeros(3)), "x has 2, y has 3"),
        (lambda: Split((torch.zeros(2), torch.zeros(3)), torch.zeros(2)), "one length"),
        (lambda: pad([torch.zeros(1), torch.zeros(0)]), "sequence 1 is empty"),
        (lambda: pad([]), "at least one sequence"),
        (lambda: unpad(torch.zeros(2, 0, 3), "lstm"), "lstm: .* at least one step"),
        (lambda: unpad(Padded(torch.zeros(2, 4), torch.tensor([1, 5])), "lstm"), r"1\.\.4, got 1"),
        (lambda: unpad(Padded(torch.zeros(2, 4), torch.tensor([1])), "lstm"), r"must be \(2,\)"),
    ],
)
def test_bad_rows_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
