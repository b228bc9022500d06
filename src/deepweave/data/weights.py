"""Published weights that were fetched: tensors by their official names."""

from __future__ import annotations

from torch import Tensor

from deepweave.data.formats import nearest
from deepweave.data.resolve import locate
from deepweave.data.sources import SOURCES


def weights(name: str) -> dict[str, Tensor]:
    """The weights of a fetched model, as its file has them; a network's ``adopt`` takes them.

    The file is safetensors, which holds numbers and no code, with the recorded SHA-256.

    Args:
        name: such as ``"minilm"``.

    Raises:
        ValueError: nothing of that name has such a file.
        FileNotFoundError: it is not on this machine; the message says how to get it.
    """
    held = {
        source.name: file
        for source in SOURCES.values()
        for file in source.files
        if file.endswith(".safetensors")
    }
    if name not in held:
        known = nearest(name, held) or f"; there are {', '.join(held)}"
        raise ValueError(f"weights: there are no weights of {name!r} in safetensors{known}")
    from safetensors.torch import load_file

    return load_file(locate(name, held[name]).path)
