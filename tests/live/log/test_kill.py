"""kill -9 in the middle of a storm of events; the benchmark does it twenty times."""

from tests.benchmarks._storm import storm


def test_what_was_acknowledged_outlives_kill_9(address: str) -> None:
    found = storm(address, kills=3)
    assert found.kills == 3
    assert found.in_log >= found.acknowledged > 0
    assert (found.lost, found.twice, found.torn, found.missed) == (0, 0, 0, 0)
