"""A cluster that is gone, or something else in its place: one line, within seconds."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import pytest

import recsys.ray_address
from recsys.errors import InputError
from recsys.ray_address import joining, require_answer
from tests.inputs import write_input


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No Ray of this machine is found; returns the file that `ray start` would write."""
    from ray._private import services

    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    return tmp_path / "ray" / "ray_current_cluster"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a web server."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def grpc_server() -> Iterator[int]:
    """The port of a gRPC server that knows no health check, as that of `ray://` is."""
    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield port
    server.stop(None)


def refused(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError) as error:
        require_answer()
    message = str(error.value)
    assert "\n" not in message
    assert "start the cluster, set RAY_ADDRESS to one that runs" in message and "local" in message
    return message


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    address = f"{scheme}127.0.0.1:{free_port()}"
    assert f"RAY_ADDRESS={address}: nothing listens there (" in refused(monkeypatch, address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_something_else_answers(monkeypatch: pytest.MonkeyPatch, web: int, scheme: str) -> None:
    assert "what listens there is not Ray" in refused(monkeypatch, f"{scheme}127.0.0.1:{web}")


def test_something_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recsys.ray_address, "ANSWER_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert "what listens there is not Ray" in refused(monkeypatch, address)


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, "no-such-host.invalid:6379")
    assert "the name 'no-such-host.invalid' is not known" in message


@pytest.mark.parametrize("host", ["head..cluster", "a" * 64])
def test_what_can_be_no_name(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Python looks up neither: it finds an empty part, or one of more than 63 characters."""
    message = refused(monkeypatch, f"{host}:6379")
    assert f"RAY_ADDRESS={host}:6379: {host!r} can be no name of a host" in message


def test_spaces_around_an_address_are_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray reads the variable too."""
    monkeypatch.setenv("RAY_ADDRESS", " \n")
    assert require_answer() is None
    assert os.environ["RAY_ADDRESS"] == ""
    port = free_port()
    assert f"=127.0.0.1:{port}: nothing listens" in refused(monkeypatch, f" 127.0.0.1:{port} ")
    assert os.environ["RAY_ADDRESS"] == f"127.0.0.1:{port}"


def test_a_silent_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    monkeypatch.setattr(recsys.ray_address, "ANSWER_S", 0.3)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: answered.wait())
    assert "looking up the name 'slow' took more than" in refused(monkeypatch, "slow:6379")
    answered.set()


def test_a_machine_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object, timeout: float) -> None:
        assert timeout < 1
        raise TimeoutError

    monkeypatch.setattr(recsys.ray_address, "ANSWER_S", 0.3)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert "nothing answers there within" in refused(monkeypatch, "127.0.0.1:6379")


def test_a_dashboards_address(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refused(monkeypatch, "http://127.0.0.1:8265")
    assert "address of a dashboard, which takes `ray job submit`" in message


@pytest.mark.parametrize("address", ["nonsense", "host:", ":6379", "host:port", "host:99999"])
def test_what_is_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    assert f"RAY_ADDRESS={address}: no address of a cluster" in refused(monkeypatch, address)


def test_auto_without_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "RAY_ADDRESS=auto: no Ray runs on this machine" in refused(monkeypatch, "auto")


@pytest.mark.parametrize("address", ["auto", ""])
def test_the_file_of_a_dead_cluster(
    monkeypatch: pytest.MonkeyPatch, no_cluster: Path, address: str
) -> None:
    no_cluster.write_text(f"127.0.0.1:{free_port()}")
    message = refused(monkeypatch, address)
    assert f"which {no_cluster} names (`ray stop` removes that file): nothing listens" in message


def test_a_file_that_names_no_cluster(monkeypatch: pytest.MonkeyPatch, no_cluster: Path) -> None:
    no_cluster.write_text("nonsense")
    assert f"{no_cluster}: it names no address of a cluster" in refused(monkeypatch, "auto")


def test_without_any_address_a_local_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert require_answer() is None
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert require_answer() is None


def test_what_answers_as_ray_does_may_be_joined(
    monkeypatch: pytest.MonkeyPatch, grpc_server: int
) -> None:
    for address in (f"127.0.0.1:{grpc_server}", f"ray://127.0.0.1:{grpc_server}"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert require_answer() == f"RAY_ADDRESS={address}"


@pytest.mark.ray
def test_a_ray_that_runs_may_be_joined(ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    address = ray.get_runtime_context().gcs_address
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert require_answer() == f"RAY_ADDRESS={address}"


def test_a_cluster_that_does_not_take_us_in_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with monkeypatch.context() as patched:
        patched.setattr(recsys.ray_address, "JOIN_S", 0.05)
        with pytest.raises(InputError, match="RAY_ADDRESS=h:1: joining the cluster failed: it to"):
            with joining("RAY_ADDRESS=h:1"):
                time.sleep(30)
    assert signal.getsignal(signal.SIGALRM) == before
    with pytest.raises(InputError, match="joining the cluster failed: This node is none; start"):
        with joining("RAY_ADDRESS=h:1"):
            raise RuntimeError("This node\nis none")
    with pytest.raises(RuntimeError, match="Ray did not start: no room"), joining(None):
        raise ValueError("no room")


@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_command_says_it_and_exits(tmp_path: Path, command: str) -> None:
    path = write_input(tmp_path)
    arguments = {
        "run": ["--config", str(path)],
        "demo": ["--out", str(tmp_path / "demo")],
    }[command]
    done = subprocess.run(
        [sys.executable, "-m", "recsys", command, *arguments],
        env={**os.environ, "RAY_ADDRESS": f"127.0.0.1:{free_port()}"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("recsys: RAY_ADDRESS=127.0.0.1:")
    assert done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "demo").exists()
