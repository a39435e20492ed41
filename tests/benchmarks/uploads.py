"""Uploads: from a file that is sent to a video that both of two servers recommend.

100 different clips of 10 seconds, one after the other, each sent to one of two servers in turn:
seconds until `similar` and a recommendation of *both* know it, p50 and p99; an encoder of its own
works beside the servers. Then recommendations at half of what the servers can answer, without and
with uploads all the time: p99 of both.

All on this machine; clients, servers and the encoder share its cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from recsys.bundle.contents import VideoModel
from recsys.bundle.versions import find_bundle
from recsys.features.inputs import ClipShape
from recsys.live.log.events import EventLog
from recsys.serve.client import Client
from recsys.serve.videos.encoder_work import EncoderThread, EncoderWork
from recsys.serve.videos.encoding import Encoding
from recsys.serve.videos.upload_store import UploadStore
from tests import videos
from tests.benchmarks._bars import bar, write
from tests.benchmarks._servers import FORKS, Servers
from tests.bundles import DATA_WITH_VIDEOS, make_run

CLIPS, SECONDS, PER_SECOND = 100, 10, 10
FRAMES, SIZE = 16, 64
BAR_S, BAR_SLOWER = 3.0, 1.5
FOLLOW_S, LOOKS_S = 0.005, 0.05
RUN = {
    "data": DATA_WITH_VIDEOS,
    "decode": {"frames": FRAMES, "size": SIZE},
    "model": {"content": {"encoder": "small_cnn"}, "max_history": 27},
    "serve": {"max_k": 20, "encoders": 1},
}


def clips(folder: Path, number_of: int) -> Iterator[bytes]:
    """Clips that differ in every frame, 320 × 240."""
    rng = np.random.default_rng(0)
    for number in range(number_of):
        grid = rng.integers(0, 256, (SECONDS * PER_SECOND, 6, 8, 3), np.uint8)
        pictures = [np.kron(one, np.ones((40, 40, 1), np.uint8)) for one in grid]
        path = videos.render(folder / f"{number}.mp4", pictures, options={"g": "25", "crf": "28"})
        yield path.read_bytes()


def encode(run: str, log: str, uploads: str) -> None:
    """An encoder in a process of its own, as Ray Serve would start it."""
    import torch

    torch.set_num_threads(1)
    encoding = Encoding(VideoModel.load(find_bundle(run)))
    database = EventLog(log).database
    encodings = {encoding.version: encoding}
    work = EncoderWork(database, UploadStore(uploads), lambda: encodings)
    EncoderThread(work, lambda: encodings, failed=lambda: print("the encoder failed"), alone=True)
    threading.Event().wait()


def until_known(clients: list[Client], video_id: str) -> None:
    """Returns when `similar` and a recommendation of every server know a video."""
    for client in clients:
        while True:
            shown = client.recommend("u9", k=1, filters={"video_ids": [video_id]})["items"]
            if [item["video_id"] for item in shown] == [video_id]:
                break
            time.sleep(FOLLOW_S)
        assert client.similar(video_id, k=1)["items"]


def upload_all(clients: list[Client], files: list[bytes], name: str) -> list[float]:
    """Seconds of each upload until all know it."""
    took = []
    for number, data in enumerate(files):
        begun = time.perf_counter()
        video_id = f"{name}{number}"
        clients[number % len(clients)].add_video(video_id, data, creator_id="c1")
        until_known(clients, video_id)
        took.append(time.perf_counter() - begun)
    return took


def recommend_at(address: str, per_s: float, stop: Any, told: Any) -> None:
    """Tells of the milliseconds of recommendations asked for at fixed times, late ones included."""
    ended, took = threading.Event(), []
    threading.Thread(target=lambda: (stop.wait(), ended.set()), daemon=True).start()
    begun, number = time.perf_counter(), 0
    with Client(address, timeout_s=10.0) as client:
        while not ended.is_set():
            due = begun + number / per_s
            time.sleep(max(0.0, due - time.perf_counter()))
            client.recommend(f"u{number % 10}", k=10)
            took.append(1000 * (time.perf_counter() - due))
            number += 1
    told.extend(took)


def fastest(address: str, seconds: float) -> float:
    """Recommendations a second of one client that asks again at once."""
    ends, count = time.perf_counter() + seconds, 0
    with Client(address, timeout_s=10.0) as client:
        while time.perf_counter() < ends:
            client.recommend(f"u{count % 10}", k=10)
            count += 1
    return count / seconds


@dataclass(frozen=True)
class AtHalfLoad:
    """Recommendations while some work is done, and what one took of its server's threads."""

    p50_ms: float
    p99_ms: float
    cpu_ms: float
    waited_ms: float
    """They were ready to run, and others ran: what is due to the machine's few cores."""


