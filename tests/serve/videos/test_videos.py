"""Videos that come live: recommendable at once, on every replica, and as training would have it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.features.inputs import ClipShape, VideoBatch
from recsys.live.clock import now
from recsys.live.log.event import LAST_MS
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from recsys.serve.videos.desk import make_missing
from recsys.serve.videos.encoder_work import EncoderWork
from recsys.serve.videos.encoding import Encoding
from tests import videos
from tests.bundles import DECODES, FRAMES, SIZE, TinyRun, make_run

FACTS = {"creator_id": "c2", "categories": ["kind=calm"], "duration": 12.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run whose model looks at frames."""
    folder = tmp_path_factory.mktemp("framed")
    return make_run(folder / "run", uris=["/none.mp4"], clip=ClipShape(FRAMES, SIZE), **DECODES)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return videos.numbered(tmp_path_factory.mktemp("clips") / "one.mp4").read_bytes()


@pytest.fixture(scope="module")
def other_clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    pictures = [videos.quarters()] * 12
    return videos.render(tmp_path_factory.mktemp("clips") / "two.mp4", pictures).read_bytes()


def service_of(run: TinyRun, folder: Path) -> Service:
    return Service(Bundle.load(str(run.run)), EventLog(str(folder / "live.sqlite")), seed=0)


@pytest.fixture
def service(run: TinyRun, tmp_path: Path) -> Iterator[Service]:
    service = service_of(run, tmp_path)
    yield service
    service.close()


def upload(client: TestClient, video_id: str, data: bytes, **facts: object) -> dict:
    """The answer once the video is usable or refused, however busy the machine is."""
    answer = client.post(
        "/v1/videos",
        params={"video_id": video_id, "wait_s": 60, **facts},
        content=data,
        headers={"Content-Type": "video/mp4"},
    )
    return {**answer.json(), "status": answer.status_code}


def only(client: TestClient, *video_ids: str) -> list[str]:
    """Which of some videos a recommendation holds that may hold no others."""
    body = {"user_id": "u9", "k": 20, "filters": {"video_ids": list(video_ids)}}
    return [item["video_id"] for item in client.post("/v1/recommend", json=body).json()["items"]]


def similar(client: TestClient, video_id: str) -> list[str]:
    answer = client.get("/v1/similar", params={"video_id": video_id, "k": 40}).json()
    return [item["video_id"] for item in answer["items"]]


def test_an_upload_is_recommended_scored_and_similar_at_once(
    client: TestClient, clip: bytes
) -> None:
    added = upload(client, "new/1", clip, **FACTS)
    assert (added["status"], added["state"]) == (201, "indexed")
    assert added["size_bytes"] == len(clip)
    assert added["received_ms"] <= added["decoded_ms"] <= added["indexed_ms"] <= now()
    assert only(client, "new/1") == ["new/1"]
    assert "new/1" in similar(client, "v1")
    assert len(similar(client, "new/1")) == 30
    scored = client.post("/v1/score", json={"user_id": "u9", "video_ids": ["new/1"]}).json()
    assert scored["items"][0]["video_id"] == "new/1"
    filters = {"categories": ["kind=calm"], "creators": ["c2"], "max_duration": 12}
    body = {"user_id": "u9", "k": 20, "filters": filters}
    items = client.post("/v1/recommend", json=body).json()["items"]
    assert [item["video_id"] for item in items] == ["new/1"]
    assert "new/1" in [v["video_id"] for v in client.get("/v1/latest?k=1").json()["items"]]
    assert client.get("/v1/videos/new/1/file").content == clip
    details = client.post("/v1/details", json={"video_ids": ["new/1"]}).json()["items"][0]
    assert (details["file"], details["poster"]) == (
        "v1/videos/new%2F1/file",
        "v1/videos/new%2F1/poster",
    )
    picture = client.get("/v1/videos/new/1/poster")
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    assert picture.content[8:12] == b"WEBP"
    assert details["captions"] is None
    client.delete("/v1/videos/new/1")
    assert client.get("/v1/videos/new/1/poster").status_code == 404


