from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.catalog import Catalog
from recsys.features.counts import HourlyCounts, Trends, hour_of, trend_places, trending
from recsys.features.timelines import Timelines, trend_dim
from recsys.schema import video_schema
from tests.steps import make_timelines

HOUR = 3600 * 1000
NUM_VIDEOS = 51


def catalog() -> Catalog:
    """Videos 1 and 2 are of creator 1, the others of nobody known; video 2 has two categories."""
    rows = np.arange(NUM_VIDEOS)
    columns: dict[str, object] = {name: [0] * len(rows) for name in video_schema().names}
    columns |= {"video_id": rows.astype(str), "uri": [""] * len(rows)}
    columns["creator_row"] = [0, 1, 1] + [0] * (NUM_VIDEOS - 3)
    columns["category_rows"] = [[], [1], [1, 2]] + [[]] * (NUM_VIDEOS - 3)
    return Catalog.from_table(pa.table(columns, schema=video_schema()))


def counts(rows: list[int], hours: list[int], values: list[list[int]]) -> HourlyCounts:
    return HourlyCounts(np.array(rows), np.array(hours), np.array(values))


def test_totals_before_an_hour() -> None:
    """Row 2: two events in hour 5, one of them liked, and one in hour 9."""
    found = counts([2, 7, 2, 2], [5, 5, 9, 5], [[1, 1], [1, 1], [1, 1], [1, 0]])
    totals = found.before(np.array([2, 2, 2, 2, 7, 3]), np.array([5, 6, 9, 10, 99, 99]))
    assert totals.tolist() == [[0, 0], [2, 1], [2, 1], [3, 2], [1, 1], [0, 0]]


def test_a_table_gives_the_same_counts_back() -> None:
    found = counts([2, 7, 2], [5, 5, 9], [[1, 1], [1, 1], [3, 2]])
    again = HourlyCounts.from_table(found.to_table(), num_actions=1)
    for ours, theirs in zip(found.entries(), again.entries(), strict=True):
        assert ours.tolist() == theirs.tolist()


def test_what_videos_belong_to_is_counted() -> None:
    videos = counts([1, 2, 3], [4, 4, 4], [[1, 1], [1, 0], [1, 1]])
    trends = Trends.of(catalog(), {"video": videos}, num_actions=1)
    after = np.array([9])
    assert trends.counts["everything"].before(np.array([1]), after).tolist() == [[3, 2]]
    assert trends.counts["creator"].before(np.array([1]), after).tolist() == [[2, 1]]
    both = np.array([9, 9])
    assert trends.counts["category"].before(np.array([1, 2]), both).tolist() == [[2, 1], [1, 0]]


def test_how_often_videos_had_been_shown_and_what_trends() -> None:
    """Video 1 was shown 10 times an hour ago and 30 times long ago, video 2 five times long ago.

    At hour 20 only video 1's old events are finished; video 3 was never shown.
    """
    videos = counts([1, 1, 2], [75, 19, 30], [[10, 10], [30, 0], [5, 5]])
    trends = Trends.of(catalog(), {"video": videos}, num_actions=1)
    assert trends.shown(76 * HOUR)[:4].tolist() == [[0, 0], [40, 10], [5, 0], [0, 0]]
    assert trends.shown(20 * HOUR)[:4].tolist() == [[0, 0], [30, 30], [0, 0], [0, 0]]
    # All events of the day are video 1's, so that it is the mean; video 2 has 5 of 15 to say so.
    expected = [0, 0, -np.log(11) * 0.25 * 5 / 15, 0]
    assert trending(trends.shown(76 * HOUR))[:4] == pytest.approx(expected)
    assert not trending(trends.shown(200 * HOUR)).any(), "nothing trends where nothing happens"


