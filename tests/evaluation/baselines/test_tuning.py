"""What baselines are made with: chosen on the validation days, and never by the test."""

import dataclasses

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.ease import Gram
from recsys.evaluation.baselines.likes import DAY_MS, Likes
from recsys.evaluation.baselines.table import make_baselines
from recsys.evaluation.baselines.tuning import (
    HALF_LIVES,
    NEIGHBOURS,
    PENALTIES,
    RECENT_WEIGHTS,
    Settings,
    choose,
)
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker
from recsys.evaluation.report.wording import baseline_lines
from recsys.schema import TRAIN, VALID

NUM_VIDEOS, NUM_USERS = 60, 200
CONFIG = EvaluateConfig(k=(5,), bootstrap=0)


def likes(*, trend_lasts: bool = True) -> Likes:
    """Ten days of a user are one like each; the last day is for validation.

    On eight days it is one of 20 old favourites, on the ninth one of 18 new videos, and on the last
    one of the new ones again or, if the trend does not last, of the old ones.
    """
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 21, (NUM_USERS, 10))
    rows[:, 8] = rng.integers(40, 58, NUM_USERS)
    if trend_lasts:
        rows[:, 9] = rng.integers(40, 58, NUM_USERS)
    hours = np.arange(10) + rng.random((NUM_USERS, 10))
    split = np.where(np.arange(10) == 9, VALID, TRAIN).astype(np.int8)
    return Likes(
        Ragged(np.arange(NUM_USERS + 1) * 10, rows.ravel().astype(np.int32)),
        (hours * DAY_MS).astype(np.int64).ravel(),
        np.tile(split, NUM_USERS),
    )


def users_of(known: Likes) -> RankingSet:
    counts = np.bincount(known.lists.values, minlength=NUM_VIDEOS)
    videos = VideoTable(counts == 0, counts)
    relevant = Ragged.from_lists([[NUM_VIDEOS - 1]] * NUM_USERS)
    return RankingSet([str(u) for u in range(NUM_USERS)], relevant, known.lists, videos)


def test_likes_before_a_split_and_those_of_validation() -> None:
    lists = Ragged.from_lists([[1, 2, 2, 3, 1], [4], [0, 5]])
    split = np.array([0, 0, 1, 1, 1, 0, 0, 1], np.int8)
    likes = Likes(lists, np.arange(8), split)
    before = likes.before(VALID)
    assert [part.tolist() for part in before.lists.pairs(0, 3)] == [[0, 0, 1, 2], [1, 2, 4, 0]]
    assert before.time_ms.tolist() == [0, 1, 5, 6]
    data = likes.validation(VideoTable(np.zeros(6, np.bool_), np.zeros(6, np.int64)), seed=0)
    assert data is not None
    assert data.user_ids == ["0", "2"]  # of the first only 3 is new, the second has nothing
    assert [part.tolist() for part in data.relevant.pairs(0, 2)] == [[0, 1], [3, 5]]
    assert data.videos.popularity_N.tolist() == [1, 1, 1, 0, 1, 0]
    train = dataclasses.replace(likes, split=np.zeros(8, np.int8))
    assert train.validation(data.videos, seed=0) is None


def test_settings_are_of_the_lists_and_follow_the_data() -> None:
    lasting, passing = (likes(trend_lasts=lasts) for lasts in (True, False))
    chosen = [choose(known, users_of(known).videos, CONFIG) for known in (lasting, passing)]
    assert chosen[0].half_life_days < chosen[1].half_life_days
    assert chosen[0].blend_weight > min(RECENT_WEIGHTS)  # EASE knows no days
    for settings in chosen:
        assert settings.half_life_days in HALF_LIVES and settings.neighbours in NEIGHBOURS
        assert {settings.penalty, settings.blend_penalty} <= set(PENALTIES)
        assert settings.blend_weight in RECENT_WEIGHTS
        assert NUM_USERS / 2 < settings.users <= NUM_USERS


