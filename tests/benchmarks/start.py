"""How soon a replica starts with millions of users' histories, and what a second one takes.

A bundle with random weights, histories and features of users, which a script makes, or that of a
run (`--run`). Each replica is a process of its own that does what a server's does: it checks the
bundle's known answers, catches up with an event log, an empty one here, and answers some users.
The second one starts while the first is there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from _bars import bar, work_folder, write

if TYPE_CHECKING:
    from recsys.serve.service import Service

BAR_S, BAR_BYTES, BAR_SHARE = 30.0, 2e9, 0.3
ASKED = 200
GB = 1e9


def replica(run: str) -> None:
    """Starts, answers, says what it took, and stays until it is told to go."""
    import torch

    from recsys.bundle.versions import find_bundle
    from recsys.live.log.events import EventLog
    from recsys.live.versions.watch import Watch
    from recsys.serve.memory import give_back
    from recsys.serve.service import Service

    torch.set_num_threads(1)  # as a server's process, and so is the next line
    give_back()
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        log = EventLog(f"{folder}/live.sqlite")
        service = Service(Watch(log.database, os.path.dirname(find_bundle(run))), log)
        facts = asyncio.run(answers(service, begin))
        facts |= {"private": bytes_of("Private_Dirty:"), "resident": bytes_of("Rss:")}
        print(json.dumps(facts), flush=True)
        sys.stdin.readline()
        service.close()


async def answers(service: Service, begin: float) -> dict[str, float]:
    """Asks for some users: the seconds until the first answer, and what one takes from then on."""
    from recsys.serve.asks import Ask

    users = service.bundle.histories.user_ids

    async def ask(place: int) -> float:
        answer = await service.answer(Ask(users[place], 10))
        assert answer.degraded is None, answer.degraded
        return time.perf_counter()

    facts = {"start_s": await ask(0) - begin}
    seconds = []
    for place in range(0, len(users), max(1, len(users) // ASKED)):
        begin = time.perf_counter()
        seconds.append(await ask(place) - begin)
    return {**facts, "answer_s": statistics.median(seconds)}


def bytes_of(kind: str) -> int:
    lines = Path(f"/proc/{os.getpid()}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


class Replica:
    """A process that serves the bundle until it is closed."""

    def __init__(self, run: str) -> None:
        command = [sys.executable, __file__, "--replica", run]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.facts: dict[str, float] = json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate("\n")


def make(num_users: int, per_user: int, folder: str) -> dict[str, float]:
    """Makes the bundle; the seconds that it took."""
    from _bundle import make_large_bundle

    begin = time.perf_counter()
    end_ms = time.time_ns() // 1_000_000
    make_large_bundle(folder, num_users=num_users, per_user=per_user, end_ms=end_ms)
    return {"made_s": time.perf_counter() - begin}


def measure(run: str) -> dict[str, float]:
    """Seconds and bytes of a first replica of a run's bundle, and of a second one beside it."""
    from recsys.bundle.versions import find_bundle

    files = Path(find_bundle(run)).rglob("*")
    num_bytes = sum(path.stat().st_size for path in files if path.is_file())
    replicas = Replica(run), Replica(run)
    for one in replicas:
        one.close()
    first, second = (one.facts for one in replicas)
    return {
        "bundle_bytes": num_bytes,
        "start_s": first["start_s"],
        "second_start_s": second["start_s"],
        "answer_s": first["answer_s"],
        "private_bytes": first["private"],
        "first_bytes": first["resident"],
        "second_private_bytes": second["private"],
        "second_over_first": second["private"] / first["resident"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000_000)
    parser.add_argument("--events", type=int, default=5, help="of each user")
    parser.add_argument("--folder", help="for the bundle; else a temporary one")
    parser.add_argument("--run", help="whose bundle is measured; none is made then")
    parser.add_argument("--replica", metavar="RUN", help="only be a replica of this run")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/start.json"))
    args = parser.parse_args()
    if args.replica:
        replica(args.replica)
        return
    if args.run:
        figures = measure(args.run)
    else:
        with work_folder(args.folder) as folder:
            figures = make(args.users, args.events, folder)
            figures |= measure(folder)
    bars = {
        "seconds to start": (figures["start_s"], BAR_S),
        "private GB of a replica": (figures["private_bytes"] / GB, BAR_BYTES / GB),
    }
    if args.run:
        name = "private memory of the second over all that the first has touched"
        bars[name] = (figures["second_over_first"], BAR_SHARE)
    for name, value in figures.items():
        print(f"{name}: {value:,.3f}")
    for name, (value, limit) in bars.items():
        bar(figures, name, value, limit, least=False)
    write(figures, args.out)


if __name__ == "__main__":
    main()
