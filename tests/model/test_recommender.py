from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recsys.config.run import ModelConfig
from recsys.features.batches import event_batch
from recsys.features.inputs import Batch, ClipShape, EventBatch, Sizes, VideoBatch
from recsys.features.timelines import Timelines, join, watch_inputs
from recsys.model.dropout import Dropout
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Losses, Recommender, table_specs
from recsys.model.user import states_at

NUM_VIDEOS, NUM_TASKS = 12, 2
CLIP = ClipShape(frames=3, size=32)
SIZES = Sizes(NUM_VIDEOS, 4, 3, (5,), num_tasks=NUM_TASKS, num_count_features=11, watch_dim=2)


def model(sizes: Sizes = SIZES, **changes: Any) -> Recommender:
    tree = {"dim": 8, "id_dim": 8, "feature_dim": 4, "state_dim": 8, "dropout": 0.0, **changes}
    tree.setdefault("content", {"frame_dim": 6, "dim": 6})
    config = ModelConfig.model_validate(tree)
    torch.manual_seed(0)
    net = Recommender(config, sizes, tables=PlainTables(table_specs(config, sizes)))
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.dim() > 1:  # larger than at the start of training, so that all matters
                parameter.mul_(2)
        net.history.start.normal_()
    return net.eval()


def videos(rows: Tensor, clips: Tensor | None = None, index: Tensor | None = None) -> VideoBatch:
    return VideoBatch(
        id_rows=rows,
        creator_rows=rows % 4,
        category_rows=torch.ones(int((rows % 2).sum()), dtype=torch.int64),
        category_lengths=rows % 2,
        durations=rows % 7,
        clips=clips,
        clip_index=index,
    )


def make_timeline(seed: int = 0, times: list[int] | None = None) -> Timelines:
    """One user; by default every event has a time of its own."""
    rng = np.random.default_rng(seed)
    times = times or [3600 * 1000 * i * (i + seed) for i in range(8)]
    length = len(times)
    return Timelines(
        user_ids=["u"],
        offsets=np.array([0, length]),
        video_rows=rng.integers(1, NUM_VIDEOS, length),
        time_ms=np.array(times),
        positive=rng.integers(0, 2, length).astype(np.int8),
        labels=rng.integers(0, 2, (length, NUM_TASKS)).astype(np.int8),
        watched=rng.uniform(0, 2, (length, 2)).astype(np.float32),
        context_rows=rng.integers(1, 5, (length, 1)),
        split=np.zeros(length, np.int8),
        count_features=rng.normal(size=(length, SIZES.num_count_features)).astype(np.float32),
        user_rows=np.array([[1, 3]]),
    )


def changed(timeline: Timelines, position: int) -> Timelines:
    """The timeline with another video, outcome and context at a position."""
    again = replace(timeline, **{k: v.copy() for k, v in vars(timeline).items() if k != "user_ids"})
    again.video_rows[position] = again.video_rows[position] % (NUM_VIDEOS - 1) + 1
    again.positive[position] ^= 1
    again.labels[position] ^= 1
    again.watched[position] += 0.5
    again.context_rows[position] = again.context_rows[position] % 4 + 1
    return again


@torch.no_grad()
def outputs(
    net: Recommender, timeline: Timelines, stop: int | None = None
) -> tuple[Tensor, Tensor]:
    """For each position: the query (L, D), and the logits of one fixed video (L, T)."""
    arrays = timeline.windows([0], [timeline.offsets[1] if stop is None else stop])
    events = event_batch(arrays)
    vectors = net.encode_videos(videos(torch.arange(NUM_VIDEOS)))
    states = net.encode_history(vectors[torch.from_numpy(arrays.video_rows)], events)
    at = states_at(states, events.num_prior)
    own = vectors[3].expand(*at.shape[:2], -1)
    logits = net.task_logits(at, own, events.context, events.count_features)
    return net.queries(at)[0], logits[0]


def test_a_position_is_predicted_from_what_lies_before_it() -> None:
    """Changing event j changes every position after it and none up to it."""
    net, timeline = model(), make_timeline()
    queries, logits = outputs(net, timeline)
    for j in range(8):
        other_queries, other_logits = outputs(net, changed(timeline, j))
        assert torch.equal(other_queries[: j + 1], queries[: j + 1])
        assert torch.equal(other_logits[:j], logits[:j])
        for i in range(j + 1, 8):
            assert not torch.allclose(other_queries[i], queries[i], atol=1e-6)
            assert not torch.allclose(other_logits[i], logits[i], atol=1e-6)


