import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.features.batches import event_batch
from recsys.features.timelines import Timelines
from recsys.inference.encode import all_contents, all_vectors
from recsys.inference.predict import Predictions, Predictor, concat, predict
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.model.user import states_at
from recsys.schema import TEST, TRAIN, VALID
from tests.steps import NUM_VIDEOS, SIZES, make_config, make_timelines, make_videos

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Recommender:
    config = make_config().model
    torch.manual_seed(0)
    return Recommender(config, SIZES, tables=PlainTables(table_specs(config, SIZES))).eval()


@pytest.fixture(scope="module")
def vectors(model: Recommender) -> torch.Tensor:
    return all_vectors(model, make_videos(), CPU)


def timelines() -> Timelines:
    """Three users: with test events, without any, and with nothing but test events."""
    made = make_timelines(0, num_users=3)
    lengths = [6, 3, 2]
    total = sum(lengths)
    rng = np.random.default_rng(1)
    return replace(
        made,
        offsets=np.array([0, 6, 9, 11]),
        video_rows=np.array([1, 2, 3, 2, 4, 4, 5, 6, 7, 8, 9]),
        time_ms=np.arange(total) * 10**6,
        positive=np.array([1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 0], np.int8),
        labels=rng.integers(0, 2, (total, 2)).astype(np.int8),
        context_rows=rng.integers(0, 3, (total, 1)),
        split=np.array([*[TRAIN] * 2, VALID, *[TEST] * 3, *[TRAIN] * 3, *[TEST] * 2], np.int8),
    )


def test_vectors_of_the_whole_catalogue(model: Recommender, vectors: torch.Tensor) -> None:
    assert vectors.shape == (NUM_VIDEOS + 1, 8 + 4)
    assert not vectors.requires_grad
    with torch.no_grad():
        some = model.encode_videos(make_videos().batch(np.array([0, 7, 50])))
    assert torch.allclose(vectors[[0, 7, 50]], some, atol=1e-6)


def test_contents_of_the_whole_catalogue(model: Recommender) -> None:
    """Every second video has a clip; two workers make half of them each."""
    whole = all_contents(model, make_videos(), CPU)
    assert whole is not None and whole.shape == (NUM_VIDEOS + 1, 4)
    assert whole[::2].abs().sum() == 0 and (whole[1::2].abs().sum(1) > 0).all()
    halves = [all_contents(model, make_videos(), CPU, share=(number, 2)) for number in range(2)]
    assert all(half is not None and 0 < (half.abs().sum(1) > 0).sum() < 25 for half in halves)
    torch.testing.assert_close(halves[0] + halves[1], whole)


def test_scores_stay_on_the_device_that_is_asked_for(
    model: Recommender, vectors: torch.Tensor
) -> None:
    """`meta` tensors cannot be copied to the CPU: one that was would fail here."""
    trending_N = torch.ones(NUM_VIDEOS + 1)
    predictor = Predictor(model, vectors, 20, trending_N=trending_N)
    predictions = predictor.predict(timelines(), split=TEST)
    scores = predictor.ranker(predictions, device=torch.device("meta"))(0, 1)
    assert (scores.device.type, tuple(scores.shape)) == ("meta", (1, NUM_VIDEOS + 1))
    assert predictor.ranker(predictions)(0, 1).device == CPU


def test_another_process_gets_no_table_and_the_vectors_as_they_lie() -> None:
    """Of 20,000 videos: 2.6 MB of tables stay, and 2 MB of vectors are shared."""
    sizes = replace(SIZES, num_videos=20_000, num_creators=5000)
    config = make_config(model={**make_config().model.model_dump(), "id_dim": 32}).model
    model = Recommender(config, sizes, tables=PlainTables(table_specs(config, sizes))).eval()
    predictor = Predictor(model, torch.randn(20_000, model.vector_dim), 20)
    buffers: list[pickle.PickleBuffer] = []
    sent = pickle.dumps(predictor, protocol=5, buffer_callback=buffers.append)
    assert len(sent) < 200_000
    assert sum(buffer.raw().nbytes for buffer in buffers) < 20_000 * model.vector_dim * 4 + 200_000
    there = pickle.loads(sent, buffers=[bytes(buffer) for buffer in buffers])
    ours, theirs = (one.predict(timelines(), split=TEST) for one in (predictor, there))
    assert (ours.queries == theirs.queries).all() and (ours.logits == theirs.logits).all()
    assert "tables" in dict(model.named_children()), "ours has them as before"


