"""The decoder that Ray Data maps over videos: addresses in, clips or features out."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig
from recsys.decode.contract import Clip, ClipSpec, ReadError, VideoFile
from recsys.decode.poster import make_poster, poster_spec
from recsys.decode.sandbox import Sandbox
from recsys.decode.sources import check_size, open_source, sha256_of
from recsys.errors import InputError

logger = logging.getLogger(__name__)

_sandboxes: dict[tuple[int, bool], Sandbox] = {}
"""This process's sandboxes by their bounds; Ray tasks of one worker process share them."""


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

    As a class, for a pool of actors (an encoder is then loaded once an actor):

        ds.map_batches(
            DecodeClips,
            fn_constructor_args=[DecodeConfig(frames=8)],
            compute=ray.data.ActorPoolStrategy(size=2),
            batch_size=8,
            batch_format="pyarrow",
        )

    or as an instance, for Ray tasks:

        ds.map_batches(DecodeClips(DecodeConfig(frames=8)), batch_size=8, batch_format="pyarrow")

    Files are decoded in a process beside the worker, which a broken one may take with it. With
    `num_gpus` the frame encoder runs on the worker's GPU, and decoding too where it can.

    Args:
        config: How videos become clips.
        content: Names the frame encoder where `config.features`.
        column: Column of addresses.
        base: Folder that relative paths start from; by default the one of the process that makes
            the instance.
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
        self._encode: Encoder | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_encode": None}

    def __call__(self, batch: pa.Table | Mapping[str, Sequence[object]]) -> pa.Table:
        """Decodes a batch.

        Returns:
            A row a video, in the batch's order: `uri`; the columns of `recsys.schema.clip_schema`
            (or `feature_schema`), null where there is no clip; those of `quarantine_schema`, with
            a null `reason` where there is one.

        Raises:
            InputError: The batch has no column of addresses.
        """
        uris = _addresses(batch, self._column)
        if self._config.features and self._encode is None:
            self._encode = Encoder(self._content.encoder, use_gpu=_has_gpu())
        if self._encode is not None and self._encode.device == "cuda":
            with ThreadPoolExecutor(1) as ahead:  # decodes while the GPU encodes
                return self._table([self._finish(row) for row in ahead.map(self._decode, uris)])
        return self._table([self._finish(self._decode(uri)) for uri in uris])

    def _decode(self, uri: str) -> _Row:
        config = self._config
        row, file = _Row(uri), None
        try:
            file = open_source(
                uri,
                schemes=config.schemes,
                base=self._base,
                max_bytes=config.max_bytes,
                timeout_s=config.max_decode_s,
            )
            row.size_bytes, row.stamp = file.size, file.stamp
            check_size(file, config.max_bytes)
            name = os.path.basename(uri)
            row.clip = self._sandbox().read(file, clip_spec(config), name=name)
            row.message = row.clip.message
            row.poster = self._poster(file, name)
        except ReadError as error:
            row.reason, row.message = error.reason, error.message
            if file is not None:
                row.sha256 = sha256_of(file, max_bytes=config.max_bytes)
        finally:
            if file is not None:
                file.close()
        return row

    def _poster(self, file: VideoFile, name: str) -> bytes | None:
        """A picture of a video that has a clip; None where none is wanted or can be made."""
        size = self._config.poster_size
        if not size:
            return None
        try:
            clip = self._sandbox().read(file, poster_spec(clip_spec(self._config), size), name=name)
        except ReadError as error:  # a video without a picture is still one: it is counted
            logger.info("%s: no poster: %s", name, error.message)
            return None
        return make_poster(clip.frames)

    def _sandbox(self) -> Sandbox:
        key = (self._config.max_memory_bytes, _has_gpu())
        if key not in _sandboxes:
            _sandboxes[key] = Sandbox(max_memory_bytes=key[0], use_gpu=key[1])
            atexit.register(_sandboxes[key].close)
        return _sandboxes[key]

    def _finish(self, row: _Row) -> _Row:
        """Turns a row's frames into what is stored, and lets them go."""
        if row.clip is not None:
            frames = row.clip.frames
            row.values = (self._encode(frames) if self._encode else frames).reshape(-1)
            row.clip.frames = frames[:0]
        return row

    def _table(self, rows: list[_Row]) -> pa.Table:
        features = self._encode is not None
        width = self._config.frames * (self._encode.dim if self._encode else self._frame_width())
        clips = [row.clip for row in rows]
        values = [row.values for row in rows]
        times = [clip.times_s if clip else None for clip in clips]
        dtype: np.dtype[np.number] = np.dtype(np.float16 if features else np.uint8)
        return pa.table(
            {
                "uri": _column(rows, "uri", pa.string()),
                "features" if features else "frames": _fixed_lists(values, width, dtype),
                "times_s": _fixed_lists(times, self._config.frames, np.dtype(np.float32)),
                "duration_s": _column(clips, "duration_s", pa.float32()),
                "poster": _column(rows, "poster", pa.binary()),
                "note": pa.array([clip and _note(clip) for clip in clips], pa.string()),
                "reader": _column(clips, "reader", pa.string()),
                "why": _column(clips, "why", pa.string()),
                "reason": _column(rows, "reason", pa.string()),
                "message": _column(rows, "message", pa.string()),
                "size_bytes": _column(rows, "size_bytes", pa.int64()),
                "sha256": _column(rows, "sha256", pa.string()),
                "stamp": _column(rows, "stamp", pa.string()),
            }
        )

    def _frame_width(self) -> int:
        return self._config.size * self._config.size * 3


