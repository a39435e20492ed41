"""The table of live videos, on each database."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.live.log.events import EventLog
from recsys.live.videos import encoding_queue
from recsys.live.videos.encoding_queue import (
    LEASE_MS,
    MOST_TRIES,
    MOST_TRIES_AWAY,
    NOT_ENCODED,
    SERVED_MS,
    Encoded,
    EncodingQueue,
    Fault,
    VideoCounts,
)
from recsys.live.videos.live_videos import (
    LiveVideos,
    StoredFile,
    VideoConflict,
    VideoFacts,
    VideoVector,
)
from tests.live.conftest import Clock

FILE = StoredFile("/uploads/a.mp4", "a" * 64, 7)
OTHER = StoredFile("/uploads/b.mp4", "b" * 64, 7)
FACTS = VideoFacts("Title", "c1", ("tag=x", "tag=y"), 12.5)


@pytest.fixture
def videos(log: EventLog, clock: Clock) -> LiveVideos:
    return LiveVideos(log.database, clock=clock)


@pytest.fixture
def queue(log: EventLog, clock: Clock) -> EncodingQueue:
    return EncodingQueue(log.database, clock=clock)


@pytest.fixture
def other_queue(open_log: Callable[[], EventLog], clock: Clock) -> EncodingQueue:
    """As another process sees it."""
    return EncodingQueue(open_log().database, clock=clock)


@pytest.fixture
def others(open_log: Callable[[], EventLog], clock: Clock) -> LiveVideos:
    """As another process sees it."""
    return LiveVideos(open_log().database, clock=clock)


def made(value: float, *, version: str = "1", content: float | None = None) -> Encoded:
    given = None if content is None else np.full(2, content, np.float32)
    return Encoded({version: VideoVector(np.full(3, value, np.float32), given)}, 5)


def test_a_video_goes_from_stored_to_indexed(
    other_queue: EncodingQueue, videos: LiveVideos, others: LiveVideos, clock: Clock
) -> None:
    added = videos.add("n", FILE, FACTS)
    assert (added.state, added.file, added.facts) == ("stored", FILE, FACTS)
    assert added.received_ms == clock.now_ms
    tail = others.tail("1")
    assert [(v.video_id, v.vector) for v in tail.changed(0, 10)] == [("n", None)]
    claimed = other_queue.claim()
    assert claimed is not None and claimed.video_id == "n"
    clock.now_ms += 100
    other_queue.encoded(claimed, made(0.5))
    (seen,) = videos.tail("1").changed(added.seq, 10)
    assert (seen.state, seen.decoded_ms, seen.indexed_ms) == ("indexed", 5, clock.now_ms)
    assert seen.vector is not None and seen.vector.tolist() == [0.5, 0.5, 0.5]
    assert tail.changed(seen.seq, 10) == []
    (unknown,) = videos.tail("another version").changed(0, 10)
    assert unknown.vector is None


def test_every_change_has_a_later_place_than_all_before(videos: LiveVideos) -> None:
    seqs = [videos.add(name, FILE, FACTS).seq for name in ("a", "b", "c")]
    changed = videos.change("a", {"hidden": True})
    assert changed is not None and changed.facts.hidden
    seqs.append(changed.seq)
    videos.delete("b")
    seqs.append(videos.latest_seq())
    assert seqs == [1, 2, 3, 4, 5]
    assert [v.video_id for v in videos.tail("1").changed(2, 10)] == ["c", "a", "b"]


def test_one_video_is_claimed_by_one_and_again_when_its_lease_is_over(
    queue: EncodingQueue, other_queue: EncodingQueue, videos: LiveVideos, clock: Clock
) -> None:
    videos.add("n", FILE, FACTS)
    assert queue.claim() is not None
    assert other_queue.claim() is None
    clock.now_ms += LEASE_MS
    assert other_queue.claim() is None
    clock.now_ms += 1
    again = other_queue.claim()
    assert again is not None and again.video_id == "n"


def test_the_same_again_is_the_same_and_another_a_conflict(
    queue: EncodingQueue, videos: LiveVideos
) -> None:
    first = videos.add("n", FILE, FACTS)
    assert videos.add("n", FILE, FACTS) == first
    for file, facts in ((OTHER, FACTS), (FILE, VideoFacts("Another")), (None, FACTS)):
        with pytest.raises(VideoConflict):
            videos.add("n", file, facts)
    queue.refuse(first, "not_video", "no")
    assert videos.add("n", OTHER, FACTS).state == "stored"
    videos.delete("n")
    with pytest.raises(VideoConflict, match="was deleted"):
        videos.add("n", OTHER, FACTS)


def test_what_is_said_of_a_video_of_the_bundle_is_kept(videos: LiveVideos) -> None:
    assert videos.change("v1", {"hidden": True}) is None
    changed = videos.change("v1", {"hidden": True}, of_bundle=VideoFacts(creator_id="c2"))
    assert changed is not None
    assert (changed.state, changed.file, changed.facts.creator_id) == ("catalogue", None, "c2")
    with pytest.raises(VideoConflict, match="of the catalogue"):
        videos.add("v1", FILE, FACTS)
    assert videos.delete("v2") is None
    deleted = videos.delete("v2", in_bundle=True)
    assert deleted is not None and deleted.state == "deleted"
    assert videos.delete("v2", in_bundle=True) == deleted
    assert videos.change("v2", {"hidden": True}, of_bundle=VideoFacts()) is None


def test_a_vector_of_other_facts_or_versions_is_missing(
    queue: EncodingQueue, videos: LiveVideos
) -> None:
    queue.encoded(videos.add("n", FILE, FACTS), made(0.5))
    assert queue.missing("1") == []
    assert [v.video_id for v in queue.missing("2")] == ["n"]
    videos.change("n", {"title": "Another"})
    assert queue.missing("1") == []
    videos.change("n", {"creator_id": None})
    (missing,) = queue.missing("1")
    queue.encoded(missing, made(0.7))
    assert queue.missing("1") == []
    (seen,) = videos.tail("1").changed(0, 10)
    assert seen.vector is not None and seen.vector[0] == np.float32(0.7)


def test_what_was_deleted_while_it_was_encoded_stays_deleted(
    queue: EncodingQueue, videos: LiveVideos
) -> None:
    video = videos.add("n", FILE, FACTS)
    videos.delete("n")
    queue.encoded(video, made(0.5))
    queue.refuse(video, "not_video", "no")
    (seen,) = videos.tail("1").changed(0, 10)
    assert (seen.state, seen.vector) == ("deleted", None)


def test_same_files_and_contents_are_found(queue: EncodingQueue, videos: LiveVideos) -> None:
    first = videos.add("first", FILE, FACTS)
    queue.encoded(first, made(0.5, content=1.0))
    same = videos.add("same", FILE, FACTS)
    assert queue.same_file(first) is None
    assert queue.same_file(same) == "first"
    assert videos.is_needed(FILE.uri)
    ((name, _, content),) = queue.contents("1")
    assert (name, content.tolist()) == ("first", [1.0, 1.0])
    videos.delete("first")
    assert [(name, content) for name, _, content in queue.contents("1")] == [("first", None)]
    assert videos.is_needed(FILE.uri)
    assert videos.is_needed("/mounted/elsewhere/a.mp4")
    assert not videos.is_needed("/uploads/%.mp4")
    videos.delete("same")
    assert not videos.is_needed(FILE.uri)


def test_no_video_is_said_to_resemble_a_deleted_one(
    queue: EncodingQueue, videos: LiveVideos
) -> None:
    """Deleted after it was said, or between the encoder's look and its result."""
    videos.add("before", FILE, FACTS)
    names = ("before", "v1")
    like = {name: replace(made(0.5), duplicate_of=name, similarity=1.0) for name in names}
    said, late, of_bundle = (videos.add(name, OTHER, FACTS) for name in ("said", "late", "b"))
    queue.encoded(said, like["before"])
    told = videos.get("said")
    assert told is not None and (told.duplicate_of, told.similarity) == ("before", 1.0)
    videos.delete("before")
    queue.encoded(late, like["before"])
    queue.encoded(of_bundle, like["v1"])
    named = {video.video_id: (video.duplicate_of, video.similarity) for video in videos.page()}
    assert named["said"] == named["late"] == (None, None)
    assert named["b"] == ("v1", 1.0)


