"""The desk where videos are handed in, asked about, changed and taken back."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from recsys.bundle.contents import VideoModel
from recsys.config.run import ServeConfig
from recsys.errors import InputError
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.live.videos.encoding_queue import EncodingQueue
from recsys.live.videos.live_videos import (
    LiveVideo,
    LiveVideos,
    StoredFile,
    VideoFacts,
)
from recsys.serve.metrics import Metrics
from recsys.serve.videos.encoder_work import EncoderThread, EncoderWork
from recsys.serve.videos.encoding import Encoding
from recsys.serve.videos.fetching import Fetcher
from recsys.serve.videos.upload_store import Incoming, UploadStore

logger = logging.getLogger(__name__)

MIB = 2**20
MOST_FETCHES = 4
"""Addresses that are fetched at a time; others wait. They have threads of their own, so that slow
servers hold up no other request."""
AT_ONCE_BYTES = MIB
"""Bytes that are gathered before they are written."""
LOOKS_S = 0.03
"""How often a waiting caller's video is looked at."""
TELLS_S = 5.0
"""How often a replica looks whether it is to say which versions it serves, and counts videos."""
TOLD_S = 30.0
"""How often it says so where they are the same as before."""


class TooLarge(Exception):
    """A video is larger than `serve.max_upload_mib`."""


