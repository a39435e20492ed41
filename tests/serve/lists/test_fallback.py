"""What is answered where the model fails or hangs: a list for everybody that says so, and in time.

Of the tiny catalogue v30 was first shown last, v29 before it, and so on; creators are 1 + row % 3.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from fastapi.testclient import TestClient

from recsys.errors import InputError
from recsys.live.clock import now
from recsys.live.log.event import HIDE_CREATOR, NOT_INTERESTED
from recsys.serve.api import make_api
from recsys.serve.asks import Answer, Ask, Filters
from recsys.serve.lists import fallback
from recsys.serve.lists.fallback import REFRESH_MS, Fallback
from recsys.serve.service import Service
from tests.bundles import NUM_VIDEOS, PATIENT_MS, TinyRun
from tests.serve.live import Served


def ids(answer: Answer) -> list[str]:
    return [video.video_id for video in answer.videos]


def fallback_of(served: Served, clock: Callable[[], int] = now) -> Fallback:
    """As of now: with what the log says."""
    served.catch_up()
    return Fallback(served._parts, served._conditions, check=served.check, clock=clock)


@pytest.fixture
def liked(served: Served) -> Served:
    """v6 was liked twice today, v8 once."""
    for user_id, video_id in (("n1", "v6"), ("n2", "v6"), ("n1", "v8")):
        served.tell(user_id, video_id, time_ms=now() - 1000)
    return served


def test_popular_videos_come_first_and_then_the_latest(liked: Served) -> None:
    answer = fallback_of(liked).answer(Ask("nobody", 4), "late")
    assert ids(answer) == ["v6", "v8", "v30", "v29"]
    assert [video.score for video in answer.videos[:2]] == [2, 1]
    assert answer.videos[2].score == liked.ages.first_ms_N[30]
    kinds = [video.reason.kind for video in answer.videos if video.reason]
    assert kinds == ["popular", "popular", "latest", "latest"]
    assert [video.probabilities for video in answer.videos] == [{}] * 4
    assert (answer.known_user, answer.num_history) == (False, 0)
    said = answer.degraded
    assert said is not None and (said.kind, said.cause) == ("popular", "late")
    assert said.detail.startswith("the model did not answer within serve.budget_ms: this list is")


def test_where_nothing_is_popular_it_is_the_latest(served: Served) -> None:
    answer = fallback_of(served).answer(Ask("nobody", 2), "failed")
    assert ids(answer) == ["v30", "v29"]
    assert answer.degraded is not None
    assert (answer.degraded.kind, answer.degraded.cause) == ("latest", "failed")


@pytest.mark.parametrize("ready", [3, 4096])
def test_what_the_request_says_is_obeyed(
    liked: Served, ready: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all that is kept in order is used up."""
    monkeypatch.setattr(fallback, "READY", ready)
    instead = fallback_of(liked)
    of_c1 = Filters(creators=("c1",))  # v3, v6, …, v30
    asked = Ask("nobody", 5, filters=of_c1, exclude=("v30", "v24", "zz"))
    assert ids(instead.answer(asked, "late")) == ["v6", "v27", "v21", "v18", "v15"]
    narrow = Ask("nobody", 5, filters=Filters(video_ids=("v2", "v9")))
    assert ids(instead.answer(narrow, "late")) == ["v9", "v2"]
    pages, cursor = [], None
    for _ in range(4):
        page = instead.answer(Ask("nobody", 8, cursor=cursor), "late")
        pages += ids(page)
        cursor = page.cursor
    assert sorted(pages) == sorted(f"v{row}" for row in range(1, NUM_VIDEOS + 1))
    assert pages[:4] == ["v6", "v8", "v30", "v29"] and cursor is None


def test_a_video_that_was_never_shown_is_not_left_out(served: Served) -> None:
    served.ages.first_ms_N[4] = -1
    asked = Ask("nobody", 3, filters=Filters(video_ids=("v4", "v5")))
    answer = fallback_of(served).answer(asked, "late")
    assert ids(answer) == ["v5", "v4"] and answer.videos[1].score == -1