def test_who_is_ranked_and_what_is_relevant(model: Recommender, vectors: torch.Tensor) -> None:
    """User 0 liked 1 and 3 before, and 2 and 4 in the test; user 2 likes nothing there."""
    predictions = predict(model, vectors, timelines(), split=TEST, max_history=20)
    assert predictions.user_ids == ["u0"]
    assert predictions.relevant.values.tolist() == [2, 4]
    assert predictions.known.values.tolist() == [1, 3]
    assert predictions.event_videos.tolist() == [2, 4, 4, 8, 9]
    assert predictions.asked_ids == ["u0", "u2"] and predictions.event_users.tolist() == [
        0,
        0,
        0,
        1,
        1,
    ]
    assert predictions.labels.tolist() == timelines().labels[[3, 4, 5, 9, 10]].tolist()


def test_what_was_liked_before_is_not_relevant_again(
    model: Recommender, vectors: torch.Tensor
) -> None:
    again = timelines()
    again.video_rows[3] = 1
    predictions = predict(model, vectors, again, split=TEST, max_history=20)
    assert predictions.relevant.values.tolist() == [4]


def test_a_user_is_ranked_from_what_lies_before_the_cut(
    model: Recommender, vectors: torch.Tensor
) -> None:
    """The query is that of the history's end alone, whatever happens in the test."""
    predictions = predict(model, vectors, timelines(), split=TEST, max_history=20)
    arrays = timelines().windows([0], [3])
    with torch.no_grad():
        history = vectors[torch.from_numpy(arrays.video_rows)]
        states = model.encode_history(history, event_batch(arrays))
        expected = model.queries(states[:, -1])
    assert np.allclose(predictions.queries, expected.numpy(), atol=1e-6)
    later = timelines()
    later.video_rows[3:6] = [11, 12, 13]
    other = predict(model, vectors, later, split=TEST, max_history=20)
    assert np.allclose(other.queries, predictions.queries, atol=1e-6)


def test_an_event_is_scored_with_all_before_it_known(
    model: Recommender, vectors: torch.Tensor
) -> None:
    predictions = predict(model, vectors, timelines(), split=TEST, max_history=20)
    arrays = timelines().windows([0], [6])
    with torch.no_grad():
        events = event_batch(arrays)
        own = vectors[torch.from_numpy(arrays.video_rows)]
        states = states_at(model.encode_history(own, events), events.num_prior)
        expected = model.task_logits(states, own, events.context, events.count_features)[0, 3:]
    assert np.allclose(predictions.logits[:3], expected.numpy(), atol=1e-6)


def test_history_before_the_longest_is_forgotten(model: Recommender, vectors: torch.Tensor) -> None:
    """With 2 events of history, the first of three is out of sight."""
    first = predict(model, vectors, timelines(), split=TEST, max_history=2)
    other = timelines()
    other.video_rows[0] = 30
    again = predict(model, vectors, other, split=TEST, max_history=2)
    assert np.array_equal(first.queries, again.queries)
    longer = predict(model, vectors, other, split=TEST, max_history=3)
    assert not np.allclose(longer.queries, first.queries, atol=1e-6)


def test_the_validation_sees_no_test_event(model: Recommender, vectors: torch.Tensor) -> None:
    predictions = predict(model, vectors, timelines(), split=VALID, max_history=20)
    assert predictions.event_videos.tolist() == [3]
    assert predictions.relevant.values.tolist() == [3]


