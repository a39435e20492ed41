from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DataConfig
from recsys.errors import InputError
from recsys.prepare.catalogs import build_catalog, read_users
from recsys.prepare.partitions import SplitCounts
from recsys.schema import video_schema

COLUMNS = {"video": "id", "uri": "path", "creator": "by", "categories": ["tag"], "duration": "s"}
ROWS = {
    "id": ["v2", "v1", "v3"],
    "path": ["clips/two.mp4", None, "s3://bucket/three.mp4"],
    "by": ["zoe", "ann", None],
    "tag": ["b, a,,b", None, "a"],
    "s": [10.0, None, 20.0],
}


def data(folder: Path, rows: dict[str, Any] | None = None, **columns: Any) -> DataConfig:
    """A config whose video table has these rows."""
    pq.write_table(pa.table({**ROWS, **(rows or {})}), folder / "videos.parquet")
    return DataConfig.model_validate(
        {
            "events": "unused",
            "videos": str(folder / "videos.parquet"),
            "video_columns": {**COLUMNS, **columns},
        }
    )


def test_columns_become_rows(tmp_path: Path) -> None:
    draft = build_catalog(data(tmp_path), ["v1"])
    assert draft.vocabs["video"].ids.to_pylist() == ["v2", "v1", "v3"]
    assert draft.vocabs["creator"].ids.to_pylist() == ["ann", "zoe"]
    assert draft.creator_rows.tolist() == [0, 2, 1, 0]
    assert draft.vocabs["category"].ids.to_pylist() == ["tag=a", "tag=b"]
    assert draft.category_rows.to_pylist() == [[], [2, 1], [], [1]]
    assert np.isnan(draft.durations[[0, 2]]).all()
    assert 0 < draft.durations[1] < draft.durations[3]


def test_durations_that_cannot_be_are_missing_and_counted(tmp_path: Path) -> None:
    """-1, 0 and infinity stand for a missing one; a NaN is one, and is no impossible one."""
    rows = {
        "id": [f"v{i}" for i in range(6)],
        "s": [-1.0, 0.0, float("inf"), float("nan"), None, 2.5],
    }
    config = data(tmp_path, {**{name: [None] * 6 for name in ROWS}, **rows})
    draft = build_catalog(config, ["v0", "v9"])
    expected = [np.nan] * 6 + [2.5, np.nan]  # row 0, the six of the table, one of the events alone
    assert np.array_equal(draft.durations, expected, equal_nan=True)
    counts = SplitCounts.empty(8)
    assert draft.report(counts)["videos_of_impossible_duration"] == 3
    assert draft.with_counts(counts).column("duration").null_count == 7
    possible = build_catalog(data(tmp_path), []).report(SplitCounts.empty(4))
    assert "videos_of_impossible_duration" not in possible


def test_titles_and_posters_are_kept_apart_from_what_the_model_sees(tmp_path: Path) -> None:
    rows = {"name": ["Two", None, "<b>"], "still": ["p/two.png", "", "s3://bucket/three.webp"]}
    draft = build_catalog(data(tmp_path, rows, title="name", poster="still"), ["v1", "v9"])
    assert draft.details.to_pydict() == {
        "title": [None, "Two", None, "<b>", None],
        "poster": [None, f"{tmp_path}/p/two.png", None, "s3://bucket/three.webp", None],
    }
    nothing = build_catalog(data(tmp_path), []).details
    assert nothing.to_pydict() == {"title": [None] * 4, "poster": [None] * 4}


LESSONS = {
    "of": ["maths", "maths", None],
    "nr": [2, 1, None],
    "needs": [["v1", "v9", "gone"], [], ["v2", "v2"]],
}
ROLES = {"course": "of", "lesson": "nr", "requires": "needs"}


