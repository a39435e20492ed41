"""What each user did before a request, and what the model makes of it.

A user's past is what the bundle holds of them and what the log holds since. The state that the
model makes of it is kept until the user does something again, for the users who asked last; so a
request of an active user costs no pass through the LSTM.

Shapes: U users, L events, H state, D retrieval vector, A actions, J columns of user features, F
count features, S videos that were seen before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch

from recsys.bundle.contents import Bundle
from recsys.data.ragged import FloatArray, IntArray
from recsys.features.batches import event_batch
from recsys.features.liked import liked_rows
from recsys.features.timelines import Timelines, join
from recsys.live.log.entries import user_mark
from recsys.model.seen import seen_before
from recsys.model.user import states_at
from recsys.schema import UNKNOWN_ROW
from recsys.serve.retrieve.catalogue import Catalogue, Changed
from recsys.serve.users.live_history import LiveHistory, LiveReader
from recsys.serve.users.one_user import before, cut, with_request

BUCKET = 16
"""Histories are padded to the longest of their bucket: lengths up to 16, 32, 64, … together."""


@dataclass(frozen=True, slots=True)
class Past:
    """What a request reads of its user.

    As many are kept as `serve.held_users` says, and a collection of garbage looks at each object of
    a kind that could refer to others. Arrays are not of that kind; tensors and sets are.
    """

    known_user: bool
    known_features: bool
    """Whether any user feature is known."""
    num_events: int
    """That the state is made of, at most `max_history`."""
    last_ms: int
    """Of the newest of all events; -1 without any."""
    newest_ms: int
    """Of the newest that is used; -1 without any."""
    tallies: FloatArray
    """(A,) what the user did in them, summed."""
    state: FloatArray
    """(H,)."""
    query: FloatArray
    """(D,)."""
    seen: IntArray
    """(S,) sorted rows of the videos in them."""
    seen_bias: FloatArray
    """(S,) what that adds to the videos' scores."""
    liked: IntArray
    """Rows of the videos liked in them, newest first."""
    liked_creators: IntArray
    """Sorted rows of their creators, where they are known."""
    never_again: IntArray
    """Rows that are not recommended any more because they were ever liked."""
    refused: IntArray
    """Rows that the user is not interested in."""
    hidden_creators: frozenset[str]
    """Creators that they hid: none of their videos, whenever it came."""


@dataclass(frozen=True, slots=True)
class PastRequest:
    """Whose past, as of when, and what the request itself says of the user."""

    user_id: str
    now_ms: int | None
    """None takes all that was acknowledged."""
    features: tuple[tuple[int, int], ...] = ()
    """(column of user features, row) in place of what the bundle knows."""


@dataclass(frozen=True, slots=True)
class AtHand:
    """What is known of a user at once: by the state that is kept, else by the bundle."""

    known_user: bool
    refused: IntArray
    """Rows; none where no state is kept."""
    hidden_creators: frozenset[str]
    """None where no state is kept."""
    never_again: IntArray
    """Rows that are not recommended any more because they were liked."""


