"""The decode stage: video files in, clips out, as a Ray Data pipeline.

Alone, on any dataset with a column of addresses:

    ds.map_batches(
        DecodeClips,
        fn_constructor_kwargs={"config": DecodeConfig()},
        compute=ray.data.ActorPoolStrategy(size=2),
        batch_size=8,
        batch_format="pyarrow",
    )

`ds.map_batches(DecodeClips(config), batch_size=8, batch_format="pyarrow")` works too (Ray then runs
it in tasks; a worker process keeps its sandbox from one task to the next).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.config import ContentConfig, DecodeConfig
from recsys.data import storage
from recsys.data.clip_writer import ClipWriter
from recsys.data.readers import Clip, ClipSpec, ReadError
from recsys.data.sandbox import Sandbox
from recsys.data.sources import open_source, sha256_of
from recsys.errors import InputError
from recsys.schema import clip_schema, feature_schema

logger = logging.getLogger(__name__)

_sandboxes: dict[tuple[ClipSpec, int], Sandbox] = {}
"""This process's sandbox for each kind of clip; tasks of one worker process share it."""


def clip_spec(config: DecodeConfig) -> ClipSpec:
    """The part of a config that a reader needs."""
    return ClipSpec(
        frames=config.frames,
        size=config.size,
        sampling=config.sampling,
        fit=config.fit,
        auto_max_frames=config.auto_max_frames,
        max_pixels=config.max_pixels,
        max_duration_s=config.max_duration_s,
        max_decode_s=config.max_decode_s,
        still_images=config.still_images,
        reader=config.reader,
    )


class DecodeClips:
    """Decodes batches of videos; a callable for `ray.data.Dataset.map_batches`.

    Args:
        config: How videos become clips.
        content: Names the frame encoder where `config.features`.
        column: Column of addresses.
        base: Folder that relative paths start from; this process's by default.
    """

    def __init__(
        self,
        config: DecodeConfig,
        *,
        content: ContentConfig | None = None,
        column: str = "uri",
        base: str | None = None,
    ):
        self._config = config
        self._content = content or ContentConfig()
        self._column = column
        self._base = os.getcwd() if base is None else base
        self._encoder: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_encoder": None}

    def __call__(self, batch: pa.Table | dict[str, Any]) -> pa.Table:
        """Decodes a batch.

        Returns:
            A row a video: `uri`, the columns of the clip schema (null where there is no clip) and
            those of the quarantine table (`reason` is null where there is one).
        """
        uris = [str(uri) for uri in _column_values(batch, self._column)]
        return self._table([self._decode(uri) for uri in uris])

    def _decode(self, uri: str) -> _Row:
        config = self._config
        try:
            file = open_source(uri, schemes=config.schemes, base=self._base)
        except ReadError as error:
            return _Row(uri, error=error)
        try:
            if file.size == 0:
                raise ReadError("empty", "the file has no bytes")
            if file.size > config.max_bytes:
                limit = f"max_bytes={config.max_bytes}"
                raise ReadError("too_many_bytes", f"{file.size} bytes are over {limit}")
            clip = self._sandbox().read(file, name=os.path.basename(uri))
            return _Row(uri, clip=clip, size_bytes=file.size)
        except ReadError as error:
            digest = sha256_of(file, max_bytes=config.max_bytes)
            return _Row(uri, error=error, size_bytes=file.size, sha256=digest)
        finally:
            file.close()

    def _sandbox(self) -> Sandbox:
        key = (clip_spec(self._config), self._config.max_memory_bytes)
        if key not in _sandboxes:
            _sandboxes[key] = Sandbox(key[0], max_memory_bytes=key[1])
        return _sandboxes[key]

    def _table(self, rows: list[_Row]) -> pa.Table:
        frames = self._config.frames
        clips = [row.clip for row in rows]
        mask = np.array([clip is None for clip in clips], bool)
        values = self._values(clips)
        columns = {
            "uri": pa.array([row.uri for row in rows], pa.string()),
            self._value_name: _fixed_lists(values, mask),
            "times_s": _fixed_lists(
                np.stack([clip.times_s if clip else np.zeros(frames, np.float32) for clip in clips])
                if clips
                else np.zeros((0, frames), np.float32),
                mask,
            ),
            "duration_s": pa.array([clip and clip.duration_s for clip in clips], pa.float32()),
            "note": pa.array(
                [clip and ("damaged" if clip.damaged else "") for clip in clips], pa.string()
            ),
            "reader": pa.array([clip and clip.reader for clip in clips], pa.string()),
            "reason": pa.array([row.error and row.error.reason for row in rows], pa.string()),
            "message": pa.array([_message(row) for row in rows], pa.string()),
            "size_bytes": pa.array([row.size_bytes for row in rows], pa.int64()),
            "sha256": pa.array([row.sha256 for row in rows], pa.string()),
        }
        return pa.table(columns)

    @property
    def _value_name(self) -> str:
        return "features" if self._config.features else "frames"

    def _values(self, clips: Sequence[Clip | None]) -> NDArray[Any]:
        """(N, T·S·S·3) uint8 frames or (N, T·F) float16 features, zeros where there is no clip."""
        size = self._config.size
        shape = (len(clips), self._config.frames, size, size, 3)
        frames = np.zeros(shape, np.uint8)
        for index, clip in enumerate(clips):
            if clip is not None:
                frames[index] = clip.frames
        if self._config.features:
            return self._encode(frames)
        return frames.reshape(len(clips), int(np.prod(shape[1:])))

    def _encode(self, frames_NTHWC: NDArray[np.uint8]) -> NDArray[np.float16]:
        import torch

        from recsys.model.frames import make_frame_encoder

        if self._encoder is None:
            self._encoder = make_frame_encoder(self._content.encoder).eval()
        out = np.zeros((len(frames_NTHWC), self._config.frames * self._encoder.out_dim), np.float16)
        with torch.inference_mode():
            for index, clip in enumerate(frames_NTHWC):
                frames = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 255
                out[index] = self._encoder(frames).reshape(-1).to(torch.float16).numpy()
        return out


