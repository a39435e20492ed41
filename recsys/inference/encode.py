"""The catalogue as vectors.

Shapes: N videos, Y video vector.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from recsys.features.batches import VideoInputs
from recsys.features.inputs import move
from recsys.model.recommender import Recommender
from recsys.schema import UNKNOWN_ROW

VIDEOS_A_BATCH = 1024


@torch.no_grad()
def all_vectors(model: Recommender, videos: VideoInputs, device: torch.device) -> Tensor:
    """Vectors of the whole catalogue (N, Y), on the CPU."""
    model.eval()
    total, parts = len(videos.catalog), []
    for start in range(0, total, VIDEOS_A_BATCH):
        rows = np.arange(start, min(start + VIDEOS_A_BATCH, total))
        batch = move(videos.batch(np.concatenate([[UNKNOWN_ROW], rows])), device)
        parts.append(model.encode_videos(batch)[1:].float().cpu())
    return torch.cat(parts)
