"""Click rates, with intervals worked out by hand."""

import math

import pytest

from recsys.live.versions.click_rates import (
    Interval,
    Rate,
    Totals,
    difference,
    sample_ratio_p,
    wilson,
)


def totals(*users: tuple[int, int]) -> Totals:
    added = Totals()
    for impressions, clicks in users:
        added.add(impressions, clicks)
    return added


def test_the_interval_knows_that_one_users_impressions_are_alike() -> None:
    # One who clicks all of ten and one who clicks none: r = 1/2,
    # v = 2/1 * (5² + 5²) / 20² = 1/4, so m = (1/4) / (1/4) = 1 impression's worth.
    rate = totals((10, 10), (10, 0)).rate()
    assert rate is not None and rate.value == 0.5
    assert rate.interval == wilson(0.5, 1)
    # Wilson at m = 1: half of (1 + z²) ** -0.5 * z to either side.
    assert rate.interval.high - 0.5 == pytest.approx(0.5 * 1.96 / math.sqrt(1 + 1.96**2), abs=1e-5)


def test_users_who_are_all_alike_count_as_their_impressions_and_no_more() -> None:
    rate = totals((2, 1), (2, 1), (2, 1)).rate()
    assert rate is not None and rate.interval == wilson(0.5, 6)


def test_users_of_unequal_length_weigh_by_their_impressions() -> None:
    # r = (1 + 1) / (1 + 4) = 0.4; v = 2 * ((1 - 0.4)² + (1 - 1.6)²) / 25 = 0.0576; m = 0.24 / v.
    rate = totals((1, 1), (4, 1)).rate()
    assert rate is not None and rate.value == pytest.approx(0.4)
    assert rate.interval == pytest.approx(wilson(0.4, 0.24 / 0.0576))


def test_a_version_that_nobody_clicked_has_an_interval_by_its_users() -> None:
    # Wilson of 0 of 4: from 0 to z² / (4 + z²).
    rate = totals(*[(100, 0)] * 4).rate()
    assert rate is not None and rate.value == rate.interval.low == 0
    assert rate.interval.high == pytest.approx(3.8415 / 7.8415, abs=1e-4)


def test_a_user_is_taken_out_as_they_came_in() -> None:
    left = totals((3, 1), (7, 2))
    left.add(7, 2, sign=-1)
    assert left == totals((3, 1))


def test_without_impressions_there_is_no_rate() -> None:
    assert Totals().rate() is None


def test_a_difference_is_as_uncertain_as_both_rates() -> None:
    gap = difference(Rate(0.5, Interval(0.46, 0.57)), Rate(0.3, Interval(0.24, 0.33)))
    # Below: √(0.04² + 0.03²) = 0.05; above: √(0.07² + 0.06²).
    assert gap.value == pytest.approx(0.2)
    assert gap.interval == pytest.approx((0.15, 0.2 + math.sqrt(0.0085)))


@pytest.mark.parametrize(
    ("users", "others", "share", "p"),
    [
        (100, 900, 0.1, 1.0),
        (122, 878, 0.1, 0.0204),  # χ² = 22² / 90 = 5.378
        (70, 930, 0.1, 0.00157),  # χ² = 30² / 90 = 10
        (60, 940, 0.1, 0.0000248),  # χ² = 40² / 90 = 17.78
    ],
)
def test_users_who_do_not_come_in_their_shares(
    users: int, others: int, share: float, p: float
) -> None:
    assert sample_ratio_p(users, others, share) == pytest.approx(p, rel=0.01)


@pytest.mark.parametrize(("users", "others", "share"), [(0, 0, 0.5), (3, 4, 0.0), (3, 4, 1.0)])
def test_nothing_is_said_of_shares_that_cannot_be_missed(
    users: int, others: int, share: float
) -> None:
    assert sample_ratio_p(users, others, share) is None
