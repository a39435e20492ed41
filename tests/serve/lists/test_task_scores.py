"""What is kept of an hour for the ranking head, beside what it is made of."""

from typing import Any

import numpy as np
import torch

from recsys.serve.lists.task_scores import _Hour


class _Scores:
    """Says of a video its row and how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def videos(self, rows: np.ndarray, hour: int) -> torch.Tensor:
        self.asked.append(rows.tolist())
        times = np.full(len(rows), len(self.asked))
        return torch.from_numpy(np.stack([rows, times], 1).astype(np.float32))


def hour_of_many(num_videos: int = 1_000_000) -> tuple[_Scores, _Hour]:
    scores: Any = _Scores()
    return scores, _Hour(scores, 7, num_videos)


def test_each_videos_side_is_made_once() -> None:
    scores, hour = hour_of_many()
    first = hour.of(np.array([[5, 900_000], [5, 2]]))
    assert first.tolist() == [[[5, 1], [900_000, 1]], [[5, 1], [2, 1]]]
    assert hour.of(np.array([2, 3, 5])).tolist() == [[2, 1], [3, 2], [5, 1]]
    assert scores.asked == [[2, 5, 900_000], [3]]
    assert hour.of(np.array([3, 2])).tolist() == [[3, 2], [2, 1]]
    assert len(scores.asked) == 2


def test_only_the_sides_that_were_asked_for_take_memory() -> None:
    _, hour = hour_of_many()
    hour.of(np.array([5, 900_000]))
    assert hour._sides_SM is not None
    assert len(hour._sides_SM) == 3


def test_the_side_of_a_video_that_changed_or_came_is_made_anew() -> None:
    scores, hour = hour_of_many(10)
    hour.of(np.array([4, 9]))
    hour.change(np.array([9, 10]), 11)
    assert hour.of(np.array([10, 9, 4])).tolist() == [[10, 2], [9, 2], [4, 1]]
    assert scores.asked == [[4, 9], [9, 10]]
    hour.change(np.array([9]), 11)
    assert hour.of(np.array([9, 10])).tolist() == [[9, 3], [10, 2]]
    assert hour._sides_SM is not None
    assert len(hour._sides_SM) == 4, "its side takes the place of the one before"
