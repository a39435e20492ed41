"""What may be recommended: the bundle's videos, and behind them those that came live.

Rows 0 to N - 1 are the bundle's, as everywhere. A video that came live gets the next row once its
vector is made; rows are this process's own and never change hands. The parts of a recommender ask
here for what a row is, and are told of rows that are new or that have changed.

Shapes: N videos of the bundle, M live ones, R rows, D retrieval vector, Y video vector.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recsys.bundle.contents import Bundle
from recsys.data.growing import Growing, GrowingLists
from recsys.data.lessons import Lesson, Lessons
from recsys.data.ragged import IntArray, Ragged
from recsys.data.vocab import Vocab
from recsys.live.videos.live_videos import LiveVideo, StoredFile, VideoFacts
from recsys.schema import UNKNOWN_ROW

Value = TypeVar("Value", np.int64, np.float64)


@dataclass(frozen=True)
class Described:
    """What is known of some videos that follow each other."""

    creator_rows: IntArray
    categories: Ragged
    durations: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Changed:
    """Rows of live videos that have other vectors or facts than before; the new ones among them."""

    rows: IntArray
    num_new: int
    """The last so many are new, and end the catalogue."""

    @property
    def new_rows(self) -> IntArray:
        """Those that are new."""
        return self.rows[len(self.rows) - self.num_new :]


class _LiveKnown:
    """What is known of the live videos; one more costs no more than itself.

    Shapes: M live videos, R some of them, by their places among them.
    """

    def __init__(self) -> None:
        self._creator_rows = Growing(np.zeros(0, np.int64))
        self._categories = GrowingLists(Ragged.empty(0))
        self._durations = Growing(np.zeros(0, np.float64))

    def put(self, places: IntArray, known: Described) -> None:
        """Takes what is known of some (R, sorted), of which some may follow the last one."""
        self._creator_rows.put(places, known.creator_rows)
        self._categories.put(places, known.categories)
        self._durations.put(places, known.durations)

    def select(self, places: IntArray) -> Described:
        """Of some (R)."""
        categories = self._categories.select(places)
        return Described(self._creator_rows.now[places], categories, self._durations.now[places])

    def all(self) -> Described:
        """Of all (M)."""
        return Described(self._creator_rows.now, self._categories.later, self._durations.now)


class GrowingVocab:
    """A vocabulary of the bundle that goes on with what came live."""

    def __init__(self, vocab: Vocab) -> None:
        self._vocab = vocab
        self._row_of: dict[str, int] = {}
        self._later: list[str] = []

    def __len__(self) -> int:
        """Number of rows, row 0 among them."""
        return len(self._vocab) + len(self._later)

    def row(self, name: str) -> int:
        """The row of one id; 0 where it is not known."""
        return self._vocab.row(name) or self._row_of.get(name, UNKNOWN_ROW)

    def add(self, name: str) -> int:
        """The row of an id, which gets one if it has none."""
        row = self.row(name)
        if row == UNKNOWN_ROW:
            row = self._row_of[name] = len(self)
            self._later.append(name)
        return row

    def id(self, row: int) -> str:
        """The id of a row above 0."""
        later = row - len(self._vocab)
        return self._later[later] if later >= 0 else self._vocab.id(row)

    def some(self, limit: int) -> list[str]:
        """The first few ids."""
        first: list[str] = self._vocab.ids[:limit].to_pylist()
        return [*first, *self._later][:limit]

    def ids_of(self, rows: IntArray) -> list[str]:
        """The ids of rows (R,) above 0."""
        later = rows >= len(self._vocab)
        ids: list[str] = self._vocab.ids.take(np.where(later, 0, rows - 1)).to_pylist()
        for place in np.flatnonzero(later).tolist():
            ids[place] = self.id(int(rows[place]))
        return ids


class Catalogue:
    """The videos of one recommender; one thread changes it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.num_bundle = len(bundle.catalog)
        self.videos = GrowingVocab(bundle.vocabs["video"])
        self.creators = GrowingVocab(bundle.vocabs["creator"])
        self.categories = GrowingVocab(bundle.vocabs["category"])
        self.changing = threading.RLock()
        """Held while anything changes, and by other threads while they read."""
        self.on_change: list[Callable[[Changed], None]] = []
        """What is told of rows that are new or have changed, in this order."""
        self._base_NY = torch.from_numpy(bundle.vectors)
        self._live: list[LiveVideo] = []
        self._live_MY = Growing(np.zeros((0, bundle.vectors.shape[1]), np.float32))
        self._live_known = _LiveKnown()
        self._of_creator = videos_by_creator(bundle.catalog.creator_rows)
        self._live_of_creator: dict[int, list[int]] = {}
        self._overrides: dict[int, LiveVideo] = {}
        self._lessons: Lessons | None = bundle.lessons
        self._live_lessons: dict[int, VideoFacts] = {}
        self._out_rows: set[int] = set()
        """Deleted or hidden."""
        self._expires_ms: dict[int, int] = {}
        self._decide_unlisted()
        catalog = bundle.catalog
        self._described = [Described(catalog.creator_rows, catalog.categories, catalog.durations)]

    def __len__(self) -> int:
        """Number of rows, row 0 among them."""
        return self.num_bundle + len(self._live)

    @property
    def num_live(self) -> int:
        """M."""
        return len(self._live)

    @property
    def live_MY(self) -> Tensor:
        """The vectors of the live videos (M, Y)."""
        return torch.from_numpy(self._live_MY.now)

    @property
    def live_rows(self) -> IntArray:
        """The rows of the live videos (M,)."""
        return np.arange(self.num_bundle, len(self))

    def row(self, video_id: str) -> int:
        """The row of a video that may be asked about; 0 where it is unknown or was deleted."""
        row = self.videos.row(video_id)
        there = self._overrides.get(row)
        return UNKNOWN_ROW if there is not None and there.state == "deleted" else row

    def vectors(self, rows: IntArray | Tensor) -> Tensor:
        """The vectors (…, Y) of rows (…)."""
        rows = torch.as_tensor(rows)
        if not self._live:
            return self._base_NY[rows]
        vectors = self._base_NY[rows.clamp(max=self.num_bundle - 1)]
        late = rows >= self.num_bundle
        vectors[late] = self.live_MY[rows[late] - self.num_bundle]
        return vectors

    def creator_rows(self, rows: IntArray) -> IntArray:
        """The creators (…) of rows (…)."""
        return self._look_up(rows, lambda part: part.creator_rows)

    def durations(self, rows: IntArray) -> npt.NDArray[np.float64]:
        """The durations (…) of rows (…), NaN where they are not known."""
        return self._look_up(rows, lambda part: part.durations)

    def described(self) -> Sequence[Described]:
        """What is known of the bundle's videos, and of the live ones behind them."""
        if len(self._described) == 1 and self._live:
            self._described.append(self._live_known.all())
        return self._described

    def of_rows(self, rows: IntArray) -> Described:
        """What is known of live rows (R,)."""
        return self._live_known.select(rows - self.num_bundle)

    def received_ms(self, rows: IntArray) -> IntArray:
        """When live rows (R,) were handed in."""
        return _rows(self._live[row - self.num_bundle].received_ms for row in rows.tolist())

    def of_creator(self, creator_row: int) -> list[int]:
        """The rows of a creator's videos."""
        known = creator_row < len(self._of_creator)
        rows: list[int] = self._of_creator[creator_row].tolist() if known else []
        return rows + self._live_of_creator.get(creator_row, [])

    def uri(self, row: int) -> str | None:
        """Where the file of a row's video lies."""
        if row >= self.num_bundle:
            file = self._live[row - self.num_bundle].file
            return None if file is None else file.uri
        uri: str | None = self._bundle.catalog.table.column("uri")[row].as_py()
        return uri

    def live_file(self, video_id: str) -> StoredFile | None:
        """The file of a video that came live, if it has one."""
        row = self.row(video_id)
        return self._live[row - self.num_bundle].file if row >= self.num_bundle else None

    def said_of(self, row: int) -> LiveVideo | None:
        """What was said of a row's video while serving; None where nothing was."""
        return self._overrides.get(row)

    def facts_of_bundle(self, video_id: str) -> VideoFacts | None:
        """What the bundle says of a video; None where it does not hold it."""
        row, catalog = self._bundle.vocabs["video"].row(video_id), self._bundle.catalog
        if row == UNKNOWN_ROW:
            return None
        creator, duration = int(catalog.creator_rows[row]), float(catalog.durations[row])
        lesson = self._bundle.lessons.one(row) or Lesson(None, None, ())
        return VideoFacts(
            creator_id=self.creators.id(creator) if creator else None,
            categories=tuple(self.categories.ids_of(catalog.categories[row].astype(np.int64))),
            duration=duration if duration > 0 else None,
            course=lesson.course,
            lesson=lesson.number,
            requires=tuple(self.videos.ids_of(np.array(lesson.required, np.int64))),
        )

    def unlisted(self, now_ms: int) -> IntArray:
        """Sorted rows of the videos that no list may hold: deleted, hidden, or over."""
        expires_ms, rows = self._expiring
        over = rows[expires_ms <= now_ms]
        return np.union1d(self._out, over) if len(over) else self._out

    def unwanted(self, hidden_creators: Iterable[str], now_ms: int) -> IntArray:
        """`unlisted` rows, and those of creators that a user hid."""
        unlisted = self.unlisted(now_ms)
        if not hidden_creators:
            return unlisted
        creators = [self.creators.row(name) for name in hidden_creators]
        hidden = [row for one in creators if one for row in self.of_creator(one)]
        return np.concatenate([unlisted, _rows(hidden)])

    @property
    def lessons(self) -> Lessons:
        """The bundle's lessons, and those that came live."""
        if self._lessons is None:
            said = {row: self._lesson(facts) for row, facts in self._live_lessons.items()}
            self._lessons = self._bundle.lessons.with_changes(said)
        return self._lessons

    def locked(self, finished: IntArray, now_ms: int) -> IntArray:
        """Sorted rows of the lessons that require what is not among these finished videos.

        What no list may hold is not asked for.
        """
        if not len(self.lessons):
            return _rows([])
        return self.lessons.locked(self._asked_for_no_more(finished, now_ms))

    def missing(self, finished: IntArray, now_ms: int) -> Ragged:
        """By lesson the rows that it waits for: those for which it is `locked`."""
        return self.lessons.missing(self._asked_for_no_more(finished, now_ms))

    def _asked_for_no_more(self, finished: IntArray, now_ms: int) -> IntArray:
        """Rows that no lesson waits for: finished ones, and those that no list may hold."""
        return np.concatenate([finished, self.unlisted(now_ms)])

    def is_circle(self, video_id: str, requires: Iterable[str]) -> bool:
        """Whether nobody could ever come to a video that requires these."""
        rows = tuple(self.videos.row(name) for name in requires)
        row = self.videos.row(video_id)
        then = self.lessons.with_changes({row: Lesson(None, None, rows)})
        return row != UNKNOWN_ROW and row in then.unreachable()

    def take(self, videos: Iterable[LiveVideo]) -> None:
        """Takes what has changed; videos without a vector wait until they have one."""
        with self.changing:
            self._take(videos)

    def _take(self, videos: Iterable[LiveVideo]) -> None:
        changed: set[int] = set()
        before, relisted = len(self), False
        for video in videos:
            row = self.videos.row(video.video_id)
            if row == UNKNOWN_ROW and video.vector is not None and video.state == "indexed":
                row = self._add(video)
            if row == UNKNOWN_ROW:
                continue
            self._overrides[row] = video
            relisted |= self._list(row, video)
            if row >= self.num_bundle and video.state == "indexed":
                self._set(row, video)
                changed.add(row)
        if relisted:
            self._decide_unlisted()
        if changed:
            self._tell(np.array(sorted(changed)), len(self) - before)

    def _tell(self, rows: IntArray, num_new: int) -> None:
        """Has all parts know of live rows (sorted) that are new or have changed."""
        videos = [self._live[row - self.num_bundle] for row in rows.tolist()]
        self._live_known.put(rows - self.num_bundle, self._describe(videos))
        del self._described[1:]
        for part in self.on_change:
            part(Changed(rows, num_new))

    def _add(self, video: LiveVideo) -> int:
        row = self.videos.add(video.video_id)
        self._live.append(video)
        if self._live_lessons:  # one of them may require this one
            self._lessons = None
        return row

    def _set(self, row: int, video: LiveVideo) -> None:
        place = row - self.num_bundle
        self._forget_creator(row, self._live[place])
        self._live[place] = video
        if video.facts.creator_id is not None:
            creator = self.creators.add(video.facts.creator_id)
            self._live_of_creator.setdefault(creator, []).append(row)
        for name in video.facts.categories:
            self.categories.add(name)
        if video.facts.is_lesson or row in self._live_lessons:
            self._live_lessons[row] = video.facts
            self._lessons = None
        if video.vector is not None:
            self._live_MY.put(np.array([place]), np.asarray(video.vector, np.float32))

    def _forget_creator(self, row: int, before: LiveVideo) -> None:
        creator = before.facts.creator_id
        rows = self._live_of_creator.get(self.creators.row(creator or ""), [])
        if row in rows:
            rows.remove(row)

    def _lesson(self, facts: VideoFacts) -> Lesson | None:
        if not facts.is_lesson:
            return None
        rows = (self.videos.row(video_id) for video_id in facts.requires)
        required = tuple(row for row in rows if row != UNKNOWN_ROW)
        return Lesson(facts.course, facts.lesson, required)

    def _describe(self, videos: Sequence[LiveVideo]) -> Described:
        facts = [video.facts for video in videos]
        names = [sorted({self.categories.row(name) for name in one.categories}) for one in facts]
        durations = [np.nan if one.duration is None else one.duration for one in facts]
        return Described(
            creator_rows=_rows(self.creators.row(one.creator_id or "") for one in facts),
            categories=Ragged.from_lists(names),
            durations=np.array(durations, np.float64),
        )

    def _look_up(
        self, rows: IntArray, column: Callable[[Described], npt.NDArray[Value]]
    ) -> npt.NDArray[Value]:
        base = column(self._described[0])
        if not self._live:
            return base[rows]
        late = rows >= self.num_bundle
        values = base[np.where(late, UNKNOWN_ROW, rows)]
        if late.any():
            values[late] = column(self.described()[1])[rows[late] - self.num_bundle]
        return values

    def _list(self, row: int, video: LiveVideo) -> bool:
        """Notes whether lists may hold a video, and until when; True where that has changed."""
        expires_ms, is_out = video.facts.expires_ms, not video.is_listed(-1)
        if self._expires_ms.get(row) == expires_ms and (row in self._out_rows) == is_out:
            return False
        self._out_rows.discard(row)
        self._expires_ms.pop(row, None)
        if is_out:
            self._out_rows.add(row)
        if expires_ms is not None:
            self._expires_ms[row] = expires_ms
        return True

    def _decide_unlisted(self) -> None:
        self._out = _rows(sorted(self._out_rows))
        self._expiring = _rows(self._expires_ms.values()), _rows(self._expires_ms)


def _rows(rows: Iterable[int]) -> IntArray:
    return np.fromiter(rows, np.int64)


def videos_by_creator(creator_row_N: IntArray) -> Ragged:
    """The rows of each creator's videos, those of row 0 being of no known one.

    >>> videos_by_creator(np.array([0, 2, 1, 2]))[2].tolist()
    [1, 3]
    """
    order = np.argsort(creator_row_N, kind="stable")
    lengths = np.bincount(creator_row_N)
    return Ragged(np.concatenate([[0], np.cumsum(lengths)]), order.astype(np.int32))
