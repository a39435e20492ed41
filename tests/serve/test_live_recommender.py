"""What happens live changes the next answer, on whichever recommender, and only as it should."""

import gc
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recsys.bundle.contents import Bundle
from recsys.errors import InputError
from recsys.features.counts import EventCounts
from recsys.features.hourly import HourlyCounts
from recsys.features.timelines import EVENT_FIELDS
from recsys.live.clock import now
from recsys.live.log.event import (
    DAY_MS,
    EXPOSURE,
    HIDE_CREATOR,
    MINUTE_MS,
    NOT_INTERESTED,
    TASK,
    VIEW,
    Event,
)
from recsys.live.log.events import EventLog
from recsys.serve import follower
from recsys.serve.asks import Ask, Filters
from recsys.serve.lists.task_scores import TaskScores
from recsys.serve.recommender import ServingRecommender
from recsys.serve.users.live_history import NONE_HIDDEN
from recsys.serve.users.pasts import Past, PastRequest
from tests.bundles import NUM_VIDEOS, START_MS, TinyRun, make_run
from tests.serve.live import Served

EVERY = [f"v{row}" for row in range(1, NUM_VIDEOS + 1)]
LATER = START_MS + 10**10


def ids(served: ServingRecommender, user_id: str, k: int = 5, **asked: object) -> list[str]:
    return [video.video_id for video in served.recommend(user_id, k, **asked).videos]


@pytest.fixture
def other(tiny: TinyRun, log: EventLog) -> Iterator[Served]:
    """A second replica: its own process would have its own connection."""
    with EventLog(log.database.shown) as own:
        yield Served(Bundle.load(str(tiny.run)), own)


