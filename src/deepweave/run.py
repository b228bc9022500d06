"""The folder of one run: what it holds, how it is written, how it is read again."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any


def derive(seed: int, *purpose: str | int) -> int:
    """A seed of its own for each purpose, from the one seed of a run.

    The result is the first 63 bits of SHA-256 over the seed and the purpose, so that the order
    of the data, dropout and the draws of a study never share a stream of random numbers.

    >>> derive(0, "order", 3) == derive(0, "order", 3)
    True
    >>> derive(0, "order", 3) == derive(0, "order", 4)
    False
    """
    text = "/".join([str(int(seed)), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Write a file whole or not at all: aside, synced, then renamed onto ``path``.

    Raises:
        OSError: the disk is full or the folder cannot be written; ``path`` is as it was before.
    """
    path = Path(path)
    raw = content.encode() if isinstance(content, str) else content
    try:
        return _write(path, raw)
    except OSError as error:
        raise unwritten(path, error) from None


def unwritten(path: Path, error: OSError) -> OSError:
    """The same error, saying which file could not be written."""
    reason = error.strerror or type(error).__name__
    return OSError(error.errno, f"cannot write {path}: {reason}")


def _write(path: Path, raw: bytes) -> Path:
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def first() -> bool:
    """Whether this process writes: it is the only one, or the first of several (rank 0)."""
    found = sys.modules.get("torch.distributed")
    if found is not None and found.is_available() and found.is_initialized():
        return found.get_rank() == 0
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


FORMAT = "deepweave run 1"
CHECKPOINT = Path("checkpoint", "last.safetensors")


class Run:
    """One run: its folder, its settings and scores, and, while it is alive, what it trained.

    Of several processes only the first has the folder; in the others it is None.

    Args:
        folder: where the run lives; None for a run that leaves no files.
        resume: whether an unfinished run in that folder may be gone on with.

    Raises:
        ValueError: the folder holds something that is not a run.
        OSError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, resume: bool = False):
        self.folder = None if folder is None or not first() else Path(folder)
        self.resume = resume
        self.info: dict[str, Any] = {"format": FORMAT}
        self.history: list[dict[str, Any]] = []
        self.step: Any = None
        self.data: Any = None
        self.stopped: str | None = None
        if self.folder is not None and (self.folder / "run.json").exists():
            self.info = read_info(self.folder)

    @classmethod
    def of(cls, out: Run | str | os.PathLike[str] | bool | None, whole: bool, name: str) -> Run:
        """The run that ``out`` means: itself, a folder, the next free one, or none."""
        if isinstance(out, Run):
            return out
        if out is False or (out is None and not whole):
            return cls()
        return cls.fresh(name if out is None or out is True else Path(out))

    @classmethod
    def fresh(cls, out: Path | str) -> Run:
        """A run that begins anew: in a folder, or, for a name, in the next free one of ``runs``.

        Raises:
            ValueError: the folder holds training already, which would be lost.
        """
        run = cls(claim("runs", out) if isinstance(out, str) and first() else out)
        run.refuse_taken()
        run.info = {"format": FORMAT}  # an earlier try that failed leaves nothing behind
        return run

    def __truediv__(self, name: str) -> Run:
        """A run inside this one, such as a baseline: ``run / "baseline"``."""
        if self.folder is None:
            return Run()
        inner = Run(self.folder / name, resume=self.resume)
        if not self.resume:
            inner.info = {"format": FORMAT}
        return inner

    def refuse_taken(self) -> None:
        """Raise ValueError if beginning anew would write over what was learnt before."""
        if self.folder is not None and not self.resume and learnt(self.folder):
            raise ValueError(
                f"run: {self.folder} holds a run already: give another out, "
                f"or go on with it: deepweave resume {self.folder}"
            )

    @property
    def seed(self) -> int:
        return self.info.get("seed", 0)

    @property
    def objective(self) -> Any:
        """What was trained; of a population, its best member."""
        return self.step.chosen()

    @property
    def model(self) -> Any:
        """The bare model that was trained."""
        return getattr(self.objective, "model", self.objective)

    @property
    def scores(self) -> dict[str, Any]:
        return self.info.get("scores", {})

    def save(self) -> None:
        """Write run.json, if the run has a folder."""
        if self.folder is not None:
            text = json.dumps(self.info, indent=1, default=_jsonable, ensure_ascii=False)
            write_whole(self.folder / "run.json", text + "\n")

    def open(self) -> None:
        """Make the folder, or refuse it before any work is lost."""
        if self.folder is None:
            return
        if (self.folder / CHECKPOINT).exists():
            self.refuse_taken()
        if self.folder.is_file():
            raise ValueError(f"run: out must be a folder, {self.folder} is a file")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(self.folder / ".writable", b"").unlink()
            for stale in self.folder.glob(".*.part"):
                stale.unlink(missing_ok=True)  # left by a kill in the midst of writing
        except OSError as error:
            raise OSError(
                error.errno, f"run: cannot write to {self.folder}: {error.strerror}"
            ) from None

    def begin(self, loop: Any) -> None:
        """Called by ``fit`` before the first step."""
        self.open()
        _outcome().describe(self, loop)
        self.info["status"] = "running"
        self.save()

    def failed(self, loop: Any, error: BaseException) -> None:
        """Called by ``fit`` when a step raised."""
        self.info["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        self.info["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        with contextlib.suppress(OSError):  # a full disk must not hide the error itself
            self.save()

    def finished(self, loop: Any) -> None:
        """Called by ``fit`` after the last step."""
        self.info.pop("error", None)
        self.stopped = loop.stop or "finished"
        _outcome().close(self, loop)
        self.info["status"] = "trained"
        self.save()

    def test(self) -> dict[str, Any]:
        """Score the test set, with intervals, beside the baseline; kept in the folder."""
        return _outcome().test(self)

    def predict(self, x: Any) -> Any:
        """Predictions for inputs in the model's form, in the form that metrics take."""
        return _outcome().predict(self, x)

    def report(self) -> Path | None:
        """Write the page and the card; the page's path, or None in a process that writes none."""
        if not first():
            return None
        if self.folder is None:
            raise ValueError("report: this run has no folder: pass out= to fit")
        self.info["status"] = "finished"
        self.save()
        report = importlib.import_module("deepweave.report")
        report.card(self.folder)
        return report.page(self.folder)

    def rival(self, name: str, prediction: Any) -> None:
        """Score another method's predictions of the test set, to stand beside the run's own."""
        _outcome().rival(self, name, prediction)

    def tell(self, *, question: str, title: str) -> None:
        """The question of the run and the title of its page."""
        self.info["question"], self.info["title"] = question, title
        self.save()

    def figure(self, name: str, svg: str, *, title: str, caption: str, alt: str) -> None:
        """Add a picture of the recipe's own to the page."""
        figures = [f for f in self.info.get("figures", []) if f["file"] != f"figures/{name}.svg"]
        if self.folder is not None:
            (self.folder / "figures").mkdir(exist_ok=True)
            write_whole(self.folder / "figures" / f"{name}.svg", svg)
        entry = {"file": f"figures/{name}.svg", "title": title, "caption": caption, "alt": alt}
        self.info["figures"] = [*figures, entry]
        self.save()

    def table(self, title: str, columns: list[str], rows: list[list[Any]], caption: str) -> None:
        """Add a table of the recipe's own to the page."""
        others = [t for t in self.info.get("tables", []) if t["title"] != title]
        entry = {"title": title, "columns": columns, "rows": rows, "caption": caption}
        self.info["tables"] = [*others, entry]
        self.save()

    def __repr__(self) -> str:
        lines = [f"Run({self.info.get('recipe') or self.info.get('objective', '')}"]
        lines[0] += f", {self.info.get('steps', 0)} steps, {self.info.get('status', 'new')})"
        for name, score in self.scores.items():
            bounds = [score.get(end) for end in ("low", "high")]
            told = "" if None in bounds else " [{:.4f}, {:.4f}]".format(*bounds)
            lines.append(f"  {name} {score['value']:.4f}{told}")
        if self.folder is not None:
            lines.append(f"  in {self.folder}")
        return "\n".join(lines)


