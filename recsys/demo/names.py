"""What the demo world's videos and creators are called; no model sees a title."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from recsys.demo.clips import MOTIONS

MOODS = (
    *("A calm", "A bold", "A shy", "A merry", "A patient", "A curious", "A proud", "A gentle"),
    *("A restless", "A clever", "A sleepy", "A daring", "A tidy", "A lucky", "A quiet", "A wild"),
)
THINGS = (
    "red disc",
    "blue square",
    "yellow ring",
    "green diamond",
    "white cross",
    "violet triangle",
)
"""Of each of `clips.APPEARANCES`."""
WAYS = ("sails right", "drifts left", "sinks down", "climbs up")
"""Of each of `clips.MOTIONS`."""
FIRST_NAMES = ("Ada", "Bo", "Chen", "Dalia", "Emre", "Femi", "Grace", "Hana", "Ivo", "Juno")
LAST_NAMES = (
    "Abara",
    "Berg",
    "Castro",
    "Dietz",
    "Endo",
    "Fontaine",
    "Gupta",
    "Holm",
    "Ito",
    "Joshi",
)


def video_titles(appearances: Iterable[int], motions: Iterable[int]) -> list[str]:
    """A title for each video, no two alike.

    >>> video_titles([0, 0, 2], [1, 1, 3])
    ['A calm red disc drifts left', 'A bold red disc drifts left', 'A calm yellow ring climbs up']
    """
    told: Counter[int] = Counter()
    titles = []
    for appearance, motion in zip(appearances, motions, strict=True):
        pair = appearance * len(MOTIONS) + motion
        part, mood = divmod(told[pair], len(MOODS))
        told[pair] += 1
        title = f"{MOODS[mood]} {THINGS[appearance]} {WAYS[motion]}"
        titles.append(f"{title}, part {part + 1}" if part else title)
    return titles


def creator_name(creator: int) -> str:
    """The name of a creator, by number; no two are alike.

    >>> creator_name(0), creator_name(11), creator_name(100)
    ('Ada Abara', 'Bo Castro', 'Ada Abara 2')
    """
    again, number = divmod(creator, len(FIRST_NAMES) * len(LAST_NAMES))
    turn, first = divmod(number, len(FIRST_NAMES))
    # Neighbours share neither name: the last one moves along with the first, a step further a turn.
    last = (first + turn) % len(LAST_NAMES)
    name = f"{FIRST_NAMES[first]} {LAST_NAMES[last]}"
    return f"{name} {again + 1}" if again else name
