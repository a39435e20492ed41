"""Pages that go on: a cursor names the videos that a list has shown already.

It names them by a code of their ids, so that it holds on any replica and of any version.

Shapes: N rows of the bundle, M live videos, S videos shown.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recsys.bundle.contents import Bundle
from recsys.data.growing import Growing
from recsys.data.places import Ids
from recsys.data.ragged import IntArray, expand_ranges
from recsys.errors import InputError
from recsys.serve.retrieve.catalogue import Catalogue, Changed

MOST_PAGED = 2_000
"""Videos that a cursor remembers; the list ends there."""
AT_ONCE = 1 << 14
"""Ids whose bytes are multiplied at a time; the arrays of it take 32 bytes for each byte."""
FACTOR, MIXER = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
"""Odd numbers of 64 bits; other ones would make other cursors."""

Codes = npt.NDArray[np.uint32]


class Cursors:
    """Makes and reads the cursors of one recommender; any thread may ask."""

    def __init__(self, bundle: Bundle, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        codes = id_codes(bundle.vocabs["video"].ids)
        order = np.argsort(codes, kind="stable")
        self._sorted_codes, self._sorted_rows = codes[order], (order + 1).astype(np.int32)
        self._codes = Growing(np.concatenate([np.zeros(1, np.uint32), codes]))
        """(N + M,) by row; row 0 has none."""
        catalogue.on_change.append(self._grow)

    def _grow(self, changed: Changed) -> None:
        ids = self._catalogue.videos.ids_of(changed.new_rows)
        self._codes.append(id_codes(pa.array(ids, pa.string())))

    def rows(self, cursor: str | None) -> IntArray:
        """The sorted rows of what a cursor remembers.

        Raises:
            InputError: It is no cursor of ours.
        """
        if cursor is None:
            return np.zeros(0, np.int64)
        codes_S = np.unique(_decode(cursor))
        first = np.searchsorted(self._sorted_codes, codes_S)
        last = np.searchsorted(self._sorted_codes, codes_S, side="right")
        rows = self._sorted_rows[expand_ranges(first, last - first)].astype(np.int64)
        num_bundle = self._catalogue.num_bundle
        live = np.flatnonzero(np.isin(self._codes.now[num_bundle:], codes_S))
        return np.concatenate([np.sort(rows), live + num_bundle])

    def after(self, before: str | None, shown: IntArray) -> str | None:
        """The cursor that remembers what it did before, and these rows (S,) too."""
        known = _decode(before) if before is not None else np.zeros(0, np.uint32)
        if len(known) + len(shown) > MOST_PAGED or not len(shown):
            return None
        codes = np.concatenate([known, self._codes.now[shown]]).astype("<u4")
        return base64.urlsafe_b64encode(codes.tobytes()).decode().rstrip("=")


def id_codes(ids: pa.Array) -> Codes:
    """A code for each id that is the same in every process.

    The bytes b of an id are the digits of a number Σ (b_i + 1) · FACTOR^(i + 1) modulo 2^64; times
    MIXER, its upper half is the code.
    """
    parts = [_codes(Ids(ids.slice(start, AT_ONCE))) for start in range(0, len(ids), AT_ONCE)]
    return np.concatenate([np.zeros(0, np.uint32), *parts])


def _codes(ids: Ids) -> Codes:
    text, ends = ids.text()
    lengths = np.diff(ends)
    place = np.arange(len(text)) - np.repeat(ends[:-1], lengths)
    powers = np.cumprod(np.full(lengths.max(initial=0), FACTOR))
    totals = np.cumsum((text + np.uint64(1)) * powers[place])
    totals = np.concatenate([np.zeros(1, np.uint64), totals])
    numbers = totals[ends[1:]] - totals[ends[:-1]]
    codes: Codes = ((numbers * MIXER) >> np.uint64(32)).astype(np.uint32)
    return codes


def _decode(cursor: str) -> Codes:
    try:
        data = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        data = b"?"
    if len(data) % 4 or len(data) > 4 * MOST_PAGED:
        raise InputError("cursor: not one that this server gave; leave it out for the first page")
    return np.frombuffer(data, "<u4")
