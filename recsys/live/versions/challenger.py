"""What the log says came of a challenge: the click rates of the two versions, side by side.

What is counted are the impressions of the version that is a user's: exposures whose `impression_id`
names it, in the log after the place where the challenge began. A click is what makes a showing a
positive one, as it is for training.

Where more users come than are counted one by one, those that are counted are drawn by lot: the
rates are as right, and their intervals as wide as that number of users makes them.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field

from recsys.config.data import EventColumns
from recsys.live.attribution.open_showings import OpenShowings
from recsys.live.log.entries import LoggedEvent
from recsys.live.log.event import EXPOSURE, Event
from recsys.live.log.events import EventLog
from recsys.live.versions.click_rates import MISMATCH_P, Rate, Totals, difference, sample_ratio_p
from recsys.live.versions.counted_log import CountedLog
from recsys.live.versions.watch import Challenge

logger = logging.getLogger(__name__)

REMEMBERED = 200_000
"""Users and videos whose showings wait for a click, about 90 MB of them."""
MOST_USERS = 500_000
"""Most users whose counts are kept, about 200 bytes each; where more come, half of all go."""


@dataclass(frozen=True)
class ChallengeResult:
    """What came of a challenge until now."""

    challenger: Totals
    champion: Totals
    crossed: int
    """Impressions that are left out: of a version that is not the user's."""
    unnamed: int
    """Exposures that are left out: without an `impression_id`, so of no known version."""
    unmatched: int
    """Clicks that are left out: they name an impression whose exposure the log does not have, or
    got later, or so long before that it is not remembered."""
    sample_ratio_p: float | None
    """See `click_rates.sample_ratio_p`."""
    counted_share: float
    """Of the users, drawn by lot: below 1 where there are more than `MOST_USERS`."""

    @property
    def difference(self) -> Rate | None:
        """By how much the challenger's click rate is above the other; None until both have one."""
        rate, other = self.challenger.rate(), self.champion.rate()
        return None if rate is None or other is None else difference(rate, other)

    @property
    def is_mismatched(self) -> bool:
        """Whether users came so far from their shares that the rates do not compare."""
        return self.sample_ratio_p is not None and self.sample_ratio_p < MISMATCH_P


@dataclass
class _Counts:
    """What was counted up to a place in the log."""

    open: OpenShowings
    of_users: dict[str, list[int]] = field(default_factory=dict)
    """Impressions and clicks of each user who is counted, of the version that is theirs."""
    halvings: int = 0
    """How often half of the users were left out since there were too many."""
    totals: dict[str, Totals] = field(default_factory=dict)
    """By version."""
    crossed: int = 0
    unnamed: int = 0
    unmatched: int = 0

    @property
    def share(self) -> float:
        """Of all users, who are counted."""
        return 0.5**self.halvings

    def takes(self, user_id: str) -> bool:
        """Whether a user is counted: by a hash, which has nothing to do with their version."""
        if not self.halvings:
            return True
        told = hashlib.blake2b(user_id.encode(), digest_size=8, person=b"counted").digest()
        return int.from_bytes(told) < self.share * 2**64


class ChallengeFollower:
    """Counts what comes of a challenge, reading only what the log got since; one thread at a time.

    Args:
        log: With the events of both versions.
        challenge: What is counted, from the place in the log where it began.
        columns: Of the run, which say what a positive showing is.

    Raises:
        LogError: The log cannot be read.
    """

    def __init__(self, log: EventLog, challenge: Challenge, *, columns: EventColumns) -> None:
        self.challenge, self._columns = challenge, columns
        self._log = CountedLog(log, self._begin, self._count)

    def compare(self) -> ChallengeResult:
        """What has come of it until now.

        Raises:
            LogError: The log cannot be read.
        """
        self._log.catch_up()
        challenge, totals = self.challenge, self._counts.totals
        users, others = totals[challenge.version].users, totals[challenge.against].users
        return ChallengeResult(
            totals[challenge.version],
            totals[challenge.against],
            self._counts.crossed,
            self._counts.unnamed,
            self._counts.unmatched,
            sample_ratio_p(users, others, challenge.share),
            self._counts.share,
        )

    @property
    def _counts(self) -> _Counts:
        return self._log.counts

    def _begin(self, _: int) -> tuple[_Counts, int]:
        totals = {self.challenge.version: Totals(), self.challenge.against: Totals()}
        counts = _Counts(OpenShowings(self._columns, capacity=REMEMBERED), totals=totals)
        return counts, self.challenge.since_seq

    def _count(self, logged: LoggedEvent) -> None:
        event, change = logged.event, self._counts.open.take(logged)
        if event.type == EXPOSURE:
            self._impression(event)
        if change is None or not change.flags[0]:
            return
        if change.showing.type != EXPOSURE:
            self._counts.unmatched += event.impression_id is not None
        elif self._is_ours(change.showing):
            self._add(event.user_id, clicks=change.flags[0])

    def _impression(self, event: Event) -> None:
        if self._is_ours(event):
            self._add(event.user_id, impressions=1)
        elif event.impression_id is None:
            self._counts.unnamed += 1
        else:
            self._counts.crossed += 1

    def _is_ours(self, exposure: Event) -> bool:
        """Whether an exposure is of the version that is its user's."""
        named, _, _ = (exposure.impression_id or "").rpartition(".")
        return named == self._version_of(exposure.user_id)

    def _version_of(self, user_id: str) -> str:
        challenge = self.challenge
        return challenge.version if challenge.takes(user_id) else challenge.against

    def _add(self, user_id: str, *, impressions: int = 0, clicks: int = 0) -> None:
        if not self._counts.takes(user_id):
            return
        totals = self._counts.totals[self._version_of(user_id)]
        counts = self._counts.of_users.setdefault(user_id, [0, 0])
        if counts[0]:
            totals.add(*counts, sign=-1)
        counts[0] += impressions
        counts[1] += clicks
        totals.add(*counts)
        if len(self._counts.of_users) > MOST_USERS:
            self._halve()

    def _halve(self) -> None:
        """Leaves out half of the users with all that was counted of them."""
        kept = self._counts
        kept.halvings += 1
        for user_id in [user_id for user_id in kept.of_users if not kept.takes(user_id)]:
            kept.totals[self._version_of(user_id)].add(*kept.of_users.pop(user_id), sign=-1)
        logger.info(
            "more than %s users in the trial of %s: those counted from now on are %g of all",
            f"{MOST_USERS:,}",
            self.challenge.version,
            kept.share,
        )
