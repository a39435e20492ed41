"""The versions of bundles in a folder: how they are called, found and told apart."""

from __future__ import annotations

import json
import os
import re
import secrets
from datetime import UTC, datetime
from typing import Any

from recsys.data.storage import exists, join, list_files, open_input, read_json
from recsys.errors import InputError

FORMAT = 12
"""Raised when a bundle's files change so that an older server could not read them."""
CURRENT = "CURRENT"
MANIFEST = "manifest.json"
_VERSION = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")


def new_version() -> str:
    """A name that sorts by time (UTC, microseconds) and that nobody else gives."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(4)}"


def find_bundle(path: str) -> str:
    """The folder of one version.

    Args:
        path: A run folder, its `bundles` folder or one version's; a path or URI.

    Raises:
        InputError: None of these.
    """
    if exists(join(path, MANIFEST)):
        return path
    for folder in (path, join(path, "bundles")):
        if exists(join(folder, CURRENT)):
            return join(folder, current_version(folder))
    if is_version(os.path.basename(path.rstrip("/"))) and exists(path):
        raise InputError(f"{path}: {MANIFEST} is missing, the bundle was never finished")
    raise InputError(
        f"{path}: no bundle is there; give a run folder, its bundles folder or one version's "
        "(`recsys publish` makes them)"
    )


def current_version(bundles_dir: str) -> str:
    """The version that was published last.

    Raises:
        InputError: Nothing was, or CURRENT names no version.
    """
    pointer = join(bundles_dir, CURRENT)
    with open_input(pointer) as file:
        version = file.read(256).decode(errors="replace").strip()
    if not is_version(version):
        raise InputError(f"{pointer}: {version!r} is no version's name; publish again")
    return version


def is_version(name: str) -> bool:
    """Whether a text is a version's name, and so leads to nowhere but a folder of that name.

    >>> is_version("20261126T100000000000Z-0123abcd"), is_version("../20261126T100000000000Z-0123")
    (True, False)
    """
    return _VERSION.fullmatch(name) is not None


def whole_versions(bundles_dir: str) -> list[str]:
    """The versions in a folder that were finished, the oldest first."""
    names = [os.path.basename(path.rstrip("/")) for path in list_files(bundles_dir, "")]
    return sorted(
        name for name in names if is_version(name) and exists(join(bundles_dir, name, MANIFEST))
    )


def read_manifest(folder: str) -> dict[str, Any]:
    """The manifest of one version's folder.

    Raises:
        InputError: It is missing, unreadable or of another format.
    """
    path = join(folder, MANIFEST)
    with open_input(path) as file:
        try:
            manifest = json.load(file)
        except ValueError:
            manifest = None
    if not isinstance(manifest, dict) or "format" not in manifest:
        raise InputError(f"{path}: not a bundle's manifest; publish again")
    if manifest["format"] != FORMAT:
        raise InputError(
            f"{path}: format {manifest['format']}, this recsys reads {FORMAT}; publish again"
        )
    missing = {"version", "created", "sizes", "metrics", "files"} - manifest.keys()
    if missing:
        raise InputError(f"{path}: {', '.join(sorted(missing))} missing; publish again")
    return manifest


def newest_other(bundles_dir: str, trained: str) -> str | None:
    """The folder of the newest whole version that came out of another training than this one.

    So it stays the same before and after the model of this training is published.
    """
    for version in reversed(whole_versions(bundles_dir)):
        folder = join(bundles_dir, version)
        if (read_json(join(folder, MANIFEST)) or {}).get("trained") != trained:
            return folder
    return None
