"""Topic 13: letters become sounds, with attention and without, and what it looks at."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe

SCORES = ("none", "dot", "scaled", "multiplicative", "additive")


@recipe("13 Attention", seconds=110)
def attention(
    data: str = "pronunciations",
    *,
    score: str = "additive",
    features: int = 96,
    dropout: float = 0.2,
    words: int = 8000,
    epochs: int = 6,
    batch: int = 64,
    lr: float = 0.004,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A network learns to pronounce words; five ways to score, one of them without attention.

    Args:
        data: a named set of pairs of texts.
        score: the one whose run this is: none, dot, scaled, multiplicative or additive.
        features: of embeddings and states.
        dropout: of embeddings and of what the logits are made of.
        words: how many, for all three splits.
        epochs: passes over the training words.
        batch: words per step.
        lr: the highest learning rate.
        full: all words, twice as many passes.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if score not in SCORES:
        raise ValueError(f"attention: score must be one of {', '.join(SCORES)}, got {score!r}")
    if quick:
        words, features, epochs = 1200, 32, 2
    pairs = dw.data.load(data, limit=None if full else words, seed=seed)
    if not isinstance(pairs.train.x, tuple):
        raise ValueError(f"attention: data must be pairs of texts, got {pairs.title}")
    epochs = 2 * epochs if full else epochs
    setting = (pairs, features, dropout, epochs, batch, lr, seed)
    runs, said = {}, {}
    for name in sorted(SCORES, key=lambda one: one == score):  # the run itself last
        place = home(out) if name == score else home(out) / name
        runs[name] = _learn(name, *setting, place)
        runs[name].test()
        said[name] = _spoken(runs[name].model, pairs.test)
    run, true = runs[score], _told(pairs.test.y, pairs)
    said = {name: [_plain(row, pairs) for row in rows] for name, rows in said.items()}
    letters = _counted(pairs)
    said["counted in context"], said["counted alone"] = letters
    found = {name: _scores(rows, true) for name, rows in said.items()}
    run.info["scores"] = {**_test(found[score]), **run.info["scores"]}
    run.info["baseline"] |= _test(found["counted in context"])
    run.info["baseline_name"] = "counted in context (words, errors); token frequencies"
    run.info["main"] = "test/word_accuracy"
    for name in SCORES:
        if name != score:
            told = "no attention" if name == "none" else f"{name} scores"
            run.rival(told, {**found[name], **_known(runs[name])})
    run.tell(
        question="Does a network that looks back at the letters pronounce words that one without "
        "cannot?",
        title=f"Letters become sounds with {score} scores"
        if score != "none"
        else "Letters become sounds without attention",
    )
    _compared(run, found, runs)
    _learned(run, runs)
    _looked(run, pairs, score if score != "none" else "additive", runs)
    _listed(run, pairs, said, true, score)
    return run


def _learn(name, pairs, features, dropout, epochs, batch, lr, seed, out):
    """One network; the same seed, order and rate for all."""
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    way = None if name == "none" else name
    model = dw.nn.seq2seq(pairs.spec, features, way, dropout=dropout)
    step = dw.Descent(dw.supervise(model, pairs.spec), "AdamW", lr=lr)
    hooks = [
        dw.hooks.Schedule(dw.hooks.cosine, warmup=0.1),
        dw.hooks.Clip(norm=1.0),
        dw.hooks.Validate(pairs.validation, restore=False),
    ]
    return dw.fit(step, pairs, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=out)


def _spoken(model, split, size=256):
    """What a model says of every source, the likeliest token each time."""
    steps = int(split.y.lengths.max()) + 3
    found = []
    for (source, _), _ in split.batches(size, shuffle=False):
        found += dw.nn.generate(model, steps=steps, source=source, temperature=0.0).tolist()
    return found


def _told(rows, pairs):
    return [_plain(row.tolist(), pairs) for row in rows.values.split(rows.lengths.tolist())]


def _plain(tokens, pairs):
    """Token numbers as a tuple of tokens, without marks."""
    return tuple(pairs.spec.classes[token] for token in tokens if token > 3 or token == 1)


def _scores(said, true):
    """Words that are right as a whole, and edits per phoneme."""
    right = sum(a == b for a, b in zip(said, true))
    return {
        "word_accuracy": dw.metrics.wilson(right, len(true)),
        "error_rate": dw.metrics.error_rate(said, true),
    }


def _test(scores):
    return {f"test/{name}": one.to_json() for name, one in scores.items()}


def _known(run):
    score = dw.metrics.Score
    kept = {k.split("/")[1]: score.from_json(v) for k, v in run.info["scores"].items()}
    return {k: v for k, v in kept.items() if k not in ("word_accuracy", "error_rate")}


def _counted(pairs, reach=2, rounds=5):
    """Each letter's commonest sounds: with the letters around it where they were met, and alone.

    A letter stands for none, one or two phonemes, in their order. Which, is found by turns: count
    what each letter stands for, then the likeliest division of every training word.
    """
    import torch

    x, y = (part.take(torch.arange(len(pairs.train))) for part in (pairs.train.x[0], pairs.train.y))
    size, known = pairs.spec.outputs, pairs.spec.vocabulary
    sounds = torch.cat([y.values, y.values.new_zeros(len(y.values), 2)], 1)
    counts = y.lengths - 1  # the mark of the end is no sound
    # at first as if all letters took their share of the sounds
    edges = torch.arange(x.values.shape[1] + 1) * counts[:, None] / x.lengths[:, None]
    edges = torch.minimum(edges.round().long(), counts[:, None])
    for _ in range(rounds):
        codes = _chunks(sounds, edges, size)
        real = x.mask & (codes >= 0)
        pairs_, times = torch.unique(x.values[real] * size**2 + codes[real], return_counts=True)
        table = torch.full((known * size**2,), 0.1)
        table[pairs_] += times
        table = table.view(known, -1)
        edges = _divided(x, sounds, counts, (table / table.sum(1, keepdim=True)).log(), size)
    codes = _chunks(sounds, edges, size)
    real = x.mask & (codes >= 0)
    whole = pairs.test.x[0].take(torch.arange(len(pairs.test)))
    best, answers = None, []
    for width in range(reach + 1):
        seen, asked = (_around(one.values, width, known) for one in (x, whole))
        found = _commonest(seen[real], codes[real], asked)
        best = found if best is None else torch.where(found >= 0, found, best)
        answers.append(best)
    return [_sounded(answers[width], whole, size, pairs) for width in (reach, 0)]


def _chunks(sounds, edges, size):
    """The sounds between two edges as one number: 0 for none, -1 for more than two."""
    low, many = edges[:, :-1], edges.diff(dim=1)
    first, second = (sounds.gather(1, low + k) for k in (0, 1))
    code = first * (many > 0) * size + second * (many > 1)
    return code.masked_fill(many > 2, -1)


def _divided(x, sounds, counts, log_p, size):
    """The likeliest edges of each word, by one pass over its letters and one back."""
    import torch

    words, longest = len(sounds), sounds.shape[1] - 2
    alone, both = sounds[:, :-2] * size, sounds[:, :-2] * size + sounds[:, 1:-1]
    best = torch.full((words, longest + 1), -torch.inf)
    best[:, 0] = 0
    paths = []
    for place in range(x.values.shape[1]):
        of = log_p[x.values[:, place]]
        one = best[:, :-1] + of.gather(1, alone)
        two = best[:, :-2] + of.gather(1, both)[:, :-1]
        none, shift = best + of[:, :1], torch.nn.functional.pad
        ways = [none, *(shift(one, (k, 0), value=-torch.inf) for k, one in ((1, one), (2, two)))]
        ways = torch.stack(ways)
        top, way = ways.max(0)
        within = x.mask[:, place, None]
        best = torch.where(within, top, best)
        paths.append(torch.where(within, way, 0))
    edges = [counts]
    for way in reversed(paths):
        edges.append(edges[-1] - way.gather(1, edges[-1][:, None])[:, 0])
    return torch.stack(edges[::-1], 1)


def _around(letters, width, known):
    """Each letter and so many on both sides as one number."""
    import torch

    padded = torch.nn.functional.pad(letters, (width, width))
    near = padded.unfold(1, 2 * width + 1, 1)
    return (near * known ** torch.arange(2 * width + 1)).sum(-1)


def _commonest(keys, values, asked):
    """The value that was met most often with each key; -1 for a key that was not met."""
    import torch

    both, times = torch.unique(torch.stack([keys, values]), dim=1, return_counts=True)
    order = torch.argsort(times, descending=True, stable=True)
    order = order[torch.argsort(both[0, order], stable=True)]
    first = torch.ones(len(order), dtype=torch.bool)
    first[1:] = both[0, order].diff() > 0
    known, best = both[:, order[first]]
    at = torch.searchsorted(known, asked).clamp_max(len(known) - 1)
    return torch.where(known[at] == asked, best[at], -1)


def _sounded(codes, x, size, pairs):
    """Chunks of sounds, one after the other."""
    import torch

    both = torch.stack([codes // size, codes % size], -1).clamp_min(0) * x.mask[..., None]
    return [_plain(row, pairs) for row in both.flatten(1).tolist()]


def _compared(run, found, runs):
    from deepweave.report import plots

    names = [*SCORES, *(name for name in found if name not in SCORES)]
    shown = {_name(n): (float(s), s.low, s.high)
             for n in names for s in [found[n]["word_accuracy"]]}  # fmt: skip
    alt = "Share of test words right for each kind of score and for two ways of counting."
    run.figure(
        "01-scores",
        plots.intervals(shown, x="words right", alt=alt),
        title="Words that are right as a whole",
        caption="Wilson's 95 % intervals over the test words, one training each: they say nothing "
        "of other seeds.",
        alt=alt,
    )
    rows = []
    for name in names:
        size = f"{runs[name].info['model']['parameters']:,}" if name in runs else ""
        time = f"{runs[name].info['seconds']:.0f} s" if name in runs else ""
        right, wrong = (found[name][key] for key in ("word_accuracy", "error_rate"))
        rows.append([
            _name(name), right.text(3, percent=True), wrong.text(3, percent=True), size, time
        ])  # fmt: skip
    run.table(
        "Scores compared",
        ["scores", "words right", "edits per phoneme", "parameters", "training"],
        rows,
        "All networks have the same features, seed, order and rate. Counted: each letter's "
        "commonest sounds, with two letters on both sides where those were met, and alone.",
    )


def _name(name):
    return "no attention" if name == "none" else name


def _learned(run, runs):
    from deepweave.report import plots

    drawn = {}
    for name in SCORES:
        rows = [r for r in runs[name].history if "validation/loss" in r]
        drawn[_name(name)] = ([r["epoch"] for r in rows], [r["validation/loss"] for r in rows])
    alt = "Validation loss over epochs for each kind of score."
    run.figure(
        "02-learning",
        plots.curves(drawn, x="epoch", y="validation loss, nats per phoneme", alt=alt),
        title="Validation loss of each kind of score",
        caption="Loss of the next phoneme when those before it are given. Without attention all "
        "must pass through one vector.",
        alt=alt,
    )


def _looked(run, pairs, name, runs, count=4):
    """The weights of some test words, while the model says them itself."""
    import torch

    from deepweave.report.alignments import alignment

    model, form = runs[name].model.eval(), pairs.preparation.features
    lengths = pairs.test.x[0].lengths
    order = lengths.argsort(stable=True)
    for number, share in enumerate(torch.linspace(0.3, 0.95, count).tolist(), 1):
        at = order[int(share * (len(order) - 1))]
        source = pairs.test.x[0].take(at[None])
        said = dw.nn.generate(model, steps=40, source=source, temperature=0.0)
        begun = torch.cat([torch.full((1, 1), 2), said[:, :-1]], 1)
        seen = []
        with torch.no_grad():
            model((source, begun), seen)
        letters = list(form.source.tell(source.values[0].tolist()))
        sounds = [pairs.spec.classes[t] for t in said[0].tolist()]
        sounds = ["end" if one == "<end>" else one for one in sounds]
        word = "".join(letters)
        alt = f"attention of each phoneme said of {word} to its letters"
        run.figure(
            f"03-word-{number}",
            alignment(seen[0][0, 0].numpy(), sounds, letters, alt=alt),
            title=f"Where it looks as it says “{word}”",
            caption=f"Rows are phonemes as they are said, columns letters; {name} scores.",
            alt=alt,
        )


def _listed(run, pairs, said, true, score, count=12):
    sources = pairs.test.x[0]
    step = max(1, len(sources) // count)
    rows = []
    for place in range(0, len(sources), step)[:count]:
        word = pairs.preparation.features.source.tell(
            sources[slice(place, place + 1)].values.tolist()
        )
        ours, truth = said[score][place], true[place]
        rows.append([
            word, " ".join(ours), " ".join(truth), "right" if ours == truth else "wrong"
        ])  # fmt: skip
    run.table("Test words", ["word", "said", "true", ""], rows, "Every so many-th test word.")
