"""From a video's file and facts to its vector, as decode and publish would make it.

The file is decoded in the sandbox with the bundle's own settings; the bundle's model then takes it
for a video that nobody has seen: without an ID of its own.

Shapes: S frames of a clip, Z features of a frame, Y video vector.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from recsys.bundle.contents import VideoModel
from recsys.data.catalog import buckets_among
from recsys.data.clip_store import ClipArray
from recsys.data.ragged import IntArray
from recsys.decode.clips import DecodeClips
from recsys.decode.contract import ReadError
from recsys.features.inputs import VideoBatch
from recsys.live.videos.live_videos import VideoFacts, VideoVector
from recsys.schema import UNKNOWN_ROW
from recsys.serve.videos.duplicates import CatalogueContents

NOT_LOOKED_AT = "this model does not look at frames: the vector is made of the facts alone"


@dataclass(frozen=True)
class Decoded:
    """What a file holds."""

    clip: ClipArray
    """(S, size, size, 3) uint8 frames or (S, Z) float16 features."""
    duration_s: float | None
    poster: bytes | None
    """A picture of it (WebP), where one was asked for and could be made."""
    captions: bytes | None
    """Its own text track (WebVTT), where it has one."""


class Encoding:
    """Makes vectors of one version; one thread at a time.

    Args:
        model: Of the version.
        device: Where the model runs.
    """

    def __init__(self, model: VideoModel, *, device: str = "cpu") -> None:
        self.version = model.version
        self._model, self._device = model, torch.device(device)
        model.recommender.to(self._device)
        config = model.config
        self.looks_at_clips = config.decodes and model.sizes.clip is not None
        features = self.looks_at_clips and config.stores_features
        self._decode_config = config.decode.model_copy(update={"features": features})
        self._content = config.model.content
        self._decode = DecodeClips(self._decode_config, content=self._content)

    @property
    def clip_key(self) -> str:
        """Names all that a clip depends on beside the file."""
        encoder = self._content.encoder if self._decode_config.features else ""
        return f"{self._decode_config.model_dump_json()}{encoder}"

    @functools.cached_property
    def catalogue(self) -> CatalogueContents:
        """What is known of the contents of the bundle's own videos."""
        return CatalogueContents(self._model)

    def holds(self, video_id: str) -> bool:
        """Whether the version's bundle has the video itself."""
        return self._model.vocabs["video"].row(video_id) != UNKNOWN_ROW

    @property
    def duration_per_s(self) -> float | None:
        """A second in the catalogue's unit of durations; None where none is known."""
        return self._model.duration_per_s

    def clip(self, uri: str) -> ClipArray:
        """The clip of a file, as `decode` gives it."""
        return self.decode(uri).clip

    def decode(self, uri: str) -> Decoded:
        """What a file holds.

        Raises:
            ReadError: It gives no clip.
        """
        row = self._decode(pa.table({"uri": [uri]}))
        reason = row.column("reason")[0].as_py()
        if reason is not None:
            raise ReadError(reason, row.column("message")[0].as_py() or "")
        frames, size = self._decode_config.frames, self._decode_config.size
        name, shape = ("features", (-1,)) if self._decode_config.features else ("frames", None)
        values = row.column(name).combine_chunks().flatten().to_numpy()
        clip: ClipArray = values.reshape(frames, *(shape or (size, size, 3)))
        told = (row.column(name)[0].as_py() for name in ("duration_s", "poster", "captions"))
        return Decoded(clip, *told)

    @torch.inference_mode()
    def vector(self, facts: VideoFacts, clip: ClipArray | None) -> VideoVector:
        """What the model makes of a video.

        Args:
            facts: Values that the bundle does not know count as unknown, as they do to publish.
            clip: Of `clip`; None of a video without a file.
        """
        batch = self._batch(facts, clip)
        vector = self._model.recommender.encode_videos(batch)[1].float().cpu().numpy()
        content = None
        encoder = self._model.recommender.video.content
        if encoder is not None and clip is not None and batch.clips is not None:
            content = encoder(batch.clips)[0].float().cpu().numpy()
        return VideoVector(vector, content)

    def _batch(self, facts: VideoFacts, clip: ClipArray | None) -> VideoBatch:
        """The unknown video, as the model wants it, and then ours."""
        creators, categories = self._model.vocabs["creator"], self._model.vocabs["category"]
        kinds = np.unique([categories.row(name) for name in facts.categories]).astype(np.int64)
        kinds = kinds[kinds != UNKNOWN_ROW]
        duration = [np.nan if facts.duration is None else facts.duration]
        bucket = buckets_among(duration, self._model.catalog.durations)[0]
        clips, index = self._clips(clip)
        creator = creators.row(facts.creator_id) if facts.creator_id else UNKNOWN_ROW
        return VideoBatch(
            id_rows=self._rows([UNKNOWN_ROW, UNKNOWN_ROW]),
            creator_rows=self._rows([UNKNOWN_ROW, creator]),
            category_rows=self._rows(kinds),
            category_lengths=self._rows([0, len(kinds)]),
            durations=self._rows([0, int(bucket)]),
            clips=clips,
            clip_index=index,
        )

    def _clips(self, clip: ClipArray | None) -> tuple[Tensor | None, Tensor | None]:
        shape = self._model.sizes.clip
        if shape is None:
            return None, None
        if clip is None or not self.looks_at_clips:
            frames = torch.zeros(0, shape.frames, device=self._device)
            return frames, self._rows([-1, -1])
        return torch.from_numpy(clip.copy()).to(self._device)[None], self._rows([-1, 0])

    def _rows(self, rows: IntArray | list[int]) -> Tensor:
        return torch.as_tensor(rows, dtype=torch.int64, device=self._device)
