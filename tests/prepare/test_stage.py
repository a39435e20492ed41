"""The prepare stage as a whole, through the shared local Ray."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.run import RunConfig, load_config
from recsys.data.storage import write_json
from recsys.errors import InputError
from recsys.features.timelines import Timelines
from recsys.prepare.prepared import Prepared
from recsys.prepare.stage import prepare
from recsys.schema import TEST, TRAIN, VALID
from tests.inputs import (
    DAY_MS,
    NUM_DAYS,
    NUM_USERS,
    START_MS,
    Rows,
    event_rows,
    plus,
    video_rows,
    write_config,
    write_input,
    write_rows,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_local")]


def run(path: Path, *settings: str) -> tuple[RunConfig, dict[str, Any]]:
    config = load_config(str(path), settings)
    return config, prepare(config, f"{config.run}/prepare")


def by_user(config: RunConfig) -> dict[str, list[tuple[Any, ...]]]:
    """Each user's (video id, day, positive, labels, (time, share), context id, split), in order."""
    prepared = Prepared(config)
    videos, tabs = prepared.vocab("video"), prepared.vocab("context_tab")
    events = {}
    for number in range(len(prepared.partitions)):
        timelines: Timelines = prepared.timelines(number)
        for i, user in enumerate(timelines.user_ids):
            events[user] = [
                (
                    videos.id(int(timelines.video_rows[j])),
                    (int(timelines.time_ms[j]) - START_MS) // DAY_MS,
                    int(timelines.positive[j]),
                    timelines.labels[j].tolist(),
                    timelines.watched[j].tolist(),
                    tabs.id(int(row)) if (row := timelines.context_rows[j, 0]) else None,
                    int(timelines.split[j]),
                )
                for j in range(timelines.offsets[i], timelines.offsets[i + 1])
            ]
    return events


def expected(user: int) -> list[tuple[Any, ...]]:
    """What `event_rows` says of a user."""
    return [
        (
            f"v{(3 * user + day) % 10}",
            day,
            (user + day) % 2,
            [(user + day) % 2, int((user + day) % 3 == 0)],
            [user + day / 2, 0.0],
            "home" if day % 2 else "search",
            {6: VALID, 7: TEST}.get(day, TRAIN),
        )
        for day in range(NUM_DAYS)
    ]


def test_events_become_timelines(tmp_path: Path) -> None:
    """In any order, with rows that lack something, twice the same, and a user of one event."""
    rows = event_rows()
    rows = {name: values[::-1] for name, values in rows.items()}
    first = {name: values[-1] for name, values in rows.items()}
    rows = plus(
        rows,
        {**first, "clicked": 1, "liked": 0},  # the same event told otherwise: the positive stays
        {**first, "user_id": None},
        {**first, "video_id": None},
        {**first, "time": None},
        {**first, "user_id": "once", "seconds": None, "tab": None},
        {**first, "user_id": "never", "clicked": None},
        {**first, "user_id": "never", "liked": None},
        {**first, "user_id": "never", "time": -(2**63)},
    )
    config, report = run(write_input(tmp_path, rows))
    events = by_user(config)
    assert Prepared(config).timelines(0).user_rows.shape[1] == 0
    without = load_config(str(tmp_path / "run.yaml"), ["model.use_id=false"])
    assert Prepared(config).video_inputs(with_valid=False).id_rows.any()
    assert not Prepared(without).video_inputs(with_valid=False).id_rows.any()
    assert events["u0"][0] == ("v0", 0, 1, [1, 0], [0.0, 0.0], "search", TRAIN)
    assert events["u0"][1:] == expected(0)[1:]
    assert all(events[f"u{user}"] == expected(user) for user in range(1, NUM_USERS))
    assert events["once"] == [("v0", 0, 0, [0, 1], [0.0, 0.0], None, TRAIN)]
    assert report["rows"] == NUM_USERS * NUM_DAYS + 8
    assert report["dropped"] == {
        "missing user": 1,
        "missing video": 1,
        "missing time": 1,
        "impossible time": 1,
        "missing label clicked": 1,
        "missing label liked": 1,
        "duplicate": 1,
    }
    assert report["read_otherwise"] == {"missing seconds as 0": 1}
    assert report["events"] == {"train": 6 * 6 + 1, "valid": 6, "test": 6}
    assert report["users"] == NUM_USERS + 1 == sum(report["partitions"])
    assert report["users_with_one_event"] == 1
    assert (report["time_unit"], report["time_unit_told_by"]) == ("ms", "the size of the times")
    assert report["first_event"] == "2024-05-01 00:00:00"
    assert report["last_event"] == "2024-05-08 00:00:00"


