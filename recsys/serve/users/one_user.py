"""Timelines of one user: what a server makes of events.

Shapes: L events, T tasks, W numbers of how long a video was watched, C context columns, F count
features, J columns of user features.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from recsys.data.ragged import IntArray
from recsys.features.timelines import EVENT_FIELDS, Timelines
from recsys.schema import TEST, UNKNOWN_ROW


def cut(
    timelines: Timelines, start: int, stop: int, *, user_id: str, user_rows: IntArray
) -> Timelines:
    """The events [start, stop) as the timeline of one user; arrays are views.

    Args:
        timelines: Of any users.
        start: First event.
        stop: The event after the last one.
        user_id: Whose events they are.
        user_rows: (1, J) what is known of them.
    """
    events = {name: getattr(timelines, name)[start:stop] for name in EVENT_FIELDS}
    offsets = np.array([0, stop - start], np.int64)
    return Timelines(user_ids=[user_id], offsets=offsets, user_rows=user_rows, **events)


def before(timeline: Timelines, time_ms: int) -> Timelines:
    """The events of one user's timeline that are strictly earlier."""
    stop = int(np.searchsorted(timeline.time_ms, time_ms, side="left"))
    user_id = timeline.user_ids[0]
    return cut(timeline, 0, stop, user_id=user_id, user_rows=timeline.user_rows)


def merge(older: Timelines, newer: Timelines) -> Timelines:
    """Two timelines of one user as one, in the order of time.

    Of equal times the older one's events come first. An event of a video and time that both have
    is the newer one's: it knows what came of it since.
    """
    if not len(newer.video_rows):
        return older
    both = {name: _concat(older, newer, name) for name in EVENT_FIELDS}
    last = len(older.video_rows)
    again = np.isin(_keys(older), _keys(newer))
    kept = np.flatnonzero(np.append(~again, np.ones(len(both["time_ms"]) - last, bool)))
    order = kept[np.argsort(both["time_ms"][kept], kind="stable")]
    events: dict[str, Any] = {name: values[order] for name, values in both.items()}
    return replace(older, offsets=np.array([0, len(order)], np.int64), **events)


def _keys(timeline: Timelines) -> IntArray:
    """One number for each pair of video and time."""
    # The times of one user differ by less than 2^40 ms (35 years), so keys are as unlike as pairs.
    return timeline.video_rows.astype(np.int64) << 40 ^ timeline.time_ms


def with_request(timeline: Timelines) -> Timelines:
    """One user's timeline with a request after all of its events, as in training.

    It is an event of which nothing is known yet, a millisecond after the last one.
    """

    def one_more(name: str) -> np.ndarray:
        values = getattr(timeline, name)
        return np.concatenate([values, np.zeros((1, *values.shape[1:]), values.dtype)])

    events: dict[str, Any] = {name: one_more(name) for name in EVENT_FIELDS}
    events["video_rows"][-1] = UNKNOWN_ROW
    events["time_ms"][-1] = 1 + timeline.time_ms[-1:].max(initial=0)
    events["split"][-1] = TEST
    return replace(timeline, offsets=timeline.offsets + np.array([0, 1]), **events)


def _concat(older: Timelines, newer: Timelines, name: str) -> np.ndarray:
    return np.concatenate([getattr(older, name), getattr(newer, name)])
