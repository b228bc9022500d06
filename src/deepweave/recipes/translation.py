"""Topic 15: verses from English to Spanish, beside the nearest verse that was learnt from."""

from __future__ import annotations

from pathlib import Path

import deepweave as dw
from deepweave.recipes import home, recipe


@recipe("15 Transformers: translation", seconds=150)
def translation(
    data: str = "verses",
    *,
    kind: str = "translator",
    tokens: str = "words",
    vocabulary: int = 4000,
    features: int = 96,
    layers: int = 2,
    dropout: float = 0.1,
    smoothing: float = 0.1,
    epochs: int = 5,
    batch: int = 64,
    lr: float = 0.003,
    beams: int = 4,
    verses: int = 300,
    full: bool = False,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> dw.Run:
    """A transformer learns to translate, and is held against looking up what is nearest.

    Args:
        data: a named set of pairs of texts.
        kind: translator (a transformer) or seq2seq (GRU with attention).
        tokens: words, characters or byte-pairs.
        vocabulary: how many words or byte pairs on each side.
        features: of the residual stream.
        layers: blocks of the encoder, and of the decoder.
        dropout: of attention weights and of what is added.
        smoothing: share of the targets that is spread over all tokens.
        epochs: passes over the training pairs.
        batch: pairs per step.
        lr: the highest learning rate.
        beams: beginnings that a beam keeps.
        verses: test texts that are translated, the first ones of a fixed shuffle.
        full: wider, deeper, with more dropout, and five times as long; all test texts.
        seed: fixes every random draw.
        quick: a smoke run of seconds.
        out: the folder of the run.
    """
    if kind not in ("translator", "seq2seq"):
        raise ValueError(f"translation: kind must be translator or seq2seq, got {kind!r}")
    limit = None
    if quick:
        limit, features, layers, epochs, verses, vocabulary = 800, 32, 1, 1, 40, 600
    if full:
        features, layers, epochs, dropout = 2 * features, layers + 1, 5 * epochs, max(dropout, 0.3)
        verses = 10**9
    pairs = dw.data.load(data, tokens=tokens, vocabulary=vocabulary, limit=limit, seed=seed)
    if not isinstance(pairs.train.x, tuple):
        raise ValueError(f"translation: data must be pairs of texts, got {pairs.title}")
    dw.chance.seed_all(dw.run.derive(seed, "weights"))
    if kind == "translator":
        model = dw.nn.translator(pairs.spec, features, layers, dropout=dropout)
    else:
        model = dw.nn.seq2seq(pairs.spec, features, "additive", dropout=dropout)
    objective = dw.supervise(model, pairs.spec, smoothing=smoothing)
    step = dw.Descent(objective, "AdamW", lr=lr, weight_decay=0.01)
    hooks = [
        dw.hooks.Schedule(dw.hooks.cosine, warmup=0.1),
        dw.hooks.Clip(norm=1.0),
        dw.hooks.Validate(pairs.validation, restore=full),
    ]
    run = dw.fit(step, pairs, epochs=epochs, batch=batch, seed=seed, hooks=hooks, out=home(out))
    run.test()
    part = pairs.test[_chosen(len(pairs.test), verses, seed)]
    true = _told(part.y, pairs)
    said = {
        "greedy": _translated(run.model, part, pairs, 1),
        f"a beam of {beams}": _translated(run.model, part, pairs, beams),
        "nearest training text": _nearest(part, pairs),
    }
    found = {name: dw.metrics.chrf(texts, true) for name, texts in said.items()}
    _kept(run, found, f"a beam of {beams}", len(true))
    run.tell(
        question="How near does a small network trained in minutes come to a translation?",
        title=f"{'A transformer' if kind == 'translator' else 'A GRU with attention'} translates "
        f"{_names(pairs)}",
    )
    _compared(run, found, said, true)
    _looked(run, part, pairs, kind)
    _listed(run, part, pairs, said, true)
    return run


def _names(pairs):
    title = pairs.title
    return title[:1].lower() + title[1:] if not title.startswith("Bible") else title


def _chosen(count, most, seed):
    """Row numbers of a few texts that nobody picked by hand."""
    import torch

    generator = torch.Generator().manual_seed(dw.run.derive(seed, "translated"))
    return torch.randperm(count, generator=generator)[:most].sort().values


def _told(rows, pairs):
    return [_text(row.tolist(), pairs) for row in rows.values.split(rows.lengths.tolist())]


def _text(tokens, pairs):
    """Tokens as text, without the words that the vocabulary lacks: nobody scores by those."""
    return pairs.preparation.features.target.tell([token for token in tokens if token != 1])


def _translated(model, split, pairs, beams, size=64):
    """The likeliest token each time, or the best of a beam."""
    steps = int(split.y.lengths.max()) + 5
    found = []
    for (source, _), _ in split.batches(size, shuffle=False):
        if beams == 1:
            rows = dw.nn.generate(model, steps=steps, source=source, temperature=0.0)
        else:
            rows, _ = dw.nn.beam_search(model, steps=steps, source=source, beams=beams)
        found += [_text(row, pairs) for row in rows.tolist()]
    return found


def _nearest(part, pairs):
    """The translation of the training source that is most alike: TF-IDF, cosine."""
    import torch

    known, size = pairs.train.x[0], pairs.spec.vocabulary
    text, token, times = _counted(known, size)
    rare = ((1 + len(known)) / (1 + torch.bincount(token, minlength=size))).log() + 1
    lengths = torch.zeros(len(known)).index_add_(0, text, (times * rare[token]) ** 2).sqrt()
    place, token, times = _counted(part.x[0], size)
    asked = torch.zeros(size, len(part)).index_put_((token, place), times * rare[token] ** 2)
    # the sum over each text's tokens of how much each asked text has of them
    alike = torch.nn.functional.embedding_bag(known.values, asked, known.starts, mode="sum")
    return _told(pairs.train.y[(alike / lengths[:, None]).argmax(0)], pairs)


def _counted(rows, size):
    """Which text has which token how often."""
    import torch

    place = torch.repeat_interleave(torch.arange(len(rows)), rows.lengths)
    both, times = torch.unique(place * size + rows.values, return_counts=True)
    return both // size, both % size, times.float()


def _kept(run, found, best, count):
    """chrF of the beam is the run's, that of looking up stands beside it."""
    score, greedy = (found[name].to_json() for name in (best, "greedy"))
    run.info["scores"] = {"test/chrf": score, "test/chrf_greedy": greedy, **run.info["scores"]}
    beside = found["nearest training text"].to_json()
    run.info["baseline"] |= {"test/chrf": beside, "test/chrf_greedy": beside}
    run.info["baseline_name"] = "nearest training text (chrF), token frequencies"
    run.info["main"] = "test/chrf"


def _compared(run, found, said, true):
    from deepweave.report import plots

    alt = "chrF of greedy writing, of a beam, and of the nearest training text, with intervals."
    run.figure(
        "01-chrf",
        plots.intervals(
            {n: (float(s), s.low, s.high) for n, s in found.items()}, x="chrF", alt=alt
        ),
        title="How much of the characters' runs is right",
        caption=f"chrF of {len(true):,} test texts, with bootstrap intervals over texts; one "
        "training.",
        alt=alt,
    )
    rows = []
    for name, score in found.items():
        sizes = sum(map(len, said[name])) / sum(map(len, true))
        same = sum(a == b for a, b in zip(said[name], true))
        rows.append([name, score.text(3, percent=True), f"{sizes:.2f}", f"{same}"])
    run.table(
        "Ways to translate",
        ["", "chrF", "length beside the true ones", "word for word"],
        rows,
        "chrF: runs of one to six characters, recall twice as important; words that the vocabulary "
        "lacks are left out of all texts, and the network writes none. The nearest training text "
        "has the most alike English, by the cosine of TF-IDF: good Spanish of another verse.",
    )


def _looked(run, part, pairs, kind):
    """The decoder's look at the source while it writes one text."""
    import torch

    from deepweave.report.alignments import alignment

    model, form = run.model.eval(), pairs.preparation.features
    lengths = part.x[0].lengths
    at = (lengths - min(12, int(lengths.max()))).abs().argmin()
    source = part.x[0].take(at[None])
    said = dw.nn.generate(model, steps=30, source=source, temperature=0.0)
    begun = torch.cat([torch.full((1, 1), 2), said[:, :-1]], 1)
    seen = []
    with torch.no_grad():
        model((source, begun), seen)
    across = [one for one in seen if one.shape[-1] == source.values.shape[1]]
    weights = (seen[0] if kind == "seq2seq" else across[-1])[0]
    read = [_shown(form.source, t) for t in source.values[0].tolist()]
    wrote = ["end" if t == 3 else _shown(form.target, t) for t in said[0].tolist()]
    alt = "attention of each token written to the tokens of the source"
    run.figure(
        "02-looks",
        alignment(weights.mean(0).numpy(), wrote, read, alt=alt),
        title="Where the decoder looks as it writes",
        caption="Rows are tokens as they are written, columns those of the source; the mean of the "
        "last layer's heads.",
        alt=alt,
    )


def _shown(form, token):
    """One token as it reads; a byte pair's first letter may stand for the space before it."""
    return form.tell([token]).strip() or form.vocabulary[token]


def _listed(run, part, pairs, said, true, count=6):
    tell = pairs.preparation.features.source.tell
    step = max(1, len(true) // count)
    rows = []
    for place in range(0, len(true), step)[:count]:
        english = tell(part.x[0][slice(place, place + 1)].values.tolist())
        rows += [["English", english], ["true", true[place]]]
        rows += [[name, texts[place]] for name, texts in said.items()]
    run.table("Test texts", ["", "text"], rows, "Every so many-th of those translated.")
