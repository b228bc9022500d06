from __future__ import annotations

import gzip
import socket
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from deepweave.data.resolve import cache, locate, sha256
from deepweave.data.sources import SOURCES, Source

RIGHT = b"what is expected"
SOURCE = Source(
    "tiny",
    "A tiny set",
    "pip",
    "tiny-data",
    "1.0",
    "tiny_data/files",
    {"a-ubyte": sha256(RIGHT), "b.bin": sha256(b"b")},
    "CC0",
    0.1,
    system=("share/datasets/tiny",),
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """No place holds anything yet; each place is a folder of its own."""
    monkeypatch.setenv("DEEPWEAVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEEPWEAVE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path


@pytest.fixture
def web(home):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    (home / "web").mkdir()
    handler = partial(Quiet, directory=str(home / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def put(path, content=RIGHT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_the_places_come_in_their_order(home):
    info = home / "site" / "tiny_data-1.0.dist-info"
    put(info / "METADATA", b"Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
    put(info / "RECORD", b"tiny_data/files/a-ubyte,,\n")
    put(home / "site" / "tiny_data" / "__init__.py", b"raise RuntimeError('imported')")
    expected = [
        ("an installed package", put(home / "site" / "tiny_data" / "files" / "a-ubyte")),
        ("the system", put(home / "prefix" / "share" / "datasets" / "tiny" / "a-ubyte")),
        ("$DEEPWEAVE_DATA", put(home / "data" / "tiny" / "a-ubyte")),
        ("the cache", put(home / "cache" / "tiny" / "a-ubyte")),
    ]
    for place, path in reversed(expected):
        found = locate(SOURCE, "a-ubyte")
        assert (found.path, found.place) == (path, place)
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"make data.*deepweave\.data\.fetch tiny"):
        locate(SOURCE, "a-ubyte")


def test_a_compressed_file_serves_as_well(home):
    put(home / "data" / "tiny" / "a-ubyte.gz", gzip.compress(RIGHT))
    assert locate(SOURCE, "a-ubyte").content() == RIGHT


def test_a_file_with_another_checksum_is_passed_over(home):
    put(home / "cache" / "tiny" / "a-ubyte", b"something else")
    with pytest.raises(FileNotFoundError, match=r"a-ubyte: wrong checksum"):
        locate(SOURCE, "a-ubyte")
    put(home / "cache" / "tiny" / "a-ubyte.gz", gzip.compress(RIGHT)[:-9])
    right = put(home / "data" / "tiny" / "a-ubyte")
    assert locate(SOURCE, "a-ubyte").path == right


def test_the_web_comes_last_and_into_the_cache(home, web):
    put(home / "web" / "a-ubyte.gz", gzip.compress(RIGHT))
    put(home / "web" / "b.bin", b"b")
    found = locate(SOURCE, "a-ubyte", address=web)
    assert (found.place, found.content()) == ("the web", RIGHT)
    assert found.path == home / "cache" / "tiny" / "a-ubyte"
    assert locate(SOURCE, "a-ubyte", address=web).place == "the cache"
    assert locate(SOURCE, "b.bin", address=f"{web}/").content() == b"b"


@pytest.mark.parametrize("sent", [gzip.compress(b"another"), gzip.compress(RIGHT)[:-9], b"no gzip"])
def test_a_wrong_file_from_the_web_leaves_nothing(home, web, sent):
    put(home / "web" / "a-ubyte.gz", sent)
    with pytest.raises(ValueError, match=r"expected [0-9a-f]{16}|no whole gzip"):
        locate(SOURCE, "a-ubyte", address=web)
    assert not [path for path in (home / "cache").rglob("*") if path.is_file()]


def test_without_a_connection_there_is_one_clear_line(home, web):
    with pytest.raises(ConnectionError, match=r"a-ubyte\.gz answers 404"):
        locate(SOURCE, "a-ubyte", address=web)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConnectionError, match="offline") as caught:
            locate(SOURCE, "b.bin", address=address)
    assert "\n" not in str(caught.value)


def test_the_cache_has_a_usual_place(monkeypatch, tmp_path):
    monkeypatch.delenv("DEEPWEAVE_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache() == tmp_path / ".cache" / "deepweave"


def test_the_rows_of_the_table_are_complete():
    for name, source in SOURCES.items():
        assert name == source.name
        assert source.licence
        assert source.version
        assert source.files
        assert all(len(bytes.fromhex(value)) == 32 for value in source.files.values())
