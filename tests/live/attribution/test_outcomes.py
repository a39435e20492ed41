"""What came of a showing, where the column of what was liked is also a task and where it is not."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.config.data import EventColumns
from recsys.live.attribution.open_showings import OpenShowings
from recsys.live.attribution.outcomes import Outcome, outcome
from recsys.live.attribution.showings import showings
from recsys.live.export.training import export_training
from recsys.live.log.event import EXPOSURE, TASK, VIEW, Event
from recsys.live.log.events import EventLog
from tests.live.conftest import NOW

A_TASK = EventColumns(positive="click", tasks=("click", "like"))
APART = EventColumns(positive="good", tasks=("click", "like"))
NO, YES = {"click": False}, {"click": True}

CASES = [
    ("exposure", [Event("u", EXPOSURE, "v")], False),
    ("view", [Event("u", VIEW, "v")], True),
    ("told", [Event("u", VIEW, "v", positive=True)], True),
    ("told not", [Event("u", VIEW, "v", positive=False)], False),
    ("label", [Event("u", VIEW, "v", positive=False, labels=YES)], True),
    ("label not", [Event("u", VIEW, "v", positive=True, labels=NO)], False),
    ("other label", [Event("u", VIEW, "v", labels={"like": False})], True),
    ("done", [Event("u", TASK, "v", labels={"like": True})], True),
    ("undone", [Event("u", VIEW, "v"), Event("u", TASK, "v", labels=NO)], False),
    ("shown, told", [Event("u", EXPOSURE, "v"), Event("u", VIEW, "v", positive=True)], True),
]


@pytest.mark.parametrize(
    ("events", "positive"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_a_label_decides_and_else_what_the_event_says(
    log: EventLog, tmp_path: Path, events: list[Event], positive: bool
) -> None:
    """Of a user's past, of what is counted as it comes, and of the rows for the next training."""
    log.append(events)
    (showing,) = showings(log.of_user("u"))
    came_of_it = outcome(showing, A_TASK)
    assert came_of_it is not None
    assert (came_of_it.positive, came_of_it.labels[0]) == (positive, positive)
    taken = OpenShowings(A_TASK)
    changes = [change for one in log.of_user("u") if (change := taken.take(one)) is not None]
    assert [sum(c.flags[place] for c in changes) for place in (0, 1)] == [positive, positive]
    export_training(log, str(tmp_path / "live.parquet"), A_TASK)
    assert pq.read_table(tmp_path / "live.parquet").column("click").to_pylist() == [positive]


def test_where_it_is_no_task_the_labels_say_nothing_of_it(log: EventLog) -> None:
    log.append([Event("u", VIEW, "v", time_ms=NOW, positive=True, labels={"good": False, **NO})])
    (showing,) = showings(log.of_user("u"))
    assert outcome(showing, APART) == Outcome(True, (False, False))
