"""Transformers that read: texts, sequences and images become classes or numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.positions import sinusoidal
from deepweave.functional.ragged import unpad, within
from deepweave.nn.dense import sizes_of, vocabulary_of
from deepweave.nn.language import hidden_of
from deepweave.nn.sequence import Embedding
from deepweave.nn.transformer import NORMS, Block, Blocks

READOUTS = ("mean", "max", "first")


class Patches(nn.Module):
    """An image as a sequence of patches: each is projected, and gets a vector of its place.

    Shapes: x (B, C, H, W) -> (B, H W / patch^2, features)
    """

    def __init__(self, shape: tuple[int, int, int], patch: int, features: int):
        super().__init__()
        channels, *sides = shape
        if patch < 1 or any(side % patch for side in sides):
            raise ValueError(f"vision_transformer: patch {patch} does not divide {shape[1:]}")
        self.patch, self.shape = patch, shape
        self.project = nn.Linear(channels * patch * patch, features)
        count = (sides[0] // patch) * (sides[1] // patch)
        self.place = nn.Parameter(torch.empty(count, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Places are normal with standard deviation 0.02."""
        nn.init.normal_(self.place, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != tuple(self.shape):
            raise ValueError(f"Patches: x must be (B, {self.shape}), got {tuple(x.shape)}")
        size = self.patch
        x = x.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # B, C, rows, size, columns, size
        return self.project(x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)) + self.place


class Frames(nn.Module):
    """The steps of a sequence of numbers, each projected. Shapes: (B, T, F) -> (B, T, features)"""

    def __init__(self, inputs: int, features: int):
        super().__init__()
        self.project = nn.Linear(inputs, features)

    def forward(self, x: Tensor) -> Tensor:
        wanted = self.project.in_features
        if x.dim() != 3 or x.shape[-1] != wanted:
            raise ValueError(f"Frames: x must be (B, T, {wanted}), got {tuple(x.shape)}")
        return self.project(x)


class Encoder(nn.Module):
    """What is read as a sequence of vectors, blocks that attend both ways, and a readout.

    Shapes: x (B, T), (B, T, F), (B, C, H, W) or Padded -> (B, outputs), or (B, T, outputs)
    """

    def __init__(
        self, embedding: nn.Module, stack: Blocks, features: int, outputs: int, readout: str | None
    ):
        super().__init__()
        if readout is not None and readout not in READOUTS:
            raise ValueError(f"transformer: readout must be one of {READOUTS}, got {readout!r}")
        self.embedding, self.stack, self.readout = embedding, stack, readout
        self.first = nn.Parameter(torch.zeros(features)) if readout == "first" else None
        self.waves = False  # whether places are told by sine waves that are added
        self.head = nn.Linear(features, outputs)

    def forward(self, x: Any, seen: list[Tensor] | None = None) -> Tensor:
        values, lengths = unpad(x, "transformer")
        z = self.embedding(values)
        if self.waves:
            places = torch.arange(z.shape[1], device=z.device)
            z = z + sinusoidal(places, z.shape[2]).to(z.dtype)
        if self.first is not None:
            z = torch.cat([self.first.expand(len(z), 1, -1), z], 1)
            lengths = None if lengths is None else lengths + 1
        real = None if lengths is None else within(lengths, z.shape[1])
        z = self.stack(z, None if real is None else real[:, None], seen=seen)
        return self.head(z if self.readout is None else read_out(z, real, self.readout))


def read_out(z: Tensor, real: Tensor | None, readout: str) -> Tensor:
    """One vector of a sequence: the ``"mean"`` or ``"max"`` over real places, or the ``"first"``.

    Shapes: z (B, T, features), real (B, T) bool or None: all are -> (B, features)
    """
    if readout == "first":
        return z[:, 0]
    if real is None:
        return z.mean(1) if readout == "mean" else z.amax(1)
    if readout == "max":
        return z.masked_fill(~real[..., None], torch.finfo(z.dtype).min).amax(1)
    share = real / real.sum(1, keepdim=True)
    return (share.to(z.dtype)[:, None] @ z)[:, 0]


