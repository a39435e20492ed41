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

FORMAT = 7
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
        pointer = join(folder, CURRENT)
        if exists(pointer):
            with open_input(pointer) as file:
                version = file.read(256).decode(errors="replace").strip()
            if not _VERSION.fullmatch(version):
                raise InputError(f"{pointer}: {version!r} is no version's name; publish again")
            return join(folder, version)
    if _is_version(path) and exists(path):
        raise InputError(f"{path}: {MANIFEST} is missing, the bundle was never finished")
    raise InputError(
        f"{path}: no bundle is there; give a run folder, its bundles folder or one version's "
        "(`recsys publish` makes them)"
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
    for folder in reversed(list_files(bundles_dir, "")):
        manifest = read_json(join(folder, MANIFEST)) if _is_version(folder) else None
        if manifest and manifest.get("trained") != trained:
            return folder
    return None


def _is_version(folder: str) -> bool:
    return bool(_VERSION.fullmatch(os.path.basename(folder.rstrip("/"))))
