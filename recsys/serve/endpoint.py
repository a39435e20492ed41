"""One replica on Ray Serve: a bundle and the event log, and the HTTP application before them."""

from __future__ import annotations

import socket
import threading
import uuid
from dataclasses import dataclass, replace

import torch
from fastapi import FastAPI
from ray import serve

from recsys.bundle.contents import Bundle
from recsys.config.run import ServeConfig
from recsys.errors import InputError
from recsys.live.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.metrics import Metrics
from recsys.serve.ray_metrics import RayMetrics
from recsys.serve.service import Service
from recsys.serve.tokens import Tokens, is_loopback

REPORT_S = 10.0
"""How often a replica's figures go to Ray's own export."""


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
        folder: Of the bundle's version.
        settings: That it is served with, in place of the bundle's.
        events: The event log.
        tokens: Who may do what, as it was read where the application was built.
    """

    def __init__(
        self, folder: str, settings: ServeConfig, events: EventsHere, tokens: Tokens
    ) -> None:
        # One thread runs the model; replicas run side by side.
        torch.set_num_threads(1)
        bundle = Bundle.load(folder)
        config = bundle.config.model_copy(update={"serve": settings})
        metrics = Metrics(serve.get_replica_context().replica_id.unique_id)
        self._service = Service(replace(bundle, config=config), events.open(), metrics=metrics)
        self._tokens = replace(tokens, local=is_loopback(_listening_host()))
        threading.Thread(target=_report, args=(RayMetrics(metrics),), daemon=True).start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve once the replica is made."""
        return make_api(self._service, tokens=self._tokens, gives_id=False)

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
