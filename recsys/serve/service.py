"""What the routes talk to: the recommender of now, its thread, and the event log.

Routes never keep a recommender: they ask the service, which may be given another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from recsys.bundle.contents import Bundle
from recsys.data.storage import is_uri
from recsys.errors import InputError
from recsys.live.database import LogError
from recsys.live.event import Event
from recsys.live.events import Appended, EventLog
from recsys.serve.asks import Answer, Ask
from recsys.serve.batches import MicroBatches
from recsys.serve.metrics import Metrics
from recsys.serve.recommender import ServingRecommender, now

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
LOG_FILE = "live.sqlite"


class Service:
    """A replica's recommender and log; its methods are called from the server's event loop.

    Args:
        bundle: What is served.
        log: Where events go to and come from; the service closes it.
        metrics: Told what happens.
        seed: Of what is drawn; None draws differently in every process.
    """

    def __init__(
        self,
        bundle: Bundle,
        log: EventLog,
        *,
        metrics: Metrics | None = None,
        seed: int | None = None,
    ) -> None:
        if bundle.live_seq > (last := log.latest_seq()):
            raise InputError(
                f"{log.database.shown}: the event log ends at seq {last}, and bundle "
                f"{bundle.version} was made of one up to seq {bundle.live_seq}: it is another log; "
                "set serve.events to the one of data.live"
            )
        self.log, self.metrics = log, metrics or Metrics("0")
        self.recommender = ServingRecommender(bundle, log, seed=seed, timer=self.metrics.step)
        self._batches = MicroBatches(self._answer, idle=self._follow)
        self._caught_up = False
        self._ids = random.Random(os.urandom(16))
        self._show_model()

    @property
    def bundle(self) -> Bundle:
        """The bundle that is served now."""
        return self.recommender.bundle

    @property
    def ready(self) -> bool:
        """Whether all that the log held when the service began is counted."""
        return self._caught_up

    async def answer(self, ask: Ask) -> Answer:
        """The answer to one request, in one batch with those that wait beside it.

        Raises:
            InputError: The request is wrong.
            LogError: The event log cannot be read.
        """
        return await self._batches.ask(ask)

    async def answer_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers to several requests.

        Raises:
            InputError: One is wrong; the message names its place.
        """
        found = await asyncio.gather(*map(self.answer, asks), return_exceptions=True)
        for place, answer in enumerate(found):
            if isinstance(answer, InputError):
                raise InputError(f"requests.{place}: {answer}")
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in found if isinstance(answer, Answer)]

    async def read(self, look: Callable[[ServingRecommender], Result]) -> Result:
        """What the recommender says, looked up in its own thread."""
        return await self._batches.call(lambda: look(self.recommender))

    async def append(self, events: Sequence[Event]) -> Appended:
        """Adds events to the log; they are on disk when this returns.

        Raises:
            InputError: An event is wrong; none of the call is kept.
            LogError: The database fails; the same call may be made again.
        """
        self._check(events)
        appended = await asyncio.wrap_future(self.log.hand_in(events))
        self.metrics.events(Counter(map(str, appended.statuses)))
        return appended

    async def forget(self, user_id: str) -> int:
        """Deletes all of a user's events and gives their number."""
        return await asyncio.to_thread(self.log.forget, user_id)

    def impression_id(self) -> str:
        """Names one list that is shown: the bundle's version and a number of its own."""
        return f"{self.bundle.version}.{self._ids.getrandbits(64):016x}"

    def close(self) -> None:
        """Answers what waits, commits what was handed in and closes the log."""
        self._batches.close()
        self.log.close()

    def _check(self, events: Sequence[Event]) -> None:
        """Events of tasks and contexts that nobody knows are mistakes of their sender."""
        tasks = self.recommender.tasks
        for place, event in enumerate(events):
            where = f"event {place + 1} of {len(events)}: " if len(events) > 1 else ""
            for name in event.labels:
                if name not in tasks:
                    known = ", ".join(tasks) or "none"
                    raise InputError(f"{where}labels.{name}: unknown; this model's tasks: {known}")
            try:
                self.recommender.check_context(event.context)
            except InputError as error:
                raise InputError(f"{where}{error}") from None
            if event.video_id is not None and not self.recommender.holds(event.video_id):
                self.metrics.unknown("video")

    def _answer(self, asks: Sequence[Ask]) -> list[Answer | Exception]:
        self.metrics.batch(len(asks))
        answers: list[Answer | Exception] = list(self.recommender.answer(asks))
        self._caught_up = True
        for answer in answers:
            if isinstance(answer, Answer):
                if not answer.known_user:
                    self.metrics.unknown("user")
                if answer.unknown_video_ids:
                    self.metrics.unknown("video", len(answer.unknown_video_ids))
        return answers

    def _follow(self) -> None:
        """Between requests: what has happened, and how far behind this replica was."""
        try:
            self.recommender.catch_up()
            self._caught_up = True
            latest = self.log.latest_seq()
        except LogError:  # each request that needs the log tells its caller and the server's log
            self.metrics.log_failed()
            return
        except Exception:
            # A fault of ours must not end the thread, and must not go unseen.
            logger.exception("the event log could not be followed")
            self.metrics.log_failed()
            return
        followed = self.recommender.follower
        if followed is not None:
            lag = latest - followed.followed.seq
            age = max(0, now() - followed.followed.received_ms) / 1000 if lag else 0.0
            self.metrics.log_lag(lag, age)
        self.metrics.cache("users", self.recommender.pasts.held)

    def _show_model(self) -> None:
        bundle = self.bundle
        self.metrics.model(bundle.version, bundle.created_s)
        self.metrics.index(len(bundle.index), None)
        self.metrics.known(len(self.recommender.pasts), len(bundle.index))


def log_address(bundle_folder: str, events: str | None) -> str:
    """Where the event log of a bundle is: as set, or beside the run's other results.

    Args:
        bundle_folder: Of one version, `RUN/bundles/<version>`.
        events: `serve.events`.

    Raises:
        InputError: The run is not on this machine's disk and no address is set.
    """
    if events is not None:
        return events
    if is_uri(bundle_folder):
        raise InputError(
            f"serve.events: {bundle_folder} is not on this machine's disk, so the events need an "
            "address of their own; set serve.events to a local path or postgresql://USER@HOST/NAME"
        )
    bundles = os.path.dirname(os.path.abspath(bundle_folder))
    run = os.path.dirname(bundles) if os.path.basename(bundles) == "bundles" else bundles
    return os.path.join(run, LOG_FILE)
