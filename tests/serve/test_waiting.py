"""What a follower keeps of videos that nobody knows yet."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Row

from recsys.bundle.contents import Bundle
from recsys.live.log.event import EXPOSURE, NOT_INTERESTED, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.live.videos.encoding_queue import Encoded, EncodingQueue
from recsys.live.videos.live_videos import LiveVideos, VideoFacts, VideoVector
from recsys.serve import follower, waiting
from recsys.serve.asks import Filters
from recsys.serve.follower import Follower
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from recsys.serve.waiting import BITS, Counted, NamedIds, Waiting
from tests.bundles import START_MS, TinyRun
from tests.serve.live import Served, now


def test_no_id_that_was_named_is_missed_and_few_others_are_taken_for_one() -> None:
    named = NamedIds()
    for number in range(100_000):
        named.add(f"v{number}")
    assert all(f"v{number}" in named for number in range(100_000))
    # (1 - e^(-4 * 100,000 / 2^23))^4 = 5e-6 of the others.
    assert sum(f"w{number}" in named for number in range(100_000)) <= 5


def test_however_many_there_are_it_takes_the_same_memory() -> None:
    named = NamedIds()
    for number in range(1000):
        named.add(f"café {number}" * 20)
    assert len(named._bits) == BITS // 8 == 2**20
    assert "café" not in named


def test_all_of_a_videos_changes_are_kept_or_none() -> None:
    kept = Waiting(most=3)
    changes = [Counted(time_ms, (), (1, 0)) for time_ms in range(5)]
    for video_id, change in zip("abaab", changes, strict=True):
        kept.put(video_id, change)
    assert kept.take("b") is None, "named least lately when there were too many"
    assert kept.take("a") == [changes[0], changes[2], changes[3]]
    assert (kept.take("a"), kept.take("c"), len(kept)) == ([], [], 0)


def add_video(log: EventLog, served: Served, video_id: str) -> None:
    """As an encoder hands it in."""
    videos, queue = LiveVideos(log.database), EncodingQueue(log.database)
    video = videos.add(video_id, None, VideoFacts(creator_id="c1", duration=10.0))
    vector = served.bundle.vectors[3].copy()
    queue.encoded(video, Encoded({served.bundle.version: VideoVector(vector, None)}, None))


def counts_of(served: ServingRecommender) -> dict[str, list[list[int]]]:
    """Of the first rows of everything that is counted, and at the end of the video `new`."""
    hour, counted = now() // 3_600_000 + 1, {}
    for name, hourly in served.bundle.counts.hourly.items():
        more = [served.parts.catalogue.videos.row("new")] * (name == "video")
        rows = np.append(np.arange(4), more).astype(np.int64)
        counted[name] = hourly.before(rows, np.full(len(rows), hour)).tolist()
    return counted


def counted(tiny: TinyRun, log: EventLog) -> dict[str, list[list[int]]]:
    """What a server that starts now counts."""
    fresh = Served(Bundle.load(str(tiny.run)), log)
    fresh.catch_up()
    return counts_of(fresh)


@pytest.mark.parametrize(("most", "recounts"), [(50_000, 0), (2, 1)], ids=["kept", "from the log"])
def test_events_of_a_video_count_when_it_comes(
    tiny: TinyRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: int,
    recounts: int,
) -> None:
    """As with one who starts afterwards; what others did meanwhile is not counted again."""
    asked: list[Follower] = []
    begin_anew = Follower._begin_anew

    def counted_anew(follower: Follower) -> None:
        asked.append(follower)
        begin_anew(follower)

    monkeypatch.setattr(Follower, "_begin_anew", counted_anew)
    monkeypatch.setattr(waiting.Waiting.__init__, "__kwdefaults__", {"most": most})
    address = str(tmp_path / "live.sqlite")
    with EventLog(address) as log, EventLog(address) as own:
        served = Served(Bundle.load(str(tiny.run)), log)
        before = counts_of(served)
        for number in range(4):
            shown = {"impression_id": f"i{number}", "context": {"tab": "home"}}
            served.tell(f"n{number}", "new", type=EXPOSURE, **shown)
            served.tell(f"n{number}", "new", type=VIEW, positive=number % 2 == 0, **shown)
            served.tell(f"n{number}", "v3", type=VIEW)
            served.catch_up()
        assert served.followed.unknown_videos == 6, "exposures of 4 and what 2 of them liked"
        add_video(log, served, "new")
        served.catch_up()
        assert (len(asked), served.followed.unknown_videos) == (recounts, 0)
        assert counts_of(served) == counted(tiny, own) != before
        assert counts_of(served)["video"][-1][:2] == [4, 2]
        add_video(log, served, "unnamed")
        served.catch_up()
        assert len(asked) == recounts


def test_who_refused_a_video_before_it_came_does_not_get_it(tiny: TinyRun, tmp_path: Path) -> None:
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        served = Served(Bundle.load(str(tiny.run)), log)
        served.tell("someone", "new", type=NOT_INTERESTED)
        served.recommend("someone", 20)
        add_video(log, served, "new")
        asked = Filters(video_ids=("new", "v1"))
        for user, is_listed in (("someone", False), ("other", True)):
            answer = served.recommend(user, 2, exclude_seen=False, filters=asked)
            assert ("new" in [video.video_id for video in answer.videos]) == is_listed


def test_counting_anew_goes_on_where_the_log_was_away(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was counted until then is not counted twice."""
    address = str(tmp_path / "live.sqlite")
    with EventLog(address) as log, EventLog(address) as own:
        served = Served(Bundle.load(str(tiny.run)), log)
        for user in ("ada", "bob", "eve"):
            served.tell(user, "v1")
            served.tell(user, "new")
        served.catch_up()
        log.forget("eve")
        rows_after = log.rows_after
        reads = iter([True, True])

        def cut(*args: int, **kwargs: float) -> Sequence[Row[Any]]:
            if next(reads, False):
                return rows_after(*args, **kwargs)
            raise LogError("the log is away")

        with monkeypatch.context() as patch, pytest.raises(LogError):
            patch.setattr(follower, "ANEW_PAGE", 1)
            patch.setattr(log, "rows_after", cut)
            served.catch_up()
        assert served.counts_anew
        served.catch_up()
        assert not served.counts_anew
        assert counts_of(served) == counted(tiny, own)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten entries are counted anew with each look."""
    monkeypatch.setattr(follower, "ANEW_S", 0.0)
    monkeypatch.setattr(follower, "ANEW_PAGE", 10)


def test_a_deletion_holds_up_nobody(tiny: TinyRun, tmp_path: Path, little: None) -> None:
    """All is counted anew, but a little with each look, while requests are answered."""
    address = str(tmp_path / "live.sqlite")
    with EventLog(address) as log, EventLog(address) as own:
        served = Served(Bundle.load(str(tiny.run)), log)
        at = now()
        for number in range(50):
            served.tell(f"n{number % 7}", f"v{1 + number % 5}", time_ms=at - number)
        served.tell("eve", "v1")
        served.tell("eve", "new")
        assert served.recommend("eve").num_history == 1
        before = counts_of(served)
        log.forget("eve")
        answer = served.recommend("eve")
        assert (answer.num_history, answer.known_user) == (0, False), "that is at once"
        looks = 1
        while served.counts_anew:
            assert counts_of(served) == before, "until all is counted"
            looks += 1
            served.catch_up()
            if looks == 3:
                add_video(log, served, "new")
                served.tell("bob", "new")
                served.catch_up()
                before = counts_of(served)
        assert looks >= 5
        assert counts_of(served) == counted(tiny, own) != before
        assert counts_of(served)["video"][-1][:2] == [1, 1]


def test_deletions_that_come_oftener_than_all_is_counted_are_followed(
    tiny: TinyRun, tmp_path: Path, little: None
) -> None:
    """A pass ends with what it has, another follows, and the last one is right."""
    address = str(tmp_path / "live.sqlite")
    with EventLog(address) as log, EventLog(address) as own:
        served = Served(Bundle.load(str(tiny.run)), log)
        at = now()
        served.tell("eve", "v3")
        for number in range(100):
            served.tell(f"n{number % 50}", f"v{1 + number % 2}", time_ms=at - number)
            served.tell(f"n{number % 50}", "new", time_ms=at - number)
        served.catch_up()
        before = counts_of(served)
        log.forget("eve")
        served.catch_up()
        looks = 1
        for number in range(12):
            log.forget(f"n{number}")
            if number == 5:
                add_video(log, served, "new")
            for _ in range(2):  # of the 15 at least that a pass takes
                served.catch_up()
                looks += 1
                assert served.counts_anew
        assert before["video"][3][0] - counts_of(served)["video"][3][0] == 1, "eve's view is gone"
        while served.counts_anew:
            served.catch_up()
            looks += 1
        assert looks < 60, "more than the rest of a pass and a whole one after the last deletion"
        assert counts_of(served) == counted(tiny, own)


def test_a_deletion_takes_nobody_elses_state(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs go when the counts do, all at once; those of who was forgotten at once."""
    monkeypatch.setattr(follower, "ANEW_S", 0.0)
    monkeypatch.setattr(follower, "ANEW_PAGE", 1)
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        served = Served(Bundle.load(str(tiny.run)), log)
        for user in ("ada", "bob", "eve"):
            served.tell(user, "v1")
        for user in ("ada", "bob", "eve"):
            served.recommend(user)
        log.forget("eve")
        served.catch_up()
        assert (served.pasts.held, served.counts_anew) == (2, True)
        assert served.recommend("eve").num_history == 0
        while served.counts_anew:
            served.catch_up()
        assert served.pasts.held == 0
        served.recommend("ada")
        log.prune(now() + 1)
        assert served.recommend("ada").num_history == 0


