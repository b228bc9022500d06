from __future__ import annotations

import dataclasses
import json

import torch

from deepweave.data import Spec, Split, load


def test_the_summary_is_json_and_complete():
    data = load("breast_cancer")
    held = json.loads(json.dumps(data.summary()))
    assert held["splits"] == {"train": 399, "validation": 85, "test": 85}
    assert sum(map(sum, held["class_counts"].values())) == 569
    assert Spec.from_json(held["spec"]) == data.spec
    assert held["fingerprint"] == data.fingerprint
    assert len(held["fingerprint"]) == 64
    assert all(isinstance(sentence, str) for sentence in held["preparation"])


def test_the_fingerprint_sees_every_tensor_and_name():
    data = load("iris")
    x = data.test.x.clone()
    x[0, 0] += 1e-6
    changes = [
        {"test": Split(x, data.test.y)},
        {"test": Split(data.test.x, data.test.y, torch.ones(len(x)))},
        {"train": data.train[torch.arange(len(data.train) - 1)]},
        {"spec": dataclasses.replace(data.spec, features=("a", "b", "c", "d"))},
    ]
    prints = {dataclasses.replace(data, **change).fingerprint for change in changes}
    assert len(prints | {data.fingerprint}) == 5


def test_moving_keeps_the_data():
    data = load("iris")
    assert data.to("cpu").fingerprint == data.fingerprint
    assert data.to("meta").train.x.device.type == "meta"
