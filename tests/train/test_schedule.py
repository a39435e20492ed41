"""What training does at each place, by hand."""

from typing import Any

import pytest

from recsys.config.run import TrainConfig
from recsys.features.batches import epoch_order
from recsys.train.checkpoint import Progress
from recsys.train.schedule import FINAL_LR, WARMUP_STEPS, Schedule, lr_share


def make(num_partitions: int = 5, *, workers: int = 1, epochs: int = 4, **other: Any) -> Schedule:
    options = {name: other.pop(name) for name in ("id_dropout", "validates") if name in other}
    return Schedule(TrainConfig(seed=3, **other), epochs, num_partitions, workers, **options)


def test_the_learning_rate_warms_up_and_falls_in_a_line() -> None:
    assert lr_share(0, 0, 10) == pytest.approx(1 / WARMUP_STEPS)
    assert lr_share(WARMUP_STEPS - 1, 0, 10) == 1
    assert lr_share(10**6, 0, 10) == 1
    assert lr_share(10**6, 5, 10) == pytest.approx((1 + FINAL_LR) / 2)
    assert lr_share(10**6, 10, 10) == pytest.approx(FINAL_LR)
    assert lr_share(10**6, 12, 10) == pytest.approx(FINAL_LR)
    assert lr_share(10**6, 1, 1) == pytest.approx(FINAL_LR)
    assert lr_share(10**6, 0, 0) == 1
    shares = [lr_share(1000 + step, step / 100, 3) for step in range(300)]
    assert shares == sorted(shares, reverse=True)


def test_rounds_go_through_the_epochs_order_and_the_last_one_is_short() -> None:
    schedule, order = make(workers=2), epoch_order(5, seed=3, epoch=1).tolist()
    rounds = [part.tolist() for part in schedule.rounds(Progress(epoch=1))]
    assert rounds == [order[:2], order[2:4], order[4:]]
    assert sorted(sum(rounds, [])) == [0, 1, 2, 3, 4]
    for done, left in ((2, rounds[1:]), (4, rounds[2:]), (5, [])):
        place = Progress(epoch=1, partitions=done)
        assert [part.tolist() for part in schedule.rounds(place)] == left


def test_all_workers_order_their_steps_alike_and_anew_in_each_round() -> None:
    """And not by the numbers that any of them draws by."""
    schedule, first = make(workers=2), Progress(epoch=1, partitions=2)
    order = schedule.step_order(first, 50).tolist()
    assert sorted(order) == list(range(50))
    assert order == schedule.step_order(Progress(epoch=1, partitions=2), 50).tolist()
    for other in (Progress(epoch=1, partitions=4), Progress(epoch=2, partitions=2)):
        assert schedule.step_order(other, 50).tolist() != order
    for rank in range(2):
        assert schedule.rng(first, rank).permutation(50).tolist() != order


@pytest.mark.parametrize(
    ("epoch", "best", "validates", "over"),
    [
        (0, 0, True, False),
        (3, 2, True, False),  # waited one epoch of two
        (3, 1, True, True),
        (3, 1, False, False),  # nobody says which is the best
        (4, 4, True, True),
        (4, 0, False, True),
    ],
)
def test_training_is_over_with_its_epochs_or_its_patience(
    epoch: int, best: int, validates: bool, over: bool
) -> None:
    schedule = make(patience=2, validates=validates)
    assert schedule.is_over(Progress(epoch=epoch, best_epoch=best)) == over


def test_the_epochs_done_count_parts() -> None:
    assert make().epochs_done(Progress(epoch=2, partitions=3)) == 2.6


@pytest.mark.parametrize(
    ("done", "since", "due"),
    [(2, 2, True), (2, 1, False), (4, 4, False), (3, 3, True), (5, 5, False)],
)
def test_a_checkpoint_is_due_unless_the_epochs_own_is_near(
    done: int, since: int, due: bool
) -> None:
    schedule = make(checkpoint_every_partitions=2)
    assert schedule.checkpoint_is_due(Progress(partitions=done), since) == due


def test_content_alone_comes_first_then_the_share_of_the_settings() -> None:
    schedule = make(content_first=0.5, id_dropout=0.2)
    assert [schedule.id_dropout_at(Progress(epoch=i)) for i in range(4)] == [1, 1, 0.2, 0.2]


def test_chance_is_of_the_place_and_the_worker() -> None:
    places = [
        (Progress(epoch=1, partitions=2), 0),
        (Progress(epoch=1, partitions=2), 1),
        (Progress(epoch=2, partitions=2), 0),
        (Progress(epoch=1, partitions=4), 0),
    ]
    drawn = [int(make().rng(*place).integers(2**62)) for place in places]
    assert len(set(drawn)) == 4
    assert int(make().rng(Progress(epoch=1, partitions=2, steps=9), 0).integers(2**62)) == drawn[0]


def test_the_learning_rate_is_the_peaks_share() -> None:
    """The step 24 is the 25th of 50 that warm up."""
    assert make(lr=0.5).lr(Progress(steps=24)) == 0.25
    assert make(lr=0.5).lr(Progress(steps=999, epoch=4)) == pytest.approx(0.5 * FINAL_LR)
