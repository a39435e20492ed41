"""One replica on Ray Serve: a bundle and the event log, and the HTTP application before them."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from recsys.bundle.versions import MANIFEST, find_bundle
from recsys.config.run import ServeConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import exists, is_uri, join
from recsys.errors import InputError
from recsys.live.log.events import EventLog
from recsys.live.store.database import READ_LIMIT_S
from recsys.live.versions.watch import Watch
from recsys.serve.api import make_api
from recsys.serve.http.tokens import Tokens, is_loopback
from recsys.serve.memory import give_back
from recsys.serve.metrics import Metrics
from recsys.serve.priority import hand_over_soon, spare_what_stays
from recsys.serve.ray_metrics import RayMetrics
from recsys.serve.service import Service

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Linux's own name of a machine. The address of its network card is none where it has no card: then
each process draws a number in its place."""
REPORT_S = 10.0
"""How often a replica's figures go to Ray's own export."""


@dataclass(frozen=True)
class Source:
    """Where the bundle comes from that is served."""

    folder: str
    """Of the version that serves as the application is built."""
    pinned: str | None
    """That version's name, where its own folder was given: it stays, whatever is published."""

    @classmethod
    def of(cls, path: str) -> Source:
        """What a path leads to: a run folder, its `bundles` folder or one version's.

        Raises:
            InputError: No bundle is there.
        """
        path = path if is_uri(path) else os.path.abspath(path)
        folder = find_bundle(path)
        pinned = os.path.basename(folder.rstrip("/")) if exists(join(path, MANIFEST)) else None
        return cls(folder, pinned)

    @property
    def bundles_dir(self) -> str:
        """The folder of all versions."""
        return os.path.dirname(self.folder.rstrip("/"))


@dataclass(frozen=True)
class EventsHere:
    """The event log of an application, and the machine that it was made on."""

    address: str
    machine: str

    @classmethod
    def make(cls, address: str) -> EventsHere:
        """Makes the log where there is none, before any replica could begin one of its own.

        Raises:
            InputError: It cannot be opened.
        """
        with EventLog(address, read_limit_s=READ_LIMIT_S) as log:
            # Replicas work in another folder, from which a relative path would be another file.
            path = log.database.shown if log.database.kind == "sqlite" else address
        return cls(path, _machine())

    def open(self) -> EventLog:
        """The log for a replica.

        Raises:
            InputError: It is a file of another machine.
        """
        if not self.address.startswith("postgres") and _machine() != self.machine:
            raise InputError(
                f"serve.events={self.address}: SQLite serves the replicas of one machine, and this "
                "one runs on another; set serve.events=postgresql://USER@HOST/NAME"
            )
        return EventLog(self.address, create=False, read_limit_s=READ_LIMIT_S)


def log_address(bundle_folder: str, events: str | None) -> str:
    """Where the event log of a bundle is: as set, or beside the run's other results.

    Args:
        bundle_folder: Of one version, `RUN/bundles/<version>`.
        events: `serve.events`.

    Raises:
        InputError: The run is not on this machine's disk and no address is set.
    """
    if events is not None:
        return events
    if is_uri(bundle_folder):
        raise InputError(
            f"serve.events: {bundle_folder} is not on this machine's disk, so the events need an "
            "address of their own; set serve.events to a local path or postgresql://USER@HOST/NAME"
        )
    bundles = os.path.dirname(os.path.abspath(bundle_folder))
    run = os.path.dirname(bundles) if os.path.basename(bundles) == "bundles" else bundles
    return RunFolder(run).live_log


class Endpoint:
    """One replica.

    Args:
        source: Where the versions are.
        settings: That they are served with, in place of the bundle's.
        events: The event log.
        tokens: Who may do what, as it was read where the application was built.
        encoders: What encodes videos that are handed in. It is bound here so that Serve starts it;
            nobody calls it, for it follows the table of videos.
    """

    def __init__(
        self,
        source: Source,
        settings: ServeConfig,
        events: EventsHere,
        tokens: Tokens,
        encoders: DeploymentHandle[Any] | None = None,
    ) -> None:
        # One thread runs the model; replicas run side by side.
        torch.set_num_threads(1)
        hand_over_soon()
        give_back()
        metrics = Metrics(serve.get_replica_context().replica_id.unique_id)
        log = events.open()
        watch = Watch(log.database, source.bundles_dir, pinned=source.pinned)
        self._service = Service(watch, log, settings=settings, metrics=metrics)
        assert self._service.versions is not None
        self._service.versions.start(settings.watch_s, after_drop=spare_what_stays)
        host, port = _listening()
        self._tokens = replace(tokens, local=is_loopback(host))
        self._address = address_of(host, port)
        threading.Thread(target=_report, args=(RayMetrics(metrics),), daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the replica is made."""
        tokens, address = self._tokens, self._address
        app = make_api(self._service, tokens=tokens, gives_id=False, address=address)
        spare_what_stays()
        return app

    def __del__(self) -> None:
        """Called by Serve when the replica stops: what was handed in is committed."""
        service = getattr(self, "_service", None)
        if service is not None:
            service.close()


def address_of(host: str, port: int) -> str:
    """Where a browser on this machine finds the server.

    >>> address_of("0.0.0.0", 8000)
    'http://127.0.0.1:8000'
    """
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    return f"http://{shown}:{port}"


def _report(metrics: RayMetrics) -> None:
    wait = threading.Event()
    while not wait.wait(REPORT_S):
        metrics.report()


def _machine() -> str:
    """Names this machine as long as it runs."""
    try:
        booted = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux
        booted = f"{uuid.getnode():x}"
    return f"{booted} {socket.gethostname()}"


def _listening() -> tuple[str, int]:
    """Where Serve listens: the host decides whether changes need a token."""
    # Serve tells a replica nowhere else.
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    if client is None:
        return "0.0.0.0", 8000
    return client.http_config.host or "127.0.0.1", client.http_config.port
