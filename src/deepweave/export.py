"""The model of a run for other programs: ONNX and torch.export, checked against the original."""

from __future__ import annotations

import logging
import tempfile
import warnings
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deepweave.outcome import load
from deepweave.run import read_info, write_whole


def export(folder: str | Path, form: str, out: str | Path | None) -> tuple[Path, float]:
    """Write the model for other programs; the largest difference to the original's outputs.

    Raises:
        ValueError: an unknown format, a run whose inputs are not known, a model that draws.
        ImportError: ONNX without the extra ``onnx``.
    """
    if form not in ("onnx", "torch"):
        raise ValueError(f"export: format must be onnx or torch, got {form!r}")
    model = load(folder)
    info = read_info(folder)
    spec = info.get("data", {}).get("spec")
    if spec is None:
        raise ValueError(f"export: {folder} was fitted on bare batches: its inputs are not known")
    latent = getattr(model, "latent", None) if info.get("generative") == "GAN" else None
    x = _example(spec if latent is None else {"shape": (latent,)})  # a generator's inputs
    try:
        with torch.no_grad():
            expected, again = model(x), model(x)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"export: the model does not take one tensor: {error}") from None
    if not torch.equal(expected, again):
        raise ValueError(
            "export: the model draws random numbers, such as a flow of levels its noise: what a "
            "file of it says could not be checked"
        )
    path = Path(out or Path(folder) / ("model.onnx" if form == "onnx" else "model.pt2"))
    if not path.resolve().parent.is_dir():
        raise FileNotFoundError(f"export: there is no folder {path.resolve().parent}")
    # Written aside, so that ``path`` is whole or as it was, and without the exporters' remarks.
    with tempfile.TemporaryDirectory() as aside, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        made = Path(aside) / path.name
        found = (_as_torch if form == "torch" else _as_onnx)(model, x, made)
        write_whole(path, made.read_bytes())
    return path, float((found - expected).abs().max())


def _example(spec: dict[str, Any]) -> Tensor:
    """Three inputs of the kind that the model learned from; sequences as long as the longest."""
    generator = torch.Generator().manual_seed(0)
    if spec.get("kind") == "graph":
        raise ValueError("export: a graph has no fixed shape that a file could take")
    if spec.get("kind") == "text":
        size = (3, *spec["shape"])
        return torch.randint(1, int(spec["vocabulary"]), size, generator=generator)
    return torch.rand(3, *spec["shape"], generator=generator)


def _as_torch(model: nn.Module, x: Tensor, path: Path) -> Tensor:
    """Write a program of torch.export; what it says of x."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    buffer = BytesIO()
    torch.export.save(program, buffer)
    path.write_bytes(buffer.getvalue())
    buffer.seek(0)
    loaded: Any = torch.export.load(buffer).module()
    return loaded(x)


def _as_onnx(model: nn.Module, x: Tensor, path: Path) -> Tensor:
    """Write an ONNX file; what ONNX Runtime says of x."""
    try:
        runtime = import_module("onnxruntime")
        import_module("onnxscript")
    except ImportError:
        raise ImportError('export: onnx needs the extra: pip install "deepweave[onnx]"') from None
    batch, said = torch.export.Dim("batch", min=1), logging.getLogger("torch.onnx")
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        torch.onnx.export(
            model, (x,), path, dynamo=True, dynamic_shapes=({0: batch},), input_names=["x"],
            output_names=["y"], verbose=False, external_data=False,
        )  # fmt: skip
    finally:
        said.setLevel(level)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x.numpy()})
    return torch.from_numpy(found)
