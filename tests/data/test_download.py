"""Downloads against a server on this machine: whole, resumed, broken, damaged, refused, offline."""

from __future__ import annotations

import bz2
import http.server
import io
import sys
import threading

import pytest

from fedjax_lc.core import progress
from fedjax_lc.data import catalogue, download, load
from fedjax_lc.data.catalogue import CATALOGUE, Entry
from fedjax_lc.data.libsvm import content_sha256

TEXT = b"".join(b"%d 1:%d 2:0.25\n" % (2 * (k % 2) - 1, k) for k in range(200))
PACKED = bz2.compress(TEXT)
ENTRY = Entry("toy", "binary", features=2, rows=200, packed=".bz2", sha256=content_sha256(TEXT))


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.content` at /binary/toy.bz2, with byte ranges unless `server.ranges` is off."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path != "/binary/toy.bz2":
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.send_header("Content-Length", str(len(server.content) - start))
        self.end_headers()
        self.wfile.write(server.content[start : server.breaks_at])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    made = http.server.HTTPServer(("127.0.0.1", 0), _Handler)
    made.content, made.ranges, made.breaks_at, made.asked = PACKED, True, None, []
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(catalogue, "SITE", f"http://127.0.0.1:{made.server_port}")
    monkeypatch.setitem(CATALOGUE, "toy", ENTRY)
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.fixture
def place(tmp_path):
    """Where the cache keeps the file; and the folder it is in, for partial files."""
    path = tmp_path / "cache" / "libsvm" / "toy.bz2"
    path.parent.mkdir(parents=True)
    return path


def test_whole_download_then_none(server, place, capsys):
    assert load("toy").features.shape == (200, 2)
    assert place.read_bytes() == PACKED
    assert [p.name for p in place.parent.iterdir()] == ["toy.bz2"]
    assert capsys.readouterr().err == f"downloading {catalogue.SITE}/binary/toy.bz2 to {place}\n"
    assert load("toy").features.shape == (200, 2)
    assert server.asked == [None]


class _Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("after", "shown"), [(0.0, True), (progress.DELAY, False)])
def test_progress_is_shown_on_a_terminal_after_a_while(server, place, monkeypatch, after, shown):
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "DELAY", after)
    (place.parent / "part.toy.bz2").write_bytes(PACKED[:50])
    download.fetch(ENTRY)
    assert (f"50.0/{len(PACKED)}" in terminal.getvalue()) == shown


def test_a_partial_file_is_completed(server, place):
    (place.parent / "part.toy.bz2").write_bytes(PACKED[:50])
    assert download.fetch(ENTRY) == place
    assert place.read_bytes() == PACKED
    assert server.asked == ["bytes=50-"]


def test_a_server_without_ranges_sends_it_all_again(server, place):
    server.ranges = False
    (place.parent / "part.toy.bz2").write_bytes(PACKED[:50])
    download.fetch(ENTRY)
    assert place.read_bytes() == PACKED


def test_a_partial_file_that_is_already_whole(server, place):
    (place.parent / "part.toy.bz2").write_bytes(PACKED)
    download.fetch(ENTRY)
    assert place.read_bytes() == PACKED
    assert server.asked == [f"bytes={len(PACKED)}-", None]


def test_a_broken_connection_keeps_the_part_and_is_resumed(server, place, complaint):
    server.breaks_at = 80
    left = len(PACKED) - 80
    assert complaint(download.fetch, ENTRY) == (
        f"cannot download 'toy' (the connection broke {left} bytes before the end; run it again to go on from there); "
        + by_hand(place)
    )
    assert not place.exists()
    server.breaks_at = None
    assert download.fetch(ENTRY).read_bytes() == PACKED
    assert server.asked == [None, "bytes=80-"]


def test_a_wrong_checksum_is_removed(server, place, complaint):
    server.content = bz2.compress(TEXT + b"1 1:1\n")
    found = content_sha256(TEXT + b"1 1:1\n")
    assert complaint(download.fetch, ENTRY) == (
        f"the download of {catalogue.SITE}/binary/toy.bz2 has a wrong checksum (expected sha256 "
        f"{ENTRY.sha256[:12]}..., got {found[:12]}...) and was removed; try again, or put a good copy at {place}"
    )
    assert list(place.parent.iterdir()) == []


def test_a_damaged_packed_file_is_removed(server, place, complaint):
    server.content = PACKED[:-20]
    assert complaint(download.fetch, ENTRY) == (
        f"the download of {catalogue.SITE}/binary/toy.bz2 has a wrong checksum (not a readable .bz2 file) "
        f"and was removed; try again, or put a good copy at {place}"
    )
    assert list(place.parent.iterdir()) == []


def test_a_server_that_refuses(server, place, complaint):
    entry = Entry("gone", "binary", features=2, rows=200)
    assert complaint(download.fetch, entry) == (
        "cannot download 'gone' (the server answered 404 Not Found); "
        f"get {catalogue.SITE}/binary/gone and put it at {place.parent / 'gone'}, "
        "or set FEDJAX_LC_DATA to a folder that holds gone"
    )


def by_hand(place):
    return (
        f"get {catalogue.SITE}/binary/toy.bz2 and put it at {place}, "
        "or set FEDJAX_LC_DATA to a folder that holds toy.bz2"
    )


def test_offline(place, complaint, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(catalogue, "SITE", "http://127.0.0.1:9")
    assert complaint(download.fetch, ENTRY) == f"cannot download 'toy' (Connection refused); {by_hand(place)}"


def test_a_silent_server_times_out(place, complaint, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(catalogue, "SITE", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(download, "TIMEOUT", 0.1)
        assert complaint(download.fetch, ENTRY) == f"cannot download 'toy' (timed out); {by_hand(place)}"


def test_downloading_may_be_off(place, complaint, monkeypatch, tmp_path):
    monkeypatch.setitem(CATALOGUE, "toy", ENTRY)
    monkeypatch.setenv("FEDJAX_LC_DATA", str(tmp_path))
    assert complaint(load, "toy", download=False) == (
        f"'toy' is not in {tmp_path} or {tmp_path / 'cache'}, and downloading is off; {by_hand(place)}"
    )


def test_a_cache_that_cannot_be_written(tmp_path, complaint, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FEDJAX_LC_CACHE", str(tmp_path / "file"))
    message = complaint(download.fetch, ENTRY)
    assert message.startswith("cannot download 'toy' (Not a directory); get ")


def test_the_cache_folder(monkeypatch, tmp_path):
    assert download.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("FEDJAX_LC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert download.cache_folder() == tmp_path / "xdg" / "fedjax_lc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / ".cache" / "fedjax_lc"


def test_addresses_are_canonical():
    site = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets"
    addresses = {name: CATALOGUE[name].url for name in ("a5a", "ijcnn1", "news20", "cadata")}
    assert addresses == {
        "a5a": f"{site}/binary/a5a",
        "ijcnn1": f"{site}/binary/ijcnn1.bz2",
        "news20": f"{site}/multiclass/news20.bz2",
        "cadata": f"{site}/regression/cadata",
    }


def test_the_checksum_does_not_depend_on_line_ends():
    assert content_sha256(b"a 1:2 \r\nb\r\n\r\n") == content_sha256(b"a 1:2\nb")
    assert content_sha256(b"a\nb") != content_sha256(b"b\na")