def test_features_by_hand() -> None:
    """Video 1 was shown 10 times an hour ago, 30 times a day and more ago, and liked 10 times."""
    videos = counts([1, 1], [75, 20], [[10, 10], [30, 0]])
    trends = Trends.of(catalog(), {"video": videos}, num_actions=1)
    (found,) = trends.features(np.array([1]), np.zeros((1, 0), np.int64), 76 * HOUR)
    base = (10 + 5) / 50  # everything's rate, drawn to one half by 10 events
    rate = (10 + 10 * base) / 50
    recent = (10 + 10 * rate) / 20

    def odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    everything_recent = (10 + 10 * base) / 20
    expected = [odds(base), odds(everything_recent) - odds(base)]
    thing = [np.log(41) / 4, odds(rate) - odds(base), np.log(11) / 4, odds(recent) - odds(rate)]
    assert found == pytest.approx([*expected, *thing, *thing, *thing], rel=1e-5)


def test_without_events_all_is_zero() -> None:
    trends = Trends.of(catalog(), {"video": counts([1], [9], [[1, 1]])}, num_actions=1)
    found = trends.features(np.array([2, 0]), np.zeros((2, 0), np.int64), 9 * HOUR)
    assert found.shape == (2, trend_dim(num_contexts=0, num_tasks=0))
    assert not found.any()


def test_the_events_own_hour_is_unseen() -> None:
    trends = Trends.of(catalog(), {"video": counts([1], [9], [[1, 1]])}, num_actions=1)
    before, within, after = (
        trends.features(np.array([1]), np.zeros((1, 0), np.int64), time)
        for time in (9 * HOUR - 1, 10 * HOUR - 1, 10 * HOUR)
    )
    assert not before.any() and not within.any() and after.any()


def replayed(timelines: Timelines, trends: Trends) -> np.ndarray:
    """Features of all events as a server gives them that hears of each when it happens."""
    found = np.zeros_like(timelines.trends)
    for event in np.argsort(timelines.time_ms, kind="stable"):
        rows, context = timelines.video_rows[[event]], timelines.context_rows[[event]]
        time_ms = int(timelines.time_ms[event])
        found[event] = trends.features(rows, context, time_ms)[0]
        actions = [int(timelines.positive[event]), *timelines.labels[event].tolist()]
        trends.count(int(rows[0]), context[0].tolist(), time_ms, actions)
    return found


def test_training_features_replayed_through_serving_are_the_same() -> None:
    """From nothing, and from a bundle of the first half of the events."""
    found = make_timelines(0, num_users=40)
    hours, half = hour_of(found.time_ms), np.median(found.time_ms)
    actions = np.concatenate([found.positive[:, None], found.labels], 1).astype(np.int64)
    values = np.concatenate([np.ones((len(hours), 1), np.int64), actions], 1)

    def trends(kept: np.ndarray) -> Trends:
        things = {"video": found.video_rows, "context_tab": found.context_rows[:, 0]}
        tables = {
            name: HourlyCounts(rows[kept], hours[kept], values[kept])
            for name, rows in things.items()
        }
        return Trends.of(catalog(), tables, num_actions=3)

    all_of_it = trends(np.ones(len(hours), bool)).on(found)
    assert np.abs(all_of_it.trends).max() > 0.5
    nothing = trends(np.zeros(len(hours), bool))
    assert np.array_equal(replayed(found, nothing), all_of_it.trends)
    later = found.time_ms >= half
    rest = replace(
        found,
        **{
            name: getattr(found, name)[later]
            for name in ("video_rows", "time_ms", "positive", "labels", "context_rows", "trends")
        },
    )
    assert np.array_equal(replayed(rest, trends(~later)), all_of_it.trends[later])


def test_another_models_trends_among_ours() -> None:
    """They have our second of two tasks and a context that we have not."""
    places = trend_places([1], [None], num_tasks=2)
    assert len(places) == trend_dim(num_contexts=1, num_tasks=1)
    assert places[:4] == [0, 2, 3, 5]
    assert places[4:10] == [6, 7, 9, 10, 11, 13]  # the video's counts and rates
    assert places[-6:] == [None] * 6
    assert trend_places([0, 1], [0], num_tasks=2) == list(
        range(trend_dim(num_contexts=1, num_tasks=2))
    )