def test_an_upload_brings_its_captions_and_takes_them_along(
    client: TestClient, tmp_path: Path
) -> None:
    plain = videos.numbered(tmp_path / "plain.mp4")
    track = videos.TextTrack("mov_text", [(100, 500, b"<b>One</b>")])
    path = videos.captioned(plain, tmp_path / "captioned.mp4", track)
    assert upload(client, "new", path.read_bytes(), **FACTS)["status"] == 201
    (details,) = client.post("/v1/details", json={"video_ids": ["new"]}).json()["items"]
    assert details["captions"] == "v1/videos/new/captions"
    answer = client.get("/v1/videos/new/captions")
    assert answer.text == "WEBVTT\n\n00:00:00.100 --> 00:00:00.600\n&lt;b&gt;One&lt;/b&gt;\n"
    assert answer.headers["content-type"] == "text/vtt; charset=utf-8"
    client.delete("/v1/videos/new")
    assert client.get("/v1/videos/new/captions").status_code == 404
    assert [p for p in (tmp_path / "uploads").rglob("*") if p.is_file()] == []


def test_its_vector_is_the_one_that_decode_and_publish_would_have_given(
    run: TinyRun, client: TestClient, service: Service, clip: bytes, tmp_path: Path
) -> None:
    """By the model's own door, from frames read by the reader of the decode stage."""
    upload(client, "new", clip, creator_id="c2", duration=12.0)
    path = tmp_path / "same.mp4"
    path.write_bytes(clip)
    frames = Encoding(service.bundle.video_model).clip(str(path))
    batch = VideoBatch(
        id_rows=torch.zeros(2, dtype=torch.int64),
        creator_rows=torch.tensor([0, 2]),
        category_rows=torch.zeros(0, dtype=torch.int64),
        category_lengths=torch.tensor([0, 0]),
        # The second of 23 known durations: above the first of 30 quantiles, below the second.
        durations=torch.tensor([0, 2]),
        clips=torch.from_numpy(frames.copy())[None],
        clip_index=torch.tensor([-1, 0]),
    )
    with torch.inference_mode():
        expected = run.recommender.encode_videos(batch)[1].numpy()
    row = service.recommender.catalogue.row("new")
    vector = service.recommender.catalogue.vectors(np.array([row]))[0].numpy()
    np.testing.assert_allclose(vector, expected, rtol=1e-5, atol=1e-6)


def test_the_same_once_more_changes_nothing_and_another_is_a_conflict(
    client: TestClient, clip: bytes, other_clip: bytes
) -> None:
    first = upload(client, "new", clip, **FACTS)
    assert upload(client, "new", clip, **FACTS) == {**first, "status": 200}
    assert upload(client, "new", other_clip, **FACTS)["status"] == 409
    assert upload(client, "new", clip, **{**FACTS, "creator_id": "c1"})["status"] == 409
    assert upload(client, "v1", clip)["status"] == 409  # the catalogue's


def test_what_is_no_video_is_refused_with_the_reason_and_may_be_mended(
    client: TestClient, clip: bytes, tmp_path: Path
) -> None:
    answer = upload(client, "new", b"<html>not found</html>")
    assert answer["status"] == 422
    assert "not_video" in answer["detail"] or "unsupported_format" in answer["detail"]
    told = client.get("/v1/videos/new").json()
    assert (told["state"], told["indexed_ms"]) == ("refused", None)
    assert "new" not in similar(client, "v1")
    assert [p for p in (tmp_path / "uploads").rglob("*") if p.is_file()] == []
    assert upload(client, "new", clip)["status"] == 201


def latest(client: TestClient) -> list[str]:
    return [video["video_id"] for video in client.get("/v1/latest?k=40").json()["items"]]


OF_EACH_KIND = pytest.mark.parametrize("video_id", ["new", "v29"])
"""A video that came live, and one of the bundle."""


def test_when_a_video_ends_is_told_in_milliseconds(client: TestClient, clip: bytes) -> None:
    """Far ahead is right; seconds would have ended it in 1970."""
    upload(client, "new", clip, expires_ms=LAST_MS, **FACTS)
    reason = "these are seconds; send milliseconds; the server's time is"
    headers = {"Content-Type": "video/mp4"}
    asked = {"video_id": "other", "expires_ms": 1_900_000_000}
    for refused, given in (
        (client.patch("/v1/videos/new", json={"expires_ms": 1_900_000_000}), "1900000000"),
        (client.post("/v1/videos", params=asked, content=clip, headers=headers), "'1900000000'"),
    ):
        assert refused.status_code == 422
        assert f"expires_ms={given}: {reason}" in refused.json()["detail"]
    assert client.get("/v1/videos/new").json()["expires_ms"] == LAST_MS
    assert client.get("/v1/videos/other").status_code == 404


