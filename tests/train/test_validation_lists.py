"""The figures that choose epochs and trials are those of the lists that are served."""

import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from recsys.data.ragged import Ragged
from recsys.inference.predict import Predictions, Predictor
from recsys.train.validation import ValidationAnswers, _measured
from tests.bundles import tiny_config

SCORES = torch.tensor([0.0, 9, 1, 5]).repeat(2, 1)


def two_users() -> Predictions:
    """Both like video 3 in the validation; before, one liked video 1 and the other video 2."""
    nothing = np.zeros(0, np.int64)
    return Predictions(
        user_ids=["a", "b"],
        queries=np.zeros((2, 1), np.float32),
        relevant=Ragged.from_lists([[3], [3]]),
        known=Ragged.from_lists([[1, 1], [2]]),
        seen=Ragged.empty(2),
        repeat_bias=np.zeros(0, np.float32),
        labels=np.zeros((0, 0), np.int8),
        logits=np.zeros((0, 0), np.float32),
        event_videos=nothing,
        asked_ids=["a", "b"],
        event_users=nothing,
    )


def test_what_was_liked_before_is_left_out_unless_the_evaluation_keeps_it(tmp_path: Path) -> None:
    """Video 3 stands second, behind what one liked before."""

    def sums(**evaluate: object) -> list[float]:
        config = tiny_config(tmp_path, evaluate=evaluate)
        answers = ValidationAnswers(config, cast(Predictor, None), two_users(), None)
        return _measured(answers, lambda a, b: SCORES[a:b], 4)[0].tolist()

    second = 1 / math.log2(3)
    assert sums() == pytest.approx([2, 1 + second, 2])
    assert sums(mask_history=False) == pytest.approx([2, 2 * second, 2])


def test_creators_are_counted_by_the_places_of_their_videos(tmp_path: Path) -> None:
    """The lists are 3, 2 and 1, 3; videos 1 and 2 are of one creator."""
    answers = ValidationAnswers(
        tiny_config(tmp_path), cast(Predictor, None), two_users(), None, np.array([0, 1, 1, 2])
    )
    assert _measured(answers, lambda a, b: SCORES[a:b], 4)[1].tolist() == [0, 2, 2]
