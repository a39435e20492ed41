"""The validation figures: what they may know, and what they are made of."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recsys.data.clip_store import ClipArray, ClipRows
from recsys.data.ragged import FloatArray
from recsys.inference.encode import all_contents
from recsys.schema import TEST, VALID
from recsys.train.collectives import Collectives
from recsys.train.trainable import build_plain
from recsys.train.validation import (
    figure_names,
    fit_trending_weight,
    gain_by_chance,
    predict_validation,
    score,
    validate,
)
from tests.steps import NUM_VIDEOS, SIZES
from tests.train.memory import MemoryPrepared, make_prepared


def validated(prepared: MemoryPrepared) -> tuple[dict[str, float], float]:
    """Figures of an untrained model, and the weight of what is trending."""
    torch.manual_seed(0)
    model = build_plain(prepared.config, SIZES, torch.device("cpu")).model
    answers = predict_validation(
        model,
        prepared,
        prepared.video_inputs(with_valid=False),
        torch.device("cpu"),
        collectives=Collectives(),
    )
    weight = fit_trending_weight(answers, Collectives())
    figures = validate(answers, Collectives(), trending_weight=weight)
    assert float(model.trending) == 0, "measuring changes no model"
    return figures, 0 if weight is None else weight


def likes(prepared: MemoryPrepared, split: int) -> FloatArray:
    """What trends at a cut is what is liked after it."""
    scores = np.full(NUM_VIDEOS + 1, 0.1, np.float32)
    for part in prepared.parts:
        scores[part.video_rows[(part.split == split) & (part.positive > 0)]] += 1
    return scores


def test_validation_knows_what_trends_at_its_own_cut_and_not_at_the_tests() -> None:
    prepared = make_prepared((40, 40))
    now, later = likes(prepared, VALID), likes(prepared, TEST)
    figures, weight = validated(replace(prepared, trending_by_split={VALID: now, TEST: later}))
    assert validated(replace(prepared, trending_by_split={VALID: now})) == (figures, weight)
    others, other = validated(replace(prepared, trending_by_split={VALID: later, TEST: now}))
    without, nothing = validated(replace(prepared, trending_by_split={}))
    assert weight > max(other, 0.5), "what trends is worth something"
    assert figures["valid_ndcg@10"] > max(others["valid_ndcg@10"], without["valid_ndcg@10"])
    assert nothing == 0


def test_the_figures_are_those_of_all_partitions() -> None:
    """Of 8 users and of others who liked nothing in the validation; a task that one class has."""
    prepared = make_prepared((6, 3))
    for part in prepared.parts:
        part.labels[:, 1] = 1
    figures, _ = validated(prepared)
    users = [
        set(np.flatnonzero(np.diff(part.offsets)))  # all of them
        for part in prepared.parts
    ]
    assert sum(map(len, users)) == 9
    assert figures["valid_like_auc"] == 0.5
    clicks = np.concatenate([part.labels[part.split == VALID, 0] for part in prepared.parts])
    gain = max(figures["valid_click_auc"] - 0.5, gain_by_chance(clicks))
    assert figures["score"] == pytest.approx(
        np.log(max(figures["valid_ndcg@10"], 1e-9)) + (np.log(gain) + np.log(0.5)) / 2
    )


def test_a_task_that_nothing_tells_does_not_choose_the_epoch() -> None:
    """Its AUC is 0.503, then 0.512, by chance: 0.02 would be two errors of 3,000 events."""
    labels = np.arange(3000) % 2
    chance = gain_by_chance(labels)
    assert chance == pytest.approx(2 * np.sqrt(3001 / (12 * 1500**2)))
    first, later = (
        score(ndcg, [max(auc - 0.5, chance), 0.2]) for ndcg, auc in ((0.51, 0.512), (0.70, 0.503))
    )
    assert later - first == pytest.approx(np.log(0.70 / 0.51))
    assert score(0.5, [0.1, 0.4]) == pytest.approx(np.log(0.5) + np.log(0.2))


def test_figures_are_plain_numbers_whose_names_are_known_before() -> None:
    prepared = make_prepared((40, 40))
    figures, _ = validated(prepared)
    assert list(figures) == figure_names(prepared.config)
    assert {type(value) for value in figures.values()} == {float}


def test_as_many_users_as_the_evaluation_measures() -> None:
    """The same ones each time, however many workers share them."""
    prepared = make_prepared((40, 40), evaluate={"users": 11})
    torch.manual_seed(0)
    model = build_plain(prepared.config, SIZES, torch.device("cpu")).model

    class Apart(Collectives):
        def sum(self, mine: torch.Tensor) -> torch.Tensor:
            return mine

    def asked(rank: int = 0, workers: int = 1) -> list[str]:
        videos, device = prepared.video_inputs(with_valid=False), torch.device("cpu")
        together = Apart(rank, workers)
        answers = predict_validation(model, prepared, videos, device, collectives=together)
        assert set(answers.predictions.user_ids) <= set(answers.predictions.asked_ids)
        assert answers.predictions.num_asked > len(answers.predictions.asked_ids)
        return answers.predictions.asked_ids

    alone = asked()
    assert len(alone) == 11
    assert asked() == alone == [*asked(0, 2), *asked(1, 2)]


def test_each_worker_encodes_its_share_of_the_clips() -> None:
    """Every second of 50 videos has a clip; what both make together is what one makes alone."""
    prepared = make_prepared((4, 4))
    torch.manual_seed(0)
    model, cpu = build_plain(prepared.config, SIZES, torch.device("cpu")).model, torch.device("cpu")
    videos, read = prepared.video_inputs(with_valid=False), list[int]()
    load = videos.load_clips
    assert load is not None

    def counted(rows: ClipRows) -> ClipArray:
        read.extend(rows.tolist())
        return load(rows)

    whole = all_contents(model, videos, cpu)
    videos, parts = replace(videos, load_clips=counted), list[torch.Tensor]()

    class Together(Collectives):
        def sum(self, mine: torch.Tensor) -> torch.Tensor:
            parts.append(mine)
            assert whole is not None
            return whole

    alone = predict_validation(model, prepared, videos, cpu, collectives=Collectives())
    assert len(read) == 25
    for rank in (0, 1):
        read.clear()
        both = predict_validation(model, prepared, videos, cpu, collectives=Together(rank, 2))
        assert len(read) <= 13 + 1  # and one for the batch, which always encodes one
        torch.testing.assert_close(both.predictor.vectors_NY, alone.predictor.vectors_NY)
    torch.testing.assert_close(parts[0] + parts[1], whole)
    assert model.video.cached_contents is None
