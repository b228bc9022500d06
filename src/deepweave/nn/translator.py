"""From one text to another: an encoder reads, a decoder writes and looks at what was read."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepweave.blueprint import blueprint
from deepweave.functional.ragged import unpad, within
from deepweave.nn.dense import sizes_of
from deepweave.nn.language import State, hidden_of, needed
from deepweave.nn.sequence import Embedding
from deepweave.nn.transformer import NORMS, Block, Blocks


class Translator(nn.Module):
    """An encoder of the source and a causal decoder of the target that attends to it.

    Shapes: (source (B, S), target so far (B, T)), tensors or Padded -> logits (B, T, outputs)
    """

    def __init__(
        self, vocabulary: int, outputs: int, features: int, encoder: Blocks, decoder: Blocks
    ):
        super().__init__()
        self.source, self.target = Embedding(vocabulary, features), Embedding(outputs, features)
        self.encoder, self.decoder = encoder, decoder
        self.head = nn.Linear(features, outputs, bias=False)

    def forward(self, x: Any, seen: list[Tensor] | None = None) -> Tensor:
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise ValueError("Translator: x must be (source, target so far)")
        memory, mask = self.encode(x[0])
        target, _ = unpad(x[1], "Translator")
        return self.head(self.decoder(self.target(target), None, memory, mask, seen=seen))

    def encode(self, source: Any) -> tuple[Tensor, Tensor | None]:
        """What was read, (B, S, features), and which places of it are real, (B, 1, S)."""
        values, lengths = unpad(source, "Translator")
        mask = None if lengths is None else within(lengths, values.shape[1])[:, None]
        return self.encoder(self.source(values), mask), mask

    def begin(self, size: int, source: Any = None) -> State:
        """A state that has read the source, with room for so many tokens."""
        if source is None:
            raise ValueError("generate: a translator needs a source")
        memory, mask = self.encode(source)
        return State(len(self.decoder.blocks), size, memory, mask)

    def go_on(self, tokens: Tensor, state: State) -> Tensor:
        """The logits after the last of more tokens (B, t): (B, outputs)."""
        x = self.decoder(self.target(tokens), None, state.memory, state.mask, state.caches)
        return self.head(x[:, -1])


@blueprint
def translator(
    sizes: Any,
    features: int = 128,
    layers: int = 3,
    *,
    heads: int = 4,
    hidden: int | None = None,
    activation: str = "gelu",
    norm: str = "layer",
    pre: bool = True,
    dropout: float = 0.1,
) -> Translator:
    """The transformer of the paper: an encoder and a decoder of so many blocks each.

    Places are told by rotary positions in both.

    Args:
        sizes: a data spec of pairs of texts, or ((S,), target tokens, source tokens).
        features, layers, heads, hidden, activation, norm, pre, dropout: as of a language model.

    Shapes: (source (B, S), target so far (B, T)) -> logits (B, T, outputs)

    Source: Vaswani et al., Attention is all you need, 2017.

    >>> import torch
    >>> model = translator(((5,), 20, 30), 16, 1)
    >>> model((torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 7, dtype=torch.long))).shape
    torch.Size([2, 7, 20])
    """
    _, outputs = sizes_of(sizes, "translator")
    vocabulary = needed(sizes, "translator")
    shared: dict[str, Any] = {
        "activation": activation, "norm": norm, "pre": pre, "dropout": dropout,
        "position": "rotary",
    }  # fmt: skip
    wide = hidden_of(features, hidden, activation)
    stacks = []
    for memory, causal in ((None, False), (features, True)):
        blocks = [
            Block(features, heads, wide, memory=memory, causal=causal, **shared)
            for _ in range(layers)
        ]
        stacks.append(Blocks(blocks, NORMS[norm](features) if pre else nn.Identity()))
    return Translator(vocabulary, outputs, features, *stacks)
