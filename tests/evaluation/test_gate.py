"""The gate before a new model: not worse by more than is allowed, and shown to be."""

import numpy as np
import pytest

from recsys.evaluation.gate import judge


def values(*numbers: float) -> np.ndarray:
    return np.array(numbers, dtype=float)


def passed(ours: np.ndarray, theirs: np.ndarray, loss: float, confidence: float = 0.95) -> bool:
    return judge("m", ours, theirs, allowed_loss=loss, confidence=confidence).passed


def test_a_gain_is_proven_by_five_users_and_not_by_four() -> None:
    """All n users gain the same: of 2^n tosses one gives so much, 1/16 or 1/32."""
    decision = judge("m", np.full(5, 0.6), np.full(5, 0.5), allowed_loss=0, confidence=0.95)
    assert decision.p == pytest.approx(1 / 32, abs=0.005) and decision.passed
    assert (decision.ours, decision.theirs) == (pytest.approx(0.6), pytest.approx(0.5))
    assert not passed(np.full(4, 0.6), np.full(4, 0.5), 0)
    assert passed(np.full(4, 0.6), np.full(4, 0.5), 0, confidence=0.9)


def test_the_allowed_loss_is_a_share_of_the_served_models_mean() -> None:
    """Means 0.4 and 0.5: a loss of a fifth. 25 % allow it, 20 % and 15 % do not."""
    ours, theirs = np.full(20, 0.4), np.full(20, 0.5)
    decision = judge("m", ours, theirs, allowed_loss=0.25, confidence=0.95)
    assert decision.allowed == pytest.approx(0.125) and decision.passed
    assert not passed(ours, theirs, 0.15)
    assert judge("m", ours, theirs, allowed_loss=0.15, confidence=0.95).p > 0.99


def test_equal_models_pass_only_where_a_loss_is_allowed() -> None:
    same = np.full(30, 0.5)
    assert passed(same, same, 0.01)
    assert not passed(same, same, 0.0)
    assert judge("m", same, same, allowed_loss=0, confidence=0.95).p == 0.5


def test_noise_that_hides_a_loss_does_not_pass() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.random(50)
    ours = theirs[rng.permutation(50)]  # the same mean, users at random
    assert not passed(ours, theirs, 0.02)
    many_theirs = np.tile(theirs, 400)
    assert passed(np.tile(ours, 400), many_theirs, 0.02)


def test_users_who_are_not_measured_by_both_are_left_out() -> None:
    ours = values(np.nan, 0.6, 0.6, 0.6, 0.6, 0.6, 9.0)
    theirs = values(0.1, 0.5, 0.5, 0.5, 0.5, 0.5, np.nan)
    decision = judge("m", ours, theirs, allowed_loss=0, confidence=0.95)
    assert (decision.users, decision.ours) == (5, pytest.approx(0.6))
    nobody = judge("m", values(np.nan), values(0.5), allowed_loss=0.5, confidence=0.95)
    assert (nobody.users, nobody.passed) == (0, False)


def test_what_people_read() -> None:
    decision = judge(
        "ndcg@10", np.full(1200, 0.5), np.full(1200, 0.5), allowed_loss=0.1, confidence=0.9
    )
    assert str(decision).startswith("ndcg@10 0.5000 against 0.5000 of 1,200 users, p ")
    assert str(decision).endswith("of a loss above 0.0500")
