from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import deepweave as dw
from deepweave.blueprint import blueprint, build, describe


def through_json(model: nn.Module) -> nn.Module:
    note = describe(model)
    assert note is not None
    return build(json.loads(json.dumps(note)))


MODELS = {
    "shallow": lambda: dw.nn.shallow((4, 3)),
    "image": lambda: dw.nn.mlp(((1, 4, 4), 3), (8,)),
    "options": lambda: dw.nn.mlp(
        (4, 3), (8, 8), ["tanh", "gelu"], dropout=0.3, norm="layer", residual=True
    ),
    "a function": lambda: dw.nn.mlp((4, 3), (8,), F.silu),
    "a class": lambda: dw.nn.mlp((4, 3), (8,), nn.ELU),
    "a spec": lambda: dw.nn.mlp(dw.data.load("iris").spec, (8,)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_same_model_is_built(name):
    model = MODELS[name]()
    twin = through_json(model)
    assert str(twin) == str(model)
    assert {n: v.shape for n, v in twin.state_dict().items()} == {
        n: v.shape for n, v in model.state_dict().items()
    }
    twin.load_state_dict(model.state_dict())
    x = torch.randn(5, 1, 4, 4) if name == "image" else torch.randn(5, 4)
    assert torch.equal(twin.eval()(x), model.eval()(x))
    assert describe(through_json(twin)) == describe(twin)


def test_a_model_of_a_lambda_has_no_note():
    assert describe(dw.nn.mlp((4, 3), (8,), lambda x: x * 2)) is None
    assert describe(dw.nn.mlp((4, 3), (8,), nn.Tanh())) is None
    assert describe(nn.Linear(2, 2)) is None


def test_models_inside_models():
    from deepweave.nn import dense

    @blueprint
    def pair(inner: nn.Module, times: int = 2) -> nn.Module:
        return nn.Sequential(*[inner] * times)

    pair.__module__ = "deepweave.nn.dense"
    note = describe(pair(dw.nn.shallow((3, 3))))
    assert note is not None
    assert note["with"]["inner"]["blueprint"]["make"] == "deepweave.nn.dense.shallow"
    assert note["with"]["times"] == 2
    assert not hasattr(dense, "pair")


def test_classes_remember_and_their_children_do_not_lie():
    @blueprint
    class Net(nn.Module):
        def __init__(self, width: int, *, depth: int = 1):
            super().__init__()
            self.inner = nn.Linear(width, depth)

    class Child(Net):
        def __init__(self):
            super().__init__(3)

    assert describe(Net(4, depth=2))["with"] == {"width": 4, "depth": 2}  # pyright: ignore[reportOptionalSubscript]
    assert describe(Child()) is None


EVIL = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.hub.load",
    "torch.load",
    "torch.nn",
    "torch.nn.modules",
    "torch.nn.Parameter",
    "torch.nn.init.zeros_",
    "torch.nn.functional.relu",
    "torch.nn.parallel.DistributedDataParallel",
    "torch.nn.modules.module.torch",
    "torch.nn.modules.utils.OrderedDict",
    "torch.nn.Module.load_state_dict",
    "deepweave.run.write_whole",
    "deepweave.run.Run",
    "deepweave.run.os.system",
    "deepweave.archive.save",
    "deepweave.blueprint.importlib",
    "deepweave.cli.main",
    "deepweave.nn.dense.torch.hub.load",
    "deepweave..run",
    "deepweave.nn.dense.__class__",
    "nosuch",
    "",
    "deepweave.nn.dense.nosuch",
]


@pytest.mark.parametrize("name", EVIL)
def test_nothing_else_is_called(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for given in ({}, {"path": "harm", "content": "x"}, {"command": "touch harm"}):
        with pytest.raises(ValueError, match="build: "):
            build({"make": name, "with": given})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EVIL)
def test_no_other_function_goes_into_a_layer(name):
    note = describe(dw.nn.mlp((4, 3), (8,)))
    assert note is not None
    if name == "torch.nn.functional.relu":  # this one may
        name = "torch.nn.functional.torch"
    evil = {"make": note["make"], "with": {**note["with"], "activation": {"name": name}}}
    with pytest.raises(ValueError, match=r"build: .* (is not a function of layers|has no)"):
        build(evil)


@pytest.mark.parametrize(
    "note",
    [
        None,
        [],
        {},
        {"make": 3},
        {"with": {}},
        {"make": "torch.nn.Linear", "with": {"features": 3}},
        {"make": "torch.nn.Linear"},
        {"make": "deepweave.nn.dense.mlp", "with": {"sizes": [4, 3], "depth": 3}},
    ],
)
def test_damaged_notes(note):
    with pytest.raises(ValueError, match="build: "):
        build(note)
