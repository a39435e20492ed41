"""Filters, exclusions and pages, through the recommender that obeys them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.bundle.contents import Bundle
from recsys.errors import InputError
from recsys.live.clock import now
from recsys.live.log.event import DAY_MS
from recsys.live.videos.live_videos import LiveVideo, VideoFacts
from recsys.serve.asks import Filters
from recsys.serve.recommender import ServingRecommender
from tests.bundles import NUM_VIDEOS, START_MS, make_run
from tests.serve.live import Served

LATER = START_MS + 10**10


def rows(served: ServingRecommender, k: int = 20, **filters: object) -> list[int]:
    asked = Filters(**filters)  # type: ignore[arg-type]
    videos = served.recommend("nobody", k, now_ms=LATER, filters=asked).videos
    return [int(video.video_id[1:]) for video in videos]


def test_a_filter_holds_of_every_video_and_leaves_out_no_other(served: Served) -> None:
    """Creators are 1 + row % 3, categories 1 + row % 2, lengths 10 + row but every fourth."""
    assert sorted(rows(served, creators=("c2",))) == [r for r in range(1, 31) if r % 3 == 1]
    assert sorted(rows(served, categories=("wild",))) == [r for r in range(1, 31) if r % 2 == 1]
    assert sorted(rows(served, min_duration=35)) == [25, 26, 27, 29, 30]
    assert sorted(rows(served, max_duration=13)) == [1, 2, 3]
    assert sorted(rows(served, video_ids=("v3", "zz", "v9"))) == [3, 9]
    both = rows(served, creators=("c1", "c2"), categories=("wild",), max_duration=20)
    assert sorted(both) == [1, 3, 7, 9]


def test_a_filter_keeps_the_order_of_scores(served: Served) -> None:
    every = served.recommend("u9", 20, now_ms=LATER, exclude_seen=False).videos
    some = served.recommend(
        "u9", 20, now_ms=LATER, exclude_seen=False, filters=Filters(creators=("c1",))
    ).videos
    scores = [video.score for video in some]
    assert scores == sorted(scores, reverse=True) and len(some) == 10
    known = {video.video_id: video.score for video in every}
    for video in some:
        assert known.get(video.video_id, video.score) == pytest.approx(video.score, abs=1e-5)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"creators": ("c9",)}, "filters.creators: 'c9' is no creator of this catalogue; it has c"),
        ({"categories": ("x",)}, "filters.categories: 'x' is no category of this catalogue"),
    ],
)
def test_what_the_catalogue_does_not_know_is_refused(
    served: Served, filters: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rows(served, **filters)


def test_age_is_counted_from_the_first_event_of_all(served: Served) -> None:
    """All were first shown in 2023; one that is shown for the first time today is new."""
    assert rows(served, max_age_days=1) == []
    asked = Filters(max_age_days=200)
    assert len(served.recommend("nobody", 20, now_ms=LATER, filters=asked).videos) == 20
    served.ages.first_ms_N[4] = -1  # never shown
    assert rows(served, max_age_days=1) == [4]
    served.tell("someone", "v4")
    day = Filters(max_age_days=1)
    assert [v.video_id for v in served.recommend("nobody", 9, filters=day).videos] == ["v4"]
    week_later = now() + 7 * DAY_MS
    assert not served.recommend("nobody", 9, now_ms=week_later, filters=day).videos


def live(row: int, creator_id: str, **facts: Any) -> LiveVideo:
    """A video that came live and has its vector."""
    said = VideoFacts(creator_id=creator_id, **facts)
    vector = np.full(12, 0.1, np.float32)
    return LiveVideo(f"v{row}", row, "indexed", said, None, received_ms=START_MS, vector=vector)


def test_a_kept_filter_looks_only_at_what_has_come_or_changed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allowed(**filters: Any) -> list[int]:
        mask = served._conditions.allowed(Filters(**filters), LATER)
        assert mask is not None and len(mask) == len(served.catalogue)
        return [int(row) for row in np.flatnonzero(mask) if row > NUM_VIDEOS]

    asked = {"creators": ("c2",)}, {"video_ids": ("v31", "v32")}, {"creators": ("c1",)}
    assert [allowed(**one) for one in asked] == [[], [], []]
    with monkeypatch.context() as patched:
        patched.setattr(type(served.catalogue), "described", lambda _: pytest.fail("all of them"))
        served.catalogue.take([live(31, "c2"), live(32, "c1"), live(33, "c2")])
        assert [allowed(**one) for one in asked] == [[31, 33], [31, 32], [32]]
        served.catalogue.take([live(33, "c1")])
        served.catalogue.take([live(31, "c9"), live(34, "c2")])
        assert [allowed(**one) for one in asked] == [[34], [31, 32], [32, 33]]
    assert allowed(creators=("c9",)) == [31]


def test_lists_leave_out_what_was_hidden_and_what_is_over(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = served.catalogue
    catalogue.take([live(31, "c1", hidden=True), live(32, "c1", expires_ms=LATER), live(33, "c1")])
    assert catalogue.unlisted(LATER - 1).tolist() == [31]
    assert catalogue.unlisted(LATER).tolist() == [31, 32]
    catalogue.take([live(31, "c1"), live(32, "c1", expires_ms=LATER + 1)])
    assert catalogue.unlisted(LATER).tolist() == []
    assert catalogue.unlisted(LATER + 1).tolist() == [32]
    with monkeypatch.context() as patched:  # one more costs no look at all the others
        patched.setattr(type(catalogue), "_decide_unlisted", lambda _: pytest.fail("all of them"))
        catalogue.take([live(34, "c1")])
    catalogue.take([live(34, "c1", hidden=True, expires_ms=LATER)])
    assert catalogue.unlisted(LATER).tolist() == [34]


def test_excluded_ids_do_not_come(served: Served) -> None:
    first = [video.video_id for video in served.recommend("u9", 5, now_ms=LATER).videos]
    rest = served.recommend("u9", 5, now_ms=LATER, exclude=(first[0], first[2], "zz")).videos
    assert [video.video_id for video in rest][:3] == [first[1], first[3], first[4]]


def test_pages_go_on_without_repeating_whatever_happens(served: Served) -> None:
    shown: list[str] = []
    cursor = None
    for page in range(20):
        answer = served.recommend("someone", 7, cursor=cursor, exclude_seen=False)
        shown += [video.video_id for video in answer.videos]
        served.tell("someone", shown[page])  # the order changes
        cursor = answer.cursor
        if cursor is None:
            break
    assert sorted(shown) == sorted(f"v{row}" for row in range(1, NUM_VIDEOS + 1))


def test_a_cursor_holds_on_another_version(served: Served, tmp_path: Path) -> None:
    make_run(tmp_path / "other")
    other = ServingRecommender(Bundle.load(str(tmp_path / "other")))
    first = served.recommend("u9", 5, now_ms=LATER)
    second = other.recommend("u9", 5, now_ms=LATER, cursor=first.cursor)
    assert not {v.video_id for v in first.videos} & {v.video_id for v in second.videos}


@pytest.mark.parametrize("cursor", ["x", "&&&&", "A" * 20_000, "é", "AAAAA"])
def test_a_cursor_that_is_none_is_refused(served: Served, cursor: str) -> None:
    with pytest.raises(InputError, match="cursor: not one that this server gave"):
        served.recommend("u9", 5, cursor=cursor)


def test_filters_that_are_kept_are_bounded(served: Served) -> None:
    for number in range(200):
        rows(served, 1, min_duration=number / 10)
    assert len(served._conditions._masks) == 64
