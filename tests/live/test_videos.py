"""The table of live videos, on each database."""

from collections.abc import Callable

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.live.events import EventLog
from recsys.live.videos import (
    LEASE_MS,
    SERVED_MS,
    Encoded,
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
def others(open_log: Callable[[], EventLog], clock: Clock) -> LiveVideos:
    """As another process sees it."""
    return LiveVideos(open_log().database, clock=clock)


def made(value: float, *, version: str = "1", content: float | None = None) -> Encoded:
    given = None if content is None else np.full(2, content, np.float32)
    return Encoded({version: VideoVector(np.full(3, value, np.float32), given)}, 5)


def test_a_video_goes_from_stored_to_indexed(
    videos: LiveVideos, others: LiveVideos, clock: Clock
) -> None:
    added = videos.add("n", FILE, FACTS)
    assert (added.state, added.file, added.facts) == ("stored", FILE, FACTS)
    assert added.received_ms == clock.now_ms
    tail = others.tail("1")
    assert [(v.video_id, v.vector) for v in tail.changed(0, 10)] == [("n", None)]
    claimed = others.claim()
    assert claimed is not None and claimed.video_id == "n"
    clock.now_ms += 100
    others.encoded(claimed, made(0.5))
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
    videos: LiveVideos, others: LiveVideos, clock: Clock
) -> None:
    videos.add("n", FILE, FACTS)
    assert videos.claim() is not None
    assert others.claim() is None
    clock.now_ms += LEASE_MS
    assert others.claim() is None
    clock.now_ms += 1
    again = others.claim()
    assert again is not None and again.video_id == "n"


def test_the_same_again_is_the_same_and_another_a_conflict(videos: LiveVideos) -> None:
    first = videos.add("n", FILE, FACTS)
    assert videos.add("n", FILE, FACTS) == first
    for file, facts in ((OTHER, FACTS), (FILE, VideoFacts("Another")), (None, FACTS)):
        with pytest.raises(VideoConflict):
            videos.add("n", file, facts)
    videos.refuse(first, "not_video", "no")
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
    assert videos.delete("v2", in_bundle=True) is None
    assert videos.change("v2", {"hidden": True}, of_bundle=VideoFacts()) is None


def test_a_vector_of_other_facts_or_versions_is_missing(videos: LiveVideos) -> None:
    videos.encoded(videos.add("n", FILE, FACTS), made(0.5))
    assert videos.missing("1") == []
    assert [v.video_id for v in videos.missing("2")] == ["n"]
    videos.change("n", {"title": "Another"})
    assert videos.missing("1") == []
    videos.change("n", {"creator_id": None})
    (missing,) = videos.missing("1")
    videos.encoded(missing, made(0.7))
    assert videos.missing("1") == []
    (seen,) = videos.tail("1").changed(0, 10)
    assert seen.vector is not None and seen.vector[0] == np.float32(0.7)


def test_what_was_deleted_while_it_was_encoded_stays_deleted(videos: LiveVideos) -> None:
    video = videos.add("n", FILE, FACTS)
    videos.delete("n")
    videos.encoded(video, made(0.5))
    videos.refuse(video, "not_video", "no")
    (seen,) = videos.tail("1").changed(0, 10)
    assert (seen.state, seen.vector) == ("deleted", None)


def test_same_files_and_contents_are_found(videos: LiveVideos) -> None:
    first = videos.add("first", FILE, FACTS)
    videos.encoded(first, made(0.5, content=1.0))
    same = videos.add("same", FILE, FACTS)
    assert videos.same_file(first) is None
    assert videos.same_file(same) == "first"
    assert videos.is_needed(FILE.uri)
    ((name, _, content),) = videos.contents("1")
    assert (name, content.tolist()) == ("first", [1.0, 1.0])
    videos.delete("first")
    assert (videos.contents("1"), videos.is_needed(FILE.uri)) == ([], True)
    videos.delete("same")
    assert not videos.is_needed(FILE.uri)


def test_pages_are_by_id_and_leave_deleted_ones_out(videos: LiveVideos) -> None:
    for name in ("c", "a", "b"):
        videos.add(name, FILE, FACTS)
    videos.delete("b")
    assert [v.video_id for v in videos.page("", 1)] == ["a"]
    assert [v.video_id for v in videos.page("a", 5)] == ["c"]


def test_versions_are_served_as_long_as_somebody_says_so(videos: LiveVideos, clock: Clock) -> None:
    videos.serves("1")
    clock.now_ms += SERVED_MS - 1
    videos.serves("2")
    assert videos.served() == {"1", "2"}
    clock.now_ms += 1
    assert videos.served() == {"2"}


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
