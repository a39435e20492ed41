"""OUT/clips.lance and OUT/quarantine.parquet while they grow, and what a restart finds of them.

A video is done once its row is in the clips' newest version or in the quarantine table. Both take a
batch of rows as one change that happens wholly or not at all, so a run killed at any moment leaves
no half batch; what was decoded after its last batch is decoded again.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.data import storage
from recsys.decode.contract import FALLBACK
from recsys.decode.stamps import SCHEMA, DoneFiles
from recsys.errors import InputError
from recsys.schema import quarantine_schema

if TYPE_CHECKING:
    import lance

SETTINGS_KEY = b"recsys.decode"
"""Where both tables keep the settings that they were made with (in the schema's metadata)."""

RETRIED_REASONS = ("missing", "unreachable")
"""Reasons that may have gone by the next run."""

LIMITED_BY = {
    "still_image": "still_images",
    "too_many_pixels": "max_pixels",
    "too_long": "max_duration_s",
    "too_many_bytes": "max_bytes",
    "too_slow": "max_decode_s",
    "too_much_memory": "max_memory_bytes",
    "unsupported_source": "schemes",
    "unsupported_codec": "reader",
}
"""Reasons that a setting may take away: files broken by it are tried again once it is another."""

_LIMITS_KEY = b"recsys.decode.limits"
_DELETED_AT_ONCE = 1000
_FLUSH_BYTES = 64 * 2**20
_FLUSH_S = 15.0
_KEEP_OLD_VERSIONS = timedelta(days=1)  # a reader may still be at an older one


class ReaderCounts(TypedDict):
    """Who read the clips."""

    readers: dict[str, int]
    """Clips by reader."""
    why: dict[str, dict[str, int]]
    """Clips by reader and by the reason why it was this one."""
    fallbacks: int
    """Clips for which another reader was asked before."""


class ClipCounts(ReaderCounts):
    """What became of the videos that were wanted."""

    ok: int
    damaged: int
    posters: int
    """Clips with a picture that stands for them."""
    captions: int
    """Clips of files with a text track of their own."""
    quarantined: dict[str, int]
    """Files without a clip, by reason."""


class ClipWriter:
    """Takes decoded rows and puts them on disk, batch by batch.

    Args:
        out: The output folder.
        schema: Of the clips; the other columns of added rows go to the quarantine table.
        settings: What the clips are made with. Clips made with others are given up;
            `changed_settings` then names the settings that differ.
        limits: Settings that broke files may be broken by, the values of `LIMITED_BY`.
    """

    def __init__(
        self,
        out: str,
        *,
        schema: pa.Schema,
        settings: Mapping[str, object],
        limits: Mapping[str, object] | None = None,
    ):
        os.environ.setdefault("LANCE_LOG", "error")
        self._clips_path = storage.join(out, "clips.lance")
        self._quarantine_path = storage.join(out, "quarantine.parquet")
        self._settings = json.dumps(settings, sort_keys=True).encode()
        self._schema = schema.with_metadata({SETTINGS_KEY: self._settings})
        there = _open_clips(self._clips_path)
        self.changed_settings = [] if there is None else self._differing(there, settings)
        self._dataset = self._begin() if there is None or self.changed_settings else there
        self._limits = json.loads(json.dumps(limits or {}))  # as they will be read
        self._quarantine = self._open_quarantine()
        tables = (self._dataset.to_table(columns=SCHEMA.names), self._quarantine)
        done = [table.select(SCHEMA.names).cast(SCHEMA) for table in tables]
        self._done = DoneFiles(pa.concat_tables(done))
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._flushed = time.monotonic()

    def _differing(self, there: lance.LanceDataset, settings: Mapping[str, object]) -> list[str]:
        """Names of the settings that differ from those of the clips that are there."""
        before = (there.schema.metadata or {}).get(SETTINGS_KEY)
        if before is None or there.schema.names != self._schema.names:
            return ["the table's format"]
        old = json.loads(before)
        return sorted(key for key in {*old, *settings} if old.get(key) != settings.get(key))

    def _begin(self) -> lance.LanceDataset:
        """Puts an empty table in the place of whatever is there."""
        import lance

        with storage_folder(self._clips_path):
            empty = self._schema.empty_table()
            url = storage.as_url(self._clips_path)
            dataset = lance.write_dataset(empty, url, mode="overwrite")
        if self.changed_settings:
            dataset.cleanup_old_versions(timedelta(0), delete_unverified=True)
        return dataset

    def _open_quarantine(self) -> pa.Table:
        """The broken files of earlier runs with these settings, but for those to be tried again."""
        limits = json.dumps(self._limits).encode()
        metadata = {SETTINGS_KEY: self._settings, _LIMITS_KEY: limits}
        if storage.exists(self._quarantine_path):
            with storage.open_input(self._quarantine_path) as file:
                table = pq.read_table(file)
            before = table.schema.metadata or {}
            if before.get(SETTINGS_KEY) == self._settings and "stamp" in table.column_names:
                retried = self._retried(json.loads(before.get(_LIMITS_KEY, b"{}")))
                table = table.replace_schema_metadata(metadata)
                return table.filter(pc.invert(pc.is_in(table.column("reason"), pa.array(retried))))
        return quarantine_schema().with_metadata(metadata).empty_table()

    def _retried(self, limits_before: Mapping[str, object]) -> list[str]:
        """Reasons that may have gone since."""
        gone = [
            reason
            for reason, limit in LIMITED_BY.items()
            if limits_before.get(limit) != self._limits.get(limit)
        ]
        return [*RETRIED_REASONS, *gone]

    def _num_with(self, column: str, uris: pa.Array) -> int:
        there = self._dataset.to_table(columns=["uri"], filter=f"{column} IS NOT NULL")
        return int(pc.sum(pc.is_in(there.column("uri"), uris)).as_py() or 0)

    def done(self) -> pa.Table:
        """Addresses (`uri`) of the videos that need not be decoded, and their files' `stamp`."""
        return self._done.table()

    def forget(self, uris: Sequence[str]) -> None:
        """Removes what there is of videos, for they are to be decoded anew."""
        for start in range(0, len(uris), _DELETED_AT_ONCE):
            quoted = [uri.replace("'", "''") for uri in uris[start : start + _DELETED_AT_ONCE]]
            self._dataset.delete("uri IN ('{}')".format("', '".join(quoted)))
        forgotten = pa.array(uris, pa.string())
        gone = pc.is_in(self._quarantine.column("uri"), forgotten)
        self._quarantine = self._quarantine.filter(pc.invert(gone))
        self._done.forget(forgotten)

    def add(self, rows: pa.Table) -> None:
        """Takes decoded rows; writes what has gathered when it is much or old."""
        new = [uri not in self._done for uri in rows.column("uri").to_pylist()]
        rows = rows.filter(pa.array(new, pa.bool_()))
        uris, stamps = rows.column("uri").to_pylist(), rows.column("stamp").to_pylist()
        self._done.add(dict(zip(uris, stamps, strict=True)))
        self._pending.append(rows)
        self._pending_bytes += rows.nbytes
        late = time.monotonic() - self._flushed > _FLUSH_S
        if late or self._pending_bytes > _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes all rows that have gathered."""
        import lance

        if self._pending:
            rows = pa.concat_tables(self._pending)
            broken = pc.is_valid(rows.column("reason"))
            clips = rows.filter(pc.invert(broken)).select(self._schema.names)
            if len(clips):
                clips = clips.cast(self._schema)
                with storage_folder(self._clips_path):
                    self._dataset = lance.write_dataset(clips, self._dataset, mode="append")
            failed = rows.filter(broken).select(quarantine_schema().names)
            if len(failed):
                failed = failed.cast(self._quarantine.schema)
                self._quarantine = pa.concat_tables([self._quarantine, failed])
                storage.write_table(self._quarantine, self._quarantine_path)
        self._pending, self._pending_bytes = [], 0
        self._flushed = time.monotonic()

    def finish(self, uris: pa.Array) -> ClipCounts:
        """Writes what is left and counts what became of `uris`, different ones."""
        self.flush()
        storage.write_table(self._quarantine, self._quarantine_path)
        self._dataset.cleanup_old_versions(_KEEP_OLD_VERSIONS)
        clips = self._dataset.to_table(columns=["uri", "note", "reader", "why"])
        clips = clips.filter(pc.is_in(clips.column("uri"), uris))
        notes = _count(clips, "note")
        broken = self._quarantine.filter(pc.is_in(self._quarantine.column("uri"), uris))
        reasons = {reason: num for (reason,), num in sorted(_count(broken, "reason").items())}
        return {
            "ok": notes[("",)],
            "damaged": notes[("damaged",)],
            "posters": self._num_with("poster", uris),
            "captions": self._num_with("captions", uris),
            "quarantined": reasons,
            **_readers(_count(clips, "reader", "why")),
        }


def _count(table: pa.Table, *columns: str) -> Counter[tuple[str, ...]]:
    """How many rows of a table have each combination of some columns' values.

    >>> _count(pa.table({"note": ["", "damaged", ""]}), "note")
    Counter({('',): 2, ('damaged',): 1})
    """
    counts = table.group_by(list(columns)).aggregate([([], "count_all")])
    keys = zip(*(counts.column(name).to_pylist() for name in columns), strict=True)
    return Counter(dict(zip(keys, counts.column("count_all").to_pylist(), strict=True)))


def _readers(clips: Counter[tuple[str, ...]]) -> ReaderCounts:
    """Which reader read how many clips, and why.

    >>> clips = {("decord", "exact"): 1, ("pyav", "exact"): 1, ("pyav", "not decord: it failed"): 1}
    >>> _readers(Counter(clips))["why"]
    {'decord': {'exact': 1}, 'pyav': {'exact': 1, 'not decord: it failed': 1}}
    """
    why: dict[str, dict[str, int]] = {}
    for (reader, reason), num in sorted(clips.items()):
        why.setdefault(reader, {})[reason] = num
    return {
        "readers": {reader: sum(reasons.values()) for reader, reasons in why.items()},
        "why": why,
        "fallbacks": sum(num for (_, reason), num in clips.items() if reason.startswith(FALLBACK)),
    }


@contextlib.contextmanager
def storage_folder(path: str) -> Iterator[None]:
    """Turns "cannot be written" into a line for the user."""
    try:
        yield
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be written ({said}); choose another folder") from None


def _open_clips(path: str) -> lance.LanceDataset | None:
    """The Lance dataset at a path, None where none was ever complete.

    Raises:
        InputError: There is one and it cannot be read: to begin anew would lose what it holds.
    """
    import lance

    if not storage.list_files(storage.join(path, "_versions"), ".manifest"):
        return None
    try:
        return lance.dataset(storage.as_url(path))
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: its clips cannot be read ({said}); remove it to decode all videos anew"
        ) from None
