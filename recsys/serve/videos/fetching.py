"""Fetching a video by its address: only below configured roots, and never from inside a network.

Whoever may hand in an address must not be able to read what only the server reaches. So an address
lies below a root of `serve.video_roots`, hosts are resolved once and each of their addresses must
be public, the connection goes to the very address that was checked, and each redirect is looked at
as the first address was.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import os
import posixpath
import re
import socket
import ssl
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from recsys.data.storage import filesystem, is_uri
from recsys.errors import InputError
from recsys.live.text import shown

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

STEP_BYTES = 1 << 18
LONGEST_SILENCE_S = 10.0
"""Longest that a server may say nothing."""
MOST_REDIRECTS = 5
WEB = {"http": 80, "https": 443}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NEVER = tuple(
    map(
        ipaddress.ip_network,
        (
            *("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "192.0.0.0/24", "fec0::/10"),
            *("168.63.129.16/32", "192.88.99.0/24", "5f00::/16", "3fff::/20"),
        ),
    )
)
"""Beside what `ipaddress` knows: IPv4-compatible and IPv4-translated, a network's own NAT64,
protocol assignments, and site-local, which is deprecated and still routed inside of networks;
Azure's host, which answers each of its machines, the old relays of 6to4, SRv6, documentation."""
ISATAP = 0x5EFE
"""What an interface's half of an address has before an IPv4 address (RFC 5214)."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
Connect = Callable[[str, int, float], socket.socket]


def resolve(host: str, port: int) -> list[str]:
    """The numeric addresses of a host.

    Raises:
        OSError: It has none.
    """
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in entries]


def connect(address: str, port: int, timeout_s: float) -> socket.socket:
    """A connection to a numeric address."""
    return socket.create_connection((address, port), timeout_s)


@dataclass(frozen=True)
class Fetcher:
    """Opens addresses below some roots."""

    roots: tuple[str, ...]
    """Folders of this machine, and addresses (http, https, s3 …); nothing without any."""
    most_s: float = 60.0
    """Longest that one file may take."""
    resolve: Resolve = resolve
    connect: Connect = connect
    tls: ssl.SSLContext = field(default_factory=ssl.create_default_context)

    @contextlib.contextmanager
    def open(self, uri: str) -> Iterator[Iterator[bytes]]:
        """The bytes of a file, a piece at a time.

        Raises:
            InputError: It lies below no root, cannot be had, or is no file.
        """
        ends = time.monotonic() + self.most_s
        self._require_root(uri)
        with contextlib.ExitStack() as stack:
            with self._told_plainly(uri, ends):
                if urlsplit(uri).scheme.lower() in WEB:
                    file: IO[bytes] = stack.enter_context(self._open_web(uri, ends))
                elif _is_in_store(uri):
                    fs, inner = filesystem(uri)
                    file = stack.enter_context(fs.open(inner, "rb"))
                else:
                    file = stack.enter_context(self._open_local(_local(uri)))
            yield self._pieces(uri, file, ends)

    def _pieces(self, uri: str, file: IO[bytes], ends: float) -> Iterator[bytes]:
        while True:
            with self._told_plainly(uri, ends):
                data = file.read(STEP_BYTES)
            if not data:
                return
            self._left_s(ends)
            yield data

    @contextlib.contextmanager
    def _told_plainly(self, uri: str, ends: float) -> Iterator[None]:
        """Turns what an address's server, store or disk says into `InputError`.

        What is done with the bytes is none of it: a disk that is full is our own.
        """
        # The libraries of stores all have their own errors.
        told = Exception if _is_in_store(uri) else (OSError, http.client.HTTPException, ValueError)
        try:
            yield
        except InputError:
            raise  # it says already what is wrong
        except told as error:
            self._left_s(ends)  # whatever the library made of it: the time was over
            said = " ".join(str(error).split())[:200]
            kind = type(error).__name__
            raise InputError(f"uri: cannot be fetched ({kind}: {said})") from None

    def _left_s(self, ends: float) -> float:
        """Seconds until a fetch must have ended.

        Raises:
            InputError: There are none.
        """
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise InputError(f"uri: not fetched within {self.most_s:g} s")
        return left_s

    def _require_root(self, uri: str) -> None:
        if not any(is_below(uri, root) for root in self.roots):
            allowed = "none is configured" if not self.roots else "it lies below none of them"
            raise InputError(
                f"uri={shown(uri)}: addresses are fetched below serve.video_roots only, and "
                f"{allowed}; upload the file instead"
            )

    @contextlib.contextmanager
    def _open_web(self, uri: str, ends: float) -> Iterator[IO[bytes]]:
        for _ in range(1 + MOST_REDIRECTS):
            self._require_root(uri)
            with contextlib.closing(self._connection(uri, ends)) as connection:
                parts = urlsplit(uri)
                target = parts.path or "/"
                target += f"?{parts.query}" if parts.query else ""
                connection.request("GET", target, headers={"Accept-Encoding": "identity"})
                answer = connection.getresponse()
                if answer.status in (301, 302, 303, 307, 308) and answer.headers["Location"]:
                    uri = urljoin(uri, answer.headers["Location"])
                    continue
                if answer.status != 200:
                    raise InputError(f"uri: its server answered {answer.status}")
                yield answer
                return
        raise InputError(f"uri: more than {MOST_REDIRECTS} redirects")

    def _connection(self, uri: str, ends: float) -> http.client.HTTPConnection:
        """A connection to the address that was checked, whatever the name means a moment later."""
        parts = urlsplit(uri)
        host, port = str(parts.hostname), parts.port or WEB[parts.scheme.lower()]
        address = self._checked_address(host, port)
        left_s = partial(self._left_s, ends)
        link = self.connect(address, port, min(LONGEST_SILENCE_S, left_s()))
        if parts.scheme.lower() == "https":
            link.settimeout(min(LONGEST_SILENCE_S, left_s()))
            link = self.tls.wrap_socket(link, server_hostname=host)
        connection = http.client.HTTPConnection(host, port)
        connection.sock = _TimedLink(link, left_s)  # type: ignore[assignment]  # all it uses of one
        return connection

    def _checked_address(self, host: str, port: int) -> str:
        try:
            addresses = self.resolve(host, port)
        except (OSError, UnicodeError):
            raise InputError(f"uri: the host {shown(host)} is not known") from None
        inside = [address for address in addresses if not is_public(address)]
        if inside or not addresses:
            raise InputError(f"uri: the host {shown(host)} is inside a network; give a public one")
        return addresses[0]

    @contextlib.contextmanager
    def _open_local(self, path: str) -> Iterator[IO[bytes]]:
        descriptor = os.open(os.path.realpath(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            # What was opened is looked at, not the name, which may mean another file by now.
            there = os.path.realpath(f"/proc/self/fd/{descriptor}")
            roots = [os.path.realpath(_local(root)) for root in self.roots if _is_local(root)]
            if not any(there.startswith(f"{root.rstrip('/')}/") for root in roots):
                raise InputError("uri: leads out of serve.video_roots by a link")
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError("uri: no regular file")
            yield file


class _TimedLink:
    """A connection that ends in time, however slowly its server sends: also a byte at a time.

    A timeout of a socket is one of each look at it, and `read` looks until it has all it wants, so
    each look gets what time is left then.

    Args:
        link: Connected.
        left_s: Gives the seconds that are left; raises where there are none.
    """

    def __init__(self, link: socket.socket, left_s: Callable[[], float]) -> None:
        self._link, self._left_s = link, left_s

    def sendall(self, data: bytes) -> None:
        """Sends all of it."""
        self._link.settimeout(min(LONGEST_SILENCE_S, self._left_s()))
        self._link.sendall(data)

    def makefile(self, _: str) -> IO[bytes]:
        """What the server sends; good until it is closed, also after the connection itself is."""
        return io.BufferedReader(_TimedReads(self._link, self._left_s))

    def close(self) -> None:
        """Closes the connection, once nothing reads from it any more."""
        self._link.close()


class _TimedReads(io.RawIOBase):
    """What comes over a connection, in time."""

    def __init__(self, link: socket.socket, left_s: Callable[[], float]) -> None:
        self._link, self._left_s = link, left_s
        self._file = link.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Buffer) -> int | None:
        """Reads what there is, at least a byte but at the end.

        Raises:
            InputError: The time is over.
            TimeoutError: The server said nothing for too long.
        """
        self._link.settimeout(min(LONGEST_SILENCE_S, self._left_s()))
        try:
            return self._file.readinto(buffer)
        except TimeoutError:
            self._left_s()  # says that the time is over, where it is
            raise

    def close(self) -> None:
        """Closes it, and the connection if that is closed already."""
        self._file.close()
        super().close()


def is_below(uri: str, root: str) -> bool:
    """Whether an address lies below a root: of the same kind and host, in a folder of it.

    >>> is_below("https://a.example/v/x.mp4", "https://a.example/v")
    True
    >>> is_below("https://a.example/v/%2e%2e/x.mp4", "https://a.example/v")
    False
    >>> is_below("https://a.example.evil/v/x.mp4", "https://a.example/v")
    False
    """
    ours, theirs = _parts(uri), _parts(root)
    if ours is None or theirs is None or _place(ours) != _place(theirs):
        return False
    folder = theirs.path.rstrip("/") + "/"
    segments = re.split(r"[/\\]", unquote(unquote(ours.path)))
    return ours.path.startswith(folder) and not {".", ".."} & set(segments)


def _parts(uri: str) -> SplitResult | None:
    """The parts of an address; None of one that is written to be misread."""
    if _is_local(uri):
        return SplitResult("file", "", _local(uri), "", "")
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018  # it is parsed when it is asked for
    except ValueError:
        return None
    odd = "@" in parts.netloc or "\\" in uri or not parts.netloc
    return None if odd or any(c.isspace() or not c.isprintable() for c in uri) else parts


def _place(parts: SplitResult) -> tuple[str, str | None, int | None]:
    scheme = parts.scheme.lower()
    return scheme, parts.hostname, parts.port or WEB.get(scheme)


def _is_local(uri: str) -> bool:
    return not is_uri(uri) or uri.lower().startswith("file:///")


def _is_in_store(uri: str) -> bool:
    return is_uri(uri) and not uri.lower().startswith(("file://", "http://", "https://"))


def _local(uri: str) -> str:
    path = unquote(urlsplit(uri).path) if is_uri(uri) else uri
    return path if ".." in path.split("/") else posixpath.normpath(path)


def is_public(address: str) -> bool:
    """Whether a numeric address is of the internet, also by what it carries inside.

    >>> [is_public(a) for a in ("93.184.216.34", "10.0.0.1", "::ffff:127.0.0.1", "2002:7f00:1::")]
    [True, False, False, False]
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if "%" in address or not ip.is_global or ip.is_multicast or any(ip in net for net in NEVER):
        return False
    return all(is_public(str(inner)) for inner in _carried(ip))


def _carried(ip: Address) -> list[Address]:
    """The IPv4 addresses that an IPv6 one leads to."""
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    inside: list[Address | None] = [ip.ipv4_mapped, ip.sixtofour]
    inside += ip.teredo or ()
    if ip in NAT64 or int(ip) >> 32 & 0xFDFFFFFF == ISATAP:  # 0200:5efe is it too
        inside.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return [inner for inner in inside if inner is not None]
