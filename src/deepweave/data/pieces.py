"""Published tokenizers: a ``tokenizer.json``, with the numbers that published weights expect."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from deepweave.data.resolve import locate
from deepweave.data.sources import SOURCES
from deepweave.data.text import Text, checked
from deepweave.functional.ragged import PAD

FILE = "tokenizer.json"


def published(tokens: str) -> str | None:
    """The published tokenizer that ``tokens`` names, as JSON; None where it names none.

    Args:
        tokens: a fetched model that has one, such as ``"minilm"``, or the path of a ``.json``.

    Raises:
        FileNotFoundError: it is not on this machine.
        ValueError: the file is not UTF-8 text.
    """
    source = SOURCES.get(tokens)
    if source is not None and FILE in source.files:
        return locate(source, FILE).content().decode()
    path = Path(tokens)
    if path.suffix.lower() != ".json":
        return None
    if not path.is_file():
        raise FileNotFoundError(f"load: there is no file {path}")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"load: {path} is no tokenizer: byte {error.start} is not UTF-8") from None


def pieces(train: Iterable[str], model: str, name: str) -> tuple[Text, list[str]]:
    """Texts by a published tokenizer, and what was done in plain sentences.

    Nothing is fitted but the longest text: that of the training texts, within what the tokenizer
    itself cuts at.

    Args:
        train: the training texts.
        model: the tokenizer, as JSON.
        name: of the tokenizer, for the sentence.

    Raises:
        ValueError: it cannot be read, or its padding is another number than 0.
    """
    texts = checked(train)
    try:
        known = json.loads(model)
        cut = (known.get("truncation") or {}).get("max_length", 2**31)
        draft = Text("pieces", (), cut, model)
        coder = draft.tokenizer
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"load: {name} is no tokenizer: {error}") from None
    except ImportError:
        raise
    except Exception as error:  # the reader of the format has no error of its own
        raise ValueError(f"load: {name} is no tokenizer: {error}") from None
    padding = (known.get("padding") or {}).get("pad_id", coder.token_to_id("[PAD]"))
    if padding != PAD:
        told = "it has none" if padding is None else f"its own is {padding}"
        raise ValueError(f"load: padding of {name} must be the number {PAD}, {told}")
    size = coder.get_vocab_size()
    vocabulary = tuple(coder.id_to_token(number) or f"<{number}>" for number in range(size))
    longest = int(draft.inputs(texts).lengths.max())
    said = [
        f"Texts of at most {longest} pieces, marks included, by the published tokenizer "
        f"{Path(name).name} with its own vocabulary of {size}."
    ]
    return Text("pieces", vocabulary, longest, model), said
