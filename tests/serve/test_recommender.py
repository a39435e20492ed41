import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from recsys.bundle.contents import Bundle
from recsys.config.run import ServeConfig
from recsys.data.ragged import Ragged
from recsys.errors import InputError
from recsys.features.batches import event_batch
from recsys.features.counts import CountLayout, EventCounts, trending
from recsys.features.hourly import HourlyCounts
from recsys.features.timelines import Timelines
from recsys.live.log.events import EventLog
from recsys.model.user import states_at
from recsys.schema import timeline_schema
from recsys.serve.recommender import ServingRecommender
from tests.bundles import NUM_VIDEOS, START_MS, TASKS, TinyRun, make_run
from tests.serve.live import Served
from tests.steps import repeat_scores

LATER = START_MS + 10**10
NUM_EVENTS = 27
TABS = [None, "home", "search"]


def made(tiny: TinyRun, table: pa.Table) -> Timelines:
    return Timelines.from_table(table, tiny.config.data.columns, tiny.counts.features)


@torch.no_grad()
def training_outputs(tiny: TinyRun) -> tuple[Timelines, np.ndarray, np.ndarray]:
    """User u9's timeline, and for each of its positions the scores of its own video as a training
    step computes them: retrieval score (L,) and probabilities (L, T)."""
    timeline = made(tiny, tiny.timelines.slice(9))
    timeline = replace(timeline, user_rows=np.array([[9 % 3]]))
    arrays = timeline.windows(timeline.offsets[:-1], timeline.offsets[1:])
    events, model = event_batch(arrays), tiny.recommender
    vectors = torch.from_numpy(tiny.vectors)[torch.from_numpy(arrays.video_rows)]
    states = states_at(model.encode_history(vectors, events), events.num_prior)
    dots = (model.queries(states) * vectors[..., : model.dim]).sum(-1)
    dots += repeat_scores(model, arrays)
    times = zip(timeline.time_ms.tolist(), timeline.video_rows, strict=True)
    now = [trending(tiny.counts.shown(time_ms))[row] for time_ms, row in times]
    dots += model.trending * torch.tensor(np.stack(now))
    logits = model.task_logits(states, vectors, events.context, events.count_features)
    return timeline, dots[0].numpy(), logits[0].sigmoid().numpy()


@pytest.mark.parametrize("position", [0, 1, 2, 13, 25, 26])
def test_scores_are_those_of_training(tiny: TinyRun, served: Served, position: int) -> None:
    """Asked as of an event's time, the server knows what training knew. Two events share a time."""
    timeline, dots, probabilities = training_outputs(tiny)
    tab = TABS[timeline.context_rows[position, 0]]
    answer = served.score(
        "u9",
        [f"v{timeline.video_rows[position]}"],
        now_ms=int(timeline.time_ms[position]),
        context={"tab": tab} if tab else {},
    )
    assert answer.num_history == position - position % 2
    assert answer.videos[0].score == pytest.approx(dots[position], abs=1e-5)
    of_tasks = [answer.videos[0].probabilities[task] for task in TASKS]
    assert of_tasks == pytest.approx(probabilities[position].tolist(), abs=1e-5)


def without_events(bundle: Bundle) -> Bundle:
    """The bundle on the day before anything happened."""
    nothing = np.zeros(0, np.int64)
    empty = {
        name: HourlyCounts(nothing, nothing, np.zeros((0, 4), np.int64))
        for name in ("video", "context_tab")
    }
    columns = bundle.config.data.columns
    counts = EventCounts.of(bundle.catalog, CountLayout.of(columns), empty)
    nobody = Timelines.from_table(timeline_schema().empty_table(), columns, counts.features)
    older = Ragged.empty(0)
    return replace(bundle, histories=nobody, older_liked=older, counts=counts)


def test_a_server_told_of_every_event_answers_as_one_whose_bundle_holds_them(
    tiny: TinyRun, log: EventLog
) -> None:
    """All users' events in the order of time, one by one, against what prepare made of them."""
    served = ServingRecommender(Bundle.load(str(tiny.run)))
    live = Served(without_events(served.bundle), log)
    events = made(tiny, tiny.timelines)
    users = np.repeat(np.arange(len(events)), np.diff(events.offsets))
    for i in np.argsort(events.time_ms, kind="stable"):
        tab = TABS[events.context_rows[i, 0]]
        live.tell(
            events.user_ids[users[i]],
            f"v{events.video_rows[i]}",
            event_id=f"e{i}",
            time_ms=int(events.time_ms[i]),
            positive=bool(events.positive[i]),
            labels={task: bool(events.labels[i, j]) for j, task in enumerate(TASKS)},
            watched=float(events.watched[i, 0]),
            context={"tab": tab} if tab else {},
        )
    for user in events.user_ids:
        ours, theirs = (server.recommend(user, 5, now_ms=LATER).videos for server in (live, served))
        assert [v.video_id for v in ours] == [v.video_id for v in theirs]
        for a, b in zip(ours, theirs, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-5)
            assert a.probabilities == pytest.approx(b.probabilities, abs=1e-5)


def test_recommends_the_best_scores_without_what_was_seen(tiny: TinyRun, served: Served) -> None:
    every = [f"v{i}" for i in range(1, 31)]
    scores = {v.video_id: v.score for v in served.score("u9", every, now_ms=LATER).videos}
    rows = tiny.timelines.column("video_row")[9].as_py()
    liked = tiny.timelines.column("positive")[9].as_py()
    seen = {f"v{row}" for row, good in zip(rows, liked, strict=True) if good}
    expected = sorted(scores.keys() - seen, key=lambda v: -scores[v])[:5]
    answer = served.recommend("u9", 5, now_ms=LATER)
    assert [v.video_id for v in answer.videos] == expected
    with_seen = served.recommend("u9", 5, now_ms=LATER, exclude_seen=False)
    assert [v.video_id for v in with_seen.videos] == sorted(scores, key=lambda v: -scores[v])[:5]


