"""Topic 15: a transformer reads sentences of film reviews, beside a bag of words."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe, subject

NOTED = "I love this movie, it's great!"  # the sentence of the notes


@recipe("15 Transformers: reading", seconds=120)
def transformer(
    data: str = "reviews",
    *,
    target: str | None = None,
    tokens: str = "words",
    vocabulary: int = 20000,
    features: int = 64,
    layers: int = 1,
    heads: int = 4,
    dropout: float = 0.5,
    forget: float = 0.3,
    epochs: int = 8,
    batch: int = 64,
    lr: float = 0.0015,
    seeds: int = 3,
    sentence: str = NOTED,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A transformer encoder tells good from bad, and shows what it looks at.

    Args:
        data: a named set of texts, or a table of your own with a column of text.
        target: the column to predict, for a table of your own.
        tokens: words, characters or byte-pairs.
        vocabulary: how many of them at most.
        features: of the residual stream.
        layers: how many blocks.
        heads: of attention.
        dropout: of attention weights and of what is added.
        forget: share of words that are unknown while training.
        epochs: passes over the training texts.
        batch: texts per step.
        lr: the highest learning rate.
        seeds: divisions of the data, each with networks of its own, for the comparison.
        sentence: what is read step by step, with every shape shown.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    limit = 1200 if quick else None
    if quick:
        epochs, seeds = 2, 2

    def read(number):
        named = {"target": target, "tokens": tokens, "vocabulary": vocabulary, "limit": limit}
        return dw.data.load(data, seed=number, **named)

    def learn(texts, number, folder):
        dw.chance.seed_all(dw.run.derive(number, "weights"))
        model = dw.nn.transformer(texts.spec, features, layers, heads=heads, dropout=dropout)
        objective = dw.Augment(
            dw.supervise(model, texts.spec), lambda x: dw.functional.forget(x, forget)
        )
        step = dw.Descent(objective, "AdamW", lr=lr, weight_decay=0.01)
        hooks = [dw.hooks.Schedule(dw.hooks.cosine, warmup=0.1), dw.hooks.Average(0.99)]
        return dw.fit(step, texts, epochs=epochs, batch=batch, seed=number, hooks=hooks, out=folder)

    texts = read(seed)
    if texts.spec.kind != "text" or texts.spec.task not in ("binary", "multiclass"):
        raise ValueError(f"transformer: data must be texts with classes, got {texts.title}")
    run = learn(texts, seed, home(out))
    run.test()
    words = bag(texts)
    run.rival("bag of words", words)
    run.tell(
        question=f"What does attention add to words in {subject(texts)}?",
        title=f"A transformer on {subject(texts)}",
    )
    pairs = [(run.predict(texts.test.x), words, texts.test.y)]
    for number in range(seed + 1, seed + seeds):
        other = read(number)
        made = learn(other, number, home(out) / f"seed-{number}")
        pairs.append((made.predict(other.test.x), bag(other), other.test.y))
    _compared(run, pairs)
    _read(run, texts, sentence)
    return run


def bag(texts):
    """Logistic regression on TF-IDF of single words and pairs; its strength by validation."""
    import numpy as np
    import torch
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    said = {}
    for name, split in texts.splits.items():
        ids = split.x.values.split(split.x.lengths.tolist())
        said[name] = [" ".join(map(str, one.tolist())) for one in ids]
    best, chosen = -np.inf, None
    for reach in ((1, 1), (1, 2)):
        form = TfidfVectorizer(ngram_range=reach, token_pattern=r"\S+", sublinear_tf=True)
        x = {name: (form.fit_transform if name == "train" else form.transform)(rows)
             for name, rows in said.items()}  # fmt: skip
        for strength in (1.0, 3.0, 10.0, 30.0):
            model = LogisticRegression(C=strength, max_iter=2000)
            model.fit(x["train"], texts.train.y.numpy())
            right = model.score(x["validation"], texts.validation.y.numpy())
            if right > best:
                best, chosen = right, model.predict_proba(x["test"])
    p = torch.from_numpy(np.asarray(chosen)).float()
    return p[:, 1] if texts.spec.task == "binary" else p


def _compared(run, pairs):
    """Accuracy of both on every division, and the difference."""
    import torch

    every = tuple(torch.cat([pair[i] for pair in pairs]) for i in range(3))
    rows = []
    for name, (ours, words, y) in zip(
        [*map(str, range(1, len(pairs) + 1)), "all"], [*pairs, every]
    ):
        right = [dw.metrics.accuracy(one, y).text(3, percent=True) for one in (ours, words)]
        gap = dw.metrics.difference(dw.metrics.accuracy, _hard(ours), _hard(words), y)
        told = " to ".join(f"{100 * end:+.1f}" for end in (gap.low, gap.high))
        rows.append([name, *right, f"{100 * gap:+.1f} [{told}]"])
    run.table(
        "Transformer and bag of words",
        ["division", "transformer", "bag of words", "difference in points"],
        rows,
        "Each division of the data has networks and a bag of words of its own. The bag is logistic "
        "regression on TF-IDF of words and pairs of words, its strength chosen by validation. "
        "Intervals of the difference are paired over test sentences.",
    )


def _hard(p):
    return (p > 0.5).long() if p.dim() == 1 else p.argmax(1)


def _read(run, texts, sentence):
    """The sentence of the notes through the network: every shape, and where it looks."""
    import torch

    from deepweave.report.alignments import alignment

    form = texts.preparation.features
    tokens = form.inputs([sentence]).take(torch.tensor([0])).values
    said = [form.vocabulary[token] for token in tokens[0].tolist()]
    model, seen, rows = run.model, [], [["tokens", str(tuple(tokens.shape)), " ".join(said)]]

    def note(name, told):
        return lambda _, __, found: rows.append(
            [name, str(tuple((found[0] if isinstance(found, tuple) else found).shape)), told]
        )

    hooks = [model.embedding.register_forward_hook(note("embedding", "a vector for each token"))]
    for place, block in enumerate(model.stack.blocks, 1):
        told = "each place takes from all others what it looks at"
        inner = note(f"attention {place}", told)
        hooks.append(block.attention.register_forward_hook(inner))
        dense = note(f"feed-forward {place}", "the same two dense layers at every place")
        hooks.append(block.forward_net.register_forward_hook(dense))
    hooks.append(model.stack.register_forward_hook(note("last norm", "")))
    hooks.append(model.head.register_forward_hook(note("logits", "of the mean over the places")))
    with torch.no_grad():
        model(tokens, seen=seen)
        p = run.objective.predict(tokens).flatten()
    for hook in hooks:
        hook.remove()
    for place, weights in enumerate(seen, 1):
        shape = str(tuple(weights.shape))
        rows.append([f"weights {place}", shape, "of every head, from each place to each"])
    share = float(p[0]) if texts.spec.task == "binary" else float(p.max())
    name = texts.spec.classes[1 if texts.spec.task == "binary" else int(p.argmax())]
    run.table(
        f"“{sentence}” step by step", ["", "shape", ""], rows, f"It is “{name}” with {share:.1%}."
    )
    weights = seen[-1][0]
    run.figure(
        "01-looks",
        alignment(
            weights, said, said, names=[f"head {i + 1}" for i in range(len(weights))],
            across=2, labels=("place", "looks at"), alt="attention of each head",
        ),
        title="What each place looks at",
        caption=f"Attention weights of the last layer on “{sentence}”. Dark is much.",
        alt=f"weights of {len(weights)} heads over {len(said)} tokens",
    )  # fmt: skip
