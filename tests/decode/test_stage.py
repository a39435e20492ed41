"""The decode stage through Ray Data."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig, load_config
from recsys.data.clip_store import ClipStore
from recsys.decode import stage
from recsys.decode.actor.plan import ActorPlan
from recsys.decode.actor.processes import ProcessSet
from recsys.decode.clips import DecodeClips
from recsys.decode.stage import decode_videos
from recsys.errors import InputError
from recsys.schema import QUARANTINE_REASONS, quarantine_schema
from tests.nodes import wait_for
from tests.videos import numbered, numbers_of

pytestmark = pytest.mark.ray
CONFIG = DecodeConfig(frames=4, size=40)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Five good videos, one that is cut, one that is text, one that is not there."""
    folder = tmp_path_factory.mktemp("videos")
    good = [str(numbered(folder / f"{name}.mkv")) for name in "abcde"]
    cut, text = folder / "cut.mkv", folder / "text.mp4"
    whole = Path(good[0]).read_bytes()
    cut.write_bytes(whole[: len(whole) * 4 // 5])
    text.write_text("no video\n" * 99)
    return [*good, str(cut), str(text), str(folder / "none.mp4")]


def _clips(out: Path) -> dict[str, bytes]:
    store = ClipStore(str(out / "clips.lance"))
    assert len(set(store.uris())) == len(store)
    return {
        uri: store.take([row])[0].tobytes() + store.times_s([row]).tobytes()
        for row, uri in enumerate(store.uris())
    }


def _quarantine(out: Path) -> dict[str, dict[str, Any]]:
    table = pq.read_table(out / "quarantine.parquet")
    assert table.schema.names == quarantine_schema().names
    rows = {row["uri"]: row for row in table.to_pylist()}
    assert len(rows) == len(table)
    return rows


def _assert_reasons(counts: dict[str, Any], said: list[str]) -> None:
    """Every clip's reader and its reason are counted, and said in a line a reader."""
    by_reader = {reader: sum(why.values()) for reader, why in counts["why"].items()}
    assert by_reader == counts["readers"]
    fallbacks = {
        reason: num for reason, num in counts["why"]["pyav"].items() if reason.startswith("not ")
    }
    assert fallbacks and sum(fallbacks.values()) == counts["fallbacks"]
    assert said[-2].startswith(f"decode: {by_reader['decord']} clips read by decord (exact: ")
    assert all(f"{reason}: {num}" in said[-1] for reason, num in fallbacks.items())


def test_the_demos_clips_are_all_read_by_decord(
    ray_local: None, tiny_world: Path, tmp_path: Path
) -> None:
    """At the size of the demo, whose rows FFmpeg pads, and at one that needs no padding."""
    settings = load_config(str(tiny_world / "run.yaml"), []).decode
    videos = sorted(str(path) for path in (tiny_world / "videos").rglob("*.mp4"))
    for size in (settings.size, 64):
        config = settings.model_copy(update={"size": size, "features": False})
        counts = decode_videos(videos, str(tmp_path / str(size)), config)["decode"]
        assert counts["why"] == {"decord": {"exact": len(videos)}}
        assert counts["fallbacks"] == 0


def test_every_video_gets_a_clip_or_a_reason(
    ray_local: None, videos: list[str], tmp_path: Path
) -> None:
    said: list[str] = []
    result = decode_videos([*videos, videos[0]], str(tmp_path), CONFIG, report=said.append)
    counts = result["decode"]
    assert (counts["ok"], counts["damaged"]) == (5, 1)
    assert counts["quarantined"] == {"missing": 1, "not_video": 1}
    assert counts["decoded"] == 8
    assert sum(counts["readers"].values()) == 6
    _assert_reasons(counts, said)

    store = ClipStore(str(tmp_path / "clips.lance"))
    assert store.frame_shape == (4, 40, 40, 3)
    assert numbers_of(store.take(store.rows_of(videos[:1]))[0]) == [3, 9, 15, 21]

    broken = _quarantine(tmp_path)
    text = broken[videos[6]]
    assert text["reason"] == "not_video" and text["size_bytes"] == 99 * 9
    assert len(text["sha256"]) == 64 and "moov atom not found" in text["message"]
    assert broken[videos[7]]["reason"] == "missing"
    assert {row["reason"] for row in broken.values()} <= set(QUARANTINE_REASONS)


def test_an_actor_of_several_processes_makes_the_same(
    ray_local: None, videos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a GPU's actor is, but for the GPU: two processes that feed one encoder."""
    config = CONFIG.model_copy(update={"features": True})
    content = ContentConfig(encoder="small_cnn")
    decode_videos(videos, str(tmp_path / "one"), config, content=content)
    plan = ActorPlan(1, 2.0, 0.0, ProcessSet(2))
    monkeypatch.setattr(stage, "_plan", lambda num_videos, config: plan)
    said: list[str] = []
    counts = decode_videos(
        videos, str(tmp_path / "two"), config, content=content, report=said.append
    )["decode"]
    assert _clips(tmp_path / "two") == _clips(tmp_path / "one")
    assert _quarantine(tmp_path / "two").keys() == _quarantine(tmp_path / "one").keys()
    busy = counts["busy"]
    assert (busy["actors"], busy["processes"]) == (1, 2)
    assert 0 < busy["decoding"] <= 1 and 0 < busy["encoding"] <= 1
    assert said[0].startswith("decode: 2 processes decoded ")


def test_a_second_run_decodes_what_is_new(
    ray_local: None, videos: list[str], tmp_path: Path
) -> None:
    decode_videos(videos[:3], str(tmp_path), CONFIG)
    first = _clips(tmp_path)
    said: list[str] = []
    counts = decode_videos(videos[:5], str(tmp_path), CONFIG, report=said.append)["decode"]
    assert counts["decoded"] == 2 and counts["ok"] == 5
    assert said[0] == "decode: 3 of 5 videos are already there"
    assert {uri: clip for uri, clip in _clips(tmp_path).items() if uri in first} == first


def test_a_file_that_changed_is_decoded_anew(ray_local: None, tmp_path: Path) -> None:
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    paths = [folder / name for name in ("a.mkv", "b.mkv", "broken.mkv")]
    for path in paths[:2]:
        numbered(path)
    paths[2].write_text("to be uploaded again")
    uris = [str(path) for path in paths]
    assert decode_videos(uris, str(out), CONFIG)["decode"]["quarantined"] == {"not_video": 1}
    first = _clips(out)

    numbered(paths[1], num=8)
    numbered(paths[2], num=8)
    said: list[str] = []
    counts = decode_videos(uris, str(out), CONFIG, report=said.append)["decode"]
    assert said[0] == "decode: 2 files are not what they were; decoding them anew"
    assert (counts["changed"], counts["decoded"], counts["ok"]) == (2, 2, 3)
    assert counts["quarantined"] == {} and _quarantine(out) == {}
    store = ClipStore(str(out / "clips.lance"))
    assert numbers_of(store.take(store.rows_of([uris[1]]))[0]) == [1, 3, 5, 7]
    assert _clips(out)[uris[0]] == first[uris[0]]
    again = decode_videos(uris, str(out), CONFIG)["decode"]
    assert (again["changed"], again["unseen"], again["decoded"]) == (0, 0, 0)

    paths[1].unlink()
    said.clear()
    gone = decode_videos(uris, str(out), CONFIG, report=said.append)["decode"]
    assert said[0] == "decode: 1 files are gone or do not answer; what is there is kept"
    assert (gone["changed"], gone["unseen"], gone["decoded"], gone["ok"]) == (0, 1, 0, 3)


def test_other_settings_are_said_and_decoded_anew(
    ray_local: None, videos: list[str], tmp_path: Path
) -> None:
    decode_videos(videos[:2], str(tmp_path), CONFIG)
    said: list[str] = []
    other = CONFIG.model_copy(update={"sampling": "keyframes"})
    counts = decode_videos(videos[:2], str(tmp_path), other, report=said.append)["decode"]
    assert said[0] == "decode: sampling changed; decoding all videos anew"
    assert counts["decoded"] == 2
    store = ClipStore(str(tmp_path / "clips.lance"))
    assert len(store) == 2
    assert numbers_of(store.take([0])[0]) == [0, 10, 10, 20]


@pytest.mark.parametrize("given", [[], [None, ""]])
def test_no_videos(given: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no videos to decode"):
        decode_videos(given, str(tmp_path), CONFIG)


def test_all_broken_is_an_error_after_the_table_is_written(
    ray_local: None, videos: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"none of 2 videos gives a clip \(1 missing, 1 not_video"):
        decode_videos(videos[6:], str(tmp_path), CONFIG)
    assert len(_quarantine(tmp_path)) == 2
    assert (tmp_path / "report.json").exists()


def test_features_are_those_of_the_encoder(
    ray_local: None, videos: list[str], tmp_path: Path
) -> None:
    import torch

    from recsys.model.frames import make_frame_encoder

    config = CONFIG.model_copy(update={"features": True})
    decode_videos(videos[:2], str(tmp_path), config, content=ContentConfig(encoder="small_cnn"))
    store = ClipStore(str(tmp_path / "clips.lance"))
    assert store.stores_features and store.frame_shape == (4, 1024)
    features = store.take([0])[0]
    assert features.dtype == np.float16
    clip = DecodeClips(CONFIG)(pa.table({"uri": videos[:1]}))
    frames = clip.column("frames").combine_chunks().flatten().to_numpy().reshape(4, 40, 40, 3)
    with torch.inference_mode():
        pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2).float() / 255
        expected = make_frame_encoder("small_cnn")(pixels).numpy()
    assert np.abs(features - expected).max() < 1e-2


@pytest.mark.parametrize("form", ["instance", "class"])
def test_the_decoder_alone(form: str, ray_local: None, videos: list[str]) -> None:
    import ray

    dataset = ray.data.from_arrow(pa.table({"uri": videos, "title": [*"abcdefgh"]}))
    if form == "instance":
        mapped = dataset.map_batches(DecodeClips(CONFIG), batch_size=4)
    else:
        mapped = dataset.map_batches(
            DecodeClips,
            fn_constructor_args=[CONFIG],
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=4,
            batch_format="pyarrow",
        )
    rows = sorted(mapped.take_all(), key=lambda row: row["uri"])
    assert [row["uri"] for row in rows] == sorted(videos)
    reasons = {Path(row["uri"]).name: row["reason"] for row in rows}
    assert reasons["a.mkv"] is None and reasons["text.mp4"] == "not_video"
    frames = np.asarray(rows[0]["frames"], np.uint8).reshape(4, 40, 40, 3)
    assert numbers_of(frames) == [3, 9, 15, 21]


def test_a_dataset_without_addresses_is_explained() -> None:
    with pytest.raises(InputError, match="no column 'uri', only path"):
        DecodeClips(CONFIG)(pa.table({"path": ["a.mp4"]}))


FAULTY_DECORD = """
import av, decord
def VideoReader(*arguments, **settings):
    raise RuntimeError("a bug")
decord.VideoReader = VideoReader
"""


def test_what_a_reader_said_stands_in_the_report(
    videos: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader's own fault is no file's; its words are there once, and a count."""
    (tmp_path / "sitecustomize.py").write_text(FAULTY_DECORD)
    monkeypatch.syspath_prepend(tmp_path)  # which the decoding process is given
    config = CONFIG.model_copy(update={"max_memory_bytes": 2**29 + 1})  # one of its own
    rows = DecodeClips(config)(pa.table({"uri": videos}))
    monkeypatch.setattr(stage, "_plan", lambda num_videos, config: ActorPlan(1, 1.0))
    monkeypatch.setattr(stage, "_rows", lambda *_: [rows.slice(0, 2), rows.slice(2)])
    lines: list[str] = []
    counts = decode_videos(videos, str(tmp_path / "out"), config, report=lines.append)["decode"]
    assert counts["ok"] == 5 and counts["readers"] == {"pyav": 6}
    num = counts["why"]["pyav"]["not decord: decord failed"]
    assert num >= 5 and counts["said"] == {"decord failed": {"num": num, "first": "a bug"}}
    assert lines[-1] == f"decode: decord failed: {num} files; said of the first: a bug"


def test_no_free_cpu_is_not_waited_for(ray_local: None, videos: list[str], tmp_path: Path) -> None:
    import ray

    @ray.remote(num_cpus=2)
    class Everything:
        def here(self) -> bool:
            return True

    taken = Everything.remote()
    assert ray.get(taken.here.remote())
    wait_for(lambda: not ray.available_resources().get("CPU"), "the report of what is taken")
    try:
        counts = decode_videos(videos[:2], str(tmp_path), CONFIG)["decode"]
    finally:
        ray.kill(taken)
    assert counts["ok"] == 2


RUN = """
import sys
from recsys.config.data import DecodeConfig
from recsys.decode import stage, writer
writer._FLUSH_BYTES = 1  # every batch is written at once, so that there is much to be torn
stage._MAX_BLOCK_VIDEOS = stage._BATCH_VIDEOS = 1
folder, out = sys.argv[1:]
from recsys.decode.sources import find_videos
add = stage.ClipWriter.add
def say(self, rows):
    add(self, rows)
    print("written", flush=True)
stage.ClipWriter.add = say
stage.decode_videos(find_videos(folder), out, DecodeConfig(frames=4, size=40))
print("done", flush=True)
"""


def test_killed_three_times_it_ends_as_if_it_never_was(tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(12):
        numbered(folder / f"{number:02d}.mkv", num=10 + number)
    (folder / "text.mp4").write_text("no video")
    for batches in (1, 3, 2):  # places to die at: this many batches after the start
        _run_until(folder, tmp_path / "killed", batches)
    _run_until(folder, tmp_path / "killed", None)
    _run_until(folder, tmp_path / "whole", None)
    assert _clips(tmp_path / "killed") == _clips(tmp_path / "whole")
    assert len(_clips(tmp_path / "whole")) == 12
    assert _quarantine(tmp_path / "killed") == _quarantine(tmp_path / "whole")


def _run_until(folder: Path, out: Path, batches: int | None) -> None:
    """Runs the stage in a process of its own; kills it right after some batches."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "RAY_ADDRESS": "local"},
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if batches is not None and lines.count("written") >= batches:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    status = process.wait()
    assert lines and (status == -signal.SIGKILL if batches else lines[-1] == "done")