def test_a_positions_own_outcome_is_unseen_and_its_context_is_seen() -> None:
    net, timeline = model(), make_timeline()
    _, logits = outputs(net, timeline)
    outcome = changed(timeline, 5)
    _, same = outputs(net, replace(outcome, context_rows=timeline.context_rows))
    assert torch.equal(same[5], logits[5])
    _, other = outputs(net, replace(timeline, context_rows=outcome.context_rows))
    assert not torch.allclose(other[5], logits[5], atol=1e-6)


def test_an_ids_share_is_what_training_had_on_average() -> None:
    """A quarter of the IDs dropped: three quarters of each and a quarter of the unknown one."""
    net, rows = model(id_dropout=0.25), torch.tensor([0, 3, 7])
    with torch.no_grad():
        vectors = net.eval().encode_videos(videos(rows))
        whole = net.train().encode_videos(videos(rows))
        without = net.encode_videos(replace(videos(rows), id_rows=torch.zeros_like(rows)))
    assert torch.allclose(vectors, 0.75 * whole + 0.25 * without, atol=1e-6)
    assert not torch.allclose(vectors[1:], whole[1:], atol=1e-4)


def test_what_is_known_of_a_user_is_seen_everywhere() -> None:
    """A missing value adds nothing, and which column a value stands in makes no difference."""
    net, timeline = model(replace(SIZES, num_user_values=4)), make_timeline()
    queries, logits = outputs(net, timeline)
    other_queries, other_logits = outputs(net, replace(timeline, user_rows=np.array([[2, 3]])))
    for i in range(8):
        assert not torch.allclose(other_queries[i], queries[i], atol=1e-6)
        assert not torch.allclose(other_logits[i], logits[i], atol=1e-6)
    same_queries, _ = outputs(net, replace(timeline, user_rows=np.array([[3, 0, 1]])))
    assert torch.allclose(same_queries, queries, atol=1e-6)


def test_a_later_events_time_is_unseen() -> None:
    net, timeline = model(), make_timeline()
    queries, logits = outputs(net, timeline)
    later = replace(timeline, time_ms=timeline.time_ms + (np.arange(8) >= 5) * 7_200_000)
    other_queries, other_logits = outputs(net, later)
    assert torch.equal(other_queries[:6], queries[:6])
    assert torch.equal(other_logits[:5], logits[:5])


def test_events_of_one_time_do_not_see_each_other() -> None:
    net, timeline = model(), make_timeline(times=[0, 10, 10, 10, 20])
    queries, logits = outputs(net, timeline)
    for j in (1, 2, 3):
        others = [i for i in (1, 2, 3) if i != j]
        other_queries, other_logits = outputs(net, changed(timeline, j))
        assert torch.equal(other_queries[1:4], queries[1:4])
        assert torch.equal(other_logits[others], logits[others])
        assert not torch.allclose(other_queries[4], queries[4], atol=1e-6)


def test_the_first_position_knows_nobody() -> None:
    net = model()
    (first, *_), _ = outputs(net, make_timeline(0))
    (other, *_), _ = outputs(net, make_timeline(1))
    assert torch.equal(first, other)


def test_cutting_off_the_future_changes_nothing() -> None:
    net, timeline = model(), make_timeline()
    queries, logits = outputs(net, timeline)
    for stop in (1, 4, 7):
        short_queries, short_logits = outputs(net, timeline, stop)
        assert torch.allclose(short_queries, queries[:stop], atol=1e-6)
        assert torch.allclose(short_logits, logits[:stop], atol=1e-6)


def batch_of(
    *parts: Timelines, clips: Tensor | None = None, learn_before: int | None = None
) -> Batch:
    """One batch of several users, all videos candidates with some log_q.

    Only each user's first `learn_before` events are learnt from.
    """
    joined = join(parts)
    arrays = joined.windows(joined.offsets[:-1], joined.offsets[1:])
    log_q = -torch.arange(NUM_VIDEOS) / 10
    log_q[0] = torch.inf
    rows = torch.arange(NUM_VIDEOS)
    learn = arrays.present.copy()
    learn[:, learn_before:] &= learn_before is None
    return Batch(
        videos=videos(rows, clips, rows - 1 if clips is not None else None),
        log_q=log_q,
        events=event_batch(arrays),
        video_index=torch.from_numpy(arrays.video_rows),
        learn=torch.from_numpy(learn),
        queries=torch.from_numpy(np.flatnonzero(learn & (arrays.actions[..., 0] > 0))),
        num_learnt=torch.ones(2),
    )


