"""Near-duplicates of an upload: among the live videos, and among the bundle's own.

What a model makes of a clip, its content, is there to tell what people like in it, not to tell
clips apart. So two clips count as near-duplicates only where their contents are all but the same,
as after another container or a light compression; a smaller picture often goes unseen. README.md
has how often the thresholds name a video that is none.

Of the bundle's own videos the contents are not kept. Their profiles are, which are sums of what
content, categories and duration add, and the last two are known.

Shapes: N videos of the bundle, F profile, Y video vector.
"""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recsys.bundle.contents import VideoModel
from recsys.data.ragged import FloatArray
from recsys.live.videos.encoding_queue import EncodingQueue

LEAST_OF_LIVE = 0.9995
"""Cosine of two contents from which on they are near-duplicates."""
LEAST_OF_BUNDLE = 0.9999
"""The same of what contents add to profiles, which have fewer dimensions."""
NO_CLIP = 1e-4
"""How near a profile is to that of no clip, relative to its length, where there is none."""


class Nearest(NamedTuple):
    """A video with nearly the same content."""

    video_id: str
    similarity: float
    """Cosine, at most 1."""


class LiveContents:
    """The contents of the live videos under one version, as unit vectors."""

    def __init__(self) -> None:
        self.deleted: set[str] = set()
        """All videos that were deleted, those of bundles too."""
        self._unit: dict[str, FloatArray] = {}
        self._seq = 0

    def follow(self, queue: EncodingQueue, version: str) -> None:
        """Takes those that are new or have changed, and leaves those that were deleted."""
        while page := queue.contents(version, self._seq):
            for video_id, seq, content in page:
                self._seq = seq
                if content is None:
                    self._unit.pop(video_id, None)
                    self.deleted.add(video_id)
                else:
                    self._unit[video_id] = _unit(content)

    def nearest(self, content: FloatArray) -> Nearest | None:
        """The one with the most similar content, where it is a near-duplicate."""
        if not self._unit:
            return None
        cosines = np.stack(list(self._unit.values())) @ _unit(content)
        best = int(cosines.argmax())
        if cosines[best] < LEAST_OF_LIVE:
            return None
        return Nearest(list(self._unit)[best], min(1.0, float(cosines[best])))


class CatalogueContents:
    """The contents of a bundle's own videos, as far as their profiles tell.

    Args:
        model: Of the bundle.
    """

    def __init__(self, model: VideoModel) -> None:
        self._model, self._video = model, model.recommender.video
        self._unit_NF = self._units()

    @torch.inference_mode()
    def nearest(self, content: FloatArray, deleted: Container[str] = frozenset()) -> Nearest | None:
        """The video whose content is nearly the given one (content dim,); None without any.

        Args:
            content: Of a clip.
            deleted: Ids of videos that are not there any more.
        """
        adds = self._video.profile_of_content(self._tensor(content)[None])[0].cpu().numpy()
        cosines = self._unit_NF @ _unit(adds)
        near = np.flatnonzero(cosines >= LEAST_OF_BUNDLE)
        for row in near[np.argsort(-cosines[near], kind="stable")].tolist():
            video_id = self._model.vocabs["video"].id(row)
            if video_id not in deleted:
                return Nearest(video_id, min(1.0, float(cosines[row])))
        return None

    @torch.inference_mode()
    def _units(self) -> FloatArray:
        """What the content adds to each profile (N, F), of unit length; zeros without a clip."""
        catalog, dim = self._model.catalog, self._model.recommender.dim
        categories = catalog.categories
        rows, lengths = (
            self._tensor(part.astype(np.int64)) for part in (categories.values, categories.lengths)
        )
        embedded = self._model.recommender.tables({"category": (rows, lengths)})["category"]
        buckets = self._tensor(catalog.duration_buckets)
        facts = self._video.profile_of_facts(embedded, lengths, buckets)
        adds = np.array(self._model.vectors[:, dim:]) - facts.cpu().numpy()
        nothing = self._video.profile_of_content(self._video.no_clip[None]).cpu().numpy()
        length = np.linalg.norm(adds, axis=1, keepdims=True)
        has_clip = np.linalg.norm(adds - nothing, axis=1, keepdims=True) > NO_CLIP * (1 + length)
        unit: FloatArray = np.where(has_clip, adds / np.maximum(length, 1e-12), 0)
        unit[0] = 0
        return unit.astype(np.float32)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.tensor(values, device=self._video.no_clip.device)


def _unit(content: FloatArray) -> FloatArray:
    unit: FloatArray = content / max(float(np.linalg.norm(content)), 1e-12)
    return unit
