"""The bundle: a versioned folder that holds all that a server needs, and nothing of training.

    BUNDLES/CURRENT                 names the newest whole version
    BUNDLES/<version>/manifest.json the other files' sizes and sha256; written last

A folder without a manifest is a bundle that was never finished. Everything is data: loading a
bundle runs no code of it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import yaml

from recsys.config import RunConfig, dump_config, parse_config
from recsys.data.catalog import Catalog
from recsys.data.storage import exists, filesystem, is_uri, join, open_input, replace_file
from recsys.data.timelines import Timelines
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.index import FloatArray, VideoIndex
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, Sizes, table_specs
from recsys.model.video import ClipShape
from recsys.schema import timeline_schema, vocab_schema

FORMAT = 1
"""Raised when a bundle's files change so that an older server could not read them."""
CURRENT = "CURRENT"
MANIFEST = "manifest.json"
_VERSION = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{8}")


@dataclass(frozen=True)
class Contents:
    """What a bundle is made of; N videos, row 0 among them."""

    config: RunConfig
    sizes: Sizes
    recommender: Recommender
    """With plain tables."""
    vocabs: Mapping[str, Vocab]
    """`video`, `creator`, `category` and `context_<column>`."""
    catalog: pa.Table
    """(N,) of `video_schema`."""
    vectors: FloatArray
    """(N, D)."""
    histories: Iterator[pa.Table]
    """Parts of `timeline_schema`, each user in one of them, no longer than `max_history`."""
    metrics: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory."""

    version: str
    manifest: Mapping[str, Any]
    config: RunConfig
    sizes: Sizes
    recommender: Recommender
    """In evaluation mode, on the CPU."""
    vocabs: Mapping[str, Vocab]
    catalog: Catalog
    vectors: FloatArray
    index: VideoIndex
    histories: Timelines

    @classmethod
    def load(cls, path: str) -> Bundle:
        """Reads a bundle and checks every file's sha256.

        Args:
            path: A run folder, its `bundles` folder or one version's; a path or URI.

        Raises:
            InputError: There is no bundle, it is not whole, or a file is not what was written.
        """
        folder = find_bundle(path)
        manifest = read_manifest(folder)
        files = _Files(folder, manifest)
        config = _config(files)
        sizes = _sizes(manifest["sizes"])
        vectors = np.load(io.BytesIO(files.read("vectors.npy")), allow_pickle=False)
        bundle = cls(
            version=manifest["version"],
            manifest=manifest,
            config=config,
            sizes=sizes,
            recommender=_recommender(config, sizes, files),
            vocabs=files.vocabs(),
            catalog=Catalog.from_table(files.table("videos.parquet")),
            vectors=vectors,
            index=VideoIndex.from_bytes(files.read("index.faiss")),
            histories=Timelines.from_table(
                files.histories(),
                num_tasks=sizes.num_tasks,
                num_contexts=len(sizes.context_sizes),
            ),
        )
        files.check_rest()
        bundle._check(folder)
        return bundle

    def _check(self, folder: str) -> None:
        """The files are those of one model."""
        num_videos = len(self.catalog)
        fits = (
            len(self.vocabs["video"]) == num_videos == len(self.vectors) == len(self.index) + 1
            and self.index.dim == self.vectors.shape[1] == self.config.model.dim
        )
        if not fits:
            raise InputError(
                f"{folder}: vocabulary, catalogue, vectors and index are not of one size "
                f"({len(self.vocabs['video'])}, {num_videos}, {self.vectors.shape}, "
                f"{len(self.index)} + 1); publish again"
            )


def write_bundle(bundles_dir: str, contents: Contents) -> str:
    """Writes a new version and then names it in CURRENT.

    Args:
        bundles_dir: Folder of all versions; a path or URI.
        contents: What goes in.

    Returns:
        The version's name.
    """
    version = new_version()
    folder = join(bundles_dir, version)
    writer = _Writer(folder)
    config = contents.config
    writer.write("config.yaml", dump_config(config).encode())
    writer.write("model.safetensors", _weights(contents.recommender))
    for name, vocab in contents.vocabs.items():
        ids = pa.concat_arrays([pa.nulls(1, pa.string()), vocab.ids])
        writer.write_table(f"vocab/{name}.parquet", pa.table([ids], schema=vocab_schema()))
    writer.write_table("videos.parquet", contents.catalog)
    vectors = np.ascontiguousarray(contents.vectors, dtype=np.float32)
    writer.write("vectors.npy", _npy(vectors))
    index = VideoIndex.build(vectors, kind=config.publish.index)
    writer.write("index.faiss", index.to_bytes())
    for i, part in enumerate(contents.histories):
        writer.write_table(f"histories/part-{i:05d}.parquet", part)
    manifest = {
        "format": FORMAT,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "index": index.kind,
        "sizes": dataclasses.asdict(contents.sizes),
        "metrics": dict(contents.metrics or {}),
        "files": dict(writer.files),
    }
    writer.write(MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
    _sync_folders(folder)
    with replace_file(join(bundles_dir, CURRENT)) as file:
        file.write(f"{version}\n".encode())
    _sync_folders(bundles_dir)
    return version


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
    name = os.path.basename(path.rstrip("/"))
    if _VERSION.fullmatch(name) and exists(path):
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
            written = manifest["format"]
        except (ValueError, TypeError, KeyError):
            raise InputError(f"{path}: not a bundle's manifest; publish again") from None
    if written != FORMAT:
        raise InputError(f"{path}: format {written}, this recsys reads {FORMAT}; publish again")
    return dict(manifest)


def read_config(folder: str) -> RunConfig:
    """The run config of one version's folder, checked."""
    return _config(_Files(folder, read_manifest(folder)))


