"""Out to Parquet and in again: nothing lost, nothing twice, nobody brought back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import InputError
from recsys.live.export.parquet import export_log, import_log, log_schema
from recsys.live.log.event import DAY_MS, EXPOSURE, HIDE_CREATOR, TASK, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.store.tables import EVENTS
from tests.live.conftest import NOW, Clock

EVENTS_HERE = [
    Event("u1", EXPOSURE, "v1", time_ms=NOW - 9000, impression_id="i", place=0, version="3"),
    Event("u1", VIEW, "v1", time_ms=NOW - 8000, watched=0.1, context={"tab": "é"}),
    Event("u2", TASK, "v2", labels={"like": True}, event_id="e3"),
    Event("u2", HIDE_CREATOR, creator_id="c", time_ms=NOW + 3000),
]


@pytest.fixture
def other(tmp_path: Path, clock: Clock) -> Iterator[EventLog]:
    """A second, empty log."""
    with EventLog(str(tmp_path / "other.sqlite"), clock=clock) as log:
        yield log


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def contents(log: EventLog) -> list[Any]:
    """Everything but the places in the log."""
    return [tuple(row)[1:] for row in log.rows_after(0, 1000)]


def test_the_schema_has_every_column_of_the_table() -> None:
    assert log_schema().names == [column.name for column in EVENTS.columns]


def test_out_and_in_again_is_the_same_log(
    log: EventLog, other: EventLog, clock: Clock, tmp_path: Path
) -> None:
    log.append(EVENTS_HERE)
    exported = export_log(log, str(tmp_path / "out"))
    assert (exported.rows, exported.parts, exported.latest_seq) == (4, 1, log.latest_seq())
    clock.now_ms += 400 * DAY_MS
    assert import_log(other, str(tmp_path / "out")).statuses == {"accepted": 4}
    assert contents(other) == contents(log)
    assert import_log(other, str(tmp_path / "out")).statuses == {"duplicate": 4}
    assert import_log(log, str(tmp_path / "out")).statuses == {"duplicate": 4}


def test_parts_cover_ranges_and_an_export_goes_on_where_the_last_ended(
    log: EventLog, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    log.append([Event("u", VIEW, f"v{n}", time_ms=NOW - n) for n in range(5)])
    assert export_log(log, str(out), rows_a_part=2).parts == 3
    names = ["events-000000000001-000000000002", "events-000000000003-000000000004"]
    assert parts(out) == [f"{n}.parquet" for n in (*names, "events-000000000005-000000000005")]
    assert export_log(log, str(out), rows_a_part=2).rows == 0
    log.append([Event("u", VIEW, "new", time_ms=NOW)])
    assert export_log(log, str(out)).rows == 1
    assert pq.read_table(out).column("video_id").to_pylist() == [
        "v0", "v1", "v2", "v3", "v4", "new",
    ]  # fmt: skip


def test_a_part_of_the_log(log: EventLog, tmp_path: Path) -> None:
    log.append([Event("u", VIEW, f"v{n}", time_ms=NOW - n) for n in range(5)])
    assert export_log(log, str(tmp_path / "out"), up_to_seq=3).rows == 3


def test_an_export_that_fails_leaves_no_half_part(
    log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append([Event("u", VIEW, f"v{n}", time_ms=NOW - n) for n in range(5)])
    reading = log.rows_after

    def fail(after: int, limit: int, *, up_to_seq: int | None = None) -> Any:
        if after >= 2:
            raise RuntimeError("gone")
        return reading(after, min(limit, 2), up_to_seq=up_to_seq)

    monkeypatch.setattr(log, "rows_after", fail)
    with pytest.raises(RuntimeError, match="gone"):
        export_log(log, str(tmp_path / "out"))
    assert parts(tmp_path / "out") == []


def test_parts_of_another_log_are_not_gone_on_with(
    log: EventLog, other: EventLog, tmp_path: Path
) -> None:
    log.append(EVENTS_HERE)
    export_log(log, str(tmp_path / "out"))
    other.append(EVENTS_HERE[:1])
    with pytest.raises(InputError, match="has parts up to seq 4, and the log ends at 1"):
        export_log(other, str(tmp_path / "out"))


def test_the_forgotten_do_not_come_back_with_old_parts(
    log: EventLog, other: EventLog, clock: Clock, tmp_path: Path
) -> None:
    log.append(EVENTS_HERE)
    export_log(log, str(tmp_path / "day1"))
    clock.now_ms += DAY_MS
    log.forget("u1")
    log.append([Event("u3", VIEW, "v3")])
    assert import_log(log, str(tmp_path / "day1")).statuses == {"forgotten": 2, "duplicate": 2}
    # Into a new log, with the parts of before and after the deletion.
    export_log(log, str(tmp_path / "day1"))
    imported = import_log(other, str(tmp_path / "day1"))
    assert (imported.forgotten_users, imported.statuses) == (1, {"forgotten": 2, "accepted": 3})
    assert other.user_ids() == ["u2", "u3"]


def test_a_deletion_reaches_a_log_that_has_the_old_parts_already(
    log: EventLog, other: EventLog, clock: Clock, tmp_path: Path
) -> None:
    log.append(EVENTS_HERE)
    export_log(log, str(tmp_path / "day1"))
    import_log(other, str(tmp_path / "day1"))
    clock.now_ms += DAY_MS
    log.forget("u1")
    export_log(log, str(tmp_path / "day2"))
    imported = import_log(other, str(tmp_path / "day2"))
    assert (imported.forgotten_users, imported.deleted) == (1, 2)
    assert other.user_ids() == ["u2"]
    assert import_log(other, str(tmp_path / "day2")).forgotten_users == 0


def test_a_users_own_file(log: EventLog, tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.parquet",
        user_id=[1, 2],
        video_id=["a", "b"],
        time_ms=[NOW - 7, NOW - 6],
        watched=[1.5, None],
        positive=[True, False],
        colour=["red", "blue"],
    )
    imported = import_log(log, str(path))
    assert (imported.files, imported.statuses, imported.ignored) == (1, {"accepted": 2}, ["colour"])
    (logged,) = log.of_user("1")
    assert (logged.event.type, logged.event.watched, logged.event.positive) == (VIEW, 1.5, True)
    assert (logged.given_ms, logged.received_ms) == (NOW - 7, NOW)
    assert import_log(log, str(path)).statuses == {"duplicate": 2}


def test_a_file_that_says_when_events_came_keeps_when_they_happened(
    log: EventLog, tmp_path: Path
) -> None:
    """An export has `given_ms` too; a file of one's own need not."""
    times = {"time_ms": [NOW - DAY_MS, NOW + 9], "received_ms": [NOW - 5, NOW - 5]}
    path = write(tmp_path / "mine.parquet", user_id=["u"] * 2, video_id=["a", "b"], **times)
    import_log(log, str(path))
    kept = [(one.event.time_ms, one.given_ms, one.received_ms) for one in log.of_user("u")]
    assert kept == [(NOW - DAY_MS, NOW - DAY_MS, NOW - 5), (NOW - 5, NOW + 9, NOW - 5)]