class Encoder:
    """The frozen frame encoder: (T, S, S, 3) uint8 frames → (T, F) float16 features.

    Args:
        name: As `recsys.model.frames.make_frame_encoder` takes it.
        use_gpu: Whether it runs on the first GPU.
    """

    def __init__(self, name: str, *, use_gpu: bool = False):
        from recsys.model.frames import make_frame_encoder

        self.device = "cuda" if use_gpu else "cpu"
        self._encoder = make_frame_encoder(name).eval().to(self.device)
        self.dim = self._encoder.out_dim

    def __call__(self, frames_THWC: NDArray[np.uint8]) -> NDArray[np.float16]:
        """Encodes one clip."""
        import torch

        with torch.inference_mode():
            frames = torch.from_numpy(frames_THWC.copy()).to(self.device)
            features = self._encoder(frames.permute(0, 3, 1, 2).float() / 255)
        values: NDArray[np.float16] = features.to(torch.float16).cpu().numpy()
        return values


@dataclass
class _Row:
    """What became of a video: a clip, or a reason why there is none."""

    uri: str
    clip: Clip | None = None
    values: NDArray[np.number] | None = None
    poster: bytes | None = None
    reason: str | None = None
    message: str = ""
    size_bytes: int | None = None
    sha256: str | None = None
    stamp: str | None = None


def _note(clip: Clip) -> str:
    return "damaged" if clip.damaged else ""


def _column(things: Sequence[object], field: str, kind: pa.DataType) -> pa.Array:
    """One field of each thing, null where there is none."""
    return pa.array([None if thing is None else getattr(thing, field) for thing in things], kind)


def _fixed_lists(
    rows: Sequence[NDArray[np.number] | None], width: int, dtype: np.dtype[np.number]
) -> pa.Array:
    """Rows of `width` numbers as fixed-size lists, null where there are none."""
    values = np.zeros((len(rows), width), dtype)
    for place, row in enumerate(rows):
        if row is not None:
            values[place] = row
    mask = pa.array([row is None for row in rows], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), width, mask=mask)


def _addresses(batch: pa.Table | Mapping[str, Sequence[object]], column: str) -> list[str]:
    names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
    if column not in names:
        raise InputError(f"the dataset has no column {column!r}, only {', '.join(names)}")
    values = batch[column].to_pylist() if isinstance(batch, pa.Table) else batch[column]
    return [str(value) for value in values]


def _has_gpu() -> bool:
    """Whether Ray has given this worker a GPU."""
    import ray

    if not ray.is_initialized():
        return False
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))
