"""Which version of the bundle is to be served: what was published last, or what somebody chose.

Every replica reads the same two things, so that all of them come to serve the same version: CURRENT
in the bundles' folder, which publishing writes, and one decision in the event log's database, which
somebody makes by hand. A decision holds until something is published after it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, insert, select

from recsys.bundle.versions import current_version
from recsys.live.store.database import Database
from recsys.live.store.tables import FACTS

DECISION = "versions"
"""Name of the decision among the facts of the log."""
OF_DECISION = select(FACTS.c.value).where(FACTS.c.name == DECISION)


@dataclass(frozen=True)
class Challenge:
    """A version that is tried beside the one that serves."""

    version: str
    against: str
    """The version that serves the other users."""
    share: float
    """Of the users, from 0 to 1."""
    since_ms: int
    """When it began (Unix ms)."""
    since_seq: int = 0
    """The place in the event log where it began: all replicas count from there."""

    def takes(self, user_id: str) -> bool:
        """Whether a user is answered by the version that is tried.

        A hash of the user and both versions decides, so that it stays the same at every replica as
        long as the two are compared, and is drawn anew for the next two.
        """
        told = f"{self.against} {self.version} {user_id}".encode()
        drawn = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest())
        return drawn < self.share * 2**64

    def continues(self, other: Challenge | None) -> bool:
        """Whether it tries the same version on the same users as another one."""
        given = (self.version, self.against, self.share)
        return other is not None and given == (other.version, other.against, other.share)


@dataclass(frozen=True)
class VersionDecision:
    """What somebody decided."""

    chosen: str | None = None
    """The version to serve; None for what is published."""
    published: str | None = None
    """What CURRENT named then: another name there is newer than the decision."""
    challenge: Challenge | None = None


@dataclass(frozen=True)
class WantedVersion:
    """What is to be served now."""

    version: str
    challenge: Challenge | None = None
    """None, or one against this very version."""


class Watch:
    """Reads and writes what is to be served; any thread may call it.

    Args:
        database: Of the event log.
        bundles_dir: Of the versions, `RUN/bundles`; a path or URI.
        pinned: A version that is served whatever is published; None follows CURRENT.
    """

    def __init__(self, database: Database, bundles_dir: str, *, pinned: str | None = None) -> None:
        self._database = database
        self.bundles_dir = bundles_dir
        self.pinned = pinned

    def wanted(self) -> WantedVersion:
        """What is to be served now.

        Raises:
            InputError: CURRENT cannot be read.
            LogError: The database cannot be read.
        """
        if self.pinned is not None:
            return WantedVersion(self.pinned)
        return resolve(self.decision(), current_version(self.bundles_dir))

    def decision(self) -> VersionDecision:
        """What was decided last."""
        return _read(next(iter(self._database.rows(OF_DECISION)), None))

    def choose(self, version: str, *, instead_of: str | None = None) -> None:
        """From now on a version is to be served, until another is published; ends a challenge.

        Args:
            version: That is chosen.
            instead_of: Nothing is changed unless this one is to be served until now. So what names
                it may be asked twice, as a proxy does whose replica dies before it answers.
        """
        published = current_version(self.bundles_dir)

        def decide(before: VersionDecision) -> VersionDecision:
            serving = resolve(before, published).version
            return VersionDecision(version, published) if instead_of in (None, serving) else before

        self._decide(decide)

    def challenge(self, challenge: Challenge | None) -> None:
        """From now on a version is tried beside the one that serves, or none.

        The same once more goes on from where it began.
        """

        def decide(before: VersionDecision) -> VersionDecision:
            same = challenge is not None and challenge.continues(before.challenge)
            return before if same else dataclasses.replace(before, challenge=challenge)

        self._decide(decide)

    def _decide(self, decide: Callable[[VersionDecision], VersionDecision]) -> None:
        """Changes what is decided; nobody else does between the look at it and the change."""
        with self._database.writing() as connection:
            decision = decide(_read(connection.execute(OF_DECISION).first()))
            value = json.dumps(dataclasses.asdict(decision))
            connection.execute(delete(FACTS).where(FACTS.c.name == DECISION))
            connection.execute(insert(FACTS), {"name": DECISION, "value": value})


def _read(row: Row[Any] | None) -> VersionDecision:
    if row is None:
        return VersionDecision()
    tree = json.loads(row[0])
    challenge = tree.pop("challenge")
    return VersionDecision(**tree, challenge=challenge and Challenge(**challenge))


def resolve(decision: VersionDecision, published: str) -> WantedVersion:
    """What is to be served, from what was decided and what is published.

    >>> resolve(VersionDecision("v1", published="v2"), published="v2").version
    'v1'
    >>> resolve(VersionDecision("v1", published="v2"), published="v3").version
    'v3'
    """
    holds = decision.chosen is not None and decision.published == published
    version = decision.chosen if holds and decision.chosen else published
    challenge = decision.challenge
    valid = challenge is not None and version == challenge.against != challenge.version
    return WantedVersion(version, challenge if valid else None)
