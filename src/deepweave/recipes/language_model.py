"""Topic 15: a language model, character by character, beside counting."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe, subject


@recipe("15 Transformers: language model", seconds=150)
def language_model(
    data: str = "pydoc",
    *,
    tokens: str = "characters",
    vocabulary: int = 2000,
    context: int = 128,
    features: int = 128,
    layers: int = 4,
    heads: int = 4,
    activation: str = "gelu",
    position: str = "rotary",
    dropout: float = 0.0,
    epochs: int = 3,
    batch: int = 8,
    lr: float = 0.003,
    order: int = 5,
    prompt: str = "The ",
    temperature: float = 0.7,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A transformer learns to continue a text, is measured in bits, and writes.

    Args:
        data: a named text, or a file .txt of your own.
        tokens: characters, words or byte-pairs.
        vocabulary: how many words or byte pairs.
        context: tokens that the model sees.
        features: of the residual stream.
        layers: how many blocks.
        heads: of attention.
        activation: of the feed-forward networks, such as gelu or swiglu.
        position: rotary, alibi or relative.
        dropout: of attention weights and of what is added.
        epochs: passes over the training part.
        batch: windows per step.
        lr: the highest learning rate.
        order: of the counts beside: how many tokens the longest one has.
        prompt: what it goes on with.
        temperature: of the draws, below 1 for likelier texts.
        full: twelve times as long, with dropout.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    limit = None
    if quick:
        limit, context, features, layers, epochs = 600, 64, 64, 2, 1
    if full:
        epochs, dropout = 12 * epochs, max(dropout, 0.2)
    text = dw.data.load(
        data, tokens=tokens, vocabulary=vocabulary, context=context, limit=limit, seed=seed
    )
    if text.spec.task != "tokens" or isinstance(text.train.x, tuple):
        raise ValueError(f"language-model: data must be one text to continue, got {text.title}")
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    model = dw.nn.language_model(
        text.spec, features, layers, heads=heads, activation=activation, position=position,
        dropout=dropout,
    )  # fmt: skip
    step = dw.Descent(dw.supervise(model, text.spec), "AdamW", lr=lr, weight_decay=0.1)
    hooks = [dw.hooks.Schedule(dw.hooks.cosine, warmup=0.05), dw.hooks.Clip(norm=1.0)]
    run = dw.fit(step, text, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=home(out))
    run.test()
    counts = dw.metrics.tokens(*_counted(text, order))
    run.rival(f"counts of up to {order} {_unit(tokens)}", counts)
    run.tell(
        question=f"How well can a small transformer continue {subject(text)}?",
        title=f"A transformer continues {subject(text)}",
    )
    _written(run, text, prompt, temperature, 40 if quick else 200, seed)
    _places(run, text)
    _looks(run, text)
    return run


def _unit(tokens):
    return {"characters": "characters", "words": "words"}.get(tokens, "tokens")


def _counted(text, order):
    """Loss, hits and tokens of each test window, by counts of up to ``order`` tokens.

    Witten-Bell: p(t | h) = (c(h t) + n(h) p(t | shorter h)) / (c(h) + n(h)), n(h) the number of
    different tokens seen after h; the shortest history is none, before it all are alike.
    """
    import torch

    size = text.spec.outputs
    order = min(order, int(62 / torch.tensor(float(size)).log2()))  # a history is one number
    stream = torch.cat([text.train.x.flatten(), text.train.y[-1, -1:]])
    tables = []
    for length in range(order):
        pairs, count = torch.unique(_codes(stream, length + 1, size), return_counts=True)
        known, place = torch.unique(pairs // size, return_inverse=True)
        total = torch.zeros(len(known)).index_add_(0, place, count.float())
        tables.append((pairs, count.float(), known, total, torch.bincount(place).float()))
    found = []
    for x, y in text.test.batches(16, shuffle=False):
        p = torch.full((*y.shape, size), 1.0 / size)
        for length, (pairs, count, known, total, kinds) in enumerate(tables):
            history = torch.full_like(x, -1)  # none so long: met nowhere
            history[:, max(length - 1, 0) :] = _codes(x, length, size)
            at = torch.searchsorted(known, history).clamp_max(len(known) - 1)
            met = known[at] == history
            ids = history[..., None] * size + torch.arange(size)
            pair = torch.searchsorted(pairs, ids).clamp_max(len(pairs) - 1)
            times = torch.where(pairs[pair] == ids, count[pair], 0.0)
            mixed = (times + kinds[at][..., None] * p) / (total[at] + kinds[at])[..., None]
            p = torch.where(met[..., None], mixed, p)
        loss = -p.gather(-1, y[..., None])[..., 0].log()
        right = (p.argmax(-1) == y).sum(1)
        found.append(torch.stack([loss.sum(1), right, torch.full_like(right, y.shape[1])]))
    return torch.cat(found, 1)


def _codes(tokens, length, size):
    """Every run of so many tokens as one number; of none 0, at each place."""
    import torch

    if not length:
        return torch.zeros_like(tokens)
    powers = size ** torch.arange(length - 1, -1, -1)
    return (tokens.unfold(-1, length, 1) * powers).sum(-1)


def _written(run, text, prompt, temperature, length, seed):
    """Texts at three temperatures."""
    import torch

    form = text.preparation.features
    start = form.inputs([prompt]).values[None]
    rows = []
    for level, limit in ((0.0, None), (temperature, None), (temperature, 0.9), (1.0, None)):
        generator = torch.Generator().manual_seed(dw.run.derive(seed, "writing", str(level)))
        drawn = dw.nn.generate(
            run.model, start, length, temperature=level, top_p=limit, end=None,
            generator=generator,
        )  # fmt: skip
        said = form.tell([*start[0].tolist(), *drawn[0].tolist()])
        kept = "all" if limit is None else f"the likeliest {limit:.0%}"
        rows.append([f"{level:g}", kept, said])
    run.table(
        "What it writes",
        ["temperature", "drawn from", "text"],
        rows,
        f"Each goes on from “{prompt}”. At temperature 0 the likeliest token is always taken.",
    )


def _places(run, text):
    """The loss by how much of the window was seen."""
    import math

    import torch

    from deepweave.report import plots

    with torch.no_grad():
        total = torch.zeros(text.test.y.shape[1])
        for x, y in text.test.batches(64, shuffle=False):
            log_p = run.model(x).log_softmax(-1)
            total -= log_p.gather(-1, y[..., None])[..., 0].sum(0)
    bits = total / len(text.test) / math.log(2)
    seen = torch.arange(1, len(bits) + 1)
    run.figure(
        "01-context",
        plots.curves({"test": (seen.numpy(), bits.numpy())}, x="tokens seen", y="bits per token"),
        title="The more it has seen, the better it knows what comes",
        caption="Bits per token of the test part, by how many tokens of the window came before.",
        alt="bits per token against the number of tokens seen, falling",
    )


def _looks(run, text, length=24):
    """The weights of the first layer's heads on a piece of test text."""
    import torch

    from deepweave.report.alignments import alignment

    piece = text.test.x[:1, :length]
    seen = []
    with torch.no_grad():
        run.model(piece, seen=seen)
    form = text.preparation.features
    said = [form.tell([token]) or form.vocabulary[token] for token in piece[0].tolist()]
    for number, layer in ((1, seen[0]), (len(seen), seen[-1])):
        weights = layer[0][:4].numpy()
        names = [f"head {i + 1}" for i in range(len(weights))]
        run.figure(
            f"02-looks-{number}",
            alignment(weights, said, said, names=names, across=2, alt=f"attention, layer {number}"),
            title=f"What each place looks at in layer {number}",
            caption="Rows are places of the text, columns what they may attend to: none comes "
            "later. Dark is much.",
            alt=f"weights of the heads of layer {number} over {length} tokens",
        )
