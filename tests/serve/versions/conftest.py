import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.live.log.events import EventLog
from recsys.live.versions.watch import Watch
from recsys.serve.service import Service


@pytest.fixture
def bundles(two_versions: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(two_versions, tmp_path / "bundles"))


@pytest.fixture
def service(bundles: Path, tmp_path: Path) -> Iterator[Service]:
    """It looks when a test says so."""
    log = EventLog(str(tmp_path / "live.sqlite"))
    service = Service(Watch(log.database, str(bundles)), log, seed=0)
    yield service
    service.close()
