"""Where uploads lie: no file is lost to a race, to a crash or to a full disk without a word."""

import asyncio
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.live.videos.live_videos import LiveVideos, StoredFile, VideoConflict, VideoFacts
from recsys.serve.api import make_api
from recsys.serve.service import Service
from recsys.serve.videos import upload_store
from recsys.serve.videos.upload_store import LEFT_S, MARK, StoreFailed, UploadStore
from tests.bundles import TinyRun


@pytest.fixture
def service(tiny: TinyRun, tmp_path: Path) -> Iterator[Service]:
    """Its videos are encoded elsewhere; addresses below a folder of the test are fetched."""
    bundle = Bundle.load(str(tiny.run))
    roots = {"video_roots": (str(tmp_path / "root"),)}
    settings = bundle.config.serve.model_copy(update=roots)
    log = EventLog(str(tmp_path / "live.sqlite"))
    service = Service(bundle, log, settings=settings, seed=0)
    yield service
    service.close()


@pytest.fixture
def store(tmp_path: Path) -> UploadStore:
    return UploadStore(str(tmp_path / "uploads"))


def put(store: UploadStore, data: bytes) -> StoredFile:
    with store.receiving() as incoming:
        incoming.write(data)
        return incoming.keep()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "uploads").rglob("*") if path.is_file())


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def send(client: TestClient, video_id: str, data: bytes) -> int:
    headers, params = {"Content-Type": "video/mp4"}, {"video_id": video_id, "wait_s": 0}
    return client.post("/v1/videos", params=params, content=data, headers=headers).status_code


def test_a_video_keeps_its_file_whoever_deletes_the_same_bytes_meanwhile(
    service: Service, tmp_path: Path
) -> None:
    """The other one is deleted between the moment its file is stored and that of its row."""
    desk = service.desk
    first = desk._add("first", put(desk.store, b"same"), VideoFacts())
    between = put(desk.store, b"same")
    desk._delete("first", False)
    second = desk._add("second", between, VideoFacts())
    assert first.file is not None and second.file is not None
    assert first.file.sha256 == second.file.sha256
    assert Path(second.file.uri).read_bytes() == b"same"
    assert names(tmp_path) == [os.path.basename(second.file.uri)]


def test_what_is_sent_once_more_or_in_vain_leaves_no_file(service: Service, tmp_path: Path) -> None:
    client = TestClient(make_api(service))
    assert [send(client, "n", b"same") for _ in range(2)] == [202, 200]
    (there,) = names(tmp_path)
    assert send(client, "n", b"other") == 409
    assert names(tmp_path) == [there]


