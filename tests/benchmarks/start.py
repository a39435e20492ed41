"""How soon a replica starts with millions of users' histories, and what a second one takes.

A bundle with random weights, histories and features of users, which a script makes, or that of a
run (`--run`). Each replica is a process of its own that loads the bundle and answers some users;
the second one starts while the first is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from _bars import bar, work_folder, write

BAR_S, BAR_BYTES, BAR_SHARE = 30.0, 2e9, 0.3
ASKED = 200
GB = 1e9


def replica(run: str) -> None:
    """Loads, answers, says what it took, and stays until it is told to go."""
    from recsys.bundle.contents import Bundle
    from recsys.serve.recommender import ServingRecommender

    begin = time.perf_counter()
    bundle = Bundle.load(run)
    recommender = ServingRecommender(bundle)
    users = bundle.history_ids
    recommender.recommend(users[0].as_py(), 10)
    start_s = time.perf_counter() - begin
    for place in range(0, len(users), max(1, len(users) // ASKED)):
        recommender.recommend(users[place].as_py(), 10)
    print(json.dumps({"start_s": start_s, "private": bytes_of("Private_Dirty:")}), flush=True)
    sys.stdin.readline()
    print(json.dumps({"share": bytes_of("Pss:")}), flush=True)
    sys.stdin.readline()


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
        self.facts = self._read()

    def share(self) -> int:
        """Its proportional set size now: of what is shared, its part."""
        self._tell()
        return int(self._read()["share"])

    def close(self) -> None:
        self._tell()
        self._process.wait()

    def _tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def _read(self) -> dict[str, float]:
        assert self._process.stdout is not None
        facts: dict[str, float] = json.loads(self._process.stdout.readline())
        return facts


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
    first = Replica(run)
    second = Replica(run)
    private = [first.facts["private"], second.facts["private"]]
    both = first.share() + second.share()
    for one in (first, second):
        one.close()
    return {
        "bundle_bytes": num_bytes,
        "start_s": first.facts["start_s"],
        "second_start_s": second.facts["start_s"],
        "private_bytes": private[0],
        "second_private_bytes": private[1],
        "both_bytes": both,
        "second_over_first": private[1] / (private[0] + num_bytes),
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
        "private memory of the second over all of the first": (
            figures["second_over_first"],
            BAR_SHARE,
        ),
    }
    for name, value in figures.items():
        print(f"{name}: {value:,.3f}")
    for name, (value, limit) in bars.items():
        bar(figures, name, value, limit, least=False)
    write(figures, args.out)


if __name__ == "__main__":
    main()
