"""Precision in one process, and two processes on loopback beside one: the same weights."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import deepweave as dw
from deepweave import archive
from deepweave.core import places
from deepweave.core.engine import Engine, share

CREW = Path(__file__).with_name("crew.py")
spec = importlib.util.spec_from_file_location("crew", CREW)
assert spec is not None
assert spec.loader is not None
crew = importlib.util.module_from_spec(spec)
spec.loader.exec_module(crew)

ENV = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
BOTH = pytest.mark.parametrize("strategy", ["ddp", "fsdp"])


def run_two(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", "2", *words]  # fmt: skip
    return subprocess.run(command, env=ENV, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """What two processes left, of everything in crew.py."""
    found = tmp_path_factory.mktemp("crew")
    for strategy in ("ddp", "fsdp"):  # begun by one process, for two to go on with
        with pytest.raises(crew.Stop):
            crew.cut(None, found / f"alone {strategy}", 5)
    done = run_two(str(CREW), str(found))
    assert done.returncode == 0, done.stderr
    return found


def close(found, expected, tolerance: float = 1e-10) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        value = torch.as_tensor(value)
        other = torch.as_tensor(found[name], dtype=value.dtype)
        torch.testing.assert_close(other, value, atol=tolerance, rtol=tolerance, msg=name)


@BOTH
@pytest.mark.parametrize("case", crew.SAME, ids=lambda case: case.__name__)
def test_two_processes_give_what_one_gives(folder, tmp_path, case, strategy):
    result = case(None, tmp_path / "alone")
    expected = crew.told(result) if isinstance(result, dw.Run) else result
    for rank in (0, 1):
        found = archive.load(folder / f"{case.__name__} {strategy} {rank}.safetensors")
        if case is crew.resumed and rank == 1:  # the history is in the log, which it has not
            found, expected = (
                {k: v for k, v in one.items() if k.startswith("weight")}
                for one in (found, expected)
            )
        close(found, expected)


@BOTH
def test_one_process_goes_on_where_two_were_killed(folder, strategy, tmp_path):
    expected = crew.told(crew.cut(None, tmp_path / "whole"))
    close(crew.told(crew.cut(None, folder / f"cut {strategy}")), expected)


@BOTH
def test_two_processes_go_on_where_one_was_killed(folder, strategy, tmp_path):
    expected = crew.told(crew.cut(None, tmp_path / "whole"))
    close(archive.load(folder / f"again {strategy} 0.safetensors"), expected)


@BOTH
def test_the_folder_is_that_of_one_process(folder, strategy, tmp_path):
    """And only the first process has one."""
    one = crew.weights(None, tmp_path / "one")
    two = folder / f"weights {strategy} 0"
    names = sorted(str(path.relative_to(two)) for path in two.rglob("*"))
    assert names == sorted(str(p.relative_to(one.folder)) for p in one.folder.rglob("*"))
    assert not (folder / f"weights {strategy} 1").exists()
    assert not (folder / "many 1").exists()
    first, second = (
        archive.load(where / "checkpoint/last.safetensors") for where in (one.folder, two)
    )
    assert first["identity"] == second["identity"]

    def shapes(tree):
        if isinstance(tree, dict):
            return {k: shapes(v) for k, v in tree.items() if k not in ("chance", "place")}
        if isinstance(tree, list | tuple):
            return [shapes(part) for part in tree]
        return tuple(tree.shape) if isinstance(tree, torch.Tensor) else type(tree).__name__

    assert shapes(first) == shapes(second)
    info = json.loads((two / "run.json").read_text())
    assert (info["processes"], info["strategy"]) == (2, strategy)
    assert not {"processes", "strategy", "precision"} & one.info.keys()


def test_parts_of_a_model_are_divided_by_themselves(folder):
    expected = crew.told(dw.fit(crew.step_of(), crew.samples(), batch=16, epochs=2))
    close(archive.load(folder / "blocks 0.safetensors"), expected)


@BOTH
def test_batch_norm_sees_the_rows_of_its_process(folder, strategy):
    """Slopes are means; the running statistics are those of process 0, on every process."""
    split, whole = crew.samples(13), dw.Classify(crew.net(norm=True))
    shares = [(split.x[low:high], split.y[low:high]) for low, high in ((0, 6), (6, 13))]
    copies = [copy.deepcopy(whole) for _ in shares]
    for objective, rows in zip(copies, shares):
        (len(rows[1]) / 13 * objective(rows)[0]).backward()
    for a, b in zip(*(list(one.parameters()) for one in copies)):
        a.data -= 0.5 * (a.grad + b.grad)
    expected = dict(copies[0].model.state_dict())
    for rank in (0, 1):
        close(archive.load(folder / f"normed {strategy} {rank}.safetensors"), expected)


def test_processes_draw_differently_and_the_first_as_if_alone(folder):
    first, second = (archive.load(folder / f"drawn {rank}.safetensors") for rank in (0, 1))
    alone = crew.drawn()
    first, second = (found[-len(alone) :] for found in (first, second))  # a trial came before
    assert first == alone
    assert not set(first) & set(second)


@BOTH
def test_each_process_goes_on_drawing_where_it_was(folder, strategy):
    for rank in (0, 1):
        whole, again = (
            archive.load(folder / f"{name} {strategy} {rank}.safetensors")
            for name in ("noisy", "noisy again")
        )
        close(again, whole, 0.0)


def test_a_loader_that_is_divided_already(folder):
    """Each process has rows of its own from it; weights of classes count over both."""
    step, split = (
        crew.step_of(dw.Classify(crew.net(), class_weight=[1.0, 2.0, 0.5])),
        crew.samples(),
    )
    batches = []
    for epoch in range(2):
        parts = []
        for rank in (0, 1):
            sampler = crew.DistributedSampler(split.y, 2, rank, shuffle=True, seed=5)
            sampler.set_epoch(epoch)
            parts.append(torch.tensor(list(sampler)).split(6))
        batches.append([(split.x[i], split.y[i]) for i in map(torch.cat, zip(*parts))])
    dw.fit(step, batches[0], epochs=1)
    run = dw.fit(step, batches[1], epochs=1)
    close(archive.load(folder / "own 0.safetensors"), crew.told(run))


def test_a_population_learns_whole_in_every_process(folder):
    many = dw.Population(dw.Classify(crew.net()), 3, shared=True, lr=0.05)
    dw.fit(many, crew.samples(), batch=16, epochs=2)
    for rank in (0, 1):
        found = archive.load(folder / f"many {rank}.safetensors")
        assert all(torch.equal(found[k], v) for k, v in many.weights().items())
    assert (folder / "many 0/checkpoint/last.safetensors").exists()


@pytest.mark.parametrize(("precision", "tolerance"), [("bf16", 5e-2), ("fp16", 5e-3)])
def test_two_processes_in_less_precision(folder, precision, tolerance):
    alone = dw.fit(crew.step_of(dw.Classify(crew.net().float())), crew.data32(), batch=16, epochs=2)
    first, second = (archive.load(folder / f"{precision} {rank}.safetensors") for rank in (0, 1))
    close(first, second, 0.0)
    expected = dict(alone.model.state_dict())
    close(first, expected, tolerance)
    assert any(not torch.equal(first[k], v) for k, v in expected.items())
    assert all(value.dtype == torch.float32 for value in first.values())


def test_what_two_processes_refuse(folder):
    expected = {
        "devices": "fit: devices=3, but 2 processes were started: "
        "torchrun --nproc-per-node 3 SCRIPT.py",
        "batch": "fit: batch=1 has not one sample for each of 2 processes",
        "muon": "fit: Muon cannot be sharded: take strategy='ddp'",
        "population": "fit: strategy='ddp' is for Descent, got Population; leave it out",
        "rows": "fit: a batch is divided by rows, but holds 4 and 3 of them",
    }
    for rank in (0, 1):
        assert archive.load(folder / f"refused {rank}.safetensors") == expected


def test_a_killed_process_does_not_leave_the_other_waiting(tmp_path):
    """Without a launcher to end it, the other says in one line what happened; one goes on."""
    words = [str(CREW), str(tmp_path), "--die", str(tmp_path / "meeting")]
    pair = [
        subprocess.Popen([sys.executable, *words, str(rank)], env=ENV, stderr=subprocess.PIPE,
                         text=True)
        for rank in (0, 1)
    ]  # fmt: skip
    told = [process.communicate()[1] for process in pair]
    assert [process.returncode for process in pair] == [3, -9], told
    assert told[0].splitlines()[-1].startswith("fit: process 0 of 2 lost another: connection")
    info = json.loads((tmp_path / "died/run.json").read_text())
    assert info["status"] == "failed"
    expected = crew.told(crew.cut(None, tmp_path / "whole"))
    close(crew.told(crew.cut(None, tmp_path / "died")), expected)


def test_the_command_line_starts_the_processes(tmp_path):
    words = ["run", "shallow", "--data", "iris", "--epochs", "20", "--precision", "float32"]
    done = subprocess.run(
        [sys.executable, "-m", "deepweave", *words, "--out", str(tmp_path), "--devices", "2"],
        env=ENV, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("page: ") == 1
    assert done.stderr.count("trained ") == 1
    info = json.loads((tmp_path / "run.json").read_text())
    assert info["place"] == {"devices": "2", "precision": "float32"}
    assert info["command"].endswith("--epochs 20 --devices 2 --precision float32")
    assert (info["status"], info["processes"]) == ("finished", 2)
    assert info["scores"]["test/accuracy"]["value"] > 0.8


LAUNCHES = """
import sys
from deepweave.core.launch import launch
start = "import os, sys\\nrank = os.environ['RANK']\\n"
say = "(sys.stderr.write(f'told by {rank}\\\\n'), sys.exit(2))"
for program in ("assert os.environ['WORLD_SIZE'] == '2'", say, f"rank == '1' and {say}",
                "rank == '1' and os.kill(os.getpid(), 9)"):
    print(launch(2, ["-c", start + program]), file=sys.stderr)