def total(losses: list[Losses]) -> list[list[float]]:
    return [sum(values).tolist() for values in zip(*losses, strict=True)]  # type: ignore[arg-type]


def test_padding_and_company_change_no_loss() -> None:
    net = model()
    parts = [make_timeline(0), make_timeline(1, [0]), make_timeline(2, [0, 0, 5])]
    together = [value.tolist() for value in net(batch_of(*parts))]
    alone = total([net(batch_of(part)) for part in parts])
    assert np.concatenate([np.ravel(v) for v in together]) == pytest.approx(
        np.concatenate([np.ravel(v) for v in alone]), rel=1e-5
    )


def test_pieces_of_the_ranking_change_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    net, batch = (
        model(),
        batch_of(make_timeline(0), make_timeline(1, [0]), make_timeline(2, [0, 0, 5])),
    )
    whole = net(batch)
    monkeypatch.setattr("recsys.model.recommender.RANKED_TIMELINES", 2)
    torch.testing.assert_close(net(batch), whole)


def test_dropout_is_torchs() -> None:
    values, ours, theirs = torch.ones(50, 40), Dropout(0.3), torch.nn.Dropout(0.3)
    assert ours.eval()(values) is values
    torch.manual_seed(0)
    dropped = ours.train()(values)
    torch.manual_seed(0)
    assert torch.equal(dropped, theirs(values))


def test_losses_by_hand() -> None:
    """From the model's parts: cross-entropy at positives, binary cross-entropies everywhere."""
    net, timeline = model(), make_timeline()
    timeline.video_rows[5] = timeline.video_rows[0]
    batch = batch_of(timeline, learn_before=6)
    with torch.no_grad():
        net.repeat[:] = torch.tensor([-0.2, 0.1])
        losses = net(batch)
        vectors = net.encode_videos(batch.videos).numpy().astype(np.float64)
        queries, _ = outputs(net, timeline)
        states = states_at(
            net.encode_history(
                torch.tensor(vectors[timeline.video_rows]).float()[None], batch.events
            ),
            batch.events.num_prior,
        )
        own = torch.tensor(vectors[timeline.video_rows]).float()[None]
        events = batch.events
        probability = net.task_logits(states, own, events.context, events.count_features)[
            0
        ].sigmoid()
    expected = 0.0
    for i in range(6):
        if timeline.positive[i]:
            scores = vectors[1:, : net.dim] @ queries[i].numpy() - batch.log_q[1:].numpy()
            prior = timeline.time_ms < timeline.time_ms[i]
            scores[np.unique(timeline.video_rows[prior]) - 1] += -2
            scores[np.unique(timeline.video_rows[prior & (timeline.positive > 0)]) - 1] += 1
            chosen = scores[timeline.video_rows[i] - 1]
            expected += np.log(np.exp(scores - chosen).sum())
    assert losses.retrieval.item() == pytest.approx(expected, rel=1e-4)
    assert losses.num_retrieval.item() == timeline.positive[:6].sum()
    right = np.where(timeline.labels[:6] == 1, probability[:6], 1 - probability[:6])
    assert losses.tasks.tolist() == pytest.approx((-np.log(right)).sum(0).tolist(), rel=1e-4)
    assert losses.num_tasks.item() == 6


def test_a_batch_that_teaches_nothing_gives_zero_gradients() -> None:
    net = model().train()
    batch = batch_of(make_timeline(), learn_before=0)
    losses = net(batch)
    assert [value.sum().item() for value in losses] == [0, 0, 0, 0]
    (losses.retrieval + losses.tasks.sum()).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, f"{name} would make other workers wait for ever"
        assert not parameter.grad.any(), name


def test_without_ids_the_video_table_has_one_row() -> None:
    net = model(use_id=False)
    assert net.tables.embeddings["video"].weight.shape[0] == 1  # type: ignore[index, union-attr]


def with_clips(**content: Any) -> Recommender:
    tree = {"encoder": "small_cnn", "frame_dim": 6, "dim": 6, **content}
    return model(replace(SIZES, clip=CLIP), content=tree)


