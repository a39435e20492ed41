"""Shared fixtures: a local Ray, a trained run, databases, and the real data where it is there."""

import itertools
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before anything of Ray or FBGEMM is loaded; worker processes inherit it.
from recsys.cluster import RAY_QUIET
from tests.benchmarks._postgres import find_binaries, make_database, postgres_server

for _name, _value in RAY_QUIET.items():
    os.environ.setdefault(_name, _value)
# A row that is not there is an error and not row 0.
os.environ.setdefault("FBGEMM_TBE_BOUNDS_CHECK_MODE", "0")
# As `recsys serve` sets it: a proxy of a busy machine takes longer to start than Ray waits.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")

SHARED = Path(os.environ.get("RECSYS_SHARED", Path(__file__).parents[2] / "shared"))

SMALL = (
    "prepare.partitions=3",
    "decode.frames=4",
    "decode.size=32",
    "model.dim=16",
    "model.id_dim=16",
    "model.feature_dim=4",
    "model.state_dim=16",
    "model.content.frame_dim=16",
    "model.content.dim=16",
    "train.batch_timelines=16",
    "train.epochs=2",
    "evaluate.bootstrap=20",
)
"""Settings of the trained run: a model that takes no time."""


RUN_NAME = "run [v1] #2::x"
"""Of the trained run's folder: a name is a name, whatever it would mean as a pattern or a chain."""


@dataclass(frozen=True)
class TrainedRun:
    """The tiny demo world and a run on it through all stages."""

    world: Path
    """run.yaml, events.parquet, videos.parquet, videos/ …"""
    run: Path
    settings: tuple[str, ...]
    """With which `recsys run --config WORLD/run.yaml` made it."""

    @property
    def config_path(self) -> str:
        return str(self.world / "run.yaml")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"real data is not at {SHARED}; set RECSYS_SHARED to test on it")
    return SHARED


_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    """The folder of PostgreSQL's programs."""
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed")
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL's server is not installed; apt-get install postgresql")
    return binaries


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[str]:
    """A server for all tests; without fsync, since it is never killed."""
    with postgres_server(postgres_binaries, fsync=False) as server:
        yield server.address


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty log, on each database in turn."""
    if request.param == "sqlite":
        return str(tmp_path / "log" / "live.sqlite")
    return make_database(request.getfixturevalue("postgres"), f"test_{next(_numbers)}")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server of our own."""
    server = pytest.importorskip("moto.server", reason="the S3 test server is not installed")
    pytest.importorskip("s3fs", reason="s3fs, which reads s3://, is not installed")
    made = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def s3_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 bucket that holds nothing, as `s3://…`."""
    import s3fs

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",  # Lance
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{uuid.uuid4().hex}"
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo world in its smallest size; tests do not change it."""
    from recsys.demo.viewers import WorldSettings
    from recsys.demo.world import make_world

    folder = tmp_path_factory.mktemp("world")
    make_world(folder, world=WorldSettings.tiny())
    return folder


@pytest.fixture(scope="session")
def trained_run(
    ray_local: None, tiny_world: Path, tmp_path_factory: pytest.TempPathFactory
) -> TrainedRun:
    """Trained once for all tests that need a trained run; they do not change it."""
    from recsys.cli import main

    run = tmp_path_factory.mktemp("trained") / RUN_NAME
    settings = (f"run={run}", *SMALL)
    assert main(["run", "--config", str(tiny_world / "run.yaml"), *settings]) == 0
    return TrainedRun(tiny_world, run, settings)