def same(predictions: Predictions, expected: Predictions) -> None:
    assert predictions.user_ids == expected.user_ids
    assert predictions.asked_ids == expected.asked_ids
    for name in ("queries", "repeat_bias", "labels", "logits", "event_videos", "event_users"):
        assert np.array_equal(getattr(predictions, name), getattr(expected, name)), name
    for name in ("relevant", "known", "seen"):
        assert np.array_equal(getattr(predictions, name).offsets, getattr(expected, name).offsets)
        assert np.array_equal(getattr(predictions, name).values, getattr(expected, name).values)


def test_predictions_cross_as_a_row(model: Recommender, vectors: torch.Tensor) -> None:
    for predictions in (
        predict(model, vectors, timelines(), split=TEST, max_history=20),
        predict(model, vectors, make_timelines(2), split=TEST, max_history=20),  # nobody
    ):
        same(Predictions.from_row(predictions.to_row(), dim=8, num_tasks=2), predictions)


def test_groups_of_users_are_joined(model: Recommender, vectors: torch.Tensor) -> None:
    one = predict(model, vectors, timelines(), split=TEST, max_history=20)
    both = concat([one, one], 8, 2)
    assert both.user_ids == ["u0", "u0"]
    assert both.asked_ids == ["u0", "u2"] * 2
    assert both.event_users.tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert both.relevant.values.tolist() == [2, 4, 2, 4]
    assert both.relevant.offsets.tolist() == [0, 2, 4]
    assert both.logits.shape == (10, 2)
    nobody = concat([], 8, 2)
    assert (nobody.user_ids, nobody.queries.shape, nobody.logits.shape) == ([], (0, 8), (0, 2))


def test_what_is_trending_weighs_in_the_ranking_of_everybody(
    model: Recommender, vectors: torch.Tensor
) -> None:
    predictions = predict(model, vectors, timelines(), split=TEST, max_history=20)
    gains = torch.linspace(-1, 1, len(vectors))
    with_gains = Predictor(model, vectors, 20, trending_N=gains).ranker(predictions)(0, 1)[0]
    plain = Predictor(model, vectors, 20).ranker(predictions)(0, 1)[0]
    assert torch.allclose(with_gains - plain, gains, atol=1e-5)


def test_what_a_user_met_before_the_cut_weighs_in_the_ranking(
    model: Recommender, vectors: torch.Tensor
) -> None:
    """User 0 was shown 1, 2 and 3 before the test, and liked 1 and 3."""
    predictor = Predictor(model, vectors, 20)
    with torch.no_grad():
        model.repeat[:] = 0
        plain = predictor.ranker(predictor.predict(timelines(), split=TEST))(0, 1)[0]
        model.repeat[:] = torch.tensor([-0.2, 0.5])
        predictions = predictor.predict(timelines(), split=TEST)
        model.repeat[:] = 0
    assert predictions.seen.values.tolist() == [1, 1, 2, 3, 3]
    assert predictions.repeat_bias.tolist() == pytest.approx([-2, 5, -2, -2, 5])
    gained = (predictor.ranker(predictions)(0, 1)[0] - plain).numpy()
    assert gained[:5] == pytest.approx([0, 3, -2, 3, 0], abs=1e-5)
    assert not gained[5:].any()


def test_some_of_the_users_alone(model: Recommender, vectors: torch.Tensor) -> None:
    """Each is predicted as among all, and how many there were to draw from is known."""
    predictor = Predictor(model, vectors, 20)
    every = predictor.predict(timelines(), split=TEST)
    last = predictor.predict(timelines(), split=TEST, users=np.array([2]))
    assert every.asked_ids == [timelines().user_ids[user] for user in (0, 2)]
    assert last.asked_ids == [timelines().user_ids[2]]
    assert (every.num_asked, last.num_asked) == (2, 2)
    assert np.allclose(last.logits, every.logits[every.event_users == 1], atol=1e-6)
    row = Predictions.from_row(last.to_row(), dim=8, num_tasks=2)
    assert row.num_asked == 2
    assert concat([every, last], 8, 2).num_asked == 4
