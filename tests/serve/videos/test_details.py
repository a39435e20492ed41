"""What people are shown of videos: titles, creators, lengths, posters and files."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.data.details import Details
from recsys.live.log.events import EventLog
from recsys.schema import details_schema, files_schema
from recsys.serve.service import Service
from tests.bundles import NUM_VIDEOS, TinyRun

WEBP = b"RIFF....WEBP"
OWN = "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nÄ\n".encode()


@pytest.fixture
def service(tiny: TinyRun, log: EventLog, tmp_path: Path) -> Iterator[Service]:
    """v1 has a picture of decode's, v2 a poster of its own, v3 one that is no picture.

    v1 and v3 have captions of their own.
    """
    poster, script = tmp_path / "two.png", tmp_path / "three.svg"
    poster.write_bytes(b"a png")
    script.write_text("<svg/>")
    rest = [None] * (NUM_VIDEOS - 3)
    texts = pa.table(
        [[None, "<b>One</b>", None, "Three", *rest], [None, None, str(poster), str(script), *rest]],
        schema=details_schema(),
    )
    files = pa.table(
        [
            [None, 62.5, float("nan"), None, *rest],
            [None, WEBP, None, None, *rest],
            [None, OWN, None, OWN, *rest],
        ],
        schema=files_schema(),
    )
    bundle = replace(Bundle.load(str(tiny.run)), details=Details(texts, files))
    columns = bundle.config.data.video_columns.model_copy(update={"duration": "length"})
    data = bundle.config.data.model_copy(update={"video_columns": columns})
    bundle = replace(bundle, config=bundle.config.model_copy(update={"data": data}))
    service = Service(bundle, log)
    yield service
    service.close()


def test_details_of_videos_in_the_order_asked_for(client: TestClient) -> None:
    answer = client.post("/v1/details", json={"video_ids": ["v3", "v1", "gone", "v3", "v2"]}).json()
    assert answer["unknown_video_ids"] == ["gone"]
    assert [item["video_id"] for item in answer["items"]] == ["v3", "v1", "v2"]
    # Creator and category of row r are 1 + r % 3 and 1 + r % 2, as tests/bundles.py makes them.
    assert answer["items"][1] == {
        "video_id": "v1",
        "title": "<b>One</b>",
        "creator_id": "c2",
        "categories": ["wild"],
        "duration": 11.0,
        "duration_s": 62.5,
        "poster": "v1/videos/v1/poster",
        "file": "v1/videos/v1/file",
        "captions": "v1/videos/v1/captions",
        "course": None,
        "lesson": None,
    }
    three, two = answer["items"][0], answer["items"][2]
    assert (three["title"], three["poster"], three["file"]) == ("Three", None, None)
    assert (two["title"], two["duration_s"], two["poster"]) == (None, None, "v1/videos/v2/poster")


def test_what_came_live_has_its_length_in_seconds(client: TestClient) -> None:
    """The table says 11 of v1, whose file lasts 62.5 s: 22 of the same unit are 125 s."""
    for said in ({"video_id": "long", "duration": 22.0}, {"video_id": "unsaid"}):
        assert client.post("/v1/videos?wait_s=60", json=said).status_code == 201
    answer = client.post("/v1/details", json={"video_ids": ["long", "unsaid"]}).json()
    assert [one["duration_s"] for one in answer["items"]] == [125.0, None]


@pytest.mark.parametrize("asked", [[], ["v1"] * 1001, [None], "v1"])
def test_wrong_questions_are_refused(client: TestClient, asked: object) -> None:
    answer = client.post("/v1/details", json={"video_ids": asked})
    assert answer.status_code == 422 and "video_ids" in answer.json()["detail"]


def test_posters_are_pictures_and_nothing_else(client: TestClient) -> None:
    made, own = client.get("/v1/videos/v1/poster"), client.get("/v1/videos/v2/poster")
    assert (made.content, made.headers["content-type"]) == (WEBP, "image/webp")
    assert (own.content, own.headers["content-type"]) == (b"a png", "image/png")
    for answer in (made, own):
        assert answer.headers["cache-control"] == "private, max-age=3600"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "default-src 'none'"
    for video_id in ("v3", "v4", "gone"):
        assert client.get(f"/v1/videos/{video_id}/poster").status_code == 404


def test_captions_are_the_file_beside_a_video(client: TestClient) -> None:
    answer = client.get("/v1/videos/v1/captions")
    assert (answer.status_code, answer.text) == (200, "WEBVTT")
    assert answer.headers["content-type"] == "text/vtt; charset=utf-8"
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    for video in ("v2", "v4", "gone"):  # no video file, none, no such video
        assert client.get(f"/v1/videos/{video}/captions").status_code == 404
    part = client.get("/v1/videos/v1/captions", headers={"Range": "bytes=0-2"})
    assert (part.status_code, part.text) == (206, "WEB")


def test_without_a_file_beside_it_a_video_has_its_own_captions(client: TestClient) -> None:
    answer = client.get("/v1/videos/v3/captions")
    assert (answer.status_code, answer.content) == (200, OWN)
    assert answer.headers["content-type"] == "text/vtt; charset=utf-8"
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    asked = {"video_ids": ["v1", "v2", "v3", "v4"]}
    items = client.post("/v1/details", json=asked).json()["items"]
    addresses = ["v1/videos/v1/captions", None, "v1/videos/v3/captions", None]
    assert [item["captions"] for item in items] == addresses