def test_who_is_forgotten_is_looked_up_once_an_import(
    log: EventLog, other: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many deletions a file tells of, each of which would read the log."""
    for user in range(5):
        log.forget(f"u{user}")
    export_log(log, str(tmp_path / "out"))
    asked: list[dict[str, int]] = []
    marks = other.forgotten_marks

    def counted() -> dict[str, int]:
        asked.append(marks())
        return asked[-1]

    monkeypatch.setattr(other, "forgotten_marks", counted)
    assert import_log(other, str(tmp_path / "out")).forgotten_users == 5
    assert len(asked) == 1


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no file": (lambda folder: folder / "none.parquet", "no Parquet file is there"),
    "no Parquet": (
        lambda folder: ((folder / "x.parquet").write_text("a"), folder / "x.parquet")[1],
        "x.parquet: not a Parquet file",
    ),
    "no user": (
        lambda folder: write(folder / "x.parquet", video_id=["v"]),
        "x.parquet: there is no column 'user_id'; it has video_id",
    ),
    "seconds": (
        lambda folder: write(
            folder / "x.parquet", user_id=["u"] * 2, video_id=["v"] * 2, time_ms=[NOW, NOW // 1000]
        ),
        "x.parquet: rows 1 to 2: event 2 of 2: time_ms=1764143103: these are seconds",
    ),
    "received": (
        lambda folder: write(
            folder / "x.parquet", user_id=["u"], video_id=["v"], received_ms=[NOW * 1000]
        ),
        "received_ms=1764143103000000: these are microseconds",
    ),
    "labels": (
        lambda folder: write(folder / "x.parquet", user_id=["u"], video_id=["v"], labels=["{"]),
        "labels='{': must be JSON",
    ),
    "labels of a list": (
        lambda folder: write(folder / "x.parquet", user_id=["u"], video_id=["v"], labels=["[1]"]),
        "labels=[1]: must be a mapping",
    ),
    "missing": (
        lambda folder: write(folder / "x.parquet", user_id=["u", None], video_id=["v", "v"]),
        "event 2 of 2: user_id=None: must be text or an integer",
    ),
    "notice": (
        lambda folder: write(
            folder / "x.parquet", user_id=["u"], video_id=["v"], type=["forget"], time_ms=[NOW]
        ),
        "x.parquet: user_id='u': no notice of a forgotten user",
    ),
    "NaN": (
        lambda folder: write(folder / "x.parquet", user_id=["u"], video_id=[float("nan")]),
        "video_id=nan: must be text or an integer",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_imported_is_one_line(case: str, other: EventLog, tmp_path: Path) -> None:
    make, message = BAD[case]
    with pytest.raises(InputError) as refused:
        import_log(other, str(make(tmp_path)))
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert other.latest_seq() == 0
