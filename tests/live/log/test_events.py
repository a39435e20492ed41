"""What the log promises, on SQLite and on PostgreSQL."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from recsys.errors import InputError
from recsys.live.log import events
from recsys.live.log.entries import Forgotten, LoggedEvent, Pruned, user_mark
from recsys.live.log.event import (
    DAY_MS,
    EXPOSURE,
    HIDE_CREATOR,
    NOT_INTERESTED,
    TASK,
    VIEW,
    Event,
    to_row,
)
from recsys.live.log.events import FORGOTTEN, Entry, EventLog
from recsys.live.log.explored import Explored, ExploredVideos
from recsys.live.log.writing import AppendCall
from recsys.live.store import database
from recsys.live.store.database import LogError, insert_rows
from recsys.live.store.tables import EVENTS
from tests.live.conftest import NOW, Clock

SEEN = Event("u1", VIEW, "v1", time_ms=NOW - 5, event_id="e1")


def view(number: int, user_id: str = "u1") -> Event:
    return Event(user_id, VIEW, f"v{number}", time_ms=NOW - 1000 + number, event_id=f"e{number}")


def ids(entries: list[Entry]) -> list[str | None]:
    return [entry.event.event_id for entry in entries if isinstance(entry, LoggedEvent)]


def videos(log: EventLog, user_id: str = "u1") -> list[str | None]:
    return [logged.event.video_id for logged in log.of_user(user_id)]


def test_an_event_comes_back_as_it_went_in(log: EventLog) -> None:
    events = [
        Event("u1", EXPOSURE, "v1", time_ms=NOW - 9, event_id="1", place=3, version="v-7"),
        Event("u1", VIEW, "v1", creator_id="c", time_ms=NOW - 8, event_id="2", watched=0.1),
        Event("u1", TASK, "v1", time_ms=NOW - 7, event_id="3", labels={"like": True, "x": False}),
        Event("u1", NOT_INTERESTED, "v2", time_ms=NOW - 6, event_id="4", context={"tab": "é😀"}),
        Event("u1", HIDE_CREATOR, None, "c", time_ms=NOW - 5, event_id="5", impression_id="i"),
    ]
    assert log.append(events).statuses == ["accepted"] * 5
    whole = [replace(e, positive=p) for e, p in zip(events, (0, 1, 1, 0, 0), strict=True)]
    assert [logged.event for logged in log.of_user("u1")] == whole
    assert log.follow(0) == log.of_user("u1")
    assert {(x.received_ms, x.given_ms) for x in log.of_user("u1")} == {
        (NOW, NOW - n) for n in (9, 8, 7, 6, 5)
    }


def test_an_empty_log_and_an_empty_call(log: EventLog) -> None:
    assert log.append([]).statuses == []
    assert (log.latest_seq(), log.follow(0), log.of_user("u1")) == (0, [], [])
    assert log.counts().events == 0


def test_a_retry_changes_nothing_and_the_first_content_stays(log: EventLog) -> None:
    other = replace(SEEN, video_id="v2")
    assert log.append([SEEN, SEEN, other]).statuses == ["accepted", "duplicate", "conflict"]
    again = log.append([SEEN, other, replace(SEEN, event_id="e2")])
    assert again.statuses == ["duplicate", "conflict", "accepted"]
    assert (again.count("duplicate"), again.event_ids) == (1, ["e1", "e1", "e2"])
    assert videos(log) == ["v1", "v1"]


def test_a_retry_of_a_number_that_is_written_otherwise_is_one(log: EventLog) -> None:
    """SQLite gives -0.0 back as 0.0."""
    nothing = replace(SEEN, watched=-0.0)
    assert log.append([nothing]).statuses == ["accepted"]
    assert log.append([nothing, replace(SEEN, watched=0.0)]).statuses == ["duplicate"] * 2


def test_without_an_id_the_content_is_the_id(log: EventLog, clock: Clock) -> None:
    unnamed = replace(SEEN, event_id=None)
    assert log.append([unnamed]).statuses == ["accepted"]
    clock.now_ms += 7 * DAY_MS
    assert log.append([unnamed]).statuses == ["duplicate"]
    assert log.append([replace(unnamed, watched=1.0)]).statuses == ["accepted"]


def test_with_neither_id_nor_time_a_retry_within_a_minute_is_known(
    log: EventLog, clock: Clock
) -> None:
    clock.now_ms = NOW // 60_000 * 60_000 + 59_999
    unnamed = replace(SEEN, event_id=None, time_ms=None)
    assert log.append([unnamed]).statuses == ["accepted"]
    clock.now_ms += 1  # the next minute by the clock
    assert log.append([unnamed]).statuses == ["duplicate"]
    clock.now_ms += 60_000
    assert log.append([unnamed]).statuses == ["accepted"]


def test_a_call_is_whole_or_not_there(log: EventLog) -> None:
    with pytest.raises(InputError, match="^event 2 of 3: time_ms=5: before 2000"):
        log.append([view(1), replace(view(2), time_ms=5), view(3)])
    with pytest.raises(InputError, match="^time_ms=5: before 2000"):
        log.append([replace(view(2), time_ms=5)])
    assert log.follow(0) == []


def test_many_events_in_one_call(log: EventLog) -> None:
    events = [view(number) for number in range(2500)]
    log.append(events[:700])
    statuses = log.append(events).statuses
    assert statuses == ["duplicate"] * 700 + ["accepted"] * 1800
    assert videos(log) == [f"v{number}" for number in range(2500)]


def test_events_of_a_user_are_in_the_order_of_their_times(log: EventLog, clock: Clock) -> None:
    log.append([view(5), view(9), view(1, "u2")])
    after = log.latest_seq()
    late = replace(view(7), time_ms=NOW - 90 * DAY_MS)
    ahead = replace(view(8), time_ms=NOW + 3000)
    log.append([late, ahead])
    assert videos(log) == ["v7", "v5", "v9", "v8"]
    since = log.of_user("u1", after_seq=after)
    assert [logged.event.video_id for logged in since] == ["v7", "v8"]  # the late one too
    assert since[1].event.time_ms == NOW and since[1].given_ms == NOW + 3000
    recent = log.of_user("u1", from_ms=NOW - 991)
    assert [logged.event.video_id for logged in recent] == ["v9", "v8"]
    assert log.of_user("u3") == []


def test_many_users_at_once(log: EventLog) -> None:
    log.append([view(1), view(2, "u2"), view(3, "u2"), view(4, "u'3")])
    by_user = log.of_users(["u2", "u'3", "nobody"])
    assert {user: [e.event.video_id for e in events] for user, events in by_user.items()} == {
        "u2": ["v2", "v3"],
        "u'3": ["v4"],
    }
    assert log.of_users([]) == {}


def test_since_a_place_what_has_nothing_to_do_with_it_is_not_read(log: EventLog) -> None:
    """However much a user did before; what they refused holds for good."""
    log.append([view(1), view(2), Event("u1", NOT_INTERESTED, "v8", event_id="no"), view(3, "u2")])
    log.append([replace(view(n), event_id=f"old{n}") for n in range(4, 60)])
    after = log.latest_seq()
    log.append([replace(view(2), event_id="again", watched=3.0), view(70, "u3")])

    def of(user_id: str) -> list[str | None]:
        return [logged.event.event_id for logged in log.since(["u1", "u2", "u3"], after)[user_id]]

    assert of("u1") == ["e2", "again", "no"]
    assert of("u3") == ["e70"] and "u2" not in log.since(["u1", "u2", "u3"], after)
    assert log.since(["u1", "u2"], 0) == log.of_users(["u1", "u2"])


def test_a_users_events_are_found_by_the_index(log: EventLog) -> None:
    """On a large log; the planner of PostgreSQL reads a small table whole."""
    for user in range(20):
        log.append([Event(f"u{user}-{n}", VIEW, "v", time_ms=NOW - n) for n in range(1000)])
    where = "WHERE user_id = 'u7-7' AND seq > 0"
    explain = "EXPLAIN QUERY PLAN" if log.database.kind == "sqlite" else "EXPLAIN"
    plan = log.database.rows(text(f"{explain} SELECT * FROM recsys_events {where}"))
    assert "recsys_events_user" in " ".join(str(row) for row in plan)


def test_a_follower_reads_all_in_order_page_by_page(log: EventLog) -> None:
    log.append([view(1), view(2), view(3)])
    log.append([view(1), view(4)])
    first = log.follow(0, limit=3)
    assert ids(first) == ["e1", "e2", "e3"]
    second = log.follow(first[-1].seq, limit=3)
    assert ids(second) == ["e4"]
    assert second[-1].seq == log.latest_seq()
    assert log.follow(log.latest_seq()) == []
    assert ids(list(log.entries())) == ["e1", "e2", "e3", "e4"]
    assert ids(list(log.entries(first[0].seq, up_to_seq=first[2].seq))) == ["e2", "e3"]


def test_a_follower_never_skips_what_commits_late(
    log: EventLog, open_log: Callable[[], EventLog]
) -> None:
    """One writer holds its transaction open while another wants to write.

    Without the turns PostgreSQL would give the second writer the higher number and commit it
    first; a follower that has seen it would never see the first writer's row.
    """
    slow, follower = open_log(), open_log()
    with ThreadPoolExecutor() as threads:
        with slow.database.writing() as connection:
            insert_rows(connection, [to_row(view(1), NOW)[0]])
            fast = threads.submit(log.append, [view(2)])
            with pytest.raises(TimeoutError):
                fast.result(timeout=0.5)  # it waits for its turn
            seen = follower.follow(0)
            assert seen == []
        assert fast.result(timeout=20).statuses == ["accepted"]
    assert ids(follower.follow(0)) == ["e1", "e2"]


def test_concurrent_retries_are_counted_once(
    log: EventLog, open_log: Callable[[], EventLog]
) -> None:
    """16 threads of two processes' logs send the same 100 events, in calls of one and of ten."""
    events = [view(number) for number in range(100)]
    calls = [[e] for e in events] + [events[n : n + 10] for n in range(0, 100, 10)]
    logs = [log, open_log()]

    def send(thread: int) -> int:
        order = calls[thread * 7 :] + calls[: thread * 7]
        return sum(logs[thread % 2].append(call).count("accepted") for call in order)

    with ThreadPoolExecutor(16) as threads:
        accepted = list(threads.map(send, range(16)))
    assert sum(accepted) == 100
    assert sorted(map(str, ids(log.follow(0)))) == sorted(f"e{n}" for n in range(100))


