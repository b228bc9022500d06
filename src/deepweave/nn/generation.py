"""Writing with a model: token by token, or the best of several ways at once."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Generator, Tensor

from deepweave.functional.ragged import BEGIN, END, PAD, UNKNOWN

UNWRITTEN = (PAD, UNKNOWN, BEGIN)  # marks that are no part of a text, the first of all tokens


class Writer(Protocol):
    """A model that writes: it begins, perhaps from a source, and goes on with tokens."""

    training: bool

    def begin(self, size: int, source: Any = None) -> Any: ...

    def go_on(self, tokens: Tensor, state: Any) -> Tensor: ...


def choose(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: Generator | None = None,
) -> Tensor:
    """Draw a token from each row of logits.

    Temperature divides the logits (0: the likeliest); ``top_k`` keeps the k likeliest; ``top_p``
    the fewest likeliest that together have at least this probability (nucleus).

    Shapes: logits (B, V) -> (B,)

    Source: Holtzman et al., The curious case of neural text degeneration, 2020.

    >>> choose(torch.tensor([[0.0, 3.0, 1.0]]), temperature=0.0).tolist()
    [1]
    """
    if temperature < 0:
        raise ValueError(f"choose: temperature must not be below 0, got {temperature}")
    if top_k is not None and top_k < 1:
        raise ValueError(f"choose: top_k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ValueError(f"choose: top_p must lie in (0, 1], got {top_p}")
    if temperature == 0:
        return logits.argmax(-1)
    if temperature != 1:
        logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k, -1).values[:, -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p is not None and top_p < 1:
        ordered, place = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        ordered = ordered.masked_fill(before >= top_p, -torch.inf)
        logits = torch.full_like(logits, -torch.inf).scatter(-1, place, ordered)
    # the draw of torch.multinomial, the first of exponential times, without its wait for a check
    times = torch.empty_like(logits).exponential_(generator=generator)
    return (logits.softmax(-1) / times).argmax(-1)


def generate(
    model: Any,
    prompt: Tensor | None = None,
    steps: int = 100,
    *,
    source: Any = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    end: int | None = END,
    generator: Generator | None = None,
) -> Tensor:
    """Write ``steps`` more tokens, one after the other, each from all before it.

    Padding, the unknown token and the mark of a beginning are never drawn.

    Args:
        model: a language model or a translator; any :class:`Writer`.
        prompt: what it goes on with, (B, T); None: the mark of a beginning (with a source).
        steps: how many tokens at most.
        source: what a translator reads.
        temperature, top_k, top_p: how tokens are drawn, see :func:`choose`; 0: the likeliest.
        end: a text that wrote it is done, and gets padding; None: none ends.
        generator: of the draws.

    Shapes: prompt (B, T) -> (B, up to steps), without the prompt

    Raises:
        ValueError: neither prompt nor source, or numbers that make no sense.

    >>> from deepweave.nn import language_model
    >>> model = language_model(((8,), 10, 10), 16, 1, heads=2)
    >>> generate(model, torch.tensor([[2, 5]]), 3, end=None).shape
    torch.Size([1, 3])
    """
    tokens = _prompt(prompt, source)
    if steps < 1:
        raise ValueError(f"generate: steps must be at least 1, got {steps}")
    was = model.training
    model.eval()
    try:
        with torch.inference_mode():
            written = _write(
                model, tokens, steps, source, end, temperature=temperature, top_k=top_k,
                top_p=top_p, generator=generator,
            )  # fmt: skip
    finally:
        model.train(was)
    return torch.stack(written, 1)  # tensors that training may use


def _write(
    model: Any, tokens: Tensor, steps: int, source: Any, end: int | None, **options: Any
) -> list[Tensor]:
    state = model.begin(tokens.shape[1] + steps, source)
    written, marks = [], None
    going = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
    for _ in range(steps):
        logits = model.go_on(tokens, state)
        marks = _marks(logits) if marks is None else marks
        drawn = choose(logits.masked_fill(marks, -torch.inf), **options)
        if end is not None:
            drawn = torch.where(going, drawn, PAD)
            going = going & (drawn != end)
        written.append(drawn)
        if end is not None and not going.any():
            break
        tokens = drawn[:, None]
    return written


def beam_search(
    model: Any,
    prompt: Tensor | None = None,
    steps: int = 100,
    *,
    source: Any = None,
    beams: int = 4,
    end: int = END,
    length_penalty: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The likeliest text of several that are written at once.

    Of every text the ``beams`` likeliest beginnings go on; a text counts
    log p / tokens^length_penalty (its end included), and the best that ended is given.

    Args:
        model, prompt, steps, source: as of :func:`generate`.
        beams: how many beginnings go on.
        end: the token that ends a text.
        length_penalty: 0: the sum of log-probabilities; 1: their mean.

    Shapes: prompt (B, T) -> tokens (B, up to steps), padded, and their scores (B,)

    Source: Wu et al., Google's neural machine translation system, 2016 (length normalisation).
    """
    if beams < 1:
        raise ValueError(f"beam_search: beams must be at least 1, got {beams}")
    if steps < 1:
        raise ValueError(f"beam_search: steps must be at least 1, got {steps}")
    tokens = _prompt(prompt, source)
    was = model.training
    model.eval()
    try:
        with torch.inference_mode():
            found, score = _search(model, tokens, steps, source, beams, end, length_penalty)
    finally:
        model.train(was)
    return found.clone(), score.clone()


