"""kill -9 of all servers and their database in a storm of events; the benchmark does it often."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.benchmarks._postgres import PostgresServer, make_database, postgres_server
from tests.benchmarks._server_storm import server_storm
from tests.bundles import TinyRun


@pytest.fixture(params=["sqlite", "postgresql"])
def killable(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[str, PostgresServer | None]]:
    """An empty log's address, and the server that can be killed, with fsync."""
    if request.param == "sqlite":
        yield str(tmp_path / "live.sqlite"), None
        return
    with postgres_server(request.getfixturevalue("postgres_binaries"), fsync=True) as server:
        yield make_database(server.address, "live"), server


def test_what_was_acknowledged_outlives_kill_9_of_everything(
    tiny: TinyRun, killable: tuple[str, PostgresServer | None]
) -> None:
    address, database = killable
    result = server_storm(str(tiny.run), address, kills=2, database=database, most_calls=60)
    assert result.kills == 2
    assert result.in_log >= result.acknowledged > 0
    assert (result.lost, result.twice, result.torn, result.counts) == (0, 0, 0, 0)