def test_what_the_bundle_knows_of_the_user_is_obeyed(served: Served, tiny: TinyRun) -> None:
    row = tiny.timelines.column("user_id").to_pylist().index("u9")
    rows = tiny.timelines.column("video_row")[row].as_py()
    positive = tiny.timelines.column("positive")[row].as_py()
    liked = {f"v{video}" for video, yes in zip(rows, positive, strict=True) if yes}
    instead = fallback_of(served)
    answer = instead.answer(Ask("u9", 20), "late")
    assert liked and not liked & set(ids(answer)) and answer.known_user
    assert len(answer.videos) == min(20, NUM_VIDEOS - len(liked))
    every = instead.answer(Ask("u9", 20, exclude_seen=False), "late")
    assert ids(every) == [f"v{n}" for n in range(30, 10, -1)]


def test_what_this_process_knows_of_the_user_is_obeyed(served: Served) -> None:
    served.tell("someone", "v30")
    served.tell("someone", "v29", type=NOT_INTERESTED)
    served.tell("someone", creator_id="c2", type=HIDE_CREATOR)  # v28, v25, …
    served.recommend("someone")  # its state is kept from here on
    instead = fallback_of(served)
    assert ids(instead.answer(Ask("someone", 3), "late")) == ["v27", "v26", "v24"]
    assert ids(instead.answer(Ask("someone", 2, exclude_seen=False), "late")) == ["v30", "v27"]