@dataclass
class _Row:
    """What became of a video: a clip or an error."""

    uri: str
    clip: Clip | None = None
    error: ReadError | None = None
    size_bytes: int | None = None
    sha256: str | None = None


def _message(row: _Row) -> str:
    if row.error is not None:
        return row.error.message
    return row.clip.message if row.clip else ""


def _fixed_lists(values: NDArray[Any], mask: NDArray[np.bool_]) -> pa.Array:
    """(N, W) numbers as N fixed-size lists, null where `mask`."""
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(mask))


def _column_values(batch: pa.Table | dict[str, Any], column: str) -> list[Any]:
    if column not in (batch.column_names if isinstance(batch, pa.Table) else batch):
        raise InputError(f"column {column!r} is not in the dataset; give column=…")
    return list(batch[column].to_pylist() if isinstance(batch, pa.Table) else batch[column])


def decode_videos(
    uris: Sequence[str] | pa.Table,
    out: str,
    config: DecodeConfig,
    *,
    content: ContentConfig | None = None,
    report: Callable[[str], None] = logger.info,
) -> dict[str, Any]:
    """Decodes videos into `out`; those that are already there are left alone.

    Args:
        uris: Addresses, or a table with the column `uri`.
        out: Output folder, a path or address.
        config: How videos become clips.
        content: Names the frame encoder where `config.features`.
        report: Takes each line that the user should see.

    Returns:
        The report, as in OUT/report.json.

    Raises:
        InputError: No videos are given, or none of them gives a clip.
    """
    wanted = _unique(uris)
    if not wanted:
        raise InputError("no videos to decode; check the videos' addresses")
    start = time.monotonic()
    decoder = DecodeClips(config, content=content)
    schema, settings = _layout(config, content)
    writer = ClipWriter(out, schema=schema, settings=settings)
    if writer.changed_settings:
        report(f"decode: {', '.join(writer.changed_settings)} changed; decoding all videos anew")
    done = writer.done()
    missing = [uri for uri in wanted if uri not in done]
    if len(missing) < len(wanted):
        report(f"decode: {len(wanted) - len(missing)} of {len(wanted)} videos are already there")
    for rows in _run(missing, config, decoder):
        writer.add(rows)
    counts = writer.finish(set(wanted))
    seconds = time.monotonic() - start
    result = {"decode": {**counts, "decoded": len(missing), "seconds": round(seconds, 3)}}
    storage.write_json(result, storage.join(out, "report.json"))
    if not counts["ok"] + counts["damaged"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in counts["quarantined"].items())
        raise InputError(
            f"none of {len(wanted)} videos gives a clip ({reasons}); see {out}/quarantine.parquet"
        )
    return result


def _unique(uris: Sequence[str] | pa.Table) -> list[str]:
    values = uris.column("uri").to_pylist() if isinstance(uris, pa.Table) else uris
    return list(dict.fromkeys(uri for uri in values if uri))


def _layout(
    config: DecodeConfig, content: ContentConfig | None
) -> tuple[pa.Schema, dict[str, Any]]:
    """The clips' schema and the settings that they depend on."""
    names = ("frames", "size", "sampling", "fit", "features")
    settings = {name: getattr(config, name) for name in names}
    if config.sampling == "auto":
        settings["auto_max_frames"] = config.auto_max_frames
    if not config.features:
        return clip_schema(config.frames, config.size), settings
    from recsys.model.frames import make_frame_encoder

    encoder = (content or ContentConfig()).encoder
    settings["encoder"] = encoder
    return feature_schema(config.frames, make_frame_encoder(encoder).out_dim), settings


def pool_size(workers: int | None, *, num_videos: int, free_cpus: float) -> int:
    """Decoding actors: as many as wished, but no more than free CPUs and videos; at least one.

    >>> pool_size(None, num_videos=100, free_cpus=2.0), pool_size(8, num_videos=100, free_cpus=2.0)
    (2, 2)
    >>> pool_size(None, num_videos=1, free_cpus=16.0), pool_size(None, num_videos=9, free_cpus=0.0)
    (1, 1)
    """
    return max(1, min(workers or num_videos, num_videos, int(free_cpus)))


def _run(uris: list[str], config: DecodeConfig, decoder: DecodeClips) -> Iterator[pa.Table]:
    """Decoded rows, in the order in which they are ready."""
    import ray

    if not uris:
        return
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    free = ray.available_resources().get("CPU", 0.0)
    workers = pool_size(config.workers, num_videos=len(uris), free_cpus=free)
    rows = max(1, min(64, len(uris) // (workers * 8)))
    blocks = [pa.table({"uri": uris[i : i + rows]}) for i in range(0, len(uris), rows)]
    dataset = ray.data.from_arrow(blocks).map_batches(
        DecodeClips,
        fn_constructor_kwargs={
            "config": config,
            "content": decoder._content,
            "base": decoder._base,
        },
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=min(1.0, free),
        batch_size=8,
        batch_format="pyarrow",
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
