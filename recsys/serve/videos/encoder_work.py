"""What an encoder does: it looks for videos that wait, decodes them and keeps their vectors.

It follows the table of live videos, so it does not matter in which process it runs, how many there
are, or whether one dies in the middle: what it had claimed is taken up by another one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from recsys.data.clip_store import ClipArray
from recsys.decode.contract import ReadError
from recsys.live.clock import now
from recsys.live.store.database import Database, LogError
from recsys.live.videos.encoding_queue import AWAY, NOT_ENCODED, REFUSALS, Encoded, EncodingQueue
from recsys.live.videos.live_videos import LiveVideo, LiveVideos, StoredFile, VideoVector
from recsys.serve import priority
from recsys.serve.videos.duplicates import LiveContents, Nearest
from recsys.serve.videos.encoding import NOT_LOOKED_AT, Decoded, Encoding
from recsys.serve.videos.upload_store import UploadStore

logger = logging.getLogger(__name__)

LOOKS_S = 0.05
"""How often an encoder looks for videos that wait."""
LOOKS_FOR_MISSING_S = 2.0
"""How often it looks for videos that lack a vector: of another version, or of changed facts."""
TRANSIENT = frozenset({"too_slow", *AWAY})
"""Reasons that may be of the moment: the machine was busy, or the folder of uploads away."""

Encodings = Callable[[], Mapping[str, Encoding]]
"""Gives the versions whose vectors are wanted now."""


class EncoderWork:
    """Encodes what waits, one video at a time.

    Args:
        database: Of the event log, with the table of live videos.
        store: Where the files lie.
        encodings: Of the versions that are served, or are to be.
    """

    def __init__(self, database: Database, store: UploadStore, encodings: Encodings) -> None:
        self._videos, self._queue = LiveVideos(database), EncodingQueue(database)
        self._store, self._encodings = store, encodings
        self._contents: dict[str, LiveContents] = {}
        self._looked_seq: dict[str, int] = {}
        """Version → the `seq` up to which nothing is missing that was not tried."""

    def one(self) -> bool:
        """Encodes the next video that waits; False where none does.

        Raises:
            LogError: The database fails.
        """
        encodings = self._encodings()
        for gone in self._contents.keys() - encodings.keys():
            del self._contents[gone]
        video = self._queue.claim() if encodings else None
        if video is None:
            return False
        try:
            known = self._with_duration(video, encodings)
            self._queue.encoded(known, self._encode(known))
        except ReadError as error:
            if error.reason in TRANSIENT and not self._queue.failed(video, error.reason):
                logger.warning("video %s is tried again: %s", video.video_id, error)
                return True
            self._queue.refuse(video, error.reason, error.message)
            self._remove_file(video)
        except LogError:
            raise
        except Exception:
            # One video's fault of ours must not end the work on all others; it is tried again.
            logger.exception("video %s could not be encoded", video.video_id)
            if self._queue.failed(video, NOT_ENCODED):
                logger.error("video %s is refused: %s", video.video_id, REFUSALS[NOT_ENCODED])
                self._remove_file(video)
        return True

    def _remove_file(self, video: LiveVideo) -> None:
        if video.file is not None and not self._videos.is_needed(video.file.uri):
            self._store.remove(video.file.uri)

    def missing(self, encoding: Encoding) -> int:
        """Makes all vectors that a version lacks, and gives their number.

        Raises:
            LogError: The database fails.
        """
        version = encoding.version
        # The version's own videos are read once, not at every look: they never get a row that
        # says so. What failed is in `rested`, and each change has another `seq`.
        newest, after_seq = self._videos.latest_seq(), self._looked_seq.get(version, 0)
        made = sum(self._make_missing(video, encoding) for video in self._queue.rested(version))
        while after_seq < newest and (page := self._queue.missing(version, after_seq=after_seq)):
            after_seq = page[-1].seq
            for video in page:
                if not encoding.holds(video.video_id):
                    made += self._make_missing(video, encoding)
        self._looked_seq[version] = newest
        return made

    def _make_missing(self, video: LiveVideo, encoding: Encoding) -> bool:
        """Makes the vector of one video that a version lacks; False where that failed."""
        version, reason = encoding.version, NOT_ENCODED
        try:
            vector = encoding.vector(video.facts, self._clip(video, encoding))
        except ReadError as error:
            reason = error.reason
            logger.warning("video %s has no vector of %s: %s", video.video_id, version, error)
        except Exception:
            # It must neither hold up the other videos nor the version that waits for them.
            logger.exception("video %s has no vector of %s", video.video_id, version)
        else:
            self._queue.encoded(video, Encoded({version: vector}, video.decoded_ms))
            return True
        self._queue.failed(video, reason, version=version)
        return False

    def _with_duration(self, video: LiveVideo, encodings: Mapping[str, Encoding]) -> LiveVideo:
        """The video with the duration of its file, where nobody said one and the unit is known."""
        of_unit = (one for one in encodings.values() if one.duration_per_s is not None)
        encoding = next(of_unit, None)
        if video.file is None or video.facts.duration is not None or encoding is None:
            return video
        decoded = self._decode(video.file, encoding)
        if not decoded.duration_s or encoding.duration_per_s is None:
            return video
        duration = round(decoded.duration_s * encoding.duration_per_s, 3)
        return replace(video, facts=replace(video.facts, duration=duration))

    def _encode(self, video: LiveVideo) -> Encoded:
        encodings, vectors, decoded_ms = self._vectors(video)
        first = encodings[next(iter(vectors))]
        message = None if video.file is None or first.looks_at_clips else NOT_LOOKED_AT
        same = self._queue.same_file(video)
        if same is not None:
            return Encoded(vectors, decoded_ms, message, same, 1.0)
        near = self._nearest(vectors, encodings)
        return Encoded(vectors, decoded_ms, message, *(near or (None, None)))

    def _vectors(
        self, video: LiveVideo
    ) -> tuple[Mapping[str, Encoding], Mapping[str, VideoVector], int | None]:
        """Versions, the vectors of those that succeed, and when the file was decoded.

        A version that fails lacks the video, which is no reason to refuse it: another one can use
        it. Versions that come meanwhile get their vector, too.

        Raises:
            Exception: All fail; what the first failed with.
        """
        encodings, vectors = dict[str, Encoding](), dict[str, VideoVector]()
        faults, unread, decoded_ms = dict[str, Exception](), set[str](), None
        while came := {v: one for v, one in self._encodings().items() if v not in encodings}:
            encodings |= came
            for version, encoding in came.items():
                if encoding.clip_key in unread:  # the same settings would fail in the same way
                    continue
                try:
                    clip = self._clip(video, encoding)
                    if video.file is not None:
                        decoded_ms = decoded_ms or now()
                    vectors[version] = encoding.vector(video.facts, clip)
                except Exception as error:
                    faults[version] = error
                    if isinstance(error, ReadError):
                        unread.add(encoding.clip_key)
        if not vectors:
            raise next(iter(faults.values()))
        for version, fault in faults.items():
            text = "video %s has no vector of %s yet, of others it has"
            logger.warning(text, video.video_id, version, exc_info=fault)
        return encodings, vectors, decoded_ms

    def _clip(self, video: LiveVideo, encoding: Encoding) -> ClipArray | None:
        """The clip of a video's file, decoded once for all versions with the same settings."""
        if video.file is None:
            return None
        kept = self._store.clip(video.file, encoding.clip_key)
        if kept is None:
            kept = self._decode(video.file, encoding).clip
        return kept

    def _decode(self, file: StoredFile, encoding: Encoding) -> Decoded:
        """What a file holds; its poster, its captions and its clip are kept.

        The clip comes last: where it is there nothing is decoded again.
        """
        decoded = encoding.decode(file.uri)
        self._store.keep_shown(file.poster_uri, decoded.poster)
        self._store.keep_shown(file.captions_uri, decoded.captions)
        self._store.keep_clip(file, encoding.clip_key, decoded.clip)
        return decoded

    def _nearest(
        self, vectors: Mapping[str, VideoVector], encodings: Mapping[str, Encoding]
    ) -> Nearest | None:
        """The near-duplicate among the live videos and the bundle's own, under one version."""
        for version, made in vectors.items():
            if made.content is not None:
                live = self._contents.setdefault(version, LiveContents())
                live.follow(self._queue, version)
                content, catalogue = made.content, encodings[version].catalogue
                return live.nearest(content) or catalogue.nearest(content, live.deleted)
        return None