def test_unknown_user_gets_the_empty_history(served: Served) -> None:
    """User u0 is known but has no events: the same state."""
    stranger, empty = (served.recommend(user, 3, now_ms=LATER) for user in ("nobody", "u0"))
    assert (stranger.known_user, empty.known_user) == (False, True)
    assert stranger.num_history == 0
    assert stranger.videos == empty.videos


def test_a_user_without_events_is_known_by_features(served: Served) -> None:
    """One of the user table, one of the same region, and a stranger."""
    newcomer = served.recommend("newcomer", 5, now_ms=LATER)
    stranger = served.recommend("who", 5, now_ms=LATER)
    assert not newcomer.known_user and newcomer.num_history == 0
    assert newcomer.videos != stranger.videos
    told = served.recommend("who", 5, now_ms=LATER, user={"region": "north"})
    assert told.videos == newcomer.videos
    unknown = served.recommend("newcomer", 5, now_ms=LATER, user={"region": "nowhere"})
    assert unknown.videos == stranger.videos
    with pytest.raises(InputError, match="user.age: unknown; this model's user features: region"):
        served.score("who", ["v1"], user={"age": "9"})


def test_unknown_videos_are_listed_and_the_order_is_kept(served: Served) -> None:
    answer = served.score("u9", ["zz", "v9", "v2", "yy"], now_ms=LATER)
    assert [v.video_id for v in answer.videos] == ["v9", "v2"]
    assert answer.unknown_video_ids == ("zz", "yy")
    only_unknown = served.score("u9", ["zz"])
    assert (only_unknown.videos, only_unknown.unknown_video_ids) == ((), ("zz",))


def test_a_catalogue_can_run_out(served: Served) -> None:
    """The model reads 27 events; the first of the 28 is not recommended again all the same."""
    for i in range(1, 29):
        served.tell("eager", f"v{i}", time_ms=START_MS)
    answer = served.recommend("eager", 20, now_ms=LATER)
    assert answer.num_history == 27
    assert {v.video_id for v in answer.videos} == {"v29", "v30"}
    assert answer.cursor is None, "there is no next page"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.recommend("u1", 0), r"k=0: must be from 1 to 20 \(serve.max_k\)"),
        (lambda s: s.recommend("u1", 21), "k=21: must be from 1 to 20"),
        (lambda s: s.score("u1", []), "0 video_ids: must be from 1 to 40"),
        (lambda s: s.score("u1", ["v1"] * 41), "41 video_ids: must be from 1 to 40"),
        (lambda s: s.recommend("u1", 1, context={"tub": "x"}), "context.tub: unknown; .* tab"),
    ],
)
def test_wrong_requests_say_what_is_allowed(served, call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=message):
        call(served)


def test_an_unknown_value_of_a_context_counts_as_unknown(served: Served) -> None:
    given, missing = (
        served.score("u9", ["v1"], now_ms=LATER, context=context)
        for context in ({"tab": "never seen"}, {})
    )
    assert given.videos == missing.videos


def test_can_be_ordered_by_a_task(tmp_path) -> None:  # type: ignore[no-untyped-def]
    make_run(tmp_path, serve={"rank": "like"}, rerank={"candidates": 30})
    answer = ServingRecommender(Bundle.load(str(tmp_path))).recommend("u9", 5, now_ms=LATER)
    every = ServingRecommender(Bundle.load(str(tmp_path))).recommend("u9", 30, now_ms=LATER)
    likes = [v.probabilities["like"] for v in every.videos]
    assert likes == sorted(likes, reverse=True)
    assert answer.videos == every.videos[:5]


def test_an_order_that_a_version_does_not_know_is_refused(tiny: TinyRun) -> None:
    """A server's own settings stay, whatever version comes."""
    bundle = Bundle.load(str(tiny.run)).with_settings(ServeConfig(rank="shares"))
    with pytest.raises(
        InputError, match="serve.rank=shares: must be one of retrieval, click, like"
    ):
        ServingRecommender(bundle)


def test_needs_no_ray_and_nothing_of_training() -> None:
    code = (
        "import sys, recsys.serve.recommender\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "assert not names & {'ray', 'torchrec', 'fbgemm_gpu'}, names\n"
        "assert not any(name.startswith('recsys.train') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_was_met_before_is_found_by_its_whole_score(served: Served) -> None:
    """Also where repeats gain so much that the dot product alone would never find them."""
    model = served.bundle.recommender
    before = model.repeat.detach().clone()
    for weights in ([30.0, 0.0], [-30.0, 0.0], [0.2, -0.1]):
        with torch.no_grad():
            model.repeat[:] = torch.tensor(weights)
        answer = served.recommend("u9", 5, now_ms=LATER, exclude_seen=False)
        every = served.score("u9", [f"v{i}" for i in range(1, NUM_VIDEOS + 1)], now_ms=LATER)
        best = sorted(every.videos, key=lambda video: -video.score)[:5]
        assert [v.video_id for v in answer.videos] == [v.video_id for v in best]
        scores = [v.score for v in answer.videos]
        assert scores == pytest.approx([v.score for v in best], abs=1e-4)
    with torch.no_grad():
        model.repeat[:] = before