def test_an_event_counts_in_the_next_call_on_every_replica(
    served: Served, other: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_ms = now() + MINUTE_MS  # both at once: how long ago something was counts too
    monkeypatch.setattr("recsys.serve.recommender.now", lambda: asked_ms)
    before = ids(served, "someone"), ids(other, "someone")
    assert before[0] == before[1]
    for number, video_id in enumerate(EVERY[:20]):
        teller, asked = (served, other) if number % 2 else (other, served)
        teller.tell("someone", video_id)
        answer = asked.recommend("someone", 10)
        assert answer.num_history == number + 1
        assert video_id not in [video.video_id for video in answer.videos]
        assert answer == teller.recommend("someone", 10)


def test_a_retry_changes_nothing(served: Served) -> None:
    at = now()
    served.tell("someone", "v3", time_ms=at - 1000, event_id="e1")
    once = served.recommend("someone", 5, now_ms=at).videos
    for _ in range(3):
        served.tell("someone", "v3", time_ms=now() - 1000, event_id="e1")
    assert served.recommend("someone", 5, now_ms=at).videos == once
    assert len(served.history("someone").video_rows) == 1


def test_a_clock_that_runs_ahead_is_heard_at_once(served: Served) -> None:
    served.tell("someone", "v3", time_ms=now() + 3_600_000)
    assert "v3" not in ids(served, "someone", 20)
    assert served.recommend("someone").num_history == 1


def test_a_late_event_goes_where_it_belongs(served: Served) -> None:
    for video, days in (("v1", 3), ("v2", 1), ("v3", 2)):
        served.tell("someone", video, time_ms=now() - days * DAY_MS)
    rows = served.history("someone").video_rows.tolist()
    assert rows == [1, 3, 2]


def test_a_full_history_takes_a_late_event_too(served: Served) -> None:
    """It is acknowledged, so it is obeyed: never recommended again."""
    for row in range(1, 28):
        served.tell("someone", f"v{row}", time_ms=now() - row * 1000)
    served.tell("someone", "v29", time_ms=now() - 10 * DAY_MS)
    assert set(ids(served, "someone", 20)) == {"v28", "v30"}


def test_what_was_liked_before_the_bundles_history_does_not_come_again(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", model={**_model(), "max_history": 2})
    served = ServingRecommender(Bundle.load(str(run.run)))
    rows = np.array(run.timelines.column("video_row")[9].as_py())
    liked = np.array(run.timelines.column("positive")[9].as_py()) > 0
    assert len(set(rows[liked])) > 2
    left = set(ids(served, "u9", 20, now_ms=LATER))
    assert not left & {f"v{row}" for row in rows[liked]}


def _model() -> dict[str, object]:
    sizes = {"dim": 8, "id_dim": 8, "feature_dim": 4, "state_dim": 16}
    return {"content": {"encoder": "none"}, **sizes}


def test_not_interested_and_hidden_creators_are_obeyed_at_once(served: Served) -> None:
    first = ids(served, "someone", 20)
    served.tell("someone", first[0], type=NOT_INTERESTED)
    assert first[0] not in ids(served, "someone", 20, exclude_seen=False)
    served.tell("someone", creator_id="c1", type=HIDE_CREATOR)
    creators = served.bundle.catalog.creator_rows
    left = [int(video_id[1:]) for video_id in ids(served, "someone", 20)]
    assert left and all(creators[row] != 1 for row in left)
    assert any(creators[int(video_id[1:])] == 1 for video_id in ids(served, "other", 20))


def test_an_exposure_its_view_and_its_like_are_one_event_of_the_history(served: Served) -> None:
    shown = {"impression_id": "i1", "time_ms": now() - 1000}
    served.tell("someone", "v3", type=EXPOSURE, place=0, **shown)
    assert served.history("someone").positive.tolist() == [0]
    served.tell("someone", "v3", type=VIEW, watched=7.0, impression_id="i1")
    served.tell("someone", "v3", type=TASK, labels={"like": True}, impression_id="i1")
    timeline = served.history("someone")
    assert timeline.video_rows.tolist() == [3]
    assert (timeline.positive.tolist(), timeline.labels.tolist()) == ([1], [[0, 1]])
    assert timeline.watched[0, 0] == 7.0
    counts = served.bundle.counts.hourly["video"]
    hour = np.array([now() // 3_600_000 + 1])
    fresh = Bundle.load(str(served.bundle.config.run)).counts.hourly["video"]
    gained = counts.before(np.array([3]), hour) - fresh.before(np.array([3]), hour)
    assert gained.tolist() == [[1, 1, 0, 1]]


def counts_of(served: ServingRecommender) -> list[list[list[int]]]:
    hours = np.full(4, now() // 3_600_000 + 1)
    names = ("everything", "video", "creator", "category", "context_tab")
    hourly: list[HourlyCounts] = [served.bundle.counts.hourly[name] for name in names]
    return [one.before(np.arange(4), hours).tolist() for one in hourly]


def test_counts_are_those_of_a_replica_that_starts_now(
    tiny: TinyRun, served: Served, log: EventLog
) -> None:
    rng = np.random.default_rng(3)
    for number in range(60):
        video = f"v{rng.integers(1, 4)}"
        time_ms = now() - int(rng.integers(0, 4 * DAY_MS))
        context = {"tab": str(rng.choice(["home", "search"]))}
        served.tell(f"n{number % 7}", video, time_ms=time_ms, context=context)
        if number % 10 == 0:
            served.catch_up()
    served.catch_up()
    anew = Served(Bundle.load(str(tiny.run)), log)
    anew.catch_up()
    assert counts_of(served) == counts_of(anew)
    assert (
        served.recommend("n1", 5, now_ms=LATER).videos
        == anew.recommend("n1", 5, now_ms=LATER).videos
    )


def test_a_user_who_is_forgotten_is_forgotten_by_every_replica(
    tiny: TinyRun, served: Served, other: Served
) -> None:
    """Of the bundle's histories too; counts are those of a log that never knew them."""
    before = counts_of(served)
    assert served.recommend("u9").known_user and other.recommend("u9").known_user
    for video in ("v1", "v2"):
        served.tell("u9", video)
        served.tell("n1", video)
    served.catch_up()
    other.catch_up()
    served.log.forget("u9")
    for replica in (served, other):
        assert replica.recommend("u9").num_history == 0
        assert len(replica.history("u9").video_rows) == 0
        assert replica.recommend("n1").num_history == 2
        gained = np.array(counts_of(replica)[1]) - np.array(before[1])
        assert gained[:, 0].tolist() == [0, 1, 1, 0]
    served.tell("u9", "v5")
    assert other.history("u9").video_rows.tolist() == [5], "what they do afterwards is theirs again"


def test_a_deletion_while_another_is_counted_is_not_missed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the page with the first was read, and before all is counted anew."""
    latest_seq = served.log.latest_seq

    def another() -> int:
        monkeypatch.setattr(served.log, "latest_seq", latest_seq)
        served.log.forget("u8")
        return latest_seq()

    monkeypatch.setattr(served.log, "latest_seq", another)
    served.log.forget("u9")
    assert [len(served.history(user).video_rows) for user in ("u9", "u8", "u7")] == [0, 0, 21]


def test_events_of_videos_that_the_bundle_does_not_know_wait_in_the_log(served: Served) -> None:
    served.tell("someone", "not there yet")
    served.tell("someone", "v1")
    assert served.recommend("someone").num_history == 1
    assert served.followed.unknown_videos == 1


def test_what_the_bundle_knows_of_the_log_is_not_counted_twice(
    tiny: TinyRun, served: Served, log: EventLog
) -> None:
    served.tell("u9", "v4", time_ms=now() - 1000)
    known = Bundle.load(str(tiny.run))
    known = replace(known, manifest={**known.manifest, "live_seq": log.latest_seq()})
    later = Served(known, log)
    later.catch_up()
    assert counts_of(later) == counts_of(ServingRecommender(Bundle.load(str(tiny.run))))
    assert len(later.history("u9").video_rows) == 27
    later.tell("u9", "v5", time_ms=now())
    assert later.history("u9").video_rows.tolist()[-1] == 5


def test_many_are_answered_as_each_alone(served: Served) -> None:
    served.tell("new", "v7")
    asks = [
        Ask("u9", 5, now_ms=LATER, context={"tab": "home"}),
        Ask("new", 7, now_ms=LATER),
        Ask("nobody", 3, now_ms=LATER, user={"region": "north"}),
        Ask("u3", 20, now_ms=START_MS + DAY_MS, exclude_seen=False),
        Ask("u9", video_ids=("v1", "zz", "v3"), now_ms=LATER),
        Ask("u5", 0),
        Ask("u5", 4, now_ms=LATER, filters=Filters(creators=("c2",))),
        Ask("stranger", 6, now_ms=LATER),
    ]
    together = served.answer(asks)
    for ask, answer in zip(asks, together, strict=True):
        alone = served.answer([ask])[0]
        if isinstance(answer, InputError):
            assert str(alone) == str(answer) == "k=0: must be from 1 to 20 (serve.max_k)"
            continue
        assert not isinstance(alone, InputError)
        assert [v.video_id for v in alone.videos] == [v.video_id for v in answer.videos]
        assert [v.reason for v in alone.videos] == [v.reason for v in answer.videos]
        for one, two in zip(alone.videos, answer.videos, strict=True):
            assert one.score == pytest.approx(two.score, abs=1e-5)
            assert one.probabilities == pytest.approx(two.probabilities, abs=1e-5)


def test_the_state_is_kept_until_something_happens(served: Served) -> None:
    assert served.pasts.held == 0
    served.recommend("u9")
    assert served.pasts.held == 1
    at = now()
    first = served.recommend("u9", now_ms=at).videos
    assert served.recommend("u9", now_ms=at).videos == first
    served.tell("u9", "v30")
    assert served.recommend("u9").num_history == 27
    assert served.recommend("u9").videos != first


def test_the_cache_of_states_is_bounded(tmp_path: Path) -> None:
    make_run(tmp_path / "run", serve={"held_users": 3})
    served = ServingRecommender(Bundle.load(str(tmp_path / "run")))
    for number in range(10):
        served.recommend(f"u{number}", 3)
    assert served.pasts.held == 3


def test_a_collection_of_garbage_looks_into_nothing_that_is_kept_of_a_user(served: Served) -> None:
    """Tensors and sets of 24,000 users made each full collection take three times as long."""
    served.tell("u5", "v3", time_ms=now() - 1000)
    for user_id in ("u5", "u9", "newcomer"):
        served.recommend(user_id, 5)
    asked = [PastRequest(user_id, None) for user_id in ("u5", "u9", "newcomer")]
    pasts = served.pasts.of(asked)
    assert served.pasts.held == 3 and len(pasts[0].liked_creators)
    kept = [(name, getattr(past, name)) for past in pasts for name in Past.__slots__]
    # An array that is a view keeps what it looks into, and all of that.
    kept += [
        (f"{name}'s base", base)
        for name, value in kept
        if (base := getattr(value, "base", None)) is not None
    ]
    tracked = {name for name, value in kept if gc.is_tracked(value) and value is not NONE_HIDDEN}
    assert tracked == set()


def test_of_popular_and_latest_the_newest_come_first(served: Served) -> None:
    assert [video.video_id for video in served.latest(3).videos] == ["v30", "v29", "v28"]
    for number in range(5):
        served.log.append([Event(f"n{number}", VIEW, "v6", time_ms=now() - 1000)])
    served.tell("n1", "v8", time_ms=now() - 1000)
    assert [video.video_id for video in served.popular(2).videos] == ["v6", "v8"]


def test_similar_is_by_cosine_and_without_itself(served: Served) -> None:
    vectors = served.bundle.vectors[:, : served.bundle.recommender.dim]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit[5]
    expected = [f"v{row}" for row in np.argsort(-cosine) if row not in (0, 5)][:4]
    similar = served.similar("v5", 4).videos
    assert [video.video_id for video in similar] == expected
    assert similar[0].score == pytest.approx(cosine[int(expected[0][1:])], abs=1e-5)
    assert len(served.similar("v5", 1000).videos) == NUM_VIDEOS - 1
    with pytest.raises(InputError, match="video_id='zz': not in the catalogue of this model"):
        served.similar("zz", 3)


def test_a_late_event_changes_what_later_hours_know(tiny: TinyRun, served: Served) -> None:
    """Also where the hour's probabilities were asked for before; as of a server that starts now."""
    hour = LATER + 3_600_000
    served.tell("someone", "v3", time_ms=LATER)
    before = served.score("u9", ["v3", "v4"], now_ms=hour).videos
    for number in range(30):
        served.tell(f"n{number}", "v3", time_ms=LATER + number, labels={"click": True})
    after = served.score("u9", ["v3", "v4"], now_ms=hour).videos
    anew = Served(Bundle.load(str(tiny.run)), served.log).score("u9", ["v3", "v4"], now_ms=hour)
    for one, other, earlier in zip(after, anew.videos, before, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
        assert one.probabilities != pytest.approx(earlier.probabilities, abs=1e-4)


def test_late_events_make_the_sides_of_their_videos_anew_and_all_once_in_a_while(
    tiny: TinyRun, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known of their videos counts at once; in the end all is as of who starts now."""
    monkeypatch.setattr(follower, "FOLLOWED_EVERY_S", math.inf)
    hour = LATER + 3_600_000
    served.tell("someone", "v3", time_ms=LATER)
    before = served.score("u9", EVERY, now_ms=hour).videos
    made: list[list[int]] = []
    videos = TaskScores.videos
    with monkeypatch.context() as patched:
        patched.setattr(
            TaskScores, "videos", lambda *given: made.append(given[1].tolist()) or videos(*given)
        )
        patched.setattr(EventCounts, "shown", lambda *_: pytest.fail("all were looked at"))
        for number in range(30):
            served.tell(f"n{number}", "v3", time_ms=LATER + number, labels={"click": True})
        after = served.score("u9", EVERY, now_ms=hour).videos
    anew = Served(Bundle.load(str(tiny.run)), served.log).score("u9", EVERY, now_ms=hour).videos
    assert made == [[3]]
    assert after[2].probabilities == pytest.approx(anew[2].probabilities, abs=1e-6)
    assert after[3] == before[3] != anew[3]
    monkeypatch.setattr(follower, "FOLLOWED_EVERY_S", 0.0)
    for one, other in zip(served.score("u9", EVERY, now_ms=hour).videos, anew, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-6)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_what_a_user_did_in_an_hour_that_is_over_counts_in_their_next_call(
    tiny: TinyRun, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever follows once in a while."""
    monkeypatch.setattr(follower, "FOLLOWED_EVERY_S", math.inf)
    hour = LATER + 3_600_000
    served.tell("u9", "v3", type=EXPOSURE, impression_id="i", time_ms=LATER)
    before = served.score("u9", ["v3"], now_ms=hour)
    served.tell("u9", "v3", type=TASK, impression_id="i", labels={"like": True})
    after = served.score("u9", ["v3"], now_ms=hour)
    anew = Served(Bundle.load(str(tiny.run)), served.log).score("u9", ["v3"], now_ms=hour)
    assert after.videos[0].probabilities != before.videos[0].probabilities
    assert after.videos[0].probabilities == pytest.approx(anew.videos[0].probabilities, abs=1e-6)


def test_what_came_of_a_showing_that_the_bundle_knows_takes_its_place(
    tiny: TinyRun, log: EventLog
) -> None:
    """It was shown before the bundle was made, and liked after: one event, not two."""
    timeline = ServingRecommender(Bundle.load(str(tiny.run))).history("u9")
    row, time_ms = int(timeline.video_rows[-1]), int(timeline.time_ms[-1])
    shown = Event("u9", EXPOSURE, f"v{row}", time_ms=time_ms, impression_id="i")
    log.append([shown])
    known = Bundle.load(str(tiny.run))
    known = replace(known, manifest={**known.manifest, "live_seq": log.latest_seq()})
    served = Served(known, log)
    liked = {"impression_id": "i", "time_ms": time_ms + 1000, "labels": {"like": True}}
    served.tell("u9", f"v{row}", type=TASK, **liked)
    now_known = served.history("u9")
    assert len(now_known.video_rows) == len(timeline.video_rows)
    assert now_known.labels[-1].tolist() == [0, 1] and now_known.positive[-1] == 1


@pytest.mark.parametrize("seed", range(5))
def test_a_past_is_that_of_the_whole_log_of_which_little_is_read(
    tiny: TinyRun, log: EventLog, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Showings of before the bundle are taken up after it, by name or within a day."""
    rng, users, shown = np.random.default_rng(seed), ["a", "b", "u9"], [("v1", "none")]
    for number in range(160):
        kind, video = str(rng.choice([EXPOSURE, VIEW, TASK, NOT_INTERESTED])), f"v{rng.integers(9)}"
        fields: dict[str, object] = {"time_ms": now() - 10 * DAY_MS + number * 5_000_000}
        if kind == EXPOSURE:
            shown.append((video, f"i{number}"))
        if kind == EXPOSURE or rng.random() < 0.5:
            video, fields["impression_id"] = shown[-int(rng.integers(1, 1 + min(9, len(shown))))]
        if kind == TASK:
            fields["labels"] = {"like": bool(rng.random() < 0.6)}
        log.append([Event(str(rng.choice(users)), kind, video, **fields)])  # type: ignore[arg-type]
    known = Bundle.load(str(tiny.run))
    reader = Served(replace(known, manifest={**known.manifest, "live_seq": 100}), log).parts.reader
    little = reader.read(users)
    monkeypatch.setattr(log, "since", lambda user_ids, _: log.of_users(user_ids))
    for one, whole in zip(little, reader.read(users), strict=True):
        assert len(one.timeline.video_rows)
        assert one.refused.tolist() == whole.refused.tolist()
        for name in EVENT_FIELDS:
            np.testing.assert_array_equal(
                getattr(one.timeline, name), getattr(whole.timeline, name), name
            )


def test_what_comes_of_a_showing_that_the_bundle_counted_is_no_event_more(
    tiny: TinyRun, log: EventLog
) -> None:
    """As in the next training, which has one row of it; and so after counting anew."""
    for number in range(3):
        log.append([Event(f"n{number}", EXPOSURE, "v3", impression_id=f"i{number}")])
    known = Bundle.load(str(tiny.run))
    known = replace(known, manifest={**known.manifest, "live_seq": log.latest_seq()})
    served = Served(known, log)
    before = np.array(counts_of(served)[1][3])
    served.tell("n0", "v3", type=TASK, labels={"like": True}, impression_id="i0")
    served.tell("n1", "v3", type=VIEW)
    served.catch_up()
    assert (np.array(counts_of(served)[1][3]) - before).tolist() == [0, 2, 0, 1]
    log.forget("n1")
    served.catch_up()
    assert (np.array(counts_of(served)[1][3]) - before).tolist() == [0, 1, 0, 1]


def test_a_request_comes_after_what_a_faster_clock_acknowledged(
    tiny: TinyRun, tmp_path: Path
) -> None:
    """The machine that took the event is ten seconds ahead of the one that is asked."""
    with EventLog(str(tmp_path / "ahead.sqlite"), clock=lambda: now() + 10_000) as ahead:
        served = Served(Bundle.load(str(tiny.run)), ahead)
        served.tell("someone", "v3")
        served.recommend("someone")
        served.tell("someone", "v4")
        answer = served.recommend("someone", 20)
    assert answer.num_history == 2
    assert answer.now_ms > served.pasts.events("someone").time_ms.max()
    assert not {"v3", "v4"} & {video.video_id for video in answer.videos}
