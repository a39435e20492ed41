"""The three ways in, as the README types them, on a Ray of their own: job, endpoint, sweep."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.config.run import load_config
from recsys.demo.viewers import WorldSettings
from recsys.demo.world import make_world
from recsys.serve.app import ask_once
from recsys.serve.client import ApiError, Client
from tests.conftest import SMALL as SMALL_MODEL
from tests.nodes import quiet_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]  # each starts Ray several times

BIN = Path(sys.executable).parent
PROJECT = Path(__file__).parents[1]
PATIENCE_S = 240.0
TOKEN = "the-token-of-this-test"
SMALL = "train.epochs=1 train.refit=false prepare.partitions=2"


@pytest.fixture(scope="module")
def own_ray() -> Iterator[dict[str, str]]:
    """An environment in which Ray's commands meet a cluster of this test alone.

    Ray finds "the" local cluster through a file in its temporary folder, so another folder means
    another cluster; `ray stop` would end everybody's, so the head runs in the foreground here.
    """
    # Not pytest's folder: the path of a Unix socket has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="ray")
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"RAY_TMPDIR": folder}
    env |= {f"RECSYS_{scope}_TOKEN": TOKEN for scope in ("READ", "EVENTS", "VIDEOS")}
    names = ("port", "ray-client-server-port", "dashboard-agent-listen-port", "dashboard-port")
    ports = {name: quiet_port() for name in names}
    start = ["ray", "start", "--head", "--block", "--num-cpus=2"]
    start += [f"--{name}={port}" for name, port in ports.items()]
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_DASHBOARD_ADDRESS"):  # of `ray job`, of `serve`
        env[name] = f"http://127.0.0.1:{ports['dashboard-port']}"
    with background(start, env):
        wait_for(lambda: any(Path(folder).glob("ray/ray_current_cluster")))
        yield env
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def background(command: list[str], env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command of the environment until Ctrl-C at the end."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], env=env, stdout=output, stderr=output
        )
        try:
            yield process
            assert process.poll() is None, f"{command} ended by itself"
        except BaseException:
            output.seek(0)
            print(output.read().decode(errors="replace"))
            raise
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(happened: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if happened():
                return
        time.sleep(0.1)
    raise TimeoutError(f"not within {PATIENCE_S} s")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ways")
    make_world(folder, world=WorldSettings.tiny())
    return folder


def command(line: str, env: dict[str, str]) -> str:
    """Runs a line of the README; its output is shown when it fails."""
    program, *arguments = line.split()
    done = subprocess.run(
        [BIN / program, *arguments], env=env, cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def report(own_ray: dict[str, str], world: Path) -> dict[str, Any]:
    """Of a run that was submitted as a job."""
    job = f"ray job submit --working-dir . -- {BIN}/python -m recsys run --config {world}/run.yaml"
    # A local cluster of Ray 2.60 asks for its token.
    command(f"{job} {SMALL}", own_ray | {"RAY_AUTH_MODE": "token"})
    whole: dict[str, Any] = json.loads((world / "run" / "report.json").read_text())
    return whole


def wait_for_version(address: str, report: dict[str, Any]) -> None:
    def healthy() -> bool:
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
            return bool(json.load(answer)["version"] == report["publish"]["version"])

    wait_for(healthy)


def test_job(report: dict[str, Any]) -> None:
    assert report["evaluation"]["model"]["all"]["users"] > 0


def test_a_job_that_was_stopped_goes_on(own_ray: dict[str, str], world: Path) -> None:
    """The same command again: no stage and no epoch that is done is done once more."""
    env, run = own_ray | {"RAY_AUTH_MODE": "token"}, world / "stopped"
    settings = f"run={run} {' '.join(SMALL_MODEL)} train.epochs=16 train.patience=16"
    job = f"--working-dir . -- {BIN}/python -m recsys run --config {world}/run.yaml {settings}"
    command(f"ray job submit --no-wait --submission-id stops {job}", env)
    wait_for(lambda: any((run / "train").glob("fit-*/checkpoint_*/.metadata")))
    command("ray job stop stops", env)
    assert "was stopped" in command("ray job status stops", env)
    done = {path: path.stat().st_mtime_ns for path in run.glob("*/report.json")}
    assert {path.parent.name for path in done} == {"prepare", "decode"}
    log = command(f"ray job submit {job}", env)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert "train: epoch 16 of at most 16" in log
    assert "train: epoch 1 of at most 16" not in log


def test_a_jobs_error_is_passed_on(own_ray: dict[str, str], world: Path) -> None:
    job = f"{BIN}/ray job submit --working-dir . -- {BIN}/python -m recsys run --config"
    env = own_ray | {"RAY_AUTH_MODE": "token"}
    done = subprocess.run(
        [*job.split(), f"{world}/none.yaml"], env=env, cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert f"recsys: {world}/none.yaml: " in said
    assert "failed with exit code 2" in said


def test_a_job_that_is_too_large(own_ray: dict[str, str], tmp_path: Path) -> None:
    """Ray takes 100 MiB of a job, whatever its pages say; it names large files before that."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "large.bin").write_bytes(os.urandom(101 * 2**20))
    env = own_ray | {"RAY_AUTH_MODE": "token"}
    submit = f"ray job submit --working-dir {tmp_path} -- {BIN}/python -c pass"
    program, *arguments = submit.split()
    done = subprocess.run([BIN / program, *arguments], env=env, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Maximum request body size 104857600 exceeded" in said
    assert "models/large.bin is very large" in said
    (tmp_path / ".rayignore").write_text("models/\n")
    command(submit, env)


def test_endpoint_by_rays_command(
    own_ray: dict[str, str], world: Path, report: dict[str, Any]
) -> None:
    port = quiet_port()
    command(f"serve start --http-port={port}", own_ray)
    address = f"http://127.0.0.1:{port}"
    with background(["serve", "run", "recsys.serve.app:build", f"bundle={world}/run"], own_ray):
        wait_for_version(address, report)
        assert len(ask_once(address, k=3)["items"]) == 3
    command("serve shutdown --yes", own_ray)


def test_endpoint_by_a_serve_config(
    own_ray: dict[str, str], world: Path, report: dict[str, Any], tmp_path: Path
) -> None:
    """The file of clusters/, with the places in it that are to be changed."""
    config = yaml.safe_load((PROJECT / "clusters" / "serve.yaml").read_text())
    port = quiet_port()
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    (application,) = config["applications"]
    application["args"] |= {"bundle": f"{world}/run", "events": f"{tmp_path}/live.sqlite"}
    path, env = tmp_path / "serve.yaml", own_ray | {"RAY_AUTH_MODE": "token"}
    path.write_text(yaml.safe_dump(config))
    command(f"serve deploy {path}", env)
    address = f"http://127.0.0.1:{port}"
    wait_for_version(address, report)
    with Client(address, token=TOKEN, timeout_s=30.0, deadline_s=60.0) as client:
        assert len(client.recommend("u1", k=3)["items"]) == 3
    with Client(address) as stranger, pytest.raises(ApiError, match="send a token for read"):
        stranger.recommend("u1")
    command("serve shutdown --yes", env)
    wait_for(lambda: not is_open(port))


def is_open(port: int) -> bool:
    """Whether anything listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_endpoint_by_our_command(
    own_ray: dict[str, str], world: Path, report: dict[str, Any]
) -> None:
    port = quiet_port()
    address = f"http://127.0.0.1:{port}"
    config = ["--config", f"{world}/run.yaml", "--port", str(port)]
    with background(["recsys", "serve", *config], own_ray):
        wait_for_version(address, report)
        assert len(ask_once(address, k=3)["items"]) == 3


def test_sweep(own_ray: dict[str, str], world: Path, report: dict[str, Any]) -> None:
    config = f"--config {world}/run.yaml"
    command(f"recsys tune {config} --space tuning/spaces/quick.yaml {SMALL} tune.trials=2", own_ray)
    best = load_config(str(world / "run" / "tune" / "best.yaml"))
    assert best.data.events == str(world / "events.parquet")
