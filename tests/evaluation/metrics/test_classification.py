import numpy as np
import pytest

from recsys.evaluation.metrics.classification import (
    TaskMeter,
    auc,
    auc_by_user,
    calibration,
    resampled,
    task_metrics,
)


def test_auc_by_hand() -> None:
    assert auc([0, 0, 1, 1], [1, 2, 3, 4]) == 1
    assert auc([1, 1, 0, 0], [1, 2, 3, 4]) == 0
    assert auc([0, 1, 0, 1], [5, 5, 5, 5]) == 0.5
    # Pairs (positive, negative): 3 > 1 counts 1, 3 = 3 counts 1/2.
    assert auc([0, 1, 0], [1, 3, 3]) == 0.75
    assert auc([1, 1], [0, 1]) is None
    assert auc([], []) is None


def test_auc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 200), rng.integers(0, 20, 200)  # many ties
    above = scores[labels == 1][:, None] - scores[labels == 0][None]
    share = ((above > 0) + (above == 0) / 2).mean()
    assert auc(labels, scores) == pytest.approx(share, abs=1e-12)


def test_auc_by_user_is_what_leaving_users_out_says() -> None:
    rng = np.random.default_rng(0)
    users = rng.integers(0, 300, 3000)
    labels = rng.integers(0, 2, 3000)
    scores = labels + rng.normal(size=3000) + rng.normal(size=300)[users]
    by_user = auc_by_user(labels, scores, users, 300)
    whole = auc(labels, scores)
    assert by_user is not None and whole is not None
    assert by_user.mean() == pytest.approx(whole, abs=1e-12)
    # The jackknife's pseudo-values, of which these are the first order.
    left_out = [auc(labels[users != user], scores[users != user]) for user in range(300)]
    pseudo = 300 * whole - 299 * np.array(left_out)
    assert np.corrcoef(by_user, pseudo)[0, 1] > 0.999
    assert by_user.std() == pytest.approx(pseudo.std(), rel=0.02)
    assert auc_by_user([1, 1], [0, 1], np.zeros(2, int), 1) is None


def test_log_loss_by_hand() -> None:
    # Logit 0 is probability 1/2, logit log 3 is 3/4.
    figures = task_metrics(np.array([1, 0]), np.array([0.0, np.log(3)]))
    assert figures["log_loss"] == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert figures["normalised_entropy"] == pytest.approx(figures["log_loss"] / np.log(2))
    assert figures["predicted_rate"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert figures["observed_rate"] == 0.5


def test_huge_logits_stay_finite() -> None:
    figures = task_metrics(np.array([1, 0]), np.array([-1000.0, -1000.0]))
    assert figures["log_loss"] == pytest.approx(500)


def test_equal_probabilities_share_a_bin() -> None:
    labels = np.array([0, 1] * 50, np.float64)
    bins = calibration(labels, np.full(100, 0.5))
    assert bins == [{"events": 100, "predicted": 0.5, "observed": 0.5}]
    bins = calibration(labels, np.arange(100) / 100)
    assert len(bins) == 15 and sum(part["events"] for part in bins) == 100


def test_meter_gathers_chunks_and_slices() -> None:
    meter = TaskMeter()
    meter.add([1, 0], [2.0, 1.0], cold=[False, False], users=[0, 1])
    meter.add([1, 0, 1], [0.0, 1.0, 3.0], cold=[True, True, False], users=[1, 1, 2])
    figures = meter.result()
    assert figures["events"] == 5 and figures["warm"]["events"] == 3
    assert figures["warm"]["auc"] == 1 and figures["cold"]["auc"] == 0
    assert figures["auc"] == pytest.approx(auc([1, 0, 1, 0, 1], [2, 1, 0, 1, 3]))
    assert "ci" not in figures


def test_intervals_draw_users_not_events() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    logits = labels + rng.normal(size=300)
    meter, repeated = TaskMeter(), TaskMeter()
    meter.add(labels, logits, cold=np.zeros(300), users=np.arange(300))
    for _ in range(4):  # the same events four times say nothing new
        repeated.add(labels, logits, cold=np.zeros(300), users=np.arange(300))
    figures = meter.result(bootstrap=100)
    low, high = figures["ci"]["auc"]
    assert low < figures["auc"] < high and 0.03 < high - low < 0.2
    assert repeated.result(bootstrap=100)["ci"]["auc"] == pytest.approx([low, high])
    low, high = figures["ci"]["log_loss"]
    assert low < figures["log_loss"] < high
    low, high = figures["ci"]["calibration_error"]
    assert 0 < low < high


def test_calibration_error_by_hand() -> None:
    # Probability 1/2 for all, of which a quarter is positive.
    figures = task_metrics(np.array([1, 0, 0, 0]), np.zeros(4))
    assert figures["calibration_error"] == pytest.approx(1 / 4)
    samples = resampled(np.array([1, 0, 0, 0]), np.zeros(4), np.zeros(4, int), count=3, seed=0)
    assert samples["calibration_error"] == pytest.approx(np.full(3, 1 / 4))


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        TaskMeter().add([2], [0.0], cold=[False], users=[0])
    with pytest.raises(ValueError, match="not finite"):
        TaskMeter().add([1], [float("nan")], cold=[False], users=[0])


def test_no_events() -> None:
    assert TaskMeter().result()["auc"] is None