def test_integers_timestamps_booleans_and_several_files(tmp_path: Path) -> None:
    """The same events, in other types, spread over files, one of them empty, by a glob."""
    rows = event_rows()
    table = pa.table(
        {
            "user_id": pa.array([int(u[1:]) for u in rows["user_id"]], pa.int32()),
            "video_id": pa.array([int(v[1:]) for v in rows["video_id"]], pa.uint64()),
            "time": pa.array(rows["time"], pa.timestamp("ms", tz="UTC")).cast(
                pa.timestamp("us", tz="UTC")
            ),
            "clicked": [bool(value) for value in rows["clicked"]],
            "liked": pa.array(rows["liked"], pa.float32()),
            "seconds": rows["seconds"],
            "tab": pa.array(rows["tab"]).dictionary_encode(),
        }
    )
    (tmp_path / "events").mkdir()
    for name, part in (
        ("a", table.slice(30)),
        ("b", table.slice(0, 0)),
        ("c", table.slice(0, 30)),
        ("d", table.slice(5, 3)),  # a file with rows of another
    ):
        pq.write_table(part, tmp_path / "events" / f"{name}.parquet")
    path = write_config(tmp_path, data={"events": str(tmp_path / "events" / "*.parquet")})
    config, report = run(path)
    events = by_user(config)
    for user in range(NUM_USERS):
        assert [(f"v{row[0]}", *row[1:]) for row in events[str(user)]] == expected(user)
    assert report["time_unit"] == "us"
    assert report["dropped"] == {"duplicate": 3}
    assert report["files"] == 3


def test_the_catalogue_counts_what_was_seen(tmp_path: Path) -> None:
    videos = plus(video_rows(), {"video_id": "v10", "path": None, "seconds": 9, "creator": "c2"})
    write_rows(videos, tmp_path / "videos.parquet")
    path = write_input(
        tmp_path,
        data={
            "videos": str(tmp_path / "videos.parquet"),
            "video_columns": {"uri": "path", "creator": "creator", "duration": "seconds"},
        },
    )
    config, report = run(path)
    catalog = Prepared(config).catalog
    # v0's length is not known, v3 has 4 seconds; u5 watched v5, of 6 seconds, for 5, u1 v0 for 4.5.
    assert np.array_equal(catalog.durations[:4], [np.nan, np.nan, 2, 3], equal_nan=True)
    told = by_user(config)
    assert told["u1"][0][4] == [1, 0.25] and told["u5"][0][4] == pytest.approx([5, 5 / 6])
    assert told["u1"][7][4] == [4.5, 0]
    assert catalog.video_ids().to_pylist() == [None, *(f"v{i}" for i in range(11))]
    assert catalog.uris().to_pylist() == [None, *(f"{tmp_path}/v{i}.mp4" for i in range(10)), None]
    seen = [[row[0] for row in expected(user)[:6]] for user in range(NUM_USERS)]
    flat = [video for videos in seen for video in videos]
    assert catalog.train_events.tolist() == [0, *(flat.count(f"v{i}") for i in range(11))]
    assert catalog.train_positives.sum() == 6 * 3
    assert catalog.valid_events.sum() == 6
    # v0 is first seen on day 0, by user 0.
    assert catalog.table.column("first_time_ms")[1].as_py() == START_MS
    assert report["videos_without_file"] == 1
    assert report["videos_without_events"] == 1
    assert report["creators"] == 3


