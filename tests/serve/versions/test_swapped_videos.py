"""A video that was handed in before a swap: the next version has it as its own publishing would."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle, VideoModel
from recsys.bundle.versions import CURRENT
from recsys.data.catalog import Catalog
from recsys.data.clip_store import ClipRows
from recsys.decode.clips import DecodeClips
from recsys.features.batches import VideoInputs
from recsys.features.inputs import ClipShape
from recsys.inference.encode import all_vectors
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.live.versions.watch import Watch
from recsys.live.videos.live_videos import VideoFacts
from recsys.serve.api import make_api
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from recsys.serve.versions.practice import Practice
from recsys.serve.videos.encoder_work import EncoderWork
from recsys.serve.videos.encoding import Encoding
from recsys.serve.videos.upload_store import UploadStore
from tests import videos
from tests.bundles import DECODES, FRAMES, NEW, OLD, SIZE, make_versions


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Two versions whose models look at frames."""
    return make_versions(tmp_path, ["/none.mp4"], clip=ClipShape(FRAMES, SIZE), **DECODES)


@pytest.fixture
def elsewhere(bundles: Path, tmp_path: Path) -> Iterator[Service]:
    """Its videos are encoded elsewhere."""
    log = EventLog(str(tmp_path / "elsewhere.sqlite"))
    settings = Bundle.load(str(bundles / OLD)).config.serve
    assert settings.encoders == 1
    service = Service(Watch(log.database, str(bundles)), log, settings=settings, seed=0)
    yield service
    service.close()


def published(bundle: Bundle, path: Path) -> np.ndarray:
    """The vector (Y,) that decode and publish make of a file, of creator c2, new in the table."""
    decode = bundle.config.decode.model_copy(update={"features": False})
    decoded = DecodeClips(decode)(pa.table({"uri": [str(path)]}))
    frames = decoded.column("frames").combine_chunks().flatten().to_numpy()
    clips = frames.reshape(1, FRAMES, SIZE, SIZE, 3)
    there = bundle.catalog.table
    row = {name: there.column(name)[0].as_py() for name in there.column_names}
    row |= {"creator_row": 2, "category_rows": []}
    catalog = Catalog.from_table(
        pa.concat_tables([there, pa.Table.from_pylist([row], schema=there.schema)])
    )
    total = len(catalog)
    # Too few events of it for an ID of its own, and the only one with a clip here.
    clip_rows = ClipRows(np.where(np.arange(total) == total - 1, 0, -1))
    inputs = VideoInputs(catalog, np.zeros(total, np.int64), clip_rows, lambda rows: clips[rows])
    device = next(bundle.recommender.parameters()).device
    vector: np.ndarray = all_vectors(bundle.recommender, inputs, device)[-1].numpy()
    return vector


def test_its_vector_after_a_swap_is_that_of_decode_and_publish(
    service: Service, bundles: Path, tmp_path: Path
) -> None:
    """Over HTTP by its cosines with all 30 others, which tell its direction in 8 dimensions."""
    path = videos.numbered(tmp_path / "one.mp4")
    client = TestClient(make_api(service))
    added = client.post(
        "/v1/videos",
        params={"video_id": "new", "creator_id": "c2", "wait_s": 60},
        content=path.read_bytes(),
        headers={"Content-Type": "video/mp4"},
    )
    assert added.status_code == 201
    for version in (OLD, NEW):
        (bundles / CURRENT).write_text(version + "\n")
        assert service.versions is not None
        service.versions.look()
        bundle = Bundle.load(str(bundles / version))
        expected, dim = published(bundle, path), bundle.recommender.dim
        told = client.get("/v1/similar", params={"video_id": "new", "k": 40}).json()
        assert told["version"] == version
        others = bundle.vectors[1:, :dim]
        lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(expected[:dim])
        cosines = others @ expected[:dim] / lengths
        scores = {item["video_id"]: item["score"] for item in told["items"]}
        assert scores == pytest.approx(
            {f"v{row + 1}": cosine for row, cosine in enumerate(cosines)}, abs=1e-5
        )
        row = np.array([service.recommender.catalogue.row("new")])
        vector = service.recommender.catalogue.vectors(row)[0].numpy()
        np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)


def encode(service: Service, folder: Path) -> None:
    """An encoder that knows one version only encodes what waits."""
    known = {folder.name: Encoding(VideoModel.load(str(folder)))}
    assert EncoderWork(service.log.database, UploadStore(None), lambda: known).one()


