"""Real clips, and files that are broken in every way (see shared/videos/SOURCES.tsv)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.decode.contract import ReadError
from recsys.decode.sandbox import Sandbox
from recsys.decode.sources import check_size, find_videos, open_source
from tests.videos import spec

LIMIT_S = 20.0
MAX_WORKER_BYTES = 1.5e9

REASONS = {
    "zero_bytes.mp4": "empty",
    "one_byte.mp4": "not_video",
    "text.mp4": "not_video",
    "html_error_page.mp4": "not_video",
    "random_64k.mp4": "not_video",
    "bird_mkv_head_cut.mkv": "not_video",
    "flower_mp4_head_cut.mp4": "not_video",
    "flower_webm_head_cut.webm": "not_video",
    "bird_mkv_trunc05.mkv": "no_frames",
    "flower_mp4_trunc05.mp4": "no_frames",
    "flower_webm_trunc05.webm": "no_frames",
    "tika__testMP4AudioOnly.mp4": "no_video_stream",
    "libwebm__invalid_vp9_bitstream-bug_1416.webm": "no_frames",  # claims 12336 × 12336
}
DAMAGED = ("_trunc50", "_trunc95", "_bitflip", "_zeroed", "corrupted", "no_timescale", "blockgroup")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(max_memory_bytes=1280 * 2**20)
    yield made
    made.close()


def _outcome(sandbox: Sandbox, path: str, **settings: object) -> str:
    """`ok`, `damaged`, or the reason why there is no clip."""
    try:
        file = open_source(path, schemes=("file",), base="", max_bytes=2**33, timeout_s=1)
        check_size(file, 2**33)
        clip = sandbox.read(file, spec(max_decode_s=LIMIT_S, **settings), name=Path(path).name)
    except ReadError as error:
        assert error.message
        return error.reason
    assert clip.frames.shape == (4, 40, 40, 3)
    assert clip.times_s[-1] <= clip.duration_s
    return "damaged" if clip.damaged else "ok"


def test_every_real_video_gives_a_clip(shared_dir: Path, sandbox: Sandbox) -> None:
    videos = find_videos(str(shared_dir / "videos" / "real"))
    assert len(videos) == 40
    outcomes = {path: _outcome(sandbox, path, sampling="keyframes") for path in videos}
    assert {path: outcome for path, outcome in outcomes.items() if outcome != "ok"} == {}


def test_every_hostile_file_gives_a_clip_or_a_true_reason(
    shared_dir: Path, sandbox: Sandbox
) -> None:
    for path in find_videos(str(shared_dir / "videos" / "hostile")):
        name, start = Path(path).name, time.monotonic()
        outcome = _outcome(sandbox, path)
        assert time.monotonic() - start < LIMIT_S, name
        damaged = any(mark in name for mark in DAMAGED)
        assert outcome == REASONS.get(name, "damaged" if damaged else "ok"), name
        assert _peak_bytes(sandbox) < MAX_WORKER_BYTES, name


def test_a_picture_is_refused_where_pictures_are(shared_dir: Path, sandbox: Sandbox) -> None:
    path = str(shared_dir / "videos" / "hostile" / "png_named.mp4")
    assert _outcome(sandbox, path, still_images=False) == "still_image"


def _peak_bytes(sandbox: Sandbox) -> int:
    if sandbox._process is None:
        return 0
    status = Path(f"/proc/{sandbox._process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
