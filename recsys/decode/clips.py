"""The decoder that Ray Data maps over videos: addresses in, clips or features out."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence

import pyarrow as pa

from recsys import cluster
from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig
from recsys.decode.actor.encoder import ClipEncoder, EncoderSettings
from recsys.decode.actor.pipeline import ClipPipeline, EncodingStep
from recsys.decode.actor.processes import Processes, ProcessSet, shared_processes
from recsys.decode.actor.rows import Row, table_of
from recsys.decode.captions import MAX_BYTES
from recsys.decode.contract import Clip, ClipSpec, ReadError, VideoFile
from recsys.decode.poster import make_poster, poster_spec
from recsys.decode.sandbox import Sandbox
from recsys.decode.sources import check_size, open_source, sha256_of
from recsys.errors import InputError

logger = logging.getLogger(__name__)

_opening = threading.Lock()


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
        hardware_pixels=config.hardware_pixels,
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

    Files are decoded in processes beside the worker, which a broken one may take with it. With
    `num_gpus` the frame encoder runs on the worker's GPU, and some processes decode there too what
    it can read; the others never see it.

    Args:
        config: How videos become clips.
        content: Names the frame encoder where `config.features`.
        column: Column of addresses.
        base: Folder that relative paths start from; by default the one of the process that makes
            the instance.
        processes: How many decode at a time on the worker's cores and GPU; by default one.
    """

    def __init__(
        self,
        config: DecodeConfig,
        *,
        content: ContentConfig | None = None,
        column: str = "uri",
        base: str | None = None,
        processes: ProcessSet = ProcessSet(),  # noqa: B008 (frozen)
    ):
        self._config = config
        self._content = content or ContentConfig()
        self._column = column
        self._base = os.getcwd() if base is None else base
        self._processes = processes
        self._pipeline: ClipPipeline | None = None
        self._sandboxes: Processes | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_pipeline": None, "_sandboxes": None}

    def __call__(self, batch: pa.Table | Mapping[str, Sequence[object]]) -> pa.Table:
        """Decodes a batch; several threads may call it, and share processes and encoder.

        Returns:
            A row a video, in the batch's order: `uri`; the columns of `recsys.schema.clip_schema`
            (or `feature_schema`), null where there is no clip; those of `quarantine_schema`, with
            a null `reason` where there is one; `said`, what readers that did not read it said of
            it and what its captions lack, by reason; `decode_s` and `encode_s`, the seconds that it
            kept a process and the encoder busy.

        Raises:
            InputError: The batch has no column of addresses.
        """
        uris = _addresses(batch, self._column)
        with _opening:
            if self._pipeline is None:
                self._pipeline = self._open()
        config = self._config
        width = self._width if config.features else config.size * config.size * 3
        rows = self._pipeline.run(uris)
        return table_of(rows, frames=config.frames, width=width, features=bool(config.features))

    def _open(self) -> ClipPipeline:
        """The worker's processes and its encoder; they stay until it ends."""
        config = self._config
        self._sandboxes = shared_processes(
            self._processes, max_memory_bytes=config.max_memory_bytes
        )
        step = None
        if config.features:
            settings = EncoderSettings.of(config, has_gpu=_computes_on_gpu())
            encoder = ClipEncoder(self._content.encoder, settings)
            self._width = encoder.dim
            step = EncodingStep(
                encoder,
                batch_clips=max(1, settings.batch_frames // config.frames),
                clip_bytes=config.frames * config.size * config.size * 3,
            )
        return ClipPipeline(self._decode, num_threads=self._processes.num, step=step)

    def _decode(self, uri: str) -> Row:
        assert self._sandboxes is not None
        with self._sandboxes.one() as sandbox:
            began = time.perf_counter()
            row = self._read(uri, sandbox)
            row.decode_s = time.perf_counter() - began
        return row

    def _read(self, uri: str, sandbox: Sandbox) -> Row:
        config = self._config
        row, file = Row(uri), None
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
            row.clip = sandbox.read(file, clip_spec(config), name=name)
            row.message = row.clip.message
            row.poster = self._poster(file, name, sandbox)
            if row.clip.has_captions:
                row.captions = self._captions(file, row.clip, name, sandbox)
        except ReadError as error:
            row.reason, row.message = error.reason, error.message
            if file is not None:
                row.sha256 = sha256_of(file, max_bytes=config.max_bytes)
        finally:
            if file is not None:
                file.close()
        return row

    def _poster(self, file: VideoFile, name: str, sandbox: Sandbox) -> bytes | None:
        """A picture of a video that has a clip; None where none is wanted or can be made."""
        size = self._config.poster_size
        if not size:
            return None
        try:
            clip = sandbox.read(file, poster_spec(clip_spec(self._config), size), name=name)
        except ReadError as error:  # a video without a picture is still one: it is counted
            logger.info("%s: no poster: %s", name, error.message)
            return None
        return make_poster(clip.frames)

    def _captions(self, file: VideoFile, clip: Clip, name: str, sandbox: Sandbox) -> bytes | None:
        """The file's own text track as WebVTT; None where nothing of it can be read.

        What is left out is said with the clip, for the report, and in the worker's log.
        """
        try:
            captions = sandbox.captions(file, clip_spec(self._config), name=name)
        except ReadError as error:
            clip.said["no captions"] = error.message
            logger.warning("%s: no captions: %s", name, error.message)
            return None
        if captions.said:
            clip.said["captions in part"] = captions.said
            logger.warning("%s: captions: %s", name, captions.said)
        return captions.vtt.encode(errors="replace")[:MAX_BYTES] or None


def _computes_on_gpu() -> bool:
    """Whether the worker was given a GPU, and PyTorch sees it."""
    given, seen = cluster.has_gpu(), cluster.torch_sees_gpu()
    if given and not seen:
        logger.warning("PyTorch does not see the GPU that Ray gave; a core encodes")
    return given and seen


def _addresses(batch: pa.Table | Mapping[str, Sequence[object]], column: str) -> list[str]:
    names = batch.column_names if isinstance(batch, pa.Table) else list(batch)
    if column not in names:
        raise InputError(f"the dataset has no column {column!r}, only {', '.join(names)}")
    values = batch[column].to_pylist() if isinstance(batch, pa.Table) else batch[column]
    return [str(value) for value in values]
