"""The count features of an event: what was known of its video, and of all that the video is of.

A video's ID embedding learns from the training days how a video does and is out of date the next
day; counts carry it up to the hour. They are those of all finished hours: what happened in the hour
of an event is not known to it, in training as in serving.

`CountLayout` alone says which features there are, in which order and under which name. One more
counted thing is an entry in `THINGS`, one more number of each is an entry in `STATISTICS`.

Shapes: N videos, E events, T tasks, C context columns, F count features. Counted are the event
itself and its 1 + T flags: the positive flag and the tasks' labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recsys.config.data import EventColumns
from recsys.data.catalog import Catalog
from recsys.data.growing import Growing, GrowingLists
from recsys.data.ragged import FloatArray, IntArray, Ragged
from recsys.data.storage import join
from recsys.features.hourly import LAST_HOUR, HourlyCounts, hour_of
from recsys.features.timelines import LOG_SCALE, FeaturesOnDemand

Floats = npt.NDArray[np.floating]
RECENT_HOURS = 24
SMOOTHING = 10.0
"""Events with the usual rates that are added to those of a thing: its rates are shrunk by them."""
EVERYTHING, VIDEO = "everything", "video"
AT_ONCE = 1 << 16
"""Videos whose counts are looked up together; the arrays of it take some 100 bytes for each."""


class StatisticInputs(NamedTuple):
    """What the statistics of one counted thing are made of, at each of E events."""

    total: FloatArray
    """(E, 2 + T) events and flags so far."""
    recent: FloatArray
    """(E, 2 + T) those of the last `RECENT_HOURS`."""
    usual: Floats
    """(E, 1 + T) the rates of everything, which the thing's rates are compared with."""
    rate: Floats
    """(E, 1 + T) the rates so far, shrunk towards the usual ones."""


@dataclass(frozen=True)
class Statistic:
    """One kind of number that is made of the counts of a thing."""

    of: Callable[[StatisticInputs], Floats]
    """Gives (E, 1 + T) where it is one number a flag, else (E, 1)."""
    per_flag: bool = False


STATISTICS: Mapping[str, Statistic] = {
    "total/count": Statistic(lambda known: log_count(known.total)),
    "total/rate": Statistic(
        lambda known: log_odds(known.rate) - log_odds(known.usual), per_flag=True
    ),
    "recent/count": Statistic(lambda known: log_count(known.recent)),
    "recent/rate": Statistic(
        lambda known: log_odds(rates(known.recent, known.rate)) - log_odds(known.rate),
        per_flag=True,
    ),
}
"""Of each thing, in the order of the columns: the log of its events, and by how much the log-odds
of its rates differ: those so far from the usual ones, the recent ones from those so far."""


class CountedVideos(NamedTuple):
    """Some videos (n), and what is known of them that is counted too."""

    rows: IntArray
    """(n,)."""
    creator_rows: IntArray
    """(n,)."""
    categories: Ragged
    """n lists of category rows."""


@dataclass(frozen=True)
class Thing:
    """Something that a video belongs to, and whose events are counted together."""

    rows_of: Callable[[CountedVideos], Ragged]
    """Its rows that each of n videos belongs to; several have their mean taken."""
    statistics: Sequence[str] = tuple(STATISTICS)


THINGS: Mapping[str, Thing] = {
    # Row 1 stands for everything. How much has happened at all says nothing of a video.
    EVERYTHING: Thing(
        lambda videos: Ragged.of_singles(np.ones_like(videos.rows)), ("total/rate", "recent/rate")
    ),
    VIDEO: Thing(lambda videos: Ragged.of_singles(videos.rows)),
    "creator": Thing(lambda videos: Ragged.of_singles(videos.creator_rows)),
    "category": Thing(lambda videos: videos.categories),
}
"""The things that follow from the video, in the order of the columns; the contexts come after them.
Everything is the first: the rates of the others are compared with its rates."""


