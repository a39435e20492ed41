"""Addresses from outside: what is fetched, and what must not be."""

import contextlib
import errno
import http.server
import io
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fsspec
import pytest
from fsspec.spec import AbstractFileSystem

from recsys.errors import InputError
from recsys.serve.videos.fetching import Fetcher, is_below, is_public

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",  # of clouds' metadata
        "100.64.0.1",
        "0.0.0.0",
        "192.0.0.8",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "::93.184.216.34",  # IPv4-compatible
        "::ffff:0:7f00:1",  # IPv4-translated
        "fec0::1",  # site-local
        "feff::1",
        "2001:4860::5efe:7f00:1",  # ISATAP
        "2001:4860::200:5efe:a00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::5db8:d822",
        "2002:7f00:1::",
        "2002:0a00:0001::1",
        "2001:0:7f00:1:0:0:f5ff:fffe",
        "not an address",
        "168.63.129.16",  # Azure's host
        "64:ff9b::a83f:8110",
        "::ffff:168.63.129.16",
        "192.88.99.1",  # a relay of 6to4
        "5f00::1",  # SRv6
        "3fff::1",  # documentation
        "2130706433",
        "0x7f.1",
    ],
)
def test_inside_addresses_are_known_in_every_form(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("uri", "below"),
    [
        ("https://cdn.example/videos/a.mp4", True),
        ("https://CDN.example:443/videos/b/c.mp4?sig=%2F", True),
        ("https://cdn.example/videos", False),
        ("https://cdn.example/videos2/a.mp4", False),
        ("http://cdn.example/videos/a.mp4", False),
        ("https://cdn.example:8443/videos/a.mp4", False),
        ("https://cdn.example.evil/videos/a.mp4", False),
        ("https://evil@cdn.example/videos/a.mp4", False),
        ("https://cdn.example@evil/videos/a.mp4", False),
        ("https://cdn.example/videos/../secret.mp4", False),
        ("https://cdn.example/videos/%2e%2e/secret.mp4", False),
        ("https://cdn.example/videos/%252e%252e/secret.mp4", False),
        ("https://cdn.example/videos/..\\secret.mp4", False),
        ("https://cdn.example/videos/a b.mp4", False),
        ("https://cdn.example:99999/videos/a.mp4", False),
        ("https:///videos/a.mp4", False),
        ("/data/videos/a.mp4", True),
        ("file:///data/videos/a.mp4", True),
        ("/data/videos/../x.mp4", False),
        ("/data/videosX/a.mp4", False),
        ("file://other/data/videos/a.mp4", False),
        ("s3://bucket/videos/a.mp4", True),
        ("s3://bucket2/videos/a.mp4", False),
        ("videos/a.mp4", False),
    ],
)
def test_only_what_lies_below_a_root_is_fetched(uri: str, below: bool) -> None:
    roots = ("https://cdn.example/videos", "/data/videos/", "s3://bucket/videos")
    assert any(is_below(uri, root) for root in roots) is below


def fetch(fetcher: Fetcher, uri: str) -> bytes:
    with fetcher.open(uri) as pieces:
        return b"".join(pieces)


def test_without_roots_nothing_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="none is configured"):
        fetch(Fetcher(()), str(tmp_path / "a.mp4"))


def test_files_below_a_root_are_read_and_links_do_not_lead_out(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "a.mp4").write_bytes(b"inside")
    (outside / "b.mp4").write_bytes(b"secret")
    (root / "link.mp4").symlink_to(outside / "b.mp4")
    (root / "folder").symlink_to(outside)
    os.mkfifo(root / "pipe.mp4")
    fetcher = Fetcher((str(root),))
    assert fetch(fetcher, str(root / "a.mp4")) == b"inside"
    assert fetch(fetcher, f"file://{root}/a.mp4") == b"inside"
    for name, why in (
        ("link.mp4", "by a link"),
        ("folder/b.mp4", "by a link"),
        ("pipe.mp4", "no regular file"),
        ("none.mp4", "cannot be fetched"),
    ):
        with pytest.raises(InputError, match=why):
            fetch(fetcher, str(root / name))


class NoCredentials(Exception):
    """As a store's library has it: of no kind that Python knows."""


class Store(AbstractFileSystem):
    """A store that fails as it is opened, or as it is read."""

    def open(self, path: str, mode: str = "rb", **_: object) -> IO[bytes]:
        if path.endswith("locked.mp4"):
            raise NoCredentials("Unable to locate\ncredentials")
        return Failing()  # type: ignore[return-value]


class Failing(io.RawIOBase):
    """A file that cannot be read to its end."""

    def read(self, size: int = -1) -> bytes:
        raise NoCredentials("the token is over")


@pytest.mark.parametrize(
    ("name", "said"),
    [("locked", "Unable to locate credentials"), ("read", "the token is over")],
)
def test_whatever_a_store_raises_is_a_refusal(name: str, said: str) -> None:
    fsspec.register_implementation("failing", Store, clobber=True)
    with pytest.raises(InputError, match=f"cannot be fetched .NoCredentials: {said}"):
        fetch(Fetcher(("failing://b/v",)), f"failing://b/v/{name}.mp4")


