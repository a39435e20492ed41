"""`serve run recsys.serve.app:build bundle=…`, as the README types it, on a Ray of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.serve.app import ask_once, free_port
from tests.bundles import TinyRun

pytestmark = pytest.mark.ray

BIN = Path(sys.executable).parent
PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def own_ray() -> Iterator[dict[str, str]]:
    """An environment in which Ray's commands meet a cluster of this test alone.

    Ray finds "the" local cluster through a file in its temporary folder, so another folder means
    another cluster; `ray stop` would end everybody's, so the head runs in the foreground here.
    """
    # Not pytest's folder: the path of a Unix socket has at most 107 characters.
    folder = tempfile.mkdtemp(prefix="ray")
    env = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | {"RAY_TMPDIR": folder}
    start = ["ray", "start", "--head", "--block", "--num-cpus=2", "--include-dashboard=false"]
    ports = [
        f"--{name}={free_port('127.0.0.1', 0)}"
        for name in ("port", "ray-client-server-port", "dashboard-agent-listen-port")
    ]
    with background([*start, *ports], env):
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


def test_serve_run(own_ray: dict[str, str], tiny: TinyRun) -> None:
    port = free_port("127.0.0.1", 0)
    subprocess.run(
        [BIN / "serve", "start", f"--http-port={port}"],
        env=own_ray,
        check=True,
        capture_output=True,
    )
    address = f"http://127.0.0.1:{port}"

    def healthy() -> bool:
        with urllib.request.urlopen(f"{address}/healthz", timeout=10) as answer:
            return bool(json.load(answer)["version"] == tiny.version)

    with background(["serve", "run", "recsys.serve.app:build", f"bundle={tiny.run}"], own_ray):
        wait_for(healthy)
        assert len(ask_once(address, k=3)["items"]) == 3
