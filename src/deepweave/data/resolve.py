"""Where a fetched file is on this machine: one order of places, each checked by SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deepweave.data.sources import SOURCES, Source
from deepweave.run import write_whole

TIMEOUT = 30.0  # seconds without an answer until the web counts as out of reach


class Found(NamedTuple):
    """A file that is there and right, and the kind of place that it was found in."""

    path: Path
    place: str

    def content(self) -> bytes:
        """The file's bytes, uncompressed."""
        return content(self.path)


def cache() -> Path:
    """The folder of fetched data: ``$DEEPWEAVE_CACHE``, else ``~/.cache/deepweave``."""
    told = os.environ.get("DEEPWEAVE_CACHE")
    return Path(told).expanduser() if told else Path.home() / ".cache" / "deepweave"


def locate(source: Source | str, file: str, *, address: str | None = None) -> Found:
    """The place of one file of a fetched set, whose content has the recorded checksum.

    Looked for in this order: the cache, ``$DEEPWEAVE_DATA``, the system's folders (``PREFIX``
    below ``share/datasets``, ``node_modules``), the files of an installed package (which is not
    imported), and, only when an ``address`` is given, the web, into the cache. In each place
    ``file.gz`` serves as well; a file with another checksum is passed over.

    Raises:
        KeyError: the set has no such file.
        FileNotFoundError: the file is in none of the places; the message says how to get it.
        ValueError: what the web gave has another checksum; nothing is kept of it.
        ConnectionError: the address cannot be reached.
    """
    if isinstance(source, str):
        source = SOURCES[source]
    expected, wrong = source.files[file], []
    for path, place in _places(source, file):
        if not path.is_file():
            continue
        if sha256(content(path)) == expected:
            return Found(path, place)
        wrong.append(str(path))
    if address is not None:
        return Found(from_web(source, file, address), "the web")
    broken = f" ({', '.join(wrong)}: wrong checksum)" if wrong else ""
    raise FileNotFoundError(
        f"load: {source.name} is not on this machine{broken}: run `make data` or "
        f"`python -m deepweave.data.fetch {source.name}`"
    )


def from_web(source: Source, file: str, address: str) -> Path:
    """One file of a set, brought from a folder on the web into the cache; see ``download``."""
    # idx files lie on the web compressed, all others as they are
    ending = ".gz" if file.endswith("-ubyte") else ""
    whole = f"{address.rstrip('/')}/{file}{ending}"
    return download(whole, source.files[file], cache() / source.name / file)


def download(address: str, expected: str, target: Path) -> Path:
    """The file at an address, uncompressed when it ends in ``.gz``, if its checksum is right.

    Raises:
        ValueError: the checksum is another; no file is left.
        ConnectionError: the address cannot be reached or refuses.
    """
    import http.client
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            raw = answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        raise ConnectionError(f"fetch: {address} answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionError(f"fetch: cannot reach {address} ({reason}); offline?") from None
    if address.endswith(".gz"):
        raw = _unzipped(raw, address)
    return store(target, raw, expected, address)


def store(target: Path, raw: bytes, expected: str, where: str) -> Path:
    """Write a file whole into the cache if its checksum is right.

    Raises:
        ValueError: the checksum is another; nothing is written.
    """
    got = sha256(raw)
    if got != expected:
        raise ValueError(
            f"fetch: {where} has sha256 {got[:16]}..., expected {expected[:16]}...; not kept"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(target, raw)


def content(path: Path) -> bytes:
    """A file's bytes, uncompressed when it ends in ``.gz``; empty when that fails."""
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    try:
        return _unzipped(raw, str(path))
    except ValueError:
        return b""


def sha256(raw: bytes) -> str:
    """The SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def _places(source: Source, file: str) -> Iterator[tuple[Path, str]]:
    folders = [(cache() / source.name, "the cache")]
    if told := os.environ.get("DEEPWEAVE_DATA"):
        folders.append((Path(told).expanduser() / source.name, "$DEEPWEAVE_DATA"))
    prefixes = [Path.cwd(), Path(sys.prefix), Path("/usr/local"), Path("/usr")]
    folders += [(prefix / below, "the system") for below in source.system for prefix in prefixes]
    for folder, place in folders:
        yield folder / file, place
        yield folder / f"{file}.gz", place
    if source.how == "pip":
        yield from ((path, "an installed package") for path in _installed(source, file))


def _installed(source: Source, file: str) -> Iterator[Path]:
    from importlib import metadata

    try:
        held = metadata.files(source.package) or ()
    except metadata.PackageNotFoundError:
        return
    for path in held:
        if path.as_posix() == f"{source.inside}/{file}":
            yield Path(str(path.locate()))


def _unzipped(raw: bytes, where: str) -> bytes:
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"fetch: {where} is no whole gzip file ({error})") from None
