"""What a terminal that serves is told while it waits: which version serves, and what is refused.

A replica writes that into its own log, which Ray keeps in a file. So the process that the user
looks at asks the server now and then, as any client might.
"""

from __future__ import annotations

import json
import logging
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

logger = logging.getLogger(__name__)

SURE = 3
"""Answers in a row that must name a version before it is told of: replicas take turns in answering
and change one after the other."""
TIMEOUT_S = 10.0


class VersionNews:
    """What has changed from one answer of `GET /v1/versions` to the next."""

    def __init__(self) -> None:
        self._serving: str | None = None
        self._seen, self._times = "", 0
        self._refused: set[tuple[str, str]] = set()

    def lines(self, answer: Mapping[str, Any]) -> Iterator[str]:
        """What is to be told of an answer."""
        version = str(answer["serving"])
        self._times = self._times + 1 if version == self._seen else 1
        self._seen = version
        for one in answer["versions"]:
            refusal = one["version"], one["reason"]
            if one["state"] == "refused" and refusal not in self._refused:
                self._refused.add(refusal)
                yield f"version {refusal[0]} is refused, {version} goes on: {refusal[1]}"
        if version != self._serving and (self._serving is None or self._times >= SURE):
            if self._serving is not None:
                yield f"version {version} serves now, in place of {self._serving}"
            self._serving = version


def follow_versions(
    address: str,
    token: str | None,
    tell: Callable[[str], None],
    *,
    every_s: float,
    stop: threading.Event,
) -> None:
    """Tells of versions until it is stopped.

    Args:
        address: Of the server.
        token: That opens reading; None where it is open.
        tell: Called with a line for people.
        every_s: Seconds between two looks.
        stop: Ends it.
    """
    request = urllib.request.Request(f"{address}/v1/versions")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    news = VersionNews()
    while not stop.is_set():
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                tree = json.load(answer)
        except (OSError, ValueError) as error:
            # A server that is overloaded, or whose replica was just killed, answers the next time.
            logger.debug("the versions could not be asked for: %s", error)
        else:
            for line in news.lines(tree):
                tell(line)
        stop.wait(every_s)
