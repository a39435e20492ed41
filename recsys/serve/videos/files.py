"""Which of the catalogue's files the server may hand out: local videos, pictures and captions."""

from __future__ import annotations

import os
from collections.abc import Mapping

from recsys.data.storage import is_uri
from recsys.decode.contract import ReadError
from recsys.decode.sources import local_path

MEDIA_TYPES = {
    ".3gp": "video/3gpp",
    ".avi": "video/x-msvideo",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".ogv": "video/ogg",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
}

PICTURE_TYPES = {
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}
"""An SVG is no picture here: it may hold scripts."""


CAPTION_TYPES = {".vtt": "text/vtt"}


def local_video(uri: str | None) -> tuple[str, str] | None:
    """Path and media type of a catalogue entry's file; None where it must not be handed out.

    The path comes from the catalogue alone, never from a request. A file that does not look like a
    video is refused even there, so that a catalogue made of others' input gives nothing else away.

    >>> local_video("s3://bucket/a.mp4") is None, local_video("/etc/passwd") is None
    (True, True)
    """
    return _local_file(uri, MEDIA_TYPES)


def local_picture(uri: str | None) -> tuple[str, str] | None:
    """Path and media type of a catalogue entry's poster; None where it must not be handed out.

    >>> local_picture("/etc/passwd") is None, local_picture(None) is None
    (True, True)
    """
    return _local_file(uri, PICTURE_TYPES)


def local_captions(uri: str | None) -> tuple[str, str] | None:
    """Path and media type of the captions beside a local video: the same name with .vtt.

    >>> local_captions("s3://bucket/a.mp4") is None, local_captions("/etc/passwd") is None
    (True, True)
    """
    if uri is None or local_video(uri) is None:
        return None
    return _local_file(os.path.splitext(uri)[0] + ".vtt", CAPTION_TYPES)


def kept_captions(uri: str) -> tuple[str, str] | None:
    """Path and media type of captions that an upload came with; None where there are none here."""
    return _local_file(uri, CAPTION_TYPES)


def _local_file(uri: str | None, types: Mapping[str, str]) -> tuple[str, str] | None:
    if uri is None or (is_uri(uri) and not uri.startswith("file://")):
        return None
    try:
        path = os.path.realpath(local_path(uri, ""))
    except (ReadError, ValueError):  # of another machine, or with a zero byte in it
        return None
    media_type = types.get(os.path.splitext(path)[1].lower())
    if media_type is None or not os.path.isfile(path):
        return None
    return path, media_type