class VideoDesk:
    """Takes videos in for the encoders; its methods are called from the server's event loop.

    Args:
        log: Whose database holds the table.
        config: Where files lie, and how large they may be.
        models: Gives the models whose vectors are wanted, that of the version that serves first:
            also of what is kept warm, and of what is being made ready to serve.
        metrics: Told how many videos there are.
        encodes: Whether this process encodes what is handed in, from the first video on.
    """

    def __init__(
        self,
        log: EventLog,
        config: ServeConfig,
        models: Callable[[], Sequence[VideoModel]],
        *,
        metrics: Metrics,
        encodes: bool,
    ) -> None:
        self.videos, self.queue = LiveVideos(log.database), EncodingQueue(log.database)
        self._database, self._metrics = log.database, metrics
        self._config, self._models, self._encodes = config, models, encodes
        folder = uploads_folder(config, log.database.kind, log.database.shown)
        self.store = UploadStore(folder)
        self._fetcher = Fetcher(config.video_roots)
        self._fetches = ThreadPoolExecutor(MOST_FETCHES, "fetch")
        self._encoder: EncoderThread | None = None
        self._encodings: dict[str, Encoding] = {}
        self._told: tuple[Sequence[str], float] = (), 0.0
        if encodes and self.videos.latest_seq():
            self._begin()
        self._end = threading.Event()
        self._teller = threading.Thread(target=self._tell_on, name="videos", daemon=True)
        self._teller.start()

    async def receive(self, pieces: AsyncIterator[bytes]) -> StoredFile:
        """Takes in a file that is sent.

        Raises:
            TooLarge: It is.
        """
        with self.store.receiving() as incoming:
            gathered = bytearray()
            async for piece in pieces:
                gathered += piece
                if incoming.size_bytes + len(gathered) > self._config.max_upload_mib * MIB:
                    raise TooLarge
                if len(gathered) >= AT_ONCE_BYTES:
                    await asyncio.to_thread(incoming.write, bytes(gathered))
                    gathered.clear()
            return await asyncio.to_thread(_write_and_keep, incoming, bytes(gathered))

    async def fetch(self, uri: str) -> StoredFile:
        """Takes in a file by its address.

        Raises:
            InputError: It may not be fetched, or cannot.
            TooLarge: It is.
        """
        return await asyncio.get_running_loop().run_in_executor(self._fetches, self._fetch, uri)

    def _fetch(self, uri: str) -> StoredFile:
        with self.store.receiving() as incoming, self._fetcher.open(uri) as pieces:
            for piece in pieces:
                if incoming.size_bytes + len(piece) > self._config.max_upload_mib * MIB:
                    raise TooLarge
                incoming.write(piece)
            return incoming.keep(uri)

    async def add(
        self, video_id: str, file: StoredFile | None, facts: VideoFacts, *, wait_s: float
    ) -> LiveVideo:
        """Takes a video in and waits until it is encoded, or for so long.

        Raises:
            VideoConflict: The id stands for another one.
            LogError: The database fails.
        """
        video = await asyncio.to_thread(self._add, video_id, file, facts)
        if self._encodes:
            self._begin()
        ends = time.monotonic() + wait_s
        while video.state == "stored" and time.monotonic() < ends:
            await asyncio.sleep(LOOKS_S)
            now = await asyncio.to_thread(self.videos.get, video_id)
            assert now is not None, "a row is never taken away"
            video = now
        return video

    def _add(self, video_id: str, file: StoredFile | None, facts: VideoFacts) -> LiveVideo:
        """Adds a row; the file is removed where no row is made of it.

        Where the database fails it may have kept the row: then the file stays, marked.
        """
        try:
            video = self.videos.add(video_id, file, facts)
        except InputError:
            if file is not None:
                self.store.remove(file.uri)
            raise
        if file is not None and video.file is not None and video.file.uri == file.uri:
            self.store.settle(file.uri)
        elif file is not None:  # sent once more
            self.store.remove(file.uri)
        return video

    async def change(
        self, video_id: str, changes: Mapping[str, Any], of_bundle: VideoFacts | None
    ) -> LiveVideo | None:
        """Changes what is said of a video; None where there is none."""
        change = self.videos.change
        return await asyncio.to_thread(change, video_id, changes, of_bundle=of_bundle)

    async def delete(self, video_id: str, *, in_bundle: bool) -> LiveVideo | None:
        """Takes a video out of everything, and its file off the disk; None where there is none."""
        return await asyncio.to_thread(self._delete, video_id, in_bundle)

    def _delete(self, video_id: str, in_bundle: bool) -> LiveVideo | None:
        video = self.videos.delete(video_id, in_bundle=in_bundle)
        file = None if video is None else video.file
        if file is not None and not self.videos.is_needed(file.uri):
            self.store.remove(file.uri)
        return video

    def tell(self) -> None:
        """Tells the encoders which versions want vectors, and the metrics how videos are.

        Raises:
            LogError: The database fails.
        """
        versions, now = [model.version for model in self._models()], time.monotonic()
        if not self._encodes and (self._told[0] != versions or now - self._told[1] > TOLD_S):
            for version in versions:
                self.queue.serves(version)
            self._told = versions, now
        self._metrics.live_videos(self.queue.counts(), versions[0])

    def sweep(self) -> None:
        """Removes what a crash left of uploads in the folder, and says how much.

        Raises:
            LogError: The database fails.
        """
        if swept := self.store.sweep(self.videos.is_needed):
            logger.warning("uploads that a crash cut off were removed: %d", swept)

    def _tell_on(self) -> None:
        # In a thread of its own: under load the model's is never idle, and to write takes a turn
        self._tried(self.sweep)
        while not self._end.is_set():
            self._tried(self.tell)
            self._end.wait(TELLS_S)

    def _tried(self, work: Callable[[], None]) -> None:
        try:
            work()
        except LogError:
            # Whoever needs the log says why; what waits here is told the next time.
            self._metrics.failed("videos")
        except Exception:
            # A fault of ours must not end the thread, and must not go unseen.
            logger.exception("the live videos could not be looked at")
            self._metrics.failed("videos")

    def close(self) -> None:
        """Ends what works here."""
        self._end.set()
        self._teller.join()
        self._fetches.shutdown(wait=False, cancel_futures=True)
        if self._encoder is not None:
            self._encoder.close()

    def _begin(self) -> None:
        if self._encoder is None:
            work = EncoderWork(self._database, self.store, self._encodings_of_now)
            failed = partial(self._metrics.failed, "encoder")
            self._encoder = EncoderThread(work, self._encodings_of_now, failed=failed)

    def _encodings_of_now(self) -> Mapping[str, Encoding]:
        there = self._encodings
        self._encodings = {m.version: there.get(m.version) or Encoding(m) for m in self._models()}
        return self._encodings


def _write_and_keep(incoming: Incoming, data: bytes) -> StoredFile:
    incoming.write(data)
    return incoming.keep()


def uploads_folder(config: ServeConfig, kind: str, log: str) -> str | None:
    """Where uploaded files lie; None where nobody said so.

    Args:
        config: Perhaps says it.
        kind: Of the event log's database.
        log: Its path, where it is a file.
    """
    if config.uploads is not None or kind != "sqlite":
        return config.uploads
    return os.path.join(os.path.dirname(os.path.abspath(log)), "uploads")


def make_missing(log: EventLog, config: ServeConfig, model: VideoModel) -> int:
    """Makes the vectors that a version lacks, and gives their number; any thread may call it.

    Whoever is about to serve the version calls it, so that no live video is lost to the swap.
    Encoders are told first: once they know the version, what is handed in has its vector, too.

    Raises:
        LogError: The database fails.
    """
    database = log.database
    EncodingQueue(database).serves(model.version)
    store = UploadStore(uploads_folder(config, database.kind, database.shown))
    return EncoderWork(database, store, dict).missing(Encoding(model))
