"""Tables of results in the pages: every shape of results has one."""

from __future__ import annotations

import json

import pytest
from benchmarks import tables


def saved(folder, results):
    machine = {"cpu": "a", "cores": 2, "date": "2026", "versions": {"torch": "2", "deepweave": "1"}}
    content = {"command": "make it", "machine": machine, "results": results}
    (folder / "some.json").write_text(json.dumps(content))


def timed(seconds, ratio, **more):
    return {"seconds": seconds, "ratio": ratio, "ratio_low": ratio, "ratio_high": ratio, **more}


def test_contenders_with_their_memory(tmp_path):
    part = {"deepweave": timed(0.6, 1.0, mib=40.2), "naive": timed(2.8, 4.7, mib=831.0)}
    saved(tmp_path, {"causal, 4,096": part})
    text = tables.markdown("some/causal, 4,096", tmp_path).split("\n")
    assert text[0] == "| | time | ratio to deepweave (quartiles) | memory |".replace("| |", "|  |")
    assert text[2] == "| deepweave | 600 ms | 1.00 (1.00 to 1.00) | 40 MiB |"
    assert text[3] == "| naive | 2.8 s | 4.70 (4.70 to 4.70) | 831 MiB |"
    assert text[-3:] == ["a, 2 cores, 2026; torch 2.", "`make it`", ""]


def test_records_with_whole_numbers_and_several_seeds(tmp_path):
    row = {"lr": 0.003, "parameters": 871936, "bits": 3.30512, "seeds": [3.31, 3.3, 3.325]}
    saved(tmp_path, {"learning": {"deepweave": row}})
    text = tables.markdown("some/learning", tmp_path).split("\n")
    assert text[0] == "|  | lr | parameters | bits | seeds |"
    assert text[2] == "| deepweave | 0.003 | 871,936 | 3.31 | 3.3 to 3.33 |"


def test_what_is_missing_is_told(tmp_path):
    saved(tmp_path, {"learning": {"a": {"x": 1.0, "y": 2.0}}})
    with pytest.raises(KeyError, match="'speed' is none of learning"):
        tables.markdown("some/speed", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no"):
        tables.markdown("other", tmp_path)
