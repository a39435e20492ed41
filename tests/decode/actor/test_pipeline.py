"""The pipeline with decoders and encoders that a test holds in its hands."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from recsys.decode.actor.encoder import Encoded, Frames
from recsys.decode.actor.pipeline import ClipPipeline, EncodingStep
from recsys.decode.actor.rows import Row
from recsys.decode.contract import Clip

CLIP_BYTES = 2 * 4 * 4 * 3


def decoded(uri: str) -> Row:
    """A clip of two frames whose pixels are the address; `bad…` has none."""
    if uri.startswith("bad"):
        return Row(uri, reason="not_video")
    frames = np.full((2, 4, 4, 3), int(uri), np.uint8)
    return Row(uri, Clip(frames, np.zeros(2, np.float32), 1.0, "none"))


class Sums:
    """An encoder that counts: each frame's feature is its pixels' value."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def start(self, clips: Sequence[Frames]) -> Callable[[], Encoded]:
        self.batches.append(len(clips))
        values = [clip[:, 0, 0, :1].astype(np.float16) for clip in clips]
        return lambda: (values, 0.5 * len(clips))


def step_of(encoder: Sums, *, batch_clips: int = 4, max_clips: int = 100) -> EncodingStep:
    return EncodingStep(encoder, batch_clips, CLIP_BYTES, max_bytes=max_clips * CLIP_BYTES)


def test_rows_come_in_their_order_whatever_ends_first() -> None:
    late = threading.Event()

    def decode(uri: str) -> Row:
        if uri == "0":
            assert late.wait(10)
        if uri == "9":
            late.set()
        return decoded(uri)

    pipeline = ClipPipeline(decode, num_threads=2, step=step_of(Sums()))
    rows = pipeline.run([str(number) for number in range(10)])
    pipeline.close()
    assert [row.uri for row in rows] == [str(number) for number in range(10)]
    assert [row.values.tolist() for row in rows if row.values is not None] == [
        [number, number] for number in range(10)
    ]
    assert {row.encode_s for row in rows} == {0.5}
    assert all(row.clip is not None and not len(row.clip.frames) for row in rows)


def test_a_video_without_a_clip_stops_nobody() -> None:
    pipeline = ClipPipeline(decoded, num_threads=3, step=step_of(Sums()))
    rows = pipeline.run(["1", "bad", "2", "bad2"])
    assert [row.reason for row in rows] == [None, "not_video", None, "not_video"]
    assert [None if row.values is None else row.values[0] for row in rows] == [1, None, 2, None]
    # They gave their place back: many more go through a pipeline with room for one.
    narrow = ClipPipeline(decoded, num_threads=3, step=step_of(Sums(), max_clips=1))
    assert len(narrow.run(["bad", "1"] * 20)) == 40


class Held(Sums):
    """An encoder whose first batch waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def start(self, clips: Sequence[Frames]) -> Callable[[], Encoded]:
        assert self.go.wait(10)
        return super().start(clips)


def test_clips_of_many_videos_are_one_batch() -> None:
    encoder, left = Held(), threading.Semaphore(0)

    def decode(uri: str) -> Row:
        left.release()
        return decoded(uri)

    pipeline = ClipPipeline(decode, num_threads=1, step=step_of(encoder, batch_clips=4))
    caller = threading.Thread(target=pipeline.run, args=([str(number) for number in range(9)],))
    caller.start()
    for _ in range(9):
        assert left.acquire(timeout=10)
    pipeline._decoders.shutdown()  # the last one is handed over too
    encoder.go.set()
    caller.join(10)
    # The first call took what there was then, one to four; the others as many as they may.
    assert sum(encoder.batches) == 9 and encoder.batches[1] == 4
    assert max(encoder.batches) == 4


def test_frames_on_their_way_are_bounded() -> None:
    """With room for two clips the third is not decoded before one of them is encoded."""
    lock, live, most, third = threading.Lock(), [0], [0], threading.Event()
    two = threading.Event()

    def decode(uri: str) -> Row:
        with lock:
            live[0] += 1
            most[0] = max(most[0], live[0])
            (two if live[0] == 2 else third if live[0] > 2 else threading.Event()).set()
        return decoded(uri)

    class Counting(Held):
        def start(self, clips: Sequence[Frames]) -> Callable[[], Encoded]:
            assert two.wait(10)
            third.wait(0.2)  # where nothing holds it back it comes at once
            result = super().start(clips)

            def ended() -> Encoded:
                with lock:
                    live[0] -= len(clips)
                return result()

            return ended

    encoder = Counting()
    encoder.go.set()
    pipeline = ClipPipeline(decode, num_threads=6, step=step_of(encoder, max_clips=2))
    assert len(pipeline.run([str(number) for number in range(12)])) == 12
    assert most[0] == 2 and not third.is_set()


def test_a_clip_larger_than_the_bound_goes_alone() -> None:
    assert EncodingStep(Sums(), 4, clip_bytes=10, max_bytes=9).max_clips == 1
    assert EncodingStep(Sums(), 4, clip_bytes=10, max_bytes=39).max_clips == 3


@pytest.mark.parametrize("where", ["start", "result"])
def test_an_encoder_that_fails_fails_its_callers_and_no_other(where: str) -> None:
    class Failing(Sums):
        def start(self, clips: Sequence[Frames]) -> Callable[[], Encoded]:
            if any(clip[0, 0, 0, 0] == 13 for clip in clips):
                if where == "start":
                    raise RuntimeError("out of memory")
                return self._raise
            return super().start(clips)

        def _raise(self) -> Encoded:
            raise RuntimeError("out of memory")

    pipeline = ClipPipeline(
        decoded, num_threads=2, step=step_of(Failing(), batch_clips=1, max_clips=2)
    )
    with pytest.raises(RuntimeError, match="out of memory"):
        pipeline.run(["1", "13", "2"])
    for _ in range(3):  # it holds no place back
        assert [row.values[0] for row in pipeline.run(["7", "8"]) if row.values is not None] == [
            7,
            8,
        ]


def test_a_decoder_with_a_bug_fails_its_caller() -> None:
    def decode(uri: str) -> Row:
        if uri == "13":
            raise KeyError(uri)
        return decoded(uri)

    pipeline = ClipPipeline(decode, num_threads=1, step=step_of(Sums(), max_clips=1))
    with pytest.raises(KeyError, match="13"):
        pipeline.run(["13", "1"])
    assert len(pipeline.run(["1", "2"])) == 2


def test_without_an_encoder_the_frames_are_kept() -> None:
    rows = ClipPipeline(decoded, num_threads=2).run(["5", "bad"])
    assert rows[0].values is not None and rows[0].values.tolist() == [5] * (2 * 4 * 4 * 3)
    assert rows[1].values is None and rows[0].encode_s == 0


def test_two_callers_share_it() -> None:
    pipeline = ClipPipeline(decoded, num_threads=2, step=step_of(Sums(), max_clips=3))
    answers: dict[int, list[Row]] = {}

    def call(first: int) -> None:
        answers[first] = pipeline.run([str(number) for number in range(first, first + 8)])

    callers = [threading.Thread(target=call, args=(first,)) for first in (0, 100)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    for first in (0, 100):
        assert [row.uri for row in answers[first]] == [str(first + n) for n in range(8)]
