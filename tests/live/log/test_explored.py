"""The record of what was explored, on each database."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Connection

from recsys.errors import InputError
from recsys.live.export.parquet import export_log, import_log
from recsys.live.log.event import EXPOSURE, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.log.explored import Explored, ExploredVideos
from tests.live.conftest import NOW, Clock

ONE = Explored("i1", "v1", "u1", NOW - 500, 0.25)
TWO = Explored("i1", "v2", "u1", NOW - 500, 0.5)
OTHER = Explored("i2", "v1", "u2", NOW - 200, 0.125)


@pytest.fixture
def explored(log: EventLog) -> ExploredVideos:
    return ExploredVideos(log.database)


def test_what_is_recorded_is_read_by_its_impression(explored: ExploredVideos) -> None:
    assert explored.add([]) == 0
    assert explored.add([ONE, TWO]) == 2
    assert explored.add([ONE, OTHER]) == 1  # a retry changes nothing
    assert explored.propensities(["i1", None, "i9"]) == {("i1", "v1"): 0.25, ("i1", "v2"): 0.5}
    assert explored.propensities([]) == {}


def test_who_is_forgotten_is_forgotten_here_too(explored: ExploredVideos, log: EventLog) -> None:
    explored.add([ONE, OTHER])
    log.forget("u1")
    assert explored.propensities(["i1", "i2"]) == {("i2", "v1"): 0.125}
    assert explored.add([TWO]) == 0  # it was on its way when they were forgotten
    assert explored.add([Explored("i3", "v1", "u1", NOW + 1, 0.5)]) == 1


def test_a_prune_takes_the_old_ones(explored: ExploredVideos, log: EventLog) -> None:
    explored.add([ONE, OTHER])
    log.prune(NOW - 300)
    assert explored.propensities(["i1", "i2"]) == {("i2", "v1"): 0.125}


def test_a_prune_takes_them_in_batches(
    explored: ExploredVideos, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else writers would wait for all of them, and beyond the limit of a transaction none go."""
    old = [replace(ONE, video_id=f"v{n}", time_ms=NOW - 500 + n) for n in range(5)]
    explored.add([*old, OTHER])
    writing, left = log.database.writing, []

    @contextlib.contextmanager
    def noted() -> Iterator[Connection]:
        with writing() as connection:
            yield connection
        left.append(len(explored.propensities(["i1"])))

    monkeypatch.setattr(log.database, "writing", noted)
    log.prune(NOW - 300, batch=2)
    assert left == [3, 1, 0]
    assert explored.propensities(["i2"]) == {("i2", "v1"): 0.125}


def test_it_goes_out_with_the_exposure_and_in_again(
    explored: ExploredVideos, log: EventLog, clock: Clock, tmp_path: Path
) -> None:
    shown = {"impression_id": "i1", "time_ms": NOW - 400}
    log.append([Event("u1", EXPOSURE, "v1", **shown), Event("u1", VIEW, "v1", **shown)])
    log.append([Event("u1", EXPOSURE, "v3", **shown)])
    explored.add([ONE, TWO])
    export_log(log, str(tmp_path / "out"))
    (part,) = (tmp_path / "out").iterdir()
    assert pq.read_table(part).column("propensity").to_pylist() == [0.25, None, None]
    with EventLog(str(tmp_path / "other.sqlite"), clock=clock) as other:
        imported = import_log(other, str(tmp_path / "out"))
        assert (imported.statuses, imported.ignored) == ({"accepted": 3}, [])
        there = ExploredVideos(other.database)
        assert there.propensities(["i1"]) == {("i1", "v1"): 0.25}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"propensity": [0.0]}, "propensity=0.0: must be above 0"),
        ({"propensity": [1.5]}, "at most 1"),
        ({"propensity": [0.5], "impression_id": [None]}, "needs an impression_id"),
    ],
)
def test_wrong_propensities_are_refused(
    log: EventLog, tmp_path: Path, more: dict[str, list[object]], said: str
) -> None:
    row = {"user_id": ["u1"], "video_id": ["v1"], "type": ["exposure"], "time_ms": [NOW]}
    pq.write_table(pa.table({**row, "impression_id": ["i"], **more}), tmp_path / "x.parquet")
    with pytest.raises(InputError, match=said):
        import_log(log, str(tmp_path / "x.parquet"))
