from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.live.log.events import EventLog
from recsys.serve import follower
from recsys.serve.api import make_api
from recsys.serve.service import Service
from tests.bundles import TinyRun, make_run, make_versions
from tests.serve.live import Served


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def all_in_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server does a little at a time, or once in a while, is done with each look."""
    monkeypatch.setattr(follower, "ANEW_S", 60.0)
    monkeypatch.setattr(follower, "FOLLOWED_EVERY_S", 0.0)


@pytest.fixture(scope="session")
def uris(tmp_path_factory: pytest.TempPathFactory) -> list[str | None]:
    """Of videos v1 to v3: a file that is one by its name, one that is none, one elsewhere.

    Beside the first two are captions.
    """
    folder: Path = tmp_path_factory.mktemp("files")
    clip, text = folder / "one.mp4", folder / "two.txt"
    clip.write_bytes(bytes(range(200)))
    text.write_text("secret")
    for name in ("one", "two"):
        (folder / f"{name}.vtt").write_text("WEBVTT")
    return [str(clip), str(text), "s3://bucket/three.mp4"]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, uris: list[str | None]) -> TinyRun:
    """A run with a bundle; videos v1 and v2 have files."""
    return make_run(tmp_path_factory.mktemp("tiny") / "run", uris=uris)


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory, uris: list[str | None]) -> Path:
    """A bundles folder with two versions of other weights; CURRENT names the old one."""
    return make_versions(tmp_path_factory.mktemp("two"), uris)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        yield log


@pytest.fixture
def served(tiny: TinyRun, log: EventLog) -> Served:
    """A recommender of its own for each test, since live events change it."""
    return Served(Bundle.load(str(tiny.run)), log)


@pytest.fixture
def served_run(tiny: TinyRun) -> TinyRun:
    """Of `service`, which a file may define anew."""
    return tiny


@pytest.fixture
def service(served_run: TinyRun, tmp_path: Path) -> Iterator[Service]:
    service = Service(
        Bundle.load(str(served_run.run)), EventLog(str(tmp_path / "live.sqlite")), seed=0
    )
    yield service
    service.close()


@pytest.fixture
def client(service: Service) -> TestClient:
    """Of `service`, which a file may define anew."""
    return TestClient(make_api(service))
