"""A search over the options of any recipe: what ``deepweave tune`` does."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
import sys
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deepweave.recipes import find, go_on
from deepweave.run import Run, derive, read_info, write_whole
from deepweave.search import Sobol, Study, minimize, space
from deepweave.search.space import Dimension, Settings

GOAL = "validation/loss"


def usual(name: str) -> dict[str, Dimension]:
    """The space that is searched where none is given: the recipe's options that have a usual one.

    >>> usual("deep")["lr"]
    log(0.0002, 0.02)
    """
    parameters = inspect.signature(find(name).function).parameters
    found: dict[str, Dimension] = {}
    if "lr" in parameters and isinstance(parameters["lr"].default, float):
        rate = parameters["lr"].default
        found["lr"] = space.log(rate / 10, rate * 10)
    if "dropout" in parameters:
        found["dropout"] = space.uniform(0.0, 0.6)
    if "smoothing" in parameters:
        found["smoothing"] = space.uniform(0.0, 0.2)
    if "hidden" in parameters:
        found["hidden"] = space.choice((64,), (128, 128), (256, 256), (256, 256, 256))
    if not found:
        raise ValueError(
            f"tune: the recipe {name} has no option with a usual space: give --over NAME=log(1,10)"
        )
    return found


def dimension(name: str, option: str, words: str) -> Dimension:
    """The dimension that words on a command line mean.

    >>> dimension("deep", "lr", "log(1e-4, 1e-1)")
    log(0.0001, 0.1)
    >>> dimension("deep", "hidden", "choice(64, 128 128)").values
    ((64,), (128, 128))
    """
    _, kind = _option(name, option)
    match = re.fullmatch(r"(log|uniform|integer|choice)\((.+)\)", words.strip())
    if not match:
        raise ValueError(
            f"tune: {option} must be log(a, b), uniform(a, b), integer(a, b) or choice(a, b, ...), "
            f"got {words!r}"
        )
    parts = [part.strip() for part in match[2].split(",")]
    if match[1] == "choice":
        return space.choice(*(value(kind, part, option) for part in parts))
    if len(parts) != 2:
        raise ValueError(f"tune: {option}: {match[1]} takes two bounds, got {len(parts)}")
    whole = match[1] == "integer"
    low, high = (value(int if whole else float, part, option) for part in parts)
    return getattr(space, match[1])(low, high)


def value(kind: Any, word: str, option: str) -> Any:
    """A word of a command line as a value of an option's type."""
    kinds = [one for one in typing.get_args(kind) if one is not type(None)]
    if typing.get_origin(kind) is tuple:
        return tuple(value(kinds[0], part, option) for part in word.split())
    if typing.get_origin(kind) is typing.Literal:
        kind, kinds = str, []
    for one in kinds or [kind]:
        try:
            if one is bool:
                return {"true": True, "false": False}[word.lower()]
            return one(word)
        except (ValueError, KeyError, TypeError):
            continue
    raise ValueError(f"tune: {option} takes {getattr(kind, '__name__', kind)}, got {word!r}")


def _option(name: str, option: str) -> tuple[Any, Any]:
    function = find(name).function
    function = inspect.unwrap(function)
    parameters = inspect.signature(function).parameters
    if option not in parameters or option in ("out", "quick"):
        known = ", ".join(p for p in parameters if p not in ("out", "quick"))
        raise ValueError(f"tune: the recipe {name} has no option {option!r}: it has {known}")
    return parameters[option], typing.get_type_hints(function)[option]


class Call:
    """One trial: the recipe with these settings, in a folder of its own; its validation loss."""

    def __init__(self, name: str, fixed: Settings, folder: Path):
        self.name, self.fixed, self.folder = name, fixed, folder

    def __call__(self, settings: Settings) -> float:
        given = {**self.fixed, **settings}
        text = json.dumps(given, sort_keys=True)
        words = re.sub(r"[^\w.]+", "-", text).strip("-")[:80]
        folder = self.folder / f"{words}-{derive(0, text):016x}"
        info = read_info(folder) if (folder / "run.json").is_file() else None
        quiet = io.StringIO()
        with contextlib.redirect_stderr(quiet):  # a trial's own progress would scroll by
            if info is None:
                run = find(self.name)(**given, out=folder)
            elif info.get("status") != "finished":
                run = go_on(folder)  # a kill broke it off
            else:
                run = Run(folder)
        found = run.info.get("best", {}).get("scores", {}).get(GOAL)
        if found is None:
            raise ValueError(f"tune: the recipe {self.name} gives no {GOAL} to search by")
        words = "  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
                          for k, v in settings.items())  # fmt: skip
        print(f"{GOAL} {found:.4g}  with  {words}", file=sys.stderr, flush=True)  # noqa: T201
        return float(found)


def tune(
    name: str,
    over: Sequence[str],
    fixed: Sequence[str],
    *,
    trials: int,
    processes: int,
    seed: int,
    quick: bool,
    out: Path | None,
) -> tuple[Study, Run]:
    """Search over a recipe's options by its validation loss; run the best again, with its page.

    Killed, the same command with the same folder goes on: trials that ended are not run again.
    """
    dimensions = {}
    for words in over:
        option, _, rest = words.partition("=")
        dimensions[option] = dimension(name, option, rest)
    given: Settings = {}
    for words in fixed:
        option, _, rest = words.partition("=")
        given[option] = value(_option(name, option)[1], rest, option)
    dimensions = dimensions or {k: v for k, v in usual(name).items() if k not in given}
    if quick:
        given["quick"] = True
    folder = Path(out) if out is not None else Run.fresh(f"tune-{name}").folder
    assert folder is not None
    folder.mkdir(parents=True, exist_ok=True)
    study = minimize(
        Call(name, given, folder / "trials"), dimensions, trials=trials, processes=processes,
        sampler=Sobol(), seed=seed,
    )  # fmt: skip
    study.goal = GOAL
    best = study.best.settings
    write_whole(folder / "study.json", json.dumps(study.to_json(), indent=1) + "\n")
    ended = folder / "best" / "run.json"
    if ended.is_file() and read_info(folder / "best").get("status") == "finished":
        return study, Run(folder / "best")
    run = find(name)(**given, **best, out=Run(folder / "best", resume=ended.is_file()))
    from deepweave.recipes.tuning import show

    show(run, study)
    run.report()
    return study, run
