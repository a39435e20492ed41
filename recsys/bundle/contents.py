"""The bundle: a versioned folder that holds all that a server needs, and nothing of training.

    BUNDLES/CURRENT                 names the newest whole version
    BUNDLES/<version>/manifest.json the other files' sizes and sha256; written last

A folder without a manifest is a bundle that was never finished. Everything is data: loading a
bundle runs no code of it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from torch import Tensor

from recsys.bundle.checked import CheckedReader, CheckedWriter, sync_folders
from recsys.bundle.histories import read_histories, write_histories
from recsys.bundle.users import read_users, write_users
from recsys.bundle.versions import (
    CURRENT,
    FORMAT,
    MANIFEST,
    find_bundle,
    new_version,
    read_manifest,
)
from recsys.config.run import RunConfig, ServeConfig, dump_config, parse_config
from recsys.data.catalog import Catalog
from recsys.data.details import Details
from recsys.data.lessons import NO_LESSONS, Lessons
from recsys.data.places import Ids, Places
from recsys.data.ragged import FloatArray, Ragged, whole
from recsys.data.storage import finite, join, remove, replace_file
from recsys.data.users import UserRows
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.features.counts import CountLayout, EventCounts
from recsys.features.hourly import HourlyCounts
from recsys.features.inputs import ClipShape, Sizes
from recsys.features.timelines import Timelines
from recsys.inference.index import IndexFacts, VideoIndex, kind_for
from recsys.inference.rerank import VideoTraits, is_active
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.schema import files_schema, served_video_schema, vocab_schema

RERANK = "rerank.parquet"
INDEX, CODES = "index.faiss", "index_codes.npy"
VIDEOS, DETAILS, FILES = "videos.arrow", "details.arrow", "files.arrow"
"""Tables with a row a video are mapped, so that the servers of a machine share them."""
KNOWN = "known.json"
LESSONS = "lessons.parquet"
"""Only in a bundle with courses."""


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
    details: pa.Table
    """(N,) of `details_schema`."""
    files: Iterator[pa.Table]
    """Parts of `files_schema`, N rows in all."""
    lessons: Lessons
    """Courses, and what must be finished before what."""
    vectors: FloatArray
    """(N, Y); the index is of the first D."""
    users: Iterator[pa.Table] | None
    """Parts of `user_schema` without groups, each user in one of them; None without features."""
    counts: EventCounts
    histories: Iterator[pa.Table]
    """Parts of `history_schema`, each user in one of them, at most `max_history` events."""
    metrics: Mapping[str, object] | None = None
    traits: VideoTraits | None = None
    """What the re-ranking step looks at; None where no weight of `rerank` is set."""
    trained: str | None = None
    """Names the training that the model came out of."""
    live_seq: int = 0
    """Place in the event log up to which histories and counts know it; 0 of none."""
    live_log: str | None = None
    """The id of that log."""


@dataclass(frozen=True)
class VideoModel:
    """The part of a bundle that makes vectors of videos."""

    version: str
    config: RunConfig
    sizes: Sizes
    recommender: Recommender
    vocabs: Mapping[str, Vocab]
    catalog: Catalog
    vectors: FloatArray
    """(N, Y) of the catalogue."""
    details: Details
    """With what decode saw of the files."""

    @cached_property
    def duration_per_s(self) -> float | None:
        """A second in the catalogue's unit of durations; None where none is known."""
        if self.config.data.video_columns.duration is None:
            return None
        return self.details.duration_per_s(self.catalog.durations)

    @classmethod
    def load(cls, folder: str) -> VideoModel:
        """Reads it out of a version's folder, and none of the rest.

        Raises:
            InputError: There is no bundle, or a file is not what was written.
        """
        manifest = read_manifest(folder)
        files = CheckedReader(folder, manifest["files"])
        config, sizes = _config(files), _sizes(manifest["sizes"])
        catalog = Catalog.from_table(files.mapped(VIDEOS))
        recommender = _recommender(config, sizes, files)
        version, vocabs = manifest["version"], _vocabs(files)
        vectors = files.array("vectors.npy", writable=True)
        return cls(version, config, sizes, recommender, vocabs, catalog, vectors, _details(files))


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
    details: Details
    """What people are shown of the videos."""
    lessons: Lessons
    """Courses, and what must be finished before what."""
    vectors: FloatArray
    index: VideoIndex | None
    """None where all videos are compared."""
    histories: Timelines
    older_liked: Ragged
    """What each user of the histories liked before them, sorted video rows."""
    users: UserRows | None
    """What is known of users, those without events among them."""
    counts: EventCounts
    """The hourly counts of everything; live events are added to them."""
    traits: VideoTraits | None
    """What the re-ranking step looks at; None where no weight of `rerank` is set."""
    known: Sequence[Mapping[str, Any]] | None = None
    """What it answered where it was made (`serve/versions/known.py`); None of one without."""

    @property
    def history_places(self) -> Places:
        """Where each user's history stands; made once for all that serve these histories."""
        ids = self.histories.user_ids
        return ids.places if isinstance(ids, Ids) else Places(pa.array(ids, pa.string()))

    @property
    def num_videos(self) -> int:
        """Videos of the catalogue, N - 1."""
        return len(self.vectors) - 1

    @cached_property
    def duration_per_s(self) -> float | None:
        """A second in the catalogue's unit of durations; None where none is known."""
        return self.video_model.duration_per_s

    @property
    def watched_per_s(self) -> float | None:
        """A second in the unit of watch times, that of durations; 1 where no column has any."""
        has_durations = self.config.data.video_columns.duration is not None
        return self.duration_per_s if has_durations else 1.0

    @property
    def live_seq(self) -> int:
        """Place in the event log up to which the histories and counts know it; 0 of none."""
        return int(self.manifest.get("live_seq", 0))

    @property
    def live_log(self) -> str | None:
        """The id of that log; None where it is not known."""
        log_id: str | None = self.manifest.get("live_log")
        return log_id

    @property
    def video_model(self) -> VideoModel:
        """What makes vectors of videos."""
        parts = (self.config, self.sizes, self.recommender, self.vocabs, self.catalog)
        return VideoModel(self.version, *parts, self.vectors, self.details)

    @property
    def created_s(self) -> float:
        """When it was made, in Unix seconds."""
        return datetime.fromisoformat(self.manifest["created"]).timestamp()

    def with_index_facts(self, facts: IndexFacts) -> Bundle:
        """The same bundle, with what was found out of its index, or without it (`flat`)."""
        index = None
        if self.index is not None and facts.kind == "pq":
            index = self.index.with_margin(facts.margin)
        manifest = {**self.manifest, "index": dataclasses.asdict(facts)}
        return dataclasses.replace(self, index=index, manifest=manifest)

    @property
    def index_facts(self) -> IndexFacts:
        """What the manifest says of the index."""
        return IndexFacts(**self.manifest["index"])

    def with_settings(self, settings: ServeConfig | None) -> Bundle:
        """The same bundle, served with other settings than it was published with."""
        if settings is None:
            return self
        config = self.config.model_copy(update={"serve": settings})
        return dataclasses.replace(self, config=config)

    @classmethod
    def load(cls, path: str) -> Bundle:
        """Reads a bundle and checks every file's sha256.

        Args:
            path: A run folder, its `bundles` folder or one version's; a path or URI.

        Raises:
            InputError: There is no bundle, it is not whole, or a file is not what was written.
        """
        folder = find_bundle(path)
        return cls.of(folder, read_manifest(folder))

    @classmethod
    def of(cls, folder: str, manifest: Mapping[str, Any]) -> Bundle:
        """Reads the files that a manifest lists, as `load` does."""
        files = CheckedReader(folder, manifest["files"])
        config = _config(files)
        sizes = _sizes(manifest["sizes"])
        vectors = files.array("vectors.npy", writable=True)
        catalog = Catalog.from_table(files.mapped(VIDEOS))
        histories, older_liked = read_histories(files)
        bundle = cls(
            version=manifest["version"],
            manifest=manifest,
            config=config,
            sizes=sizes,
            recommender=_recommender(config, sizes, files),
            vocabs=_vocabs(files),
            catalog=catalog,
            details=_details(files),
            lessons=_lessons(files),
            vectors=vectors,
            index=_index(IndexFacts(**manifest["index"]), files),
            histories=histories,
            older_liked=older_liked,
            users=_users(config, files),
            counts=_counts(config, catalog, files),
            traits=_traits(config, catalog, files),
            known=json.loads(files.read(KNOWN)) if KNOWN in files.names else None,
        )
        files.check_rest()
        bundle._check(folder)
        return bundle

    def _check(self, folder: str) -> None:
        """The files are those of one model."""
        num_videos = len(self.catalog)
        fits = (
            len(self.vocabs["video"]) == num_videos == len(self.vectors)
            and self.details.table.num_rows == num_videos
            and (self.index is None or self.index.shape == (num_videos, self.recommender.dim))
            and self.vectors.shape[1] == self.recommender.vector_dim
        )
        if not fits:
            raise InputError(
                f"{folder}: vocabulary, catalogue, vectors and index are not of one size "
                f"({len(self.vocabs['video'])}, {num_videos}, {self.vectors.shape}, "
                f"{self.index and self.index.shape}); publish again"
            )


