"""One replica on Ray Serve: a bundle and the event log, and the HTTP application before them."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from dataclasses import dataclass, replace
from typing import Any

import torch
from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from recsys.bundle.versions import MANIFEST, find_bundle
from recsys.config.run import ServeConfig
from recsys.data.storage import exists, is_uri, join
from recsys.errors import InputError
from recsys.live.log.events import EventLog
from recsys.live.versions.watch import Watch
from recsys.serve.api import make_api
from recsys.serve.http.tokens import Tokens, is_loopback
from recsys.serve.metrics import Metrics
from recsys.serve.priority import hand_over_soon, spare_what_stays
from recsys.serve.ray_metrics import RayMetrics
from recsys.serve.service import Service

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
        EventLog(address).close()
        return cls(address, _machine())

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
        return EventLog(self.address, create=False)


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
        metrics = Metrics(serve.get_replica_context().replica_id.unique_id)
        log = events.open()
        watch = Watch(log.database, source.bundles_dir, pinned=source.pinned)
        self._service = Service(watch, log, settings=settings, metrics=metrics)
        assert self._service.versions is not None
        self._service.versions.start(settings.watch_s, after_drop=spare_what_stays)
        self._tokens = replace(tokens, local=is_loopback(_listening_host()))
        threading.Thread(target=_report, args=(RayMetrics(metrics),), daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the replica is made."""
        app = make_api(self._service, tokens=self._tokens, gives_id=False)
        spare_what_stays()
        return app

    def __del__(self) -> None:
        """Called by Serve when the replica stops: what was handed in is committed."""
        service = getattr(self, "_service", None)
        if service is not None:
            service.close()


def _report(metrics: RayMetrics) -> None:
    wait = threading.Event()
    while not wait.wait(REPORT_S):
        metrics.report()


def _machine() -> str:
    """Names this machine as long as it runs."""
    return f"{uuid.getnode():x} {socket.gethostname()}"


def _listening_host() -> str:
    """Where Serve listens, which decides whether changes need a token."""
    # Serve tells a replica nowhere else.
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    return "0.0.0.0" if client is None else client.http_config.host or "127.0.0.1"
