"""The versions of one replica: which it serves, keeps warm, tries beside, is loading or refuses.

A version is loaded aside, by a thread of low priority: every file's sha256 is checked, what
publishing knew the answers of is asked, the event log is caught up with, and the last requests of
this replica are answered for practice. Only then one reference is changed, between two
micro-batches, so that every answer is of one version. Ray Serve's own `reconfigure` is not used for
it: it blocks a replica while it loads. What cannot be served is refused, and what served before
goes on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from recsys.bundle.contents import Bundle
from recsys.bundle.versions import is_version, read_manifest, whole_versions
from recsys.config.run import ServeConfig
from recsys.data.storage import join
from recsys.errors import InputError
from recsys.live.clock import now
from recsys.live.store.database import LogError
from recsys.live.versions.watch import Challenge, WantedVersion, Watch
from recsys.serve import priority
from recsys.serve.metrics import Metrics
from recsys.serve.recommender import ServingRecommender
from recsys.serve.versions.known import check_known
from recsys.serve.versions.practice import Unfit

logger = logging.getLogger(__name__)

State = Literal["serving", "challenger", "warm", "loading", "waiting", "refused", "available"]
"""`warm`: kept in memory, for the way back. `waiting`: it could not be made ready since the event
log was away; nothing is known to be wrong with it. `available`: in the folder, not looked at."""
MOST_REFUSED = 100
RETRY_S = 60.0
"""When a version that was refused is looked at again: its files may have been copied since."""


@dataclass(frozen=True)
class Refusal:
    """Why a version is not served."""

    version: str
    reason: str
    at_s: float
    """Of a clock that never goes back."""


@dataclass(frozen=True)
class VersionState:
    """What this replica knows of one version."""

    version: str
    state: State
    created: str | None = None
    reason: str | None = None
    """Why it is refused, or waits."""


class Host(Protocol):
    """What versions are loaded for."""

    def load(self, bundle: Bundle) -> ServingRecommender:
        """A recommender on the host's own log."""

    def practise(self, recommender: ServingRecommender, *, has_served: bool) -> None:
        """Has a recommender that does not serve catch up, and answer what was asked of late.

        Raises:
            LogError: The log cannot be read.
            Unfit: It fails at what was asked; see `Practice.of`.
        """

    def flip(
        self, recommender: ServingRecommender, beside: tuple[Challenge, ServingRecommender] | None
    ) -> None:
        """Has a recommender answer from now on, and another one be tried beside it."""


