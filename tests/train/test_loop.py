import json
from collections.abc import Mapping

import numpy as np
import pytest
import torch

from recsys.model.recommender import Losses
from recsys.schema import TEST
from recsys.train.figures import ProgressActor, StepSums, Told
from recsys.train.loop import Job
from recsys.train.schedule import Stretch
from recsys.train.stage import EpochLines
from recsys.train.validation import gain_by_chance, score
from tests.steps import make_config


def test_a_job_crosses_to_the_workers_as_plain_values() -> None:
    job = Job(make_config(train={"task_weights": {"like": 2}}), TEST, epochs=3)
    values = job.to_dict()
    assert values["config"]["train"]["task_weights"] == {"like": 2.0}
    assert Job.from_dict(values) == job


def test_a_jobs_dates_cross_as_texts() -> None:
    """Nothing of ours or of Python's own kinds is in it: it is what a JSON file holds."""
    cuts = {"kind": "time", "valid_from": "2024-05-01 08:00", "test_from": "2024-05-02"}
    job = Job(make_config(split=cuts), TEST, epochs=3, stretch=Stretch("s3://b/start", 2))
    values = json.loads(json.dumps(job.to_dict()))
    assert values["config"]["split"]["valid_from"] == "2024-05-01T08:00:00"
    assert Job.from_dict(values) == job


def losses(retrieval: float, targets: int, tasks: list[float], events: int) -> Losses:
    return Losses(*(torch.tensor(value) for value in (retrieval, targets, tasks, events)))


def test_step_sums_are_means_over_all_steps() -> None:
    sums = StepSums(("click", "like"))
    sums.add(losses(6.0, 2, [4.0, 1.0], 4))
    sums.add(losses(0.0, 1, [2.0, 0.0], 1))
    figures = sums.figures()
    assert figures["retrieval_loss"] == 2.0
    assert figures["click_loss"] == pytest.approx(6 / 5)
    assert figures["like_loss"] == pytest.approx(1 / 5)
    assert figures["events_per_s"] > 0


def test_step_sums_go_on_after_a_restart_with_those_of_all_workers() -> None:
    """Two workers of the same steps, then one that goes on with a step more."""
    before = StepSums(("click",))
    before.add(losses(6.0, 2, [4.0], 4))
    before.gather(lambda mine: 2 * mine)
    state = before.state()
    after = StepSums(("click",), state)
    after.add(losses(3.0, 1, [2.0], 2))
    figures = after.figures()
    assert figures["retrieval_loss"] == 3.0
    assert figures["click_loss"] == 1.0
    assert figures["epoch_s"] > state["seconds"] > 0


def test_the_share_of_the_time_without_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """3 of 10 seconds, and after a restart 4 of 12."""
    clock = iter([0.0, 2.0, 5.0, 10.0, 100.0, 101.0, 102.0, 102.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    before = StepSums(())
    with before.waiting():
        pass
    state = before.state()
    assert (state["waited_s"], state["seconds"]) == (3, 10)
    after = StepSums((), state)
    with after.waiting():
        pass
    assert after.figures()["waiting_share"] == pytest.approx(4 / 12)


def test_step_sums_wait_for_no_device_until_they_are_read() -> None:
    """`meta` tensors have no values: whoever wanted one in `add` would fail here."""
    sums = StepSums(("click",))
    meta = torch.zeros((), device="meta")
    sums.add(Losses(meta, meta, torch.zeros(1, device="meta"), meta))
    sums.add(Losses(meta, meta, torch.zeros(1, device="meta"), meta))
    with pytest.raises(NotImplementedError, match="meta"):
        sums.figures()


def test_a_loss_that_is_no_number_is_seen_in_the_sums() -> None:
    sums = StepSums(("click",))
    sums.add(losses(1.0, 2, [1.0], 4))
    assert sums.are_finite()
    sums.add(losses(float("nan"), 2, [1.0], 4))
    sums.add(losses(1.0, 2, [1.0], 4))
    assert not sums.are_finite()


def test_sums_of_no_steps_are_0() -> None:
    figures = StepSums(("click",)).figures()
    assert (figures["retrieval_loss"], figures["click_loss"]) == (0, 0)


def test_the_progress_actor_shows_what_is_newest() -> None:
    """Workers that begin again, after a node was lost, have begun only once."""
    actor = ProgressActor()
    assert actor.read() == Told("", 0, 0.0, {}, [])
    actor.begin("video: row_wise on 0", 2)
    actor.step(2.5, {"retrieval_loss": 1.0})
    actor.epoch({"epoch": 3.0})
    actor.begin("video: row_wise on 0", 3)
    told = Told("video: row_wise on 0", 2, 2.5, {"retrieval_loss": 1.0}, [{"epoch": 3.0}])
    assert actor.read() == told
    assert ProgressActor().read().history == []


def test_each_epoch_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """By the worker or, where its word was lost, by the last checkpoint."""
    drawn: list[Mapping[str, float]] = []
    lines = EpochLines("train", 5, drawn.append)
    first, second, third, fourth = ({"epoch": n, "click_loss": n / 10} for n in (1, 2, 3, 4))
    with caplog.at_level("INFO"):
        lines.begin_after(1)
        lines.tell([second])
        lines.tell([second, third])
        lines.tell([first, second, third, fourth])
    assert drawn == [second, third, fourth]
    assert caplog.messages == [
        f"train: epoch {n} of at most 5: click loss 0.{n}00" for n in (2, 3, 4)
    ]


def test_epochs_are_chosen_by_both_heads() -> None:
    """log 0.1 + mean(log 0.25, log 0.2); a gain of 10 % in NDCG counts like one in every AUC."""
    before, more_ndcg, more_auc = (
        score(0.1, [0.25, 0.2]),
        score(0.11, [0.25, 0.2]),
        score(0.1, [0.275, 0.22]),
    )
    assert before == pytest.approx(-2.302585 + (-1.386294 - 1.609438) / 2, abs=1e-5)
    assert more_ndcg == pytest.approx(more_auc)
    assert more_ndcg > before


def test_the_score_is_a_number_however_bad_the_model() -> None:
    for ndcg, labels in ((0.0, [0, 1]), (0.2, [1, 1]), (0.2, [])):
        assert np.isfinite(score(ndcg, [gain_by_chance(labels)]))
    assert score(1.0, []) == 0.0
