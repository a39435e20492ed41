from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.clip_store import NO_CLIP, ClipStore
from recsys.data.run_folder import RunFolder
from recsys.decode import stamps
from recsys.decode.actor.rows import fixed_lists
from recsys.decode.writer import ClipWriter
from recsys.errors import InputError
from recsys.schema import clip_schema

FRAMES, SIZE = 2, 16
WIDTH = FRAMES * SIZE * SIZE * 3
SETTINGS = {"frames": FRAMES, "size": SIZE}


def _writer(out: Path, settings: dict[str, object] | None = None) -> ClipWriter:
    schema = clip_schema(FRAMES, SIZE)
    return ClipWriter(str(out), schema=schema, settings=settings or SETTINGS)


def _rows(**levels: int | str) -> pa.Table:
    """A row a video: a clip of one level, or the reason why there is none."""
    clips = [level if isinstance(level, int) else None for level in levels.values()]
    reasons = [level if isinstance(level, str) else None for level in levels.values()]
    frames = [None if clip is None else np.full(WIDTH, clip, np.uint8) for clip in clips]
    times = [None if clip is None else np.array([0, 1], np.float32) for clip in clips]
    posters = [None if clip is None else b"poster" for clip in clips]
    ok = [None if clip is None else "" for clip in clips]
    return pa.table(
        {
            "uri": list(levels),
            "frames": fixed_lists(frames, WIDTH, np.uint8),
            "times_s": fixed_lists(times, FRAMES, np.float32),
            "duration_s": pa.array([None if clip is None else 1.0 for clip in clips], pa.float32()),
            "poster": pa.array(posters, pa.binary()),
            "captions": pa.array([one and b"WEBVTT" for one in posters], pa.large_binary()),
            "note": pa.array(ok, pa.string()),
            "reader": pa.array(ok, pa.string()),
            "why": pa.array(ok, pa.string()),
            "reason": pa.array(reasons, pa.string()),
            "message": pa.array([""] * len(levels)),
            "size_bytes": pa.array([1] * len(levels), pa.int64()),
            "sha256": pa.array([None] * len(levels), pa.string()),
            "stamp": pa.array([f"1 {name}" for name in levels], pa.string()),
        }
    )


def _done(writer: ClipWriter) -> dict[str, str]:
    """The stamps of what is done, by address."""
    there = writer.done().to_pydict()
    return dict(zip(there["uri"], there["stamp"], strict=True))


def _levels(out: Path) -> dict[str, int]:
    store = ClipStore(str(out / "clips.lance"))
    frames = store.take(range(len(store)))
    return dict(zip(store.uris(), frames[:, 0, 0, 0, 0].tolist(), strict=True))


def test_clips_that_cannot_be_read_are_not_written_over(tmp_path: Path) -> None:
    _writer(tmp_path).finish(pa.array([], pa.string()))
    manifests = list((tmp_path / "clips.lance" / "_versions").glob("*.manifest"))
    assert manifests
    for path in manifests:
        path.write_bytes(b"garbled")
    with pytest.raises(InputError, match=r"clips.lance: its clips cannot be read .*; remove it"):
        _writer(tmp_path)
    assert {path.read_bytes() for path in manifests} == {b"garbled"}


def test_what_a_first_write_left_that_was_cut_off_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "clips.lance" / "data").mkdir(parents=True)
    (tmp_path / "clips.lance" / "data" / "part.lance").write_bytes(b"half")
    writer = _writer(tmp_path)
    writer.add(_rows(a=1))
    assert writer.finish(pa.array(["a"]))["ok"] == 1


def test_clips_and_broken_files_go_their_ways(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(a=1, b="not_video", c=3))
    counts = writer.finish(pa.array(["a", "b", "c"]))
    assert _levels(tmp_path) == {"a": 1, "c": 3}
    assert pq.read_table(tmp_path / "quarantine.parquet").select(["uri", "reason"]).to_pylist() == [
        {"uri": "b", "reason": "not_video"}
    ]
    assert (counts["ok"], counts["damaged"], counts["quarantined"]) == (2, 0, {"not_video": 1})
    assert (counts["posters"], counts["captions"]) == (2, 2)
    store = ClipStore(str(tmp_path / "clips.lance"))
    assert store.files(store.rows_of(["c", "a"])).to_pydict() == {
        "duration_s": [1.0, 1.0],
        "poster": [b"poster"] * 2,
        "captions": [b"WEBVTT"] * 2,
    }


def test_clips_of_an_older_recsys_are_decoded_anew_and_not_published(tmp_path: Path) -> None:
    """Their table lacks a column that is of today; by its report the stage would be up to date."""
    run, now = RunFolder(str(tmp_path)), clip_schema(FRAMES, SIZE)
    before = pa.schema([field for field in now if field.name != "captions"])
    old = ClipWriter(run.of_stage("decode"), schema=before, settings=SETTINGS)
    old.add(_rows(a=1))
    old.flush()
    store = ClipStore(run.clips)
    remedy = f"without captions; remove {run.report_of('decode')}, .* run `recsys decode` again"
    with pytest.raises(InputError, match=remedy):
        store.files(store.rows_of(["a"]))
    new = _writer(tmp_path / "decode")
    assert new.changed_settings == ["the table's format"] and not _done(new)


def test_only_what_was_flushed_is_found_again(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(a=1, b="no_frames"))
    writer.flush()
    writer.add(_rows(c=3))  # the run is killed here
    assert _done(_writer(tmp_path)) == {"a": "1 a", "b": "1 b"}