def is_there(service: Service, video_id: str) -> bool:
    return TestClient(make_api(service)).get("/v1/similar?video_id=" + video_id).status_code == 200


def test_what_is_handed_in_while_a_version_gets_ready_is_there_after_the_swap(
    elsewhere: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoders are told first; of what is encoded before they know it nothing is missing."""
    service, told, practise = elsewhere, list[set[str]](), Practice.of
    missing = EncoderWork.missing

    def record(self: EncoderWork, encoding: Encoding) -> int:
        told.append(service.desk.queue.served())
        return missing(self, encoding)

    def add_meanwhile(self: Practice, recommender: object, **has: bool) -> None:
        service.desk.videos.add("new", None, VideoFacts(creator_id="c2"))
        encode(service, bundles / OLD)
        assert [one.video_id for one in service.desk.queue.missing(NEW)] == ["new"]
        practise(self, recommender, **has)  # type: ignore[arg-type]

    flip, held = service.flip, []

    def look_before(recommender: ServingRecommender, beside: None) -> None:
        held.append(recommender.holds("new"))
        flip(recommender, beside)

    monkeypatch.setattr(EncoderWork, "missing", record)
    monkeypatch.setattr(Practice, "of", add_meanwhile)
    monkeypatch.setattr(service, "flip", look_before)
    (bundles / CURRENT).write_text(NEW + "\n")
    assert service.versions is not None
    service.versions.look()
    assert NEW in told[0] and held == [True]
    assert service.bundle.version == NEW and is_there(service, "new")


def test_what_is_encoded_while_the_reference_changes_is_there_after_it(
    elsewhere: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, through = elsewhere, elsewhere._batches.wait_through

    def add_meanwhile() -> None:
        service.desk.videos.add("new", None, VideoFacts(creator_id="c2"))
        encode(service, bundles / OLD)
        through()

    monkeypatch.setattr(service._batches, "wait_through", add_meanwhile)
    (bundles / CURRENT).write_text(NEW + "\n")
    assert service.versions is not None
    service.versions.look()
    assert service.bundle.version == NEW and is_there(service, "new")


def test_a_swap_is_made_though_no_vectors_can_be_made_after_it(
    elsewhere: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, through = elsewhere, elsewhere._batches.wait_through

    def away(*_: object) -> None:
        raise LogError("the log is away")

    def go_away() -> None:
        monkeypatch.setattr(service, "_make_missing", away)
        through()

    monkeypatch.setattr(service._batches, "wait_through", go_away)
    (bundles / CURRENT).write_text(NEW + "\n")
    assert service.versions is not None
    service.versions.look()
    assert [one.state for one in service.versions.states()] == ["serving", "warm"]
    assert b'recsys_failures_total{replica="0",work="videos"} 1.0' in service.metrics.text()


def test_encoders_in_a_replica_know_what_gets_ready_and_what_is_warm(
    service: Service, bundles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the way to a version, and back to it, waits for no encoder."""
    practise, lacking = Practice.of, []
    clip = videos.numbered(tmp_path / "one.mp4").read_bytes()
    client = TestClient(make_api(service))

    def upload(video_id: str) -> None:
        asked = {"video_id": video_id, "wait_s": 30}
        kind = {"Content-Type": "video/mp4"}
        added = client.post("/v1/videos", params=asked, content=clip, headers=kind)
        assert added.json()["state"] == "indexed"
        for version in (OLD, NEW):
            lacking.extend(service.desk.queue.missing(version))

    def add_meanwhile(self: Practice, recommender: object, **has: bool) -> None:
        upload("while it gets ready")
        practise(self, recommender, **has)  # type: ignore[arg-type]

    monkeypatch.setattr(Practice, "of", add_meanwhile)
    (bundles / CURRENT).write_text(NEW + "\n")
    assert service.versions is not None
    service.versions.look()
    upload("while the old one is warm")
    assert lacking == []


def test_encoders_elsewhere_are_told_of_what_is_warm(
    elsewhere: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundles / CURRENT).write_text(NEW + "\n")
    assert elsewhere.versions is not None
    elsewhere.versions.look()
    told: list[str] = []
    monkeypatch.setattr(elsewhere.desk.queue, "serves", told.append)
    elsewhere.desk._told = (), 0.0
    elsewhere.desk.tell()
    assert {NEW, OLD} <= set(told)