"""


def test_the_launcher_says_what_failed_first():
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHES], env=ENV, capture_output=True, text=True, check=False
    )
    lines = done.stderr.splitlines()
    if lines[1:3] == ["told by 0", "told by 1"]:  # the second was the first to fail
        del lines[2]
    assert lines == [
        "0",
        "told by 0",
        "2",
        "told by 1",
        "2",
        "deepweave: process 1 of 2 was ended by signal 9; go on with: deepweave resume FOLDER",
        "1",
    ]


# one process


def image(precision: str | None = None, **options) -> dw.Run:
    x, y = crew.samples().x.float(), crew.samples().y
    return dw.fit(crew.step_of(dw.Classify(crew.net().float()), **options), dw.data.Split(x, y),
                  batch=16, epochs=4, precision=precision)  # fmt: skip


class Seen(dw.Hook):
    """The kinds of numbers in the forward pass, and the slopes at the moment of the update."""

    def __init__(self):
        self.kinds, self.norms = set(), []

    def begin(self, loop):
        layer = loop.step.objective.model[0]
        self.handles = [
            layer.register_forward_hook(
                lambda m, x, out: self.kinds.add(out.dtype) if m.training else None
            ),
            loop.step.optimizer.register_step_pre_hook(
                lambda *_: self.norms.append(float(layer.weight.grad.norm()))
            ),
        ]

    def close(self, loop):
        for handle in self.handles:
            handle.remove()


@pytest.mark.parametrize(("precision", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_precision_is_of_the_forward_pass(precision, kind):
    results = []
    for name in (None, precision):
        step, seen = crew.step_of(dw.Classify(crew.net().float())), Seen()
        run = dw.fit(step, crew.data32(), batch=16, epochs=2, precision=name, hooks=[seen])
        results.append((run, seen, step))
    (plain, before, _), (run, seen, step) = results
    assert before.kinds == {torch.float32}
    assert seen.kinds == {kind}
    assert seen.norms == pytest.approx(before.norms, rel=0.05)  # as they are, not scaled
    close(dict(run.model.state_dict()), dict(plain.model.state_dict()), 5e-2)
    assert all(w.dtype == torch.float32 for w in run.model.parameters())
    assert run.info["precision"] == precision
    assert not step.objective._forward_hooks
    assert not step.objective._forward_pre_hooks
    assert step.optimizer._step_supports_amp_scaling
    assert step.engine is None


def test_bf16_of_a_population():
    runs = []
    for precision in (None, "bf16"):
        many = dw.Population(dw.Classify(crew.net().float()), 3, "SGD", lr=0.05)
        runs.append(dw.fit(many, crew.data32(), batch=16, epochs=3, precision=precision))
    plain, less = (run.step.weights() for run in runs)
    close(less, plain, 5e-2)
    assert all(float((less[k] - v).abs().max()) > 1e-5 for k, v in plain.items())
    assert all(value.dtype == torch.float32 for value in less.values())


@pytest.mark.parametrize("kill", [3, 6])
def test_fp16_resumes_to_the_same_bytes(tmp_path, kill):
    def go(out, kill=None):
        step = crew.step_of(dw.Classify(crew.net().float()), accumulate=2)
        hooks = [crew.KillAt(kill), dw.hooks.Checkpoint(seconds=0.0), dw.hooks.Clip(norm=0.1)]
        return dw.fit(step, crew.data32(), batch=10, epochs=2, precision="fp16", hooks=hooks,
                      out=dw.Run(out, resume=True))  # fmt: skip

    whole = go(tmp_path / "whole")
    with pytest.raises(crew.Stop):
        go(tmp_path / "cut", kill)
    kept = archive.load(tmp_path / "cut/checkpoint/last.safetensors")["loop"]["place"]
    assert kept["scaler"]["scale"] == 65536.0
    again = go(tmp_path / "cut")
    close(dict(again.model.state_dict()), dict(whole.model.state_dict()), 0.0)
    with pytest.raises(ValueError, match="its precision is fp16, here it is float32"):
        dw.fit(crew.step_of(dw.Classify(crew.net().float()), accumulate=2), crew.data32(), batch=10,
               epochs=2, out=dw.Run(tmp_path / "cut", resume=True),
               hooks=[crew.KillAt(None), dw.hooks.Clip(norm=0.1)])  # fmt: skip


def test_fp16_skips_an_update_that_overflows_and_lowers_the_scale():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    step = dw.Descent(dw.Regress(model), "SGD", lr=1e-4)
    large = torch.full((2, 1), 100.0), torch.zeros(2)  # its slope, scaled, is above 65504
    place = places.Place("cpu", "fp16")
    place.begin(step)
    seen = []
    step.optimizer.register_step_pre_hook(lambda *_: seen.append(model.weight.grad.clone()))
    before = model.weight.detach().clone()
    step(large)
    assert torch.equal(model.weight, before)
    assert not seen
    assert isinstance(place.engine, Engine)
    assert place.engine.scaler is not None
    assert place.engine.scaler.get_scale() == 32768.0
    while not seen:
        step(large)
    assert seen[0].item() == pytest.approx(2e4, rel=1e-2)
    assert model.weight.item() == pytest.approx(1 - 2.0, rel=1e-2)


def test_fp16_at_a_scale_below_one_takes_each_step_once():
    results = []
    for precision, scale in (("float32", None), ("fp16", 0.5)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.ones_(model.weight)
        step = dw.Descent(dw.Regress(model), "SGD", lr=0.1)
        place = places.Place("cpu", precision)
        place.begin(step)
        if scale is not None:
            place.engine.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        step((torch.ones(2, 1), torch.zeros(2)))
        results.append(model.weight.item())
    assert results[1] == pytest.approx(results[0], rel=1e-3)


def test_fp16_does_not_skip_for_ever():
    x, y = torch.ones(4, 6), torch.zeros(4).long()
    batches = [(x, y)] * 3 + [(x * torch.nan, y)] * 40
    with pytest.raises(FloatingPointError, match="the batch has 24 numbers in its inputs"):
        dw.fit(crew.step_of(dw.Classify(crew.net().float())), batches, epochs=1, precision="fp16")


def test_the_context_and_what_overrides_it():
    with dw.place(precision="bf16"):
        assert image().info["precision"] == "bf16"
        assert "precision" not in image("float32").info
        with dw.place(devices="cpu"):
            assert places.ASKED.get() == {"precision": "bf16", "devices": "cpu"}
            assert image().info["precision"] == "bf16"
    assert "precision" not in image().info
    with pytest.raises(RuntimeError, match="inside"), dw.place(precision="fp16"):
        raise RuntimeError("inside")
    assert places.ASKED.get() == {}


def test_an_error_leaves_the_step_as_it_was():
    step = crew.step_of(dw.Classify(crew.net().float()), only=None)
    with pytest.raises(crew.Stop):
        dw.fit(step, crew.data32(), batch=16, epochs=1, precision="fp16", hooks=[crew.KillAt(2)])
    assert step.engine is None
    assert not step.objective._forward_hooks
    dw.fit(step, crew.data32(), batch=16, epochs=1)


class Own(dw.Step):
    def __init__(self):
        self.objective = dw.Regress(nn.Linear(1, 1))

    def __call__(self, batch):
        return {"loss": torch.zeros(())}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision": "int8"}, "precision must be one of float32, bf16, fp16, got 'int8'"),
        ({"strategy": "deepspeed"}, "strategy must be one of ddp, fsdp, got 'deepspeed'"),
        ({"devices": 0}, "devices must be at least 1, got 0"),
        ({"devices": -2}, "devices must be at least 1, got -2"),
        ({"devices": "cuda"}, "devices='cuda', but PyTorch sees 0 CUDA devices"),
        ({"devices": [0, 1]}, r"devices=\[0, 1\] needs 2 processes: torchrun --nproc-per-node 2"),
        ({"devices": [5]}, r"devices=\[5\], but PyTorch sees 0 CUDA devices"),
        ({"devices": "cuda:3"}, "devices='cuda:3', but PyTorch sees 0 CUDA devices"),
        ({"devices": 2}, "devices=2 needs 2 processes: torchrun --nproc-per-node 2 SCRIPT.py"),
        ({"devices": "3"}, "devices='3' needs 3 processes: torchrun --nproc-per-node 3"),
        ({"devices": ["cpu", "cpu"]}, "needs 2 processes"),
        ({"devices": ["cpu", "cuda:0"]}, "a list of one kind, got"),
        ({"devices": []}, r"a list of one kind, got \[\]"),
        ({"devices": "abacus"}, "devices must be cpu, cuda, a number or a list"),
        ({"devices": True}, "devices must be cpu, cuda, a number or a list"),
        ({"devices": 1.5}, "devices must be cpu, cuda, a number or a list"),
        ({"strategy": "ddp"}, "strategy='ddp' needs several processes: torchrun --nproc-per-node"),
    ],
)
def test_places_there_are_not(monkeypatch, tmp_path, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    step = crew.step_of()
    with pytest.raises(ValueError, match=message) as refused:
        dw.fit(step, crew.samples(), epochs=1, out=tmp_path / "run", **arguments)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()
    if "processes" not in message and "sees" not in message:
        with pytest.raises(ValueError, match=message), dw.place(**arguments):
            pass


def test_precision_of_other_steps():
    with pytest.raises(ValueError, match="fp16 scales the loss of one model; for a Population"):
        dw.fit(
            dw.Population(dw.Classify(crew.net()), 2), crew.samples(), epochs=1, precision="fp16"
        )
    with pytest.raises(ValueError, match="precision is for Descent and Population, Own sets"):
        dw.fit(Own(), [torch.zeros(1)], epochs=1, precision="bf16")


@pytest.mark.parametrize(
    ("rank", "size", "expected"),
    [(0, 7, (0, 3)), (1, 7, (3, 7)), (0, 1, (0, 1)), (1, 1, (0, 1)), (0, 4, (0, 2))],
)
def test_shares_of_a_batch(rank, size, expected):
    """Rows in a row, all of them once; the mass says what each share counts."""
    place = places.Place("cpu", "float32", "ddp", rank, 2)
    x, weight = torch.arange(float(size)), torch.arange(1.0, size + 1)
    objective = dw.Regress(nn.Linear(1, 1))
    part, factor = share(place, (x, {"y": x}), objective)
    assert part[0].tolist() == list(range(*expected))
    assert part[1]["y"].tolist() == part[0].tolist()
    mine = expected[1] - expected[0] if (rank, size) != (0, 1) else 0
    assert factor == pytest.approx(2 * mine / size)
    if size > 1:
        (_, _, mine), factor = share(place, (x, x, weight), objective)
        assert float(factor) == pytest.approx(2 * float(mine.sum() / weight.sum()))
        _, factor = share(place, (x, x, 0 * weight), objective)
        assert float(factor) == 0.0


def test_mass_passes_through_what_wraps_an_objective():
    batch = torch.zeros(3, 1), torch.tensor([0, 1, 1]), torch.tensor([1.0, 2.0, 3.0])
    inner = dw.Classify(nn.Linear(1, 2), class_weight=[1.0, 10.0])

    class Around(dw.Objective):
        def __init__(self):
            super().__init__()
            self.objective = inner

        def forward(self, batch):
            return self.objective(batch)

    assert float(Around().mass(batch)) == float(inner.mass(batch)) == 51.0
    assert dw.Regress(nn.Linear(1, 1)).mass(batch[:2]) == 3


def test_one_process_in_float32_is_left_alone():
    step = crew.step_of()
    place = places.settle(None, None, None, step)
    place.begin(step)
    assert step.engine is None
    assert not step.objective._forward_hooks
    info = {"processes": 2, "precision": "bf16"}  # of an earlier try
    place.note(info)
    assert info == {}
    assert place.state() == {}
    with contextlib.suppress(KeyError):
        place.end(trained=True)
