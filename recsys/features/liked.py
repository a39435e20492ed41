"""Seen is for ever: the one rule of what is never recommended again.

Whoever has had a positive event with a video is not shown it once more, however long ago that was.
Evaluation masks by this rule, a bundle keeps by it what is older than its histories, and a server
goes on with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from recsys.data.ragged import IntArray, Ragged, expand_ranges, union
from recsys.features.timelines import Timelines
from recsys.schema import UNKNOWN_ROW


def liked_rows(
    video_rows: npt.NDArray[np.integer], positive: npt.NDArray[np.integer]
) -> npt.NDArray[np.int32]:
    """The distinct videos, sorted, among some events (n,) that must not come again.

    >>> liked_rows(np.array([7, 3, 7, 0, 5]), np.array([1, 0, 1, 1, 1])).tolist()
    [5, 7]
    """
    rows = union(video_rows[positive > 0]).astype(np.int32)
    return rows[rows != UNKNOWN_ROW]


def liked_in_spans(timelines: Timelines, starts: IntArray, stops: IntArray) -> Ragged:
    """`liked_rows` of the events [start, stop) of each of some spans of timelines."""
    lengths = stops - starts
    event, span = expand_ranges(starts, lengths), np.repeat(np.arange(len(starts)), lengths)
    rows = timelines.video_rows[event]
    kept = (timelines.positive[event] > 0) & (rows != UNKNOWN_ROW)
    return Ragged.of_sets(span[kept], rows[kept], len(starts))
