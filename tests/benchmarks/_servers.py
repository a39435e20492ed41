"""Servers on one event log, without Ray: each a process of its own that can be killed.

They are forked from a process that has loaded the modules already, so that a start costs a fraction
of a second.
"""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import signal
import time
import urllib.request
from typing import Any, Self

import numpy as np
import torch
import uvicorn
from starlette.responses import PlainTextResponse

from recsys.bundle.contents import Bundle
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.client import Client
from recsys.serve.memory import give_back
from recsys.serve.priority import hand_over_soon, spare_what_stays
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service
from tests.benchmarks._postgres import free_port

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["recsys.bundle.contents", "recsys.serve.api", "uvicorn", "psycopg"])
COUNTS = "/counts/"
START_S = 60


class Servers:
    """Replicas of one bundle, all on one event log.

    Args:
        run: With the bundle.
        address: Of the log.
        number: Of servers, each of which listens at the same port all its lives.
        encodes: Whether they encode videos themselves.
    """

    def __init__(self, run: str, address: str, number: int = 2, *, encodes: bool = True) -> None:
        self._run, self._log, self._encodes = run, address, encodes
        self._ports = [free_port() for _ in range(number)]
        self.addresses = [f"http://127.0.0.1:{port}" for port in self._ports]
        self._processes: list[Any] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pids(self) -> list[int]:
        """The processes of now."""
        return [int(process.pid) for process in self._processes]

    def start(self) -> None:
        """Returns when each has read the log."""
        for port in self._ports:
            given = (self._run, self._log, port, self._encodes)
            process = FORKS.Process(target=serve, args=given, daemon=True)
            process.start()
            self._processes.append(process)
        give_up = time.monotonic() + START_S
        for address, process in zip(self.addresses, self._processes, strict=True):
            with Client(address) as client:
                while not client.ready():
                    assert process.is_alive() and time.monotonic() < give_up, "it did not start"
                    time.sleep(0.02)

    def kill(self) -> None:
        """Ends all with SIGKILL: none gets to say or write anything more."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
            assert process.exitcode == -signal.SIGKILL, "it ended by itself"
        self._processes.clear()

    def counts(self, hour: int) -> list[str]:
        """Each server's `counts_digest`."""
        texts = []
        for address in self.addresses:
            with urllib.request.urlopen(f"{address}{COUNTS}{hour}", timeout=30) as answer:
                texts.append(answer.read().decode())
        return texts


def serve(run: str, address: str, port: int, encodes: bool = True) -> None:
    """One server, with one more address that tells of its counts."""
    torch.set_num_threads(1)
    hand_over_soon()
    give_back()
    logging.disable(logging.WARNING)  # a database that is killed is a warning a request
    bundle = Bundle.load(run)
    others = None if encodes else bundle.config.serve.model_copy(update={"encoders": 1})
    service = Service(bundle, EventLog(address), settings=others)
    api = make_api(service)
    spare_what_stays()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not scope.get("path", "").startswith(COUNTS):
            await api(scope, receive, send)
            return
        hour = int(scope["path"].removeprefix(COUNTS))
        digest = await service.read(lambda recommender: counts_digest(recommender, hour))
        await PlainTextResponse(digest)(scope, receive, send)

    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_level="error")


def counts_digest(recommender: ServingRecommender, hour: int) -> str:
    """A hash of all counts that are kept, before each of the hours up to `hour` + 1.

    It reads the log to its end first.
    """
    recommender.catch_up()
    rows = np.arange(len(recommender.bundle.catalog))  # no thing has more rows than videos
    digest = hashlib.sha256()
    for name, counts in sorted(recommender.bundle.counts.hourly.items()):
        digest.update(name.encode())
        for before in range(hour - 2, hour + 2):
            digest.update(counts.before(rows, np.full(len(rows), before)).tobytes())
    return digest.hexdigest()