def test_an_encoders_result_is_of_the_file_that_it_took(
    queue: EncodingQueue, other_queue: EncodingQueue, videos: LiveVideos, clock: Clock
) -> None:
    """Its lease was over, another encoder refused the file, and its owner sent another one."""
    late = (videos.add("n", FILE, FACTS), queue.claim())[1]
    assert late is not None
    other_queue.refuse(late, "not_video", None)
    anew = videos.add("n", OTHER, FACTS)
    queue.encoded(late, made(0.5))
    assert videos.get("n") == anew
    queue.encoded(anew, made(0.25))
    (seen,) = videos.tail("1").changed(0, 10)
    assert seen.vector is not None and seen.vector.tolist() == [0.25] * 3


@pytest.mark.parametrize("reason", ["missing", "unreachable"])
def test_a_file_that_is_away_is_tried_for_a_day_and_no_other_fault_counts_that(
    videos: LiveVideos, queue: EncodingQueue, clock: Clock, reason: str
) -> None:
    videos.add("n", FILE, FACTS)
    for tries in range(1, MOST_TRIES + 3):
        claimed = queue.claim()
        assert claimed is not None
        assert queue.failed(claimed, reason) is False
        assert queue.faults("n") == [Fault(None, tries, clock.now_ms, reason)]
        clock.now_ms += LEASE_MS + 1
    for tries in range(1, MOST_TRIES + 1):
        claimed = queue.claim()
        assert claimed is not None
        assert queue.failed(claimed, NOT_ENCODED) == (tries == MOST_TRIES)
        clock.now_ms += LEASE_MS + 1
    assert MOST_TRIES_AWAY * LEASE_MS == 24 * 3_600_000


