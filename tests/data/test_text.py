"""Texts as tokens: vocabularies from training alone, streams, pairs, files."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import deepweave as dw
from deepweave.data.prepare import Preparation
from deepweave.data.text import SPECIAL, fit

RHYME = ["Twinkle, twinkle, little star!", "How I wonder what you are.", "Up above the world"]


@pytest.mark.parametrize("how", ["words", "characters", "symbols", "byte-pairs"])
def test_tokens_come_back_as_text(how):
    text, _ = fit(RHYME, how, size=400)
    coded = text.inputs(RHYME)
    back = [text.tell(part.tolist()) for part in coded.values.split(coded.lengths.tolist())]
    plain = [one.lower().replace(" ", "") if how == "words" else one.strip() for one in RHYME]
    found = [one.replace(" ", "") if how == "words" else one.strip() for one in back]
    assert found == plain
    assert text.vocabulary[:4] == SPECIAL
    assert len(set(text.vocabulary)) == len(text.vocabulary)
    assert int(coded.values.min()) >= 4


def test_the_vocabulary_is_that_of_training():
    data = dw.data.load("reviews", limit=400)
    known = set(data.preparation.features.vocabulary)
    features = data.preparation.features
    rows = [features.tell(x) for x in data.train.x.take(torch.arange(len(data.train))).values]
    assert set(" ".join(rows).split()) == known - set(SPECIAL)
    held = data.test.x.values
    assert bool((held == 1).any())  # words of the test set alone are unknown
    assert data.spec.vocabulary == len(known)


def test_more_words_than_room_keep_the_frequent():
    text, _ = fit(["a a a b b c"], "words", size=6)
    assert text.vocabulary == (*SPECIAL, "a", "b")


def test_long_texts_are_cut_and_marks_are_not_told():
    text, _ = fit(["a b c", "d"], "words", longest=2)
    assert text.inputs(["a b c", "d"]).lengths.tolist() == [2, 1]
    assert text.tell([2, 4, 1, 5, 3, 0]) == "a <unknown> b"


def test_preparation_survives_json():
    for name, options in (("pronunciations", {}), ("reviews", {"tokens": "byte-pairs"})):
        data = dw.data.load(name, limit=60, **options)
        again = Preparation.from_json(data.preparation.to_json())
        assert again == data.preparation
        word = ["abc"]
        assert torch.equal(again.inputs(word).values, data.preparation.inputs(word).values)


def test_a_stream_is_cut_in_its_order(tmp_path):
    letters = "".join(chr(97 + i % 26) for i in range(1000))
    (tmp_path / "a.txt").write_text(letters)
    data = dw.data.load(tmp_path / "a.txt", context=10)
    tell = data.preparation.features.tell
    assert tell(data.train.x[0].tolist()) == letters[:10]
    assert tell(data.train.y[0].tolist()) == letters[1:11]
    assert tell(data.test.x[0].tolist()) == letters[850:860]
    assert data.spec.task == "tokens"
    assert data.spec.outputs == data.spec.vocabulary == 30


def test_a_stream_knows_what_its_training_part_has(tmp_path):
    (tmp_path / "a.txt").write_text("ab" * 400 + "abxyz" * 40)
    data = dw.data.load(tmp_path / "a.txt", context=10)
    assert data.preparation.features.vocabulary == (*SPECIAL, "a", "b")
    assert set(data.test.x.unique().tolist()) == {1, 4, 5}


def test_pairs_know_what_their_training_part_has():
    rows = [(f"w{i}", f"v{i}") for i in range(60)]
    known = {"name": "a", "title": "A", "source": "-", "licence": "-"}
    data = dw.data.tokens.pairs(rows, known)
    count = len(data.train)
    assert len(data.preparation.features.source.vocabulary) == 4 + count
    assert data.spec.outputs == 4 + count
    assert bool((data.test.x[0].values == 1).all())
    assert data.test.y.values.unique().tolist() == [1, 3]


def test_a_limit_takes_pairs_from_everywhere():
    rows = [(f"w{i}", f"v{i}") for i in range(300)]
    known = {"name": "a", "title": "A", "source": "-", "licence": "-"}
    first, again, other = (
        dw.data.tokens.pairs(rows, known, limit=60, seed=seed) for seed in (0, 0, 1)
    )
    assert sum(map(len, first.splits.values())) == 60
    words = first.preparation.features.source.vocabulary[4:]
    places = sorted(int(word[1:]) for word in words)
    assert places[-1] > 200
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_pairs_of_one_source_stay_together():
    rows = [(f"w{i // 3}", f"v{i}") for i in range(90)]
    known = {"name": "a", "title": "A", "source": "-", "licence": "-"}
    data = dw.data.tokens.pairs(rows, known)
    tell = data.preparation.features.source.tell
    sources = []
    for split in data.splits.values():
        codes = split.x[0]
        words = {tell(part.tolist()) for part in codes.values.split(codes.lengths.tolist())}
        sources.append(words - {"<unknown>"})
    assert not sources[0] & sources[1]
    assert not sources[0] & sources[2]
    x, target = data.train.x
    assert bool((target.values[target.starts] == 2).all())  # begins with the mark of it
    assert bool((data.train.y.values[data.train.y.starts + data.train.y.lengths - 1] == 3).all())
    assert torch.equal(target.lengths, data.train.y.lengths)
    assert len(x) == len(data.train)


def test_a_table_gives_its_column_of_text(tmp_path):
    frame = pd.DataFrame({"said": ["good", "bad"] * 10, "label": [1, 0] * 10})
    path = tmp_path / "a.csv"
    frame.to_csv(path, index=False)
    data = dw.data.load(path, tokens="words")
    assert (data.spec.kind, data.spec.task, data.spec.vocabulary) == ("text", "binary", 6)
    x, y, ids = dw.data.read(path, data.preparation)
    assert len(x) == len(y) == len(ids) == 20


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda: dw.data.load("reviews", tokens="letters"), "tokens must be one of words"),
        (lambda: dw.data.load("digits", tokens="words"), "does not hold"),
        (lambda: dw.data.load("pydoc", task="binary"), "leave target= and task= out"),
        (lambda: dw.data.load("pydoc", context=10**6), "too few for a window"),
        (lambda: fit(["a", " "]), "text 2 is empty"),
        (lambda: fit(["a"], size=4), "more than 4"),
        (lambda: dw.data.load(pd.DataFrame({"a": [1.0] * 6, "y": [0, 1] * 3}), tokens="words"),
         "one column of text in every row, there is none"),
    ],
)  # fmt: skip
def test_bad_texts_are_refused(act, said):
    with pytest.raises(ValueError, match=said):
        act()


def test_a_file_that_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"ab\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8 text: byte 2"):
        dw.data.load(tmp_path / "a.txt")


@pytest.mark.parametrize("name", ["digits", "reviews", "pydoc", "karate"])
def test_a_named_set_is_opened_once(name, monkeypatch):
    from dataclasses import replace

    from deepweave.data.named import NAMED

    row, calls = NAMED[name], []

    def counted():
        calls.append(name)
        return row.open()

    monkeypatch.setitem(NAMED, name, replace(row, open=counted))
    dw.data.load(name)
    assert calls == [name]
