"""kill -9 in the middle of a storm of events; the benchmark does it twenty times."""

from tests.benchmarks._storm import storm


def test_what_was_acknowledged_outlives_kill_9(address: str) -> None:
    result = storm(address, kills=3)
    assert result.kills == 3
    assert result.in_log >= result.acknowledged > 0
    assert (result.lost, result.twice, result.torn, result.missed) == (0, 0, 0, 0)
