"""OUT/clips.lance and OUT/quarantine.parquet while they grow, and what a restart finds of them.

A video is done once its row is in the clips' newest version or in the quarantine table. Both take a
batch of rows as one change that happens wholly or not at all, so that a run killed at any moment
leaves no half batch; what was decoded after the last batch is decoded again.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.data import storage
from recsys.schema import quarantine_schema

SETTINGS_KEY = b"recsys.decode"
"""Where both tables keep the settings that they were made with (in the schema's metadata)."""

RETRIED_REASONS = ("missing", "unreachable")
"""Reasons that may have gone by the next run."""

_FLUSH_ROWS_BYTES = 64 * 2**20
_FLUSH_S = 20.0


class ClipWriter:
    """Takes decoded rows and puts them on disk, batch by batch.

    Args:
        out: The output folder.
        schema: Of the clips; the other columns of added rows go to the quarantine table.
        settings: What the clips are made with; rows made with other settings are given up.
    """

    def __init__(self, out: str, *, schema: pa.Schema, settings: dict[str, Any]):
        self._clips_path = storage.join(out, "clips.lance")
        self._quarantine_path = storage.join(out, "quarantine.parquet")
        self._settings = json.dumps(settings, sort_keys=True).encode()
        self._schema = schema.with_metadata({SETTINGS_KEY: self._settings})
        self.changed_settings = self._differing(settings)
        self._dataset = self._open_clips()
        self._quarantine = self._open_quarantine()
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._flushed = time.monotonic()

    def _differing(self, settings: dict[str, Any]) -> list[str]:
        """Names of the settings that differ from those of the clips that are there."""
        dataset = _lance_dataset(self._clips_path)
        before = dataset and (dataset.schema.metadata or {}).get(SETTINGS_KEY)
        if not before:
            return [] if dataset is None else ["(unknown settings)"]
        old = json.loads(before)
        return sorted(key for key in {*old, *settings} if old.get(key) != settings.get(key))

    def _open_clips(self) -> Any:
        """The clips; an empty new version where there are none of these settings."""
        import lance

        dataset = _lance_dataset(self._clips_path)
        if dataset is None or self.changed_settings:
            dataset = lance.write_dataset(
                self._schema.empty_table(), self._clips_path, mode="overwrite"
            )
        return dataset

    def _open_quarantine(self) -> pa.Table:
        if storage.exists(self._quarantine_path):
            with storage.open_input(self._quarantine_path) as file:
                table = pq.read_table(file)
            if (table.schema.metadata or {}).get(SETTINGS_KEY) == self._settings:
                retried = pc.is_in(table.column("reason"), pa.array(RETRIED_REASONS))
                return table.filter(pc.invert(retried))
        schema = quarantine_schema().with_metadata({SETTINGS_KEY: self._settings})
        return schema.empty_table()

    def done(self) -> set[str]:
        """Addresses of the videos that need not be decoded."""
        clips = self._dataset.to_table(columns=["uri"]).column("uri").to_pylist()
        return {*clips, *self._quarantine.column("uri").to_pylist()}

    def add(self, rows: pa.Table) -> None:
        """Takes decoded rows; writes those that have gathered when they are many or old."""
        self._pending.append(rows)
        self._pending_bytes += rows.nbytes
        late = time.monotonic() - self._flushed > _FLUSH_S
        if late or self._pending_bytes > _FLUSH_ROWS_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes all rows that have gathered."""
        import lance

        if self._pending:
            rows = pa.concat_tables(self._pending)
            broken = pc.is_valid(rows.column("reason"))
            clips = rows.filter(pc.invert(broken)).select(self._schema.names)
            if len(clips):
                self._dataset = lance.write_dataset(
                    clips.cast(self._schema), self._dataset, mode="append"
                )
            failed = rows.filter(broken).select(quarantine_schema().names)
            if len(failed):
                failed = failed.cast(self._quarantine.schema)
                self._quarantine = pa.concat_tables([self._quarantine, failed])
                self._write_quarantine()
        self._pending, self._pending_bytes = [], 0
        self._flushed = time.monotonic()

    def _write_quarantine(self) -> None:
        storage.write_table(self._quarantine, self._quarantine_path)

    def finish(self, uris: set[str]) -> dict[str, Any]:
        """Writes what is left and counts the clips and broken files among `uris`."""
        self.flush()
        self._write_quarantine()
        table = self._dataset.to_table(columns=["uri", "note"])
        ours = table.filter(pc.is_in(table.column("uri"), pa.array(uris, pa.string())))
        damaged = pc.sum(pc.equal(ours.column("note"), "damaged")).as_py() or 0
        reasons = Counter(
            row["reason"] for row in self._quarantine.to_pylist() if row["uri"] in uris
        )
        return {
            "ok": len(ours) - damaged,
            "damaged": damaged,
            "quarantined": dict(sorted(reasons.items())),
        }


def _lance_dataset(path: str) -> Any:
    """The dataset at a path, None where there is none."""
    import lance

    try:
        return lance.dataset(path)
    except (OSError, ValueError):
        return None
