"""Click rates of two versions shown to different users, and how far they can be told apart.

Users are drawn, not impressions: the impressions of one user are alike, so an interval that takes
them for independent is too narrow. With n_u impressions and c_u clicks of each of U users,

    rate      r = sum(c) / sum(n)
    variance  v = U / (U - 1) * sum((c_u - r * n_u)^2) / sum(n)^2       (delta method)
    effective m = r * (1 - r) / v, at most sum(n); U where r is 0 or 1

and the interval is Wilson's for m independent impressions, which stays within 0 and 1 and has a
width where nobody clicked (E. L. Korn and B. I. Graubard, 1998, "Confidence Intervals for
Proportions With Small Expected Number of Positive Counts Estimated From Survey Data"; A. Deng et
al., 2018, "Applying the Delta Method in Metric Analytics"). The interval of a difference is made of
those of its two rates (R. G. Newcombe, 1998, method 10).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

Z = 1.959963984540054
"""Of the normal distribution, for intervals that hold in 95 of 100 cases."""
MISMATCH_P = 0.001
"""Below it, users do not come to the two versions in the shares that they were given."""


class Interval(NamedTuple):
    """The two ends of a 95 % interval."""

    low: float
    high: float


class Rate(NamedTuple):
    """A click rate and its interval."""

    value: float
    interval: Interval


@dataclass
class Totals:
    """Sums over the users of one version, from which its rate follows."""

    users: int = 0
    impressions: int = 0
    clicks: int = 0
    impressions_squared: int = 0
    """Sum over the users of the square of their impressions; likewise below."""
    clicks_squared: int = 0
    product: int = 0
    """Of impressions and clicks."""

    def add(self, impressions: int, clicks: int, *, sign: int = 1) -> None:
        """Takes a user in, or with `sign=-1` out again, who had at least one impression."""
        self.users += sign
        self.impressions += sign * impressions
        self.clicks += sign * clicks
        self.impressions_squared += sign * impressions**2
        self.clicks_squared += sign * clicks**2
        self.product += sign * impressions * clicks

    def rate(self) -> Rate | None:
        """Clicks an impression; None without any impression.

        >>> totals = Totals()
        >>> for impressions, clicks in ((10, 5), (10, 5)):
        ...     totals.add(impressions, clicks)
        >>> totals.rate().value
        0.5
        """
        if not self.impressions:
            return None
        value = self.clicks / self.impressions
        return Rate(value, wilson(value, self._effective(value)))

    def _effective(self, rate: float) -> float:
        """Number of independent impressions that would tell as much as these."""
        if rate in (0.0, 1.0) or self.users < 2:
            return self.users
        squares = self.clicks_squared - 2 * rate * self.product + rate**2 * self.impressions_squared
        # Rounding may leave a little less than nothing where all users are alike.
        variance = max(squares, 0.0) * self.users / (self.users - 1) / self.impressions**2
        spread = rate * (1 - rate)
        return self.impressions if variance * self.impressions <= spread else spread / variance


def wilson(rate: float, number: float) -> Interval:
    """Wilson's interval of a rate of so many independent trials (E. B. Wilson, 1927).

    >>> low, high = wilson(0.5, 100)
    >>> round(low, 4), round(high, 4)
    (0.4038, 0.5962)
    """
    middle = (rate + Z**2 / (2 * number)) / (1 + Z**2 / number)
    half = Z / (1 + Z**2 / number) * math.sqrt(rate * (1 - rate) / number + (Z / number / 2) ** 2)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def difference(rate: Rate, other: Rate) -> Rate:
    """By how much a rate is above another one.

    >>> above = difference(Rate(0.5, Interval(0.4, 0.6)), Rate(0.25, Interval(0.25, 0.25)))
    >>> above.value, [round(end, 6) for end in above.interval]
    (0.25, [0.15, 0.35])
    """
    value = rate.value - other.value
    below = math.hypot(rate.value - rate.interval.low, other.interval.high - other.value)
    above = math.hypot(rate.interval.high - rate.value, other.value - other.interval.low)
    return Rate(value, Interval(value - below, value + above))


def sample_ratio_p(users: int, others: int, share: float) -> float | None:
    """How likely it is that users came so far from their shares by chance alone.

    Pearson's chi-squared test with one degree of freedom. A small value says that one version loses
    users or their events, so that the rates do not compare (A. Fabijan et al., 2019, "Diagnosing
    Sample Ratio Mismatch in Online Controlled Experiments").

    Args:
        users: Who were shown the version that a share of the users was given to.
        others: Who were shown the other one.
        share: From 0 to 1.

    Returns:
        None where nothing can be said: nobody came, or all were given to one version.

    >>> sample_ratio_p(50, 50, 0.5), round(sample_ratio_p(60, 40, 0.5), 4)
    (1.0, 0.0455)
    """
    total = users + others
    if not total or not 0 < share < 1:
        return None
    chi_squared = (users - share * total) ** 2 / (share * (1 - share) * total)
    return math.erfc(math.sqrt(chi_squared / 2))
