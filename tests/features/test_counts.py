from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recsys.data.catalog import Catalog
from recsys.data.ragged import Ragged
from recsys.features import counts as counts_module
from recsys.features.counts import (
    CountLayout,
    EventCounts,
    Statistic,
    Thing,
    read_counts,
    trending,
)
from recsys.features.hourly import HourlyCounts, hour_of
from recsys.features.timelines import Timelines
from recsys.schema import video_schema
from tests.steps import COLUMNS, make_timelines

HOUR = 3600 * 1000
NUM_VIDEOS = 51
EVENT_ARRAYS = (
    "video_rows",
    "time_ms",
    "positive",
    "labels",
    "context_rows",
    "count_features",
)
FLAG_ALONE = CountLayout(tasks=(), contexts=())


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


def test_what_videos_belong_to_is_counted() -> None:
    videos = counts([1, 2, 3], [4, 4, 4], [[1, 1], [1, 0], [1, 1]])
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": videos})
    after = np.array([9])
    assert known.hourly["everything"].before(np.array([1]), after).tolist() == [[3, 2]]
    assert known.hourly["creator"].before(np.array([1]), after).tolist() == [[2, 1]]
    both = np.array([9, 9])
    assert known.hourly["category"].before(np.array([1, 2]), both).tolist() == [[2, 1], [1, 0]]


def test_how_often_videos_had_been_shown_and_what_trends() -> None:
    """Video 1 was shown 10 times an hour ago and 30 times long ago, video 2 five times long ago.

    At hour 20 only video 1's old events are finished; video 3 was never shown.
    """
    videos = counts([1, 1, 2], [75, 19, 30], [[10, 10], [30, 0], [5, 5]])
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": videos})
    assert known.shown(76 * HOUR)[:4].tolist() == [[0, 0], [40, 10], [5, 0], [0, 0]]
    assert known.shown(20 * HOUR)[:4].tolist() == [[0, 0], [30, 30], [0, 0], [0, 0]]
    # All events of the day are video 1's, so that it is the mean; video 2 has 5 of 15 to say so.
    expected = [0, 0, -np.log(11) * 0.25 * 5 / 15, 0]
    assert trending(known.shown(76 * HOUR))[:4] == pytest.approx(expected)
    assert not trending(known.shown(200 * HOUR)).any(), "nothing trends where nothing happens"


