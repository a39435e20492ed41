"""A real cluster of several nodes on this machine, any of which can be killed as a machine dies."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ray._raylet import GcsClient

from recsys.errors import InputError
from recsys.serve.app import free_port
from recsys.serve.ingress import node_variables

BIN = Path(sys.executable).parent
PROJECT = Path(__file__).parents[1]
PATIENCE_S = 120.0


def wait_for(happened: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.02)


@dataclass
class Nodes:
    """A head and its worker nodes, each with an address and a temporary folder of its own."""

    port: int
    folder: Path
    env: dict[str, str]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        number = len(self.running) + 1
        folder = self.folder / str(number)
        folder.mkdir()
        # The proxies of nodes on one machine cannot all listen where the head's does.
        port = str(quiet_port())
        own = node_variables(str(folder)) | {"RAY_SERVE_WORKER_PROXY_HTTP_PORT": port}
        # Ray's processes lie below this one; the address tells nodes of one machine apart.
        start = [BIN / "ray", "start", "--block", f"--node-ip-address={self.address_of(number)}"]
        with open(folder / "log", "wb") as log:
            node = subprocess.Popen(
                [*map(str, start), *arguments],
                env=self.env | own | {"RAY_TMPDIR": str(folder)},
                stdout=log,
                stderr=log,
            )
        self.running.append(node)
        return node

    @staticmethod
    def address_of(number: int) -> str:
        """That of the first, second … node."""
        return f"127.0.0.{number}"

    def kill_workers(self) -> None:
        """All nodes but the head, those that are dead already among them."""
        for node in self.running[1:]:
            kill(node)

    def add(self, cpus: int) -> subprocess.Popen[bytes]:
        """Another node, once it has joined: of two that start at once one may fail."""
        # Of nodes on one machine, each agent needs a port of its own.
        agent = f"--dashboard-agent-listen-port={quiet_port()}"
        node = self.start(f"--address={self.address}", f"--num-cpus={cpus}", agent)
        wait_for(lambda: node.poll() is not None or self.id_of(node) is not None, "the node")
        assert node.poll() is None, (self.folder / str(len(self.running)) / "log").read_text()
        return node

    def id_of(self, node: subprocess.Popen[bytes]) -> str | None:
        """Ray's id of a node; None before it has joined."""
        address = self.address_of(self.running.index(node) + 1)
        for node_id, info in GcsClient(address=self.address).get_all_node_info().items():
            if info.node_manager_address == address:
                return str(node_id.hex())
        return None

    def announce_end(self, node: subprocess.Popen[bytes], within_s: int) -> None:
        """Tells Ray that a node will go, as a cloud's agent does for a spot machine."""
        reason = ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot"]
        asked = [f"--node-id={self.id_of(node)}", f"--deadline-remaining-seconds={within_s}"]
        command = [str(BIN / "ray"), "drain-node", f"--address={self.address}", *asked, *reason]
        subprocess.run(command, env=self.driver_env, check=True)

    @property
    def driver_env(self) -> dict[str, str]:
        return self.env | {"RAY_ADDRESS": self.address, "RAY_TMPDIR": str(self.folder / "1")}


_PORTS = iter(random.sample(range(20_000, 32_000), 12_000))


def quiet_port() -> int:
    """A free port that nobody is given before it is used: the system and Ray hand out others."""
    for port in _PORTS:
        with contextlib.suppress(InputError):
            return free_port("127.0.0.1", port)
    raise AssertionError("no port is left that is free")


def kill(node: subprocess.Popen[bytes]) -> None:
    """As a machine that loses its power: all processes of the node, at once."""
    if node.poll() is not None:
        return  # its number may be another process's by now
    for process in processes_of(node):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    node.wait(10)


def processes_of(node: subprocess.Popen[bytes]) -> list[int]:
    """The node's own process, and all below it."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # pid (name) state parent …, and the name may hold anything.
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(status.parent.name))
    pids = [node.pid]
    for process in pids:
        pids += children.get(process, [])
    return pids


def works_on(node: subprocess.Popen[bytes], name: str) -> bool:
    """Whether a worker of the node is at a task or actor of this name."""
    return num_workers(node, name) > 0


def num_workers(node: subprocess.Popen[bytes], name: str) -> int:
    """Workers of the node that are at a task or actor of this name: their titles say so."""
    count = 0
    for process in processes_of(node):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
            count += title.startswith("ray::") and name in title
    return count


@contextlib.contextmanager
def cluster() -> Iterator[Nodes]:
    """A head without CPUs, so that all work is on its workers, which are missed within seconds."""
    # Not pytest's folder: the path of a Unix socket has at most 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    env = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_TMPDIR")}
    env |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}
    # Of a busy machine: Serve kills a proxy that is not ready after 5 s.
    env |= {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60"}
    names = ("port", "ray-client-server-port", "dashboard-agent-listen-port")
    ports = {name: quiet_port() for name in names}
    nodes = Nodes(ports["port"], folder, env | {"RAY_AUTH_MODE": "disabled"})
    try:
        nodes.start(
            "--head",
            "--num-cpus=0",
            "--include-dashboard=false",
            *(f"--{name}={port}" for name, port in ports.items()),
        )
        wait_for(lambda: any((folder / "1").glob("ray/ray_current_cluster")), "the head")
        yield nodes
    finally:
        for node in reversed(nodes.running):
            kill(node)
        shutil.rmtree(folder, ignore_errors=True)
