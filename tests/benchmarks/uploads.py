"""Uploads: from a file that is sent to a video that both of two servers recommend.

100 different clips of 10 seconds, one after the other, each sent to one of two servers in turn:
seconds until *both* recommend it and list it among the videos similar to a neighbour, p50 and p99;
an encoder of its own works beside the servers. The neighbour is the video in whose list the new one
comes first, by the exact cosines of all vectors. Then recommendations at half of what the servers
can answer, without and with uploads all the time: p99 of both.

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
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from recsys.bundle.contents import Bundle, VideoModel
from recsys.bundle.versions import find_bundle
from recsys.features.inputs import ClipShape
from recsys.live.log.events import EventLog
from recsys.live.videos.live_videos import LiveVideos
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
FOLLOW_S, LOOKS_S, GIVE_UP_S = 0.005, 0.05, 60
SIMILAR = 20
"""Videos in a list of those similar to one."""
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


class Neighbours:
    """Which lists of similar videos must hold a new one, by the vectors of all videos there are.

    Args:
        run: With the bundle.
        log: Of the videos that came live.
    """

    def __init__(self, run: str, log: EventLog) -> None:
        bundle = Bundle.load(run)
        self._tail, self._seq = LiveVideos(log.database).tail(bundle.version), 0
        self._dim = bundle.recommender.dim
        self._vectors = dict(
            zip(bundle.vocabs["video"].ids.to_pylist(), bundle.vectors[1:], strict=True)
        )

    def of(self, video_id: str) -> str:
        """The video in whose list a new one comes first; of several the one most like it."""
        for video in self._tail.changed(self._seq, 1_000):
            self._seq = video.seq
            if video.vector is not None:
                self._vectors[video.video_id] = video.vector
        ids = list(self._vectors)
        vectors_ND = np.stack(list(self._vectors.values()))[:, : self._dim]
        vectors_ND = vectors_ND / np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        cosines_NN, new = vectors_ND @ vectors_ND.T, ids.index(video_id)
        np.fill_diagonal(cosines_NN, -np.inf)
        likeness_N = cosines_NN[:, new]
        nearer_N = (cosines_NN > likeness_N[:, None]).sum(1)
        nearest = int(np.lexsort((-likeness_N, nearer_N, np.arange(len(ids)) == new))[0])
        assert nearer_N[nearest] < SIMILAR, f"no list of {SIMILAR} holds {video_id}"
        return ids[nearest]


def until_known(clients: list[Client], video_id: str, neighbours: Neighbours) -> None:
    """Returns when every server recommends a video and has it in the list of a neighbour."""
    for client in clients:
        until(partial(is_recommended, client, video_id))
    neighbour = neighbours.of(video_id)
    for client in clients:
        assert client.similar(video_id, k=1)["items"]
        until(partial(is_similar, client, video_id, neighbour))


def until(is_so: Callable[[], bool]) -> None:
    give_up = time.monotonic() + GIVE_UP_S
    while not is_so():
        assert time.monotonic() < give_up, "a server does not come to know an upload"
        time.sleep(FOLLOW_S)


def is_recommended(client: Client, video_id: str) -> bool:
    shown = client.recommend("u9", k=1, filters={"video_ids": [video_id]})["items"]
    return [item["video_id"] for item in shown] == [video_id]


def is_similar(client: Client, video_id: str, neighbour: str) -> bool:
    similar = client.similar(neighbour, k=SIMILAR)["items"]
    return video_id in [item["video_id"] for item in similar]


def upload_all(
    clients: list[Client], files: list[bytes], name: str, neighbours: Neighbours
) -> list[float]:
    """Seconds of each upload until all know it."""
    took = []
    for number, data in enumerate(files):
        begun = time.perf_counter()
        video_id = f"{name}{number}"
        clients[number % len(clients)].add_video(video_id, data, creator_id="c1")
        until_known(clients, video_id, neighbours)
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
    neighbours = Neighbours(run, EventLog(log))
    files = list(clips(folder, number_of))
    encoder = FORKS.Process(target=encode, args=(run, log, uploads), daemon=True)
    encoder.start()
    with Servers(run, log, encodes=False) as servers:
        clients = [Client(address, timeout_s=10.0) for address in servers.addresses]
        upload_all(clients, files[:2], "warm", neighbours)
        took = upload_all(clients, files[2:] + files[:2], "new", neighbours)
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