@dataclass(frozen=True)
class CountLayout:
    """The count features of an event: which there are, in which order, and the name of each.

    >>> CountLayout(tasks=("click",), contexts=("tab",)).columns[:3]
    ('everything/total/rate', 'everything/total/rate:click', 'everything/recent/rate')
    >>> CountLayout(tasks=("click",), contexts=("tab",)).columns[-2:]
    ('context_tab/recent/rate', 'context_tab/recent/rate:click')
    """

    tasks: tuple[str, ...]
    contexts: tuple[str, ...]

    @classmethod
    def of(cls, columns: EventColumns) -> CountLayout:
        """The layout of a run with these columns."""
        return cls(tuple(columns.tasks), tuple(columns.context))

    def __len__(self) -> int:
        """The number F of count features."""
        return len(self.columns)

    @property
    def num_flags(self) -> int:
        """The number 1 + T of counted flags: the positive flag and the tasks' labels."""
        return 1 + len(self.tasks)

    @property
    def context_names(self) -> tuple[str, ...]:
        """The names of the contexts among the counted things."""
        return tuple(f"context_{column}" for column in self.contexts)

    @property
    def stored(self) -> tuple[str, ...]:
        """The things whose counts are kept; those of the others follow from the videos'."""
        return (VIDEO, *self.context_names)

    @cached_property
    def statistics(self) -> Mapping[str, Sequence[str]]:
        """The names of each counted thing's statistics, both in order."""
        of_things = {name: thing.statistics for name, thing in THINGS.items()}
        return of_things | {name: tuple(STATISTICS) for name in self.context_names}

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The name of each feature: thing, time, number, and the task where it is one's rate.

        A rate without a task is that of the positive flag.
        """
        endings = ("", *(f":{task}" for task in self.tasks))
        return tuple(
            f"{thing}/{name}{ending}"
            for thing, names in self.statistics.items()
            for name in names
            for ending in (endings if STATISTICS[name].per_flag else ("",))
        )

    def places_in(self, other: CountLayout) -> list[int | None]:
        """For each of our columns its place in another layout; None where that has none.

        >>> ours, other = CountLayout(("like",), ()), CountLayout(("click", "like"), ("tab",))
        >>> ours.places_in(other)[:4]
        [0, 2, 3, 5]
        """
        place = {name: number for number, name in enumerate(other.columns)}
        return [place.get(name) for name in self.columns]


@dataclass(frozen=True)
class EventCounts:
    """The hourly counts of everything that an event is about, and the count features of events."""

    layout: CountLayout
    hourly: Mapping[str, HourlyCounts]
    """By the name of the counted thing."""
    creator_rows: Growing[np.int64]
    """(N,) as the catalogue has them, which is not copied before a video follows."""
    categories: GrowingLists
    """N lists."""

    @classmethod
    def of(
        cls, catalog: Catalog, layout: CountLayout, stored: Mapping[str, HourlyCounts]
    ) -> EventCounts:
        """Makes them of the counts of the videos and of each context: the others follow.

        Args:
            catalog: Says what each video belongs to.
            layout: Which features there are.
            stored: By the names of `layout.stored`.
        """
        rows_of = rows_of_things(catalog)
        followed = {name: stored[VIDEO].mapped(rows) for name, rows in rows_of.items()}
        return cls._with(catalog, layout, followed | {name: stored[name] for name in layout.stored})

    @classmethod
    def _with(
        cls, catalog: Catalog, layout: CountLayout, hourly: Mapping[str, HourlyCounts]
    ) -> EventCounts:
        creator_rows, categories = Growing(catalog.creator_rows), GrowingLists(catalog.categories)
        return cls(layout, hourly, creator_rows, categories)

    def rows_of(self, video_rows: IntArray) -> dict[str, Ragged]:
        """Of each of `THINGS`, its rows that each of some videos (n,) belongs to."""
        creator_rows, categories = self.creator_rows.now, self.categories.select(video_rows)
        videos = CountedVideos(video_rows, creator_rows[video_rows], categories)
        return {name: thing.rows_of(videos) for name, thing in THINGS.items()}

    def put_videos(self, rows: IntArray, creator_rows: IntArray, categories: Ragged) -> None:
        """Takes videos that follow the catalogue's, or other facts of some that followed.

        Args:
            rows: (n,) sorted.
            creator_rows: (n,).
            categories: n lists of category rows.
        """
        self.categories.put(rows, categories)
        self.creator_rows.put(rows, creator_rows)

    def count(
        self, video_row: int, context_rows: Sequence[int], time_ms: int, flags: Sequence[int]
    ) -> None:
        """Counts a live event; see `count_many`."""
        context_1C, counts = np.array([context_rows], np.int64), np.array([[1, *flags]], np.int64)
        self.count_many(np.array([video_row]), context_1C, [time_ms], counts)

    def count_many(
        self, video_rows: IntArray, context_rows: IntArray, time_ms: npt.ArrayLike, counts: IntArray
    ) -> None:
        """Counts live events; one thread may write while others read.

        A reader may see an event counted for one thing and not yet for another; everything comes
        last, so that a change of its counts tells that all others are there.

        Args:
            video_rows: (n,) what was shown.
            context_rows: (n, C).
            time_ms: (n,) when.
            counts: (n, 2 + T) what is added: 1 for an event that is new, and of its positive flag
                and labels what has changed; -1 for one that was taken back.
        """
        hours, contexts = hour_of(time_ms), self._by_context(context_rows)
        rows_of = self.rows_of(video_rows)
        for name in (*(name for name in self.hourly if name != EVERYTHING), EVERYTHING):
            if name in contexts:
                self.hourly[name].add(contexts[name], hours, counts)
            else:
                rows = rows_of[name]
                event = rows.list_of_value
                self.hourly[name].add(rows.values, hours[event], counts[event])

    def without_live(self) -> EventCounts:
        """The same without live events, to count them anew while these are read."""
        hourly = {name: hourly.without_live() for name, hourly in self.hourly.items()}
        return replace(self, hourly=hourly)

    def take_live(self, other: EventCounts) -> None:
        """Has the live events of another one, which counts no more, in place of its own."""
        for name, hourly in self.hourly.items():
            hourly.take_live(other.hourly[name])

    def write(self, folder: str) -> None:
        """Writes a folder that `read_counts` maps, without live events."""
        for name, hourly in self.hourly.items():
            hourly.write(join(folder, name))

    @classmethod
    def read(
        cls, catalog: Catalog, layout: CountLayout, hourly: Callable[[str], HourlyCounts]
    ) -> EventCounts:
        """Reads the counts of every name of `layout.statistics`, as `hourly` was written."""
        by_name = {name: hourly(name) for name in layout.statistics}
        return cls._with(catalog, layout, by_name)

    def features(
        self, video_rows: IntArray, context_rows: IntArray, time_ms: npt.ArrayLike
    ) -> FloatArray:
        """What was known when some videos were shown.

        Args:
            video_rows: (E,).
            context_rows: (E, C).
            time_ms: (E,) or one time for all.

        Returns:
            (E, F), in the order of `layout.columns`. Rates are shrunk towards what they are
            compared with by 10 events; of what has had no events, all is zero.
        """
        hours = np.broadcast_to(hour_of(time_ms), video_rows.shape)
        parts = [self.video_features(video_rows, hours)]
        for name, rows in self._by_context(context_rows).items():
            parts.append(self.context_features(name, rows, hours))
        return np.concatenate(parts, -1)

    def on_demand(
        self, video_rows: IntArray, context_rows: IntArray, time_ms: IntArray
    ) -> FeaturesOnDemand:
        """The same, each made when it is asked for."""
        width = len(self.layout)
        return FeaturesOnDemand(self.features, width, video_rows, context_rows, time_ms)

    def video_features(self, video_rows: IntArray, hours: IntArray) -> FloatArray:
        """The first columns of `features`: those that follow from the video and the hour, (E,)."""
        parts, usual = [], self._usual_rates(hours)
        for name, rows in self.rows_of(video_rows).items():
            compared = np.full_like(usual, 0.5) if name == EVERYTHING else usual
            parts.append(self._of_thing(name, rows, hours, compared))
        return np.concatenate(parts, -1)

    def context_features(self, name: str, rows: IntArray, hours: IntArray) -> FloatArray:
        """The columns of one of `layout.context_names`, for its rows (E,) at hours (E,)."""
        return self._of_thing(name, Ragged.of_singles(rows), hours, self._usual_rates(hours))

    def _by_context(self, context_rows: IntArray) -> dict[str, IntArray]:
        return dict(zip(self.layout.context_names, context_rows.T, strict=True))

    def _usual_rates(self, hours: IntArray) -> Floats:
        """The rates of everything (E, 1 + T), made once for each hour."""
        unique, place = np.unique(hours, return_inverse=True)
        totals = self.hourly[EVERYTHING].before(np.ones_like(unique), unique).astype(np.float32)
        usual: Floats = rates(totals, np.full((len(unique), self.layout.num_flags), 0.5))[place]
        return usual

    def _of_thing(self, name: str, rows: Ragged, hours: IntArray, usual: Floats) -> FloatArray:
        """The columns of one thing, of E lists of its rows."""
        total, recent = _means(self.hourly[name], rows, hours)
        known = StatisticInputs(total, recent, usual, rates(total, usual))
        parts = [STATISTICS[number].of(known) for number in self.layout.statistics[name]]
        return np.concatenate(parts, -1).astype(np.float32)

    def version(self, hour: int) -> int:
        """A number that changes whenever anything that was counted of the hours before one does.

        It is that of all events of those hours, or of all at all where the hour is so long ago that
        every event changes what is known of it.
        """
        everything = self.hourly[EVERYTHING]
        up_to = hour if hour >= everything.exact_from else LAST_HOUR
        return int(everything.before(np.ones(1, np.int64), np.array([up_to]))[0, 0])

    @property
    def num_videos(self) -> int:
        """N, with the videos that followed."""
        return len(self.creator_rows)

    def shown(self, time_ms: int) -> IntArray:
        """How often all videos had been shown by a time, and in the 24 hours before: (N, 2)."""
        hour = int(hour_of(time_ms))
        total, old = (self._of_videos(hour - less, 0) for less in (0, RECENT_HOURS))
        return np.stack([total, total - old], 1)

    def positives(self, time_ms: int) -> FloatArray:
        """Positive events a day of each video (N,), the last day above all: what is popular now.

        Those of the last 24 finished hours and of the hour of the time itself, and the daily mean
        of the 7 days before them, which decides where the last day says little.
        """
        hour = int(hour_of(time_ms))
        now, day_ago, week_ago = (
            self._of_videos(hour - less, 1) for less in (-1, RECENT_HOURS, 8 * RECENT_HOURS)
        )
        popular: FloatArray = (now - day_ago + (day_ago - week_ago) / 7).astype(np.float32)
        return popular

    def _of_videos(self, hour: int, number: int) -> IntArray:
        """One of the counted numbers of all videos (N,) before an hour."""
        counted = np.empty(self.num_videos, np.int64)
        for start in range(0, len(counted), AT_ONCE):
            part = counted[start : start + AT_ONCE]
            rows = np.arange(start, start + len(part))
            part[:] = self.hourly[VIDEO].before(rows, np.full(len(rows), hour))[:, number]
        return counted


def _means(counts: HourlyCounts, rows: Ragged, hours: IntArray) -> tuple[FloatArray, FloatArray]:
    """Events and flags so far, and in the last `RECENT_HOURS` of it: each (E, 2 + T).

    Args:
        counts: Of a counted thing.
        rows: E lists of its rows; of several the mean is taken, and of none it is zero.
        hours: (E,).
    """
    event = rows.list_of_value
    total = counts.before(rows.values, hours[event])
    recent = total - counts.before(rows.values, hours[event] - RECENT_HOURS)
    if len(event) == len(rows) and (rows.lengths == 1).all():
        return total.astype(np.float32), recent.astype(np.float32)
    return _mean(total, rows), _mean(recent, rows)


def _mean(counts: IntArray, rows: Ragged) -> FloatArray:
    """The mean (E, 2 + T) over each of E lists; of an empty list it is zero."""
    sums = np.pad(counts.cumsum(0), ((1, 0), (0, 0)))
    summed = sums[rows.offsets[1:]] - sums[rows.offsets[:-1]]
    mean: FloatArray = (summed / np.maximum(rows.lengths, 1)[:, None]).astype(np.float32)
    return mean


def trending(shown_N2: IntArray) -> FloatArray:
    """How much more than others videos are shown these days: (N,), of `EventCounts.shown`.

    The log of the last 24 hours' events, less its mean over these events; shrunk towards zero by 10
    events so far, and so zero for a video that was never shown, and for all where nothing happened.

    >>> [f"{x:.2f}" for x in trending(np.array([[5, 0], [990, 0], [30, 3], [10, 1]]))]
    ['-0.10', '-0.30', '0.03', '-0.06']
    """
    total, recent = shown_N2[:, 0], shown_N2[:, 1]
    logs = np.log1p(recent) * LOG_SCALE
    mean = (recent * logs).sum() / max(recent.sum(), 1)
    gains: FloatArray = ((logs - mean) * total / (total + SMOOTHING)).astype(np.float32)
    return gains


def log_count(totals: Floats) -> Floats:
    """The log of the events (E, 1) among events and flags (E, 2 + T), as a model input."""
    logs: Floats = np.log1p(totals[:, :1]) * LOG_SCALE
    return logs


def rates(totals: Floats, usual: Floats) -> Floats:
    """Rates (E, 1 + T) of the flags among events (E, 2 + T), shrunk towards the usual by 10 events.

    >>> rates(np.array([[10.0, 10.0, 0.0]]), np.array([[0.5, 0.5]])).tolist()
    [[0.75, 0.25]]
    """
    shrunk: Floats = (totals[:, 1:] + SMOOTHING * usual) / (totals[:, :1] + SMOOTHING)
    return shrunk


def log_odds(rate: Floats) -> Floats:
    """log(p / (1 - p)), of rates from 0.25 % to 99.75 %.

    >>> log_odds(np.array([0.5, 1.0])).round(2).tolist()
    [0.0, 5.99]
    """
    p = np.clip(rate, 0.0025, 0.9975)
    odds: Floats = np.log(p / (1 - p))
    return odds


def read_counts(folder: str, catalog: Catalog, layout: CountLayout) -> EventCounts:
    """Maps RUN/prepare/counts, which the processes of a node share."""
    return EventCounts.read(catalog, layout, lambda name: HourlyCounts.open(join(folder, name)))


def rows_of_things(catalog: Catalog) -> dict[str, Ragged]:
    """Of each of `THINGS`, its rows that each of the N videos belongs to."""
    videos = CountedVideos(np.arange(len(catalog)), catalog.creator_rows, catalog.categories)
    return {name: thing.rows_of(videos) for name, thing in THINGS.items()}
