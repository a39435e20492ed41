"""Which videos a request may be given: its filters, its own exclusions, and pages that go on.

Shapes: N videos.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from recsys.bundle.contents import Bundle
from recsys.data.growing import Growing
from recsys.data.ragged import IntArray
from recsys.errors import InputError
from recsys.live.text import shown
from recsys.schema import UNKNOWN_ROW
from recsys.serve.asks import NO_FILTERS, Filters
from recsys.serve.retrieve.catalogue import Catalogue, Changed, Described, GrowingVocab
from recsys.serve.retrieve.cursors import Cursors

Mask = npt.NDArray[np.bool_]
DAY_MS = 86_400_000
HELD_FILTERS = 64
"""Filters whose masks are kept; N bytes each."""


class Ages:
    """When each video was first shown to anybody (N), or, of one that came live, was handed in.

    A live event may be a video's first.
    """

    def __init__(self, bundle: Bundle, catalogue: Catalogue) -> None:
        # NumPy reads a null as NaN; filled by Arrow, its pool would keep as much room for good.
        first_N = np.asarray(bundle.catalog.table.column("first_time_ms"), np.float64)
        self._first_ms_N = Growing(np.nan_to_num(first_N, copy=False, nan=-1).astype(np.int64))
        self._catalogue = catalogue
        catalogue.on_change.append(self._grow)

    @property
    def first_ms_N(self) -> IntArray:
        """Unix milliseconds; -1 of what was never shown."""
        return self._first_ms_N.now

    def _grow(self, changed: Changed) -> None:
        self._first_ms_N.append(self._catalogue.received_ms(changed.new_rows))

    def happened(self, rows: IntArray, times_ms: IntArray) -> None:
        """Videos were shown at some times."""
        first_ms_N = self.first_ms_N
        unknown = first_ms_N[rows] < 0
        if unknown.any():
            never, times = rows[unknown], times_ms[unknown]
            first_ms_N[never] = np.iinfo(np.int64).max
            np.minimum.at(first_ms_N, never, times)

    def younger_than(self, days: float, now_ms: int, rows: IntArray | None = None) -> Mask:
        """Which videos, of all (N) or of some (R), were first shown in the last days or never yet.

        Row 0 is no video.
        """
        first_ms = self.first_ms_N if rows is None else self.first_ms_N[rows]
        young: Mask = (first_ms < 0) | (first_ms > now_ms - days * DAY_MS)
        if rows is None:
            young[UNKNOWN_ROW] = False
        return young


@dataclass
class _Held:
    """What a filter lets through, as of when it was asked for last."""

    mask_N: Growing[np.bool_]
    changed: list[IntArray] = field(default_factory=list)
    """Rows of videos that have come or changed since."""


class Conditions:
    """Turns what a request says into rows of the catalogue; any thread may ask."""

    def __init__(self, bundle: Bundle, catalogue: Catalogue, ages: Ages) -> None:
        self._catalogue, self._ages = catalogue, ages
        self._lock = threading.Lock()
        self._masks: OrderedDict[Filters, _Held] = OrderedDict()
        self.cursors = Cursors(bundle, catalogue)
        catalogue.on_change.append(self._grow)

    def _grow(self, changed: Changed) -> None:
        with self._lock:
            for held in self._masks.values():
                held.changed.append(changed.rows)

    def allowed(self, filters: Filters, now_ms: int) -> Mask | None:
        """(N,) what the filters let through; None where there are none.

        Raises:
            InputError: A category or creator is not of this catalogue.
        """
        if filters == NO_FILTERS:
            return None
        if filters.max_age_days is not None:  # changes with the time
            young = self._ages.younger_than(filters.max_age_days, now_ms)
            others = self.allowed(replace(filters, max_age_days=None), now_ms)
            return young if others is None else young & others
        with self._lock:
            held = self._masks.pop(filters, None)
            if held is not None:
                self._bring_up_to_date(filters, held)
        if held is None:
            held = _Held(Growing(self._make(filters)))
        with self._lock:
            self._masks[filters] = held
            if len(self._masks) > HELD_FILTERS:
                self._masks.popitem(last=False)
        return held.mask_N.now

    def _bring_up_to_date(self, filters: Filters, held: _Held) -> None:
        """Looks at the videos that have come or changed since a mask was used last."""
        if held.changed:
            rows = np.unique(np.concatenate(held.changed))
            held.mask_N.put(rows, self._make(filters, rows))
            held.changed.clear()

    def rows(self, video_ids: Iterable[str]) -> IntArray:
        """The rows of videos that the catalogue holds."""
        row = self._catalogue.videos.row
        rows = np.array([row(video_id) for video_id in video_ids], np.int64)
        return rows[rows != UNKNOWN_ROW]

    def _make(self, filters: Filters, rows: IntArray | None = None) -> Mask:
        """Which videos, of all (N) or of some live ones (R), filters let through."""
        categories = _named("category", self._catalogue.categories, filters.categories or ())
        creators = _named("creator", self._catalogue.creators, filters.creators or ())
        catalogue = self._catalogue
        parts = catalogue.described() if rows is None else [catalogue.of_rows(rows)]
        mask = np.concatenate([_passing(part, filters, categories, creators) for part in parts])
        of_mask = np.arange(len(mask)) if rows is None else rows
        if filters.video_ids is not None:
            mask &= np.isin(of_mask, self.rows(filters.video_ids))
        mask &= of_mask != UNKNOWN_ROW
        return mask


def _passing(part: Described, filters: Filters, categories: list[int], creators: list[int]) -> Mask:
    """Which videos of a part of the catalogue the filters of what is known of them let through."""
    mask = np.ones(len(part.creator_rows), np.bool_)
    if filters.categories is not None:
        values = np.isin(part.categories.values, categories)
        mask &= np.bincount(part.categories.list_of_value[values], minlength=len(mask)) > 0
    if filters.creators is not None:
        mask &= np.isin(part.creator_rows, creators)
    with np.errstate(invalid="ignore"):  # a length that is not known is NaN and passes no limit
        if filters.min_duration is not None:
            mask &= part.durations >= filters.min_duration
        if filters.max_duration is not None:
            mask &= part.durations <= filters.max_duration
    return mask


def _named(kind: str, known: GrowingVocab, asked: Iterable[str]) -> list[int]:
    rows = []
    for name in asked:
        rows.append(known.row(name))
        if rows[-1] == UNKNOWN_ROW:
            field = {"category": "categories", "creator": "creators"}[kind]
            raise InputError(
                f"filters.{field}: {shown(name)} is no {kind} of this catalogue; it has "
                f"{', '.join(known.some(3)) or 'none'}{', …' if len(known) > 4 else ''}"
            )
    return rows
