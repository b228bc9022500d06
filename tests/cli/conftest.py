"""The command line, called in this process: what it leaves, what it says and with which code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from deepweave.cli import main


class Said(NamedTuple):
    code: object
    out: str
    err: str

    def refusal(self) -> str:
        """The one line of a refusal, which leaves nothing on stdout."""
        assert self.code == 2, self
        assert self.out == ""
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("deepweave: ")
        return lines[0]


Call = Callable[..., Said]


@pytest.fixture
def cli(capsys, tmp_path, monkeypatch) -> Call:
    """Call the command line in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*words: object) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        return Said(left.value.code, out, err)

    return call


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """A folder with a table and a finished run on it: copy it, do not change it."""
    folder = tmp_path_factory.mktemp("finished")
    words = ["--data", str(write_table(folder / "table.csv")), "--quick"]
    with pytest.raises(SystemExit):
        main(["run", "shallow", *words, "--out", str(folder / "run")])
    return folder


@pytest.fixture
def table(tmp_path) -> Path:
    return write_table(tmp_path / "table.csv")


def write_table(path: Path) -> Path:
    """A small table that can be learned: numbers, a category, gaps, a name for each class."""
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 3))
    frame = pd.DataFrame(x.round(3), columns=["a", "b", "c"])
    frame["kind"] = random.choice(["u", "v", "w"], 90)
    frame["label"] = np.where(x[:, 0] + 0.3 * random.normal(size=90) > 0, "yes", "no")
    frame.loc[::7, "b"] = np.nan
    frame.to_csv(path, index=False)
    return path