def test_who_begins_after_a_deletion_counts_once(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was deleted before had no part in what is read."""
    monkeypatch.setattr(Follower, "_begin_anew", lambda _: pytest.fail("counted anew"))
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        log.append([Event("eve", VIEW, "v1"), Event("bob", VIEW, "v1", time_ms=START_MS)])
        log.forget("eve")
        log.prune(START_MS + 1)
        served = Served(Bundle.load(str(tiny.run)), log)
        before = counts_of(served)
        served.catch_up()
        assert counts_of(served) == before


def test_what_waits_is_told_as_it_is(tiny: TinyRun, tmp_path: Path) -> None:
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        served = Served(Bundle.load(str(tiny.run)), log)
        for user in ("ada", "bob"):
            served.tell(user, "new")
            served.tell(user, "newer")
        served.catch_up()
        assert served.followed.unknown_videos == 4
        log.forget("ada")
        served.catch_up()
        assert served.followed.unknown_videos == 2
        add_video(log, served, "new")
        served.catch_up()
        assert served.followed.unknown_videos == 1


def test_a_server_that_nobody_asks_counts_anew_at_once(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a little every tenth of a second, as between requests."""
    monkeypatch.setattr(follower, "ANEW_S", 0.0)
    monkeypatch.setattr(follower, "ANEW_PAGE", 1)
    taken, done = threading.Semaphore(0), threading.Semaphore(0)
    looks: list[int] = []
    until_then: list[int] = []

    def telling(do: Callable[..., None], told: threading.Semaphore) -> Callable[..., None]:
        def tells(*given: object) -> None:
            do(*given)
            until_then[:] = looks
            told.release()

        return tells

    def looking(service: Service, look: Callable[[Service], None] = Service._follow) -> None:
        looks.append(service.recommender.followed.seq)
        look(service)

    monkeypatch.setattr(Follower, "_take", telling(Follower._take, taken))
    monkeypatch.setattr(Follower, "_put_in_place", telling(Follower._put_in_place, done))
    monkeypatch.setattr(Service, "_follow", looking)
    log = EventLog(str(tmp_path / "live.sqlite"))
    at = now()  # once: two events at the same time would be one
    log.append([Event("bob", VIEW, "v1", time_ms=at - number) for number in range(60)])
    log.append([Event("eve", VIEW, "v1")])
    service = Service(Bundle.load(str(tiny.run)), log)
    assert taken.acquire(timeout=120)
    log.forget("eve")
    assert done.acquire(timeout=120)
    service.close()
    last = service.recommender.followed.seq
    assert until_then.count(last) < 10, "a look for each of what is counted"
    before = counts_of(ServingRecommender(Bundle.load(str(tiny.run))))
    assert counts_of(service.recommender)["video"][1][0] - before["video"][1][0] == 60