def test_a_follower_beside_many_writers_misses_nothing(
    log: EventLog, open_log: Callable[[], EventLog]
) -> None:
    logs, done = [log, open_log()], threading.Event()

    def follow() -> list[Entry]:
        entries: list[Entry] = []
        while not (stop := done.is_set()) or log.latest_seq() > (entries[-1].seq if entries else 0):
            entries += log.follow(entries[-1].seq if entries else 0, limit=7)
            assert not stop or entries
        return entries

    def write(thread: int) -> None:
        for number in range(40):
            event = replace(view(number), event_id=f"{thread}-{number}")
            logs[thread % 2].append([event, replace(event, event_id=f"{event.event_id}b")])

    with ThreadPoolExecutor(9) as threads:
        following = threads.submit(follow)
        list(threads.map(write, range(8)))
        done.set()
        entries = following.result(timeout=30)
    assert len(entries) == len(set(ids(entries))) == 8 * 40 * 2
    assert [entry.seq for entry in entries] == sorted({entry.seq for entry in entries})


def test_a_forgotten_user_is_gone_and_stays_gone(log: EventLog, clock: Clock) -> None:
    log.append([view(1), view(2), view(3, "u2")])
    before = log.latest_seq()
    assert log.forget("u1") == 2
    assert (videos(log), videos(log, "u2")) == ([], ["v3"])
    # A device that sends late, a retry, an old file: what happened before is not taken again.
    late = [view(1), view(7), replace(view(6), time_ms=NOW)]
    assert log.append([*late, view(8, "u2")]).statuses == ["forgotten"] * 3 + ["accepted"]
    clock.now_ms += 1
    back = replace(view(9), time_ms=NOW + 1)
    assert log.append([back]).statuses == ["accepted"]
    assert videos(log) == ["v9"]
    notice, *after = log.follow(before)
    assert notice == Forgotten(notice.seq, user_mark("u1"), NOW)
    assert ids(after) == ["e8", "e9"]
    assert log.counts().forgotten_users == 1


