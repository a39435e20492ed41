"""A trained run, as the stages after the training read it.

Shapes: N video rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import exists, local_folder
from recsys.errors import InputError
from recsys.features.batches import VideoInputs
from recsys.inference.encode import all_vectors
from recsys.inference.predict import Predictor
from recsys.model.recommender import Recommender
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST
from recsys.train.checkpoint import load_plain


@dataclass(frozen=True)
class Trained:
    """A trained run, ready to predict."""

    prepared: Prepared
    model: Recommender
    videos: VideoInputs
    vectors: Tensor
    """(N, Y) of the whole catalogue."""
    cold_N: NDArray[np.bool_]
    """True where a video has no event that the model learnt from."""

    @cached_property
    def predictor(self) -> Predictor:
        """Makes what predicts the test users with the model, on the CPU."""
        max_history = self.prepared.config.model.max_history
        trending = self.prepared.trending(TEST)
        gains = None if trending is None else self.model.trending * torch.from_numpy(trending)
        return Predictor(self.model, self.vectors, max_history, trending_N=gains)


def load_trained(config: RunConfig, path: str | None = None) -> Trained:
    """Reads the model that `train` left, in plain torch, and encodes the catalogue.

    Args:
        config: The run.
        path: Folder of another checkpoint, of a training that did not learn from the validation
            events.

    Raises:
        InputError: There is none.
    """
    with_valid = path is None and config.train.refit
    path = path or RunFolder(config.run).model
    if not exists(path):
        raise InputError(f"{path}: there is no trained model; run recsys train")
    prepared = Prepared(config)
    with local_folder(path) as folder:
        model = load_plain(folder, config.model, prepared.sizes)
    videos = prepared.video_inputs(with_valid=with_valid)
    vectors = all_vectors(model, videos, torch.device("cpu"))
    known = prepared.catalog.known_events(with_valid=with_valid)
    return Trained(prepared, model, videos, vectors, known == 0)