def test_a_row_that_may_have_been_kept_keeps_its_file(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(service.desk.store, b"x")

    def fails(*_: object) -> None:
        raise LogError("the connection broke as it was committed")

    monkeypatch.setattr(LiveVideos, "add", fails)
    with pytest.raises(LogError):
        service.desk._add("n", file, VideoFacts())
    assert names(tmp_path) == sorted([os.path.basename(file.uri), mark_of(file)])


def mark_of(file: StoredFile) -> str:
    return MARK + os.path.basename(file.uri)


def test_what_a_crash_left_is_swept_and_told_and_nothing_else(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk, uploads = service.desk, tmp_path / "uploads"
    kept = desk._add("kept", put(desk.store, b"kept"), VideoFacts()).file
    # Its process died between the commit and the end of the request, or before the commit.
    committed, without_row, young = (put(desk.store, data) for data in (b"c", b"w", b"y"))
    desk.videos.add("committed", committed, VideoFacts())
    (uploads / f"{MARK}half").write_bytes(b"half of a file")
    (uploads / "of somebody else.mp4").write_bytes(b"x")
    for path in uploads.iterdir():
        if not path.name.endswith(os.path.basename(young.uri)):
            os.utime(path, (time.time() - LEFT_S - 60,) * 2)
    assert kept is not None
    with caplog.at_level(logging.WARNING):
        desk.sweep()
        desk.sweep()
    assert names(tmp_path) == sorted(
        [
            *(os.path.basename(file.uri) for file in (kept, committed, young)),
            *(mark_of(young), "of somebody else.mp4"),
        ]
    )
    (told,) = [r.getMessage() for r in caplog.records if "crash" in r.getMessage()]
    assert told == "uploads that a crash cut off were removed: 3"


def test_a_server_sweeps_as_it_starts(
    tiny: TinyRun, store: UploadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept, asked = threading.Event(), []

    def sweep(self: UploadStore, is_needed: Callable[[str], bool]) -> int:
        asked.append(is_needed("/none.mp4"))
        swept.set()
        return 0

    monkeypatch.setattr(UploadStore, "sweep", sweep)
    service = Service(Bundle.load(str(tiny.run)), EventLog(str(tmp_path / "live.sqlite")), seed=0)
    assert swept.wait(60)
    service.close()
    assert asked == [False]


def test_a_file_stands_on_disk_under_its_name_before_it_has_a_row(
    store: UploadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is as durable as the bytes: its folder is synced once it is there."""
    synced, plain = [], os.fsync

    def noted(descriptor: int) -> None:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append([n for n in names(tmp_path) if n[0] != "."] if is_folder else "file")
        plain(descriptor)

    monkeypatch.setattr(upload_store.os, "fsync", noted)
    file = put(store, b"x")
    assert synced == ["file", [os.path.basename(file.uri)]]


def test_a_folder_whose_filesystem_cannot_sync_it_is_used_all_the_same(
    store: UploadStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = os.fsync

    def refuses(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        plain(descriptor)

    monkeypatch.setattr(upload_store.os, "fsync", refuses)
    assert Path(put(store, b"x").uri).read_bytes() == b"x"


def test_a_full_disk_is_told_on_both_ways_and_leaves_nothing(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.mp4").write_bytes(b"x")
    client = TestClient(make_api(service))
    monkeypatch.setattr(upload_store.os, "fsync", full)
    sent = client.post(
        "/v1/videos",
        params={"video_id": "n"},
        content=b"x",
        headers={"Content-Type": "video/mp4"},
    )
    body = {"video_id": "n", "uri": str(tmp_path / "root" / "a.mp4")}
    for answer in (sent, client.post("/v1/videos", json=body)):
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
        assert "there is no room for the video" in answer.json()["detail"]
    assert names(tmp_path) == []
    assert client.get("/v1/videos/n").status_code == 404


def test_a_name_that_cannot_be_given_leaves_nothing(
    store: UploadStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_store, "_sync_folder", full)
    with pytest.raises(StoreFailed):
        put(store, b"x")
    assert names(tmp_path) == []


def test_bytes_that_find_no_room_say_so(store: UploadStore, tmp_path: Path) -> None:
    """Also where the file that is given up finds none for its last bytes."""
    with pytest.raises(StoreFailed, match="No space left"), store.receiving() as incoming:
        incoming._file.write = full  # type: ignore[assignment, method-assign]
        incoming._file.close = full  # type: ignore[method-assign]
        incoming.write(b"x")
    assert names(tmp_path) == []


def test_a_conflict_is_still_one(service: Service) -> None:
    service.desk._add("n", None, VideoFacts())
    with pytest.raises(VideoConflict):
        service.desk._add("n", None, VideoFacts(title="another"))


def test_slow_addresses_hold_up_no_other_work(service: Service) -> None:
    """All of their threads wait for a server; the pool that all else shares has one thread."""
    begun, end = threading.Semaphore(0), threading.Event()

    class Slow:
        @contextmanager
        def open(self, uri: str) -> Iterator[Iterator[bytes]]:
            begun.release()
            end.wait(60)
            yield iter([uri.encode()])

    service.desk._fetcher = Slow()  # type: ignore[assignment]

    async def run() -> list[bytes]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        fetches = [asyncio.create_task(service.desk.fetch(f"slow {n}")) for n in range(6)]
        try:
            await asyncio.sleep(0)
            others = asyncio.to_thread(service.desk.videos.latest_seq)
            assert await asyncio.wait_for(others, 20) == 0
        finally:
            end.set()
        files = await asyncio.gather(*fetches)
        return [Path(file.uri).read_bytes() for file in files]

    assert asyncio.run(run()) == [f"slow {n}".encode() for n in range(6)]
    assert begun.acquire(blocking=False)