def test_files_of_other_writers_go_together(tmp_path: Path) -> None:
    """Eight days, each with types of its own, in a folder as Spark leaves it behind."""
    rows = event_rows()
    rows |= {"user_id": [int(u[1:]) + 10**10 for u in rows["user_id"]]}
    rows |= {"video_id": [f"v {v[1:]}*?" for v in rows["video_id"]]}
    whole = pa.table(rows)
    us = pa.array(rows["time"], pa.timestamp("ms")).cast(pa.timestamp("us", tz="UTC"))
    stamps = whole.set_column(2, "time", us)
    zone = pa.timestamp("ms", tz="Asia/Shanghai")
    casts: list[dict[str, Any]] = [
        {},
        {"user_id": pa.float64(), "video_id": pa.large_string(), "clicked": pa.bool_()},
        {"user_id": pa.uint64(), "video_id": pa.dictionary(pa.int16(), pa.string())},
        {"time": pa.timestamp("us"), "tab": pa.string_view(), "seconds": pa.float32()},
        {"time": zone, "liked": pa.float64(), "tab": pa.dictionary(pa.int8(), pa.string())},
        {"user_id": pa.decimal128(20, 0), "time": pa.timestamp("ns")},
        {"tab": pa.null()},
        {},
    ]
    folder = tmp_path / "data [v1]" / "a::b"
    for day, cast in enumerate(casts):
        part = stamps.take(pa.array(range(day, 48, NUM_DAYS)))
        for name, kind in cast.items():
            place = part.column_names.index(name)
            column = pa.chunked_array([pa.nulls(6)]) if kind == pa.null() else part[name].cast(kind)
            part = part.set_column(place, name, column)
        path = folder / f"day={day}" / "part #1%20.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(part, path)
    for hidden in ("_temporary/0/part-0.parquet", "_SUCCESS", "._a.parquet", ".b.parquet"):
        path = folder / hidden
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no table")
    config, report = run(write_config(tmp_path, data={"events": str(folder)}))
    events = by_user(config)
    for user in range(NUM_USERS):
        told = [list(row) for row in expected(user)]
        told[6][5] = None  # the day without tabs
        told = [[f"v {row[0][1:]}*?", *row[1:]] for row in told]
        assert [list(row) for row in events[str(user + 10**10)]] == told
    assert report["files"] == 8 and report["dropped"] == {}


def test_a_missing_label_can_mean_no(tmp_path: Path) -> None:
    rows = event_rows()
    rows["liked"] = [value or None for value in rows["liked"]]
    config, report = run(write_input(tmp_path, rows), "data.missing_labels=zero")
    assert all(by_user(config)[f"u{user}"] == expected(user) for user in range(NUM_USERS))
    assert report["read_otherwise"] == {"missing liked as 0": 32}
    assert report["dropped"] == {}


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_wild_times_are_dropped_and_change_nothing(tmp_path: Path, unit: str) -> None:
    """Seconds come as floats, as in public data sets."""
    rows = event_rows()
    scale = {"s": 1 / 1000, "ms": 1, "us": 1000}[unit]
    first = {name: values[0] for name, values in rows.items()}
    rows["time"] = [time * scale for time in rows["time"]]
    wild = [-(2.0**63), 0.0, -1.0, 253_402_300_799.0 * 1000 * scale, float("nan")]
    rows = plus(rows, *({**first, "time": time, "user_id": f"w{time}"} for time in wild))
    config, report = run(write_input(tmp_path, rows))
    assert by_user(config) == {f"u{user}": expected(user) for user in range(NUM_USERS)}
    assert report["dropped"] == {"impossible time": 4, "missing time": 1}
    assert report["time_unit"] == unit


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_same_events_give_the_same_bytes_and_foreign_files_stay(tmp_path: Path) -> None:
    rows = event_rows()
    out = tmp_path / "run" / "prepare"
    run(write_input(tmp_path, rows))
    before = digests(out)
    (out / "notes.txt").write_text("mine")
    (out / "timelines" / "part-00002.parquet").write_text("of a run with more partitions")
    shuffled = {name: [*values[17:], *values[:17]] for name, values in rows.items()}
    run(write_input(tmp_path, shuffled))
    after = digests(out)
    assert after.pop("notes.txt") == hashlib.sha256(b"mine").hexdigest()
    assert after == before
    folders = sorted(path.name for path in out.iterdir() if path.is_dir())
    assert folders == ["counts", "timelines", "vocab"]


