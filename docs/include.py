"""Fill the pages from the source: included functions and the reference.

``<!-- include: path.py NAME -->`` ... ``<!-- end -->`` holds the code of a function or class, and
``docs/reference/*.md`` lists the public names of each part with their docstrings. Run
``python docs/include.py`` (or ``make docs``); ``--check`` only tells what is out of date.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"(<!-- include: (\S+) (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
PARTS = ("core", "hooks", "functional", "nn", "objectives", "search", "data", "metrics", "run")
PARTS += ("explain", "testing")
PARTS += ("functional.attention", "functional.local", "functional.positions", "functional.ragged")
PARTS += ("nn.attention", "nn.transformer", "nn.language", "nn.translator", "nn.encoder")
PARTS += ("nn.generation", "nn.aligner", "objectives.tokens", "metrics.tokens", "metrics.edits")
PARTS += ("metrics.translation", "data.text", "data.tokens", "data.sequences", "data.ragged")
PARTS += ("data.rows", "nn.bert")
PARTS += ("functional.schedule", "functional.samplers", "functional.chain")
PARTS += ("metrics.generative", "functional.observation", "functional.adversarial")


def source(path: str, name: str) -> str:
    """The code of a function or class, its docstring left out."""
    text = (ROOT / path).read_text()
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            first = node.lineno - 1
            rows = lines[first : node.end_lineno]
            if ast.get_docstring(node):
                doc = node.body[0]
                rest = lines[doc.end_lineno : node.end_lineno]
                while rest and not rest[0]:
                    rest = rest[1:]  # the formatter wants no empty line after the head of a class
                rows = lines[first : doc.lineno - 1] + rest
            return "\n".join(row for row in rows).replace("\n\n\n", "\n\n")
    raise ValueError(f"include: {path} has no {name}")


def filled(text: str) -> str:
    """A page with its included code renewed."""

    def put(found: re.Match[str]) -> str:
        head, path, name, end = found.groups()
        return f"{head}```py\n{source(path, name)}\n```\n{end}"

    return MARK.sub(put, text)


def reference(part: str) -> str:
    """The page of one part of the library: every public name, its signature and docstring."""
    module = importlib.import_module(f"deepweave.{part}")
    names = getattr(module, "__all__", None) or [
        n for n in dir(module) if not n.startswith("_") and _own(getattr(module, n), part)
    ]
    lines = [f"# deepweave.{part}", "", (inspect.getdoc(module) or "").split("\n")[0], ""]
    for name in sorted(names, key=str.lower):
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        try:
            signature = re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(inspect.signature(value)))
        except ValueError:
            signature = "(...)"
        lines += [f"## {name}", "", "```text", f"{name}{signature}", "```", ""]
        lines += ["```text", inspect.getdoc(value) or "", "```", ""]
    return "\n".join(lines)


def _own(value: object, part: str) -> bool:
    return getattr(value, "__module__", "").startswith(f"deepweave.{part}")


def pages() -> dict[Path, str]:
    """Every generated or filled page, as it should be."""
    found = {path: filled(path.read_text()) for path in ROOT.glob("docs/**/*.md")}
    found |= {ROOT / "docs" / "reference" / f"{part}.md": reference(part) for part in PARTS}
    return found


def main() -> int:
    """Write the pages, or with --check tell which are out of date."""
    stale = []
    for path, text in pages().items():
        if not path.exists() or path.read_text() != text:
            stale.append(path)
            if "--check" not in sys.argv:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
    for path in stale:
        print(f"{'out of date' if '--check' in sys.argv else 'written'}: {path.relative_to(ROOT)}")
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
