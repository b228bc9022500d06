from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave.hooks import Checkpoint, Log, Progress
from deepweave.hooks.progress import _clock, line


class Told(dw.Step):
    """A step whose loss at step t is t, or (t, 10 t) for two members."""

    def __init__(self, members: int | None = None):
        self.objective = dw.Regress(nn.Linear(1, 1))
        self.members, self.count = members, 0

    def __call__(self, batch):
        self.count += 1
        loss = torch.tensor(float(self.count))
        if self.members:
            return {"loss": torch.stack([loss, 10 * loss])}
        return {"loss": loss, "twice": 2 * loss}

    def evaluate(self, batch):
        return {}

    def check(self, batch): ...

    def state(self):
        return {**super().state(), "count": self.count}

    def restore(self, state):
        super().restore(state)
        self.count = state["count"]


def read(folder):
    return [json.loads(row) for row in (folder / "log.jsonl").read_text().splitlines()]


def test_lines_are_means_over_their_steps(tmp_path):
    run = dw.fit(Told(), [torch.zeros(1)] * 5, epochs=5, hooks=[Log(every=4)], out=tmp_path / "a")
    rows = read(tmp_path / "a")
    assert rows == run.history
    assert [row["step"] for row in rows] == [4, 8, 12, 16, 20, 24, 25]
    means = [2.5, 6.5, 10.5, 14.5, 18.5, 22.5, 25.0]
    assert [row["train/loss"] for row in rows] == means
    assert [row["train/twice"] for row in rows] == [2 * mean for mean in means]
    assert [row["epoch"] for row in rows] == [0, 1, 2, 3, 3, 4, 5]
    assert all(a["seconds"] <= b["seconds"] for a, b in itertools.pairwise(rows))


def test_a_population_has_a_number_for_each_member(tmp_path):
    run = dw.fit(Told(2), [torch.zeros(1)] * 4, epochs=1, hooks=[Log(every=2)], out=tmp_path / "a")
    assert [row["train/loss"] for row in run.history] == [[1.5, 15.0], [3.5, 35.0]]


def test_what_is_not_finite_is_null_and_the_rate_is_logged(tmp_path):
    x = torch.ones(4, 1)

    class Odd(dw.Regress):
        def forward(self, batch):
            loss, _ = super().forward(batch)
            return loss, {"odd": torch.tensor(float("nan"))}

    dw.fit(dw.Descent(Odd(nn.Linear(1, 1)), "SGD", lr=0.25), [(x, x[:, 0])], steps=2,
           hooks=[Log(every=1)], out=tmp_path / "a")  # fmt: skip
    text = (tmp_path / "a/log.jsonl").read_text()
    assert "NaN" not in text, "JSON knows no NaN"
    assert [(row["train/odd"], row["lr"]) for row in read(tmp_path / "a")] == [(None, 0.25)] * 2


@pytest.mark.parametrize(("steps", "lines"), [(50, 5), (40_000 // 20, 200)])
def test_about_two_hundred_lines(tmp_path, steps, lines):
    run = dw.fit(Told(), [torch.zeros(1)] * 50, steps=steps, hooks=[Log()], out=tmp_path / "a")
    assert len(run.history) == lines


class Stop(Exception): ...


class KillAt(dw.Hook):
    def __init__(self, step):
        self.step = step

    def after_step(self, loop, logs):
        if loop.count == self.step:
            raise Stop


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_resume_continues_the_lines(tmp_path, seconds):
    """Also when no checkpoint was written: then the file begins anew."""

    def go(kill, out):
        hooks = [KillAt(kill), Log(every=4), Checkpoint(seconds=seconds)]
        return dw.fit(Told(), [torch.zeros(1)] * 5, epochs=5, hooks=hooks, out=out)

    whole = go(None, tmp_path / "a")
    with pytest.raises(Stop):
        go(11, tmp_path / "b")
    again = go(None, dw.Run(tmp_path / "b", resume=True))
    keep = ("step", "epoch", "train/loss", "train/twice")
    expected = [{k: row[k] for k in keep} for row in whole.history]
    assert [{k: row[k] for k in keep} for row in again.history] == expected
    assert [{k: row[k] for k in keep} for row in read(tmp_path / "b")] == expected


def test_every_is_checked():
    with pytest.raises(ValueError, match="Log: every must be at least 1"):
        Log(every=0)


# --- Progress -------------------------------------------------------------------------------


def test_plain_lines_when_not_on_a_terminal(capsys):
    x = torch.ones(4, 1)
    step = dw.Descent(dw.Regress(nn.Linear(1, 1)), "SGD", lr=0.1)
    hooks = [dw.hooks.Validate([(x, x[:, 0])]), Progress(seconds=0.0)]
    dw.fit(step, [(x, x[:, 0])] * 2, epochs=2, hooks=hooks)
    out, err = capsys.readouterr()
    assert out == ""
    rows = err.splitlines()
    assert len(rows) == 5
    assert rows[0].startswith("epoch 1/2  step 1/4  loss ")
    assert rows[2].startswith("epoch 2/2  step 3/4  loss ")
    assert "  validation loss 0." in rows[2]
    assert rows[4].startswith("trained 4 steps in ")


def test_a_stop_is_said(capsys):
    class Enough(dw.Hook):
        def after_step(self, loop, logs):
            loop.stop = "enough"

    dw.fit(Told(), [torch.zeros(1)] * 3, epochs=2, hooks=[Enough(), Progress()])
    assert ": enough" in capsys.readouterr().err.splitlines()[-1]


class Standing:
    """A loop that stands still, to read its line."""

    epochs, epoch, steps, count, seconds = 20, 2, 220, 33, 11.0

    class run:
        history = [  # noqa: RUF012
            {"validation/loss": 0.52, "validation/accuracy": 0.9},
            {"train/loss": 1.0},
        ]


def test_the_line():
    loss = {"loss": torch.tensor(0.41234)}
    assert line(Standing, loss) == (  # pyright: ignore[reportArgumentType]
        "epoch 3/20  step 33/220  loss 0.4123  validation loss 0.52  validation accuracy 0.9  "
        "3 steps/s  1:02 left"
    )


def test_the_line_of_a_population():
    class Many(Standing):
        class run:
            history = [{"validation/loss": [0.9, None, 0.4]}]  # noqa: RUF012

    text = line(Many, {"loss": torch.tensor([1.0, 3.0])})  # pyright: ignore[reportArgumentType]
    assert "loss 2  validation loss 0.4  " in text


@pytest.mark.parametrize(
    ("seconds", "text"), [(9.34, "9.3 s"), (65, "1:05"), (7384, "2:03:04"), (0, "0.0 s")]
)
def test_the_clock(seconds, text):
    assert _clock(seconds) == text


def test_what_only_some_steps_say_is_averaged_over_those():
    sides = dw.GAN(dw.nn.decoder(((2,), 1), 2, (4,)), dw.nn.discriminator(((2,), 1), (4,)))
    step = dw.Alternate(sides, ratio=3)
    run = dw.fit(step, [torch.randn(8, 2)] * 10, epochs=1, hooks=[dw.hooks.Log(5)])
    assert all("train/generator" in line for line in run.history)  # steps 3, 6 and 9
    assert len(run.history) == 2