class Versions:
    """Keeps a replica at the version that is to be served.

    Args:
        watch: Says which that is.
        settings: That versions are served with, in place of what they were published with; None
            takes theirs.
        host: Whose requests they answer.
        metrics: Told what happens.
    """

    def __init__(
        self, watch: Watch, settings: ServeConfig | None, *, host: Host, metrics: Metrics
    ) -> None:
        self._watch, self._settings = watch, settings
        self._host, self._metrics = host, metrics
        self._lock = threading.Lock()
        self._held: OrderedDict[str, ServingRecommender] = OrderedDict()
        """By version, the one that served last at the end."""
        self._coming: ServingRecommender | None = None
        """What is being made ready, until it serves or is tried."""
        self._serving = ""
        self._challenge: Challenge | None = None
        self._loading: str | None = None
        self._refused: OrderedDict[str, Refusal] = OrderedDict()
        self._waiting: dict[str, str] = {}
        """Version → why it could not be looked at yet."""
        self._wake, self._ended = threading.Event(), False
        self._thread: threading.Thread | None = None
        self._after_drop: Callable[[], None] = lambda: None
        self._dropped = False

    @property
    def watch(self) -> Watch:
        """What says which version is to be served."""
        return self._watch

    @property
    def refused(self) -> list[Refusal]:
        """The versions that are not served, and why."""
        with self._lock:
            return list(self._refused.values())

    @property
    def kept(self) -> list[ServingRecommender]:
        """What is in memory: what serves, is tried or warm, and what is being made ready."""
        with self._lock:
            coming = [] if self._coming is None else [self._coming]
            return [*reversed(self._held.values()), *coming]

    def first(self) -> ServingRecommender:
        """The version to begin with: the one to be served, else the newest that can be.

        Raises:
            InputError: None can; the reason of the one that was to be.
        """
        wanted = self._watch.wanted().version
        others = [] if self._watch.pinned else reversed(whole_versions(self._watch.bundles_dir))
        for version in dict.fromkeys([wanted, *others]):
            recommender = self._ready(version)
            if recommender is not None:
                self._serving = version
                self._held[version] = recommender
                return recommender
        refusal = self._refused.get(wanted)
        raise InputError(self._waiting[wanted] if refusal is None else refusal.reason)

    def start(self, every_s: float, *, after_drop: Callable[[], None] = lambda: None) -> None:
        """Looks every so often, in a thread of its own, until `close`.

        Args:
            every_s: How often.
            after_drop: Called when no request is answered any more by a version that is not held.
        """
        self._after_drop = after_drop
        self._thread = threading.Thread(target=self._run, args=(every_s,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the thread."""
        self._ended = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def look(self) -> None:
        """Brings the replica to what is to be served now.

        Raises:
            InputError: CURRENT cannot be read.
            LogError: The database cannot be read.
        """
        wanted = self._watch.wanted()
        try:
            if wanted.version != self._serving and not self._rests(wanted.version):
                recommender = self._ready(wanted.version)
                if recommender is not None:
                    self._serve(wanted.version, recommender, wanted)
            self._challenge_as(wanted)
        finally:
            self._coming = None

    def choose(self, version: str) -> None:
        """Has a version served, here and on every other replica.

        Raises:
            InputError: It is not there, or cannot be read.
        """
        self._choose(version)

    def roll_back(self, version: str | None = None) -> None:
        """Has the version of before served, here and on every other replica.

        Args:
            version: To go back from; nothing is changed where it is not to be served any more. None
                is whichever is to be served, so that the same once more goes back further.

        Raises:
            InputError: It is not there, or there is none to go back to.
        """
        serving = self._watch.wanted().version
        if version is not None:
            self.require(version)
        if version in (None, serving):
            self._choose(self.previous(), instead_of=serving)

    def challenge(self, version: str, share: float, since_seq: int) -> None:
        """Has a version tried on a share of the users, counted from a place in the log on.

        The same once more goes on from where it began.

        Raises:
            InputError: It is not there, or the one that serves.
        """
        self.require(version)
        against = self._watch.wanted().version
        if version == against:
            raise InputError(f"version {version} is the one that serves; try another beside it")
        self._watch.challenge(Challenge(version, against, share, now(), since_seq))
        self._wake.set()

    def end_challenge(self) -> None:
        """Has the version that serves answer everybody."""
        self._watch.challenge(None)
        self._wake.set()

    def previous(self) -> str:
        """The version to go back to: the one that served before here, else the next older one.

        Raises:
            InputError: There is none.
        """
        serving = self._watch.wanted().version
        with self._lock:
            warm = [v for v in self._held if v not in (serving, self._challenger())]
        older = [v for v in whole_versions(self._watch.bundles_dir) if v < serving]
        for version in [*reversed(warm), *reversed(older)]:
            if not self._rests(version):
                return version
        raise InputError("there is no version to go back to; GET /v1/versions lists what is there")

    def require(self, version: str) -> None:
        """Refuses what is no version of this folder.

        Raises:
            InputError: It is none, or its manifest cannot be read.
        """
        if self._watch.pinned is not None:
            raise InputError(
                f"this server was given one version, {self._watch.pinned}, and serves no other; "
                "serve the run folder to change versions"
            )
        if not is_version(version):
            raise InputError("version: not a version's name; GET /v1/versions lists them")
        read_manifest(join(self._watch.bundles_dir, version))

    def states(self) -> list[VersionState]:
        """Every version of the folder, the newest first, as this replica sees it."""
        there = set(whole_versions(self._watch.bundles_dir)) if not self._watch.pinned else set()
        with self._lock:
            names = there | self._held.keys() | self._refused.keys() | self._waiting.keys()
            return [self._state(name) for name in sorted(names, reverse=True)]

    def _state(self, version: str) -> VersionState:
        held, refusal = self._held.get(version), self._refused.get(version)
        created = None if held is None else str(held.bundle.manifest["created"])
        if version == self._serving:
            return VersionState(version, "serving", created)
        if version == self._challenger():
            return VersionState(version, "challenger", created)
        if version == self._loading:
            return VersionState(version, "loading")
        if version in self._waiting:
            return VersionState(version, "waiting", reason=self._waiting[version])
        if refusal is not None:
            return VersionState(version, "refused", reason=refusal.reason)
        if held is not None:
            return VersionState(version, "warm", created)
        return VersionState(version, "available")

    def _choose(self, version: str, *, instead_of: str | None = None) -> None:
        self.require(version)
        with self._lock:
            self._refused.pop(version, None)
        self._watch.choose(version, instead_of=instead_of)
        self._wake.set()

    def _run(self, every_s: float) -> None:
        priority.lower()
        while not self._ended:
            try:
                if self._dropped:  # a look ago: what it was asked then is answered by now
                    self._dropped = False
                    self._after_drop()
                self.look()
            except (InputError, LogError) as error:
                logger.warning("which version is to be served cannot be read: %s", error)
                self._metrics.failed("versions")
            except Exception:
                # A fault of ours must not end the thread, and must not go unseen.
                logger.exception("the versions could not be looked at")
                self._metrics.failed("versions")
            self._wake.wait(every_s)
            self._wake.clear()

    def _ready(self, version: str) -> ServingRecommender | None:
        """A recommender that is ready to serve; None where the version is refused, or must wait.

        One that is warm has rested, so it practises too: what happened since is counted first, and
        not by the thread that answers. The challenger answers already.
        """
        held = self._held.get(version)
        if held is not None and version == self._challenger():
            return held
        self._loading, begun = version, time.monotonic()
        try:
            recommender = self._coming = held or self._load(version)
            self._host.practise(recommender, has_served=held is not None)
        except LogError as error:
            self._put_off(version, error)
            return None
        except Exception as error:
            # Whatever it fails with, it must not serve, and what serves must go on.
            self._refuse(version, error)
            return None
        finally:
            self._loading = None
        logger.info("version %s is ready after %.1f s", version, time.monotonic() - begun)
        with self._lock:
            self._refused.pop(version, None)
            self._waiting.pop(version, None)
        return recommender

    def _load(self, version: str) -> ServingRecommender:
        bundle = Bundle.load(join(self._watch.bundles_dir, version))
        if bundle.known is None:
            logger.warning("bundle %s has no known answers: they are not checked", version)
        check_known(bundle)
        return self._host.load(bundle.with_settings(self._settings))

    def _put_off(self, version: str, error: LogError) -> None:
        """The log was away: the version is tried again when which one to serve can be read."""
        logger.warning("version %s is not ready yet: %s", version, error)
        with self._lock:
            self._waiting[version] = str(error)

    def _refuse(self, version: str, error: Exception) -> None:
        reason = str(error) if isinstance(error, (InputError, Unfit)) else repr(error)
        known = self._refused.get(version)
        if known is None or known.reason != reason:
            self._metrics.version_refused()
            # A fault of the input is told in one line, one of ours with where it was.
            fault = None if isinstance(error, InputError) else error
            logger.error("version %s is refused: %s", version, reason, exc_info=fault)
        with self._lock:
            self._waiting.pop(version, None)
            self._refused[version] = Refusal(version, reason, time.monotonic())
            while len(self._refused) > MOST_REFUSED:
                self._refused.popitem(last=False)

    def _rests(self, version: str) -> bool:
        refusal = self._refused.get(version)
        return refusal is not None and time.monotonic() - refusal.at_s < RETRY_S

    def _serve(self, version: str, recommender: ServingRecommender, wanted: WantedVersion) -> None:
        """Changes the reference; the one before is kept warm, and older ones go."""
        before = self._serving
        self._host.flip(recommender, None)  # what is to be tried beside it practises first
        with self._lock:
            self._held[version] = recommender
            self._held.move_to_end(before)
            self._held.move_to_end(version)
            self._serving, self._challenge = version, None
            self._drop(wanted)
        logger.warning("version %s serves now, in place of %s", version, before)
        self._metrics.version_swapped()

    def _challenge_as(self, wanted: WantedVersion) -> None:
        """Begins or ends what is tried beside the version that serves."""
        challenge = wanted.challenge if wanted.version == self._serving else None
        if challenge == self._challenge:
            return
        beside = None
        if challenge is not None:
            if self._rests(challenge.version):
                return
            recommender = self._ready(challenge.version)
            if recommender is None:
                return
            beside = challenge, recommender
            with self._lock:
                self._held[challenge.version] = recommender
                self._held.move_to_end(self._serving)
        self._host.flip(self._held[self._serving], beside)
        with self._lock:
            self._challenge = challenge
            self._drop(wanted)
        logger.warning("tried beside version %s: %s", self._serving, challenge or "none")

    def _challenger(self) -> str | None:
        return None if self._challenge is None else self._challenge.version

    def _drop(self, wanted: WantedVersion) -> None:
        """Keeps the version that serves, the one before, what is tried or to be, and no other."""
        to_be = None if wanted.challenge is None else wanted.challenge.version
        kept = (self._serving, self._challenger(), to_be)
        others = [version for version in self._held if version not in kept]
        for version in others[:-1]:
            del self._held[version]
            self._dropped = True