def test_forgetting_twice_or_somebody_unknown(log: EventLog, clock: Clock) -> None:
    assert log.forget("u1") == 0
    clock.now_ms += 1000
    log.append([replace(view(1), time_ms=NOW + 500)])
    assert log.forget("u1") == 1
    assert log.append([replace(view(2), time_ms=NOW + 700)]).statuses == ["forgotten"]
    assert log.counts().forgotten_users == 1


def test_of_many_forgotten_users_each_ones_latest_deletion_is_known(
    log: EventLog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "PAGE", 2)
    for clock.now_ms in (NOW, NOW + 1):
        for number in range(5):
            log.forget(f"u{number}")
    assert log.forgotten_marks() == {user_mark(f"u{number}"): NOW + 1 for number in range(5)}


def test_what_a_faster_clock_received_is_forgotten_too(log: EventLog, clock: Clock) -> None:
    """Replicas on several machines acknowledge events, and their clocks differ."""
    explored = ExploredVideos(log.database)
    clock.now_ms = NOW + 5000
    log.append([Event("u1", VIEW, "v1"), Event("u2", VIEW, "v1")])
    explored.add([Explored("i", "v1", "u1", NOW + 6000, 0.5)])
    clock.now_ms = NOW
    assert log.forget("u1") == 1
    assert (videos(log), videos(log, "u2")) == ([], ["v1"])
    assert explored.propensities(["i"]) == {}
    assert log.forgotten_marks() == {user_mark("u1"): NOW + 5000}