@OF_EACH_KIND
@pytest.mark.parametrize("change", [{"hidden": True}, {"expires_ms": 1_764_143_103_000}])
def test_a_hidden_or_expired_video_is_in_no_list_until_it_is_shown_again(
    client: TestClient, clip: bytes, video_id: str, change: dict[str, object]
) -> None:
    upload(client, "new", clip, **FACTS)
    address = f"/v1/videos/{video_id}"
    assert client.patch(address, json=change).status_code == 200
    assert video_id not in only(client, "new", "v29")
    assert video_id not in similar(client, "v1")
    assert video_id not in latest(client)
    scored = client.post("/v1/score", json={"user_id": "u9", "video_ids": [video_id]}).json()
    assert scored["items"]
    again = client.patch(address, json={"hidden": False, "expires_ms": None})
    assert again.status_code == 200
    assert video_id in similar(client, "v1")


@OF_EACH_KIND
def test_a_deleted_video_is_known_to_no_route(
    client: TestClient, clip: bytes, video_id: str
) -> None:
    upload(client, "new", clip, **FACTS)
    address = f"/v1/videos/{video_id}"
    assert client.delete(address).json() == {"video_id": video_id}
    assert video_id not in similar(client, "v1")
    scored = client.post("/v1/score", json={"user_id": "u9", "video_ids": [video_id]}).json()
    assert (scored["items"], scored["unknown_video_ids"]) == ([], [video_id])
    assert client.get("/v1/similar", params={"video_id": video_id}).status_code == 422
    assert client.get(f"{address}/file").status_code == 404
    assert client.patch(address, json={"hidden": False}).status_code == 404
    assert client.get(address).status_code == 404
    again = client.delete(address)
    assert (again.status_code, again.json()) == (200, {"video_id": video_id}), "a repeated call"


def test_of_a_deleted_upload_the_file_goes_and_the_id_stays_taken(
    client: TestClient, clip: bytes, tmp_path: Path
) -> None:
    upload(client, "new", clip, **FACTS)
    client.delete("/v1/videos/new")
    assert upload(client, "new", clip)["status"] == 409
    assert [p for p in (tmp_path / "uploads").rglob("*") if p.is_file()] == []


def test_unknown_videos_are_404(client: TestClient) -> None:
    assert client.get("/v1/videos/zzz").status_code == 404
    assert client.patch("/v1/videos/zzz", json={"hidden": True}).status_code == 404
    assert client.delete("/v1/videos/zzz").status_code == 404


def test_another_replica_and_one_that_starts_later_have_the_same(
    run: TinyRun, service: Service, client: TestClient, clip: bytes, tmp_path: Path
) -> None:
    other = service_of(run, tmp_path)
    upload(client, "new", clip, **FACTS)
    client.patch("/v1/videos/v3", json={"hidden": True})
    later = service_of(run, tmp_path)
    body = {"user_id": "u9", "k": 20, "now_ms": now(), "exclude_seen": False}
    answers = []
    for one in (service, other, later):
        answer = TestClient(make_api(one)).post("/v1/recommend", json=body).json()
        answers.append(answer["items"])
        assert "new" in similar(TestClient(make_api(one)), "v1")
    assert answers[0] == answers[1] == answers[2]
    other.close()
    later.close()


def test_events_of_a_video_that_came_after_them_are_counted(
    client: TestClient, service: Service, clip: bytes
) -> None:
    event = {"user_id": "someone", "video_id": "new"}
    client.post("/v1/events", json=event)
    assert client.get("/v1/history?user_id=someone").json()["events"] == []
    upload(client, "new", clip, **FACTS)
    (past,) = client.get("/v1/history?user_id=someone").json()["events"]
    assert past["video_id"] == "new"
    assert "new" in [v["video_id"] for v in client.get("/v1/popular?k=40").json()["items"]]
    assert only_of(client, "someone", "new") == []  # it was liked


def only_of(client: TestClient, user_id: str, video_id: str) -> list[str]:
    body = {"user_id": user_id, "k": 5, "filters": {"video_ids": [video_id]}}
    return [item["video_id"] for item in client.post("/v1/recommend", json=body).json()["items"]]


