"""Steps that read the clips of some of their videos and take cached vectors for the others."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from recsys.config.run import RunConfig
from recsys.errors import InputError
from recsys.features.batches import Batcher, Candidates
from recsys.features.inputs import Batch
from recsys.inference.encode import all_contents
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.schema import TRAIN, VALID
from recsys.train.collectives import Collectives
from recsys.train.loop import Worker
from tests.steps import NUM_VIDEOS, SIZES, loss_of, make_config, make_timelines, make_videos

CPU = torch.device("cpu")


def test_the_first_ones_are_taken_first() -> None:
    """Odd rows have a clip."""
    videos, rows = make_videos(), np.array([0, 1, 2, 3, 5, 7, 9])
    rng = np.random.default_rng(0)

    def chosen(most: int, first: list[int]) -> list[int]:
        mask = videos.within(rows, most, first=np.array(first), rng=rng)
        assert mask is not None
        return rows[mask].tolist()

    for _ in range(20):
        assert chosen(2, [5, 9]) == [5, 9]
        assert set(chosen(1, [5, 9])) < {5, 9}
        three = chosen(3, [5, 9, 2])
        assert len(three) == 3 and {5, 9} < set(three) <= {1, 3, 5, 7, 9}
    assert {row for _ in range(50) for row in chosen(3, [5, 9])} == {1, 3, 5, 7, 9}


def test_nothing_is_drawn_where_all_are_read() -> None:
    rng, same = np.random.default_rng(0), np.random.default_rng(0)
    rows = np.array([0, 1, 2, 3])
    assert make_videos().within(rows, 2, first=rows, rng=rng) is None
    no_clips = replace(make_videos(), clip_rows=None)
    assert no_clips.within(rows, 1, first=rows, rng=rng) is None
    assert rng.random() == same.random()


def test_what_is_not_read_is_named_by_its_row() -> None:
    rows, encoded = np.array([0, 1, 2, 3, 5]), np.array([False, False, False, True, False])
    batch = make_videos().batch(rows, is_encoded_V=encoded)
    assert batch.clips is not None and len(batch.clips) == 1
    assert batch.clip_index is not None and batch.cached_rows is not None
    assert batch.clip_index.tolist() == [-1, -1, -1, 0, -1]
    assert batch.cached_rows.tolist() == [-1, 1, -1, -1, 5]
    assert make_videos().batch(rows).cached_rows is None


def make_step(step_clips: int | None) -> Batch:
    batcher = Batcher(
        videos=make_videos(),
        candidates=Candidates(np.ones(NUM_VIDEOS + 1, dtype=np.int64), negatives=30),
        learn_from=TRAIN,
        learn_before=VALID,
        batch_timelines=6,
        max_history=20,
        step_clips=step_clips,
    )
    timelines = make_timelines(0)
    starts, stops = timelines.offsets[:-1], timelines.offsets[1:]
    return batcher.make(timelines, starts, stops, np.random.default_rng(0))


@pytest.fixture
def model() -> Recommender:
    config = make_config().model
    torch.manual_seed(0)
    return Recommender(config, SIZES, tables=PlainTables(table_specs(config, SIZES)))


def test_a_cap_that_nothing_reaches_changes_no_bit(model: Recommender) -> None:
    all_of_them, capped = (loss_of(model(make_step(cap))) for cap in (None, 10**6))
    assert torch.equal(all_of_them, capped)


def test_fresh_cached_vectors_give_the_same_loss(model: Recommender) -> None:
    """Without dropout, and the cache made by the same weights."""
    whole, capped = make_step(None), make_step(4)
    assert whole.videos.clips is not None and capped.videos.clips is not None
    assert len(capped.videos.clips) == 4 < len(whole.videos.clips)
    model.video.cached_contents = all_contents(model, make_videos(), CPU)
    model.train()
    torch.testing.assert_close(loss_of(model(capped)), loss_of(model(whole)))
    model.video.cached_contents = torch.zeros(NUM_VIDEOS + 1, 4)
    assert not torch.isclose(loss_of(model(capped)), loss_of(model(whole)))


def test_two_workers_make_the_vectors_together(model: Recommender) -> None:
    """Each makes its share, and what both get is the sum."""
    shares: list[torch.Tensor] = []

    class Together(Collectives):
        def sum(self, mine: torch.Tensor) -> torch.Tensor:
            shares.append(mine)
            return mine

    for rank in (0, 1):
        worker = SimpleNamespace(
            collectives=Together(rank, 2),
            trainable=SimpleNamespace(model=model, module=model),
            batcher=SimpleNamespace(videos=make_videos()),
            device=CPU,
        )
        Worker._refresh_contents(cast(Worker, worker))
    whole = all_contents(model, make_videos(), CPU)
    assert whole is not None
    torch.testing.assert_close(shares[0] + shares[1], whole)


def test_the_encoder_learns_from_what_is_read_alone(model: Recommender) -> None:
    model.video.cached_contents = all_contents(model, make_videos(), CPU)
    assert model.video.cached_contents is not None
    assert not model.video.cached_contents.requires_grad
    model.train()
    step = make_step(4)
    assert step.videos.clips is not None
    seen = []
    handle = model.video.content.register_forward_hook(  # type: ignore[union-attr]
        lambda _, inputs, output: seen.append(len(output))
    )
    loss_of(model(step)).backward()
    handle.remove()
    assert seen == [4]
    assert all(p.grad is not None for p in model.video.content.parameters())  # type: ignore[union-attr]


def test_the_cache_is_no_part_of_a_checkpoint(model: Recommender) -> None:
    before = set(model.state_dict())
    model.video.cached_contents = torch.zeros(NUM_VIDEOS + 1, 4)
    assert set(model.state_dict()) == before


def test_a_frozen_encoder_has_no_use_for_it() -> None:
    content = {"frame_dim": 4, "dim": 4}
    with pytest.raises(InputError, match="train.step_clips is for a frame encoder that is trained"):
        _config(content, step_clips=4)
    trained = _config({**content, "train_encoder": True}, step_clips=4)
    assert trained.train.step_clips == 4
    assert _config(content, step_clips=None).train.step_clips is None


def _config(content: dict[str, object], step_clips: int | None) -> RunConfig:
    return make_config(model={"content": content}, train={"step_clips": step_clips})