def test_what_is_done_with_the_bytes_is_not_the_addresss_fault(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as caught:
        with Fetcher((str(tmp_path),)).open(str(tmp_path / "a.mp4")) as pieces:
            for _ in pieces:
                raise full
    assert caught.value is full


SLOW = {
    "/v/body.mp4": {"head": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n", "each": b"x"},
    "/v/chunks.mp4": {
        "head": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "each": b"1\r\nx\r\n",
    },
    "/v/head.mp4": {"head": b"HTTP/1.1 200 OK\r\n", "each": b"X"},
    "/v/silent.mp4": {"head": b"", "each": b""},
}
"""What comes a little at a time and never ends."""
STOPPED = threading.Event()


class Site(http.server.BaseHTTPRequestHandler):
    """A web server with a video, redirects, and a page that does not end."""

    def do_GET(self) -> None:
        where = {
            "/v/moved.mp4": "/v/a.mp4",
            "/v/inside.mp4": "http://inside.example/v/a.mp4",
            "/v/out.mp4": "http://cdn.example/secret",
            "/v/file.mp4": "file:///etc/passwd",
            "/v/round.mp4": "/v/round.mp4",
        }.get(self.path)
        if where is not None:
            self.send_response(302)
            self.send_header("Location", where)
            self.end_headers()
        elif self.path == "/v/a.mp4":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"a video of " + self.headers["Host"].encode())
        elif self.path in SLOW:
            self.drip(**SLOW[self.path])
        else:
            self.send_error(404)

    def drip(self, *, head: bytes, each: bytes) -> None:
        """Sends a little at a time, each of it well within any timeout, until nobody listens."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(head)
            while not STOPPED.wait(0.05):
                self.wfile.write(each)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    STOPPED.set()
    server.shutdown()
    server.server_close()


class Network:
    """Names as a test sets them, and connections that all go to the test's own server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []
        self.connected: list[str] = []
        self.answers = {"cdn.example": [[PUBLIC]], "inside.example": [["10.0.0.7"]]}

    def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        known = self.answers[host]
        return known.pop(0) if len(known) > 1 else known[0]

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.connected.append(address)
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)

    def fetcher(self, most_s: float = 60.0) -> Fetcher:
        roots = ("http://cdn.example/v/", "http://inside.example/v/")
        return Fetcher(roots, most_s, resolve=self.resolve, connect=self.connect)


def test_a_video_is_fetched_from_the_address_that_was_checked(port: int) -> None:
    network = Network(port)
    # Whoever asks again is told another address: the name is asked for once.
    network.answers["cdn.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert fetch(network.fetcher(), "http://cdn.example/v/a.mp4") == b"a video of cdn.example"
    assert (network.asked, network.connected) == (["cdn.example"], [PUBLIC])


@pytest.mark.parametrize("addresses", [["10.0.0.7"], [PUBLIC, "::1"], []])
def test_a_host_with_any_inside_address_is_refused(port: int, addresses: list[str]) -> None:
    network = Network(port)
    network.answers["cdn.example"] = [addresses]
    with pytest.raises(InputError, match="inside a network"):
        fetch(network.fetcher(), "http://cdn.example/v/a.mp4")
    assert network.connected == []


def test_redirects_are_looked_at_as_first_addresses_are(port: int) -> None:
    network = Network(port)
    assert fetch(network.fetcher(), "http://cdn.example/v/moved.mp4").startswith(b"a video")
    for name, why in (
        ("inside", "inside a network"),
        ("out", "below serve.video_roots only"),
        ("file", "below serve.video_roots only"),
        ("round", "more than 5 redirects"),
        ("none", "answered 404"),
    ):
        with pytest.raises(InputError, match=why):
            fetch(network.fetcher(), f"http://cdn.example/v/{name}.mp4")
    network.answers["cdn.example"] = [[PUBLIC], ["127.0.0.1"]]
    with pytest.raises(InputError, match="inside a network"):  # the second look is its own
        fetch(network.fetcher(), "http://cdn.example/v/moved.mp4")
    assert set(network.connected) == {PUBLIC}


def test_a_fetch_ends_when_its_time_is_over(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(InputError, match="not fetched within 0 s"):
        fetch(Fetcher((str(tmp_path),), most_s=0.0), str(tmp_path / "a.mp4"))


@pytest.mark.parametrize("name", SLOW)
def test_a_server_that_sends_a_little_at_a_time_is_left_in_time(port: int, name: str) -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match="not fetched within 0.5 s"):
        fetch(Network(port).fetcher(most_s=0.5), f"http://cdn.example{name}")
    assert time.monotonic() - started < 30


def test_the_connection_is_closed_when_the_file_was_read(port: int) -> None:
    links: list[socket.socket] = []
    network = Network(port)

    def connect(address: str, port: int, timeout_s: float) -> socket.socket:
        links.append(network.connect(address, port, timeout_s))
        return links[-1]

    roots = ("http://cdn.example/v/",)
    fetcher = Fetcher(roots, resolve=network.resolve, connect=connect)
    assert fetch(fetcher, "http://cdn.example/v/a.mp4")
    assert [link.fileno() for link in links] == [-1]
