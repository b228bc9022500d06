"""The recipes of topics 13 and 15 that write: what they must show, and their baselines by hand."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

import deepweave as dw
from deepweave import recipes
from deepweave.data.ragged import Ragged
from deepweave.data.tokens import pairs
from deepweave.recipes import attention, translation

KNOWN = {"name": "a", "title": "A", "source": "-", "licence": "-"}


def made(rows, ways=("characters", "symbols")):
    return pairs(rows, KNOWN, ways=ways, splits=(0.6, 0.2, 0.2))


def test_letters_are_counted_with_what_stands_around_them():
    """c is K before a, S before e; x is two sounds, h is none."""
    sounds = {"a": "AE", "e": "EH", "b": "B", "d": "D", "x": "K S", "h": ""}
    starts = [first + middle for first in "abdexh" for middle in ("ca", "ce", "bx", "da")]
    words = [start + last for start in starts for last in "bdaex"]

    def said(word):
        out = []
        for i, letter in enumerate(word):
            if letter == "c":
                out.append("K" if word[i + 1] == "a" else "S")
            elif sounds[letter]:
                out.append(sounds[letter])
        return " ".join(out)

    data = made([(word, said(word)) for word in words])
    context, alone = attention._counted(data)
    true = attention._told(data.test.y, data)
    assert sum(a == b for a, b in zip(context, true)) >= 0.95 * len(true)
    assert sum(a == b for a, b in zip(alone, true)) < 0.85 * len(true)  # one sound for every c
    assert sum(a == b for a, b in zip(alone, true)) > 0.5 * len(true)


def test_scores_of_words():
    found = attention._scores([("A", "B"), ("C",)], [("A", "B"), ("C", "D")])
    assert float(found["word_accuracy"]) == 0.5
    assert float(found["error_rate"]) == 0.25


def test_the_nearest_text_is_that_of_tfidf():
    english = [f"the word{i} is the word{i + 1}" for i in range(40)]
    data = made([(one, f"v{i}") for i, one in enumerate(english)], ("words", "words"))
    found = translation._nearest(data.test, data)
    form = data.preparation.features.source

    def weights(rows):
        each = rows.values.split(rows.lengths.tolist())
        size = data.spec.vocabulary
        return torch.stack([torch.bincount(one, minlength=size).float() for one in each])

    known, asked = weights(data.train.x[0]), weights(data.test.x[0])
    rare = ((1 + len(known)) / (1 + (known > 0).sum(0))).log() + 1
    known, asked = (torch.nn.functional.normalize(one * rare, dim=1) for one in (known, asked))
    best = (asked @ known.T).argmax(1)
    assert found == translation._told(data.train.y[best], data)
    assert form.how == "words"


def test_translations_are_cut_to_what_was_asked():
    chosen = translation._chosen(100, 7, 0)
    assert len(chosen) == 7
    assert torch.equal(chosen, chosen.sort().values)
    assert torch.equal(translation._chosen(5, 10**9, 3), torch.arange(5))
    rows = Ragged(torch.tensor([4, 3, 5, 4, 3]), [2, 3])
    form = SimpleNamespace(target=SimpleNamespace(tell=lambda ids: ids))
    data = SimpleNamespace(preparation=SimpleNamespace(features=form))
    assert translation._told(rows, data) == [[4, 3], [5, 4, 3]]
    assert translation._text([4, 1, 5], data) == [4, 5]  # nobody scores by what is unknown


@pytest.mark.long
def test_attention(tmp_path, capsys):
    run = recipes.find("attention")(quick=True, out=tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    names = ["01-scores", "02-learning", *(f"03-word-{i}" for i in range(1, 5))]
    assert [f["file"] for f in info["figures"]] == [f"figures/{one}.svg" for one in names]
    assert info["main"] == "test/word_accuracy"
    assert info["scores"].keys() == info["baseline"].keys()
    assert info["baseline"]["test/word_accuracy"]["value"] > 0.1
    assert info["baseline"]["test/loss"]["value"] > info["scores"]["test/loss"]["value"]
    assert len(info["rivals"]) == 4
    assert all(rival.keys() == info["scores"].keys() for rival in info["rivals"].values())
    assert dw.load(tmp_path / "run").attention.score == "additive"
    assert run.model.attention is not None


@pytest.mark.long
@pytest.mark.parametrize("kind", ["translator", "seq2seq"])
def test_translation(kind, tmp_path, capsys):
    recipes.find("translation")(kind=kind, quick=True, out=tmp_path / "run")
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    names = ["01-chrf", "02-looks"]
    assert [f["file"] for f in info["figures"]] == [f"figures/{one}.svg" for one in names]
    assert info["scores"].keys() == info["baseline"].keys()
    assert 0 < info["baseline"]["test/chrf"]["low"] < info["baseline"]["test/chrf"]["value"]
    assert [t["title"] for t in info["tables"]] == ["Ways to translate", "Test texts"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("attention", {"score": "near"}, "score must be one of none, dot"),
        ("attention", {"data": "reviews", "words": 60}, "must be pairs of texts"),
        ("translation", {"kind": "human"}, "kind must be translator or seq2seq"),
    ],
)
def test_refusals(name, options, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        recipes.find(name)(**options, out=tmp_path / "run")
