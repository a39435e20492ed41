"""The file that `data.events` takes."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.cli import main
from recsys.config.data import EventColumns
from recsys.config.run import load_config
from recsys.data.storage import read_json
from recsys.errors import InputError
from recsys.live.export.training import default_columns, export_training
from recsys.live.log.event import EXPOSURE, HIDE_CREATOR, TASK, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.log.explored import Explored, ExploredVideos
from tests.inputs import write_config
from tests.live.conftest import NOW

SHOWN = [
    Event("u2", EXPOSURE, "v1", time_ms=NOW - 9000, impression_id="i", place=4, version="3"),
    Event("u2", VIEW, "v1", time_ms=NOW - 8000, watched=2.5, context={"tab": "home", "os": "x"}),
    Event("u2", TASK, "v1", time_ms=NOW - 7000, labels={"like": True, "share": True}),
    Event("u1", EXPOSURE, "v1", time_ms=NOW - 6000),
    Event("u1", HIDE_CREATOR, creator_id="c", time_ms=NOW - 5000),
]


def test_one_row_a_showing_user_by_user(log: EventLog, tmp_path: Path) -> None:
    log.append(SHOWN)
    shown = [Explored("i", video, "u2", NOW - 9000, p) for video, p in (("v1", 0.25), ("v2", 0.5))]
    ExploredVideos(log.database).add(shown)
    out = tmp_path / "events.parquet"
    exported = export_training(log, str(out), default_columns(["like"], ["tab"]))
    rest = {"not_interested": 0, "creator_id": None}
    assert pq.read_table(out).to_pylist() == [
        {
            **{"user_id": "u1", "video_id": "v1", "time_ms": NOW - 6000, "positive": 0, "like": 0},
            **{"watched": None, "tab": None, "event_type": "exposure", **rest},
            **{"impression_id": None, "version": None, "place": None, "propensity": None},
        },
        {
            **{"user_id": "u2", "video_id": "v1", "time_ms": NOW - 9000, "positive": 1, "like": 1},
            **{"watched": 2.5, "tab": "home", "event_type": "exposure", **rest},
            **{"impression_id": "i", "version": "3", "place": 4, "propensity": 0.25},
        },
    ]
    assert (exported.rows, exported.users) == (2, 2)
    assert exported.left_out == {
        "label share": 1,
        "context os": 1,
        "hide_creator without a video": 1,
    }


def test_columns_have_the_names_of_the_run(log: EventLog, tmp_path: Path) -> None:
    """`positive` may be one of the tasks; times have the unit of the other files."""
    log.append(SHOWN)
    columns = EventColumns(
        user="who", video="what", time="when", positive="like", tasks=("like", "share")
    )
    exported = export_training(log, str(tmp_path / "x.parquet"), columns, time_unit="s")
    assert exported.left_out["watched, of which data.columns names no column"] == 1
    table = pq.read_table(tmp_path / "x.parquet")
    assert table.column_names[:5] == ["who", "what", "when", "like", "share"]
    assert table.slice(1, 1).to_pylist()[0] | {"creator_id": 0} == {
        **{"who": "u2", "what": "v1", "when": (NOW - 9000) // 1000, "like": 1, "share": 1},
        **{"event_type": "exposure", "not_interested": 0, "creator_id": 0},
        **{"impression_id": "i", "version": "3", "place": 4, "propensity": None},
    }


@pytest.mark.ray
def test_prepare_takes_the_file_as_its_events(ray_local: None, tmp_path: Path) -> None:
    """The columns and types are those that a run wants; showings are its rows."""
    config = {"tasks": ["clicked"], "positive": "clicked", "context": ["tab"], "watched": "seconds"}
    path = write_config(
        tmp_path,
        data={"events": str(tmp_path / "live.parquet"), "columns": config},
        split={"kind": "leave_one_out", "valid_from": None, "test_from": None},
    )
    data = load_config(str(path)).data
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        now = log.clock()
        for user in range(6):
            for n in range(5):
                shown = Event(f"u{user}", EXPOSURE, f"v{n}", time_ms=now - 10_000 * (n + 1))
                seen = replace(shown, type=VIEW, labels={"clicked": True}, watched=2.0)
                log.append([shown, seen] if (user + n) % 5 else [shown])
        export_training(log, data.events, data.columns, time_unit=data.time_unit)
    assert main(["prepare", "--config", str(path)]) == 0
    report = read_json(str(tmp_path / "run" / "prepare" / "report.json"))
    assert (report["rows"], report["users"]) == (30, 6)


def test_a_name_for_two_columns_is_refused(log: EventLog, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a name stands for two columns"):
        export_training(log, str(tmp_path / "x"), EventColumns(user="a", video="a"))
    assert not (tmp_path / "x").exists()


def test_many_users(log: EventLog, tmp_path: Path) -> None:
    log.append([Event(f"u{n}", VIEW, "v", time_ms=NOW - n) for n in range(1201)])
    log.forget("u7")
    exported = export_training(log, str(tmp_path / "x.parquet"), default_columns())
    users = pq.read_table(tmp_path / "x.parquet").column("user_id").to_pylist()
    assert users == sorted(f"u{n}" for n in range(1201) if n != 7)
    assert exported.rows == exported.users == 1200


def test_an_empty_log_gives_an_empty_file(log: EventLog, tmp_path: Path) -> None:
    assert export_training(log, str(tmp_path / "x.parquet"), default_columns()).rows == 0
    assert len(pq.read_table(tmp_path / "x.parquet")) == 0
