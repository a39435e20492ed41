"""Many decoding threads that feed one encoder, with a bound on what is between them.

A thread takes a video, decodes it (in a process of its own) and hands its frames to the encoder,
which takes all that wait for it, up to a batch, while the next ones are decoded.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from recsys.decode.actor.encoder import Encoded, Frames
from recsys.decode.actor.rows import Row

MAX_BYTES = 512 * 2**20
"""Of frames that are being decoded or wait for the encoder: at 16 frames of 112 × 112 pixels 891
clips, many batches of a GPU; clips of more pixels are fewer."""


class BatchEncoder(Protocol):
    """What the pipeline asks of an encoder."""

    def start(self, clips: Sequence[Frames]) -> Callable[[], Encoded]:
        """Begins to encode a batch of clips; the result waits for its end."""


@dataclass(frozen=True)
class EncodingStep:
    """The encoder, and how much it is given."""

    encoder: BatchEncoder
    batch_clips: int
    """Clips that it takes at a time, at most."""
    clip_bytes: int
    """Bytes of the frames of each."""
    max_bytes: int = MAX_BYTES
    """Most bytes of frames on their way at a time; one clip is always let through."""

    @property
    def max_clips(self) -> int:
        """How many clips may be on their way at a time."""
        return max(1, self.max_bytes // self.clip_bytes)


@dataclass
class _Job:
    """A video on its way through the pipeline."""

    uri: str
    row: Future[Row] = field(default_factory=Future)


_Batch = list[tuple[_Job, Row]]
_Running = tuple[_Batch, Callable[[], Encoded]]


class ClipPipeline:
    """Decodes videos in several threads and encodes them in one, for any number of callers.

    Args:
        decode: Address → row with a clip or a reason; called in several threads at a time.
        num_threads: How many.
        step: The encoder; without one the frames themselves are kept.
    """

    def __init__(
        self, decode: Callable[[str], Row], *, num_threads: int, step: EncodingStep | None = None
    ):
        self._decode_one = decode
        self._step = step
        self._decoders = ThreadPoolExecutor(num_threads, thread_name_prefix="decode")
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._room = threading.Semaphore(step.max_clips if step else num_threads)
        self._waiting: deque[tuple[_Job, Row]] = deque()
        self._running: _Running | None = None

    def run(self, uris: Sequence[str]) -> list[Row]:
        """The rows of some videos, in their order; what else is on its way goes on beside it."""
        jobs = [_Job(uri) for uri in uris]
        for job in jobs:
            self._decoders.submit(self._decode, job)
        return [job.row.result() for job in jobs]

    def close(self) -> None:
        """Ends the threads once they have no work."""
        self._decoders.shutdown()
        self._encoder.shutdown()

    def _decode(self, job: _Job) -> None:
        self._room.acquire()
        try:
            row = self._decode_one(job.uri)
        except BaseException as error:  # the caller of `run` gets it
            self._room.release()
            job.row.set_exception(error)
            return
        if row.clip is not None and self._step is not None:
            self._waiting.append((job, row))
            self._encoder.submit(self._encode_waiting, self._step)
            return
        if row.clip is not None:
            row.keep(row.clip.frames)
        self._room.release()
        job.row.set_result(row)

    def _encode_waiting(self, step: EncodingStep) -> None:
        """Starts with what waits, then ends the batch before it; alone in its thread.

        It is called once for each clip, and most calls find that an earlier one has taken theirs.
        """
        batch: _Batch = []
        while self._waiting and len(batch) < step.batch_clips:
            batch.append(self._waiting.popleft())
        if not batch:
            return
        before, self._running = self._running, None
        try:
            started = step.encoder.start([row.clip.frames for _, row in batch if row.clip])
        except BaseException as error:  # the callers of `run` get it
            self._fail(batch, error)
        else:
            self._running = batch, started
        self._end(before)
        if not self._waiting:
            before, self._running = self._running, None
            self._end(before)

    def _end(self, running: _Running | None) -> None:
        """Waits for a batch and gives each row its part."""
        if running is None:
            return
        batch, result = running
        try:
            values, seconds = result()
        except BaseException as error:  # the callers of `run` get it
            self._fail(batch, error)
            return
        for (job, row), features in zip(batch, values, strict=True):
            row.keep(features)
            row.encode_s = seconds / len(batch)
            self._room.release()
            job.row.set_result(row)

    def _fail(self, batch: _Batch, error: BaseException) -> None:
        for job, _ in batch:
            self._room.release()
            job.row.set_exception(error)
