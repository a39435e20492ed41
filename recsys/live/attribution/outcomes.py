"""What came of a showing, in the columns of a run: for the next training and for a server alike."""

from __future__ import annotations

from typing import NamedTuple

from recsys.config.data import EventColumns
from recsys.live.attribution.showings import Showing


class Outcome(NamedTuple):
    """What a row of training data says of an event."""

    positive: bool
    labels: tuple[bool, ...]
    """One a ranking task; what nobody told of did not happen."""


def outcome(showing: Showing, columns: EventColumns) -> Outcome | None:
    """What came of a showing; None where a run has no place for it.

    In a run without a column of what was liked every row is a viewing that counts, so a video that
    was shown and not watched has no place there. Where that column is also a task, the task's label
    that was told last says whether the video was liked; without one the events' `positive` says so
    for the flag and for the label, since the two are one column.
    """
    positive, of_task = showing.positive, columns.positive
    if of_task is None and not positive:
        return None
    if of_task is not None and of_task in columns.tasks:
        positive = showing.labels.get(of_task, positive)
    labels = (
        positive if task == of_task else showing.labels.get(task, False) for task in columns.tasks
    )
    return Outcome(positive, tuple(labels))
