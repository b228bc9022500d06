"""Texts become numbers: words, characters or byte pairs of a vocabulary from the training texts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from deepweave.data.ragged import Ragged
from deepweave.functional.ragged import BEGIN, END, PAD, UNKNOWN

SPECIAL = ("<pad>", "<unknown>", "<begin>", "<end>")
WAYS = ("words", "characters", "symbols", "byte-pairs")
CODED = ("byte-pairs", "pieces")  # by a tokenizer of the package tokenizers
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


@dataclass(frozen=True)
class Text:
    """How raw texts become token numbers, and token numbers texts again.

    ``words`` are in lower case, punctuation marks count as words; ``symbols`` stand between
    spaces; ``byte-pairs`` are those of a tokenizer trained on the training texts. What the
    vocabulary lacks is ``<unknown>``; 0 is padding. ``pieces`` are those of a published tokenizer,
    with its own marks around every text and its own numbers, so that published weights fit.

    Shapes: N texts -> N sequences (T_i,) int64, each of at most ``longest`` tokens

    >>> text, _ = fit(["to be", "or not to be"], "words")
    >>> text.inputs(["to do"]).values.tolist(), text.tell([4, 5])
    ([5, 1], 'be to')
    """

    how: str
    vocabulary: tuple[str, ...]
    longest: int
    model: str = ""
    kind: ClassVar[Literal["text"]] = "text"

    @property
    def shape(self) -> tuple[int]:
        """The longest text."""
        return (self.longest,)

    @property
    def names(self) -> tuple[str, ...]:
        """Tokens are no features with names."""
        return ()

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each token."""
        return {token: number for number, token in enumerate(self.vocabulary)}

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of byte pairs or pieces."""
        made = _tokenizers().Tokenizer.from_str(self.model)
        if self.how == "pieces":  # cut before the last mark is set, and padded by the batch alone
            made.no_padding()
            made.enable_truncation(self.longest)
        return made

    @cached_property
    def marks(self) -> frozenset[int]:
        """The tokens that are no part of a text: padding, and what stands around it."""
        if self.how != "pieces":
            return frozenset((PAD, BEGIN, END))
        known = self.tokenizer.get_added_tokens_decoder()
        unknown = getattr(self.tokenizer.model, "unk_token", None)
        return frozenset(n for n, one in known.items() if one.special and one.content != unknown)

    def inputs(self, raw: Iterable[str]) -> Ragged:
        """Texts as token numbers.

        Raises:
            ValueError: a text is empty, or is no text.
        """
        texts = checked(raw)
        if self.how in CODED:
            coded = [one.ids for one in self.tokenizer.encode_batch(texts)]
        else:
            find = self.numbers.get
            coded = [[find(token, UNKNOWN) for token in split(one, self.how)] for one in texts]
        cut = [ids[: self.longest] for ids in coded]
        flat = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in cut])
        return Ragged(torch.from_numpy(flat), torch.tensor([len(ids) for ids in cut]))

    def tell(self, tokens: Iterable[int]) -> str:
        """Token numbers as text; padding and what marks begin and end are left out."""
        kept = [int(token) for token in tokens if int(token) not in self.marks]
        if self.how in CODED:
            return self.tokenizer.decode(kept, skip_special_tokens=False)
        return ("" if self.how == "characters" else " ").join(self.vocabulary[one] for one in kept)

    def to_json(self) -> dict[str, Any]:
        """The preparation as plain lists, numbers and strings."""
        return asdict(self) | {"vocabulary": list(self.vocabulary)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Text:
        """The preparation that ``to_json`` wrote."""
        return cls(**{**record, "vocabulary": tuple(record["vocabulary"])})


@dataclass(frozen=True)
class Pair:
    """Two sides of a translation, each with its own vocabulary."""

    source: Text
    target: Text
    kind: ClassVar[Literal["text"]] = "text"

    @property
    def shape(self) -> tuple[int]:
        """The longest source text."""
        return self.source.shape

    @property
    def names(self) -> tuple[str, ...]:
        """Tokens are no features with names."""
        return ()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """That of the source."""
        return self.source.vocabulary

    def inputs(self, raw: Iterable[str]) -> Ragged:
        """Source texts as token numbers."""
        return self.source.inputs(raw)

    def tell(self, tokens: Any) -> str:
        """Token numbers of the target as text."""
        return self.target.tell(tokens)

    def to_json(self) -> dict[str, Any]:
        """Both sides as plain lists, numbers and strings."""
        return {"source": self.source.to_json(), "target": self.target.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Pair:
        """The sides that ``to_json`` wrote."""
        return cls(*(Text.from_json(record[side]) for side in ("source", "target")))


def checked(raw: Iterable[str]) -> list[str]:
    """A list of texts.

    Raises:
        ValueError: a text is empty, or is no text.
    """
    texts = list(raw)
    for place, one in enumerate(texts, 1):
        if not isinstance(one, str):
            raise ValueError(f"inputs: text {place} must be a string, got {type(one).__name__}")
        if not one.strip() and "\n" not in one:
            raise ValueError(f"inputs: text {place} is empty")
    return texts


def split(text: str, how: str) -> list[str]:
    """The tokens of a text.

    >>> split("It's great!", "words"), split("AH B", "symbols"), split("ab", "characters")
    (["it's", 'great', '!'], ['AH', 'B'], ['a', 'b'])
    """
    if how == "words":
        return WORD.findall(text.lower())
    return list(text) if how == "characters" else text.split()


def fit(
    train: Iterable[str], how: str = "words", size: int = 8000, rare: int = 1, longest: int = 0
) -> tuple[Text, list[str]]:
    """The vocabulary that training texts ask for, and what was done in plain sentences.

    Args:
        train: the training texts.
        how: words, characters, symbols or byte-pairs.
        size: of the vocabulary, at most.
        rare: words seen fewer times are unknown.
        longest: tokens that a text may have; 0: as many as the longest training text.

    Raises:
        ValueError: an unknown way, an empty text, or a size that the four special tokens fill.
    """
    if how not in WAYS:
        raise ValueError(
            f"load: tokens must be one of {', '.join(WAYS)}, got {how!r}; texts that are only read "
            "may take minilm, or the path of a tokenizer.json"
        )
    if size <= len(SPECIAL):
        raise ValueError(f"load: vocabulary must be more than {len(SPECIAL)}, got {size}")
    texts = checked(train)
    if how == "byte-pairs":
        model, vocabulary = _byte_pairs(texts, size)
        made = Text(how, vocabulary, 2**31, model)
        lengths = made.inputs(texts).lengths
    else:
        tokens = [split(one, how) for one in texts]
        lengths = torch.tensor([len(one) for one in tokens])
        seen = Counter(token for one in tokens for token in one)
        # by how often, then by the alphabet: the same numbers whatever the order of the texts
        kept = sorted((-count, token) for token, count in seen.items() if count >= rare)
        vocabulary = (*SPECIAL, *(token for _, token in kept[: size - len(SPECIAL)]))
        made = Text(how, vocabulary, 0)
    most = longest or int(lengths.max())
    name = "byte pairs" if how == "byte-pairs" else how
    said = [
        f"Texts of at most {most} {name}, of a vocabulary of {len(vocabulary)} from the training "
        "texts; others are unknown."
    ]
    return Text(how, vocabulary, most, made.model), said


def _byte_pairs(texts: Sequence[str], size: int) -> tuple[str, tuple[str, ...]]:
    tokenizers = _tokenizers()
    coder = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=SPECIAL[1]))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    coder.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    coder.train_from_iterator(texts, trainer)
    numbered = sorted(coder.get_vocab().items(), key=lambda one: one[1])
    return coder.to_str(), tuple(token for token, _ in numbered)


def _tokenizers() -> Any:
    try:
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers  # noqa: F401
    except ImportError:
        raise ImportError(
            'load: byte pairs and pieces need tokenizers: pip install "deepweave[text]"'
        ) from None
    return tokenizers