def _outcome() -> Any:
    """The half that needs torch, imported when it is needed: ``deepweave list`` never does."""
    return importlib.import_module("deepweave.outcome")


def claim(parent: str | os.PathLike[str], name: str) -> Path:
    """Make ``parent/name-1``, or the first number that is not taken, also by a run beside this.

    Raises:
        OSError: the folder cannot be made.
    """
    number = 1
    while True:
        folder = Path(parent) / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not Path(parent).is_dir():
                raise OSError(17, f"run: {parent} is a file: no folder can be made in it") from None
            number += 1
        except OSError as error:
            raise OSError(error.errno, f"run: cannot make {folder}: {error.strerror}") from None
        else:
            return folder


def learnt(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds something that training made: a checkpoint, its own or one inside."""
    folder = Path(folder)
    if (folder / CHECKPOINT).exists():
        return True
    inside = (path for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{CHECKPOINT}"))
    return (folder / "run.json").exists() and next(inside, None) is not None


def read_info(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What run.json of a folder says.

    Raises:
        FileNotFoundError: there is no run in that folder.
        ValueError: run.json is damaged, of another program, or of a newer version.
    """
    path = Path(folder) / "run.json"
    if not path.is_file():
        raise FileNotFoundError(f"run: {folder} is no folder of a run: there is no run.json in it")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"run: {path} is damaged: {error}") from None
    found = info.get("format") if isinstance(info, dict) else None
    if found != FORMAT:
        raise ValueError(f"run: {path}: expected the format {FORMAT!r}, got {found!r}")
    return info


def load(folder: str | os.PathLike[str], *, model: Any = None) -> Any:
    """The trained model of a run, ready to use (in evaluation mode).

    Args:
        folder: the run's folder.
        model: for a model that was not made by deepweave: one of the same shape, to fill.

    Raises:
        FileNotFoundError: no run there, or it has no trained model yet.
        ValueError: the weights do not fit the model.
    """
    return _outcome().load(folder, model)


def _jsonable(value: Any) -> Any:
    if hasattr(value, "to_json"):
        return value.to_json()
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
