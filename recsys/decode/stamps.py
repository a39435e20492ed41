"""What tells that a file has changed behind the same address: its size, and its time or ETag."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recsys.decode.contract import ReadError
from recsys.decode.files import local_stamp, remote_filesystem, remote_stamp
from recsys.decode.sources import local_path, scheme_of

_ASKED_AT_ONCE = 32
_WAIT_S = 30.0


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