def test_leave_one_out_splits_each_user_by_itself(tmp_path: Path) -> None:
    """User 0 clicks on days 1, 3, 5, 7; user 1 on 0, 2, 4, 6."""
    config, report = run(write_input(tmp_path, split={"kind": "leave_one_out"}))
    events = by_user(config)
    assert [row[-1] for row in events["u0"]] == [TRAIN] * 5 + [VALID, VALID, TEST]
    assert [row[-1] for row in events["u1"]] == [TRAIN] * 4 + [VALID, VALID, TEST, TEST]
    assert report["events"] == {"train": 27, "valid": 12, "test": 9}


def with_flag(value: int) -> Rows:
    rows = event_rows()
    rows["liked"][20] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (with_flag(2), "data.events=.*events.parquet: column 'liked' holds 2; allowed are 0 and 1"),
        (
            {**event_rows(), "user_id": pa.nulls(48, pa.string())},
            r"none of 48 rows can be used \(missing user 48\); check data.columns",
        ),
        (
            {**event_rows(), "liked": [1, None] * 24},
            "column 'liked' holds 1 in 24 rows, nothing in 24, and never 0; if nothing means",
        ),
    ],
)
def test_what_only_the_values_show_is_refused(tmp_path: Path, rows: Rows, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        run(write_input(tmp_path, rows))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "prepare" / ".spill").exists()


def test_a_split_by_days_moves_with_the_newest_event(tmp_path: Path) -> None:
    """The newest is user 5's of day 7: from half a day before it on all is test."""
    by_days = {"kind": "time", "valid_days": 1, "test_days": 0.5}
    path = write_input(tmp_path, split=by_days)
    config, report = run(path)
    write_json(report, f"{config.run}/prepare/report.json")
    assert report["last_event_ms"] == START_MS + 7 * DAY_MS + 5
    assert by_user(config) == {f"u{user}": expected(user) for user in range(NUM_USERS)}
    assert Prepared(config).cut_ms(TEST) == START_MS + 6.5 * DAY_MS + 5
    day_8 = {name: values[0] for name, values in event_rows().items()}
    day_8 |= {"time": START_MS + 8 * DAY_MS, "clicked": 1}
    write_rows(plus(event_rows(), day_8), tmp_path / "events.parquet")
    _, report = run(path)
    assert report["events"] == {"train": 6 * 7, "valid": 6, "test": 1}


def test_cuts_in_the_wrong_order_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="split.valid_from=.* is not before split.test_from="):
        run(write_input(tmp_path), "split.valid_from=2024-05-08")
    assert not (tmp_path / "run").exists()


def test_what_is_known_of_users_lies_beside_their_events(tmp_path: Path) -> None:
    """Of all but one; of one more who has no events."""
    users = {"user_id": [*(f"u{i}" for i in range(1, NUM_USERS)), "new"]}
    users |= {"age": [*(str(10 * i) for i in range(1, NUM_USERS)), "90"], "city": ["x"] * NUM_USERS}
    write_rows(users, tmp_path / "users.parquet")
    section = {"users": str(tmp_path / "users.parquet"), "user_columns": {"features": ["age"]}}
    config, _ = run(write_input(tmp_path, data=section))
    prepared = Prepared(config)
    values = prepared.vocab("user")
    assert prepared.sizes.num_user_values == len(values) == 1 + NUM_USERS
    user_rows = {}
    for number in range(len(prepared.partitions)):
        timelines = prepared.timelines(number)
        user_rows |= dict(zip(timelines.user_ids, timelines.user_rows.tolist(), strict=True))
    expected = {f"u{i}": [values.row(f"age={10 * i}")] for i in range(1, NUM_USERS)}
    assert user_rows == {**expected, "u0": [0]}
