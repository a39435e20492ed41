"""What tells that a file has changed behind the same address: its size, and its time or ETag."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Iterable, Mapping

from recsys.decode.contract import ReadError
from recsys.decode.files import local_stamp, remote_filesystem, remote_stamp
from recsys.decode.sources import local_path, scheme_of

_ASKED_AT_ONCE = 32
_WAIT_S = 30.0


def changed_files(
    known: Mapping[str, str | None], *, schemes: tuple[str, ...], base: str
) -> list[str]:
    """The addresses whose files are not the ones that they were.

    A file that is gone, or whose server does not answer, counts as unchanged: what was read of it
    is kept.

    Args:
        known: The stamp of each address; None where none was to be had.
        schemes: The kinds of address that may be read; others are left alone.
        base: Folder that relative paths start from.
    """
    local = [uri for uri in known if scheme_of(uri) == "file"]
    remote = [uri for uri in known if scheme_of(uri) != "file" and scheme_of(uri) in schemes]
    pairs = [(uri, _local(uri, base)) for uri in local]
    pairs += zip(remote, _remote(remote), strict=True)
    return [uri for uri, stamp in pairs if stamp is not None and stamp != known[uri]]


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
