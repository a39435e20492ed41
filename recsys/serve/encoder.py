"""An encoder of its own on Ray Serve: it decodes and encodes the videos that are handed in.

Nobody calls it: it follows the table of live videos, as `EncoderWork` says. So requests never wait
for it, and when it dies, Serve starts another one, which takes up what was left.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping

import torch
from ray import serve

from recsys.bundle.contents import VideoModel
from recsys.config.run import ServeConfig
from recsys.data.storage import join
from recsys.errors import InputError
from recsys.live.videos.encoding_queue import EncodingQueue
from recsys.serve.endpoint import EventsHere
from recsys.serve.ray_metrics import RayFailures
from recsys.serve.videos.desk import uploads_folder
from recsys.serve.videos.encoder_work import EncoderThread, EncoderWork
from recsys.serve.videos.encoding import Encoding
from recsys.serve.videos.upload_store import UploadStore

logger = logging.getLogger(__name__)

LOOKS_S = 1.0
"""How often it looks which versions are served."""
RETRY_S = 60.0
"""When a version that could not be loaded is looked at again: its files may have come since."""


class ServedEncodings:
    """The versions that replicas say they serve, loaded as they come and dropped as they go.

    Args:
        bundles: The folder of all versions.
        queue: Where replicas say it.
        failed: Told each time that one cannot be loaded.
        device: Where the models run.
    """

    def __init__(
        self, bundles: str, queue: EncodingQueue, *, failed: Callable[[], None], device: str
    ) -> None:
        self._bundles, self._queue, self._device = bundles, queue, device
        self._failed = failed
        self._there: dict[str, Encoding] = {}
        self._tried_again_s: dict[str, float] = {}
        """Version that could not be loaded → when it is looked at again."""
        self._looked = -LOOKS_S

    def __call__(self) -> Mapping[str, Encoding]:
        """By version, the newest first: near-duplicates are looked for among its videos.

        Raises:
            LogError: The database fails.
        """
        now_s = time.monotonic()
        if now_s - self._looked >= LOOKS_S:
            served = self._queue.served()
            for version in served - self._there.keys():
                if now_s >= self._tried_again_s.get(version, now_s):
                    self._load(version)
            there = sorted(served & self._there.keys(), reverse=True)
            self._there = {version: self._there[version] for version in there}
            self._looked = now_s
        return self._there

    def _load(self, version: str) -> None:
        try:
            model = VideoModel.load(join(self._bundles, version))
        except InputError as error:
            logger.warning("videos get no vectors of version %s: %s", version, error)
            self._failed()
            self._tried_again_s[version] = time.monotonic() + RETRY_S
            return
        self._there[version] = Encoding(model, device=self._device)


class LiveEncoder:
    """One encoder.

    Args:
        folder: Of the version that the application began with; the others lie beside it.
        settings: That it is served with.
        events: The event log, with the table of live videos.
    """

    def __init__(self, folder: str, settings: ServeConfig, events: EventsHere) -> None:
        torch.set_num_threads(1)
        log = events.open()
        database = log.database
        queue = EncodingQueue(database)
        device = "cuda" if settings.encoder_gpus and torch.cuda.is_available() else "cpu"
        failed = RayFailures("encoder", serve.get_replica_context().replica_id.unique_id)
        folders = os.path.dirname(folder)
        encodings = ServedEncodings(folders, queue, failed=failed, device=device)
        store = UploadStore(uploads_folder(settings, database.kind, database.shown))
        work = EncoderWork(database, store, encodings)
        self._thread = EncoderThread(work, encodings, failed=failed, alone=True)

    async def __call__(self) -> str:
        """Says that it is there."""
        return "ok"

    def check_health(self) -> None:
        """Called by Serve now and then; one that raises is started anew."""
        if not self._thread.is_alive:
            raise RuntimeError("the encoder's thread has ended")

    def __del__(self) -> None:
        """Called by Serve when it stops."""
        thread = getattr(self, "_thread", None)
        if thread is not None:
            thread.close()
