import threading
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.config.data import EventColumns
from recsys.data.catalog import Catalog
from recsys.features.batches import (
    Batcher,
    Candidates,
    VideoInputs,
    drop_ids,
    epoch_order,
    event_batch,
    in_step,
    made_ahead,
)
from recsys.features.inputs import Batch
from recsys.features.timelines import Timelines
from recsys.schema import TEST, TRAIN, VALID, timeline_schema, video_schema

NUM_VIDEOS = 40


def catalog(num_videos: int = NUM_VIDEOS) -> Catalog:
    """Video i has creator i and the categories 1 … i % 3."""
    rows = range(num_videos + 1)
    columns = {name: [0] * (num_videos + 1) for name in video_schema().names}
    columns |= {"video_id": [str(i) for i in rows], "uri": [""] * len(rows)}
    columns |= {
        "creator_row": list(rows),
        "category_rows": [list(range(1, 1 + i % 3)) for i in rows],
    }
    return Catalog.from_table(pa.table(columns, schema=video_schema()))


def make_timelines(lengths: list[int], splits: list[list[int]] | None = None) -> Timelines:
    """Every event is of a video of its own; odd ones are positive; one task, the opposite."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    number = np.arange(1, offsets[-1] + 1)

    def lists(values: np.ndarray) -> list[list[int]]:
        ends = zip(offsets[:-1], offsets[1:], strict=True)
        return [values[start:stop].tolist() for start, stop in ends]

    columns = {
        "user_id": [f"u{i}" for i in range(len(lengths))],
        "video_row": lists(number),
        "time_ms": lists(number * 1000),
        "positive": lists(number % 2),
        "labels": lists(1 - number % 2),
        "watched": [[] for _ in lengths],
        "context_rows": [[] for _ in lengths],
        "split": splits or [[TRAIN] * length for length in lengths],
    }
    table, tasks = pa.table(columns, schema=timeline_schema()), EventColumns(tasks=("skipped",))
    return Timelines.from_table(table, tasks, lambda rows, *_: np.zeros((len(rows), 1), np.float32))


def batcher(**changes: object) -> Batcher:
    settings: dict[str, object] = {
        "videos": VideoInputs(catalog(), id_rows=np.arange(NUM_VIDEOS + 1)),
        "candidates": Candidates(np.ones(NUM_VIDEOS + 1, dtype=np.int64), negatives=4),
        "learn_from": TRAIN,
        "learn_before": VALID,
        "batch_timelines": 3,
        "max_history": 5,
        **changes,
    }
    return Batcher(**settings)  # type: ignore[arg-type]


def steps(batcher: Batcher, timelines: Timelines, rng: np.random.Generator) -> list[Batch]:
    """As training takes them; what they learn from was known before they were made."""
    plan = batcher.plan(timelines, rng)
    made = [batcher.make(timelines, *windows, rng) for windows in plan]
    assert batcher.num_learnt(timelines, plan).tolist() == [b.num_learnt.tolist() for b in made]
    for batch in made:
        positive = batch.events.actions[..., 0] > 0
        expected = [(batch.learn & positive).sum().item(), batch.learn.sum().item()]
        assert batch.num_learnt.tolist() == expected
    return made


def learnt_videos(batch: Batch) -> list[int]:
    return batch.videos.id_rows[batch.video_index][batch.learn].tolist()


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def test_log_q_is_the_chance_to_be_a_candidate() -> None:
    """Against 4,000 steps of 3 targets drawn by their share of the positives."""
    positives = np.array([0, 8, 4, 2, 1, 1, 0, 0])  # row 0, then 7 videos
    candidates = Candidates(positives, negatives=2)
    generator = rng()
    steps, times_drawn, log_q = 4000, np.zeros(8), np.full(8, np.nan)
    for _ in range(steps):
        targets = generator.choice(8, 3, p=positives / positives.sum())
        rows, values = candidates.draw(targets, generator)
        assert (np.diff(rows) > 0).all()
        times_drawn[rows] += 1
        log_q[rows] = values
    assert np.isnan(log_q[0])
    # The standard error of a share of 4,000 is at most 0.008.
    assert np.exp(log_q[1:]) == pytest.approx(times_drawn[1:] / steps, abs=0.03)
    # By hand for video 1: 1 - (1 - 2/7) (1 - 8/16)³; for one without positives: 2/7.
    assert np.exp(log_q[1]) == pytest.approx(1 - 5 / 7 / 8)
    assert np.exp(log_q[7]) == pytest.approx(2 / 7)


def test_the_only_positive_event_is_a_candidate_for_certain() -> None:
    candidates = Candidates(np.array([0, 0, 1, 0, 0]), negatives=1)
    rows, log_q = candidates.draw(np.array([2]), rng())
    assert np.exp(log_q[rows.tolist().index(2)]) == pytest.approx(1)


@pytest.mark.parametrize("negatives", [7, 8, 10**6])
def test_with_as_many_negatives_as_videos_all_are_candidates(negatives: int) -> None:
    candidates = Candidates(np.arange(8), negatives=negatives)
    rows, log_q = candidates.draw(np.array([3, 3]), rng())
    assert rows.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert log_q.tolist() == [0.0] * 7


@pytest.mark.parametrize("negatives", [1, 100])
def test_targets_are_always_candidates_and_the_unknown_video_never(negatives: int) -> None:
    candidates = Candidates(np.zeros(101, dtype=np.int64), negatives)
    rows, log_q = candidates.draw(np.array([50, 0, 99]), rng())
    assert {50, 99} <= set(rows.tolist())
    assert 0 not in rows
    assert np.isfinite(log_q).all()


def test_a_step_ranks_its_targets_among_candidates_and_nobody_else() -> None:
    timelines = make_timelines([4, 2])
    batch = batcher().make(timelines, timelines.offsets[:-1], timelines.offsets[1:], rng())
    rows = batch.videos.id_rows.tolist()
    assert rows == sorted(set(rows))
    assert rows[0] == 0
    assert batch.log_q.dtype == batch.num_learnt.dtype == torch.float32
    assert batch.videos.id_rows[batch.video_index].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    is_candidate = torch.isfinite(batch.log_q)
    assert not is_candidate[0]
    positives = [1, 3, 5]
    assert all(is_candidate[rows.index(row)] for row in positives)
    assert int(is_candidate.sum()) <= 4 + len(positives)
    assert batch.videos.creator_rows.tolist() == rows
    lengths = [row % 3 for row in rows]
    assert batch.videos.category_lengths.tolist() == lengths
    expected = [category for length in lengths for category in range(1, 1 + length)]
    assert batch.videos.category_rows.tolist() == expected


@pytest.mark.parametrize(
    ("learn_from", "learn_before", "learnt"),
    [
        (TRAIN, VALID, [1, 2, 5]),
        (TRAIN, TEST, [1, 2, 3, 5]),
        (VALID, TEST, [3]),
    ],
)
def test_what_is_learnt_follows_from_the_split(
    learn_from: int, learn_before: int, learnt: list[int]
) -> None:
    splits = [[TRAIN, TRAIN, VALID, TEST], [TRAIN], [TEST, TEST]]
    timelines = make_timelines([4, 1, 2], splits)
    made = steps(batcher(learn_from=learn_from, learn_before=learn_before), timelines, rng())
    assert sorted(v for batch in made for v in learnt_videos(batch)) == learnt
    seen = {v for batch in made for v in batch.videos.id_rows[batch.video_index].ravel().tolist()}
    later = {TRAIN: set(), VALID: {3, 4, 6, 7}, TEST: {4, 6, 7}}[learn_before]
    assert not seen & later, "events after the cut stay out of sight"


def test_events_of_unknown_videos_are_history_but_not_learnt() -> None:
    timelines = make_timelines([3])
    timelines.video_rows[1] = 0
    (batch,) = steps(batcher(), timelines, rng())
    assert learnt_videos(batch) == [1, 3]
    assert batch.num_learnt.tolist() == [2, 2]
    assert batch.events.num_prior.tolist() == [[0, 1, 2]]


def test_an_epoch_learns_every_event_once() -> None:
    """Timelines longer than `max_history` are cut into windows; one is empty."""
    timelines = make_timelines([12, 0, 5, 1, 6, 7])
    made = steps(batcher(), timelines, rng())
    assert sorted(v for batch in made for v in learnt_videos(batch)) == list(range(1, 32))
    assert len(made) == 3  # 9 windows (3 + 1 + 1 + 2 + 2) by 3
    assert max(batch.learn.shape[1] for batch in made) == 5


def test_the_order_of_steps_follows_from_the_generator() -> None:
    timelines = make_timelines([3, 1, 4, 1, 5, 2, 6])

    def orders(seed: int) -> list[list[int]]:
        return [learnt_videos(b) for b in steps(batcher(), timelines, np.random.default_rng(seed))]

    assert orders(1) == orders(1)
    assert any(orders(1) != orders(seed) for seed in range(2, 6))


def test_windows_of_like_length_stand_together() -> None:
    """Whatever the order of users; who stands with whom among equals is drawn anew."""
    timelines = make_timelines([5, 1, 4, 1, 5, 1, 4, 1, 5, 4, 1, 1])
    made = steps(batcher(), timelines, rng())
    assert sorted(batch.learn.sum(1).tolist() for batch in made) == [
        [1, 1, 1],
        [1, 1, 1],
        [4, 4, 4],
        [5, 5, 5],
    ]

    def companies(seed: int) -> set[tuple[str, ...]]:
        plan = steps(batcher(), timelines, np.random.default_rng(seed))
        return {tuple(sorted(batch.user_ids)) for batch in plan}

    assert len({str(sorted(companies(seed))) for seed in range(5)}) > 1


@pytest.mark.parametrize("fewer", [1, 2, 3, 4])
def test_workers_take_steps_of_like_lengths_together(fewer: int) -> None:
    """One has windows of 1 to 4 events; the other has fewer of them, evenly spread over those."""
    ours = batcher(batch_timelines=1).plan(make_timelines([4, 1, 3, 2]), rng())
    theirs = batcher(batch_timelines=1).plan(make_timelines([4, 2, 3, 1][:fewer]), rng())
    order = np.array([2, 0, 3, 1])
    both = [
        [int((stops - starts).sum()) for starts, stops in in_step(plan, order)]
        for plan in (ours, theirs)
    ]
    assert both[0] == [3, 1, 4, 2]
    spread = {1: [0, 4, 0, 0], 2: [4, 2, 0, 0], 3: [4, 2, 0, 3], 4: [3, 1, 4, 2]}
    assert both[1] == spread[fewer]


def test_a_worker_without_timelines_takes_empty_steps() -> None:
    plan = in_step([], np.array([1, 0]))
    assert [len(starts) for starts, _ in plan] == [0, 0]
    assert batcher().num_learnt(make_timelines([2]), plan).tolist() == [[0, 0], [0, 0]]


def test_a_step_says_whose_timelines_it_has() -> None:
    """Users without events, and users of several windows, among them."""
    timelines = make_timelines([2, 0, 12, 0, 0, 1])
    made = steps(batcher(), timelines, rng())
    assert sorted(user for batch in made for user in batch.user_ids) == [
        "u0",
        "u2",
        "u2",
        "u2",
        "u5",
    ]
    for batch in made:
        for user, rows, learn in zip(
            batch.user_ids, batch.videos.id_rows[batch.video_index], batch.learn, strict=True
        ):
            first, last = timelines.offsets[int(user[1:])], timelines.offsets[int(user[1:]) + 1]
            assert set(rows[learn].tolist()) <= set(timelines.video_rows[first:last].tolist())


def test_timelines_with_anything_to_learn_are_counted() -> None:
    splits = [[TRAIN, TRAIN, VALID, TEST], [TRAIN], [TEST, TEST], [VALID, TEST], []]
    timelines = make_timelines([4, 1, 2, 2, 0], splits)
    assert batcher().num_timelines(timelines) == 2
    assert batcher(learn_before=TEST).num_timelines(timelines) == 3
    assert batcher(learn_from=VALID, learn_before=TEST).num_timelines(timelines) == 2
    assert batcher().num_timelines(make_timelines([])) == 0


def test_a_step_without_windows_teaches_nothing() -> None:
    nothing = np.zeros(0, dtype=np.int64)
    for timelines in (make_timelines([2]), make_timelines([]), make_timelines([0])):
        batch = batcher().make(timelines, nothing, nothing, rng())
        assert batch.learn.tolist() == [[False]]
        assert torch.isfinite(batch.log_q).sum() == 4
        assert batch.videos.id_rows[0] == 0


def test_partitions_without_learnable_events_have_no_steps() -> None:
    for timelines in (make_timelines([]), make_timelines([2], [[TEST, TEST]])):
        assert steps(batcher(), timelines, rng()) == []
        assert batcher().num_learnt(timelines, []).shape == (0, 2)


def test_clips_are_read_once_a_batch() -> None:
    """Of videos 0 … 3, videos 1 and 3 have the clips of rows 5 and 2."""
    read = []

    def load(rows: np.ndarray) -> np.ndarray:
        read.append(rows.tolist())
        return rows[:, None].astype(np.float16)

    videos = VideoInputs(catalog(3), np.arange(4), np.array([-1, 5, -1, 2]), load)
    batch = videos.batch(np.array([0, 1, 2, 3]))
    assert read == [[5, 2]]
    assert batch.clips is not None and batch.clip_index is not None
    assert batch.clips.tolist() == [[5.0], [2.0]]
    assert batch.clip_index.tolist() == [-1, 0, -1, 1]
    # All workers must run the frame encoder, so a batch without clips still takes one.
    alone = videos.batch(np.array([0, 2]))
    assert alone.clips is not None and alone.clip_index is not None
    assert (len(alone.clips), alone.clip_index.tolist()) == (1, [-1, -1])


def test_epoch_order_is_seeded_and_takes_every_partition_once() -> None:
    assert sorted(epoch_order(9, seed=1, epoch=2).tolist()) == list(range(9))
    again, other = epoch_order(50, seed=1, epoch=2), epoch_order(50, seed=1, epoch=3)
    assert epoch_order(50, seed=1, epoch=2).tolist() == again.tolist() != other.tolist()
    assert epoch_order(50, seed=2, epoch=2).tolist() != again.tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_made_ahead_keeps_its_order_and_raises_what_making_it_raised(threads: int) -> None:
    def made(*numbers: int) -> Iterator[int]:
        return made_ahead([partial(int, number) for number in numbers], threads=threads)

    assert list(made(3, 1, 2, 9, 7)) == [3, 1, 2, 9, 7]
    assert list(made()) == []
    items = made_ahead([partial(int, 1), partial(int, "clip"), partial(int, 2)], threads=threads)
    assert next(items) == 1
    with pytest.raises(ValueError, match="clip"):
        next(items)


def test_several_are_made_at_a_time_and_no_more_wait() -> None:
    """Each waits until three are being made, so that fewer threads would never end."""
    together, begun = threading.Barrier(3, timeout=30), list[int]()

    def make(number: int) -> int:
        begun.append(number)
        together.wait()
        return number

    items = made_ahead((partial(make, number) for number in range(9)), threads=3)
    assert next(items) == 0
    assert max(begun) <= 3  # the fourth began when the first was taken
    assert list(items) == list(range(1, 9))


def test_one_is_made_while_the_one_before_it_is_used() -> None:
    begun, used = threading.Event(), list[int]()

    def make(number: int) -> int:
        if number == 1:
            begun.set()
        return number

    for number in made_ahead(partial(make, number) for number in range(2)):
        assert begun.wait(30)
        used.append(number)
    assert used == [0, 1]


def test_bytes_of_a_steps_clips() -> None:
    """4 negatives and 3 timelines of 5 events are 19 videos of the catalogue's 41."""
    videos = VideoInputs(catalog(), np.arange(NUM_VIDEOS + 1), clip_bytes=100)
    assert batcher().most_clip_bytes == 0
    assert batcher(videos=videos).most_clip_bytes == 1900
    assert batcher(videos=videos, step_clips=7).most_clip_bytes == 700
    assert batcher(videos=videos, batch_timelines=30, step_clips=99).most_clip_bytes == 4100


