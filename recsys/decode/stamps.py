"""What tells that a file has changed behind the same address: its size, and its time or ETag.

Those of ten million files are in Arrow, but for the newest.
"""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.places import Ids, Places
from recsys.decode.contract import ReadError
from recsys.decode.files import local_stamp, remote_filesystem, remote_stamp
from recsys.decode.sources import local_path, scheme_of

SCHEMA = pa.schema([("uri", pa.string()), ("stamp", pa.string())])
"""Addresses of files, and their stamps; null where none was to be had."""
LEAST_NEW, SHARE_NEW = 1 << 16, 8
"""New files that are Python strings at a time: so many, or one in so many of all."""
_ASKED_AT_ONCE = 32
_WAIT_S = 30.0


class DoneFiles:
    """Addresses with the stamps of their files, of which more follow.

    >>> done = DoneFiles(pa.table({"uri": ["a", "b"], "stamp": ["1", None]}))
    >>> done.add({"c": "3"})
    >>> done.forget(pa.array(["a"]))
    >>> done.table().to_pydict(), "a" in done, "c" in done
    ({'uri': ['b', 'c'], 'stamp': [None, '3']}, False, True)

    Args:
        files: Of `SCHEMA`, each address once.
    """

    def __init__(self, files: pa.Table) -> None:
        self._settle(files)

    def _settle(self, files: pa.Table) -> None:
        self._files = files.cast(SCHEMA).combine_chunks()
        self._places = Places(Ids(self._files.column("uri")).array)
        self._new: dict[str, str | None] = {}

    def __contains__(self, uri: str) -> bool:
        return uri in self._new or uri in self._places

    def add(self, files: dict[str, str | None]) -> None:
        """Takes files that are not there yet: stamps by address."""
        self._new |= files
        if len(self._new) > max(LEAST_NEW, len(self._files) // SHARE_NEW):
            self._settle(self.table())

    def forget(self, uris: pa.Array) -> None:
        """Takes files out."""
        files = self.table()
        self._settle(files.filter(pc.invert(pc.is_in(files.column("uri"), uris))))

    def table(self) -> pa.Table:
        """All of them, of `SCHEMA`."""
        new = pa.table([list(self._new), list(self._new.values())], schema=SCHEMA)
        return pa.concat_tables([self._files, new])


@dataclass(frozen=True)
class FilesNow:
    """What became of files that an earlier run has read."""

    changed: list[str]
    """The addresses whose files are not the ones that they were."""
    unseen: int
    """Files that nothing could be learnt of: they are gone, or their server does not answer. What
    was read of them is kept."""


def look_at_files(
    known: Mapping[str, str | None], *, schemes: tuple[str, ...], base: str
) -> FilesNow:
    """Asks for the stamps of files anew.

    Args:
        known: The stamp of each address; None where none was to be had.
        schemes: The kinds of address that may be read; others are not looked at.
        base: Folder that relative paths start from.
    """
    local = [uri for uri in known if scheme_of(uri) == "file"]
    remote = [uri for uri in known if scheme_of(uri) != "file" and scheme_of(uri) in schemes]
    pairs = [(uri, _local(uri, base)) for uri in local]
    pairs += zip(remote, _remote(remote), strict=True)
    seen = {uri: stamp for uri, stamp in pairs if stamp is not None}
    changed = [uri for uri, stamp in seen.items() if stamp != known[uri]]
    return FilesNow(changed, len(known) - len(seen))


def _local(uri: str, base: str) -> str | None:
    try:
        return local_stamp(os.stat(local_path(uri, base)))
    except (OSError, ValueError, ReadError):
        return None


def _remote(uris: Iterable[str]) -> Iterable[str | None]:
    """The stamps of files behind addresses, many asked for at once."""
    pool = concurrent.futures.ThreadPoolExecutor(_ASKED_AT_ONCE)
    asked = [pool.submit(_ask, uri) for uri in uris]
    for answer in asked:
        try:
            yield answer.result(_WAIT_S)
        except concurrent.futures.TimeoutError:
            yield None
    pool.shutdown(wait=False, cancel_futures=True)


def _ask(uri: str) -> str | None:
    try:
        return remote_stamp(remote_filesystem(uri, scheme_of(uri)).info(uri))
    except Exception:  # each kind of filesystem has its own errors, and the file is asked for later
        return None