def test_what_is_away_for_good_is_refused_at_last(
    videos: LiveVideos, queue: EncodingQueue, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_queue, "MOST_TRIES_AWAY", 5)
    videos.add("n", FILE, FACTS)
    for tries in range(1, 6):
        claimed = queue.claim()
        assert claimed is not None
        assert queue.failed(claimed, "missing") == (tries == 5)
        clock.now_ms += LEASE_MS + 1
    seen = videos.get("n")
    assert seen is not None and (seen.state, seen.reason) == ("refused", "missing")


def test_what_was_tried_for_a_version_is_asked_for_apart(
    videos: LiveVideos, queue: EncodingQueue, clock: Clock
) -> None:
    """So that whoever has looked up to a `seq` need not begin anew."""
    for name in ("failed", "never tried"):
        queue.encoded(videos.add(name, FILE, FACTS), made(0.5))
    assert queue.rested("2") == []
    failed, never_tried = queue.missing("2")
    for _ in range(MOST_TRIES + 1):  # its folder is away
        assert queue.failed(failed, "missing", version="2") is False
        assert queue.rested("2") == []
        clock.now_ms += LEASE_MS
        assert queue.rested("2") == [failed]
    assert queue.counts().not_encoded == {}
    assert queue.missing("2", after_seq=failed.seq) == [never_tried]
    queue.encoded(failed, made(0.5, version="2"))
    assert queue.rested("2") == []


def test_pages_are_by_id_and_leave_deleted_ones_out(videos: LiveVideos) -> None:
    for name in ("c", "a", "b"):
        videos.add(name, FILE, FACTS)
    videos.delete("b")
    assert [v.video_id for v in videos.page("", 1)] == ["a"]
    assert [v.video_id for v in videos.page("a", 5)] == ["c"]


def test_versions_are_served_as_long_as_somebody_says_so(
    queue: EncodingQueue, clock: Clock
) -> None:
    queue.serves("1")
    clock.now_ms += SERVED_MS - 1
    queue.serves("2")
    assert queue.served() == {"1", "2"}
    clock.now_ms += 1
    assert queue.served() == {"2"}


def test_a_duration_that_an_encoder_read_is_kept_unless_somebody_said_another(
    videos: LiveVideos, queue: EncodingQueue
) -> None:
    facts = VideoFacts("Title", "c1")
    for name in ("untouched", "changed"):
        videos.add(name, FILE, facts)
    for _ in range(2):
        video = queue.claim()
        assert video is not None
        if video.video_id == "changed":
            videos.change("changed", {"duration": 9.0})
        queue.encoded(replace(video, facts=replace(facts, duration=12.5)), made(0.5))
    kept, changed = videos.get("untouched"), videos.get("changed")
    assert kept is not None and (kept.state, kept.facts.duration) == ("indexed", 12.5)
    assert changed is not None and (changed.state, changed.facts.duration) == ("indexed", 9.0)
    assert [video.video_id for video in queue.missing("1")] == ["changed"]
    assert videos.add("untouched", FILE, facts) == kept  # the same once more
    with pytest.raises(VideoConflict):
        videos.add("untouched", FILE, replace(facts, duration=13.0))


