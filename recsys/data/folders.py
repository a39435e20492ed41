"""Which files a path, a glob, a folder or a URI names: the one place where folders are walked.

- A name that exists is that file or folder, whatever marks it holds; only then is it a pattern.
- Of a folder, and of a folder that a pattern matches, come all files below it.
- Hidden names are passed over below the place that was named: those that begin with `.`, and in
  folders of tables those that begin with `_` too, as Spark, Hive and Arrow do. A partition folder
  `_x=1` is not hidden, nor is a name that a pattern spells out (`_old/*.parquet`).
- On this machine links are followed. A file that is reached twice comes once, by its own name
  rather than by that of a link; links in a circle end there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import quote

from fsspec.implementations.local import LocalFileSystem
from fsspec.spec import AbstractFileSystem

from recsys.data.storage import filesystem
from recsys.errors import InputError

HIDDEN_FILES = "."
HIDDEN_ROWS = "._"
PARQUET = (".parquet", ".pq")

Parts = tuple[str, ...]
"""A path below the place that was named, cut at its slashes."""


def find_files(
    spec: str, named: str, *, hidden: str = HIDDEN_FILES, endings: tuple[str, ...] = ("",)
) -> list[str]:
    """The files that a path, glob, folder or URI names, in the order of their names.

    Args:
        spec: The path, glob, folder or URI; in a glob `**` stands for any number of folders.
        named: What to call it in an error.
        hidden: What hidden names begin with, one of these characters.
        endings: How a file inside a folder must end, in lower case. One that is named itself, or
            that a pattern matches, may end as it likes.

    Returns:
        Local paths, or URIs of other filesystems.

    Raises:
        InputError: A folder cannot be read.
    """
    fs, path = filesystem(spec)
    try:
        root, pattern = _split(fs, path)
        if pattern is None:
            return []
        if not fs.isdir(root):
            files = [root]
        else:
            walk = _walk_local if isinstance(fs, LocalFileSystem) else _walk_remote
            files = sorted(walk(fs, root, _Rule(pattern, hidden, endings)))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        reason = error.strerror or str(error)
        raise InputError(f"{named}: cannot be read ({where}{reason})") from None
    if isinstance(fs, LocalFileSystem):
        return files
    return [str(fs.unstrip_protocol(file)) for file in files]


def address_of(path: str) -> str:
    r"""What a path is called in tables: itself, or a file URI where its bytes are not UTF-8.

    Tables hold text. `recsys.decode.sources.local_path` gives the same path back.

    >>> address_of("/v/café.mp4"), address_of(os.fsdecode(b"/v/caf\xe9.mp4"))
    ('/v/café.mp4', 'file:///v/caf%E9.mp4')
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return f"file://{quote(os.fsencode(path))}"
    return path


def _split(fs: AbstractFileSystem, path: str) -> tuple[str, Parts | None]:
    """The part of a path that exists, and the pattern after it.

    The pattern is empty where the whole path is a name, and None where it names nothing.
    """
    if fs.exists(path):
        return path, ()
    parts = path.split("/")
    for at, part in enumerate(parts):
        if any(mark in part for mark in "*?["):
            root = "/".join(parts[:at]) or "/"
            if not fs.isdir("/".join(parts[: at + 1])):
                return (root, tuple(parts[at:])) if fs.isdir(root) else (path, None)
    return path, None


@dataclass(frozen=True)
class _Rule:
    """What of a folder is taken."""

    pattern: Parts
    hidden: str
    endings: tuple[str, ...]

    def takes(self, file: Parts) -> bool:
        """Whether a file is meant: it matches the pattern, or lies below a folder that does."""
        if not _fits(file, self.pattern) or self._is_hidden(file):
            return False
        return not _fits(file[:-1], self.pattern) or file[-1].lower().endswith(self.endings)

    def enters(self, folder: Parts) -> bool:
        """Whether there may be files that are meant below a folder."""
        for part, wanted in zip(folder, self.pattern, strict=False):
            if wanted == "**":
                break
            if not _is_like(part, wanted):
                return False
        return not self._is_hidden(folder)

    @property
    def depth(self) -> int:
        """How many folders deep the pattern decides; 0 where that is not known."""
        return 0 if "**" in self.pattern else len(self.pattern)

    def _is_hidden(self, parts: Parts) -> bool:
        asked = [wanted[:1] for wanted in self.pattern[: self.depth]]
        asked += [""] * (len(parts) - len(asked))
        return any(
            part[:1] in self.hidden and part[:1] != first and not (part[0] == "_" and "=" in part)
            for part, first in zip(parts, asked, strict=False)
        )


def _fits(parts: Parts, pattern: Parts) -> bool:
    """Whether a pattern matches a path or a folder above it."""
    if not pattern:
        return True
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        return any(_fits(parts[at:], rest) for at in range(len(parts) + 1))
    return bool(parts) and _is_like(parts[0], first) and _fits(parts[1:], rest)


def _is_like(name: str, wanted: str) -> bool:
    return name == wanted or fnmatchcase(name, wanted)


def _walk_local(_: LocalFileSystem, root: str, rule: _Rule) -> Iterator[str]:
    """The files of a folder of this machine, each once."""
    own: list[tuple[Parts, str]] = [((), os.path.realpath(root))]
    links: list[tuple[Parts, str]] = []
    taken: dict[str, Parts] = {}  # by where a file truly lies
    entered = set()
    while own or links:
        parts, real = own.pop() if own else links.pop(0)  # what is reached by its own name first
        if not os.path.isdir(real):
            if rule.takes(parts):
                taken.setdefault(real, parts)
            continue
        # By depth too: at another one, the pattern may take other files of the same folder.
        if not rule.enters(parts) or (key := (real, min(len(parts), rule.depth))) in entered:
            continue
        entered.add(key)
        with os.scandir(real) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                below = (*parts, entry.name)
                if entry.is_symlink():
                    links.append((below, os.path.realpath(entry.path)))
                elif entry.is_dir():
                    own.append((below, entry.path))
                elif rule.takes(below):
                    taken.setdefault(entry.path, below)
    return (os.path.join(root, *parts) for parts in taken.values())


def _walk_remote(fs: AbstractFileSystem, root: str, rule: _Rule) -> Iterator[str]:
    """The files of a folder of another filesystem."""

    def parts_of(path: str) -> Parts:
        return tuple(path.removeprefix(root.rstrip("/") + "/").split("/"))

    folders = [root]
    for _ in range(rule.depth):
        inside = [entry for folder in folders for entry in fs.ls(folder, detail=True)]
        files = [entry["name"] for entry in inside if entry["type"] != "directory"]
        yield from (file for file in files if rule.takes(parts_of(file)))
        names = [entry["name"].rstrip("/") for entry in inside if entry["type"] == "directory"]
        folders = [name for name in names if rule.enters(parts_of(name))]
    for folder in folders:
        yield from (file for file in fs.find(folder) if rule.takes(parts_of(file)))