def test_a_creator_that_was_hidden_stays_hidden_in_what_comes_later(
    client: TestClient, clip: bytes
) -> None:
    for creator in ("c2", "new creator"):
        hide = {"user_id": creator, "type": "hide_creator", "creator_id": creator}
        assert client.post("/v1/events", json=hide).status_code == 200
        only_of(client, creator, "v1")  # whose past is held from here on
        video_id = f"by {creator}"
        upload(client, video_id, clip, creator_id=creator)
        assert only_of(client, "someone else", video_id) == [video_id]
        assert only_of(client, creator, video_id) == []


def test_near_duplicates_are_said_to_be_so(
    client: TestClient, clip: bytes, other_clip: bytes, tmp_path: Path
) -> None:
    first = upload(client, "first", clip)
    assert (first["duplicate_of"], first["similarity"]) == (None, None)
    same = upload(client, "same", clip)
    assert (same["duplicate_of"], same["similarity"]) == ("first", 1.0)
    again = [videos.gray(i) for i in range(24)]
    like = videos.render(tmp_path / "like.mp4", again, options={"g": "10", "crf": "20"})
    near = upload(client, "near", like.read_bytes())
    assert near["duplicate_of"] in ("first", "same")
    assert 0.98 <= near["similarity"] <= 1


def test_changed_facts_make_another_vector(
    client: TestClient, service: Service, clip: bytes
) -> None:
    upload(client, "new", clip, creator_id="c2")
    encoding = Encoding(service.bundle.video_model)
    client.patch("/v1/videos/new", json={"creator_id": "c1", "categories": ["kind=wild"]})
    body = {"user_id": "u9", "filters": {"creators": ["c1"], "categories": ["kind=wild"]}}
    items = client.post("/v1/recommend", json=body).json()["items"]
    assert [item["video_id"] for item in items] == ["new"]
    work = EncoderWork(service.log.database, service.desk.store, lambda: {"": encoding})
    work.missing(encoding)  # now, rather than when the encoder looks again
    service.recommender.catch_up()
    video = service.desk.videos.get("new")
    assert video is not None and video.file is not None
    expected = encoding.vector(video.facts, encoding.clip(video.file.uri)).vector
    row = np.array([service.recommender.catalogue.row("new")])
    found_vector = service.recommender.catalogue.vectors(row)[0].numpy()
    np.testing.assert_allclose(found_vector, expected, rtol=1e-5, atol=1e-6)


def test_people_are_shown_what_was_said_of_a_video(client: TestClient, clip: bytes) -> None:
    upload(client, "n/1", clip, title="A title", **FACTS)
    client.patch("/v1/videos/v2", json={"title": "Another"})
    answer = client.post("/v1/details", json={"video_ids": ["n/1", "v2", "zz"]}).json()
    first, second = answer["items"]
    assert (first["title"], first["creator_id"]) == ("A title", "c2")
    assert (first["categories"], first["file"]) == (["kind=calm"], "v1/videos/n%2F1/file")
    assert second["title"] == "Another"
    assert answer["unknown_video_ids"] == ["zz"]


def test_what_only_the_bundles_table_says_is_not_changed_here(client: TestClient) -> None:
    for change in ({"creator_id": "c1"}, {"categories": []}, {"duration": 3.0}):
        answer = client.patch("/v1/videos/v2", json=change)
        assert answer.status_code == 422
        assert "data.videos" in answer.json()["detail"]
    assert client.patch("/v1/videos/v2", json={"title": "Another"}).json()["creator_id"] == "c3"


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({"params": {"video_id": "n", "categories": "other=x"}}, 422, "kind="),
        ({"params": {"video_id": "n", "nonsense": "1"}}, 422, "nonsense"),
        ({"params": {}}, 422, "video_id"),
        ({"params": {"video_id": "n", "duration": "nan"}}, 422, "duration"),
        ({"params": {"video_id": "n"}, "headers": {"Content-Type": "text/html"}}, 415, "JSON"),
        ({"json": {"video_id": "n", "uri": "/etc/passwd"}}, 422, "serve.video_roots"),
        ({"json": {"video_id": "n"}, "params": {"title": "t"}}, 422, "body"),
        ({"json": {"video_id": "n", "more": 1}}, 422, "more"),
        ({"json": [1]}, 422, ""),
    ],
)
def test_wrong_requests_are_told_what_is_wrong(
    client: TestClient, asked: dict, status: int, said: str
) -> None:
    given = {"headers": {"Content-Type": "video/mp4"}, "content": b"x", **asked}
    if "json" in asked:
        del given["content"], given["headers"]
    answer = client.post("/v1/videos", **given)
    assert answer.status_code == status, answer.text
    assert said in answer.json()["detail"]
    assert client.get("/v1/videos").json() == {"videos": [], "after": None}