def test_lessons_know_their_course_their_place_and_what_they_require(tmp_path: Path) -> None:
    draft = build_catalog(data(tmp_path, LESSONS, **ROLES), ["v9", "v1"])  # v9 is row 4
    assert draft.lessons is not None
    assert draft.lessons.lessons.to_table().to_pylist() == [
        {"video_row": 1, "course": "maths", "lesson": 2, "required_rows": [2, 4]},
        {"video_row": 2, "course": "maths", "lesson": 1, "required_rows": []},
        {"video_row": 3, "course": None, "lesson": None, "required_rows": [1]},
    ]
    report = draft.report(SplitCounts.empty(5))
    assert report["courses"] == 1 and report["lessons"] == 3
    assert report["unknown_required_videos"] == 1
    assert build_catalog(data(tmp_path), []).lessons is None


def test_requirements_may_be_text_with_commas(tmp_path: Path) -> None:
    rows = {"needs": ["v1, v3", None, ""]}
    draft = build_catalog(data(tmp_path, rows, requires="needs"), [])
    assert draft.lessons is not None
    assert draft.lessons.lessons.locked(np.array([2])).tolist() == [1]
    assert draft.lessons.lessons.locked(np.array([2, 3])).tolist() == []


def test_lessons_that_require_each_other_are_refused(tmp_path: Path) -> None:
    rows = {"needs": [["v1"], ["v2"], []]}
    with pytest.raises(InputError, match=r"requires=needs: nobody can ever come to 'v2', 'v1': "):
        build_catalog(data(tmp_path, rows, requires="needs"), [])


def test_relative_addresses_are_meant_from_the_tables_folder(tmp_path: Path) -> None:
    rows = {"path": ["clips/two.mp4", "/abs/one.mp4", "s3://bucket/three.mp4"]}
    assert build_catalog(data(tmp_path, rows), []).uris.to_pylist() == [
        None,
        f"{tmp_path}/clips/two.mp4",
        "/abs/one.mp4",
        "s3://bucket/three.mp4",
    ]


def test_tags_come_as_lists_too_and_columns_do_not_share_rows(tmp_path: Path) -> None:
    rows = {"tag": [["b", "a"], [], None], "mood": pa.array([1, 1, None])}
    draft = build_catalog(data(tmp_path, rows, categories=["tag", "mood"]), [])
    assert draft.vocabs["category"].ids.to_pylist() == ["mood=1", "tag=a", "tag=b"]
    assert draft.category_rows.to_pylist() == [[], [3, 2, 1], [1], []]


def test_the_first_of_repeated_videos_counts(tmp_path: Path) -> None:
    rows = {"id": ["v2", "v2", None]}
    draft = build_catalog(data(tmp_path, rows), [])
    assert draft.vocabs["video"].ids.to_pylist() == ["v2"]
    assert draft.uris.to_pylist() == [None, f"{tmp_path}/clips/two.mp4"]
    assert draft.dropped == {"missing id": 1, "duplicate": 1}


def test_videos_of_the_events_alone_come_after_the_tables(tmp_path: Path) -> None:
    draft = build_catalog(data(tmp_path), {"v9", "v1", "v7"})
    assert draft.vocabs["video"].ids.to_pylist() == ["v2", "v1", "v3", "v7", "v9"]
    assert draft.uris[4:].to_pylist() == [None, None]
    assert draft.creator_rows[4:].tolist() == [0, 0]
    assert draft.category_rows[4:].to_pylist() == [[], []]
    assert draft.only_in_events == 2


def test_integer_ids_and_creators_with_gaps(tmp_path: Path) -> None:
    """A column of whole numbers with a gap is one of floats in pandas."""
    rows = {"id": [30, 10, 20], "by": [7.0, None, 12.0]}
    draft = build_catalog(data(tmp_path, rows), ["10"])
    assert draft.vocabs["video"].ids.to_pylist() == ["30", "10", "20"]
    assert draft.vocabs["creator"].ids.to_pylist() == ["12", "7"]


