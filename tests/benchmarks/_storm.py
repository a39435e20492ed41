"""A storm of events from a process that is killed in the middle of it, again and again.

`storm` starts this file as a process of its own: threads append calls of events and report each
call that was acknowledged. It is killed without warning (SIGKILL) and started again, many times;
each thread then sends the call once more whose answer it did not get. In the end every acknowledged
event must be in the log, each once, and every call whole or not there.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from recsys.live.log.event import TASK, VIEW, Event
from recsys.live.log.events import EventLog, LoggedEvent

THREADS = 8
ROOT = Path(__file__).parents[2]


@dataclass
class Storm:
    """What was seen of a storm, whoever was killed in it."""

    kills: int = 0
    acknowledged: int = 0
    """Events whose call was answered."""
    in_log: int = 0
    lost: int = 0
    """Events that were acknowledged and are not in the log."""
    twice: int = 0
    torn: int = 0
    """Calls of which a part is in the log."""
    retried: int = 0
    """Calls that had been committed when the process died before it could answer."""


@dataclass
class LogStorm(Storm):
    """What was seen of a storm of appends."""

    missed: int = 0
    """Events in the log that a follower did not see."""


def size_of(thread: int, call: int) -> int:
    """Events in a call: from 1 to 40, the same for each retry."""
    return 1 + (thread * 13 + call * 7) % 40


def events_of(thread: int, call: int) -> Iterator[Event]:
    """The events of a call; their impressions name them, whatever ids they get."""
    for place in range(size_of(thread, call)):
        user, kind = f"u{(thread + place) % 50}", TASK if place % 3 == 0 else VIEW
        labels = {"like": True} if kind == TASK else {}
        name = f"{thread}-{call}-{place}"
        yield Event(user, kind, f"v{call % 40}", labels=labels, event_id=name, impression_id=name)


def blow(address: str, starts: list[int]) -> None:
    """The process: threads that append from call `starts[thread]` on until they are killed."""
    log = EventLog(address)

    def run(thread: int) -> None:
        call = starts[thread]
        while True:
            result = log.append(list(events_of(thread, call)))
            again = result.count("duplicate")
            assert again + result.count("accepted") == len(result.statuses)
            # One short write to a pipe is whole.
            os.write(1, f"{thread} {call} {int(again > 0)}\n".encode())
            call += 1

    for thread in range(THREADS):
        threading.Thread(target=run, args=(thread,)).start()


def storm(address: str, kills: int, *, seed: int = 0) -> LogStorm:
    """Kills a storming process `kills` times and looks at what is in the log."""
    result, rng = LogStorm(), random.Random(seed)
    followed: Counter[str] = Counter()
    acknowledged: set[tuple[int, int]] = set()
    next_calls = [0] * THREADS
    with EventLog(address) as log:
        stop = threading.Event()
        follower = threading.Thread(target=follow, args=(log, followed, stop))
        follower.start()
        for _ in range(kills):
            answers = blow_and_kill(address, next_calls, rng.randint(1, 400))
            for thread, call, again in answers:
                acknowledged.add((thread, call))
                next_calls[thread] = call + 1
                result.retried += again
            result.kills += 1
        stop.set()
        follower.join()
        names = check(log, acknowledged, result)
        result.missed = sum(followed[name] != number for name, number in names.items())
    return result


def blow_and_kill(address: str, starts: list[int], calls: int) -> list[tuple[int, int, int]]:
    """One life of the process: it is killed once it has answered some number of calls."""
    command = [sys.executable, __file__, address, *map(str, starts)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(calls)]
    process.send_signal(signal.SIGKILL)
    lines += process.stdout.readlines()
    process.wait()
    assert process.returncode == -signal.SIGKILL, "it ended by itself"
    answers = [line.split() for line in lines if line.endswith(b"\n")]
    return [(int(thread), int(call), int(again)) for thread, call, again in answers]


def follow(log: EventLog, followed: Counter[str], stop: threading.Event) -> None:
    """Reads the log as a replica does, until the storm is over and all is read."""
    after, last = 0, False
    while not last:
        last = stop.is_set()  # what was committed before this is read below
        while entries := log.follow(after, limit=1000):
            after = entries[-1].seq
            for entry in entries:
                assert isinstance(entry, LoggedEvent)
                followed[str(entry.event.impression_id)] += 1
        stop.wait(0.01)


def check(log: EventLog, acknowledged: Collection[tuple[int, int]], result: Storm) -> Counter[str]:
    """Compares the log with the calls (thread, call) that were answered; gives what it holds."""
    names = names_in(log)
    result.acknowledged = sum(size_of(*call) for call in acknowledged)
    result.in_log = sum(names.values())
    result.twice = sum(number > 1 for number in names.values())
    result.lost = sum(
        event.impression_id not in names for call in acknowledged for event in events_of(*call)
    )
    result.torn += torn_in(names)
    return names


def names_in(log: EventLog) -> Counter[str]:
    """How often each event is in the log."""
    return Counter(
        str(entry.event.impression_id) for entry in log.entries() if isinstance(entry, LoggedEvent)
    )


def torn_in(names: Collection[str]) -> int:
    """Calls of which a part is there."""
    calls = Counter(tuple(map(int, name.split("-")[:2])) for name in names)
    return sum(number != size_of(*call) for call, number in calls.items())


if __name__ == "__main__":
    blow(sys.argv[1], [int(text) for text in sys.argv[2:]])
