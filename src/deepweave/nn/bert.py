"""BERT: an encoder whose published weights load by their official names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.ragged import unpad, within
from deepweave.nn.dense import sizes_of, vocabulary_of
from deepweave.nn.dropout import Dropout
from deepweave.nn.encoder import READOUTS, Frames, read_out
from deepweave.nn.language import hidden_of
from deepweave.nn.sequence import Embedding
from deepweave.nn.transformer import Block, Blocks

READS = (*READOUTS, "pooled")
EPS = 1e-12  # of every layer norm, as published

# official names -> ours; of query, key and value see `official`
_FRONT = {
    "embeddings.word_embeddings.weight": "embedding.tokens.weight",
    "embeddings.position_embeddings.weight": "embedding.places",
    "embeddings.token_type_embeddings.weight": "embedding.kinds",
    "embeddings.LayerNorm": "embedding.norm",
    "pooler.dense": "pool",
}
_BLOCK = {
    "attention.output.dense": "attention.out",
    "attention.output.LayerNorm": "norm",
    "intermediate.dense": "forward_net.inner",
    "output.dense": "forward_net.out",
    "output.LayerNorm": "norm_forward",
}
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.(.+)")


class Front(nn.Module):
    """What a token says, where it stands and of which text it is, added and normed.

    x_t = norm(E[token_t] + P[t] + K[kind_t])

    Shapes: tokens (B, T) int64, or numbers (B, T, F); kinds (B, T) int64 -> (B, T, features)

    Raises:
        ValueError: more tokens than places, or kinds of another shape.
    """

    def __init__(
        self, tokens: nn.Module, features: int, positions: int, kinds: int, dropout: float
    ):
        super().__init__()
        self.tokens = tokens
        self.places = nn.Parameter(torch.empty(positions, features))
        self.kinds = nn.Parameter(torch.empty(kinds, features))
        self.norm = nn.LayerNorm(features, eps=EPS)
        self.drop = Dropout(dropout) if dropout else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Places and kinds are normal with standard deviation 0.02."""
        for table in (self.places, self.kinds):
            nn.init.normal_(table, std=0.02)

    def forward(self, x: Tensor, kinds: Tensor | None = None) -> Tensor:
        most = len(self.places)
        if x.shape[1] > most:
            raise ValueError(f"bert: a text may have {most} tokens at most, got {x.shape[1]}")
        if kinds is not None and kinds.shape != x.shape[:2]:
            wanted = tuple(x.shape[:2])
            raise ValueError(f"bert: kinds must be (B, T) = {wanted}, got {tuple(kinds.shape)}")
        kind = self.kinds[0] if kinds is None else nn.functional.embedding(kinds, self.kinds)
        return self.drop(self.norm(self.tokens(x) + self.places[: x.shape[1]] + kind))