def test_the_forgotten_are_found_by_the_index(log: EventLog) -> None:
    """Notices are few, and a version that is loaded asks for them; events may be a billion."""
    for user in range(20):
        log.append([Event(f"u{user}-{n}", VIEW, "v", time_ms=NOW - n) for n in range(1000)])
    log.append([Event("u1", VIEW, "v1", event_id="forget-me-not")])
    log.forget("u7-7")
    assert log.forgotten_marks() == {user_mark("u7-7"): NOW}
    asked = (
        FORGOTTEN.params(after="forget-")
        .limit(10)
        .compile(dialect=log.database.dialect, compile_kwargs={"literal_binds": True})
    )
    explain = "EXPLAIN QUERY PLAN" if log.database.kind == "sqlite" else "EXPLAIN"
    plan = log.database.rows(text(f"{explain} {asked}"))
    assert "event_id>" in " ".join(map(str, plan)).replace(" ", "")


def test_numbers_are_not_given_again_after_the_newest_rows_are_deleted(log: EventLog) -> None:
    log.append([view(1, "u2"), view(2)])
    seen = log.latest_seq()
    log.forget("u1")
    log.append([view(3, "u2")])
    assert ids(log.follow(seen)) == ["e3"]
    with log.database.writing() as connection:
        connection.execute(EVENTS.delete())
    log.append([view(4)])
    assert ids(log.follow(seen)) == ["e4"]


def test_what_a_user_refused_is_not_pruned(log: EventLog) -> None:
    old = NOW - 100 * DAY_MS
    kept = [
        Event("u1", NOT_INTERESTED, "v1", time_ms=old),
        Event("u1", HIDE_CREATOR, creator_id="c1", time_ms=old),
    ]
    log.append([Event("u1", VIEW, "v2", time_ms=old), *kept])
    assert log.prune(NOW - 30 * DAY_MS) == 1
    assert [logged.event.type for logged in log.of_user("u1")] == [NOT_INTERESTED, HIDE_CREATOR]


def test_old_events_are_pruned_by_their_time_and_followers_are_told(log: EventLog) -> None:
    old = [replace(view(n), time_ms=NOW - 40 * DAY_MS + n) for n in range(25)]
    log.append([view(100), *old, view(101)])
    log.append([replace(view(n), time_ms=NOW - 39 * DAY_MS) for n in (200, 201)])
    log.forget("u9")
    before = log.latest_seq()
    assert log.prune(NOW - 30 * DAY_MS, batch=4) == 27
    assert videos(log) == ["v100", "v101"]
    notice = log.follow(before)
    assert notice == [Pruned(notice[0].seq, NOW - 30 * DAY_MS)]
    assert log.prune(NOW - 30 * DAY_MS) == 0
    assert log.latest_seq() == notice[0].seq
    assert log.counts().forgotten_users == 1


