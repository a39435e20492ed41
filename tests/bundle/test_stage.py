import os
from pathlib import Path

import pyarrow as pa
import pytest

from recsys.bundle.contents import Bundle
from recsys.bundle.stage import last_events
from recsys.errors import InputError
from recsys.schema import timeline_schema
from tests.bundles import make_run


def test_keeps_each_users_last_events() -> None:
    """Two tasks and one context column; the second user has fewer events than are kept."""
    columns = {
        "user_id": ["a", "b", "c"],
        "video_row": [[1, 2, 3], [4], []],
        "time_ms": [[10, 20, 30], [40], []],
        "positive": [[1, 0, 1], [0], []],
        "labels": [[0, 0, 0, 1, 1, 1], [1, 0], []],
        "watched": [[9, 0.5, 8, 0.25, 7, 1], [6, 0], []],
        "context_rows": [[5, 6, 7], [8], []],
        "split": [[0, 0, 2], [1], []],
    }
    kept = last_events(pa.table(columns, schema=timeline_schema()), 2)
    assert kept.schema == timeline_schema()
    assert kept.to_pydict() == {
        "user_id": ["a", "b", "c"],
        "video_row": [[2, 3], [4], []],
        "time_ms": [[20, 30], [40], []],
        "positive": [[0, 1], [0], []],
        "labels": [[0, 1, 1, 1], [1, 0], []],
        "watched": [[8, 0.25, 7, 1], [6, 0], []],
        "context_rows": [[6, 7], [8], []],
        "split": [[0, 2], [1], []],
    }


def test_keeps_events_without_tasks_or_contexts() -> None:
    columns = {
        "user_id": ["a"],
        "video_row": [[1, 2]],
        "time_ms": [[1, 2]],
        "positive": [[1, 1]],
        "labels": [[]],
        "watched": [[]],
        "context_rows": [[]],
        "split": [[0, 0]],
    }
    kept = last_events(pa.table(columns, schema=timeline_schema()), 1).to_pydict()
    assert (kept["video_row"], kept["labels"], kept["context_rows"]) == ([[2]], [[]], [[]])


def test_histories_are_no_longer_than_the_model_reads(tmp_path: Path) -> None:
    model = {
        "content": {"encoder": "none"},
        "dim": 8,
        "id_dim": 8,
        "feature_dim": 4,
        "state_dim": 16,
        "max_history": 5,
    }
    run = make_run(tmp_path, model=model)
    histories = Bundle.load(str(tmp_path)).histories
    nine = run.timelines.column("video_row")[9].as_py()
    assert histories.video_rows[histories.offsets[9] :].tolist() == nine[-5:]


def test_relative_paths_become_absolute(tmp_path: Path) -> None:
    make_run(tmp_path, uris=["clips/a.mp4", "s3://bucket/b.mp4", "/clips/c.mp4", None])
    uris = Bundle.load(str(tmp_path)).catalog.uris().to_pylist()
    expected = [None, os.path.abspath("clips/a.mp4"), "s3://bucket/b.mp4", "/clips/c.mp4", None]
    assert uris[:5] == expected


def test_missing_timelines_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.bundle.stage.list_files", lambda *_: [])
    with pytest.raises(InputError, match=r"timelines: no timelines are there"):
        make_run(tmp_path)