def test_an_upload_that_is_too_large_is_ended(run: TinyRun, tmp_path: Path) -> None:
    bundle = Bundle.load(str(run.run))
    config = bundle.config.model_copy(
        update={"serve": bundle.config.serve.model_copy(update={"max_upload_mib": 1})}
    )
    service = Service(replace(bundle, config=config), EventLog(str(tmp_path / "live.sqlite")))
    client = TestClient(make_api(service))

    def pieces() -> Iterator[bytes]:  # without a length
        for _ in range(3):
            yield bytes(2**19)

    for content in (bytes(2**20 + 1), pieces()):
        headers = {"Content-Type": "video/mp4"}
        params = {"video_id": "n"}
        answer = client.post("/v1/videos", params=params, content=content, headers=headers)
        assert answer.status_code == 413
    assert client.patch("/v1/videos/v1", json={"title": "x" * 900}).status_code == 200
    assert [p for p in (tmp_path / "uploads").rglob("*") if p.is_file()] == []
    service.close()


def test_a_video_without_a_file_has_a_vector_of_what_is_said_of_it(client: TestClient) -> None:
    added = client.post("/v1/videos", json={"video_id": "n", "creator_id": "c1"})
    assert (added.status_code, added.json()["decoded_ms"]) == (201, None)
    assert only(client, "n") == ["n"]
    assert client.get("/v1/videos/n/file").status_code == 404


def test_a_model_that_looks_at_no_frames_says_so(
    tiny: TinyRun, clip: bytes, tmp_path: Path
) -> None:
    service = service_of(tiny, tmp_path)
    client = TestClient(make_api(service))
    added = upload(client, "n", clip)
    assert (added["status"], "facts alone" in added["message"]) == (201, True)
    assert upload(client, "m", b"<html>")["status"] == 422
    assert only(client, "n") == ["n"]
    service.close()


def test_what_an_encoder_left_is_taken_up(
    run: TinyRun, client: TestClient, service: Service, clip: bytes, tmp_path: Path
) -> None:
    """A process that only stores; the next one on the same log encodes what waits."""
    bundle, log = Bundle.load(str(run.run)), EventLog(str(tmp_path / "live.sqlite"))
    stored = Service(bundle, log, settings=bundle.config.serve)  # one encoder, elsewhere
    added = upload(TestClient(make_api(stored)), "n", clip, wait_s=0)
    assert (added["status"], added["state"]) == (202, "stored")
    stored.close()
    later = service_of(run, tmp_path)
    ends = now() + 30_000
    while (video := later.desk.videos.get("n")) and video.state == "stored" and now() < ends:
        later.desk.tell()
    assert only(TestClient(make_api(later)), "n") == ["n"]
    later.close()


def test_a_version_that_is_about_to_be_served_gets_the_vectors_that_it_lacks(
    run: TinyRun, service: Service, client: TestClient, clip: bytes
) -> None:
    """As the loading side does before a swap; a version that holds the video takes its own."""
    upload(client, "n", clip)
    bundle = replace(Bundle.load(str(run.run)), version="next")
    recommender = ServingRecommender(bundle, service.log)
    recommender.catch_up()
    assert not recommender.holds("n")
    given = service.log, service.bundle.config.serve, bundle.video_model
    assert [make_missing(*given) for _ in range(2)] == [1, 0]
    recommender.catch_up()
    assert recommender.holds("n")
    client.patch("/v1/videos/v2", json={"hidden": True})
    recommender.catch_up()
    assert recommender.catalogue.unlisted(now()).tolist() == [2]


@pytest.mark.timeout(900)
def test_hostile_videos_are_each_usable_or_a_clear_refusal(
    client: TestClient, shared_dir: Path
) -> None:
    files = sorted((shared_dir / "videos" / "hostile").iterdir())
    usable = []
    for file in files:
        answer = upload(client, file.name, file.read_bytes())
        if answer["status"] == 201:
            usable.append(file.name)
            continue
        assert answer["status"] == 422, (file.name, answer)
        assert "no video that can be used: " in answer["detail"], (file.name, answer)
    assert len(files) > 30
    assert len(usable) >= 10
    assert len(only(client, *usable)) == min(20, len(usable))
    assert client.get("/healthz").status_code == 200