def test_without_a_table_the_events_are_the_catalogue() -> None:
    draft = build_catalog(DataConfig(events="unused"), {"b", "a"})
    assert draft.vocabs["video"].ids.to_pylist() == ["a", "b"]
    assert draft.uris.to_pylist() == [None, None, None]
    assert draft.category_rows.to_pylist() == [[], [], []]
    assert draft.only_in_events == 0
    assert len(draft.vocabs["creator"]) == 1


def test_counts_complete_the_table(tmp_path: Path) -> None:
    draft = build_catalog(data(tmp_path), ["v1", "v9"])
    counts = SplitCounts.empty(5)
    counts.first_time_N[[2, 4]] = 100, 50
    counts.events_SN[:, 2] = 3, 2, 1
    counts.positives_SN[:, 2] = 2, 1, 0
    counts.events_SN[2, 4] = 6
    table = draft.with_counts(counts)
    assert table.schema.equals(video_schema())
    assert table.column("video_id").to_pylist() == [None, "v2", "v1", "v3", "v9"]
    assert table.column("first_time_ms").to_pylist() == [None, None, 100, None, 50]
    assert table.column("num_train_events").to_pylist() == [0, 0, 3, 0, 0]
    assert table.column("num_valid_positives").to_pylist() == [0, 0, 1, 0, 0]
    assert draft.report(counts) == {
        "videos": 4,
        "videos_without_events": 2,
        "videos_first_seen_in_test": 1,
        "videos_without_file": 2,
        "videos_only_in_events": 1,
        "dropped_video_rows": {},
        "creators": 2,
        "categories": 2,
    }


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ({}, {"uri": "file"}, r"no column 'file' \(data.video_columns.uri\); it has id, path, by"),
        ({}, {"categories": ["x"]}, r"no column 'x' \(data.video_columns.categories\)"),
        ({"id": [1.5, 2.5, 3.5]}, {}, "column 'id' holds 1.5; allowed is text or an integer"),
        ({"path": [1, 2, 3]}, {}, "column 'path' is int64; allowed is text; convert it"),
        ({"s": ["1", "2", "3"]}, {}, "column 's' is string; allowed is a number; convert it"),
        ({"id": pa.nulls(3, pa.string())}, {}, "there are no videos in it"),
    ],
)
def test_wrong_tables_are_named(
    tmp_path: Path, rows: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        build_catalog(data(tmp_path, rows, **columns), [])
    assert "\n" not in str(error.value)
    assert "videos.parquet" in str(error.value)


def test_a_table_of_other_videos_than_the_events_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none of the 2 videos of the events is in it, e.g. '1'"):
        build_catalog(data(tmp_path), ["2", "1"])


def users(folder: Path, rows: dict[str, Any], **columns: Any) -> DataConfig:
    pq.write_table(pa.table(rows), folder / "users.parquet")
    tree = {"events": "unused", "users": str(folder / "users.parquet"), "user_columns": columns}
    return DataConfig.model_validate(tree)


def test_users_groups_are_text(tmp_path: Path) -> None:
    rows = {"id": [2, 1, None, 2], "age": [30.0, None, 1.0, 99.0], "vip": [True, False, None, None]}
    draft = read_users(users(tmp_path, rows, user="id", groups=["vip", "age"]))
    assert len(draft.values) == 1
    assert draft.dropped == {"missing id": 1, "duplicate": 1}
    assert draft.table.to_pylist() == [
        {"user_id": "2", "vip": "true", "age": "30"},
        {"user_id": "1", "vip": "false", "age": None},
    ]


def test_without_a_user_table_there_are_no_users() -> None:
    table = read_users(DataConfig.model_validate({"events": "unused"})).table
    assert (table.num_rows, table.column_names) == (0, ["user_id"])


@pytest.mark.parametrize("ids", [pa.array([], pa.string()), pa.nulls(2), [float("nan")]])
def test_a_table_without_users_is_refused(tmp_path: Path, ids: Any) -> None:
    rows = {"id": ids, "age": pa.array([1] * len(ids), pa.int64())}
    with pytest.raises(InputError, match="data.users=.*users.parquet: there are no users in it"):
        read_users(users(tmp_path, rows, user="id", features=["age"]))


def test_files_of_other_types_and_folders_are_one_table(tmp_path: Path) -> None:
    """Each file's relative addresses are meant from its own folder; ids are counted once."""
    for week, columns in (
        ("w1", {"id": [1, 2], "by": [7, None], "tag": [[1, 2], None], "v": [[3.0, 4.0], None]}),
        ("w2", {"id": [2.0, 3.0, None], "by": [9.0] * 3, "tag": [[1.0]] * 3, "v": [[1, 0]] * 3}),
        ("w3", {"id": [], "by": [], "tag": [], "v": []}),
    ):
        (tmp_path / week).mkdir()
        rows = {**columns, "path": ["a.mp4"] * len(columns["id"])}
        pq.write_table(pa.table(rows), tmp_path / week / "part.parquet")
    names = {"video": "id", "uri": "path", "creator": "by", "categories": ["tag"], "vector": "v"}
    tree = {"events": "unused", "videos": str(tmp_path), "video_columns": names}
    draft = build_catalog(DataConfig.model_validate(tree), [])
    assert draft.vocabs["video"].ids.to_pylist() == ["1", "2", "3"]
    assert draft.uris[1:].to_pylist() == [f"{tmp_path}/{week}/a.mp4" for week in ("w1", "w1", "w2")]
    assert draft.vocabs["creator"].ids.to_pylist() == ["7", "9"]
    assert draft.creator_rows.tolist() == [0, 1, 0, 2]
    assert draft.vocabs["category"].ids.to_pylist() == ["tag=1", "tag=2"]
    assert draft.category_rows.to_pylist() == [[], [1, 2], [], [1]]
    assert draft.vectors is not None
    assert np.isnan(draft.vectors[2]).all()
    assert draft.vectors[3].tolist() == pytest.approx([2**0.5, 0])
    assert draft.dropped == {"missing id": 1, "duplicate": 1}


def test_a_group_that_is_no_label_is_refused(tmp_path: Path) -> None:
    rows = {"id": ["a"], "born": pa.array([np.datetime64("2000-01-01", "s")])}
    with pytest.raises(InputError, match=r"'born' is timestamp.ms.; allowed is text or a number"):
        read_users(users(tmp_path, rows, user="id", groups=["born"]))


def test_features_become_rows_of_one_vocabulary(tmp_path: Path) -> None:
    """A column may be a group and a feature; two columns never share a row."""
    rows = {"id": [2, 1, 3], "age": ["30", None, "9"], "vip": ["9", "9", None]}
    draft = read_users(users(tmp_path, rows, user="id", groups=["vip"], features=["age", "vip"]))
    assert draft.values.ids.to_pylist() == ["age=30", "age=9", "vip=9"]
    assert draft.table.to_pylist() == [
        {"user_id": "2", "vip": "9", "user_rows": [1, 3]},
        {"user_id": "1", "vip": "9", "user_rows": [0, 3]},
        {"user_id": "3", "vip": None, "user_rows": [2, 0]},
    ]


def test_a_feature_with_a_value_for_everybody_is_refused(tmp_path: Path) -> None:
    rows = {"id": range(10_001), "phone": range(10_001)}
    with pytest.raises(InputError, match="'phone' has 10,001 different values.*put them into"):
        read_users(users(tmp_path, rows, user="id", features=["phone"]))


def test_features_need_a_user_table() -> None:
    tree = {"events": "unused", "user_columns": {"features": ["age"]}}
    with pytest.raises(ValueError, match="features needs data.users"):
        DataConfig.model_validate(tree)
