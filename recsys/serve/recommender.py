"""From requests to recommendations and scores: read → retrieve → filter → rank → re-rank → answer.

What waits is answered together: one look at the log, one pass of the model for the users whose past
is not at hand, one search, one pass of the ranking head.

Shapes: B requests, N videos, K candidates of a request, D retrieval vector, H state, T tasks, A
actions, C context columns, R videos that are scored.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from recsys.bundle.contents import Bundle
from recsys.data.ragged import FloatArray, IntArray
from recsys.errors import InputError
from recsys.features.inputs import RequestContext
from recsys.features.timelines import MS_PER_HOUR, Timelines, gap_buckets, hours
from recsys.live.clock import now
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.live.text import shown
from recsys.schema import UNKNOWN_ROW
from recsys.serve.asks import Answer, Ask, Degraded, RankedVideo, RankedVideos, ScoredVideo
from recsys.serve.follower import Followed, Follower
from recsys.serve.lists.assemble import Listed, ListMaker, Reading, ScoredCandidates
from recsys.serve.lists.fallback import STALE, Fallback
from recsys.serve.lists.parts import Parts
from recsys.serve.lists.propensities import Tried
from recsys.serve.retrieve.conditions import Conditions
from recsys.serve.retrieve.monitor import IndexMonitor
from recsys.serve.retrieve.retrieval import Search
from recsys.serve.users.courses import Course, courses_of
from recsys.serve.users.log_gate import LogGate
from recsys.serve.users.pasts import Past, PastRequest

Timer = Callable[[str, float], None]
"""Takes the name of a step and the seconds that it took."""


class ServingRecommender:
    """Answers requests from a bundle and the event log; one thread at a time.

    Args:
        bundle: What is known of the time before.
        log: What has happened since; without it nothing has.
        seed: Decides what is drawn (explored places); None draws differently in every process.
        timer: Told how long each step took.
    """

    def __init__(
        self,
        bundle: Bundle,
        log: EventLog | None = None,
        *,
        seed: int | None = None,
        timer: Timer | None = None,
    ) -> None:
        self.bundle = bundle
        config = bundle.config
        self.tasks = config.data.columns.tasks
        self.timer = timer or (lambda *_: None)
        self._contexts = {
            name: bundle.vocabs[f"context_{name}"] for name in config.data.columns.context
        }
        self._parts = Parts.of(bundle, log)
        self.catalogue = self._parts.catalogue
        self.pasts, self.ages = self._parts.pasts, self._parts.ages
        self._conditions = Conditions(bundle, self.catalogue, self.ages)
        self._lists = ListMaker(self._parts, seed=seed)
        self.monitor = IndexMonitor(self._parts.retriever, share=config.serve.monitor, seed=seed)
        self.follower = None if log is None else Follower(self._parts, log)
        self._gate = LogGate()
        self.fallback = Fallback(self._parts, self._conditions, check=self.check, clock=now)

    def recommend(self, user_id: str, k: int = 10, **asked: Any) -> Answer:
        """The k best videos for a user; the arguments are the fields of `Ask`.

        Raises:
            InputError: A limit, a context column, a user feature or a filter is wrong.
        """
        return self._one(Ask(user_id, k, **asked))

    def score(self, user_id: str, video_ids: Sequence[str], **asked: Any) -> Answer:
        """Scores of given videos for a user, in the order in which they are asked for.

        Raises:
            InputError: As `recommend`.
        """
        return self._one(Ask(user_id, video_ids=tuple(video_ids), **asked))

    def _one(self, ask: Ask) -> Answer:
        answer = self.answer([ask])[0]
        if isinstance(answer, InputError):
            raise answer
        return answer

    def answer(self, asks: Sequence[Ask]) -> list[Answer | InputError]:
        """The answers to requests, each its own or what is wrong with it.

        Where the event log cannot be read they are made of what is known, and say so.
        """
        answers: dict[int, Answer | InputError] = {}
        with self._step("follow"):
            degraded = self._follow()
        with self._step("read"):
            read = self._read(asks, answers, degraded)
        groups: dict[tuple[bool, int], list[int]] = defaultdict(list)
        for place, reading in read.items():
            groups[reading.ask.video_ids is None, reading.now_ms // MS_PER_HOUR].append(place)
        for (is_list, _), places in groups.items():
            respond = self._recommend if is_list else self._score_given
            for place, answer in zip(places, respond([read[p] for p in places]), strict=True):
                answers[place] = answer
        return [answers[place] for place in range(len(asks))]

    def catch_up(self) -> None:
        """Reads what the log has committed until now; see `Follower.catch_up`.

        Raises:
            LogError: The log cannot be read, or is left alone for a while since it could not.
        """
        if self.follower is not None:
            self._gate.ask(self.follower.catch_up)

    @property
    def followed(self) -> Followed:
        """How far it has read the log."""
        return Followed() if self.follower is None else self.follower.followed

    @property
    def counts_anew(self) -> bool:
        """Whether another look at the log would go on with counting it anew."""
        return self.follower is not None and self.follower.counts_anew

    @property
    def up_to_date(self) -> bool:
        """Whether the log could be read when it was last looked at."""
        return self._gate.is_open

    @property
    def parts(self) -> Parts:
        """What it is made of."""
        return self._parts

    @property
    def lists(self) -> ListMaker:
        """What puts candidates in order."""
        return self._lists

    def _follow(self) -> Degraded | None:
        """Catches up; gives what is to be said where the log is away."""
        try:
            self.catch_up()
        except LogError:
            return STALE
        return None

    def similar(self, video_id: str, k: int, user_id: str | None = None) -> RankedVideos:
        """The videos most like one, by the cosine of their retrieval vectors.

        Args:
            video_id: The one.
            k: How many.
            user_id: Who is shown them: none that no list of this user may hold (`_withheld`).

        Raises:
            InputError: The catalogue does not hold it.
        """
        degraded = self._follow()
        row = self.catalogue.row(video_id)
        if row == UNKNOWN_ROW:
            raise InputError(f"video_id={shown(video_id)}: not in the catalogue of this model")
        excluded = self.catalogue.unlisted(now())
        if user_id is not None:
            pasts, degraded = self._pasts_of([PastRequest(user_id, None)], degraded)
            excluded = np.concatenate(self._withheld(pasts[0], now()))
        nearest = self._parts.resemblance.nearest(row, k, excluded=excluded)
        return self._ranked(*nearest, degraded)

    def popular(self, k: int, now_ms: int | None = None) -> RankedVideos:
        """What is popular now."""
        degraded = self._follow()
        now_ms = now() if now_ms is None else now_ms
        scores = self._parts.trending.popular(now_ms).copy()
        scores[self.catalogue.unlisted(now_ms)] = 0
        best = np.argsort(-scores, kind="stable")[:k]
        best = best[scores[best] > 0]
        return self._ranked(best, scores[best], degraded)

    def latest(self, k: int) -> RankedVideos:
        """The videos that were first shown last; the score is that time in Unix milliseconds."""
        degraded = self._follow()
        times = self.ages.first_ms_N.copy()
        times[self.catalogue.unlisted(now())] = -1
        best = np.argsort(-times, kind="stable")[:k]
        best = best[times[best] >= 0]
        return self._ranked(best, times[best].astype(np.float64), degraded)

    def history(self, user_id: str) -> Timelines:
        """All that is known of what a user did, in the order of time."""
        self.catch_up()
        return self.pasts.events(user_id)

    def courses(self, user_id: str) -> list[Course]:
        """How far a user is in each of the catalogue's courses.

        Raises:
            LogError: The log cannot be read.
        """
        self.catch_up()
        past = self.pasts.of([PastRequest(user_id, None)])[0]
        return courses_of(self.catalogue, past.never_again, past.liked, now())

    def knows_user(self, user_id: str) -> bool:
        """Whether anything that a user did is known."""
        return self.pasts.of([PastRequest(user_id, None)])[0].known_user

    def video_id(self, row: int) -> str | None:
        """A row's id; None for the unknown video."""
        return None if row == UNKNOWN_ROW else self.catalogue.videos.id(row)

    def holds(self, video_id: str) -> bool:
        """Whether a video is in the catalogue."""
        return self.catalogue.row(video_id) != UNKNOWN_ROW

    def uri(self, video_id: str) -> str | None:
        """Where a video's file lies; None where it is unknown or has none."""
        return self.catalogue.uri(self.catalogue.row(video_id))

    def check_context(self, context: Mapping[str, str]) -> None:
        """Refuses context columns that the model does not have.

        Raises:
            InputError: There is one.
        """
        for name in context:
            if name not in self._contexts:
                known = ", ".join(self._contexts) or "none"
                raise InputError(f"context.{name}: unknown; this model's context columns: {known}")

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.timer(name, time.perf_counter() - begun)

    def _read(
        self,
        asks: Sequence[Ask],
        answers: dict[int, Answer | InputError],
        degraded: Degraded | None,
    ) -> dict[int, Reading]:
        """What each request is answered from; those that are wrong are answered at once."""
        wanted: dict[int, PastRequest] = {}
        for place, ask in enumerate(asks):
            try:
                wanted[place] = self.check(ask)
            except InputError as error:
                answers[place] = error
        pasts, degraded = self._pasts_of(list(wanted.values()), degraded)
        clock, read = now(), {}
        for place, past in zip(wanted, pasts, strict=True):
            ask = asks[place]
            # Without a time of its own a request comes after all that was acknowledged.
            now_ms = max(clock, past.last_ms + 1) if ask.now_ms is None else ask.now_ms
            try:
                search = self._search(ask, past, now_ms)
            except InputError as error:
                answers[place] = error
                continue
            rows = self._parts.reader.context_rows(ask.context)
            read[place] = Reading(ask, past, now_ms, rows, search, degraded)
        return read

    def _pasts_of(
        self, wanted: list[PastRequest], degraded: Degraded | None
    ) -> tuple[list[Past], Degraded | None]:
        """The pasts of users; where the log is away, of what is known without it."""
        if degraded is None:
            try:
                return self._gate.ask(lambda: self.pasts.of(wanted)), None
            except LogError:
                degraded = STALE
        return self.pasts.of(wanted, ask_log=False), degraded

    def check(self, ask: Ask) -> PastRequest:
        """Whose past a request is answered from; any thread may ask.

        Raises:
            InputError: A limit, a context column or a user feature is wrong.
        """
        serve = self.bundle.config.serve
        if ask.video_ids is None and not 1 <= ask.k <= serve.max_k:
            raise InputError(f"k={ask.k}: must be from 1 to {serve.max_k} (serve.max_k)")
        if ask.video_ids is not None and not 1 <= len(ask.video_ids) <= serve.max_videos:
            raise InputError(
                f"{len(ask.video_ids)} video_ids: must be from 1 to {serve.max_videos} "
                "(serve.max_videos)"
            )
        self.check_context(ask.context)
        columns = self.bundle.config.data.user_columns.features
        features = []
        for name, value in ask.user.items():
            if name not in columns:
                known = ", ".join(columns) or "none"
                raise InputError(f"user.{name}: unknown; this model's user features: {known}")
            row = self.bundle.vocabs["user"].row(f"{name}={value}")
            features.append((columns.index(name), row))
        return PastRequest(ask.user_id, ask.now_ms, tuple(features))

    def _search(self, ask: Ask, past: Past, now_ms: int) -> Search:
        apart = self._withheld(past, now_ms)
        if ask.exclude:
            apart.append(self._conditions.rows(ask.exclude))
        if ask.cursor is not None:
            apart.append(self._conditions.cursors.rows(ask.cursor))
        if ask.exclude_seen:
            apart.append(past.never_again)
        return Search(
            query=past.query,
            trending=self._parts.trending.at(now_ms),
            seen=past.seen,
            seen_bias=past.seen_bias,
            excluded=np.unique(np.concatenate(apart)),
            allowed=self._conditions.allowed(ask.filters, now_ms),
        )

    def _withheld(self, past: Past, now_ms: int) -> list[IntArray]:
        """Rows that no list of a user may hold: out of all lists, refused by them, or locked."""
        return [
            past.refused,
            self.catalogue.unwanted(past.hidden_creators, now_ms),
            self.catalogue.locked(past.never_again, now_ms),
        ]

    def _score_given(self, readings: Sequence[Reading]) -> list[Answer]:
        """The answers to requests of one hour for the scores of given videos."""
        answers = []
        for reading in readings:
            asked = reading.ask.video_ids or ()
            rows = np.array([self.catalogue.row(video_id) for video_id in asked], np.int64)
            known = [v for v, row in zip(asked, rows, strict=True) if row != UNKNOWN_ROW]
            unknown = tuple(v for v, row in zip(asked, rows, strict=True) if row == UNKNOWN_ROW)
            scores, chances = self.scored(reading, rows[rows != UNKNOWN_ROW])
            videos = self._lists.named(known, scores, chances, [None] * len(known))
            answers.append(self._answer(reading, videos, unknown=unknown))
        return answers

    def _recommend(self, readings: Sequence[Reading]) -> list[Answer]:
        """The answers to requests of one hour for recommendations."""
        candidates = self._find(readings)
        with self._step("rerank"):
            lists = self._lists.choose(readings, candidates)
        with self._step("answer"):
            return self.listed(readings, candidates, lists)

    def candidates(
        self, asks: Sequence[Ask], number: int = 0
    ) -> tuple[list[Reading], ScoredCandidates]:
        """What the lists of requests of now are made of, for those who look at single steps.

        Args:
            asks: The requests.
            number: Of candidates, at least.

        Raises:
            InputError: A request is wrong.
        """
        wrong: dict[int, Answer | InputError] = {}
        readings = list(self._read(asks, wrong, self._follow()).values())
        for error in wrong.values():
            assert isinstance(error, InputError)
            raise error
        return readings, self._find(readings, number)

    def _find(self, readings: Sequence[Reading], number: int = 0) -> ScoredCandidates:
        """Retrieves, at least so many, and ranks what was retrieved."""
        longest = max(reading.ask.k for reading in readings)
        number = max(number, self._lists.candidates(longest))
        with self._step("retrieve"):
            searches = [reading.search for reading in readings]
            found = self._parts.retriever.best_and_untrended(searches, number)
            self.monitor.saw(searches)
        with self._step("rank"):
            return ScoredCandidates(*found, self._probabilities(readings, found[0]))

    def listed(
        self, readings: Sequence[Reading], candidates: ScoredCandidates, lists: Sequence[Listed]
    ) -> list[Answer]:
        """The answers that have these lists."""
        scored = []
        for place, (reading, listed) in enumerate(zip(readings, lists, strict=True)):
            if listed.places is None:
                scored.append(self.scored(reading, listed.rows))
            else:
                chances = candidates.probabilities_BCT[place][listed.places]
                scored.append((candidates.scores_BC[place][listed.places], chances))
        shown = self._lists.videos(readings, candidates, lists, scored)
        return [
            self._answer(reading, videos, cursor=self._cursor(reading, listed), tried=listed.tried)
            for reading, listed, videos in zip(readings, lists, shown, strict=True)
        ]

    def scored(self, reading: Reading, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Scores (R,) and probabilities (R, T) of any videos for one request."""
        scores = self._parts.retriever.scores(reading.search, rows)
        return scores, self._probabilities([reading], rows[None])[0]

    def _cursor(self, reading: Reading, listed: Listed) -> str | None:
        if len(listed.rows) < reading.ask.k:
            return None
        return self._conditions.cursors.after(reading.ask.cursor, listed.rows)

    def _probabilities(self, readings: Sequence[Reading], rows_BK: IntArray) -> FloatArray:
        """(B, K, T) of videos for requests of one hour."""
        if not self.tasks:
            return np.zeros((*rows_BK.shape, 0), np.float32)
        states = torch.from_numpy(np.stack([reading.past.state for reading in readings]))
        chances = self._parts.tasks.probabilities(
            states, _contexts(readings), rows_BK, readings[0].now_ms
        )
        probabilities: FloatArray = chances.numpy()
        return probabilities

    def _answer(
        self,
        reading: Reading,
        videos: tuple[ScoredVideo, ...],
        *,
        unknown: tuple[str, ...] = (),
        cursor: str | None = None,
        tried: Tried | None = None,
    ) -> Answer:
        return Answer(
            version=self.bundle.version,
            user_id=reading.ask.user_id,
            known_user=reading.past.known_user,
            now_ms=reading.now_ms,
            num_history=reading.past.num_events,
            videos=videos,
            unknown_video_ids=unknown,
            cursor=cursor,
            degraded=reading.degraded,
            tried=tried,
        )

    def _ranked(
        self, rows: IntArray, scores: np.ndarray, degraded: Degraded | None = None
    ) -> RankedVideos:
        videos = tuple(
            RankedVideo(self.catalogue.videos.id(int(row)), float(score))
            for row, score in zip(rows, scores, strict=True)
        )
        return RankedVideos(self.bundle.version, videos, degraded)


def _contexts(readings: Sequence[Reading]) -> RequestContext:
    """What the ranking head is told of B requests, as in training."""
    now_ms = np.array([reading.now_ms for reading in readings])
    newest = np.array([reading.past.newest_ms for reading in readings])
    num_prior = np.array([reading.past.num_events for reading in readings])
    gaps = gap_buckets(np.where(num_prior > 0, now_ms - newest, -1))
    contexts = np.array([reading.context_rows for reading in readings], np.int64)
    return RequestContext(
        gaps=torch.from_numpy(gaps),
        hours=torch.from_numpy(hours(now_ms)),
        num_prior=torch.from_numpy(num_prior),
        tallies=torch.from_numpy(np.stack([reading.past.tallies for reading in readings])),
        context_rows=torch.from_numpy(contexts.reshape(len(readings), -1)),
    )
