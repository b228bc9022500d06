from __future__ import annotations

import dataclasses
import gzip
import io
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from deepweave.data import fetch
from deepweave.data.resolve import sha256
from deepweave.data.sources import Source

HELD = {"a.npz": b"one", "b.txt": b"two"}
SOURCE = Source(
    "tiny",
    "A tiny set",
    "pip",
    "tiny-data",
    "1.0",
    "tiny_data/files",
    {name: sha256(content) for name, content in HELD.items()},
    "CC0",
    0.1,
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPWEAVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


def wheel(folder, held=HELD):
    path = folder / "tiny_data-1.0-py3-none-any.whl"
    info = "tiny_data-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in held.items():
            file.writestr(f"tiny_data/files/{name}", content)
        file.writestr("tiny_data/__init__.py", "raise RuntimeError('imported')")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def tarball(held):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as file:
        for name, content in held.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def local(monkeypatch, make):
    monkeypatch.setattr(fetch, "package", lambda source, folder: make(folder))


def test_pip_brings_a_package_from_a_folder(home, monkeypatch, capsys):
    (home / "links").mkdir()
    wheel(home / "links")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home / "links"))
    assert fetch.main([], {"tiny": SOURCE}) == 0
    assert {p.name: p.read_bytes() for p in (home / "cache" / "tiny").iterdir()} == HELD
    assert capsys.readouterr().out == "tiny: brought by pip (0.1 MB, CC0)\n"
    missing = dataclasses.replace(SOURCE, name="other", package="no-such-package")
    assert fetch.main(["other"], {"other": missing}) == 1
    said = capsys.readouterr().out
    assert "pip" in said or "python" in said
    assert "no-such-package" in said
    assert said.count("\n") == 1


def test_what_is_there_and_right_is_left(home, monkeypatch, capsys):
    local(monkeypatch, wheel)
    assert fetch.main([], {"tiny": SOURCE}) == 0
    monkeypatch.setattr(fetch, "package", None)  # would fail if it were called
    assert fetch.main([], {"tiny": SOURCE}) == 0
    assert "tiny: there already" in capsys.readouterr().out


def test_what_is_there_and_wrong_is_brought_again(home, monkeypatch):
    local(monkeypatch, wheel)
    fetch.main([], {"tiny": SOURCE})
    (home / "cache" / "tiny" / "a.npz").write_bytes(b"broken")
    assert fetch.main([], {"tiny": SOURCE}) == 0
    assert (home / "cache" / "tiny" / "a.npz").read_bytes() == b"one"


def test_one_that_fails_does_not_stop_the_others(home, monkeypatch, capsys):
    def make(folder):
        return wheel(folder, HELD | {"a.npz": b"changed"})

    local(monkeypatch, make)
    only_b = dataclasses.replace(SOURCE, name="good", files={"b.txt": SOURCE.files["b.txt"]})
    lost = dataclasses.replace(SOURCE, name="lost", files={"c.txt": sha256(b"c")})
    assert fetch.main([], {"bad": SOURCE, "lost": lost, "good": only_b}) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("bad: failed: fetch: a.npz of tiny-data has sha256")
    assert lines[1] == "lost: failed: the wheel has no c.txt"
    assert lines[2].startswith("good: brought by pip")
    assert not (home / "cache" / "tiny" / "a.npz").exists()


def test_an_unknown_name(home, capsys):
    assert fetch.main(["mnits"], {"mnist": SOURCE}) == 1
    assert 'no such set; did you mean "mnist"?' in capsys.readouterr().out


def test_a_client_that_is_not_installed(home, monkeypatch, capsys):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    npm = dataclasses.replace(SOURCE, how="npm")
    assert fetch.main([], {"tiny": npm}) == 1
    assert capsys.readouterr().out == "tiny: failed: npm is not installed\n"


def test_the_web_helps_where_the_package_cannot(home, monkeypatch, capsys):
    def offline(source, folder):
        raise ConnectionError("npm cannot bring it")

    monkeypatch.setattr(fetch, "package", offline)
    asked = []

    def from_web(source, file, address):
        asked.append((file, address))
        raise ConnectionError("fetch: cannot reach it; offline?")

    monkeypatch.setattr(fetch, "from_web", from_web)
    source = dataclasses.replace(SOURCE, address="http://127.0.0.1:9")
    assert fetch.main([], {"tiny": source}) == 1
    assert asked == [("a.npz", "http://127.0.0.1:9")]
    said = capsys.readouterr().out
    assert said == "tiny: failed: npm cannot bring it; and fetch: cannot reach it; offline?\n"


def test_tarballs_of_npm_and_source_distributions(tmp_path):
    path = tmp_path / "a.tgz"
    path.write_bytes(tarball({"package/data/x": b"1", "package/x": b"2", "other/data/x": b"3"}))
    assert fetch.unpack(path, "package/data", {"x"}) == {"x": b"1"}
    nested = tarball({"inner/x.gz": gzip.compress(b"4"), "inner/../../x": b"5"})
    path.write_bytes(tarball({"tiny-1.0/extra/nested.tar.gz": nested}))
    assert fetch.unpack(path, "extra/nested.tar.gz!inner", {"x"}) == {"x": b"4"}
    with pytest.raises(ValueError, match=r"a\.tgz has no y"):
        fetch.unpack(path, "extra", {"y"})


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_debian_packages(tmp_path):
    (tmp_path / "tree" / "DEBIAN").mkdir(parents=True)
    control = "Package: tiny\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: y\n"
    (tmp_path / "tree" / "DEBIAN" / "control").write_text(control)
    (tmp_path / "tree" / "usr" / "share" / "tiny").mkdir(parents=True)
    (tmp_path / "tree" / "usr" / "share" / "tiny" / "x.gz").write_bytes(gzip.compress(b"6"))
    deb = tmp_path / "tiny.deb"
    subprocess.run(
        ["dpkg-deb", "--build", str(tmp_path / "tree"), str(deb)], check=True, capture_output=True
    )
    assert fetch.unpack(deb, "usr/share/tiny", {"x"}) == {"x": b"6"}