class Pasts:
    """The pasts of users; one thread at a time."""

    def __init__(
        self,
        bundle: Bundle,
        reader: LiveReader,
        catalogue: Catalogue,
        *,
        held_users: int,
    ) -> None:
        self._bundle, self._catalogue = bundle, catalogue
        self._model = bundle.recommender
        self._longest = bundle.config.model.max_history
        self._num_features = len(bundle.config.data.user_columns.features)
        self._place = bundle.history_places
        self._live = reader
        self._held: OrderedDict[str, Past] = OrderedDict()
        """By `user_mark`, for that is all that a deletion says of whose state goes."""
        self._most = held_users
        catalogue.on_change.append(self._change)

    def _change(self, changed: Changed) -> None:
        """States are made of the vectors of what was seen; nobody has seen a new video."""
        if changed.num_new < len(changed.rows):
            self._held.clear()

    def __len__(self) -> int:
        """Users that the bundle knows by events."""
        return len(self._place)

    @property
    def held(self) -> int:
        """Users whose state is kept now."""
        return len(self._held)

    def user_ids(self, limit: int) -> list[str]:
        """Some users of the bundle, without those who had their data deleted."""
        known = self._bundle.histories.user_ids
        return list(islice((u for u in known if self._live.forgotten_ms(u) < 0), limit))

    def changed(self, user_ids: Collection[str]) -> None:
        """These users did something: their states are made anew."""
        for user_id in user_ids:
            self._held.pop(user_mark(user_id), None)

    def forget(self, marks: Mapping[str, int]) -> None:
        """What is held of these users, up to a time each, is not used any more."""
        self._live.forget(marks)
        for mark in marks:
            self._held.pop(mark, None)

    def clear(self) -> None:
        """All states are made anew."""
        self._held.clear()

    def of(self, wanted: Sequence[PastRequest], *, ask_log: bool = True) -> list[Past]:
        """The past of each request's user; all that must be made is made together.

        Args:
            wanted: Whose.
            ask_log: Without it a user whose state is not kept is known by the bundle alone.

        Raises:
            LogError: The log cannot be read.
        """
        pasts: list[Past | None] = [self._kept(one) for one in wanted]
        missing = [place for place, past in enumerate(pasts) if past is None]
        made = self._make([wanted[place] for place in missing], ask_log) if missing else []
        for place, past in zip(missing, made, strict=True):
            pasts[place] = past
            one = wanted[place]
            # What was made without the log would still be there when the log is back.
            if ask_log and not one.features and past.last_ms == past.newest_ms:
                self._held[user_mark(one.user_id)] = past
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return [past for past in pasts if past is not None]

    def _kept(self, one: PastRequest) -> Past | None:
        mark = user_mark(one.user_id)
        past = None if one.features else self._held.get(mark)
        if past is None or (one.now_ms is not None and one.now_ms <= past.last_ms):
            return None
        self._held.move_to_end(mark)
        return past

    def at_hand(self, user_id: str) -> AtHand:
        """What can be said of a user without the model and the log; any thread may ask."""
        past = self._held.get(user_mark(user_id))
        if past is not None:
            return AtHand(past.known_user, past.refused, past.hidden_creators, past.never_again)
        forgotten_ms = self._live.forgotten_ms(user_id)
        known = self._of_bundle(user_id, forgotten_ms)
        liked = self._ever_liked(user_id, forgotten_ms, known.video_rows, known.positive)
        known_user = self._is_of_bundle(user_id, forgotten_ms)
        return AtHand(known_user, np.zeros(0, np.int64), frozenset(), liked)

    def events(self, user_id: str) -> Timelines:
        """All that is known of what a user did, in the order of time."""
        return self.timelines([user_id])[0]

    def timelines(self, user_ids: Sequence[str]) -> list[Timelines]:
        """`events` of many users."""
        histories = zip(user_ids, self._live.read(user_ids), strict=True)
        return [self._merged(user_id, live) for user_id, live in histories]

    def _merged(self, user_id: str, live: LiveHistory) -> Timelines:
        return live.merged_into(self._of_bundle(user_id, live.forgotten_ms))

    def _of_bundle(self, user_id: str, forgotten_ms: int) -> Timelines:
        """The bundle's events of a user, but for what they had deleted."""
        histories, place = self._bundle.histories, self._place.get(user_id)
        start = stop = 0
        if place is not None:
            start, stop = histories.offsets[place : place + 2].tolist()
            if forgotten_ms >= 0:
                times = histories.time_ms[start:stop]
                start += int(np.searchsorted(times, forgotten_ms, side="right"))
        rows = np.zeros((1, self._num_features), np.int64)
        if self._bundle.users is not None and forgotten_ms < 0:
            known = self._bundle.users.one(user_id)
            rows[0, : len(known)] = known
        return cut(histories, start, stop, user_id=user_id, user_rows=rows)

    def _is_of_bundle(self, user_id: str, forgotten_ms: int) -> bool:
        """Whether the bundle knows a user by events that they did not have deleted."""
        place, histories = self._place.get(user_id), self._bundle.histories
        if place is None or forgotten_ms < 0:
            return place is not None
        start, stop = histories.offsets[place : place + 2].tolist()
        return stop > start and int(histories.time_ms[stop - 1]) > forgotten_ms

    @torch.inference_mode()
    def _make(self, wanted: Sequence[PastRequest], ask_log: bool) -> list[Past]:
        user_ids = [one.user_id for one in wanted]
        histories = self._live.read(user_ids, ask_log=ask_log)
        whole = list(map(self._merged, user_ids, histories))
        used = [self._as_asked(*pair) for pair in zip(whole, wanted, strict=True)]
        lengths = np.array([len(one.video_rows) for one in used])
        pasts: list[Past | None] = [None] * len(wanted)
        for group in _buckets(lengths):
            states, parts = self._encode([used[place] for place in group])
            queries, states_UH = self._model.queries(states).numpy(), states.numpy()
            for i, place in enumerate(group):
                # Copies: a view would keep all of its batch, and a tensor, for as long as one user.
                vectors = states_UH[i].copy(), queries[i].copy()
                pasts[place] = self._past(
                    whole[place], used[place], histories[place], parts[i], *vectors
                )
        return [past for past in pasts if past is not None]

    def _as_asked(self, whole: Timelines, one: PastRequest) -> Timelines:
        """The events that a request reads: the last ones before it."""
        timeline = whole if one.now_ms is None else before(whole, one.now_ms)
        stop = int(timeline.offsets[-1])
        rows = timeline.user_rows.copy()
        for column, row in one.features:
            rows[0, column] = row
        user_id = timeline.user_ids[0]
        return cut(timeline, max(0, stop - self._longest), stop, user_id=user_id, user_rows=rows)

    def _encode(
        self, timelines: Sequence[Timelines]
    ) -> tuple[torch.Tensor, list[tuple[FloatArray, IntArray, FloatArray]]]:
        """The states (U, H) after users' events; of each the tallies, and what was seen."""
        asked = join([with_request(one) for one in timelines])
        arrays = asked.windows(asked.offsets[:-1], asked.offsets[1:])
        events = event_batch(arrays)
        rows_UL = torch.from_numpy(arrays.video_rows)
        states_ULH = self._model.encode_history(self._catalogue.vectors(rows_UL), events)
        last = torch.from_numpy(arrays.lengths - 1)
        everyone = torch.arange(len(timelines))
        num_prior = events.num_prior[everyone, last]
        states = states_at(states_ULH, num_prior.unsqueeze(1))[:, 0]
        seen = seen_before(rows_UL, events.actions[..., 0] > 0, owner=everyone, num_prior=num_prior)
        bias = self._model.repeat_bias(seen).numpy()
        query, rows = seen.query.numpy(), rows_UL[seen.query, seen.event].numpy()
        starts = np.searchsorted(query, np.arange(len(timelines) + 1))
        parts = []
        for user, (start, stop) in enumerate(zip(starts[:-1], starts[1:], strict=True)):
            unique, place = np.unique(rows[start:stop], return_inverse=True)
            summed = np.zeros(len(unique), np.float32)
            np.add.at(summed, place, bias[start:stop])
            tallies = arrays.tallies[user, arrays.lengths[user] - 1].copy()
            parts.append((tallies, unique, summed))
        return states, parts

    def _past(
        self,
        whole: Timelines,
        used: Timelines,
        live: LiveHistory,
        parts: tuple[FloatArray, IntArray, FloatArray],
        state: FloatArray,
        query: FloatArray,
    ) -> Past:
        user_id, newest = used.user_ids[0], used.time_ms[-1:].max(initial=-1)
        liked = used.video_rows[used.positive > 0][::-1]
        until = int(np.searchsorted(whole.time_ms, newest, side="right"))
        never_again = self._ever_liked(
            user_id, live.forgotten_ms, whole.video_rows[:until], whole.positive[:until]
        )
        tallies, seen, bias = parts
        creators = np.unique(self._catalogue.creator_rows(liked))
        return Past(
            known_user=live.has_events or self._is_of_bundle(user_id, live.forgotten_ms),
            known_features=bool(used.user_rows.any()),
            num_events=len(used.video_rows),
            last_ms=int(whole.time_ms[-1:].max(initial=-1)),
            newest_ms=int(newest),
            tallies=tallies,
            state=state,
            query=query,
            seen=seen,
            seen_bias=bias,
            liked=liked,
            liked_creators=creators[creators != UNKNOWN_ROW],
            never_again=never_again,
            refused=live.refused,
            hidden_creators=live.hidden_creators,
        )

    def _ever_liked(
        self,
        user_id: str,
        forgotten_ms: int,
        video_rows: IntArray,
        positive: npt.NDArray[np.integer],
    ) -> IntArray:
        """Rows that a user liked in these events, or before those that the bundle holds."""
        older = np.zeros(0, np.int32)
        if (place := self._place.get(user_id)) is not None and forgotten_ms < 0:
            older = self._bundle.older_liked[place]
        return np.union1d(liked_rows(video_rows, positive), older).astype(np.int64)


def _buckets(lengths: IntArray) -> list[list[int]]:
    """Places of lists of like lengths, so that little of what is encoded is padding."""
    buckets: dict[int, list[int]] = {}
    for place, length in enumerate(lengths.tolist()):
        buckets.setdefault((max(length, BUCKET) - 1).bit_length(), []).append(place)
    return list(buckets.values())