@pytest.mark.parametrize("at_once", [counts_module.AT_ONCE, 2, 3])
def test_what_is_popular_now(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Positives of the hour itself and of 24 finished ones, and a seventh of the week before.

    At 300.5 hours: video 1 was liked 3 times in hour 300 and once in hour 276, video 2 fourteen
    times in hour 275 and 7 in hour 108, and in hour 107, which is too long ago; video 3 was shown
    and not liked, and liked in the hour to come.
    """
    monkeypatch.setattr(counts_module, "AT_ONCE", at_once)
    rows, hours = [1, 1, 2, 2, 2, 3, 3], [300, 276, 275, 108, 107, 299, 301]
    likes = [3, 1, 14, 7, 50, 0, 9]
    videos = counts(rows, hours, [[60, liked] for liked in likes])
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": videos})
    popular = known.positives(300 * HOUR + HOUR // 2)
    assert popular.dtype == np.float32 and popular.shape == (NUM_VIDEOS,)
    assert popular[:5].tolist() == [0, 4, 3, 0, 0]
    known.count(3, [], 300 * HOUR, [1])
    assert known.positives(300 * HOUR)[3] == 1, "a live event counts at once"


def test_many_live_events_are_counted_as_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    layout = CountLayout(("click",), ("tab",))
    nothing = np.zeros(0, np.int64)
    empty = HourlyCounts(nothing, nothing, np.zeros((0, 3), np.int64))
    known = [
        EventCounts.of(catalog(), layout, {"video": empty, "context_tab": empty}) for _ in range(2)
    ]
    rows, tabs = rng.integers(1, NUM_VIDEOS, 200), rng.integers(0, 3, (200, 1))
    times, flags = rng.integers(0, 90 * HOUR, 200), rng.integers(0, 2, (200, 2))
    ones = np.ones((200, 1), np.int64)
    known[0].count_many(rows, tabs, times, np.concatenate([ones, flags], 1))
    for event in rng.permutation(200).tolist():
        known[1].count(
            int(rows[event]), tabs[event].tolist(), int(times[event]), flags[event].tolist()
        )
    features = [k.features(rows, tabs, times) for k in known]
    assert features[0].any() and np.array_equal(features[0], features[1])


def test_everything_is_counted_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a reader that sees an event in it sees the event in all others."""
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": counts([1], [9], [[2, 1]])})
    counted: list[HourlyCounts] = []
    monkeypatch.setattr(HourlyCounts, "add", lambda self, *_: counted.append(self))
    known.count(1, [], 10 * HOUR, [1])
    assert len(counted) == 4 and counted[-1] is known.hourly["everything"]


def test_the_version_tells_of_what_is_finished() -> None:
    """An event of the hour does not change it, a late one does."""
    videos = counts([1], [9], [[2, 1]])
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": videos})
    assert [known.version(hour) for hour in (9, 10, 11)] == [0, 2, 2]
    known.count(1, [], 10 * HOUR, [1])
    assert [known.version(hour) for hour in (9, 10, 11)] == [0, 2, 3]
    known.count(2, [], 100 * HOUR, [1])
    assert [known.version(hour) for hour in (10, 52, 53, 100, 101)] == [2, 3, 3, 3, 4]


def test_features_by_hand() -> None:
    """Video 1 was shown 10 times an hour ago, 30 times a day and more ago, and liked 10 times."""
    videos = counts([1, 1], [75, 20], [[10, 10], [30, 0]])
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": videos})
    (features,) = known.features(np.array([1]), np.zeros((1, 0), np.int64), 76 * HOUR)
    base = (10 + 5) / 50  # everything's rate, shrunk towards one half by 10 events
    rate = (10 + 10 * base) / 50
    recent = (10 + 10 * rate) / 20

    def odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    by_name = dict(zip(FLAG_ALONE.columns, features.tolist(), strict=True))
    expected = {
        "everything/total/rate": odds(base),
        "everything/recent/rate": odds((10 + 10 * base) / 20) - odds(base),
    }
    for thing in ("video", "creator", "category"):
        expected |= {
            f"{thing}/total/count": np.log(41) / 4,
            f"{thing}/total/rate": odds(rate) - odds(base),
            f"{thing}/recent/count": np.log(11) / 4,
            f"{thing}/recent/rate": odds(recent) - odds(rate),
        }
    assert by_name == pytest.approx(expected, rel=1e-5)
    assert list(by_name) == list(expected)


def test_columns_with_tasks_and_contexts_by_hand() -> None:
    """One hour: video 1 in the row-2 tab, clicked; video 2 twice without a tab, liked once.

    At its end all rates are of that hour: (1 + 5) / 13 were positive, (1 + 5) / 13 clicked.
    """
    layout = CountLayout(tasks=("click",), contexts=("tab",))
    values = [[1, 0, 1], [2, 1, 0]]
    stored = {
        "video": counts([1, 2], [9, 9], values),
        "context_tab": counts([2, 0], [9, 9], values),
    }
    known = EventCounts.of(catalog(), layout, stored)
    features = known.features(np.array([2, 1]), np.array([[2], [0]]), 10 * HOUR)
    assert features.shape == (2, len(layout)) == (2, 28)
    second, first = (dict(zip(layout.columns, row.tolist(), strict=True)) for row in features)
    log = np.log
    base = 6 / 13
    video_2, tab = (1 + 10 * base) / 12, (1 + 10 * base) / 11

    def odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    expected = {
        "everything/total/rate": odds(base),
        "everything/total/rate:click": odds(base),
        "everything/recent/rate:click": odds((1 + 10 * base) / 13) - odds(base),
        "video/total/count": log(3) / 4,
        "video/total/rate": odds(video_2) - odds(base),
        "video/total/rate:click": odds(10 * base / 12) - odds(base),
        "video/recent/count": log(3) / 4,
        "creator/recent/count": log(4) / 4,
        # The mean of category 1, with all three events, and of category 2, with two of them.
        "category/total/count": log(1 + 2.5) / 4,
        "context_tab/total/count": log(2) / 4,
        "context_tab/total/rate": odds(10 * base / 11) - odds(base),
        "context_tab/total/rate:click": odds(tab) - odds(base),
    }
    assert {name: second[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert first["video/total/rate:click"] == pytest.approx(odds(tab) - odds(base), rel=1e-5)
    assert first["category/total/count"] == pytest.approx(log(4) / 4)
    assert not any(value for name, value in first.items() if name.startswith("context_tab/"))


def test_each_thing_has_its_own_features() -> None:
    """Video 2 beside video 1 of its creator, in two categories and a context.

    An hour ago video 1 was shown 10 times and liked 10 times, in tab 2; video 2 was shown 20 times
    and liked 5 times, in tab 1. The mean of its categories 1 (30, 15) and 2 (20, 5) is (25, 10).
    """
    things = {
        "video": counts([1, 2], [9, 9], [[10, 10], [20, 5]]),
        "context_tab": counts([2, 1], [9, 9], [[10, 10], [20, 5]]),
    }
    known = EventCounts.of(catalog(), CountLayout((), ("tab",)), things)
    (features,) = known.features(np.array([2]), np.array([[1]]), 10 * HOUR)

    def odds(p: float) -> float:
        return float(np.log(p / (1 - p)))

    base = (15 + 5) / (30 + 10)
    expected = [odds(base), odds((15 + 10 * base) / 40) - odds(base)]
    for shown, liked in ((20, 5), (30, 15), (25, 10), (20, 5)):
        rate = (liked + 10 * base) / (shown + 10)
        recent = (liked + 10 * rate) / (shown + 10)
        log = np.log(shown + 1) / 4
        expected += [log, odds(rate) - odds(base), log, odds(recent) - odds(rate)]
    assert features == pytest.approx(expected, rel=1e-5, abs=1e-6)
    (other,) = known.features(np.array([2]), np.array([[2]]), 10 * HOUR)
    assert other[-4] == pytest.approx(np.log(11) / 4)
    assert other[:-4] == pytest.approx(expected[:-4], rel=1e-5, abs=1e-6)
    # More than a day later nothing of it is recent.
    (later,) = known.features(np.array([2]), np.array([[1]]), 34 * HOUR)
    assert later[2] == pytest.approx(np.log(21) / 4) and later[4] == 0


def test_the_catalogue_of_counts_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Of the videos, of all that they belong to, and of each context."""
    things = {
        "video": counts([1, 2], [9, 9], [[10, 10, 1], [20, 5, 2]]),
        "context_tab": counts([2, 1], [9, 9], [[10, 10, 0], [20, 5, 4]]),
    }
    layout = CountLayout(("click",), ("tab",))
    known = EventCounts.of(catalog(), layout, things)
    known.write(str(tmp_path))
    again = read_counts(str(tmp_path), catalog(), layout)
    assert again.layout == layout
    assert list(again.hourly) == ["everything", "video", "creator", "category", "context_tab"]
    for name, hourly in known.hourly.items():
        for ours, theirs in zip(hourly.entries(), again.hourly[name].entries(), strict=True):
            assert ours.tolist() == theirs.tolist()
    known.count(2, [1], 11 * HOUR, [1, 0])
    rows = {"everything": 1, "video": 2, "creator": 1, "category": 2, "context_tab": 1}
    for name, row in rows.items():
        totals = known.hourly[name].before(np.array([row, row]), np.array([12, 11]))
        assert (totals[0] - totals[1]).tolist() == [1, 1, 0], name
    with pytest.raises(ValueError, match="longer"):
        known.count(2, [1, 1], 11 * HOUR, [1, 0])


def test_without_events_all_is_zero() -> None:
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": counts([1], [9], [[1, 1]])})
    features = known.features(np.array([2, 0]), np.zeros((2, 0), np.int64), 9 * HOUR)
    assert features.shape == (2, len(FLAG_ALONE))
    assert not features.any()


def test_the_events_own_hour_is_unseen() -> None:
    known = EventCounts.of(catalog(), FLAG_ALONE, {"video": counts([1], [9], [[1, 1]])})
    before, within, after = (
        known.features(np.array([1]), np.zeros((1, 0), np.int64), time)
        for time in (9 * HOUR - 1, 10 * HOUR - 1, 10 * HOUR)
    )
    assert not before.any() and not within.any() and after.any()


def replayed(timelines: Timelines, known: EventCounts) -> np.ndarray:
    """Features of all events as a server gives them that hears of each when it happens."""
    features = np.zeros_like(timelines.count_features)
    for event in np.argsort(timelines.time_ms, kind="stable"):
        rows, context = timelines.video_rows[[event]], timelines.context_rows[[event]]
        time_ms = int(timelines.time_ms[event])
        features[event] = known.features(rows, context, time_ms)[0]
        actions = [int(timelines.positive[event]), *timelines.labels[event].tolist()]
        known.count(int(rows[0]), context[0].tolist(), time_ms, actions)
    return features


def test_training_features_replayed_through_serving_are_the_same() -> None:
    """From nothing, and from a bundle of the first half of the events."""
    timelines = make_timelines(0, num_users=40)
    hours, half = hour_of(timelines.time_ms), np.median(timelines.time_ms)
    actions = np.concatenate([timelines.positive[:, None], timelines.labels], 1).astype(np.int64)
    values = np.concatenate([np.ones((len(hours), 1), np.int64), actions], 1)

    def known(kept: np.ndarray) -> EventCounts:
        things = {"video": timelines.video_rows, "context_tab": timelines.context_rows[:, 0]}
        tables = {
            name: HourlyCounts(rows[kept], hours[kept], values[kept])
            for name, rows in things.items()
        }
        return EventCounts.of(catalog(), CountLayout.of(COLUMNS), tables)

    whole = known(np.ones(len(hours), bool))
    all_of_it = whole.features(timelines.video_rows, timelines.context_rows, timelines.time_ms)
    assert np.abs(all_of_it).max() > 0.5
    nothing = known(np.zeros(len(hours), bool))
    assert np.array_equal(replayed(timelines, nothing), all_of_it)
    later = timelines.time_ms >= half
    rest = replace(
        timelines,
        **{name: getattr(timelines, name)[later] for name in EVENT_ARRAYS},
    )
    assert np.array_equal(replayed(rest, known(~later)), all_of_it[later])


def test_places_in_another_layout_follow_from_the_names() -> None:
    """They have our second of two tasks, a context that we have too, and one that we have not."""
    ours = CountLayout(tasks=("click", "like"), contexts=("tab",))
    theirs = CountLayout(tasks=("like", "share"), contexts=("device", "tab"))
    places = theirs.places_in(ours)
    assert len(places) == len(theirs) == 6 + 5 * 2 * 4
    for name, place in zip(theirs.columns, places, strict=True):
        unknown = name.endswith(":share") or name.startswith("context_device/")
        assert (place is None) == unknown, name
        assert place is None or ours.columns[place] == name
    # By hand: our flag, click and like so far, then lately; the video's count, then its rates.
    assert places[:6] == [0, 2, None, 3, 5, None]
    assert places[6:14] == [6, 7, 9, None, 10, 11, 13, None]
    assert ours.places_in(ours) == list(range(6 + 4 * 2 * 4))


def test_names_are_unique_whatever_a_task_is_called() -> None:
    layout = CountLayout(tasks=("positive", "rate", "total/count"), contexts=("video", "tab"))
    assert len(set(layout.columns)) == len(layout)


def test_one_more_thing_and_one_more_statistic_are_an_entry_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Videos of odd and of even rows are counted together, and the plain number of events."""
    halves = Thing(lambda videos: Ragged.of_singles(1 + videos.rows % 2))
    plain = Statistic(lambda known: known.total[:, :1])
    statistics = counts_module.STATISTICS | {"total/events": plain}
    halves = replace(halves, statistics=tuple(statistics))
    monkeypatch.setattr(counts_module, "STATISTICS", statistics)
    monkeypatch.setattr(counts_module, "THINGS", counts_module.THINGS | {"half": halves})
    layout = CountLayout(tasks=(), contexts=())
    known = EventCounts.of(catalog(), layout, {"video": counts([1, 3, 4], [9] * 3, [[2, 1]] * 3)})
    features = known.features(np.array([5, 6]), np.zeros((2, 0), np.int64), 10 * HOUR)
    assert features.shape == (2, len(layout))
    assert features[:, layout.columns.index("half/total/events")].tolist() == [4, 2]
    assert layout.places_in(FLAG_ALONE)[-5:] == [None] * 5
    known.count(7, [], 9 * HOUR, [1])
    after = known.features(np.array([5]), np.zeros((1, 0), np.int64), 10 * HOUR)
    assert after[0, layout.columns.index("half/total/events")] == 5
