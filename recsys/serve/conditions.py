"""Which videos a request may be given: its filters, its own exclusions, and pages that go on.

Shapes: N videos.
"""

from __future__ import annotations

import base64
import binascii
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from recsys.bundle.contents import Bundle
from recsys.data.ragged import IntArray
from recsys.errors import InputError
from recsys.live.text import shown
from recsys.schema import UNKNOWN_ROW
from recsys.serve.asks import NO_FILTERS, Filters

Mask = npt.NDArray[np.bool_]
DAY_MS = 86_400_000
HELD_FILTERS = 64
"""Filters whose masks are kept; N bytes each."""
MOST_PAGED = 2_000
"""Videos that a cursor remembers; the list ends there."""


class Ages:
    """When each video was first shown to anybody (N); a live event may be its first."""

    def __init__(self, bundle: Bundle) -> None:
        first = bundle.catalog.table.column("first_time_ms").fill_null(-1)
        self.first_ms_N = np.asarray(first, np.int64).copy()

    def happened(self, rows: IntArray, times_ms: IntArray) -> None:
        """Videos were shown at some times."""
        unknown = self.first_ms_N[rows] < 0
        if unknown.any():
            never, times = rows[unknown], times_ms[unknown]
            self.first_ms_N[never] = np.iinfo(np.int64).max
            np.minimum.at(self.first_ms_N, never, times)

    def younger_than(self, days: float, now_ms: int, rows: IntArray | None = None) -> Mask:
        """Which videos, of all (N) or of some (R), were first shown in the last days or never yet.

        Row 0 is no video.
        """
        first_ms = self.first_ms_N if rows is None else self.first_ms_N[rows]
        young: Mask = (first_ms < 0) | (first_ms > now_ms - days * DAY_MS)
        if rows is None:
            young[UNKNOWN_ROW] = False
        return young


class Conditions:
    """Turns what a request says into rows of the catalogue; any thread may ask."""

    def __init__(self, bundle: Bundle, ages: Ages) -> None:
        self._bundle, self._ages = bundle, ages
        self._lock = threading.Lock()
        self._masks: OrderedDict[Filters, Mask] = OrderedDict()
        codes = [zlib.crc32(str(video_id).encode()) for video_id in bundle.catalog.video_ids()]
        self._codes_N = np.array(codes, np.uint32)

    def allowed(self, filters: Filters, now_ms: int) -> Mask | None:
        """(N,) what the filters let through; None where there are none.

        Raises:
            InputError: A category or creator is not of this catalogue.
        """
        if filters == NO_FILTERS:
            return None
        if filters.max_age_days is not None:  # changes with the time
            return self._make(filters) & self._ages.younger_than(filters.max_age_days, now_ms)
        with self._lock:
            mask = self._masks.pop(filters, None)
        if mask is None:
            mask = self._make(filters)
        with self._lock:
            self._masks[filters] = mask
            if len(self._masks) > HELD_FILTERS:
                self._masks.popitem(last=False)
        return mask

    def rows(self, video_ids: Iterable[str]) -> IntArray:
        """The rows of videos that the catalogue holds."""
        videos = self._bundle.vocabs["video"]
        rows = np.array([videos.row(video_id) for video_id in video_ids], np.int64)
        return rows[rows != UNKNOWN_ROW]

    def shown_before(self, cursor: str | None) -> IntArray:
        """The rows of what a cursor remembers.

        Raises:
            InputError: It is no cursor of ours.
        """
        if cursor is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero(np.isin(self._codes_N, _decode(cursor)))

    def cursor(self, before: str | None, shown: IntArray) -> str | None:
        """The cursor that remembers what it did before, and these rows too.

        It names videos by a hash of their ids, so that it holds on any replica and of any version.
        """
        known = _decode(before) if before is not None else np.zeros(0, np.uint32)
        if len(known) + len(shown) > MOST_PAGED or not len(shown):
            return None
        codes = np.concatenate([known, self._codes_N[shown]]).astype("<u4")
        return base64.urlsafe_b64encode(codes.tobytes()).decode().rstrip("=")

    def _make(self, filters: Filters) -> Mask:
        catalog = self._bundle.catalog
        mask = np.ones(len(catalog), np.bool_)
        if filters.categories:
            rows = self._named("category", filters.categories)
            values = np.isin(catalog.categories.values, rows)
            mask &= np.bincount(catalog.categories.list_of_value[values], minlength=len(mask)) > 0
        if filters.creators:
            mask &= np.isin(catalog.creator_rows, self._named("creator", filters.creators))
        with np.errstate(invalid="ignore"):  # a length that is not known is NaN and passes no limit
            if filters.min_duration is not None:
                mask &= catalog.durations >= filters.min_duration
            if filters.max_duration is not None:
                mask &= catalog.durations <= filters.max_duration
        if filters.video_ids:
            named = np.zeros(len(mask), np.bool_)
            named[self.rows(filters.video_ids)] = True
            mask &= named
        mask[UNKNOWN_ROW] = False
        return mask

    def _named(self, kind: str, names: Iterable[str]) -> list[int]:
        vocab = self._bundle.vocabs[kind]
        rows = []
        for name in names:
            rows.append(vocab.row(name))
            if rows[-1] == UNKNOWN_ROW:
                field = {"category": "categories", "creator": "creators"}[kind]
                known = ", ".join(vocab.ids[:3].to_pylist()) or "none"
                raise InputError(
                    f"filters.{field}: {shown(name)} is no {kind} of this catalogue; it has {known}"
                    f"{', …' if len(vocab) > 4 else ''}"
                )
        return rows


def _decode(cursor: str) -> npt.NDArray[np.uint32]:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b"?"
    if len(data) % 4 or len(data) > 4 * MOST_PAGED:
        raise InputError("cursor: not one that this server gave; leave it out for the first page")
    return np.frombuffer(data, "<u4")