def test_a_row_that_comes_twice_is_kept_once(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(a=1))
    writer.add(_rows(a=1, b=2))
    again = _writer(tmp_path)
    writer.finish(pa.array(["a", "b"]))
    again = _writer(tmp_path)
    again.add(_rows(a=9, c=3))
    again.finish(pa.array(["a", "b", "c"]))
    assert _levels(tmp_path) == {"a": 1, "b": 2, "c": 3}


def test_a_row_that_comes_again_much_later_is_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest addresses are looked up elsewhere than those before them: here two at a time."""
    monkeypatch.setattr(stamps, "LEAST_NEW", 1)
    writer = _writer(tmp_path)
    for level, name in enumerate(["a", "b", "c", "a", "d", "b", "e", "d"]):
        writer.add(_rows(**{name: level}))
    writer.flush()
    writer.forget(["c", "e"])
    assert _done(writer) == {"a": "1 a", "b": "1 b", "d": "1 d"}
    writer.finish(pa.array([], pa.string()))
    assert _levels(tmp_path) == {"a": 0, "b": 1, "d": 4}


def test_missing_files_are_tried_again(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(a="missing", b="unreachable", c="not_video"))
    writer.finish(pa.array(["a", "b", "c"]))
    again = _writer(tmp_path)
    assert _done(again) == {"c": "1 c"}
    again.add(_rows(a=1, b="unreachable"))
    assert again.finish(pa.array(["a", "b", "c"]))["quarantined"] == {
        "not_video": 1,
        "unreachable": 1,
    }
    assert len(pq.read_table(tmp_path / "quarantine.parquet")) == 2


def test_what_a_limit_broke_is_tried_again_once_it_is_another(tmp_path: Path) -> None:
    def writer(**limits: object) -> ClipWriter:
        schema = clip_schema(FRAMES, SIZE)
        return ClipWriter(str(tmp_path), schema=schema, settings=SETTINGS, limits=limits)

    first = writer(max_decode_s=9, max_pixels=9, schemes=("file",))
    first.add(_rows(a="too_slow", b="too_many_pixels", c="unsupported_source"))
    first.finish(pa.array(["a", "b", "c"]))
    later = writer(max_decode_s=10, max_pixels=9, schemes=("file",))
    assert _done(later).keys() == {"b", "c"}


def test_what_is_forgotten_gives_way_to_what_comes(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(**{"a": 1, "it's": 2, "c": 3, "d": "not_video", "e": "no_frames"}))
    writer.finish(pa.array(["a"]))
    again = _writer(tmp_path)
    again.forget(["it's", "d"])
    assert _done(again).keys() == {"a", "c", "e"}
    again.add(_rows(**{"it's": 9, "d": 4}))
    counts = again.finish(pa.array(["a", "it's", "c", "d", "e"]))
    assert _levels(tmp_path) == {"a": 1, "c": 3, "it's": 9, "d": 4}
    assert (counts["ok"], counts["quarantined"]) == (4, {"no_frames": 1})


def test_other_settings_start_anew(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(a=1, b="not_video"))
    writer.finish(pa.array(["a", "b"]))
    other = _writer(tmp_path, {**SETTINGS, "sampling": "keyframes"})
    assert other.changed_settings == ["sampling"]
    assert _done(other) == {}
    other.add(_rows(a=7))
    other.finish(pa.array(["a"]))
    assert _levels(tmp_path) == {"a": 7}
    assert len(list((tmp_path / "clips.lance" / "data").iterdir())) == 1  # the old ones are gone


def test_a_run_killed_right_after_new_settings_does_not_mix(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(a=1, b="not_video"))
    writer.finish(pa.array(["a", "b"]))
    _writer(tmp_path, {**SETTINGS, "fit": "letterbox"})  # and dies
    again = _writer(tmp_path, {**SETTINGS, "fit": "letterbox"})
    assert again.changed_settings == []
    assert _done(again) == {}


def test_counts_are_of_the_asked_videos(tmp_path: Path) -> None:
    writer = _writer(tmp_path)
    writer.add(_rows(a=1, b=2, c="not_video"))
    counts = writer.finish(pa.array(["b", "x"]))
    assert (counts["ok"], counts["quarantined"]) == (1, {})


# --- reading back ---


@pytest.fixture
def store(tmp_path: Path) -> ClipStore:
    writer = _writer(tmp_path)
    writer.add(_rows(a=1, b="not_video", c=3))
    writer.flush()
    writer.add(_rows(d=4, e=5))
    writer.finish(pa.array([], pa.string()))
    return ClipStore(str(tmp_path / "clips.lance"))


def test_rows_of(store: ClipStore) -> None:
    rows = store.rows_of(["d", None, "b", "a", "", "zzz"])
    assert rows.tolist() == [2, NO_CLIP, NO_CLIP, 0, NO_CLIP, NO_CLIP]
    assert rows.dtype == np.int64


def test_take_gives_rows_as_asked(store: ClipStore) -> None:
    frames = store.take([3, 0, 3, 1])
    assert frames.shape == (4, FRAMES, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    assert frames[:, 0, 0, 0, 0].tolist() == [5, 1, 5, 3]
    assert store.take([]).shape == (0, FRAMES, SIZE, SIZE, 3)
    assert store.times_s([2, 2]).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize("rows", [[-1], [4], [0, 99]])
def test_take_refuses_rows_that_are_not_there(rows: list[int], store: ClipStore) -> None:
    with pytest.raises(IndexError, match="rows lie in 0..3"):
        store.take(rows)


def test_a_store_goes_to_another_process(store: ClipStore) -> None:
    import pickle

    assert pickle.loads(pickle.dumps(store)).uris() == ["a", "c", "d", "e"]


def test_no_store_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run recsys decode first"):
        ClipStore(str(tmp_path / "clips.lance"))
