"""The tables of the documentation, made from ``benchmarks/results``.

In ``docs/**/*.md`` the text between ``<!-- table: NAME -->`` and ``<!-- end -->`` is replaced.
NAME is a file of results, or a part of one: ``loop``, ``population``,
``population/batch 16, 1 thread``. A ratio is a contender's time over deepweave's (or, where the
results have one, the speed-up over the yardstick), with its quartiles.

    python -m benchmarks.tables [--check]
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
PLACE = re.compile(r"(<!-- table: (?P<name>[^>]+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)


def read(name: str, folder: Path = RESULTS) -> tuple[dict[str, Any], Any]:
    """The file's machine and command, and the results that a table's name means.

    Raises:
        FileNotFoundError: there is no such file of results.
        KeyError: the file has no such part.
    """
    file, *path = name.split("/")
    source = folder / f"{file}.json"
    if not source.is_file():
        raise FileNotFoundError(f"tables: {name}: there is no {source}")
    content = json.loads(source.read_text(encoding="utf-8"))
    part = content["results"]
    for key in path:
        if key not in part:
            raise KeyError(f"tables: {name}: {key!r} is none of {', '.join(part)}")
        part = part[key]
    return content, part


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best.

    >>> duration(0.00123), duration(2.5e-5), duration(3.0)
    ('1.23 ms', '25 us', '3 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def spread(row: dict[str, Any], key: str) -> str:
    """A median with its quartiles."""
    return f"{row[key]:.2f} ({row[f'{key}_low']:.2f} to {row[f'{key}_high']:.2f})"


def timed(part: Any) -> bool:
    """Whether every entry is a contender of :func:`benchmarks.harness.compare`."""
    return isinstance(part, dict) and bool(part) and all(
        isinstance(row, dict) and "seconds" in row for row in part.values()
    )  # fmt: skip


def columns(part: Any) -> list[list[str]]:
    """The rows of a table, the heading first."""
    if timed(part):
        return contenders(part)
    sections = {name: one for name, one in part.items() if timed(one)}
    if sections:
        return crossed(sections)
    if all(isinstance(row, dict) and len(row) > 1 for row in part.values()):
        return records(part)
    rows = [["", "value"]]
    for name, value in part.items():
        if isinstance(value, dict) and len(value) == 1:
            rows[0][1], value = next(iter(value.items()))
            rows[0][1] = rows[0][1].replace("_", " ")
        rows.append([name, f"{value:.3g}" if isinstance(value, int | float) else str(value)])
    return rows


def records(part: dict[str, dict[str, float]]) -> list[list[str]]:
    """One row per entry, one column per number."""
    names = list(dict.fromkeys(key for row in part.values() for key in row))
    rows = [["", *(name.replace("_", " ") for name in names)]]
    for name, row in part.items():
        rows.append([name, *(cell(row[key]) if key in row else "" for key in names)])
    return rows


def cell(value: Any) -> str:
    """A number in three digits, a whole one in full, several from the least to the most.

    >>> cell(0.12345), cell(871936), cell([3.31, 3.29, 3.33])
    ('0.123', '871,936', '3.29 to 3.33')
    """
    if isinstance(value, list):
        return f"{cell(min(value))} to {cell(max(value))}"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


PLAIN = {  # further numbers of a contender, and how a table calls them
    "error": "largest error", "difference": "difference", "agree": "labels alike",
    "removed": "removed at the end", "runs": "runs", "p": "p of one law",
}  # fmt: skip


def contenders(part: dict[str, dict[str, Any]]) -> list[list[str]]:
    """One row per contender: time, ratio to deepweave, and what else the results compare with."""
    first = next(iter(part.values()))
    step = "microseconds_per_step" in first
    heading = ["", "per step" if step else "time", "ratio to deepweave (quartiles)"]
    extra = [key for key in ("raw_ratio", "speedup") if key in first]
    heading += [{"raw_ratio": "ratio to raw PyTorch", "speedup": "speed-up"}[key] for key in extra]
    heading += ["memory"] * ("mib" in first)
    told = [key for key in PLAIN if any(key in row for row in part.values())]
    heading += [PLAIN[key] for key in told]
    rows = [heading]
    for name, row in part.items():
        taken = row["microseconds_per_step"] / 1e6 if step else row["seconds"]
        more = [spread(row, key) for key in extra]
        more += [f"{row['mib']:.0f} MiB"] if "mib" in row else []
        more += [cell(row[key]) if key in row else "" for key in told]
        rows.append([name, duration(taken), spread(row, "ratio"), *more])
    return rows


def crossed(sections: dict[str, dict[str, dict[str, Any]]]) -> list[list[str]]:
    """Contenders down, sections across."""
    names = list(dict.fromkeys(name for part in sections.values() for name in part))
    rows = [["", *sections]]
    for name in names:
        cells = []
        for part in sections.values():
            row = part.get(name, {})
            key = "speedup" if "speedup" in row else "ratio"
            cells.append(spread(row, key) if row else "")
        rows.append([name, *cells])
    return rows


def markdown(name: str, folder: Path = RESULTS) -> str:
    """The table, and a line on where its numbers are from."""
    content, part = read(name, folder)
    heading, *rows = columns(part)
    lines = ["|" + "|".join(f" {cell} " for cell in heading) + "|"]
    lines.append("|---|" + "---:|" * (len(heading) - 1))
    lines += ["|" + "|".join(f" {cell} " for cell in row) + "|" for row in rows]
    where = content["machine"]
    seen = where["versions"]
    known = ", ".join(f"{library} {seen[library]}" for library in seen if library != "deepweave")
    lines += ["", f"{where['cpu']}, {where['cores']} cores, {where['date']}; {known}."]
    lines.append(f"`{content['command']}`")
    return "\n".join(lines) + "\n"


def fill(text: str, folder: Path = RESULTS) -> str:
    """A page with its tables made anew."""
    return PLACE.sub(lambda m: m[1] + markdown(m["name"].strip(), folder) + m[4], text)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true", help="change nothing, fail if one is old")
    options = parser.parse_args()
    old, missing = [], False
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        try:
            made = fill(text)
        except (FileNotFoundError, KeyError) as error:
            print(f"{page}: {error.args[0]}", file=sys.stderr)
            missing = True  # of this page; the others are made
            continue
        if made != text:
            old.append(page)
            if not options.check:
                page.write_text(made, encoding="utf-8")
    for page in old:
        print(f"{page.relative_to(DOCS.parent)}: {'old' if options.check else 'written'}")
    return int(missing or (options.check and bool(old)))


if __name__ == "__main__":
    sys.exit(main())
