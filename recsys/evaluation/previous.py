"""The bundle that the model is to replace: how it ranks the same users."""

from __future__ import annotations

import logging

import torch

from recsys.bundle.contents import Bundle
from recsys.config.run import RunConfig
from recsys.errors import InputError
from recsys.inference.predict import Predictor
from recsys.inference.translation import ModelVocabs, Translation
from recsys.prepare.prepared import Prepared
from recsys.schema import TEST, UNKNOWN_ROW

logger = logging.getLogger(__name__)


def load_previous(config: RunConfig, folder: str) -> Bundle | None:
    """The bundle; None, with a line that says why, where it cannot be read and nobody named it.

    Raises:
        InputError: `evaluate.previous` names it, and it cannot be read.
    """
    try:
        return Bundle.load(folder)
    except InputError as error:
        if config.evaluate.previous is not None:
            raise
        logger.warning("evaluate: the previous bundle is left out: %s", error)
        return None


def previous_predictor(bundle: Bundle, prepared: Prepared) -> Predictor:
    """The bundle's model, asked about our timelines."""
    ours, theirs = prepared.config.data.columns, bundle.config.data.columns
    names = ["video", *(f"context_{column}" for column in ours.context)]
    if prepared.config.data.user_columns.features:
        names.append("user")
    translation = Translation.between(
        ModelVocabs(
            {name: prepared.vocab(name) for name in names}, ours.context, ours.tasks, ours.watch_dim
        ),
        ModelVocabs(bundle.vocabs, theirs.context, theirs.tasks, theirs.watch_dim),
    )
    trending, gains = prepared.trending(TEST), None
    if trending is not None:
        gains = torch.zeros(len(bundle.vectors))
        gains[torch.from_numpy(translation.video_row_N)] = torch.from_numpy(trending)
        gains[UNKNOWN_ROW] = 0  # where all fell that the bundle does not know
        gains *= bundle.recommender.trending
    return Predictor(
        bundle.recommender,
        torch.from_numpy(bundle.vectors),
        bundle.config.model.max_history,
        translation,
        gains,
    )
