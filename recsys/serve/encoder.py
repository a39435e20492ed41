"""An encoder of its own on Ray Serve: it decodes and encodes the videos that are handed in.

Nobody calls it: it follows the table of live videos, as `EncoderWork` says. So requests never wait
for it, and when it dies, Serve starts another one, which takes up what was left.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping

import torch

from recsys.bundle.contents import VideoModel
from recsys.config.run import ServeConfig
from recsys.data.storage import join
from recsys.errors import InputError
from recsys.live.encoding_queue import EncodingQueue
from recsys.serve.endpoint import EventsHere
from recsys.serve.videos.desk import uploads_folder
from recsys.serve.videos.encoder_work import EncoderThread, EncoderWork
from recsys.serve.videos.encoding import Encoding
from recsys.serve.videos.upload_store import UploadStore

logger = logging.getLogger(__name__)

LOOKS_S = 1.0
"""How often it looks which versions are served."""


class ServedEncodings:
    """The versions that replicas say they serve, loaded as they come and dropped as they go.

    Args:
        bundles: The folder of all versions.
        queue: Where replicas say it.
        device: Where the models run.
    """

    def __init__(self, bundles: str, queue: EncodingQueue, *, device: str) -> None:
        self._bundles, self._queue, self._device = bundles, queue, device
        self._there: dict[str, Encoding] = {}
        self._broken: set[str] = set()
        self._looked = -LOOKS_S

    def __call__(self) -> Mapping[str, Encoding]:
        """By version.

        Raises:
            LogError: The database fails.
        """
        if time.monotonic() - self._looked >= LOOKS_S:
            served = self._queue.served()
            for version in served - self._there.keys() - self._broken:
                self._load(version)
            self._there = {v: one for v, one in self._there.items() if v in served}
            self._looked = time.monotonic()
        return self._there

    def _load(self, version: str) -> None:
        try:
            model = VideoModel.load(join(self._bundles, version))
        except InputError as error:
            logger.warning("videos get no vectors of version %s: %s", version, error)
            self._broken.add(version)
            return
        self._there[version] = Encoding(model, device=self._device)


class Encoder:
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
        encodings = ServedEncodings(os.path.dirname(folder), queue, device=device)
        store = UploadStore(uploads_folder(settings, database.kind, database.shown))
        self._thread = EncoderThread(EncoderWork(database, store, encodings), encodings, alone=True)

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