@dataclass(frozen=True)
class Asked:
    """What a bundle is asked once it is written; the answers are kept in it."""

    index: Callable[[Bundle], IndexFacts]
    """How well its index does; `flat` where it is to have none."""
    known: Callable[[Bundle], Sequence[Mapping[str, Any]]]
    """Its known answers."""


def write_bundle(bundles_dir: str, contents: Contents, asked: Asked | None = None) -> str:
    """Writes a new version and then names it in CURRENT.

    Args:
        bundles_dir: Folder of all versions; a path or URI.
        contents: What goes in.
        asked: Asks the written bundle for what is kept in it too.

    Returns:
        The version's name.
    """
    version = new_version()
    folder = join(bundles_dir, version)
    try:
        _write_files(CheckedWriter(folder), version, contents, asked)
    except BaseException:
        # A folder without a manifest serves nobody and only takes up space.
        remove(folder)
        raise
    sync_folders(folder)
    with replace_file(join(bundles_dir, CURRENT)) as file:
        file.write(f"{version}\n".encode())
    sync_folders(bundles_dir)
    return version


def _write_files(
    writer: CheckedWriter, version: str, contents: Contents, asked: Asked | None
) -> None:
    config = contents.config
    writer.write("config.yaml", dump_config(config).encode())
    writer.write_tensors("model.safetensors", _weights(contents.recommender))
    for name, vocab in contents.vocabs.items():
        ids = pa.concat_arrays([pa.nulls(1, pa.string()), vocab.ids])
        table = pa.table([ids], schema=vocab_schema())
        writer.write_mapped(f"vocab/{name}.arrow", [table], vocab_schema())
    _write_videos(writer, contents)
    vectors = np.ascontiguousarray(contents.vectors, dtype=np.float32)
    writer.write_array("vectors.npy", [vectors], shape=vectors.shape)
    kind = kind_for(config.publish.index, len(vectors) - 1)
    if kind == "pq":
        index = VideoIndex.build(vectors[:, : contents.recommender.dim])
        writer.write(INDEX, index.levels)
        writer.write_array(CODES, [index.codes], shape=index.codes.shape)
    if contents.traits is not None:
        writer.write_table(RERANK, _traits_table(contents.traits, len(vectors)))
    if contents.users is not None:
        num_features = len(config.data.user_columns.features)
        write_users(writer, contents.users, num_features=num_features)
    for name, hourly in contents.counts.hourly.items():
        for file, array in hourly.arrays().items():
            writer.write_array(f"counts/{name}/{file}", [array], shape=array.shape)
    width = contents.sizes.num_count_features
    write_histories(writer, contents.histories, config.data.columns, num_count_features=width)
    manifest = {
        "format": FORMAT,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "index": dataclasses.asdict(IndexFacts(kind)),
        "sizes": dataclasses.asdict(contents.sizes),
        **{name: getattr(contents, name) for name in ("trained", "live_seq", "live_log")},
        "metrics": finite(contents.metrics or {}),
        "files": dict(writer.files),
    }
    if asked is not None:
        bundle = Bundle.of(writer.folder, manifest)
        facts = asked.index(bundle)
        manifest["index"] = dataclasses.asdict(facts)
        if facts.kind == "flat":
            for name in writer.files.keys() & {INDEX, CODES}:
                writer.remove(name)
        answers = asked.known(bundle.with_index_facts(facts))
        writer.write(KNOWN, json.dumps(answers, indent=1).encode() + b"\n")
        manifest["files"] = dict(writer.files)
    writer.write(MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")


def _write_videos(writer: CheckedWriter, contents: Contents) -> None:
    catalog = contents.catalog.cast(served_video_schema())
    place = catalog.schema.get_field_index("duration")
    durations = catalog.column(place).fill_null(np.nan)
    catalog = catalog.set_column(place, catalog.schema.field(place), durations)
    for name, table in ((VIDEOS, catalog), (DETAILS, contents.details)):
        writer.write_mapped(name, [table.combine_chunks()], table.schema)
    writer.write_mapped(FILES, contents.files, files_schema())
    if len(contents.lessons):
        writer.write_table(LESSONS, contents.lessons.to_table())


def read_config(folder: str) -> RunConfig:
    """The run config of one version's folder, checked."""
    return _config(CheckedReader(folder, read_manifest(folder)["files"]))


def _weights(recommender: Recommender) -> dict[str, Tensor]:
    state = recommender.state_dict()
    return {key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}


def _config(files: CheckedReader) -> RunConfig:
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


def _vocabs(files: CheckedReader) -> dict[str, Vocab]:
    names = [name for name in files.names if name.startswith("vocab/")]
    return {
        name.removeprefix("vocab/").removesuffix(".arrow"): Vocab(
            whole(files.mapped(name).column("id")).slice(1)
        )
        for name in names
    }


def _index(facts: IndexFacts, files: CheckedReader) -> VideoIndex | None:
    if facts.kind == "flat":
        return None
    return VideoIndex(files.read(INDEX), files.array(CODES), margin=facts.margin)


def _counts(config: RunConfig, catalog: Catalog, files: CheckedReader) -> EventCounts:
    def hourly(name: str) -> HourlyCounts:
        return HourlyCounts.read(lambda file: files.array(f"counts/{name}/{file}"))

    return EventCounts.read(catalog, CountLayout.of(config.data.columns), hourly)


def _details(files: CheckedReader) -> Details:
    """What people are shown of videos, mapped where the bundle is on a disk."""
    return Details(files.mapped(DETAILS), files.mapped(FILES))


def _lessons(files: CheckedReader) -> Lessons:
    return Lessons.from_table(files.table(LESSONS)) if LESSONS in files.names else NO_LESSONS


def _users(config: RunConfig, files: CheckedReader) -> UserRows | None:
    features = config.data.user_columns.features
    return read_users(files, num_features=len(features)) if features else None


def _traits_table(traits: VideoTraits, num_videos: int) -> pa.Table:
    """What the catalogue does not say of the videos (N,)."""
    price = np.zeros(num_videos) if traits.price_N is None else traits.price_N
    is_new = np.zeros(num_videos, np.bool_) if traits.is_new_N is None else traits.is_new_N
    return pa.table({"price": price, "is_new": is_new})


def _traits(config: RunConfig, catalog: Catalog, files: CheckedReader) -> VideoTraits | None:
    if not is_active(config.rerank):
        return None
    if RERANK not in files.names:
        raise InputError(
            f"{files.path(RERANK)}: missing, and the config has weights of rerank; publish again"
        )
    table = files.table(RERANK)
    return VideoTraits(
        creator_row_N=catalog.creator_rows,
        price_N=np.asarray(table.column("price")),
        categories=catalog.categories,
        is_new_N=np.asarray(table.column("is_new")),
    )


def _recommender(config: RunConfig, sizes: Sizes, files: CheckedReader) -> Recommender:
    tables = PlainTables.unfilled(table_specs(config.model, sizes))
    recommender = Recommender(config.model, sizes, tables=tables)
    try:
        recommender.load_state_dict(files.tensors("model.safetensors"), assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        path = files.path("model.safetensors")
        raise InputError(f"{path}: not the weights of this model: {reason}") from None
    return recommender.eval()