class _Files:
    """A version's files, each read once: the bytes that are checked are those that are used."""

    def __init__(self, folder: str, manifest: Mapping[str, Any]) -> None:
        self._folder = folder
        self._listed: dict[str, dict[str, Any]] = manifest["files"]
        self._checked: set[str] = set()

    def path(self, name: str) -> str:
        return join(self._folder, name)

    def read(self, name: str) -> bytes:
        """A file's content, checked."""
        path = self.path(name)
        if name not in self._listed:
            raise InputError(f"{path}: the manifest does not list this file; publish again")
        if not exists(path):
            raise InputError(f"{path}: the file is missing; copy the bundle again or publish again")
        with open_input(path) as file:
            data: bytes = file.read()
        size = self._listed[name]["bytes"]
        if len(data) != size:
            raise InputError(f"{path}: {len(data)} bytes, the manifest says {size}; copy it again")
        if hashlib.sha256(data).hexdigest() != self._listed[name]["sha256"]:
            raise InputError(f"{path}: sha256 is not the manifest's, the file was changed")
        self._checked.add(name)
        return data

    def table(self, name: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.read(name)))

    def vocabs(self) -> dict[str, Vocab]:
        return {
            name.removeprefix("vocab/").removesuffix(".parquet"): Vocab(
                self.table(name).column("id").combine_chunks().slice(1)
            )
            for name in self._listed
            if name.startswith("vocab/")
        }

    def histories(self) -> pa.Table:
        parts = [self.table(name) for name in self._listed if name.startswith("histories/")]
        return pa.concat_tables(parts) if parts else timeline_schema().empty_table()

    def check_rest(self) -> None:
        """Checks the files that nothing was read from."""
        for name in self._listed.keys() - self._checked:
            self.read(name)


class _Writer:
    """Writes a version's files and remembers what they must be."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.files: dict[str, dict[str, Any]] = {}

    def write(self, name: str, data: bytes) -> None:
        with replace_file(join(self._folder, name)) as file:
            file.write(data)
        self.files[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def write_table(self, name: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write(name, sink.getvalue().to_pybytes())


def _weights(recommender: Recommender) -> bytes:
    state = recommender.state_dict()
    return safetensors.torch.save({key: t.detach().cpu().contiguous() for key, t in state.items()})


def _npy(array: FloatArray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _config(files: _Files) -> RunConfig:
    return parse_config(yaml.safe_load(files.read("config.yaml")), files.path("config.yaml"))


def _sizes(tree: Mapping[str, Any]) -> Sizes:
    clip = tree["clip"]
    return Sizes(
        **{
            **tree,
            "context_sizes": tuple(tree["context_sizes"]),
            "clip": ClipShape(**clip) if clip else None,
        }
    )


def _recommender(config: RunConfig, sizes: Sizes, files: _Files) -> Recommender:
    tables = PlainTables(table_specs(config.model, sizes))
    recommender = Recommender(config.model, sizes, tables=tables)
    state = safetensors.torch.load(files.read("model.safetensors"))
    try:
        recommender.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        path = files.path("model.safetensors")
        raise InputError(f"{path}: not the weights of this model: {reason}") from None
    return recommender.eval()


def _sync_folders(folder: str) -> None:
    """Makes the names of new files durable; object stores have no such step."""
    if is_uri(folder) and not folder.startswith("file://"):
        return
    _, inner = filesystem(folder)
    for place, _, _ in os.walk(inner):
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
