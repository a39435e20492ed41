"""Near-duplicates of an upload among the bundle's own videos, by what profiles tell of contents."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.data.clip_store import ClipRows
from recsys.features.batches import VideoInputs
from recsys.features.inputs import ClipShape
from recsys.inference.encode import all_vectors
from recsys.live.log.events import EventLog
from recsys.live.videos.encoding_queue import Encoded, EncodingQueue
from recsys.live.videos.live_videos import LiveVideos, StoredFile, VideoFacts, VideoVector
from recsys.serve.service import Service
from recsys.serve.videos.duplicates import LiveContents
from recsys.serve.videos.encoder_work import EncoderWork
from recsys.serve.videos.encoding import NOT_LOOKED_AT, Encoding
from tests import videos
from tests.bundles import make_run
from tests.serve.videos.test_videos import DECODES, FRAMES, SIZE, upload

ROW = 7
CLIP = [videos.gray(i) for i in range(24)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its vectors are those of its model; v7 alone has a clip, with an ID and facts of its own."""
    folder = tmp_path_factory.mktemp("own")
    clip = ClipShape(FRAMES, SIZE)
    run = make_run(folder / "run", uris=["/none.mp4"], clip=clip, **DECODES)
    bundle = Bundle.load(str(run.run))
    path = videos.render(folder / "own.mp4", CLIP, options={"g": "10"})
    clips = Encoding(bundle.video_model).clip(str(path))[None]
    total = len(bundle.catalog)
    rows = ClipRows(np.where(np.arange(total) == ROW, 0, -1))
    inputs = VideoInputs(bundle.catalog, np.arange(total), rows, lambda wanted: clips[wanted])
    vectors = all_vectors(bundle.recommender, inputs, torch.device("cpu")).numpy()
    return replace(bundle, vectors=vectors)


@pytest.fixture
def service(bundle: Bundle, tmp_path: Path) -> Iterator[Service]:
    service = Service(bundle, EventLog(str(tmp_path / "live.sqlite")), seed=0)
    yield service
    service.close()


def test_what_a_profile_tells_of_the_content_is_what_the_content_adds(bundle: Bundle) -> None:
    """And nothing is told of videos without a clip, of which all have the same."""
    contents = Encoding(bundle.video_model).catalogue
    there = np.linalg.norm(contents._unit_NF, axis=1)
    np.testing.assert_allclose(there, np.eye(len(there))[ROW], atol=1e-6)


def test_an_upload_like_a_video_of_the_bundle_is_said_to_be_so(
    client: TestClient, tmp_path: Path
) -> None:
    same = videos.render(tmp_path / "same.mp4", CLIP, options={"g": "5", "crf": "10"})
    added = upload(client, "same", same.read_bytes(), creator_id="c3", duration=99.0)
    assert added["duplicate_of"] == f"v{ROW}"
    assert 0.9999 <= added["similarity"] <= 1
    other = videos.render(tmp_path / "other.mp4", [videos.quarters()] * 12)
    assert upload(client, "other", other.read_bytes())["duplicate_of"] is None


def test_of_many_live_videos_all_are_looked_at(tmp_path: Path) -> None:
    """They are read in pages, each within the limit of a server's reads."""
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        queue, live = EncodingQueue(log.database), LiveContents()
        for number in range(5):
            content = np.eye(5, dtype=np.float32)[number]
            LiveVideos(log.database).add(f"n{number}", None, VideoFacts())
            video = queue.claim()
            assert video is not None
            queue.encoded(video, Encoded({"1": VideoVector(content, content)}, None))
        pages = partial(queue.contents, limit=2)
        live.follow(SimpleNamespace(contents=pages), "1")  # type: ignore[arg-type]
        assert [live.nearest(one) for one in np.eye(5, dtype=np.float32)] == [
            (f"n{number}", 1.0) for number in range(5)
        ]


def test_a_deleted_video_of_the_bundle_is_not_named(client: TestClient, tmp_path: Path) -> None:
    files = [
        videos.render(tmp_path / f"{crf}.mp4", CLIP, options={"g": "5", "crf": crf}).read_bytes()
        for crf in ("10", "11")
    ]
    assert client.delete(f"/v1/videos/v{ROW}").status_code == 200
    assert upload(client, "first", files[0])["duplicate_of"] is None
    assert upload(client, "second", files[1])["duplicate_of"] == "first"
    client.delete("/v1/videos/first")
    assert client.get("/v1/videos/second").json()["duplicate_of"] is None
    assert upload(client, "third", files[0])["duplicate_of"] == "second"


def test_deleted_videos_of_the_bundle_are_passed_over(bundle: Bundle, tmp_path: Path) -> None:
    encoding = Encoding(bundle.video_model)
    path = videos.render(tmp_path / "same.mp4", CLIP, options={"g": "5", "crf": "10"})
    content = encoding.vector(VideoFacts(), encoding.clip(str(path))).content
    assert content is not None
    nearest = encoding.catalogue.nearest(content, {"v1"})
    assert nearest is not None and nearest.video_id == f"v{ROW}"
    assert encoding.catalogue.nearest(content, {f"v{ROW}"}) is None


def test_live_videos_go_first(client: TestClient, tmp_path: Path) -> None:
    files = [
        videos.render(tmp_path / f"{crf}.mp4", CLIP, options={"g": "5", "crf": crf}).read_bytes()
        for crf in ("10", "11")
    ]
    assert upload(client, "first", files[0])["duplicate_of"] == f"v{ROW}"
    assert upload(client, "second", files[1])["duplicate_of"] == "first"


def test_contents_are_kept_of_those_versions_alone_that_are_encoded(
    bundle: Bundle, service: Service, tmp_path: Path
) -> None:
    clip = videos.render(tmp_path / "own.mp4", CLIP, options={"g": "10"})
    encodings = {bundle.version: Encoding(bundle.video_model)}
    work = EncoderWork(service.log.database, service.desk.store, lambda: encodings)
    service.desk.videos.add("new", kept(service, clip), VideoFacts())
    assert work.one() and work._contents.keys() == {bundle.version}
    encodings = {"next": Encoding(replace(bundle.video_model, version="next"))}
    assert not work.one() and not work._contents


@pytest.mark.parametrize("serves", ["looks", "does not"])
def test_what_is_said_of_a_vector_is_said_of_the_version_that_serves(
    bundle: Bundle, service: Service, tmp_path: Path, serves: str
) -> None:
    """One that is warm, or is to serve, may look at frames where it does not, and may not."""
    clip = videos.render(tmp_path / "own.mp4", CLIP, options={"g": "10"})
    looks = Encoding(bundle.video_model)
    blind = Encoding(replace(bundle.video_model, version="blind"))
    blind.looks_at_clips, blind.vector = False, looks.vector  # type: ignore[method-assign]
    order = (looks, blind) if serves == "looks" else (blind, looks)
    encodings = {one.version: one for one in order}
    video = service.desk.videos.add("new", kept(service, clip), VideoFacts())
    assert EncoderWork(service.log.database, service.desk.store, lambda: encodings).one()
    video = service.desk.videos.get("new") or video
    assert video.message == (None if serves == "looks" else NOT_LOOKED_AT)


def kept(service: Service, path: Path) -> StoredFile:
    with service.desk.store.receiving() as incoming:
        incoming.write(path.read_bytes())
        return incoming.keep()
