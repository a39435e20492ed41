"""What an encoder does where a video cannot be encoded: by the video's fault or its own."""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle, VideoModel
from recsys.decode.contract import ReadError
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.live.videos.encoding_queue import LEASE_MS, MOST_TRIES, Encoded, EncodingQueue
from recsys.live.videos.live_videos import LiveVideos, StoredFile, VideoFacts, VideoVector
from recsys.schema import files_schema
from recsys.serve.api import make_api
from recsys.serve.service import Service
from recsys.serve.videos import encoder_work
from recsys.serve.videos.duplicates import LiveContents
from recsys.serve.videos.encoder_work import EncoderThread, EncoderWork
from recsys.serve.videos.encoding import Decoded, Encoding
from recsys.serve.videos.upload_store import UploadStore
from tests import videos as videos_made
from tests.bundles import TinyRun

FAULTY = VideoFacts(title="faulty")


class FaultyEncoding(Encoding):
    """An encoding with a fault of its own at one of the videos."""

    def vector(self, facts: VideoFacts, clip: object) -> object:  # type: ignore[override]
        if facts == FAULTY:
            raise ZeroDivisionError("a fault of ours")
        return super().vector(facts, clip)  # type: ignore[arg-type]


@pytest.fixture
def service(tiny: TinyRun, tmp_path: Path) -> Iterator[Service]:
    """Its videos are encoded elsewhere."""
    bundle = Bundle.load(str(tiny.run))
    log = EventLog(str(tmp_path / "live.sqlite"))
    service = Service(bundle, log, settings=bundle.config.serve, seed=0)
    yield service
    service.close()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Milliseconds of the queue's clock, which a test moves on."""
    now_ms = [1_764_143_103_000]
    made = EncodingQueue.__init__

    def with_clock(self: EncodingQueue, database: object) -> None:
        made(self, database, clock=lambda: now_ms[0])  # type: ignore[arg-type]

    monkeypatch.setattr(EncodingQueue, "__init__", with_clock)
    return now_ms  # type: ignore[return-value]


def work_of(service: Service, encoding: Encoding, folder: Path) -> EncoderWork:
    store = UploadStore(str(folder / "uploads"))
    return EncoderWork(service.log.database, store, lambda: {encoding.version: encoding})


