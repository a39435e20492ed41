from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recsys.bundle.contents import Bundle
from recsys.live.events import EventLog
from tests.bundles import TinyRun, make_run, make_versions
from tests.serve.live import Served


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """A run with a bundle; videos v1 and v2 have files: a real one by name, and one that is no
    video."""
    folder: Path = tmp_path_factory.mktemp("tiny")
    clip, text = folder / "one.mp4", folder / "two.txt"
    clip.write_bytes(bytes(range(200)))
    text.write_text("secret")
    return make_run(folder / "run", uris=[str(clip), str(text), "s3://bucket/three.mp4"])


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundles folder with two versions of other weights; CURRENT names the old one."""
    return make_versions(tmp_path_factory.mktemp("two"))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        yield log


@pytest.fixture
def served(tiny: TinyRun, log: EventLog) -> Served:
    """A recommender of its own for each test, since live events change it."""
    return Served(Bundle.load(str(tiny.run)), log)