def test_whose_data_were_deleted_is_not_known_by_them(served: Served) -> None:
    served.log.forget("u9")
    answer = fallback_of(served).answer(Ask("u9", 20), "late")
    assert ids(answer) == [f"v{n}" for n in range(30, 10, -1)]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Ask("u1", 21), "k=21: must be from 1 to 20"),
        (Ask("u1", context={"x": "y"}), "context.x: unknown"),
        (Ask("u1", user={"x": "y"}), "user.x: unknown"),
        (Ask("u1", cursor="?"), "cursor: not one"),
        (Ask("u1", filters=Filters(creators=("c9",))), "filters.creators: 'c9' is no creator"),
    ],
)
def test_what_is_wrong_is_refused(served: Served, wrong: Ask, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fallback_of(served).answer(wrong, "late")


def test_the_lists_are_made_anew_once_a_minute(served: Served) -> None:
    time_ms = [now()]
    instead = fallback_of(served, lambda: time_ms[0])
    instead.refresh()
    served.tell("n1", "v6", time_ms=time_ms[0] - 1000)
    served.catch_up()

    def first() -> str:
        instead.refresh()
        return ids(instead.answer(Ask("nobody", 1), "late"))[0]

    time_ms[0] += REFRESH_MS - 1
    assert first() == "v30"
    time_ms[0] += 1
    assert first() == "v6"


class Model:
    """Stands before a service's model: it can be held up, and fail."""

    def __init__(self, service: Service) -> None:
        self._answer = service.recommender.answer
        self.go_on = threading.Event()
        self.go_on.set()
        self.answered: list[str] = []
        self.fails_at: set[str] = set()

    def answer(self, asks: Sequence[Ask]) -> list[Answer | InputError]:
        assert self.go_on.wait(20)
        names = [ask.user_id for ask in asks]
        self.answered += names
        if self.fails_at & set(names):
            raise ZeroDivisionError("ours")
        return self._answer(asks)


@pytest.fixture
def model(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Model]:
    model = Model(service)
    monkeypatch.setattr(service.recommender, "answer", model.answer)
    yield model
    model.go_on.set()


def test_a_model_that_hangs_holds_up_nobody(service: Service, model: Model) -> None:
    client = TestClient(make_api(service))
    assert client.post("/v1/recommend", json={"user_id": "u1"}).json()["degraded"] is None
    service._budget_s = 0.3  # a model that hangs uses it up at once
    model.go_on.clear()
    answer = client.post("/v1/recommend", json={"user_id": "u1", "k": 3})
    assert answer.status_code == 200
    said = answer.json()["degraded"]
    assert (said["kind"], said["cause"]) == ("latest", "late")
    assert len(answer.json()["items"]) == 3
    assert answer.json()["items"][0]["reason"]["kind"] == "latest"
    batch = {"requests": [{"user_id": "u2"}, {"user_id": "u3"}]}
    many = client.post("/v1/recommend/batch", json=batch).json()["answers"]
    assert [one["degraded"]["cause"] for one in many] == ["late", "late"]
    for path in ("/v1/popular", "/v1/latest"):
        listed = client.get(path).json()
        assert (listed["degraded"]["kind"], listed["degraded"]["cause"]) == ("stale", "late")
    assert [item["video_id"] for item in listed["items"]][:2] == ["v30", "v29"]
    refused = [
        client.post("/v1/score", json={"user_id": "u4", "video_ids": ["v1"]}),
        client.get("/v1/similar?video_id=v1"),
        client.get("/v1/history?user_id=u4"),
    ]
    for one in refused:
        assert (one.status_code, one.headers["retry-after"]) == (503, "1")
        assert one.json()["detail"] == (
            f"the answer was not ready in time (serve.budget_ms={PATIENT_MS}); "
            "send the same request again"
        )
    wrong = client.post("/v1/recommend", json={"user_id": "u1", "k": 21})
    assert (wrong.status_code, wrong.json()["detail"][:4]) == (422, "k=21")
    figures = client.get("/metrics").text
    assert 'recsys_degraded_total{cause="late",kind="latest",replica="0"} 3.0' in figures
    assert 'recsys_degraded_total{cause="late",kind="stale",replica="0"} 2.0' in figures
    service._budget_s = PATIENT_MS / 1000
    model.go_on.set()
    assert client.post("/v1/recommend", json={"user_id": "u5"}).json()["degraded"] is None
    assert model.answered == ["u1", "u1", "u5"], "who was answered otherwise is not asked about"


def test_a_model_that_fails_is_no_failure_of_the_server(
    service: Service, model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(make_api(service))
    model.fails_at.add("u1")
    answer = client.post("/v1/recommend", json={"user_id": "u1"})
    assert answer.status_code == 200 and answer.json()["degraded"]["cause"] == "failed"
    assert "ours" in caplog.text
    refused = client.post("/v1/score", json={"user_id": "u1", "video_ids": ["v1"]})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "the model failed at this request" in refused.json()["detail"]
    assert 'recsys_degraded_total{cause="failed",kind="latest",replica="0"} 1.0' in (
        client.get("/metrics").text
    )


def test_one_fault_does_not_touch_the_others_of_its_batch(service: Service, model: Model) -> None:
    client = TestClient(make_api(service))
    model.fails_at.add("u2")
    batch = {"requests": [{"user_id": f"u{n}"} for n in (1, 2, 3)]}
    answers = client.post("/v1/recommend/batch", json=batch).json()["answers"]
    assert [one["degraded"] is None for one in answers] == [True, False, True]
    assert answers[0]["items"][0]["reason"]["kind"] != "latest"


def test_lists_for_everybody_do_not_fail_either(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(_: int) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(service.recommender, "latest", fault)
    client = TestClient(make_api(service))
    answer = client.get("/v1/latest?k=2")
    assert [item["video_id"] for item in answer.json()["items"]] == ["v30", "v29"]
    assert answer.json()["degraded"]["cause"] == "failed"
    figures = client.get("/metrics").text
    assert 'recsys_failures_total{replica="0",work="request"} 1.0' in figures


def test_what_nothing_stands_in_for_is_refused_and_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Similar videos and histories fail by a fault of ours; a mistake stays one of the caller."""

    def fault(*_: object) -> None:
        raise ZeroDivisionError("ours")

    client = TestClient(make_api(service), raise_server_exceptions=False)
    assert client.get("/v1/similar?video_id=zz").status_code == 422
    monkeypatch.setattr(service.recommender._parts.resemblance, "nearest", fault)
    monkeypatch.setattr(service.recommender, "history", fault)
    for path in ("/v1/similar?video_id=v1", "/v1/history?user_id=u1"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert "the model failed at this request" in refused.json()["detail"]
    assert "ZeroDivisionError: ours" in caplog.text
    figures = client.get("/metrics").text
    assert 'recsys_failures_total{replica="0",work="request"} 2.0' in figures