def _stack(features: int, layers: int, heads: int, norm: str, pre: bool, **options: Any) -> Blocks:
    blocks = [Block(features, heads, norm=norm, pre=pre, **options) for _ in range(layers)]
    return Blocks(blocks, NORMS[norm](features) if pre else nn.Identity())


@blueprint
def transformer(
    sizes: Any,
    features: int = 64,
    layers: int = 2,
    *,
    heads: int = 4,
    hidden: int | None = None,
    position: str | None = "rotary",
    activation: str = "gelu",
    norm: str = "layer",
    pre: bool = True,
    dropout: float = 0.1,
    readout: str | None = "mean",
    window: int | None = None,
) -> Encoder:
    """A transformer encoder of texts or sequences (BERT), with a readout.

    Args:
        sizes: a data spec of texts or sequences; ((T,), outputs, vocabulary) for tokens,
            ((T, F), outputs) for numbers.
        features: of the residual stream.
        layers: how many blocks.
        heads: of attention.
        hidden: of the feed-forward networks; None: 4 features (8/3 for ``"swiglu"``).
        position: ``"rotary"``, ``"alibi"``, ``"relative"``, ``"sine"`` (waves that are added, as in
            the paper) or None: a bag of steps.
        activation, norm, pre, dropout: as of a language model.
        readout: the ``"mean"`` or ``"max"`` over real places, the ``"first"``, a vector of its own
            put before them; None: outputs at every place.
        window: attend to so many nearest places on both sides alone.

    Shapes: x (B, T) int64, (B, T, F) or Padded -> (B, outputs)

    Source: Vaswani et al., Attention is all you need, 2017; Devlin et al., BERT, 2019.

    >>> transformer(((9, 3), 5), 16, 1)(torch.zeros(2, 9, 3)).shape
    torch.Size([2, 5])
    """
    shape, outputs = sizes_of(sizes, "transformer")
    vocabulary = vocabulary_of(sizes)
    if vocabulary:
        # rare words move little: what they start with must be small beside what is learnt
        embedding: nn.Module = Embedding(vocabulary, features, std=0.1)
    elif len(shape) == 2:
        embedding = Frames(shape[1], features)
    else:
        raise ValueError(
            "transformer: sizes must be of tokens, ((T,), outputs, vocabulary), or of sequences, "
            f"((T, F), outputs), got {shape}; for images take vision_transformer"
        )
    stack = _stack(
        features, layers, heads, norm, pre, hidden=hidden_of(features, hidden, activation),
        activation=activation, dropout=dropout, window=window,
        position=None if position == "sine" else position,
    )  # fmt: skip
    made = Encoder(embedding, stack, features, outputs, readout)
    made.waves = position == "sine"
    return made


@blueprint
def vision_transformer(
    sizes: Any,
    features: int = 64,
    layers: int = 4,
    *,
    patch: int = 4,
    heads: int = 4,
    hidden: int | None = None,
    dropout: float = 0.0,
    readout: str = "mean",
) -> Encoder:
    """A transformer of images (ViT): patches as tokens, with a learnt vector for each place.

    Args:
        sizes: a data spec of images, or ((C, H, W), outputs).
        features, layers, heads, hidden, dropout, readout: as of a transformer.
        patch: the side of a patch, which must divide the image's.

    Shapes: x (B, C, H, W) -> (B, outputs)

    Raises:
        ValueError: no images, or a patch that does not divide them.

    Source: Dosovitskiy et al., An image is worth 16 x 16 words, 2021.

    >>> vision_transformer(((1, 8, 8), 10), 16, 1, patch=2)(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    shape, outputs = sizes_of(sizes, "vision_transformer")
    if len(shape) != 3:
        raise ValueError(f"vision_transformer: needs images (C, H, W), got {shape}")
    stack = _stack(
        features, layers, heads, "layer", True, hidden=hidden_of(features, hidden, "gelu"),
        dropout=dropout,
    )  # fmt: skip
    patches = Patches((shape[0], shape[1], shape[2]), patch, features)
    return Encoder(patches, stack, features, outputs, readout)
