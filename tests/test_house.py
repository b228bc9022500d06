"""The rules of the house: who may import whom, how long a file may be, what names are not used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "deepweave"
FILES = sorted(SOURCE.rglob("*.py"))
GROUND = {"blueprint", "chance", "run", "version", "archive"}  # below everything: torch alone

# part of the house -> the other parts it may import when it is imported
MAY: dict[str, set[str]] = {
    "version": set(),
    "run": set(),
    "chance": set(),
    "blueprint": set(),
    "archive": {"run"},
    "functional": set(),
    "core": GROUND,
    "hooks": GROUND | {"core"},
    "outcome": GROUND,
    "writing": set(),
    "judging": {"chance"},
    "export": GROUND | {"outcome"},
    "nn": {"functional", "blueprint"},
    "objectives": GROUND | {"core", "functional"},
    "steps": GROUND | {"core", "objectives", "functional"},
    "surgery": GROUND | {"functional"},
    "metrics": {"functional"},
    "explain": {"functional"},
    "search": GROUND | {"core", "hooks"},
    "data": {"run", "functional"},
    "report": {"run", "version"},
    "testing": GROUND | {"core", "functional"},
    "recipes": {"run", "*"},
    "tuner": {"run", "search", "recipes"},
    "cli": {"version", "recipes", "report", "*"},
    "__main__": {"cli"},
    "__init__": {"version"},
}
# what may be imported inside a function, besides: a door that is opened when it is used
DOORS: dict[str, set[str]] = {
    "core": {"hooks"},
    "hooks": {"metrics"},
    "run": {"outcome", "report"},
    "outcome": {"core", "data", "metrics", "objectives", "writing", "judging"},
    "writing": {"core", "data", "metrics"},
    "judging": {"core", "data", "metrics"},
    "testing": set(),
}
LIBRARIES = {
    "functional": {"torch", "math"},
    "core": {"torch"},
    "hooks": {"torch"},
    "nn": {"torch"},
    "objectives": {"torch"},
    "steps": {"torch"},
    "data": {"torch", "numpy"},
    "metrics": {"torch", "numpy"},
    "chance": {"torch"},
    "blueprint": {"torch"},
    "archive": {"torch", "safetensors"},
    "outcome": {"torch", "safetensors"},
    "writing": {"torch"},
    "judging": {"torch"},
    "export": {"torch"},
    "run": set(),
    "recipes": set(),
    "search": {"torch"},
    "tuner": set(),
    "version": set(),
    "cli": {"cyclopts"},
    "report": {"numpy", "jinja2", "safetensors", "markupsafe"},
    "explain": {"torch", "numpy"},
    "testing": {"torch", "safetensors"},
    "__init__": set(),
    "__main__": set(),
}


def part(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, top: bool) -> set[str]:
    """The modules a file imports: at its top, or anywhere inside (type checking left out)."""
    found: set[str] = set()
    queue = list(ast.iter_child_nodes(tree))
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and top:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if base == "deepweave":
                found |= {f"deepweave.{alias.name}" for alias in node.names}
            else:
                found.add(base)
        queue += list(ast.iter_child_nodes(node))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports(path):
    here = part(path)
    tree = ast.parse(path.read_text())
    assert here in MAY, f"{here}: a new part of the house needs a line in this test"
    allowed, doors = MAY[here] | {here}, MAY[here] | {here} | DOORS.get(here, set())
    for names, may, where in ((imports(tree, True), allowed, "at the top"),
                              (imports(tree, False), doors, "inside")):  # fmt: skip
        for name in names:
            if not name.startswith("deepweave"):
                continue
            target = [*name.split("."), "__init__"][1]
            if target == "__init__":
                assert here in ("recipes", "cli"), f"{path}: imports the whole face"
                continue
            assert "*" in may or target in may, f"{path}: {here} must not import {target} {where}"
            if target in ("recipes", "report", "cli") and "*" not in may:
                assert target in may, f"{path}: nothing imports {target}"
    outside = {n.split(".")[0] for n in imports(tree, True)} - set(sys.stdlib_module_names)
    extra = outside - {"deepweave"} - LIBRARIES[here]
    assert not extra, f"{path}: {here} must import {extra} where they are used, not at the top"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files(path):
    text = path.read_text()
    lines = text.splitlines()
    assert len(lines) <= 400, f"{path}: {len(lines)} lines"
    banned = {"utils", "common", "base", "misc", "helpers", "util"}
    assert path.stem not in banned
    if path.stem not in ("__init__", "__main__"):
        assert path.stem.isidentifier()
        assert path.stem == path.stem.lower()
        if path.parent.name != "recipes":  # whose names are those of the command line
            assert "_" not in path.stem, f"{path}: one noun per module"
    for word in (
        "pickle.load",
        "torch.load(",
        "eval(",
        "exec(",
        "allow_pickle=True",
        "TODO",
        "FIXME",
    ):
        assert word not in text.replace(".eval(", "").replace("weights_only", ""), f"{path}: {word}"
    tree = ast.parse(text)
    assert ast.get_docstring(tree), f"{path}: a module says what it is"
    for node in ast.walk(tree):
        kind = isinstance(node, ast.FunctionDef | ast.ClassDef)
        if kind and not node.name.startswith("_") and node in tree.body:
            assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path}: a bare except"


def test_no_cycles():
    """No module imports itself through others, at import time."""
    names = {
        ".".join(["deepweave", *p.relative_to(SOURCE).with_suffix("").parts]): p for p in FILES
    }
    names = {n.removesuffix(".__init__"): p for n, p in names.items()}
    edges: dict[str, set[str]] = {}
    for name, path in names.items():
        found = set()
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deepweave"):
                for alias in node.names:
                    deeper = f"{node.module}.{alias.name}"
                    found.add(deeper if deeper in names else node.module or "")
        edges[name] = found & names.keys() - {name}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name in done:
            return
        for other in edges[name]:
            if not name.startswith(other + "."):
                visit(other, (*trail, name))
        done.add(name)

    for name in edges:
        visit(name, ())


def test_the_face():
    """Every public name is there, and the lazy package lists what it lends."""
    import deepweave

    for name in dir(deepweave):
        assert getattr(deepweave, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        deepweave.nothing


def test_import_is_light():
    """`import deepweave`, `list` and `--help` do not import torch, pandas or matplotlib."""
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'sklearn', 'jinja2'} & sys.modules.keys()"
    calls = [
        "",
        "cli.main(['list'])",
        "cli.main(['--help'])",
        "cli.main(['run', 'deep', '--help'])",
    ]
    for call in calls:
        code = f"import sys, deepweave\nfrom deepweave import cli\ntry:\n  {call or 'pass'}\n"
        code = code if call else "import sys, deepweave\ntry:\n  pass\n"
        code += f"except SystemExit: pass\nassert not {heavy}, {heavy}"
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
