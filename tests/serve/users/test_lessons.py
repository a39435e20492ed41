"""Lessons: nobody is recommended what they may not begin yet, whatever asks, from event to event.

v1 → v2 → v3 is a course in order, v4 requires v1 and v3; v5 is of a course and requires nothing.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.data.lessons import Lesson, Lessons
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.asks import Ask, Filters
from recsys.serve.service import Service
from tests.bundles import DATA_WITH_COURSES, NUM_VIDEOS, START_MS, TinyRun, make_run
from tests.serve.live import Served

LESSONS = Lessons.of(
    {
        1: Lesson("maths", 1, ()),
        2: Lesson("maths", 2, (1,)),
        3: Lesson("maths", 3, (2,)),
        4: Lesson(None, None, (1, 3)),
        5: Lesson("art", None, ()),
    }
)
ONLY = ("v1", "v2", "v3", "v4")
NOBODY = "u0"
"""A user without events."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    folder = tmp_path_factory.mktemp("courses")
    return make_run(folder / "run", lessons=LESSONS, data=DATA_WITH_COURSES)


@pytest.fixture
def learner(run: TinyRun, log: EventLog) -> Served:
    return Served(Bundle.load(str(run.run)), log)


@pytest.fixture
def service(run: TinyRun, tmp_path: Path) -> Iterator[Service]:
    log = EventLog(str(tmp_path / "http.sqlite"))
    service = Service(Bundle.load(str(run.run)), log, seed=0)
    yield service
    service.close()


def lessons(learner: Served, user_id: str = NOBODY, **asked: object) -> set[str]:
    """Which of the lessons are recommended, by the model and by what stands in for it alike."""
    asked = {"filters": Filters(video_ids=ONLY), **asked}
    answer = learner.recommend(user_id, 10, **asked)
    instead = learner.fallback.answer(Ask(user_id, 10, **asked), "late")  # type: ignore[arg-type]
    open_lessons = {video.video_id for video in answer.videos}
    assert {video.video_id for video in instead.videos} == open_lessons
    return open_lessons


def test_the_next_lesson_opens_with_the_event_that_finishes_the_one_before(learner: Served) -> None:
    assert lessons(learner) == {"v1"}
    learner.tell(NOBODY, "v1", positive=False)  # begun, not finished
    assert lessons(learner) == {"v1"}
    learner.tell(NOBODY, "v1")
    assert lessons(learner) == {"v2"}
    learner.tell(NOBODY, "v3")  # out of order: v2 still comes first for no lesson but itself
    assert lessons(learner) == {"v2", "v4"}
    assert lessons(learner, exclude_seen=False) == {"v1", "v2", "v4"}
    assert lessons(learner, "somebody else") == {"v1"}


def test_what_was_finished_before_the_bundle_counts(learner: Served, run: TinyRun) -> None:
    """Of the tiny run's users, by their positive events, however long ago those were."""
    for row in run.timelines.to_pylist():
        rows = zip(row["video_row"], row["positive"], strict=True)
        done = {f"v{video}" for video, positive in rows if positive}
        requires = {"v2": {"v1"}, "v3": {"v2"}, "v4": {"v1", "v3"}, "v1": set()}
        open_ones = {name for name, needed in requires.items() if needed <= done}
        assert lessons(learner, row["user_id"]) == open_ones - done


def test_a_request_of_the_past_knows_what_was_finished_then(learner: Served) -> None:
    learner.tell(NOBODY, "v1", time_ms=START_MS + 1000)
    assert lessons(learner) == {"v2"}
    before = learner.recommend(NOBODY, 10, now_ms=START_MS, filters=Filters(video_ids=ONLY))
    assert [video.video_id for video in before.videos] == ["v1"]


def only(client: TestClient, *video_ids: str) -> set[str]:
    body = {"user_id": NOBODY, "k": 10, "filters": {"video_ids": list(video_ids)}}
    return {item["video_id"] for item in client.post("/v1/recommend", json=body).json()["items"]}


def finish(client: TestClient, video_id: str) -> None:
    assert client.post("/v1/events", json={"user_id": NOBODY, "video_id": video_id}).is_success


def similar(client: TestClient, **asked: object) -> set[str]:
    answer = client.get("/v1/similar", params={"video_id": "v9", "k": 1000, **asked})
    return {item["video_id"] for item in answer.json()["items"]}


def test_what_is_similar_holds_for_a_user_what_their_lists_may_hold(client: TestClient) -> None:
    everything = {f"v{row}" for row in range(1, NUM_VIDEOS + 1)} - {"v9"}
    assert similar(client) == everything
    assert similar(client, user_id=NOBODY) == everything - {"v2", "v3", "v4"}
    finish(client, "v1")  # what was finished may be seen again
    assert similar(client, user_id=NOBODY) == everything - {"v3", "v4"}
    assert similar(client, user_id="somebody else") == everything - {"v2", "v3", "v4"}
    refusals = [{"type": "not_interested", "video_id": "v8"}]
    refusals.append({"type": "hide_creator", "creator_id": "c1"})
    for refusal in refusals:
        assert client.post("/v1/events", json={"user_id": NOBODY, **refusal}).is_success
    of_creator = {f"v{row}" for row in range(3, NUM_VIDEOS + 1, 3)}
    assert similar(client, user_id=NOBODY) == everything - {"v3", "v4", "v8"} - of_creator


