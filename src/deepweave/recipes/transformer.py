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
    pretrained: bool = False,
    passes: int = 2,
    rate: float = 1e-4,
    sentence: str = NOTED,
    full: bool = False,
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
        pretrained: MiniLM too, whose weights learned from other texts, fine-tuned on these; once
            fetched by `python -m deepweave.data.fetch minilm`.
        passes: over the training texts, of MiniLM.
        rate: its highest learning rate.
        sentence: what is read step by step, with every shape shown.
        full: the long form: with MiniLM.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    limit = 1200 if quick else None
    pretrained = pretrained or full
    if quick:
        epochs, seeds, passes = 2, 2, 1

    def read(number, how):
        named = {"target": target, "tokens": how, "vocabulary": vocabulary, "limit": limit}
        return dw.data.load(data, seed=number, **named)

    def learn(texts, number, folder):
        dw.chance.seed_all(dw.run.derive(number, "weights"))
        model = dw.nn.transformer(texts.spec, features, layers, heads=heads, dropout=dropout)
        objective = dw.Augment(
            dw.supervise(model, texts.spec), lambda x: dw.functional.forget(x, forget)
        )
        step = dw.Descent(objective, "AdamW", lr=lr, weight_decay=0.01)
        hooks = [
            dw.hooks.Schedule(dw.hooks.cosine, warmup=0.1),
            dw.hooks.Average(0.99),
            # what is asked is how many are right: the loss turns up before they stop growing
            dw.hooks.Validate(texts.validation, monitor="accuracy", maximise=True),
        ]
        return dw.fit(step, texts, epochs=epochs, batch=batch, seed=number, hooks=hooks, out=folder)

    def tune(texts, number, folder):
        dw.chance.seed_all(dw.run.derive(number, "weights"))
        model = dw.nn.minilm(texts.spec).adopt(dw.data.weights("minilm"))
        model.embedding.requires_grad_(False)  # 7,000 sentences have few of its 30,522 words
        step = dw.Descent(dw.supervise(model, texts.spec), "AdamW", lr=rate, weight_decay=0.01)
        hooks = [dw.hooks.Schedule(dw.hooks.linear, warmup=0.1)]
        return dw.fit(step, texts, epochs=passes, batch=32, seed=number, hooks=hooks, out=folder)

    texts = read(seed, tokens)
    if texts.spec.kind != "text" or texts.spec.task not in ("binary", "multiclass"):
        raise ValueError(f"transformer: data must be texts with classes, got {texts.title}")

    def division(number):
        """What each says of the test texts of a division, and who says it first."""
        own = texts if number == seed else read(number, tokens)
        folder = home(out) if number == seed else home(out) / f"seed-{number}"
        if not pretrained:
            made, parts = learn(own, number, folder), own
            found = {"transformer": made.predict(own.test.x)}
        else:
            parts = read(number, "minilm")  # the same texts in every split
            made = tune(parts, number, folder)
            found = {"MiniLM": made.predict(parts.test.x)}
            scratch = learn(own, number, folder / "scratch")
            found["from scratch"] = scratch.predict(own.test.x)
        found["bag of words"] = bag(own)
        return made, parts, found, own.test.y

    run, shown, found, y = division(seed)
    run.test()
    for name, prediction in list(found.items())[1:]:
        run.rival(name, prediction)
    few = subject(texts)
    if pretrained:
        question = f"What does a network that has read other texts add to words in {few}?"
        run.tell(question=question, title=f"MiniLM, fine-tuned on {few}")
    else:
        question = f"What does attention add to words in {few}?"
        run.tell(question=question, title=f"A transformer on {few}")
    divisions = [(found, y)]
    divisions += [division(number)[2:] for number in range(seed + 1, seed + seeds)]
    _compared(run, divisions)
    _read(run, shown, sentence)
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


def _compared(run, divisions):
    """Accuracy of each on every division, and the differences to the bag of words."""
    import torch

    names = list(divisions[0][0])
    y = torch.cat([target for _, target in divisions])
    every = {name: torch.cat([found[name] for found, _ in divisions]) for name in names}
    rows, gaps = [], {}
    labels = [*map(str, range(1, len(divisions) + 1)), "all"]
    for label, (found, target) in zip(labels, [*divisions, (every, y)]):
        right = [dw.metrics.accuracy(found[one], target).text(3, percent=True) for one in names]
        words = _hard(found[names[-1]])
        for name in names[:-1]:
            gap = dw.metrics.difference(dw.metrics.accuracy, _hard(found[name]), words, target)
            told = " to ".join(f"{100 * end:+.1f}" for end in (gap.low, gap.high))
            gaps[name] = gap
            right.append(f"{100 * gap:+.1f} [{told}]")
        rows.append([label, *right])
    said = ", ".join(f"{name} is {_verdict(gap)}" for name, gap in gaps.items())
    ends = [f"{name} minus bag, points" for name in names[:-1]]
    run.table(
        "Transformer and bag of words",
        ["division", *names, *(ends if len(ends) > 1 else ["difference in points"])],
        rows,
        f"Beside the bag of words, over all divisions, {said}. Each division of the data has "
        "networks and a bag of words of its own. The bag is logistic regression on TF-IDF of words "
        "and pairs of words, its strength chosen by validation. Intervals of the difference are "
        "paired over test sentences.",
    )


def _verdict(gap):
    """What the interval of the difference over all divisions says, and no more."""
    if gap.low > 0:
        return "ahead"
    return "behind" if gap.high < 0 else "level"


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
    last = (
        "after the last block" if isinstance(model.stack.norm, torch.nn.Identity) else "last norm"
    )
    hooks.append(model.stack.register_forward_hook(note(last, "")))
    hooks.append(model.head.register_forward_hook(note("logits", "of the mean over the places")))
    with torch.no_grad():
        model(tokens, seen=seen)
        for hook in hooks:  # before the network runs once more
            hook.remove()
        p = run.objective.predict(tokens).flatten()
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
            across=2 if len(weights) <= 4 else 3, labels=("place", "looks at"),
            alt="attention of each head",
        ),
        title="What each place looks at",
        caption=f"Attention weights of the last layer on “{sentence}”. Dark is much.",
        alt=f"weights of {len(weights)} heads over {len(said)} tokens",
    )  # fmt: skip