def clips(number: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, 32, 32, 3), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("temporal", ["lstm", "mean"])
def test_videos_never_seen_differ_by_their_content(temporal: str) -> None:
    """Four videos without an ID; two of the same clip, one without any."""
    batch = videos(torch.tensor([4, 4, 4, 4]), clips(2), torch.tensor([0, 1, 0, -1]))
    batch.id_rows = torch.zeros(4, dtype=torch.int64)
    first, other, again, without = with_clips(temporal=temporal).encode_videos(batch)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=1e-4)
    assert not torch.allclose(first, without, atol=1e-4)


def test_only_the_lstm_sees_the_order_of_frames() -> None:
    forwards = clips(1)
    both = torch.cat([forwards, forwards.flip(1)])
    batch = videos(torch.tensor([4, 4]), both, torch.tensor([0, 1]))
    mean, lstm = (with_clips(temporal=kind).encode_videos(batch) for kind in ("mean", "lstm"))
    assert torch.allclose(mean[0], mean[1], atol=1e-5)
    assert not torch.allclose(lstm[0], lstm[1], atol=1e-4)


@pytest.mark.parametrize("train_encoder", [True, False])
def test_the_loss_reaches_the_frame_encoder_unless_it_is_frozen(train_encoder: bool) -> None:
    net = with_clips(train_encoder=train_encoder).train()
    losses = net(batch_of(make_timeline(), clips=clips(NUM_VIDEOS - 1)))
    (losses.retrieval + losses.tasks.sum()).backward()
    content = net.video.content
    assert content is not None and content.lstm is not None
    assert content.lstm.weight_ih_l0.grad.any()  # type: ignore[union-attr]
    assert content.frames.project[0].weight.grad.any()  # type: ignore[union-attr, operator]
    for name, parameter in content.frames.encoder.named_parameters():  # type: ignore[union-attr]
        reached = parameter.grad is not None and bool(parameter.grad.any())
        assert reached == train_encoder, name


def test_stored_features_take_the_encoders_place() -> None:
    shape = ClipShape(frames=3, size=0, feature_dim=10)
    net = model(replace(SIZES, clip=shape))
    features = torch.arange(60.0).reshape(2, 3, 10).half() / 60
    batch = videos(torch.tensor([4, 4]), features, torch.tensor([0, 1]))
    first, other = net.encode_videos(batch)
    assert first.dtype == torch.float32
    assert not torch.allclose(first, other, atol=1e-4)


def test_an_event_batch_keeps_no_outcome_in_its_context() -> None:
    """What the ranking head sees of position i comes from strictly earlier events."""
    timeline = make_timeline(times=[0, 5, 5])
    events: EventBatch = event_batch(timeline.windows([0], [3]))
    assert events.context.num_prior.tolist() == [[0, 1, 1]]
    first = [int(timeline.positive[0]), *timeline.labels[0].tolist()]
    assert events.context.tallies[..., :3].tolist() == [[[0] * 3, first, first]]
    watched = watch_inputs(timeline.watched[0]).tolist()
    assert events.context.tallies[0, :, 3:].tolist() == [[0, 0], watched, watched]


def frame_gradients(**content: Any) -> tuple[float, list[Tensor]]:
    """The step's loss, and the gradients of the frame encoder."""
    net = with_clips(**content).train()
    losses = net(batch_of(make_timeline(), clips=clips(NUM_VIDEOS - 1)))
    loss = losses.retrieval + losses.tasks.sum()
    loss.backward()
    assert net.video.content is not None and net.video.content.frames.encoder is not None
    gradients = [p.grad for p in net.video.content.frames.encoder.parameters()]
    return loss.item(), [g for g in gradients if g is not None]


def test_encoding_frames_again_in_backward_gives_the_same_gradients() -> None:
    torch.manual_seed(3)
    loss, kept = frame_gradients()
    torch.manual_seed(3)
    again, recomputed = frame_gradients(gradient_checkpointing=True)
    assert again == loss and len(kept) > 2
    for ours, theirs in zip(recomputed, kept, strict=True):
        assert torch.equal(ours, theirs)


def test_half_precision_changes_the_losses_little_and_no_weights_type() -> None:
    net, batch = model(), batch_of(make_timeline())
    full = [value.sum().item() for value in net(batch)]
    with torch.autocast("cpu", torch.bfloat16):
        half = net(batch)
    assert [value.sum().item() for value in half] == pytest.approx(full, rel=0.02)
    assert [value.sum().item() for value in half] != full
    (half.retrieval + half.tasks.sum()).backward()
    assert {p.grad.dtype for p in net.parameters() if p.grad is not None} == {torch.float32}
