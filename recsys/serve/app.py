"""The endpoint on Ray Serve: `serve run recsys.serve.app:build bundle=RUN`, or `recsys serve`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import signal
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import ray
import torch
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve
from ray.serve.schema import LoggingConfig

from recsys.bundle.contents import Bundle, read_config
from recsys.bundle.versions import find_bundle
from recsys.cluster import connect, num_cpus
from recsys.data.storage import is_uri
from recsys.errors import InputError
from recsys.live.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.metrics import Metrics
from recsys.serve.service import Service, log_address

logger = logging.getLogger(__name__)

APP_NAME = "recsys"
REQUESTS_AT_A_TIME = 64
"""Requests that a replica takes in before others wait in the proxy."""
QUIET = LoggingConfig(log_level="ERROR", enable_access_log=False)


class BuildArgs(BaseModel):
    """What `serve run recsys.serve.app:build key=value …` or a Serve config file may give."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    bundle: str
    """A run folder, its `bundles` folder or one version's; a path or URI."""
    replicas: int | None = Field(None, ge=1)
    """Processes that answer, each with one CPU; without it the bundle's `serve.replicas`."""


class Endpoint:
    """One replica: a bundle in memory and the HTTP application before it."""

    def __init__(self, bundle: str, events: str) -> None:
        # One thread runs the model; replicas run side by side.
        torch.set_num_threads(1)
        log = EventLog(events, create=False)
        replica = serve.get_replica_context().replica_id.unique_id
        self._service = Service(Bundle.load(bundle), log, metrics=Metrics(replica))

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the replica is made."""
        return make_api(self._service, gives_id=False)


def build(args: dict[str, Any] | BuildArgs) -> serve.Application:
    """The Serve application of a bundle.

    The version is chosen here, so that all replicas serve the same one.

    Args:
        args: The fields of `BuildArgs`.

    Raises:
        InputError: An argument is wrong or there is no bundle.
    """
    try:
        wanted = BuildArgs.model_validate(args)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{name}: {first['msg'].lower()}; give bundle=PATH and perhaps replicas=N"
        ) from None
    folder = find_bundle(wanted.bundle)
    if not is_uri(folder):
        folder = os.path.abspath(folder)
    config = read_config(folder)
    replicas = wanted.replicas or config.serve.replicas
    events = log_address(folder, config.serve.events)
    EventLog(events).close()  # made here, so that a replica elsewhere does not begin one of its own
    deployment = serve.deployment(
        serve.ingress()(Endpoint),
        name=Endpoint.__name__,
        num_replicas=replicas,
        max_ongoing_requests=REQUESTS_AT_A_TIME,
        logging_config=QUIET,
    )
    return deployment.bind(folder, events)


@contextlib.contextmanager
def running(
    bundle: str, *, host: str = "127.0.0.1", port: int = 8000, replicas: int | None = None
) -> Iterator[str]:
    """Serves a bundle as long as the context lasts; gives the address.

    Args:
        bundle: As in `BuildArgs`.
        host: Address to listen on; 0.0.0.0 is all of them.
        port: 0 takes any free one.
        replicas: As in `BuildArgs`.

    Raises:
        InputError: The bundle is wrong, the port is taken, the cluster is too small.
    """
    app = build({"bundle": bundle, "replicas": replicas})
    port = free_port(host, port)
    ours = not ray.is_initialized()
    connect()
    try:
        _require_cpus(replicas or read_config(find_bundle(bundle)).serve.replicas)
        _require_no_serve()
        try:
            _deploy(app, host, port)
            yield address_of(host, port)
        finally:
            _quietly(serve.shutdown)
    finally:
        if ours:
            _quietly(ray.shutdown)


def serve_forever(
    bundle: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: int | None = None,
    announce: Callable[[str], None],
) -> None:
    """Serves a bundle until Ctrl-C or SIGTERM.

    Args:
        bundle: As in `BuildArgs`.
        host: As in `running`.
        port: As in `running`.
        replicas: As in `BuildArgs`.
        announce: Called with the address once requests are answered.

    Raises:
        InputError: As `running` does.
    """
    with running(bundle, host=host, port=port, replicas=replicas) as address:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        announce(address)
        stop.wait()


def ask_once(address: str, *, k: int = 10) -> dict[str, Any]:
    """Asks a running endpoint for one known user's recommendations, through HTTP."""
    with urllib.request.urlopen(f"{address}/v1/users?limit=1", timeout=30) as answer:
        user_ids = json.load(answer)["user_ids"] or ["nobody"]
    request = urllib.request.Request(
        f"{address}/v1/recommend",
        data=json.dumps({"user_id": user_ids[0], "k": k}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        recommended: dict[str, Any] = json.load(answer)
    return recommended


def free_port(host: str, port: int) -> int:
    """The port itself, or any free one for 0.

    Raises:
        InputError: It is taken, or the host is not this machine's.
    """
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise InputError(
            f"{host}:{port}: cannot listen there ({error.strerror}); "
            "choose another with serve.port=… or --port, 0 for any free one"
        ) from None


def address_of(host: str, port: int) -> str:
    """Where a browser on this machine finds the server.

    >>> address_of("0.0.0.0", 8000)
    'http://127.0.0.1:8000'
    """
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{shown}:{port}"


def _require_cpus(replicas: int) -> None:
    there = num_cpus()
    if replicas > there:
        raise InputError(
            f"serve.replicas={replicas}: each takes one CPU and the cluster has {there}; "
            f"set serve.replicas to at most {there} or add nodes"
        )
    free = int(ray.available_resources().get("CPU", 0))
    if replicas > free:
        logger.warning("serving needs %d CPUs and %d are free: waiting for them", replicas, free)


def _require_no_serve() -> None:
    """There is one Serve a cluster, and it listens at one address; ours would end the others'."""
    status = serve.status()
    if status.proxies or status.applications:
        raise InputError(
            "Ray Serve already runs on this cluster; add the bundle to it with `serve deploy` or "
            "`serve run recsys.serve.app:build bundle=…`, or end it with `serve shutdown`"
        )


def _quietly(stop: Callable[[], None]) -> None:
    """Serve's controller kills itself when it is told to stop, and Ray prints that as a failure."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        stop()


def _deploy(app: serve.Application, host: str, port: int) -> None:
    """Starts Serve and waits until the application runs."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    serve.start(http_options={"host": host, "port": port}, logging_config=QUIET)
    try:
        serve.run(app, name=APP_NAME, route_prefix="/")
    except RuntimeError:
        reason = _input_error_of_replica()
        if reason is None:
            raise
        raise InputError(reason) from None


def _input_error_of_replica() -> str | None:
    """What was wrong with the input of a replica that did not start; Serve keeps its traceback."""
    application = serve.status().applications[APP_NAME]
    texts = [application.message, *(d.message for d in application.deployments.values())]
    match = re.search(r"InputError: (.+)", "\n".join(texts))
    return match.group(1) if match else None