def at_half_load(address: str, pid: int, per_s: float, work: Callable[[], object]) -> AtHalfLoad:
    """Recommendations of a server (its process) while some work is done.

    They are asked for by a process of its own: beside the work of this one's threads they would
    wait for the interpreter's lock.
    """
    with FORKS.Manager() as manager:
        stop, took = manager.Event(), manager.list()
        process = FORKS.Process(target=recommend_at, args=(address, per_s, stop, took))
        before = scheduled(pid)
        process.start()
        work()
        stop.set()
        process.join()
        told = list(took)
        cpu_ms, waited_ms = (scheduled(pid) - before) / 1e6 / len(told)
        p50, p99 = np.percentile(told, [50, 99])
    return AtHalfLoad(float(p50), float(p99), float(cpu_ms), float(waited_ms))


def scheduled(pid: int) -> np.ndarray:
    """Nanoseconds (2,) that a process's threads ran, and that they waited for a core."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return np.array([[int(word) for word in text.split()[:2]] for text in texts]).sum(0)


def upload_waiting(clients: list[Client], files: list[bytes], name: str) -> None:
    """Uploads one after the other, each as soon as the one before is encoded."""
    for number, data in enumerate(files):
        client, video_id = clients[number % len(clients)], f"{name}{number}"
        client.add_video(video_id, data, creator_id="c1")
        while client.video(video_id)["state"] == "stored":
            time.sleep(LOOKS_S)


def measure(folder: Path, seconds: float, number_of: int) -> dict[str, float]:
    run = str(make_run(folder / "run", uris=["/none.mp4"], clip=ClipShape(FRAMES, SIZE), **RUN).run)
    log, uploads = str(folder / "live.sqlite"), str(folder / "uploads")
    EventLog(log).close()
    files = list(clips(folder, number_of))
    encoder = FORKS.Process(target=encode, args=(run, log, uploads), daemon=True)
    encoder.start()
    with Servers(run, log, encodes=False) as servers:
        clients = [Client(address, timeout_s=10.0) for address in servers.addresses]
        upload_all(clients, files[:2], "warm")
        took = upload_all(clients, files[2:] + files[:2], "new")
        per_s = fastest(servers.addresses[0], 3.0) / 2
        asked = servers.addresses[0], servers.pids[0], per_s
        alone = at_half_load(*asked, lambda: time.sleep(seconds))
        again = [data + b"\0" for data in files]
        beside = at_half_load(*asked, lambda: upload_waiting(clients[1:], again, "beside"))
    encoder.kill()
    p50, p99 = np.percentile(took, [50, 99])
    return {
        "uploads": len(took),
        "p50_s": float(p50),
        "p99_s": float(p99),
        "half_load_per_s": per_s,
        **{f"recommend_{name}": value for name, value in vars(alone).items()},
        **{f"recommend_{name}_with_uploads": value for name, value in vars(beside).items()},
    }


def main() -> None:
    """Measures, prints and writes the figures with their bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/bench/uploads.json")
    parser.add_argument("--seconds", type=float, default=15.0, help="of load without uploads")
    parser.add_argument("--clips", type=int, default=CLIPS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.seconds, options.clips)
    slower = figures["recommend_p99_ms_with_uploads"] / figures["recommend_p99_ms"]
    bars = {
        "seconds until both servers know an upload, p99": (figures["p99_s"], BAR_S),
        "p99 of recommend with uploads / without": (slower, BAR_SLOWER),
    }
    print(json.dumps(figures, indent=2))
    results: dict[str, Any] = {"figures": figures}
    for name, (value, limit) in bars.items():
        bar(results, name, value, limit, least=False)
    write(results, Path(options.out))


if __name__ == "__main__":
    main()