def _search(
    model: Any, tokens: Tensor, steps: int, source: Any, beams: int, end: int, penalty: float
) -> tuple[Tensor, Tensor]:
    size, device = len(tokens), tokens.device
    state = model.begin(tokens.shape[1] + steps, source)
    logits = model.go_on(tokens, state)
    marks = _marks(logits)
    log_p = logits.masked_fill(marks, -torch.inf).log_softmax(-1)
    many = log_p.shape[-1]
    beams = min(beams, many)
    state.select(torch.arange(size, device=device).repeat_interleave(beams))
    total, first = log_p.topk(beams, -1)  # (B, beams)
    texts = first[..., None]
    best = torch.full((size,), -torch.inf, device=device)
    kept = torch.zeros(size, steps, dtype=torch.long, device=device)
    rows = torch.arange(size, device=device)[:, None]
    for count in range(1, steps + 1):
        ended = texts[:, :, -1] == end
        if count == steps:
            ended = torch.ones_like(ended)
        score = torch.where(ended & total.isfinite(), total / count**penalty, -torch.inf)
        top, which = score.max(1)
        better = top > best
        found = torch.zeros_like(kept)
        found[:, :count] = texts[rows[:, 0], which]
        kept, best = torch.where(better[:, None], found, kept), torch.where(better, top, best)
        total = total.masked_fill(ended, -torch.inf)
        # log p only falls: with no penalty above 1 what cannot be better any more is done
        reach = total.max(1).values / (steps if penalty > 0 else 1) ** penalty
        if count == steps or bool((reach <= best).all()):
            break
        logits = model.go_on(texts[:, :, -1].reshape(-1, 1), state)
        log_p = logits.masked_fill(marks, -torch.inf).log_softmax(-1)
        paths = (total[..., None] + log_p.view(size, beams, many)).flatten(1)
        total, place = paths.topk(beams, -1)
        parent = place // many
        state.select((rows * beams + parent).flatten())
        texts = torch.cat([texts[rows, parent], (place % many)[..., None]], -1)
    longest = int((kept != PAD).sum(1).max())
    return kept[:, :longest], best


def _marks(logits: Tensor) -> Tensor:
    """True for padding, the unknown and the mark of a beginning, which nobody writes: (V,)."""
    return torch.arange(logits.shape[-1], device=logits.device) <= max(UNWRITTEN)


def _prompt(prompt: Tensor | None, source: Any) -> Tensor:
    if prompt is None:
        if source is None:
            raise ValueError("generate: there must be a prompt (B, T), or a source to translate")
        values = source if isinstance(source, Tensor) else source[0]
        return torch.full((len(values), 1), BEGIN, device=values.device)
    if prompt.dim() != 2 or prompt.shape[1] == 0:
        raise ValueError(
            f"generate: prompt must be (B, T) with T at least 1, got {tuple(prompt.shape)}"
        )
    return prompt
