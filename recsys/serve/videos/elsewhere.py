"""Where the catalogue's video files are served by others: nginx, a bucket, a CDN.

The bodies of videos then pass neither through the replicas nor through the HAProxy before them,
whose latencies grow with what it carries.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from recsys.serve.videos.files import MEDIA_TYPES


def address_elsewhere(uri: str | None, files_at: Mapping[str, str]) -> str | None:
    """The address of a catalogue entry's file at another server; None where there is none.

    Args:
        uri: Of the file, as the catalogue has it; of a local one the path will do.
        files_at: `serve.files_at`.

    >>> address_elsewhere("/data/a b.mp4", {"/data/": "https://cdn.example/v"})
    'https://cdn.example/v/a%20b.mp4'
    """
    if uri is None or os.path.splitext(uri)[1].lower() not in MEDIA_TYPES:
        return None
    place = uri.removeprefix("file://")
    for prefix in sorted(files_at, key=len, reverse=True):
        folder = prefix.rstrip("/") + "/"
        rest = place.removeprefix(folder)
        # What climbs out of the folder is not below it, whatever it begins with.
        if rest != place and posixpath.normpath(rest) == rest and rest[0] not in "/.":
            return f"{files_at[prefix].rstrip('/')}/{quote(rest)}"
    return None


def origins(files_at: Mapping[str, str]) -> str:
    """The servers that files are at, as a content policy names them.

    >>> origins({"/a": "https://cdn.example/v", "/b": "http://media:8081"})
    'http://media:8081 https://cdn.example'
    """
    parts = (urlsplit(base) for base in files_at.values())
    return " ".join(sorted({f"{part.scheme}://{part.netloc}" for part in parts}))
