"""Nested containers of tensors and plain values in one safetensors file; no pickle.

The tensors are stored as tensors, the containers as JSON in the file's header, and a checksum
beside them, so that a damaged file is told from a whole one.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepweave.run import write_whole

FORMAT = "deepweave archive 1"


def save(path: str | os.PathLike[str], tree: Any) -> Path:
    """Write a tree whole or not at all.

    Raises:
        TypeError: a leaf that is neither a tensor nor a plain value.
        OSError: no room or no right to write; an earlier file stays as it was.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _strip(tree, tensors)
    text = json.dumps(skeleton)
    header = {"format": FORMAT, "tree": text, "crc32": str(_crc(text, tensors))}
    return write_whole(path, to_bytes(tensors, header))


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Any:
    """Read a tree back.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or something else than an archive.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"archive: there is no file {path}")
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"archive: {path} is damaged or not a safetensors file: {error}") from None
    if header.get("format") != FORMAT:
        found = header.get("format", "a safetensors file of another program")
        raise ValueError(f"archive: {path}: expected {FORMAT!r}, got {found}")
    text = header.get("tree", "")
    if str(_crc(text, tensors)) != header.get("crc32"):
        raise ValueError(f"archive: {path} is damaged: its checksum does not match; delete it")
    return _dress(json.loads(text), tensors)


def _crc(text: str, tensors: dict[str, Tensor]) -> int:
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        flat = tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8)
        value = zlib.crc32(flat.numpy().data, zlib.crc32(name.encode(), value))
    return value


def _strip(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Move tensors out of a tree, leaving JSON."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A clone, since safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_strip(part, tensors) for part in value]}
    if isinstance(value, dict):
        return {"dict": [[_strip(k, tensors), _strip(v, tensors)] for k, v in value.items()]}
    raise TypeError(f"archive: expected tensors and plain values, got {type(value).__name__}")


def _dress(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "dict":
        return {_dress(k, tensors): _dress(v, tensors) for k, v in inner}
    parts = [_dress(part, tensors) for part in inner]
    return parts if kind == "list" else tuple(parts)