def test_a_prune_that_is_killed_leaves_no_deletion_that_followers_are_not_told_of(
    log: EventLog, open_log: Callable[[], EventLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append([replace(view(n), time_ms=NOW - 40 * DAY_MS + n) for n in range(9)])
    before, turns = log.latest_seq(), iter([True, True, False])
    writing = log.database.writing

    @contextlib.contextmanager
    def killed_in_the_third() -> Iterator[Connection]:
        with writing() as connection:
            yield connection
            if not next(turns):
                raise KeyboardInterrupt

    monkeypatch.setattr(log.database, "writing", killed_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        log.prune(NOW - 30 * DAY_MS, batch=4)
    other = open_log()
    assert videos(other) == ["v8"]
    (notice,) = other.follow(before)
    assert notice == Pruned(notice.seq, NOW - 30 * DAY_MS)


def test_an_id_that_no_log_can_hold_is_refused_when_it_is_asked_for(log: EventLog) -> None:
    for user_id in ("\ud83d", "a\0b", ""):
        for ask in (log.of_user, log.forget):
            with pytest.raises(InputError, match="^user_id="):
                ask(user_id)
    assert log.latest_seq() == 0


def test_counts(log: EventLog) -> None:
    log.append([view(1), view(2, "u2"), Event("u2", EXPOSURE, "v9", time_ms=NOW - 5000)])
    counts = log.counts()
    assert (counts.events, counts.users) == (3, 2)
    assert counts.types == {"exposure": 1, "view": 2}
    assert (counts.first_ms, counts.last_ms) == (NOW - 5000, NOW - 998)
    assert log.user_ids() == ["u1", "u2"]
    assert log.user_ids(after="u1") == ["u2"]


def test_what_is_logged_outlives_the_process(
    log: EventLog, open_log: Callable[[], EventLog]
) -> None:
    log.append([view(1)])
    log.close()
    again = open_log()
    assert again.append([view(1), view(2)]).statuses == ["duplicate", "accepted"]
    assert videos(again) == ["v1", "v2"]
    with pytest.raises(RuntimeError, match="the event log is closed"):
        log.append([view(3)])


def test_a_log_is_known_wherever_it_is_opened(
    log: EventLog, open_log: Callable[[], EventLog], tmp_path: Path
) -> None:
    with EventLog(str(tmp_path / "another.sqlite")) as another:
        assert log.database.id == open_log().database.id != another.database.id
    assert log.database.id is not None


def test_a_log_of_another_version_is_refused(
    log: EventLog, open_log: Callable[[], EventLog]
) -> None:
    with log.database.writing() as connection:
        connection.execute(text("UPDATE recsys_log SET value = '7' WHERE name = 'version'"))
    with pytest.raises(InputError, match="an event log of version 7, and this program keeps .* 2"):
        open_log()


def test_a_database_that_fails_is_said_in_one_line_and_the_call_may_be_made_again(
    log: EventLog, open_log: Callable[[], EventLog]
) -> None:
    with log.database.writing() as connection:
        connection.execute(text("ALTER TABLE recsys_events RENAME TO gone"))
    with pytest.raises(LogError, match="the event log cannot be written") as failed:
        log.append([view(1)])
    assert "\n" not in str(failed.value)
    with pytest.raises(LogError, match="the event log cannot be read"):
        log.of_user("u1")
    with log.database.writing() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO recsys_events"))
    assert log.append([view(1)]).statuses == ["accepted"]


def test_a_writer_whose_turn_does_not_come_says_so(
    log: EventLog, open_log: Callable[[], EventLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 50)
    turn = database.TURN["postgresql"].replace("lock_timeout = 30000", "lock_timeout = 50")
    monkeypatch.setitem(database.TURN, "postgresql", turn)
    other = open_log()
    with log.database.writing():
        with pytest.raises(LogError, match="cannot be written .*lock"):
            other.append([view(1)])
        assert videos(other) == []  # readers need no turn
    assert other.append([view(1)]).statuses == ["accepted"]


def test_one_fault_does_not_touch_the_others_of_its_group(log: EventLog) -> None:
    """A row that the database refuses, among calls that wait together for one commit."""
    rows = [to_row(view(number), NOW)[0] for number in range(4)]
    rows[2]["type"] = None
    with log.database.writing():  # all of them wait
        waiting = [log._commits.submit(AppendCall([row], [None])) for row in rows]
    for number in (0, 1, 3):
        assert waiting[number].result(20).statuses == ["accepted"]
    with pytest.raises(IntegrityError):
        waiting[2].result(20)
    assert sorted(map(str, ids(log.follow(0)))) == ["e0", "e1", "e3"]