class EncoderThread:
    """Does an encoder's work until it is closed.

    Args:
        work: Of the encoder.
        encodings: Of the versions that are served.
        failed: Told each time that the work fails; it is tried again.
        alone: Whether it has its process to itself. Then it gives way to all others; beside
            requests it must not, for they would wait for it where it holds the interpreter's lock.
    """

    def __init__(
        self,
        work: EncoderWork,
        encodings: Encodings,
        *,
        failed: Callable[[], None],
        alone: bool = False,
    ) -> None:
        self._work, self._encodings, self._alone = work, encodings, alone
        self._failed = failed
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="encoder", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether it goes on."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Ends it after the video that it is at."""
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        if self._alone:
            priority.lowest()  # with its sandbox, which inherits it
        looked = 0.0
        while not self._end.wait(LOOKS_S):
            try:
                while not self._end.is_set() and self._work.one():
                    pass
                if time.monotonic() - looked > LOOKS_FOR_MISSING_S:
                    for encoding in self._encodings().values():
                        self._work.missing(encoding)
                    looked = time.monotonic()
            except LogError as error:
                logger.warning("the encoder waits: %s", error)
                self._failed()
            except Exception:
                # A fault of ours must not end the thread, and must not go unseen.
                logger.exception("the encoder failed")
                self._failed()
