"""A storm of events over HTTP while all servers, and their database, are killed again and again.

Clients send calls of 1 to 40 events to two servers in turn, by the project's own client: it gives
the events their ids and sends a call again until it is answered. All servers are killed at once
without warning (SIGKILL), and so is PostgreSQL with all its processes; all are started again on
what is on the disk, while the clients go on.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from recsys.bundle.contents import Bundle
from recsys.features.hourly import hour_of
from recsys.live.log.event import Event
from recsys.live.log.events import EventLog
from recsys.serve import client_types
from recsys.serve.client import Client
from recsys.serve.recommender import ServingRecommender
from tests.benchmarks._postgres import PostgresServer
from tests.benchmarks._servers import Servers, counts_digest
from tests.benchmarks._storm import THREADS, Storm, check, events_of, names_in, torn_in

DEADLINE_S = 120.0
"""How long a call is sent again: longer than everything takes to start."""


@dataclass
class ServerStorm(Storm):
    """What was seen of a storm of HTTP."""

    counts: int = 0
    """Servers whose counts are not those that are made anew from the log."""


class Senders:
    """Threads that send call after call, each the next when the last was answered."""

    def __init__(self, addresses: Collection[str]) -> None:
        self._clients = [Client(a, timeout_s=10.0, deadline_s=DEADLINE_S) for a in addresses]
        self.acknowledged: set[tuple[int, int]] = set()
        self.retried = 0
        self._told = threading.Condition()
        self._stopped = False
        self._threads = ThreadPoolExecutor(THREADS)
        self._running = [self._threads.submit(self._send, thread) for thread in range(THREADS)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        for client in self._clients:
            client.close()
        self._threads.shutdown()

    def wait_for(self, calls: int) -> None:
        """Until so many more calls are answered."""
        with self._told:
            enough = len(self.acknowledged) + calls
            while not self._told.wait_for(lambda: len(self.acknowledged) >= enough, timeout=1.0):
                for one in self._running:
                    assert not one.done(), one.exception()

    def stop(self) -> None:
        """Returns when every call that was begun is answered."""
        self._stopped = True
        for one in self._running:
            one.result()

    def _send(self, thread: int) -> None:
        call = 0
        while not self._stopped:
            client = self._clients[(thread + call) % len(self._clients)]
            answer = client.send_events([message(event) for event in events_of(thread, call)])
            again = answer["statuses"].count("duplicate")
            assert again + answer["statuses"].count("accepted") == len(answer["statuses"])
            with self._told:
                self.acknowledged.add((thread, call))
                self.retried += again > 0
                self._told.notify()
            call += 1


def message(event: Event) -> client_types.Event:
    """An event as a caller sends it, without an id: the client gives it one."""
    return {
        "user_id": event.user_id,
        "type": event.type,
        "video_id": str(event.video_id),
        "labels": dict(event.labels),
        "impression_id": str(event.impression_id),
    }


def server_storm(
    run: str,
    address: str,
    kills: int,
    *,
    database: PostgresServer | None = None,
    most_calls: int = 200,
    seed: int = 0,
) -> ServerStorm:
    """Kills everything `kills` times and looks at what is in the log and in the servers.

    Args:
        run: With a bundle.
        address: Of an empty log.
        kills: How often.
        database: Is killed too.
        most_calls: That are answered between two kills.
        seed: Of the moments.
    """
    result, rng = ServerStorm(), random.Random(seed)
    with Servers(run, address) as servers, Senders(servers.addresses) as senders:
        for _ in range(kills):
            senders.wait_for(rng.randint(1, most_calls))
            crash(servers, database, rng)
            result.kills += 1
            with EventLog(address) as log:  # what was not answered is there whole or not at all
                result.torn += torn_in(names_in(log))
            servers.start()
        senders.wait_for(rng.randint(1, most_calls))
        senders.stop()
        with EventLog(address) as log:
            check(log, senders.acknowledged, result)
            result.retried = senders.retried
            result.counts = differing(servers, ServingRecommender(Bundle.load(run), log))
    return result


def crash(servers: Servers, database: PostgresServer | None, rng: random.Random) -> None:
    """Kills the servers and the database, which comes back, in either order."""
    kills = [servers.kill, *([] if database is None else [database.kill])]
    for kill in rng.sample(kills, len(kills)):
        kill()
    if database is not None:
        database.start()


def differing(servers: Servers, anew: ServingRecommender) -> int:
    """Servers whose counts are not those of a recommender that starts now."""
    hour = int(hour_of(time.time_ns() // 1_000_000))
    before = counts_digest(ServingRecommender(Bundle.load(str(anew.bundle.config.run))), hour)
    expected = counts_digest(anew, hour)
    assert expected != before, "nothing was counted"
    return sum(digest != expected for digest in servers.counts(hour))
