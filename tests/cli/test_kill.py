"""kill -9 at any moment, then resume: the weights are those of the run that was left alone."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deepweave import archive
from deepweave.cli import main

pytestmark = pytest.mark.long
DATA = "iris"
# A network that wants every random state: dropout, an average, a schedule, the order of data.
WORDS = ["run", "deep", "--data", DATA, "--hidden", "24", "--dropout", "0.2", "--norm", "batch"]
WORDS += ["--epochs", "70", "--batch", "16", "--seed", "5"]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def start(words: list[str], script: str | None = None) -> subprocess.Popen[bytes]:
    command = ["-m", "deepweave"] if script is None else ["-c", script]
    return subprocess.Popen(
        [sys.executable, *command, *words],
        env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def weights(folder: Path) -> dict[str, bytes]:
    """Every model file of a run: its own and the ones inside."""
    found = sorted(folder.rglob("model.safetensors"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


class OneThread:
    """As many threads as the killed processes, so that sums are made in the same order."""

    def __enter__(self) -> None:
        self.threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self.threads)


def deepweave(*words: str) -> None:
    with OneThread(), pytest.raises(SystemExit) as left:
        main(list(words))
    assert left.value.code == 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    """What the run comes to when nobody disturbs it."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    deepweave(*WORDS, "--out", str(folder))
    found = weights(folder)
    assert set(found) == {"model.safetensors", "shallow/model.safetensors"}
    return found


def kept(folder: Path) -> dict[Path, list[str]]:
    """The lines of every log that a checkpoint vouches for: they tell the time, to the tenth of
    a millisecond, so they stay the same only if those steps are not made again."""
    found = {}
    for path in folder.rglob("last.safetensors"):
        hooks = dict(archive.load(path)["loop"]["hooks"])
        log = path.parent.parent / "log.jsonl"
        lines = log.read_text().splitlines() if log.exists() else []
        found[log] = lines[: hooks["Log"]["lines"]]
    return found


def resumed(folder: Path) -> dict[str, bytes]:
    before = kept(folder)
    deepweave("resume", str(folder))
    for log, lines in before.items():
        assert log.read_text().splitlines()[: len(lines)] == lines, "steps were made twice"
    left = [path for path in folder.rglob("*") if path.name.endswith(".part")]
    assert not left, f"half-written files stay: {left}"
    assert (folder / "report.html").is_file()
    steps = [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    return weights(folder)


class Replaced:
    """A file was replaced so many times: each time it is another file, by its number."""

    def __init__(self, name: str, times: int = 1):
        self.name, self.times = name, times
        self.seen: set[int] = set()

    def __call__(self, folder: Path) -> bool:
        with contextlib.suppress(FileNotFoundError):
            self.seen.add((folder / self.name).stat().st_ino)
        return len(self.seen) >= self.times

    def __repr__(self) -> str:
        return f"{self.name} {self.times}"


FIRST, SECOND = "shallow/checkpoint/last.safetensors", "checkpoint/last.safetensors"
chosen = random.Random(2024)
MOMENTS = ["run.json", "shallow/log.jsonl", "shallow/model.safetensors", "model.safetensors"]
MOMENTS += ["card.md"]


@pytest.mark.parametrize(
    "moment",
    [
        *(Replaced(name) for name in MOMENTS),
        *(Replaced(name, chosen.randint(1, 2)) for name in (FIRST, SECOND, SECOND)),
    ],
    ids=repr,
)
def test_kill_and_resume(tmp_path, whole, moment):
    folder = tmp_path / "run"
    process = start([*WORDS, "--out", str(folder)])
    while not moment(folder):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.001)
            pytest.fail(f"the run ended before {moment}")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(chosen.random() * 0.2)  # any moment between this one and the next
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert resumed(folder) == whole


KILLER = """
import os, sys
from deepweave import archive, cli
call, count, when = sys.argv[1], 0, int(sys.argv[2])
real = getattr(os, call)
inside = False
def save(path, tree, _save=archive.save):
    global inside
    inside = True
    try:
        return _save(path, tree)
    finally:
        inside = False
def deadly(*args, **kwargs):
    global count
    count += inside
    if count == when:
        os.kill(os.getpid(), 9)
    return real(*args, **kwargs)
archive.save = save
setattr(os, call, deadly)
cli.main(sys.argv[3:])
"""


@pytest.mark.parametrize(("call", "when"), [("fsync", 1), ("replace", 4)])
def test_kill_while_a_checkpoint_is_written(tmp_path, whole, call, when):
    folder = tmp_path / "run"
    process = start([call, str(when), *WORDS, "--out", str(folder)], KILLER)
    assert process.wait(120) == -signal.SIGKILL
    assert list(folder.rglob("*.part")), "the kill came in the midst of writing"
    assert resumed(folder) == whole


def test_resume_of_a_finished_run_changes_no_weight(tmp_path, whole):
    folder = tmp_path / "run"
    deepweave(*WORDS, "--out", str(folder))
    assert resumed(folder) == whole


def test_killed_twice(tmp_path, whole):
    folder = tmp_path / "run"
    for words, call, when in (([*WORDS, "--out"], "replace", 3), (["resume"], "fsync", 3)):
        process = start([call, str(when), *words, str(folder)], KILLER)
        assert process.wait(120) == -signal.SIGKILL
    assert resumed(folder) == whole
