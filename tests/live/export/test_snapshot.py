"""`data.live`: the copy of the log that a run is made of."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys import pipeline
from recsys.config.run import RunConfig, load_config
from recsys.data.run_folder import RunFolder
from recsys.errors import InputError
from recsys.live.export.snapshot import renew_showings
from recsys.live.export.training import NOT_POSITIVE
from recsys.live.log.event import EXPOSURE, TASK, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.prepare.showings import Showings
from recsys.prepare.tables import check_showings
from tests.inputs import START_MS, event_rows, first_pass, write_config, write_input, write_rows
from tests.live.conftest import NOW

SHOWN = Event("u1", EXPOSURE, "v1", time_ms=NOW, impression_id="i", context={"tab": "home"})
LIKED = Event("u1", TASK, "v1", time_ms=NOW + 1, impression_id="i", labels={"liked": True})


@pytest.fixture
def config(tmp_path: Path, address: str) -> RunConfig:
    return load_config(str(write_input(tmp_path, data={"live": address})), ())


def copy_of(config: RunConfig) -> Path:
    return Path(RunFolder(config.run).showings)


def fingerprint(config: RunConfig) -> str:
    return pipeline.fingerprint(config, pipeline.BY_NAME["prepare"])


def test_the_copy_says_what_it_holds(config: RunConfig, log: EventLog) -> None:
    log.append([SHOWN, LIKED, Event("u2", VIEW, "v2", time_ms=NOW, labels={"shared": True})])
    assert Showings.read(str(copy_of(config))) is None
    renew_showings(config)
    snapshot = Showings.read(str(copy_of(config)))
    assert snapshot is not None and snapshot.latest_seq == log.latest_seq() == 3
    assert snapshot.report() == {
        **{"log": log.database.id, "seq": 3, "showings": 2, "users": 2},
        "left_out": {"label shared": 1},
    }
    rows = pq.read_table(copy_of(config)).to_pylist()
    assert [(row["user_id"], row["liked"], row["tab"]) for row in rows] == [
        ("u1", 1, "home"),
        ("u2", 0, None),
    ]


def test_it_is_renewed_when_the_log_has_grown_and_only_then(
    config: RunConfig, log: EventLog, tmp_path: Path
) -> None:
    log.append([SHOWN])
    renew_showings(config)
    first, made = fingerprint(config), copy_of(config).stat()
    renew_showings(config)
    again = copy_of(config).stat()
    assert (again.st_ino, again.st_mtime_ns) == (made.st_ino, made.st_mtime_ns), "written again"
    log.append([LIKED])
    assert fingerprint(config) == first, "the later stages go on with what was prepared"
    renew_showings(config)
    assert fingerprint(config) != first
    assert pq.read_table(copy_of(config)).column("liked").to_pylist() == [1]
    log.forget("u1")
    renew_showings(config)
    assert len(pq.read_table(copy_of(config))) == 0
    assert check_showings(str(copy_of(config)), config.data) == []


def test_it_is_renewed_for_other_columns_and_for_another_log(
    config: RunConfig, log: EventLog, tmp_path: Path
) -> None:
    log.append([SHOWN])
    renew_showings(config)
    others = write_config(
        tmp_path, data={"live": config.data.live, "columns": {"tasks": ["shared"]}}
    )
    renew_showings(load_config(str(others), ()))
    assert "shared" in pq.read_schema(copy_of(config)).names
    other = str(tmp_path / "other.sqlite")
    with EventLog(other) as theirs:
        theirs.append([Event("u9", VIEW, "v9")])
    renew_showings(load_config(str(others), [f"data.live={other}"]))
    assert pq.read_table(copy_of(config)).column("user_id").to_pylist() == ["u9"]


def test_without_a_column_for_it_only_what_was_liked_is_taken(
    config: RunConfig, log: EventLog, tmp_path: Path
) -> None:
    """Every row of such a run counts as liked."""
    log.append([SHOWN, Event("u1", VIEW, "v2", time_ms=NOW), Event("u2", EXPOSURE, "v1")])
    path = write_config(tmp_path, data={"live": config.data.live, "columns": {}})
    renew_showings(load_config(str(path), ()))
    snapshot = Showings.read(str(copy_of(config)))
    assert snapshot is not None and (snapshot.rows, snapshot.left_out) == (
        1,
        {NOT_POSITIVE: 2, "context tab": 1},
    )


def test_ids_and_times_may_be_of_other_types_than_the_events(tmp_path: Path) -> None:
    """Whole numbers and seconds in the events; a log has text and milliseconds."""
    rows = event_rows()
    for name in ("user_id", "video_id"):
        rows[name] = np.array([int(value[1:]) for value in rows[name]])
    rows["time"] = np.array(rows["time"]) // 1000
    path = write_input(tmp_path, rows, data={"live": str(tmp_path / "live.sqlite")})
    config = load_config(str(path), ())
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        log.append([Event("3", VIEW, "7", time_ms=START_MS + 1234, watched=2.5)])
    renew_showings(config)
    before, plain = first_pass(config.data, tmp_path / "one")
    after, events = first_pass(config.data, tmp_path / "two", RunFolder(config.run).showings)
    assert after.rows == before.rows + 1 and not after.dropped.total()
    (more,) = [event for event in events if event not in plain]
    assert (more["user_id"], more["video_id"]) == ("3", "7")
    assert (more["time_ms"], more["watched"]) == (START_MS + 1234, 2.5)


def test_what_is_wrong_is_told_by_the_setting(tmp_path: Path) -> None:
    live = tmp_path / "nothing.sqlite"
    config = load_config(str(write_input(tmp_path, data={"live": str(live)})), ())
    with pytest.raises(InputError, match=r"^data\.live: .*nothing\.sqlite: there is no event log"):
        renew_showings(config)
    with pytest.raises(InputError, match="the copy of data.live is not there"):
        check_showings(str(copy_of(config)), config.data)
    assert not live.exists()
    write_rows(event_rows(), copy_of(config))
    with pytest.raises(InputError, match="not a copy of an event log"):
        Showings.read(str(copy_of(config)))