class BERT(nn.Module):
    """Embeddings, post-norm blocks that attend both ways, a readout and a head.

    Shapes: x (B, T) tokens, (B, T, F) numbers, or Padded -> (B, outputs), or (B, T, outputs)
    """

    def __init__(self, embedding: Front, stack: Blocks, outputs: int | None, readout: str | None):
        super().__init__()
        features = embedding.places.shape[1]
        self.embedding, self.stack, self.readout = embedding, stack, readout
        self.pool = nn.Linear(features, features) if readout == "pooled" else None
        self.head = nn.Identity() if outputs is None else nn.Linear(features, outputs)

    def forward(
        self, x: Any, kinds: Tensor | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        return self.head(self.features(x, kinds, seen))

    def features(
        self, x: Any, kinds: Tensor | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """What the head sees: one vector of a text, or without a readout one of each token.

        Args:
            x: tokens, or Padded.
            kinds: of which of two texts each token is, 0 or 1; None: all of the first.
            seen: a list that gets the attention weights of each block, (B, H, T, T).

        Shapes: x (B, T) -> (B, features), or (B, T, features)
        """
        values, lengths = unpad(x, "bert")
        z = self.embedding(values, kinds)
        real = None if lengths is None else within(lengths, z.shape[1])
        z = self.stack(z, None if real is None else real[:, None], seen=seen)
        if self.readout is None:
            return z
        if self.pool is not None:
            return self.pool(z[:, 0]).tanh()
        return read_out(z, real, self.readout)

    def adopt(self, weights: Mapping[str, Tensor]) -> BERT:
        """Take published weights by their official names, all but the head; the network itself.

        What they have and this network has no place for is told, and so is what they lack. The
        pooler is left out where the readout is another.

        Raises:
            ValueError: names that are unknown or missing, or other shapes.
        """
        told = official(weights)
        own = {
            name: value
            for name, value in self.state_dict().items()
            if not name.startswith("head.") and not name.endswith(".rate")
        }
        if self.pool is None:
            told = {name: value for name, value in told.items() if not name.startswith("pool.")}
        for many, what in ((own.keys() - told.keys(), "lack"), (told.keys() - own.keys(), "have")):
            if many:
                more = f" and {len(many) - 1} more" if len(many) > 1 else ""
                tail = "" if what == "lack" else ", for which this network has no place"
                raise ValueError(f"adopt: the weights {what} {min(many)}{more}{tail}")
        for name, value in own.items():
            if value.shape != told[name].shape:
                raise ValueError(
                    f"adopt: {name} must be {tuple(value.shape)}, got {tuple(told[name].shape)}"
                )
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(told[name])
        return self


def official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a BERT under our names; query, key and value of a layer become one matrix.

    Names are those of Hugging Face, with or without ``bert.`` before them. The counter
    ``position_ids`` holds nothing, and the heads of pretraining (``cls.``) are left out.

    Raises:
        ValueError: a name that a BERT has not, or a layer without query, key or value.

    >>> layer = "encoder.layer.0.attention.self."
    >>> one = {f"{layer}{part}.bias": torch.ones(2) for part in ("query", "key", "value")}
    >>> official(one)
    {'stack.blocks.0.attention.project.bias': tensor([1., 1., 1., 1., 1., 1.])}
    """
    found: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for whole, value in weights.items():
        name = whole.removeprefix("bert.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")  # of the first files
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        if name == "embeddings.position_ids" or name.startswith("cls."):
            continue
        layer = _LAYER.fullmatch(name)
        table, rest, ahead = _FRONT, name, ""
        if layer:
            table, rest, ahead = _BLOCK, layer[2], f"stack.blocks.{layer[1]}."
        stem, _, kind = rest.rpartition(".")
        if layer and stem.startswith("attention.self.") and kind in ("weight", "bias"):
            joined = parts.setdefault(f"{ahead}attention.project.{kind}", {})
            joined[stem.removeprefix("attention.self.")] = value
        elif rest in table:
            found[table[rest]] = value
        elif stem in table and kind in ("weight", "bias"):
            found[f"{ahead}{table[stem]}.{kind}"] = value
        else:
            raise ValueError(f"official: a BERT has no {whole!r}")
    for name, three in parts.items():
        if set(three) != {"query", "key", "value"}:
            raise ValueError(
                f"official: {name} is made of query, key and value, got {', '.join(sorted(three))}"
            )
        found[name] = torch.cat([three[part] for part in ("query", "key", "value")])
    return found


@blueprint
def bert(
    sizes: Any,
    features: int = 768,
    layers: int = 12,
    *,
    heads: int = 12,
    hidden: int | None = None,
    positions: int = 512,
    kinds: int = 2,
    activation: str = "gelu",
    dropout: float = 0.1,
    readout: str | None = "mean",
    head: bool = True,
) -> BERT:
    """The transformer encoder of BERT, part by part as published, so that its weights load.

    x = norm(E[token] + P[place] + K[kind]); each block: x <- norm(x + attention(x)), then
    x <- norm(x + W2 gelu(W1 x)); biases everywhere, exact GELU, layer norms with eps 1e-12.

    Args:
        sizes: a data spec of texts or sequences; ((T,), outputs, vocabulary) for tokens,
            ((T, F), outputs) for numbers.
        features: of the residual stream.
        layers: how many blocks.
        heads: of attention.
        hidden: of the feed-forward networks; None: 4 features.
        positions: the longest text.
        kinds: texts that may stand one after the other in a sequence.
        activation: of the feed-forward networks.
        dropout: of attention weights, of what is added, and of the embeddings.
        readout: the ``"mean"`` or ``"max"`` over real places, the ``"first"``, which stands for
            the text, that one through BERT's ``"pooled"`` layer tanh(W z + b); None: every place.
        head: a fresh linear layer for the task; without it the readout itself comes out.

    Shapes: x (B, T) int64, (B, T, F) or Padded -> (B, outputs), or (B, features) without a head

    Raises:
        ValueError: texts longer than ``positions``, an unknown readout, or sizes that do not fit.

    Source: Devlin, Chang, Lee & Toutanova, BERT: pre-training of deep bidirectional transformers
    for language understanding, 2019.

    >>> net = bert(((9,), 3, 100), 16, 2, heads=2)
    >>> net(torch.ones(2, 9, dtype=torch.long)).shape
    torch.Size([2, 3])
    """
    shape, outputs = sizes_of(sizes, "bert")
    vocabulary = vocabulary_of(sizes)
    if not vocabulary and len(shape) != 2:
        raise ValueError(
            "bert: sizes must be of tokens, ((T,), outputs, vocabulary), or of sequences, "
            f"((T, F), outputs), got {shape}"
        )
    if readout is not None and readout not in READS:
        raise ValueError(
            f"bert: readout must be one of {', '.join(READS)} or None, got {readout!r}"
        )
    if min(positions, kinds, layers) < 1:
        raise ValueError(
            "bert: positions, kinds and layers must be at least 1, got "
            f"{positions}, {kinds}, {layers}"
        )
    if shape[0] > positions:
        raise ValueError(
            f"bert: texts of {shape[0]} tokens need as many positions, got {positions}"
        )
    if vocabulary:
        tokens: nn.Module = Embedding(vocabulary, features, std=0.02)
    else:
        tokens = Frames(shape[1], features)
    blocks = [
        Block(
            features, heads, hidden_of(features, hidden, activation), activation=activation,
            pre=False, eps=EPS, dropout=dropout, bias=True,
        )
        for _ in range(layers)
    ]  # fmt: skip
    front = Front(tokens, features, positions, kinds, dropout)
    return BERT(front, Blocks(blocks, nn.Identity()), outputs if head else None, readout)


@blueprint
def minilm(
    sizes: Any, *, dropout: float = 0.1, readout: str | None = "mean", head: bool = True
) -> BERT:
    """MiniLM: a BERT of 6 layers and 384 features, which learned from a larger one.

    Its published weights, of English sentences, are fetched by
    ``python -m deepweave.data.fetch minilm`` and come in by
    ``minilm(data.spec).adopt(dw.data.weights("minilm"))``, for texts that
    ``load(..., tokens="minilm")`` has read.

    Args:
        sizes, dropout, readout, head: as of a BERT.

    Shapes: x (B, T) int64 or Padded -> (B, outputs), or (B, 384) without a head

    Raises:
        ValueError: sizes that are of no tokens, or of more than 512.

    Source: Wang et al., MiniLM: deep self-attention distillation for task-agnostic compression of
    pre-trained transformers, 2020; Reimers & Gurevych, Sentence-BERT, 2019.

    >>> net = minilm(((128,), 1, 30522))
    >>> sum(weight.numel() for weight in net.parameters())
    22565761
    """
    if not vocabulary_of(sizes):
        raise ValueError("minilm: sizes must be of tokens, ((T,), outputs, vocabulary)")
    return bert(sizes, 384, 6, heads=12, dropout=dropout, readout=readout, head=head)
