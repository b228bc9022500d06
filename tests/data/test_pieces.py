"""Published tokenizers: their numbers, their marks, and what is saved of them; fetched weights."""

from __future__ import annotations

import json

import pytest
import torch

import deepweave as dw
from deepweave.data.pieces import pieces
from deepweave.data.prepare import Preparation

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*MARKS, "a", "good", "film", "##s", "bad", "."]


def tokenizer(words=WORDS, **changes):
    """A small tokenizer of word pieces, as BERT's are written."""
    marks = {name: words.index(name) for name in MARKS}
    frame = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
             {"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    made = {
        "version": "1.0",
        "truncation": {"max_length": 6, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            "strategy": {"Fixed": 8},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": marks["[PAD]"],
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [
            {"id": number, "special": True, "content": name, **plain}
            for name, number in marks.items()
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": frame,
            "pair": [*frame, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {
                name: {"id": name, "ids": [marks[name]], "tokens": [name]}
                for name in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(words)},
        },
    }
    return json.dumps(made | changes)


def test_numbers_marks_and_cuts_are_the_tokenizers_own():
    form, said = pieces(["a good film.", "bad"], tokenizer(), "some/own.json")
    assert form.vocabulary == tuple(WORDS)
    assert form.longest == form.shape[0] == 6
    rows = form.inputs(["A GOOD film", "bad films, bad films, bad", "bad"])
    parts = [part.tolist() for part in rows.values.split(rows.lengths.tolist())]
    # the last mark stands behind what was cut; nothing is padded
    assert parts == [[2, 4, 5, 6, 3], [2, 8, 6, 7, 1, 3], [2, 8, 3]]
    assert form.tell([*parts[1], 0, 0]) == "bad films [UNK]"
    assert said == [
        "Texts of at most 6 pieces, marks included, by the published tokenizer own.json with its "
        "own vocabulary of 10."
    ]


def test_the_longest_is_that_of_training():
    form, _ = pieces(["bad"], tokenizer(truncation=None), "own")
    assert form.longest == 3
    assert form.inputs(["a good film"]).values.tolist() == [2, 4, 3]


def test_a_file_of_ones_own_is_used_by_load_and_saved(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer())
    texts = ["a good film", "bad films", "good", "a bad film ."] * 10
    data = dw.data.load((texts, [1, 0, 1, 0] * 10), tokens=str(path))
    assert (data.spec.kind, data.spec.vocabulary, data.spec.shape) == ("text", 10, (6,))
    path.unlink()
    again = Preparation.from_json(json.loads(json.dumps(data.preparation.to_json())))
    assert again == data.preparation
    new = ["A film", "good ."]
    assert again.inputs(new).values.tolist() == [2, 4, 6, 3, 2, 5, 9, 3]
    net = dw.nn.bert(data.spec, 8, 1, heads=2)
    dw.fit(dw.supervise(net, data.spec), data, epochs=1, out=tmp_path / "run")
    (tmp_path / "new.txt").write_text("\n".join(new))
    assert dw.load(tmp_path / "run")(again.inputs(new).take(torch.arange(2))).shape == (2, 1)


def test_the_same_division_whatever_the_tokens(tmp_path):
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer())
    words, parts = (
        dw.data.load("reviews", limit=90, seed=3, tokens=how) for how in ("words", str(path))
    )
    for name, split in words.splits.items():
        assert torch.equal(split.y, parts.splits[name].y)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("no json", "own is no tokenizer: Expecting value"),
        ("[1]", "own is no tokenizer"),
        ('{"a": 1}', "own is no tokenizer"),
        (tokenizer([*WORDS[4:], *MARKS]), "padding of own must be the number 0, its own is 6"),
    ],
)
def test_what_is_no_tokenizer(model, said):
    with pytest.raises(ValueError, match=said):
        pieces(["a"], model, "own")


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none.json"):
        dw.data.load("reviews", tokens=str(tmp_path / "none.json"))
    (tmp_path / "bad.json").write_bytes(b"{\xff")
    with pytest.raises(ValueError, match="byte 1 is not UTF-8"):
        dw.data.load("reviews", tokens=str(tmp_path / "bad.json"))
    monkeypatch.setenv("DEEPWEAVE_CACHE", str(tmp_path))
    for act in (
        lambda: dw.data.load("reviews", tokens="minilm"),
        lambda: dw.data.weights("minilm"),
    ):
        with pytest.raises(FileNotFoundError, match=r"deepweave.data.fetch minilm"):
            act()
    with pytest.raises(ValueError, match=r"no weights of 'minilmm' .*minilm"):
        dw.data.weights("minilmm")
    with pytest.raises(ValueError, match="no weights of 'mnist' in safetensors"):
        dw.data.weights("mnist")


def test_texts_to_be_written_need_tokens_of_their_own():
    for name in ("pydoc", "verses"):
        with pytest.raises(ValueError, match="tokens must be one of words"):
            dw.data.load(name, tokens="minilm", limit=300)
