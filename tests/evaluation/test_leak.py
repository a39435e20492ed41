"""A ranker that peeks at the future looks good where the split leaks, not under a cut in time."""

import numpy as np

from recsys.config import EvaluateConfig
from recsys.evaluation.baselines import DAY_MS, recent_counts, recent_popularity
from recsys.evaluation.interactions import Csr, RankingSet, Videos
from recsys.evaluation.ranking import evaluate_ranker

NUM_USERS, NUM_VIDEOS, NUM_DAYS, CUT_DAY = 400, 201, 10, 9


def events() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users, videos and times of positives; each day has five hot videos of its own."""
    rng = np.random.default_rng(0)
    user = rng.integers(0, NUM_USERS, 8000)
    time = np.sort(rng.integers(0, NUM_DAYS * DAY_MS, len(user)))
    hot = rng.permutation(np.arange(1, NUM_VIDEOS))[: 5 * NUM_DAYS].reshape(NUM_DAYS, 5)
    video = np.where(
        rng.random(len(user)) < 0.5,
        hot[time // DAY_MS, rng.integers(0, 5, len(user))],
        rng.integers(1, NUM_VIDEOS, len(user)),
    )
    return user, video.astype(np.int32), time


def ndcg_of_recent(test: np.ndarray, *, cut_day: int) -> float:
    """NDCG@10 of what was liked most shortly before `cut_day`, learnt from all other events."""
    user, video, time = events()
    recent = recent_counts(
        video[~test],
        time[~test],
        cut_ms=cut_day * DAY_MS,
        half_life_days=0.5,
        num_videos=NUM_VIDEOS,
    )
    pairs = np.unique(np.c_[user, video][test & (time >= CUT_DAY * DAY_MS)], axis=0)
    users = np.unique(pairs[:, 0])
    relevant = Csr.from_lists([pairs[pairs[:, 0] == number, 1] for number in users])
    videos = Videos(np.zeros(NUM_VIDEOS, np.bool_), np.zeros(NUM_VIDEOS, np.int64))
    data = RankingSet([str(n) for n in users], relevant, Csr.empty(len(users)), videos)
    result = evaluate_ranker(data, recent_popularity(recent), EvaluateConfig(k=(10,)))
    return float(result.slices["all"].values["ndcg@10"].mean())


def test_a_peeking_ranker_gains_only_where_the_split_leaks() -> None:
    _, _, time = events()
    by_time = time >= CUT_DAY * DAY_MS
    at_random = np.random.default_rng(1).random(len(time)) < 0.3
    honest = ndcg_of_recent(by_time, cut_day=CUT_DAY)
    # Under a random split other users' events of the test day are there to learn from.
    leaking = ndcg_of_recent(at_random, cut_day=NUM_DAYS)
    assert leaking > 4 * honest
    # Under a cut in time there is nothing later to peek at, however late the ranker may look.
    peeking = ndcg_of_recent(by_time, cut_day=NUM_DAYS)
    assert peeking <= honest * 1.05