def test_what_no_list_may_hold_is_not_asked_for(client: TestClient) -> None:
    assert only(client, "v1", "v2") == {"v1"}
    client.patch("/v1/videos/v1", json={"hidden": True})
    assert only(client, "v1", "v2") == {"v2"}
    client.patch("/v1/videos/v1", json={"hidden": False})
    assert only(client, "v1", "v2") == {"v1"}
    client.delete("/v1/videos/v1")
    assert only(client, "v1", "v2") == {"v2"}


def test_a_lesson_that_came_live_waits_for_what_it_requires(client: TestClient) -> None:
    said = {"course": "maths", "lesson": 4, "requires": ["v1", "v1"]}
    added = client.post("/v1/videos", json={"video_id": "new", **said})
    assert added.status_code == 201 and added.json()["requires"] == ["v1", "v1"]
    assert only(client, "new") == set()
    finish(client, "v1")
    assert only(client, "new") == {"new"}
    client.patch("/v1/videos/new", json={"requires": ["v5"]})
    assert only(client, "new") == set()
    client.patch("/v1/videos/new", json={"requires": None})
    assert only(client, "new") == {"new"}
    shown = client.post("/v1/details", json={"video_ids": ["new", "v2", "v6"]}).json()["items"]
    assert [(one["course"], one["lesson"]) for one in shown] == [
        ("maths", 4),
        ("maths", 2),
        (None, None),
    ]


def test_one_that_came_live_may_be_required_too(client: TestClient) -> None:
    client.post("/v1/videos", json={"video_id": "a"})
    client.post("/v1/videos", json={"video_id": "b", "requires": ["a"]})
    assert only(client, "a", "b") == {"a"}
    circle = client.patch("/v1/videos/a", json={"requires": ["b"]})
    assert circle.status_code == 422 and "requires it in turn" in circle.json()["detail"]
    itself = client.patch("/v1/videos/a", json={"requires": ["a"]})
    assert itself.status_code == 422
    finish(client, "a")
    assert only(client, "a", "b") == {"b"}


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"requires": ["gone"]}, "requires: 'gone': not in the catalogue"),
        ({"lesson": -1}, "lesson"),
        ({"lesson": "first"}, "lesson"),
        ({"requires": ["v1"] * 65}, "requires"),
        ({"course": ""}, "course"),
    ],
)
def test_wrong_lessons_are_refused(client: TestClient, said: dict, named: str) -> None:
    answer = client.post("/v1/videos", json={"video_id": "new", **said})
    assert answer.status_code == 422
    assert named in answer.json()["detail"]


def test_a_run_without_the_column_takes_no_lessons(tiny: TinyRun, tmp_path: Path) -> None:
    service = Service(Bundle.load(str(tiny.run)), EventLog(str(tmp_path / "l.sqlite")), seed=0)
    client = TestClient(make_api(service))
    answer = client.post("/v1/videos", json={"video_id": "new", "course": "maths"})
    assert answer.status_code == 422
    assert "data.video_columns.course names no column" in answer.json()["detail"]
    assert client.get("/v1/courses?user_id=u1").json()["courses"] == []
    service.close()


def test_courses_say_how_far_one_is(client: TestClient) -> None:
    def courses(limit: int = 20) -> list[dict]:
        answer = client.get("/v1/courses", params={"user_id": NOBODY, "limit": limit}).json()
        assert answer["num_courses"] == 2
        return answer["courses"]

    art, maths = courses()
    assert (art["course"], art["num_finished"], art["next_video_id"]) == ("art", 0, "v5")
    assert [one["locked"] for one in maths["lessons"]] == [False, True, True]
    assert [one["waits_for"] for one in maths["lessons"]] == [[], ["v1"], ["v2"]]
    finish(client, "v1")
    maths, art = courses()  # what was begun comes first
    assert (maths["course"], maths["num_finished"], maths["next_video_id"]) == ("maths", 1, "v2")
    assert maths["lessons"][:2] == [
        {"video_id": "v1", "lesson": 1, "finished": True, "locked": False, "waits_for": []},
        {"video_id": "v2", "lesson": 2, "finished": False, "locked": False, "waits_for": []},
    ]
    finish(client, "v5")
    assert [one["course"] for one in courses()] == ["maths", "art"]  # art is done: at the end
    assert [one["course"] for one in courses(limit=1)] == ["maths"]
    client.patch("/v1/videos/v2", json={"hidden": True})
    (maths, _) = courses()
    assert [one["video_id"] for one in maths["lessons"]] == ["v1", "v3"]
    assert maths["next_video_id"] == "v3"
    client.post("/v1/videos", json={"video_id": "new", "course": "art", "requires": ["v3", "v1"]})
    (art, _) = courses()  # it goes on
    waits_for = {one["video_id"]: one["waits_for"] for one in art["lessons"]}
    assert waits_for == {"v5": [], "new": ["v3"]}, "without what is finished"