def test_ease_alone_has_the_penalty_that_does_best_on_the_validation_days() -> None:
    rng = np.random.default_rng(0)
    kind = np.arange(NUM_USERS)[:, None] % 4
    own = rng.random((NUM_USERS, 10)) < 0.6  # the others are of all kinds
    rows = np.where(own, 1 + 14 * kind, 1) + rng.integers(0, np.where(own, 14, 56))
    drawn = likes()
    known = dataclasses.replace(
        drawn, lists=Ragged(drawn.lists.offsets, rows.ravel().astype(np.int32))
    )
    videos = users_of(known).videos
    data = known.validation(videos, seed=CONFIG.seed)
    assert data is not None
    gram = Gram.of(known.before(VALID).lists, NUM_VIDEOS, most_videos=NUM_VIDEOS)
    ndcg = {
        penalty: evaluate_ranker(data, gram.fit(penalty).ranker(data), CONFIG)
        .slices["all"]
        .values["ndcg@5"]
        .mean()
        for penalty in PENALTIES
    }
    (best,) = (penalty for penalty in PENALTIES if ndcg[penalty] == max(ndcg.values()))
    assert choose(known, videos, CONFIG).penalty == best != Settings().penalty


def test_what_the_config_fixes_is_taken() -> None:
    known = likes()
    fixed = CONFIG.model_copy(update={"half_life_days": 3.0, "neighbours": 7, "ease_penalty": 11.0})
    settings = choose(known, users_of(known).videos, fixed)
    assert (settings.half_life_days, settings.neighbours, settings.penalty) == (3.0, 7, 11.0)
    assert make_baselines(known, users_of(known), fixed).about["neighbours"] == 7


def test_the_test_is_not_looked_at() -> None:
    """Other users with other relevant videos in the test, and the same settings."""
    known = likes()
    data = users_of(known)
    other = dataclasses.replace(data, relevant=Ragged.from_lists([[3, 4]] * NUM_USERS)).select(
        np.arange(50)
    )
    first, second = (make_baselines(known, of, CONFIG) for of in (data, other))
    assert first.about == second.about
    for name, ranker in first.rankers.items():
        assert (ranker(0, 50) == second.rankers[name](0, 50)).all(), name


def test_recent_popularity_is_added_to_ease_for_everybody() -> None:
    known = likes()
    data = users_of(known)
    baselines = make_baselines(known, data, CONFIG)
    both = baselines.rankers["EASE + recent popularity"](0, 9)
    beside = Gram.of(known.lists, NUM_VIDEOS, most_videos=100).fit(
        baselines.about["ease"]["blend_penalty"]
    )
    ease = beside.ranker(data, torch.zeros(NUM_VIDEOS))(0, 9)
    recent_N = baselines.rankers["recent popularity"](0, 1)[0]
    added_N = baselines.about["ease"]["blend_weight"] * beside.scale * recent_N / recent_N.max()
    assert added_N.max() > 0
    assert (both - ease).numpy() == pytest.approx(added_N.expand(9, -1).numpy(), abs=1e-5)


def test_without_validation_users_they_are_guesses_and_it_is_said() -> None:
    known = likes()
    known = dataclasses.replace(known, split=np.zeros(len(known.split), np.int8))
    baselines = make_baselines(known, users_of(known), CONFIG)
    assert baselines.about["users"] == 0 and baselines.about["neighbours"] == Settings().neighbours
    assert "is a guess" in " ".join(baseline_lines(baselines.about))


def test_what_ease_leaves_out_is_said() -> None:
    known = likes()
    small = make_baselines(known, users_of(known), CONFIG.model_copy(update={"ease_videos": 15}))
    share = small.about["ease"]["share_of_likes"]
    assert small.about["ease"]["videos"] == 15 and 0.5 < share < 1
    said = " ".join(baseline_lines(small.about)).replace("\xa0", " ")
    assert f"15 most popular videos, with {100 * share:.0f} % of the likes" in said
    whole = make_baselines(known, users_of(known), CONFIG)
    assert whole.about["ease"]["share_of_likes"] == 1
    assert "most popular videos" not in " ".join(baseline_lines(whole.about))
    without = make_baselines(known, users_of(known), CONFIG.model_copy(update={"ease_videos": 0}))
    assert "EASE" not in without.rankers and "EASE" not in " ".join(baseline_lines(without.about))


@pytest.mark.parametrize("name", ["popularity", "recent popularity", "item-kNN", "EASE", "random"])
def test_all_have_scores_for_all(name: str) -> None:
    known = likes()
    ranker = make_baselines(known, users_of(known), CONFIG).rankers[name]
    assert ranker(3, 9).shape == (6, NUM_VIDEOS)
