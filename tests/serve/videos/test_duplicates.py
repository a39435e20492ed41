"""Near-duplicates of an upload among the bundle's own videos, by what profiles tell of contents."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

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
from recsys.live.videos.live_videos import VideoFacts
from recsys.serve.service import Service
from recsys.serve.videos.encoding import Encoding
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