def test_a_video_that_no_encoder_comes_back_from_is_refused(
    videos: LiveVideos, queue: EncodingQueue, other_queue: EncodingQueue, clock: Clock
) -> None:
    """Each claim is counted before the work, by whichever encoder; another video is not held up."""
    videos.add("deadly", FILE, FACTS)
    for tries in range(1, MOST_TRIES + 1):
        claimed = (queue, other_queue)[tries % 2].claim()
        assert claimed is not None and claimed.video_id == "deadly"
        assert queue.faults("deadly") == [Fault(None, tries, clock.now_ms, None)]
        clock.now_ms += LEASE_MS + 1
    videos.add("fine", OTHER, FACTS)
    claimed = queue.claim()
    assert claimed is not None and claimed.video_id == "fine"
    refused = videos.get("deadly")
    assert refused is not None and (refused.state, refused.reason) == ("refused", NOT_ENCODED)
    queue.encoded(claimed, made(0.5))
    assert queue.faults("fine") == []
    assert queue.counts() == VideoCounts({"indexed": 1, "refused": 1}, {NOT_ENCODED: 1}, {})
    videos.add("deadly", FILE, FACTS)  # once more, from the beginning
    assert queue.faults("deadly") == []
    assert queue.claim() is not None


def test_a_claimed_video_that_fails_is_refused_at_the_last_try(
    videos: LiveVideos, queue: EncodingQueue, clock: Clock
) -> None:
    videos.add("n", FILE, FACTS)
    for tries in range(1, MOST_TRIES + 1):
        claimed = queue.claim()
        assert claimed is not None
        assert queue.failed(claimed, NOT_ENCODED) == (tries == MOST_TRIES)
        assert queue.faults("n") == [Fault(None, tries, clock.now_ms, NOT_ENCODED)]
        assert queue.claim() is None
        clock.now_ms += LEASE_MS + 1
    seen = videos.get("n")
    assert seen is not None and (seen.state, seen.reason) == ("refused", NOT_ENCODED)


def test_what_fails_for_another_version_rests_and_is_left_alone_at_last(
    videos: LiveVideos, queue: EncodingQueue, other_queue: EncodingQueue, clock: Clock
) -> None:
    """It stays indexed for the version with its vector; encoders that try at once count once."""
    queue.encoded(videos.add("n", FILE, FACTS), made(0.5))
    for tries in range(1, MOST_TRIES + 1):
        (video,) = queue.missing("2")
        for one in (queue, other_queue):
            assert one.failed(video, "not_video", version="2") == (tries == MOST_TRIES)
        assert queue.faults("n") == [Fault("2", tries, clock.now_ms, "not_video")]
        assert queue.missing("2") == []
        clock.now_ms += LEASE_MS
    assert queue.missing("2") == []
    assert [video.video_id for video in queue.missing("3")] == ["n"]
    assert queue.counts() == VideoCounts({"indexed": 1}, {}, {"2": 1})
    queue.encoded(video, made(0.5, version="2"))
    assert (queue.faults("n"), queue.counts().not_encoded) == ([], {})
    queue.failed(video, "missing", version="3")
    videos.delete("n")
    assert queue.faults("n") == []


def test_listed_is_what_is_neither_hidden_nor_over_nor_deleted(videos: LiveVideos) -> None:
    video = videos.add("n", FILE, VideoFacts(expires_ms=100))
    assert [video.is_listed(now) for now in (99, 100, 101)] == [True, False, False]
    hidden = videos.change("n", {"hidden": True, "expires_ms": None})
    assert hidden is not None and not hidden.is_listed(0)


@pytest.mark.parametrize(
    "wrong",
    [{"duration": 0.0}, {"duration": float("nan")}, {"title": ""}, {"categories": ("",)},
     {"categories": ("a",) * 65}, {"title": "x" * 1001}, {"creator_id": "\0"}],
)  # fmt: skip
def test_wrong_facts_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        VideoFacts(**wrong)  # type: ignore[arg-type]
