"""Ranking all videos for all users: who is asked for what scores, and what comes out."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config.run import EvaluateConfig
from recsys.data.lessons import Lesson, Lessons
from recsys.data.ragged import Ragged
from recsys.evaluation import ranking
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.metrics.toplists import TopLists
from recsys.evaluation.ranking import chunk_users, evaluate_ranker, measure, ranked
from recsys.inference.ranker import Ranker, dot_product, with_bias

NUM_VIDEOS = 7
COLD = [5, 6]
RELEVANT = [[1], [2, 5], [3], [6], [4]]
KNOWN = [[2, 2], [], [6], [1], []]
SCORES = torch.tensor(
    [
        [9.0, 4, 6, 5, 3, 2, 1],
        [9.0, 1, 2, 3, 4, 5, 6],
        [9.0, 6, 5, 4, 3, 2, 8],
        [9.0, 6, 1, 2, 3, 4, 5],
        [9.0, 1, 2, 3, 6, 5, 4],
    ]
)


def ranking_set() -> RankingSet:
    videos = VideoTable(
        cold_N=np.isin(np.arange(NUM_VIDEOS), COLD),
        popularity_N=np.array([0, 5, 4, 3, 2, 0, 0]),
        age_days_N=np.array([9, 9, 9, 9, 3.0, 2.0, 4.0]),
    )
    users = [f"u{i}" for i in range(len(RELEVANT))]
    return RankingSet(users, Ragged.from_lists(RELEVANT), Ragged.from_lists(KNOWN), videos)


def config(*k: int, masked: bool = False) -> EvaluateConfig:
    return EvaluateConfig(k=k, mask_history=masked, bootstrap=0)


def ranker_of(scores: Tensor = SCORES) -> Ranker:
    return lambda start, stop: scores[start:stop]


def first(lists: list[TopLists]) -> list[list[int]]:
    """The videos of each user's list."""
    return [row.tolist() for chunk in lists for row in chunk.video_BK]