def test_a_fault_of_ours_is_tried_again_then_refused_told_and_counted(
    clock: list[int], service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = LiveVideos(service.log.database)
    work = work_of(service, FaultyEncoding(service.bundle.video_model), tmp_path)
    client = TestClient(make_api(service))
    videos.add("faulty", None, FAULTY)
    videos.add("fine", None, VideoFacts())
    assert [work.one(), work.one(), work.one()] == [True, True, False]
    told = client.get("/v1/videos/faulty").json()
    (fault,) = told["faults"]
    assert told["state"] == "stored"
    assert (fault["version"], fault["tries"], fault["reason"]) == (None, 1, "not_encoded")
    for _ in range(MOST_TRIES - 1):
        clock[0] += LEASE_MS + 1
        assert work.one()
    told = client.get("/v1/videos/faulty").json()
    assert (told["state"], told["reason"]) == ("refused", "not_encoded")
    assert told["faults"][0]["tries"] == MOST_TRIES
    assert client.get("/v1/videos/fine").json()["state"] == "indexed"
    lasting = [r for r in caplog.records if r.levelno == logging.ERROR and "refused" in r.message]
    assert len(lasting) == 1 and "a fault of ours" in caplog.text
    service.desk.tell()
    figures = client.get("/metrics").text
    assert 'recsys_live_videos{replica="0",state="refused"} 1.0' in figures
    assert 'recsys_live_videos{replica="0",state="indexed"} 1.0' in figures
    assert 'recsys_live_videos_refused{reason="not_encoded",replica="0"} 1.0' in figures


def test_what_people_are_shown_of_a_file_is_kept_though_that_failed_once(
    clock: list[int], service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the folder of uploads is full, or the encoder dies, between two of the files."""
    plain = videos_made.numbered(tmp_path / "plain.mp4")
    track = videos_made.TextTrack("mov_text", [(100, 500, b"One")])
    clip = videos_made.captioned(plain, tmp_path / "captioned.mp4", track)
    store = UploadStore(str(tmp_path / "uploads"))
    with store.receiving() as incoming:
        incoming.write(clip.read_bytes())
        file = incoming.keep()
    LiveVideos(service.log.database).add("new", file, VideoFacts(duration=1.0))
    work, keep = work_of(service, Encoding(service.bundle.video_model), tmp_path), []

    def full(self: UploadStore, uri: str, content: bytes | None) -> None:
        keep.append(uri)
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(UploadStore, "keep_shown", full)
        assert work.one() and keep
    clock[0] += LEASE_MS + 1
    assert work.one()
    assert Path(file.captions_uri).read_text().endswith("One\n")
    assert Path(file.poster_uri).read_bytes()[8:12] == b"WEBP"


def test_what_cannot_be_encoded_for_another_version_is_told_and_holds_up_no_other(
    clock: list[int], service: Service, tmp_path: Path
) -> None:
    """Both videos have a vector of another version; the served one's encoding fails at one."""
    videos, encoding = LiveVideos(service.log.database), Encoding(service.bundle.video_model)
    version, encoding.version = encoding.version, "another"
    work = work_of(service, encoding, tmp_path)
    videos.add("a faulty one", None, FAULTY)
    videos.add("fine", None, VideoFacts())
    assert [work.one(), work.one(), work.one()] == [True, True, False]
    faulty = FaultyEncoding(service.bundle.video_model)
    assert work.missing(faulty) == 1
    for _ in range(MOST_TRIES):
        clock[0] += LEASE_MS
        assert work.missing(faulty) == 0
    client = TestClient(make_api(service))
    told = client.get("/v1/videos/a faulty one").json()
    assert told["state"] == "indexed"
    (fault,) = told["faults"]
    assert (fault["version"], fault["tries"], fault["reason"]) == (
        *(version, MOST_TRIES),
        "not_encoded",
    )
    (served,) = client.get("/v1/versions").json()["versions"]
    assert (served["version"], served["videos_not_encoded"]) == (version, 1)
    service.desk.tell()
    assert 'recsys_live_videos_not_encoded{replica="0"} 1.0' in client.get("/metrics").text


def test_what_one_version_fails_at_is_not_refused_where_another_one_can_use_it(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is then a video that the first one lacks."""
    videos, encoding = LiveVideos(service.log.database), Encoding(service.bundle.video_model)
    another = FaultyEncoding(replace(service.bundle.video_model, version="another"))
    encodings = {one.version: one for one in (another, encoding)}
    store = UploadStore(str(tmp_path / "uploads"))
    work = EncoderWork(service.log.database, store, lambda: encodings)
    video = videos.add("faulty", None, FAULTY)
    assert work.one()
    assert (videos.get("faulty") or video).state == "indexed"
    queue = EncodingQueue(service.log.database)
    assert [one.video_id for one in queue.missing("another")] == ["faulty"]
    assert queue.missing(encoding.version) == []
    assert "video faulty has no vector of another yet" in caplog.text


def test_settings_that_a_file_cannot_be_read_with_are_tried_once(
    service: Service, tmp_path: Path
) -> None:
    """Though several versions have them."""
    store, tried = UploadStore(str(tmp_path / "uploads")), []

    class Unreadable(Encoding):
        def decode(self, uri: str) -> Decoded:
            tried.append(self.version)
            raise ReadError("no_video", "nothing to see")

    models = (replace(service.bundle.video_model, version=f"{n}") for n in range(3))
    encodings = {one.version: one for one in map(Unreadable, models)}
    with store.receiving() as incoming:
        incoming.write(b"no video")
        file = incoming.keep()
    videos = LiveVideos(service.log.database)
    video = videos.add("broken", file, VideoFacts())
    assert EncoderWork(service.log.database, store, lambda: encodings).one()
    video = videos.get("broken") or video
    assert (video.state, video.reason, tried) == ("refused", "no_video", ["0"])


def test_a_version_that_comes_while_a_video_is_encoded_gets_its_vector(
    service: Service, tmp_path: Path
) -> None:
    model = service.bundle.video_model
    encodings: dict[str, Encoding] = {}

    class Slow(Encoding):
        def vector(self, facts: VideoFacts, clip: object) -> object:  # type: ignore[override]
            encodings["next"] = Encoding(replace(model, version="next"))
            return super().vector(facts, clip)  # type: ignore[arg-type]

    encodings[model.version] = Slow(model)
    store = UploadStore(str(tmp_path / "uploads"))
    LiveVideos(service.log.database).add("new", None, VideoFacts())
    assert EncoderWork(service.log.database, store, lambda: encodings).one()
    queue = EncodingQueue(service.log.database)
    assert [queue.missing(version) for version in (model.version, "next")] == [[], []]


def test_an_encoders_failures_are_counted_and_end_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The database is away, then there is a fault of ours, then all is well."""
    monkeypatch.setattr(encoder_work, "LOOKS_S", 0.0)
    errors, well, failures = [LogError("away"), ZeroDivisionError("ours")], Event(), []

    class Work:
        def one(self) -> bool:
            if errors:
                raise errors.pop(0)
            well.set()
            return False

        def missing(self, encoding: Encoding) -> int:
            return 0

    thread = EncoderThread(Work(), dict, failed=lambda: failures.append("once"))  # type: ignore[arg-type]
    assert well.wait(30)
    thread.close()
    assert failures == ["once", "once"]
    assert "the encoder waits: away" in caplog.text and "the encoder failed" in caplog.text


def test_a_duration_is_read_from_the_file_in_the_unit_of_the_catalogue(
    service: Service, tmp_path: Path
) -> None:
    """The table has milliseconds: of two files it says 1,000 times their seconds."""
    clip = videos_made.numbered(tmp_path / "one.mp4")
    store = UploadStore(str(tmp_path / "uploads"))
    with store.receiving() as incoming:
        incoming.write(clip.read_bytes())
        file = incoming.keep()
    encoding = Encoding(in_milliseconds(service.bundle.video_model))
    assert encoding.duration_per_s == pytest.approx(1000)
    assert in_milliseconds_too(service.bundle).watched_per_s == pytest.approx(1000)
    seconds = encoding.decode(file.uri).duration_s
    assert seconds is not None and seconds > 0
    videos, work = LiveVideos(service.log.database), work_of(service, encoding, tmp_path)
    videos.add("said", file, VideoFacts(duration=7.0))
    videos.add("unsaid", file, VideoFacts(creator_id="c1"))
    videos.add("without a file", None, VideoFacts())
    while work.one():
        pass
    durations = {video.video_id: video.facts.duration for video in videos.page()}
    assert durations == {
        "said": 7.0,
        "unsaid": pytest.approx(1000 * seconds, abs=0.001),
        "without a file": None,
    }
    assert encoding.vector(VideoFacts(), None).vector.shape == (service.bundle.vectors.shape[1],)
    assert EncodingQueue(service.log.database).missing(encoding.version) == []


def stored(folder: Path, data: bytes) -> StoredFile:
    with UploadStore(str(folder / "uploads")).receiving() as incoming:
        incoming.write(data)
        return incoming.keep()


def test_a_folder_of_uploads_that_is_away_refuses_nothing(
    clock: list[int], service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = stored(tmp_path, videos_made.numbered(tmp_path / "one.mp4").read_bytes())
    LiveVideos(service.log.database).add("new", file, VideoFacts(duration=1.0))
    work = work_of(service, Encoding(service.bundle.video_model), tmp_path)
    (tmp_path / "uploads").rename(tmp_path / "away")
    (tmp_path / "uploads").mkdir()
    client = TestClient(make_api(service))
    for tries in range(1, MOST_TRIES + 2):
        assert [work.one(), work.one()] == [True, False]
        told = client.get("/v1/videos/new").json()
        (fault,) = told["faults"]
        assert (told["state"], fault["tries"], fault["reason"]) == ("stored", tries, "missing")
        clock[0] += LEASE_MS + 1
    assert caplog.text.count("video new is tried again") == MOST_TRIES + 1
    (tmp_path / "uploads").rmdir()
    (tmp_path / "away").rename(tmp_path / "uploads")
    assert work.one()
    assert client.get("/v1/videos/new").json()["state"] == "indexed"


def test_what_a_version_holds_itself_is_looked_at_once(
    clock: list[int], service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And each change once more, and what failed when it has rested."""
    model = service.bundle.video_model
    videos, queue = LiveVideos(service.log.database), EncodingQueue(service.log.database)
    vector = VideoVector(np.zeros(3, np.float32), None)
    for name in ("v1", "v2", "new"):
        queue.encoded(videos.add(name, None, VideoFacts()), Encoded({"old": vector}, None))
    asked: list[str] = []
    holds = Encoding.holds

    def noted(self: Encoding, video_id: str) -> bool:
        asked.append(video_id)
        return holds(self, video_id)

    monkeypatch.setattr(Encoding, "holds", noted)
    encoding = FaultyEncoding(model)
    work = work_of(service, encoding, tmp_path)
    assert [work.missing(encoding) for _ in range(3)] == [1, 0, 0]
    assert asked == ["v1", "v2", "new"]
    videos.change("v1", {"title": "changed"})
    videos.change("new", {"title": FAULTY.title, "creator_id": "c1"})
    assert [work.missing(encoding) for _ in range(2)] == [1, 0]
    assert asked[3:] == ["v1", "new"]
    queue.encoded(videos.add("faulty", None, FAULTY), Encoded({"old": vector}, None))
    assert [work.missing(encoding) for _ in range(2)] == [0, 0]
    clock[0] += LEASE_MS
    assert work.missing(Encoding(model)) == 1
    assert asked[5:] == ["faulty"]


def test_no_deleted_video_is_the_nearest(service: Service) -> None:
    """Neither a live one nor one of the bundle; the next nearest is."""
    videos, queue = LiveVideos(service.log.database), EncodingQueue(service.log.database)
    content, contents = np.ones(4, np.float32), LiveContents()
    vector = VideoVector(content, content)
    for name in ("a", "b"):
        queue.encoded(videos.add(name, None, VideoFacts()), Encoded({"v": vector}, None))
    contents.follow(queue, "v")
    videos.delete("a")
    contents.follow(queue, "v")
    assert contents.nearest(content) == ("b", 1.0)
    videos.delete("b")
    videos.delete("v3", in_bundle=True)
    contents.follow(queue, "v")
    assert contents.nearest(content) is None
    assert contents.deleted == {"a", "b", "v3"}


def in_milliseconds(model: VideoModel) -> VideoModel:
    """Of whose videos the first two have files, which are known to last 2 and 4 seconds."""
    seconds = np.full(len(model.catalog), np.nan, np.float32)
    durations = np.full(len(model.catalog), np.nan)
    seconds[[1, 2, 3]], durations[[1, 2, 4]] = [2, 4, 8], [2000, 4000, 9000]
    nothing = pa.nulls(len(seconds), pa.large_binary())
    files = pa.table([pa.array(seconds, from_pandas=True), nothing, nothing], schema=files_schema())
    data = model.config.data
    columns = data.video_columns.model_copy(update={"duration": "length"})
    data = data.model_copy(update={"video_columns": columns})
    return replace(
        model,
        config=model.config.model_copy(update={"data": data}),
        catalog=replace(model.catalog, durations=durations),
        details=replace(model.details, files=files),
    )


def in_milliseconds_too(bundle: Bundle) -> Bundle:
    made = in_milliseconds(bundle.video_model)
    return replace(bundle, config=made.config, catalog=made.catalog, details=made.details)


def test_the_version_that_is_tried_beside_gets_vectors_too(service: Service) -> None:
    model = service.bundle.video_model
    service.desk._models = lambda: [model, replace(model, version="tried")]
    service.desk.tell()
    assert service.desk.queue.served() == {model.version, "tried"}
