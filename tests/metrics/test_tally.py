"""Batches, merges and processes give what the whole set gives."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from deepweave import metrics
from deepweave.metrics.stream import Stream

N = 240


def draw(task: str, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    w = torch.rand(N, generator=g, dtype=torch.float64)
    if task == "binary":
        p = torch.rand(N, generator=g, dtype=torch.float64)
        return 1, p, (torch.rand(N, generator=g) < p).long(), w
    if task == "multiclass":
        p = torch.rand(N, 7, generator=g, dtype=torch.float64).softmax(1)
        return 7, p, torch.randint(7, (N,), generator=g), w
    if task == "multilabel":
        p = torch.rand(N, 4, generator=g, dtype=torch.float64)
        return 4, p, (torch.rand(N, 4, generator=g) < p).float(), w
    if task == "segmentation":
        p = torch.rand(N, 3, 4, 5, generator=g, dtype=torch.float64).softmax(1)
        return 3, p, torch.randint(3, (N, 4, 5), generator=g), w
    y = torch.randn(N, 2, generator=g, dtype=torch.float64) + 100
    return 2, y + torch.randn(N, 2, generator=g, dtype=torch.float64), y, w


TASKS = ("binary", "multiclass", "multilabel", "segmentation", "regression")


def same(a, b, tolerance=1e-9):
    assert a.keys() == b.keys()
    for key in a:
        mine, theirs = (np.array([s, s.low, s.high]) for s in (a[key], b[key]))
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance, err_msg=key)
        assert a[key].method == b[key].method


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_and_merges_equal_the_whole(task, weighted):
    outputs, p, y, w = draw(task)
    w = w if weighted else None
    whole = metrics.evaluate(task, p, y, weight=w)
    for score in whole.values():
        assert score.low <= score <= score.high
        assert score.method
    parts = [Stream(task, outputs) for _ in range(3)]
    for i, start in enumerate(range(0, N, 37)):
        rows = slice(start, start + 37)
        parts[i % 2].update(p[rows], y[rows], None if w is None else w[rows])
    total = parts[2].merge(parts[0]).merge(parts[1])  # the first is empty
    same(total.result(), whole)
    same(total.gather().result(), whole)  # no process group: a copy


def test_an_update_reads_nothing_back(monkeypatch):
    _, p, y, w = draw("multiclass")
    streams = [Stream("multiclass", 7), metrics.Errors(), Stream("binary")]

    def refuse(*_):
        raise RuntimeError("a value was read from the device")

    for name in ("item", "tolist", "__float__", "__int__", "__bool__", "__index__", "numpy"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    for _ in range(2):
        streams[0].update(p, y, w)
        streams[1].update(p[:, 0], p[:, 1], w)
        streams[2].update(p[:, 0], (y > 3).long())


def test_a_kept_batch_does_not_alias_the_callers_buffer():
    tally = metrics.Ranking()
    p, y = torch.tensor([0.1, 0.9]), torch.tensor([0, 1])
    tally.update(p, y)
    p.fill_(0.5)
    assert tally.auc() == 1.0


def test_a_read_result_does_not_end_the_stream():
    stream = Stream("binary")
    stream.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1])).result()
    stream.update(torch.tensor([0.2, 0.1]), torch.tensor([0, 1]))
    assert stream.result()["auc"] == 0.5 + 0.125


def test_merge_refuses_other_settings():
    with pytest.raises(ValueError, match="merge needs"):
        metrics.Confusion(3).merge(metrics.Confusion(4))
    with pytest.raises(ValueError, match="merge needs"):
        Stream("binary").merge(Stream("binary", ranking=False))


def test_nothing_inside_remembers_gradients():
    p = torch.rand(8, 3).softmax(1).requires_grad_()
    with torch.inference_mode():
        assert metrics.f1(p * 1, torch.randint(3, (8,)), average="macro").method == "delta"
    assert not metrics.Confusion(3).update(p, torch.zeros(8).long()).matrix().requires_grad


WORKER = """
    import sys
    import torch
    import torch.distributed as dist
    sys.path.insert(0, {folder!r})
    from test_tally import TASKS, draw, same
    from deepweave import metrics
    from deepweave.metrics.stream import Stream

    torch.set_num_threads(1)
    rank = int(sys.argv[1])
    store = dist.FileStore({store!r}, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for task in TASKS:
        outputs, p, y, w = draw(task)
        for weighted in (False, True):
            stream = Stream(task, outputs)
            # Unequal shares in unequal batches; the second process holds a third of the data.
            rows = torch.arange(len(p))
            mine = rows[:160] if rank == 0 else rows[160:]
            for part in mine.split(50 if rank == 0 else 33):
                stream.update(p[part], y[part], w[part] if weighted else None)
            total = stream.gather()
            whole = metrics.evaluate(task, p, y, weight=w if weighted else None)
            same(total.result(), whole)
            assert sum(t.size for t in stream.tallies.values()) < sum(
                t.size for t in total.tallies.values())
            same(stream.gather().result(), whole)  # gathering twice counts nothing twice
    # One process saw nothing at all.
    stream = Stream("binary")
    if rank == 1:
        stream.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    assert stream.gather().result()["auc"] == 1.0
    dist.barrier()
    dist.destroy_process_group()
    print("same", rank)
"""


def test_two_processes_equal_the_whole(tmp_path):
    script = tmp_path / "worker.py"
    folder = os.path.dirname(os.path.abspath(__file__))
    text = WORKER.format(folder=folder, store=str(tmp_path / "store"))
    script.write_text(textwrap.dedent(text))
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=settings,
        )
        for rank in range(2)
    ]
    try:
        for rank, worker in enumerate(workers):
            out, err = worker.communicate(timeout=60)
            assert worker.returncode == 0, err
            assert f"same {rank}" in out
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