@pytest.mark.parametrize(
    ("held", "chunk"), [(1, 1), (7, 1), (13, 1), (14, 2), (21, 3), (35, 5), (2**23, 5)]
)
def test_users_are_taken_as_many_as_their_scores_may_be(
    held: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at least, all at most; each once, and their lists are the same."""
    monkeypatch.setattr(ranking, "CHUNK_SCORES", held)
    asked: list[tuple[int, int]] = []

    def ranker(start: int, stop: int) -> Tensor:
        asked.append((start, stop))
        return SCORES[start:stop]

    data = ranking_set()
    assert chunk_users(data) == chunk
    lists = list(ranked(data, ranker, config(2), depth=2))
    starts = range(0, 5, chunk)
    assert asked == [(start, min(start + chunk, 5)) for start in starts]
    assert [user for part in lists for user in part.user_B.tolist()] == [0, 1, 2, 3, 4]
    assert first(lists) == [[2, 3], [6, 5], [6, 1], [1, 6], [4, 5]]


def test_what_was_known_is_left_out_where_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each user's own list, whatever chunk the user is in; the ranker's scores stay its own."""
    before = SCORES.clone()
    for held in (1, 14, 2**23):
        monkeypatch.setattr(ranking, "CHUNK_SCORES", held)
        lists = ranked(ranking_set(), ranker_of(), config(2, masked=True), depth=2)
        assert first(list(lists)) == [[3, 1], [6, 5], [1, 2], [6, 5], [4, 5]]
    assert torch.equal(SCORES, before)


def test_lessons_that_were_still_locked_are_left_out_too() -> None:
    """6 requires 2, which the first user alone has finished; 5 requires 6 and 1, which nobody."""
    lessons = Lessons.of({6: Lesson("a", 1, (2,)), 5: Lesson("a", 2, (6, 1))})
    data = ranking_set()
    data = replace(data, videos=replace(data.videos, lessons=lessons))
    lists = list(ranked(data, ranker_of(), config(5, masked=True), depth=5))
    kept = [[row for row in one if row] for one in first(lists)]
    assert kept == [[3, 1, 4, 6], [4, 3, 2, 1], [1, 2, 3, 4], [4, 3, 2], [4, 3, 2, 1]]
    unmasked = first(list(ranked(data, ranker_of(), config(2), depth=2)))
    assert unmasked == first(list(ranked(ranking_set(), ranker_of(), config(2), depth=2)))


@pytest.mark.parametrize("shape", [(5, 6), (4, 7), (5, 8), (7,)])
def test_scores_of_a_wrong_shape_are_refused(shape: tuple[int, ...]) -> None:
    message = rf"scores of shape \({shape[0]}.*\) for users 0 to 5 and 7 video rows"
    with pytest.raises(ValueError, match=message):
        evaluate_ranker(ranking_set(), lambda _, __: torch.zeros(shape), config(2))


def test_dot_products_and_what_single_videos_gain() -> None:
    """Twice named is twice gained; users keep their own in every chunk."""
    queries = torch.tensor([[1.0, 0], [0, 1], [1, 1]], requires_grad=True)
    vectors = torch.tensor([[1.0, 2], [3, 4]], requires_grad=True)
    ranker = dot_product(queries, vectors)
    assert ranker(0, 3).tolist() == [[1, 3], [2, 4], [3, 7]]
    assert ranker(1, 2).tolist() == [[2, 4]]
    assert not ranker(0, 3).requires_grad
    rows = Ragged.from_lists([[1], [], [0, 1, 0]])
    biased = with_bias(ranker, rows, np.array([10, 1, 20, 2], np.float32))
    assert biased(0, 3).tolist() == [[1, 13], [2, 4], [6, 27]]
    assert biased(1, 3).tolist() == [[2, 4], [6, 27]]
    assert biased(2, 3).tolist() == [[6, 27]]


def test_what_is_measured_by_hand() -> None:
    """Of the first one and two: video 1 of user 0 is third, 5 of user 1 second, 6 of user 3 too."""
    data = ranking_set()
    for result in (
        evaluate_ranker(data, ranker_of(), config(2, 1)),
        measure(data, ranked(data, ranker_of(), config(2, 1), depth=2), config(2, 1)),
    ):
        values = result.per_user()
        assert values["hr@1"].tolist() == [0, 0, 0, 0, 1]
        assert values["hr@2"].tolist() == [0, 1, 0, 1, 1]
        second = 1 / math.log2(3)
        expected = [0, second / (1 + second), 0, second, 1]
        assert values["ndcg@2"] == pytest.approx(expected)
        cold = values["cold/hr@2"]
        assert np.isnan(cold).tolist() == [True, False, True, False, True], "without cold ones"
        assert cold[[1, 3]].tolist() == [1, 1]
        warm = values["warm/hr@2"]
        assert np.isnan(warm).tolist() == [False, False, False, True, False]
        assert warm[[0, 1, 2, 4]].tolist() == [0, 0, 0, 1]
        assert sorted(result.exposure) == [1, 2]
        assert result.lists["popularity@1"].tolist() == [4, 0, 0, 5, 2]
        assert result.lists["popularity@2"].tolist() == [3.5, 0, 2.5, 2.5, 1]
        assert result.lists["new@2"].tolist() == values["new@2"].tolist() == [0, 0.5, 0, 0, 1]


def test_how_young_new_is_is_given() -> None:
    """4 days: videos 4, 5 and 6; by default 3: videos 4 and 5."""
    data = ranking_set()
    for days, expected in ((4.0, [0, 1, 0.5, 0.5, 1]), (2.5, [0, 0.5, 0, 0, 0.5])):
        result = evaluate_ranker(data, ranker_of(), config(2), new_days=days)
        assert result.lists["new@2"].tolist() == expected
        lists = ranked(data, ranker_of(), config(2), depth=2)
        assert measure(data, lists, config(2), new_days=days).lists["new@2"].tolist() == expected


def test_lists_are_as_deep_as_the_largest_cutoff() -> None:
    result = evaluate_ranker(ranking_set(), ranker_of(), config(1, 3, 2))
    assert result.slices["all"].values["hr@3"].tolist() == [1, 1, 0, 1, 1]
    (lists,) = ranked(ranking_set(), ranker_of(), config(1), depth=4)
    assert lists.video_BK.shape == (5, 4)


def test_lists_with_and_without_ties_are_put_together() -> None:
    """Users 1 and 3 find all equal: each of six videos is in the first two with 1/3."""
    scores = SCORES.clone()
    scores[[1, 3]] = 0
    values = evaluate_ranker(ranking_set(), ranker_of(scores), config(2)).per_user()
    assert values["recall@2"] == pytest.approx([0, 1 / 3, 0, 1 / 3, 1])
