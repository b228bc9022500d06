"""One file per topic: the whole run in one scroll. A recipe is a typed function.

The command line comes from its signature; ``--quick`` and ``--out`` are understood by all, and so
are ``--devices``, ``--precision`` and ``--strategy``, which every ``fit`` inside follows.
Modules here import nothing heavy until they run, so that ``deepweave list`` is instant.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import pkgutil
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepweave.run import FORMAT, Run, first, learnt, read_info


@dataclass(frozen=True)
class Recipe:
    """A recipe and what the list of recipes says about it."""

    name: str
    topic: str
    seconds: int
    about: str
    function: Callable[..., Run]

    def __call__(self, *args: Any, **kwargs: Any) -> Run:
        return self.function(*args, **kwargs)


def recipe(topic: str, *, seconds: int) -> Callable[[Callable[..., Run]], Recipe]:
    """Make a function a recipe: it gets a folder, and what it was asked is written there first.

    Args:
        topic: number and name, as in the notes.
        seconds: how long the default form takes on two cores, roughly.
    """

    def mark(function: Callable[..., Run]) -> Recipe:
        signature, name = inspect.signature(function), function.__name__.replace("_", "-")
        if "out" not in signature.parameters:
            raise TypeError(f"recipe: {function.__name__} needs a parameter out")

        @functools.wraps(function)
        def whole(*args: Any, **kwargs: Any) -> Run:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            settings = {k: v for k, v in bound.arguments.items() if k != "out"}
            given = bound.arguments["out"]
            bound.arguments["out"] = _begin(name, settings, given)
            try:
                run = function(*bound.args, **bound.kwargs)
                run.report()
            except BaseException as error:
                _failed(bound.arguments["out"], error, named=given is not None)
                raise
            return run

        about = (inspect.getdoc(function) or "").split("\n")[0]
        return Recipe(name, topic, seconds, about, whole)

    return mark


def _begin(name: str, settings: dict[str, Any], out: Any) -> Run:
    """The run's folder, with run.json in it before any work is done."""
    run = out if isinstance(out, Run) else Run.fresh(name if out is None else Path(out))
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in settings.items()}
    if isinstance(plain.get("data"), str) and Path(plain["data"]).exists():
        plain["data"] = str(Path(plain["data"]).resolve())  # a resume may start elsewhere
    if run.resume or not first():
        return run
    from deepweave.core.places import ASKED

    run.open()
    run.info = {
        "format": FORMAT,
        "recipe": name,
        "settings": plain,
        "seed": settings.get("seed", 0),
        "command": _command(name, plain, ASKED.get()),
        "status": "running",
    }
    if ASKED.get():
        run.info["place"] = dict(ASKED.get())
    run.save()
    return run


def _failed(run: Run, error: BaseException, *, named: bool) -> None:
    """Note a failure in the folder; if nothing was learnt, nobody needs a folder of our naming."""
    if run.folder is None:
        return
    if learnt(run.folder):
        if isinstance(error, OSError | KeyboardInterrupt | MemoryError):
            error.add_note(f"go on with: deepweave resume {shlex.quote(str(run.folder))}")
    elif not named:
        for path in sorted(run.folder.rglob("*"), reverse=True):
            if path.is_dir() or path.name in ("run.json", "log.jsonl"):
                with contextlib.suppress(OSError):  # a folder that holds anything else stays
                    path.rmdir() if path.is_dir() else path.unlink()
        with contextlib.suppress(OSError):
            run.folder.rmdir()
    if run.folder.exists():
        run.failed(None, error)


def _command(name: str, settings: dict[str, Any], where: dict[str, Any]) -> str:
    """The line that repeats a run: the options that differ from the recipe's own."""
    defaults = inspect.signature(find(name).function).parameters
    words = ["deepweave", "run", name]
    for option, value in settings.items():
        given = defaults[option].default
        if value == given or (isinstance(value, list) and tuple(value) == given):
            continue
        flag = "--" + option.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else f"--no-{flag[2:]}")
        else:
            parts = value if isinstance(value, tuple | list) else [value]
            words += [word for part in parts for word in (flag, str(part))]
    for option, value in where.items():
        parts = value if isinstance(value, list | tuple) else [value]
        words += [f"--{option}", ",".join(map(str, parts))]
    return shlex.join(words)


def home(out: Any) -> Run:
    """The run that a recipe's ``out`` is by the time the recipe sees it."""
    return out


def subject(table: Any) -> str:
    """The title of a data set in the middle of a sentence: ``handwritten digits``."""
    title = table.title
    return title[:1].lower() + title[1:] if title[1:2].islower() else title


def names() -> list[str]:
    """The names of all recipes, as the command line has them."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def find(name: str) -> Recipe:
    """The recipe of a name.

    Raises:
        ValueError: there is none; the nearest names are told.
    """
    known = names()
    name = name.replace("_", "-")
    if name not in known:
        import difflib

        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise ValueError(f"run: there is no recipe {name!r}: {hint}")
    key = name.replace("-", "_")
    return getattr(importlib.import_module(f"deepweave.recipes.{key}"), key)


def every() -> list[Recipe]:
    """All recipes, by topic."""
    return sorted((find(name) for name in names()), key=lambda one: one.topic)


def begun(folder: str | Path) -> dict[str, Any]:
    """What run.json says of a run that a recipe began.

    Raises:
        FileNotFoundError, ValueError: the folder holds no run of a recipe.
    """
    if not (Path(folder) / "run.json").is_file():
        raise FileNotFoundError(
            f"resume: {folder} is no folder of a run: nothing was begun there; deepweave run ..."
        )
    info = read_info(folder)
    if "recipe" not in info:
        raise ValueError(
            f"resume: {folder} was not made by a recipe: call fit with out=Run({str(folder)!r}, "
            "resume=True)"
        )
    return info


def go_on(folder: str | Path) -> Run:
    """Finish an unfinished run, to the result it would have had.

    Raises:
        FileNotFoundError, ValueError: the folder holds no run of a recipe.
    """
    info, run = begun(folder), Run(folder, resume=True)
    found = find(str(info["recipe"]))
    known = inspect.signature(found.function).parameters
    given = info.get("settings")
    if not isinstance(given, dict) or not given.keys() <= known.keys() - {"out"}:
        odd = sorted(given.keys() - known.keys()) if isinstance(given, dict) else given
        raise ValueError(
            f"resume: {folder}/run.json is of another version: the recipe {found.name} "
            f"has no settings {odd}"
        )
    settings = {
        k: tuple(v) if isinstance(v, list) and isinstance(known[k].default, tuple) else v
        for k, v in given.items()
    }
    return found(**settings, out=run)
