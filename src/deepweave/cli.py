"""The command line: every recipe is a command, its options are its signature."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Parameter

from deepweave.run import first
from deepweave.version import __version__

HERE = str(Path(__file__).parent)


def build() -> App:
    """The app; recipes are imported, torch is not."""
    from deepweave import recipes

    app = App(
        name="deepweave",
        help="Every model crosses every method: train, test, compare and explain deep networks.",
        version=__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
    )
    run = App(name="run", help="Run a recipe: deepweave run NAME [--quick] [--data ...].")
    for one in recipes.every():
        run.command(_runner(one), name=one.name, help=one.about)
    app.command(run)
    for command in (list_, resume, predict, export, compare, tune):
        app.command(command, name=command.__name__.rstrip("_"))
    return app


WHERE = {  # options of every recipe, and of resume
    "devices": "cpu, cuda, cuda:1, a number of devices or a list as 0,1: a process for each.",
    "precision": "float32, bf16 or fp16.",
    "strategy": "of several processes: ddp (each has all weights) or fsdp (a part of them).",
}


def _runner(one: Any) -> Any:
    import functools
    import inspect

    @functools.wraps(one.function)
    def call(*args: Any, **kwargs: Any) -> None:
        where = {name: kwargs.pop(name, None) for name in WHERE}
        _there(lambda: one.function(*args, **kwargs), **where)

    signature = inspect.signature(one.function)
    more = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[str | None, Parameter(help=told, group="Where it runs")],
        )
        for name, told in WHERE.items()
    ]
    call.__signature__ = signature.replace(  # pyright: ignore[reportAttributeAccessIssue]
        parameters=[*signature.parameters.values(), *more]
    )
    return call


def _there(work: Any, devices: str | None = None, **where: str | None) -> None:
    """Do the work where it is asked for; several processes each get this same command."""
    from deepweave.core import place

    many = len(devices.split(",")) if devices and not devices.isdigit() else int(devices or 1)
    with place(devices=devices, **where):
        if many > 1 and "WORLD_SIZE" not in os.environ:
            from deepweave.core.launch import launch

            sys.exit(launch(many, ["-m", "deepweave", *_words]))
        tell(work())


def list_() -> None:
    """Show every topic, its recipe, what it shows and how long it takes."""
    from rich.console import Console
    from rich.table import Table

    from deepweave import recipes

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Topic", "Recipe", "About"):
        table.add_column(column, overflow="fold")
    table.add_column("Time", justify="right", no_wrap=True)
    for one in recipes.every():
        table.add_row(one.topic, one.name, one.about, f"{one.seconds} s")
    console = Console()
    console.print(table)
    console.print("\nRun one: deepweave run NAME    Its options: deepweave run NAME --help")


def resume(folder: Path, /, *, devices: str | None = None, strategy: str | None = None) -> None:
    """Go on with a run that was stopped or killed, to the same result.

    Args:
        folder: the folder of the run.
        devices: as for run; not necessarily those it began on.
        strategy: of several processes: ddp or fsdp.
    """
    from deepweave import recipes

    precision = recipes.begun(folder).get("place", {}).get("precision")
    where = {"devices": devices, "precision": precision, "strategy": strategy}
    _there(lambda: recipes.go_on(folder), **where)


def predict(folder: Path, /, *, data: str, out: Path) -> None:
    """Write the predictions of a finished run for new data.

    Args:
        folder: the folder of the run.
        data: new rows or images, with or without the target.
        out: the file to write: .csv or .npz.
    """
    from deepweave import outcome

    count = outcome.predict_file(folder, data, out)
    print(f"{count:,} predictions in {out}")  # noqa: T201


def export(folder: Path, /, *, format: str = "onnx", out: Path | None = None) -> None:
    """Export the model of a run for other programs, checked against the original.

    Args:
        folder: the folder of the run.
        format: onnx (needs the extra onnx) or torch (torch.export, .pt2).
        out: the file to write; by default model.onnx or model.pt2 in the folder.
    """
    from deepweave.export import export as write

    path, difference = write(folder, format, out)
    print(f"{path}: the largest difference to the original is {difference:.1e}")  # noqa: T201


def compare(*folders: Path, out: Annotated[Path, Parameter()] = Path("comparison.html")) -> None:
    """Set runs side by side: scores with intervals, differences, settings, curves.

    Args:
        folders: the folders of two runs or more.
        out: the page to write.
    """
    if len(folders) < 2:
        raise ValueError(f"compare: give the folders of two runs or more, got {len(folders)}")
    from rich.console import Console
    from rich.table import Table

    from deepweave.report import comparison

    page = comparison.compare(folders, out)
    rows = comparison.table(folders)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0]:
        table.add_column(column, no_wrap=True)
    for row in rows[1:]:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:  # a pipe has no width: each run keeps one line
        console = Console(width=40 * len(rows[0]))
    console.print(table)
    console.print(f"page: {page}", soft_wrap=True, highlight=False)


def tune(
    recipe: str,
    /,
    *,
    over: tuple[str, ...] = (),
    set: tuple[str, ...] = (),
    trials: int = 20,
    processes: int = 1,
    seed: int = 0,
    quick: bool = False,
    out: Path | None = None,
) -> None:
    """Search over a recipe's options by its validation loss, then run the best with its page.

    Args:
        recipe: the recipe's name.
        over: an option and its space: "lr=log(1e-4, 1e-1)", "hidden=choice(64, 128 128)".
        set: an option that is the same for all trials: epochs=30.
        trials: settings to try.
        processes: trials that run at once.
        seed: fixes which settings are tried.
        quick: smoke trials of seconds.
        out: the folder of the search; the same folder goes on after a kill.
    """
    from deepweave import tuner

    study, run = tuner.tune(
        recipe, over, set, trials=trials, processes=processes, seed=seed, quick=quick, out=out
    )
    print(study)  # noqa: T201
    tell(run)


def tell(run: Any) -> None:
    """The end of a run: a small table and where the page is."""
    if not first():
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    info = run.info
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("test score")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("baseline", justify="right")
    for name, score in info.get("scores", {}).items():
        base = info.get("baseline", {}).get(name, {}).get("value")
        ends = [score.get("low"), score.get("high")]
        interval = "" if None in ends else f"[{', '.join(map(_number, ends))}]"
        row = (name.removeprefix("test/"), _number(score["value"]), interval, _number(base))
        table.add_row(*row)
    if info.get("scores"):
        console.print(table)
    if run.folder is not None:
        console.print(f"page: {run.folder / 'report.html'}", soft_wrap=True, highlight=False)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


_words: list[str] = []  # of the command under way


def main(words: list[str] | None = None) -> None:
    """Run the command line; the user's mistakes give one line and exit code 2."""
    _words[:] = sys.argv[1:] if words is None else words
    showing, warnings.showwarning = warnings.showwarning, _warn
    try:
        build()(words, exit_on_error=False, print_error=False)
    except cyclopts.CycloptsError as error:
        _leave(error, 2)
    except KeyboardInterrupt as error:
        _leave(error, 130, "stopped")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if os.environ.get("DEEPWEAVE_TRACEBACK") or not _expected(error):
            traceback.print_exc()
            sys.exit(1)
        _leave(error, 2)
    finally:
        warnings.showwarning = showing


def _expected(error: Exception) -> bool:
    """Whether an error is a refusal of ours, or of the disk, rather than a fault."""
    if isinstance(error, OSError | ImportError | MemoryError):
        return True
    if not isinstance(error, ValueError | TypeError | FloatingPointError | IndexError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    # torch's optimizers refuse a rate below zero and the like themselves
    return last.startswith((HERE, *(f"{path}/optim/" for path in _torch())))


def _torch() -> list[str]:
    return list(getattr(sys.modules.get("torch"), "__path__", ()))


def _leave(error: BaseException, code: int, message: str = "") -> None:
    """One line: what happened, then what to do."""
    if not message and isinstance(error, OSError) and error.strerror:
        message = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    lines = [message or str(error) or type(error).__name__, *getattr(error, "__notes__", ())]
    print("deepweave:", " ".join("; ".join(lines).split()), file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _warn(message: Warning | str, category: Any, *_: Any, **__: Any) -> None:
    if first():
        print(f"deepweave: note: {' '.join(str(message).split())}", file=sys.stderr)  # noqa: T201
