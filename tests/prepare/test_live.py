"""A run whose later events are in an event log, against one that has all of them in Parquet."""

from dataclasses import replace
from pathlib import Path

import pytest

from recsys.config.run import load_config
from recsys.live.log.event import EXPOSURE, TASK, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.pipeline import run_stages
from recsys.prepare.prepared import Prepared
from tests.inputs import Rows, event_rows, write_input
from tests.prepare.test_stage import NUM_USERS, by_user, expected

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]
NUM_LIVE = 20
"""Rows of `event_rows` that are told as live events; they are spread over users and days."""


def rows_of(numbers: range) -> Rows:
    return {name: [values[i] for i in numbers] for name, values in event_rows().items()}


def live_events(rows: Rows) -> list[Event]:
    """Each row as an exposure, a view, and what the user did, if they did anything."""
    events = []
    for i, (user, video, time_ms) in enumerate(
        zip(rows["user_id"], rows["video_id"], rows["time"], strict=True)
    ):
        shown = Event(
            *(user, EXPOSURE, video),
            time_ms=time_ms,
            impression_id=f"i{i}",
            context={"tab": rows["tab"][i]},
        )
        view = replace(
            shown,
            type=VIEW,
            time_ms=time_ms + 1000,
            watched=rows["seconds"][i],
            positive=bool(rows["clicked"][i]),
        )
        labels = {name: bool(rows[name][i]) for name in ("clicked", "liked")}
        did = replace(shown, type=TASK, time_ms=time_ms + 2000, labels=labels)
        events += [shown, view, did] if any(labels.values()) else [shown, view]
    return events


def test_events_of_a_log_become_the_same_timelines(tmp_path: Path) -> None:
    """Then nothing is done again until the log has grown."""
    address = str(tmp_path / "live.sqlite")
    total = len(event_rows()["time"])
    path = write_input(tmp_path, rows_of(range(NUM_LIVE, total)), data={"live": address})
    config = load_config(str(path), ())
    with EventLog(address) as log:
        log.append(live_events(rows_of(range(NUM_LIVE))))
        seq = log.latest_seq()
        report = run_stages(config, ["prepare"])["prepare"]
        assert by_user(config) == {f"u{user}": expected(user) for user in range(NUM_USERS)}
        told = {"log": log.database.id, "seq": seq, "showings": NUM_LIVE, "users": 3}
        assert report["live"] == {**told, "left_out": {}}
        assert Prepared(config).live_log == log.database.id is not None
        assert report["rows"] == total and Prepared(config).live_seq == seq

        made = (tmp_path / "run" / "prepare" / "report.json").stat()
        run_stages(config, ["prepare"])
        again = (tmp_path / "run" / "prepare" / "report.json").stat()
        assert (again.st_ino, again.st_mtime_ns) == (made.st_ino, made.st_mtime_ns), "made again"

        log.append([Event("u0", VIEW, "v9")])
        run_stages(config, ["prepare"])
    assert len(by_user(config)["u0"]) == len(expected(0)) + 1
    assert Prepared(config).live_seq == seq + 1
    without = load_config(str(path), ["data.live=null"])
    report = run_stages(without, ["prepare"])["prepare"]
    assert "live" not in report and Prepared(without).live_seq is None
    assert report["rows"] == total - NUM_LIVE
    assert not (tmp_path / "run" / "prepare" / "live.parquet").exists()
