"""Replicas that come with the load and go after it, on Ray Serve's own scaling."""

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray import serve
from ray.serve.schema import ReplicaState

from recsys.config.run import ServeConfig
from recsys.serve import app
from recsys.serve.app import APP_NAME, running
from tests.bundles import TinyRun
from tests.nodes import quiet_port, wait_for

QUICK = {
    "upscale_delay_s": 0.5,
    "downscale_delay_s": 1.0,
    "metrics_interval_s": 0.5,
    "look_back_period_s": 2.0,
}
"""Of Serve, which else takes half a minute to have more replicas and ten minutes to have less."""
ASKED = {"user_id": "u9", "k": 5}
RECOMMENDED = re.compile(
    r'recsys_request_seconds_count\{replica="(\w+)",route="/v1/recommend",status="200"\} (\d+)'
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    options = app.number_of_replicas

    def quick_options(settings: ServeConfig) -> dict[str, Any]:
        by_load: Any = options(settings)["autoscaling_config"]
        return {"autoscaling_config": {**by_load, **QUICK}}

    monkeypatch.setattr(app, "number_of_replicas", quick_options)


def replicas() -> dict[str, int]:
    """How many there are in each state that any is in, as Serve says."""
    states = serve.status().applications[APP_NAME].deployments["Endpoint"].replica_states
    return {ReplicaState(state).name: number for state, number in states.items() if number}


class Asked:
    """What a load was answered."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.lists: Counter[tuple[str, ...]] = Counter()
        self.failed: list[str] = []
        self._recommended: dict[str, int] = {}

    def ask(self) -> None:
        """One request, on a connection of its own."""
        try:
            answer = httpx.post(f"{self._address}/v1/recommend", json=ASKED, timeout=60)
            if answer.status_code == 200:
                self.lists[tuple(video["video_id"] for video in answer.json()["items"])] += 1
            else:
                self.failed.append(f"{answer.status_code} {answer.text}")
        except httpx.HTTPError as error:
            self.failed.append(repr(error))

    def answered(self) -> dict[str, int]:
        """How many lists each replica has given, as each told when it was met last."""
        told = RECOMMENDED.search(httpx.get(f"{self._address}/metrics", timeout=60).text)
        if told is not None:
            self._recommended[told[1]] = int(told[2])
        return dict(self._recommended)

    def more_than(self, before: dict[str, int]) -> bool:
        """Whether each replica has given more lists than it had given then."""
        answered = self.answered()
        return all(answered.get(replica, 0) > number for replica, number in before.items())


@contextmanager
def load(address: str, clients: int) -> Iterator[Asked]:
    """So many clients, each of which asks again when it is answered."""
    asked, over = Asked(address), threading.Event()

    def client() -> None:
        while not over.is_set():
            asked.ask()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.ray
def test_a_replica_comes_with_the_load_and_goes_after_it(
    ray_local: None, tiny: TinyRun, quick: None, tmp_path: Path
) -> None:
    """Its lists are those of the other, it knows what the log says, and no request fails."""
    settings = {"max_replicas": 2, "target_ongoing_requests": 1, "encoders": 0}
    events = str(tmp_path / "live.sqlite")
    with running(str(tiny.run), port=quiet_port(), events=events, **settings) as address:
        assert replicas() == {"RUNNING": 1}
        with load(address, clients=8) as during:
            wait_for(lambda: replicas() == {"RUNNING": 2}, "a second replica")
            wait_for(lambda: len(during.answered()) == 2, "lists of both")
            (listed,) = during.lists
            event = {"user_id": "u9", "video_id": listed[0], "type": "not_interested"}
            told = httpx.post(f"{address}/v1/events", json={"events": [event]}, timeout=60)
            assert told.json()["statuses"] == ["accepted"]
            with load(address, clients=2) as then:
                wait_for(lambda: len(then.answered()) == 2, "what both have done")
                begun = then.answered()
                wait_for(lambda: then.more_than(begun), "more lists of both")
            (changed,) = then.lists
        assert len(changed) == len(listed) and listed[0] not in changed
        with load(address, clients=1) as after:
            wait_for(lambda: replicas() == {"RUNNING": 1}, "one replica")
            number = after.lists[changed] + 20
            wait_for(lambda: after.lists[changed] >= number, "answers of the one that is left")
        assert set(during.lists) == {listed, changed} and set(after.lists) == {changed}
        assert not during.failed + then.failed + after.failed
