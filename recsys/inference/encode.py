"""The catalogue as vectors.

Shapes: N videos, Y video vector.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.data.clip_store import ClipRows
from recsys.features.batches import VideoInputs
from recsys.features.inputs import move
from recsys.model.recommender import Recommender
from recsys.schema import UNKNOWN_ROW

VIDEOS_A_BATCH = 1024


@torch.no_grad()
def all_vectors(
    model: Recommender,
    videos: VideoInputs,
    device: torch.device,
    *,
    contents: Tensor | None = None,
) -> Tensor:
    """Vectors of the whole catalogue (N, Y), on the device.

    Args:
        model: On the device.
        videos: The catalogue.
        device: Where all is computed.
        contents: Of `all_contents`, of all clips; without it they are made on the way.
    """
    model.eval()
    total, before = len(videos.catalog), model.video.cached_contents
    vectors = torch.empty(total, model.vector_dim, device=device)
    if contents is not None:
        model.video.cached_contents = contents
    for start in range(0, total, VIDEOS_A_BATCH):
        rows = np.arange(start, min(start + VIDEOS_A_BATCH, total))
        rows = np.concatenate([[UNKNOWN_ROW], rows])
        encoded = None if contents is None else np.zeros(len(rows), np.bool_)
        batch = move(videos.batch(rows, is_encoded_V=encoded), device)
        vectors[start : start + len(rows) - 1] = model.encode_videos(batch)[1:]
    model.video.cached_contents = before
    return vectors


@torch.no_grad()
def all_contents(
    model: Recommender,
    videos: VideoInputs,
    device: torch.device,
    *,
    share: tuple[int, int] = (0, 1),
) -> Tensor | None:
    """The content vectors of the catalogue (N, content dim), on the device.

    Zeros where a video has no clip; None where the model looks at none.

    Args:
        model: Of which the content encoder is asked.
        videos: The catalogue.
        device: Where the model is.
        share: (number, of how many): the part of the clips that is encoded, zeros for the others.
    """
    content = model.video.content
    if content is None or videos.clip_rows is None or videos.load_clips is None:
        return None
    model.eval()
    number, parts = share
    vectors = torch.zeros(len(videos.catalog), model.video.no_clip.shape[0], device=device)
    there = np.flatnonzero(videos.clip_rows >= 0)[number::parts]
    for start in range(0, len(there), VIDEOS_A_BATCH):
        rows = there[start : start + VIDEOS_A_BATCH]
        clips = torch.from_numpy(videos.load_clips(ClipRows(videos.clip_rows[rows])))
        vectors[torch.from_numpy(rows).to(device)] = content(clips.to(device)).float()
    return vectors