def test_move_takes_nested_tensors_along_and_leaves_the_rest() -> None:
    timelines = make_timelines([2])
    batch = batcher().make(timelines, timelines.offsets[:-1], timelines.offsets[1:], rng())
    there = batch.to(torch.device("meta"))
    assert there.videos.id_rows.is_meta and there.events.context.gaps.is_meta
    assert there.videos.clips is None
    assert not batch.videos.id_rows.is_meta


def test_event_batch_has_the_windows_values() -> None:
    arrays = make_timelines([2, 1]).windows([0, 2], [2, 3])
    events = event_batch(arrays)
    assert events.num_prior.tolist() == arrays.num_prior.tolist()
    assert events.actions.tolist() == arrays.actions.tolist()
    assert events.context.gaps.tolist() == arrays.gaps.tolist()


def test_a_video_that_nobody_was_shown_is_no_negative() -> None:
    candidates = Candidates(np.arange(8), negatives=100, pool=np.array([2, 3, 7]))
    rows, log_q = candidates.draw(np.array([3, 3]), rng())
    assert rows.tolist() == [2, 3, 7]
    assert log_q.tolist() == [0.0] * 3


def test_a_target_outside_the_pool_is_a_candidate_too() -> None:
    candidates = Candidates(np.arange(8), negatives=100, pool=np.array([2, 3, 7]))
    rows, _ = candidates.draw(np.array([1, 3, 0]), rng())
    assert rows.tolist() == [1, 2, 3, 7]


def test_users_with_nothing_to_learn_take_no_place_in_a_step() -> None:
    timelines = make_timelines([3, 2, 1], [[TRAIN] * 3, [TRAIN, VALID], [TEST]])
    ((starts, stops),) = batcher(learn_from=VALID, learn_before=TEST).plan(timelines, rng())
    assert (starts.tolist(), stops.tolist()) == ([3], [5])


def test_ids_are_dropped_at_random_and_the_batch_stays_as_it_was() -> None:
    timelines = make_timelines([2])
    batch = batcher().make(timelines, timelines.offsets[:-1], timelines.offsets[1:], rng())
    batch.videos.id_rows = torch.arange(1, 4001)
    kept = drop_ids(batch, 0.25, rng()).videos.id_rows
    assert set((kept[kept != batch.videos.id_rows]).tolist()) == {0}
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert batch.videos.id_rows.tolist() == list(range(1, 4001))
    assert torch.equal(drop_ids(batch, 0.0, rng()).videos.id_rows, batch.videos.id_rows)
    assert not drop_ids(batch, 1.0, rng()).videos.id_rows.any()
