"""What the routes talk to: the recommender of now, its thread, and the event log.

Routes never keep a recommender: they ask the service, which may be given another one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from recsys.bundle.contents import Bundle, VideoModel
from recsys.config.run import ServeConfig
from recsys.errors import InputError
from recsys.live.clock import now
from recsys.live.log.event import Event
from recsys.live.log.events import Appended, EventLog
from recsys.live.log.explored import ExploredVideos
from recsys.live.store.database import LogError
from recsys.live.versions.challenger import ChallengeFollower, ChallengeResult
from recsys.live.versions.watch import Challenge, Watch
from recsys.serve.asks import FAILED, Answer, Ask, Cause, Degraded, NoAnswer, RankedVideos
from recsys.serve.batches import MicroBatches
from recsys.serve.lists.explored_record import ExploredRecord
from recsys.serve.lists.fallback import Fallback
from recsys.serve.log_lag import LogLag
from recsys.serve.log_writes import LogWrites
from recsys.serve.metrics import Metrics
from recsys.serve.operator.figures import RunFigures
from recsys.serve.recommender import ServingRecommender
from recsys.serve.retrieve.monitor import SearchShape
from recsys.serve.versions.practice import Practice
from recsys.serve.versions.replica import Versions
from recsys.serve.videos.desk import VideoDesk, make_missing

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Serving:
    """What answers now; it is replaced as a whole."""

    recommender: ServingRecommender
    beside: tuple[Challenge, ServingRecommender] | None = None
    """What is tried on some of the users."""

    def of(self, user_id: str) -> ServingRecommender:
        """The recommender that answers a user."""
        if self.beside is not None and self.beside[0].takes(user_id):
            return self.beside[1]
        return self.recommender

    @property
    def all(self) -> list[ServingRecommender]:
        """Both."""
        return [self.recommender] if self.beside is None else [self.recommender, self.beside[1]]


class Service:
    """A replica's recommender and log; its methods are called from the server's event loop.

    Args:
        source: A bundle that is served as long as the service is there, or what says which version
            is to be served; `versions.start` follows it.
        log: Where events go to and come from; the service closes it.
        settings: That versions are served with, in place of what they were published with; with
            `encoders` in them, those encode videos that are handed in, and without, this process.
        metrics: Told what happens.
        seed: Of what is drawn; None draws differently in every process.

    Raises:
        InputError: The bundle is of another log, or no version can be served.
    """

    def __init__(
        self,
        source: Bundle | Watch,
        log: EventLog,
        *,
        settings: ServeConfig | None = None,
        metrics: Metrics | None = None,
        seed: int | None = None,
    ) -> None:
        self.log, self.metrics, self._seed = log, metrics or Metrics("0"), seed
        self._practice = Practice()
        self.versions: Versions | None = None
        self._comparing = threading.Lock()
        self._compared: ChallengeFollower | None = None
        if isinstance(source, Watch):
            self.versions = Versions(source, settings, host=self, metrics=self.metrics)
            first = self.versions.first()
        else:
            first = self.load(source.with_settings(settings))
        first.timer = self.metrics.step
        self._serving = Serving(first)
        bundle = first.bundle
        self._budget_s = bundle.config.serve.budget_ms / 1000
        encodes = settings is None or not settings.encoders
        self.desk = VideoDesk(
            log, bundle.config.serve, self._video_models, metrics=self.metrics, encodes=encodes
        )
        self.figures = RunFigures(self.metrics)
        self._batches = MicroBatches(self._answer, idle=self._idle)
        self._more, self._most_more = 0, bundle.config.serve.max_waiting
        """Users of calls for many that wait, each call's first one left out: it has its place."""
        # Callers that wait for a log that hangs must not take all places of those who read.
        self._writes = LogWrites(log, self.metrics, most=max(1, self._most_more // 2))
        self._caught_up = False
        self._lag = LogLag(log, lambda: self.recommender.followed, self.metrics)
        self._explored = ExploredRecord(ExploredVideos(log.database), self.metrics)
        self._ids = random.Random(os.urandom(16))
        self._show_model()

    @property
    def recommender(self) -> ServingRecommender:
        """What answers now, but for users on whom another version is tried."""
        return self._serving.recommender

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

        Where the model fails, or takes longer than `serve.budget_ms`, it is a list for everybody
        and says so.

        Raises:
            InputError: The request is wrong.
            NoAnswer: Scores were asked for, and nothing can stand in for them.
        """
        try:
            answer = await self._in_time(self._batches.ask(ask))
        except NoAnswer as error:
            if ask.video_ids is not None:
                raise
            answer = self._serving.of(ask.user_id).fallback.answer(ask, error.cause)
        self._count_degraded(answer.degraded)
        return answer

    async def answer_all(self, asks: Sequence[Ask]) -> list[Answer]:
        """The answers to several requests.

        Raises:
            InputError: One is wrong; the message names its place.
            NoAnswer: So many requests of other calls wait that these would wait too long.
        """
        more = len(asks) - 1
        if self._more and self._more + more > self._most_more:
            self.metrics.refused("overload")
            raise NoAnswer(
                "late",
                f"{self._more} requests of other calls for many users are waiting here already, "
                f"and {self._most_more} may (serve.max_waiting); try again later",
            )
        self._more += more
        try:
            answers = await asyncio.gather(*map(self.answer, asks), return_exceptions=True)
        finally:
            self._more -= more
        for place, answer in enumerate(answers):
            if isinstance(answer, InputError):
                raise InputError(f"requests.{place}: {answer}")
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, Answer)]

    async def similar(self, video_id: str, k: int, user_id: str | None = None) -> RankedVideos:
        """The videos most like one; as `read`, for nothing can stand in for them."""
        ranked = await self.read(lambda recommender: recommender.similar(video_id, k, user_id))
        self._count_degraded(ranked.degraded)
        return ranked

    async def popular(self, k: int) -> RankedVideos:
        """What is popular now; in time, as `answer`."""
        return await self._for_everybody(
            lambda recommender: recommender.popular(k),
            lambda fallback, cause: fallback.popular(k, cause),
        )

    async def latest(self, k: int) -> RankedVideos:
        """The videos that were first shown last; in time, as `answer`."""
        return await self._for_everybody(
            lambda recommender: recommender.latest(k),
            lambda fallback, cause: fallback.latest(k, cause),
        )

    async def read(
        self, look: Callable[[ServingRecommender], Result], *, of_user: str | None = None
    ) -> Result:
        """What the recommender says, or that which answers a user, looked up in its own thread.

        Raises:
            NoAnswer: It did not come in time, or failed by a fault of ours.
        """

        def made() -> Result:
            return look(self.recommender if of_user is None else self._serving.of(of_user))

        return await self._in_time(self._batches.call(made))

    async def append(self, events: Sequence[Event]) -> Appended:
        """Adds events to the log; they are on disk when this returns.

        Raises:
            InputError: An event is wrong; none of the call is kept.
            LogError: The database fails; the same call may be made again.
        """
        self._check(events)
        return await self._writes.append(events)

    async def forget(self, user_id: str) -> int:
        """Deletes all of a user's events and gives their number.

        Raises:
            InputError: The id is no text that a log can hold.
            LogError: The database fails; the same call may be made again.
        """
        return await self._writes.forget(user_id)

    def shown(self, answer: Answer) -> str:
        """Names a list that is shown: its bundle's version and a number of its own.

        How likely the videos were that it tries out is recorded under that name.
        """
        impression_id = f"{answer.version}.{self._ids.getrandbits(64):016x}"
        self._explored.shown(impression_id, answer)
        return impression_id

    def close(self) -> None:
        """Answers what waits, commits what was handed in and closes the log."""
        if self.versions is not None:
            self.versions.close()
        self._batches.close()
        self._lag.close()
        self.desk.close()
        self._explored.close()
        self._writes.close()
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

    async def _in_time(self, waiting: Awaitable[Result]) -> Result:
        """What comes of waiting, within the budget.

        Raises:
            NoAnswer: Nothing came in time, or a fault of ours, which is logged and counted.
        """
        try:
            async with asyncio.timeout(self._budget_s):
                return await waiting
        except TimeoutError:
            limit = f"serve.budget_ms={self.bundle.config.serve.budget_ms}"
            text = f"the answer was not ready in time ({limit}); send the same request again"
            raise NoAnswer("late", text) from None
        except (InputError, LogError, NoAnswer):
            raise
        except Exception:
            logger.exception("a request could not be answered")
            self.metrics.failed("request")
            raise NoAnswer("failed", FAILED) from None

    async def _for_everybody(
        self,
        look: Callable[[ServingRecommender], RankedVideos],
        instead: Callable[[Fallback, Cause], RankedVideos],
    ) -> RankedVideos:
        try:
            ranked = await self.read(look)
        except NoAnswer as error:
            ranked = instead(self.recommender.fallback, error.cause)
        self._count_degraded(ranked.degraded)
        return ranked

    def _count_degraded(self, degraded: Degraded | None) -> None:
        if degraded is not None:
            self.metrics.degraded(degraded.kind, degraded.cause)

    def challenge(self, version: str, share: float) -> None:
        """Has a version tried on a share of the users; of any thread.

        Raises:
            InputError: It cannot be.
        """
        assert self.versions is not None
        self.versions.challenge(version, share, self.log.latest_seq())

    def compare(self, challenge: Challenge) -> ChallengeResult:
        """What has come of a challenge until now; of any thread, one after the other.

        Raises:
            LogError: The log cannot be read.
        """
        with self._comparing:
            if self._compared is None or self._compared.challenge != challenge:
                columns = self.bundle.config.data.columns
                self._compared = ChallengeFollower(self.log, challenge, columns=columns)
            return self._compared.compare()

    def load(self, bundle: Bundle) -> ServingRecommender:
        """A recommender on this service's log.

        Raises:
            InputError: The bundle is of another log, in which places are other events.
        """
        database, last = self.log.database, self.log.latest_seq()
        is_other = bundle.live_log is not None and database.id not in (None, bundle.live_log)
        if is_other or bundle.live_seq > last:
            raise InputError(
                f"{database.shown}: the event log ends at seq {last}, and bundle {bundle.version} "
                f"was made of another one, up to seq {bundle.live_seq}; set serve.events to the "
                "one of data.live, or publish a bundle that is made of this one"
            )
        return ServingRecommender(bundle, self.log, seed=self._seed)

    def practise(self, recommender: ServingRecommender, *, has_served: bool) -> None:
        """Has a recommender that does not serve catch up, and answer what was asked of late.

        Raises:
            LogError: The log cannot be read.
            Unfit: It fails at what was asked; see `Practice.of`.
        """
        self._make_missing(recommender)
        recommender.catch_up()
        self._practice.of(recommender, has_served=has_served)
        self._make_missing(recommender)  # for the encoders, which load it meanwhile
        recommender.catch_up()

    def _make_missing(self, recommender: ServingRecommender) -> None:
        bundle = recommender.bundle
        make_missing(self.log, bundle.config.serve, bundle.video_model)

    def _video_models(self) -> list[VideoModel]:
        """Of all versions whose vectors are wanted, that which serves first."""
        kept = [] if self.versions is None else self.versions.kept
        models = (one.bundle.video_model for one in (*self._serving.all, *kept))
        return list({model.version: model for model in models}.values())

    def flip(
        self, recommender: ServingRecommender, beside: tuple[Challenge, ServingRecommender] | None
    ) -> None:
        """From the next batch on a recommender answers; returns when no other one does."""
        serving = Serving(recommender, beside)
        for one in serving.all:
            one.timer = self.metrics.step
        self._serving = serving
        self._show_model()
        self._batches.wait_through()
        for one in serving.all:
            failed = "videos may be absent until an encoder makes their vectors"
            self._beside("videos", failed, partial(self._make_missing, one))

    def _answer(self, asks: Sequence[Ask]) -> list[Answer | Exception]:
        self.metrics.batch(len(asks))
        # Looked at once, so that all of a batch is answered by what served when it began.
        serving = self._serving
        by_place: dict[int, Answer | Exception] = {}
        for one in serving.all:
            here = [place for place, ask in enumerate(asks) if serving.of(ask.user_id) is one]
            if here:
                made = self._all_or_each(one, [asks[place] for place in here])
                by_place.update(zip(here, made, strict=True))
        answers = [by_place[place] for place in range(len(asks))]
        self._practice.answered(asks, answers)
        self._caught_up |= serving.recommender.up_to_date
        for answer in answers:
            if isinstance(answer, Answer):
                if not answer.known_user:
                    self.metrics.unknown("user")
                if answer.unknown_video_ids:
                    self.metrics.unknown("video", len(answer.unknown_video_ids))
        self._between()
        return answers

    def _all_or_each(
        self, recommender: ServingRecommender, asks: Sequence[Ask]
    ) -> list[Answer | Exception]:
        """The answers to requests; where one makes all fail, the others are answered alone."""
        try:
            return list(recommender.answer(asks))
        except Exception as error:
            fault = error
        self.metrics.failed("batch")
        answers: list[Answer | Exception] = []
        for ask in asks:
            try:
                answers += recommender.answer([ask])
            except Exception as error:
                fault = error
                answers.append(NoAnswer("failed", FAILED))
        logger.error("the model failed at requests", exc_info=fault)
        return answers

    def _between(self) -> None:
        """After each batch, and when nobody asks."""
        self._beside("lists", "the lists for everybody could not be made anew", self._keep_ready)
        self._beside("figures", "what is told of this replica is not up to date", self._tell)

    def _beside(self, work: str, failed: str, do: Callable[[], None]) -> None:
        """Does what nobody waits for who asks: a fault of ours is logged and counted."""
        try:
            do()
        except Exception:
            logger.exception(failed)
            self.metrics.failed(work)

    def _keep_ready(self) -> None:
        """The lists that stand in for others; those of before do where it fails."""
        for one in self._serving.all:
            one.fallback.refresh()

    def _tell(self) -> None:
        """What others see of this replica."""
        self.metrics.cache("users", self.recommender.pasts.held)
        self._count_known()
        self.figures.tick(self.bundle.version)

    def _idle(self) -> None:
        self._follow()
        self._between()
        self._look_at_index()

    def index_recalls(self, version: str) -> Mapping[SearchShape, float]:
        """What the index of a version that answers here finds, as looked at; else nothing."""
        answering = (one for one in self._serving.all if one.bundle.version == version)
        return next((one.monitor.recalls() for one in answering), {})

    def _look_at_index(self) -> None:
        serving = self._serving
        for one in serving.all:
            self._beside("index", "the index could not be compared", one.monitor.check_one)
        monitor = serving.recommender.monitor
        self.metrics.index_online(monitor.recalls(), monitor.left_out)
        beside = serving.beside
        self.metrics.challenger_index({} if beside is None else beside[1].monitor.recalls())

    def _follow(self) -> None:
        """Between requests: what has happened, and what is counted anew, until somebody asks."""
        try:
            for one in self._serving.all:
                one.catch_up()
                while one.counts_anew and not self._batches.is_asked:
                    one.catch_up()
            self._caught_up = True
        except LogError:  # each request that needs the log tells its caller and the server's log
            self.metrics.log_failed()
        except Exception:
            # A fault of ours must not end the thread, and must not go unseen.
            logger.exception("the event log could not be followed")
            self.metrics.log_failed()

    def _show_model(self) -> None:
        bundle = self.bundle
        self.metrics.model(bundle.version, bundle.created_s)
        self.metrics.index(bundle.num_videos, bundle.index_facts.recall)
        self._count_known()

    def _count_known(self) -> None:
        catalogue = self.recommender.catalogue
        listed = len(catalogue) - 1 - len(catalogue.unlisted(now()))  # row 0 is no video
        self.metrics.known(len(self.recommender.pasts), listed)
