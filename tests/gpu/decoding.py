"""The decoding half of the check: cores, hardware, the encoder, and all of them together."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from recsys.config.data import DecodeConfig
from recsys.decode.actor.encoder import ClipEncoder, EncoderSettings
from recsys.decode.actor.pipeline import ClipPipeline, EncodingStep
from recsys.decode.actor.processes import Processes, ProcessSet
from recsys.decode.actor.rows import Row
from recsys.decode.clips import clip_spec
from recsys.decode.files import LocalFile
from recsys.model.frames import make_frame_encoder
from tests.benchmarks._clips import make_clips
from tests.gpu.peaks import peak_flops


@dataclass(frozen=True)
class Scale:
    """How much is measured, and on what."""

    device: torch.device
    cores: int
    seconds: float
    """About how long each measure takes."""
    small: bool
    folder: Path

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def config(self) -> DecodeConfig:
        return DecodeConfig(frames=4, size=64) if self.small else DecodeConfig()

    def clips(self) -> list[str]:
        """720p clips of 10 s as a phone films them; in small a second of 640 × 360."""
        scale, seconds, num = (1, 1.0, 2) if self.small else (2, 10.0, 2)
        folder = self.folder / f"{seconds:g}s-{scale}"
        return [str(path) for path in make_clips(folder, num, seconds=seconds, scale=scale)]

    def encoder_settings(self, **changes: Any) -> EncoderSettings:
        config = self.config.model_copy(update=changes)
        return EncoderSettings.of(config, has_gpu=self.on_gpu)


Ended = list[tuple[float, Row]]
"""When each video was decoded, and its row."""


def timed(scale: Scale, once: Callable[[], int]) -> tuple[float, dict[str, float]]:
    """How many a second, after one call that is not counted."""
    once()
    began, total = time.perf_counter(), 0
    while (seconds := time.perf_counter() - began) < scale.seconds:
        total += once()
    return total / seconds, {"counted": total, "seconds": round(seconds, 2)}


@functools.lru_cache
def clips_per_s(
    scale: Scale, processes: ProcessSet, encoder: ClipEncoder | None = None
) -> tuple[float, dict[str, Any]]:
    """Clips a second through a pipeline of processes, perhaps an encoder; and its busy shares."""
    config, done = scale.config, Ended()
    own = Processes(processes, max_memory_bytes=config.max_memory_bytes)
    over = threading.Event()

    def decode(path: str) -> Row:
        if over.is_set():
            return Row(path)
        with own.one() as sandbox:
            began = time.perf_counter()
            file = LocalFile(path)
            clip = sandbox.read(file, clip_spec(config), name="clip.mp4")
            file.close()
            ended = time.perf_counter()
            row = Row(path, clip, decode_s=ended - began)
            done.append((ended, row))
            return row

    step = None
    if encoder is not None:
        clip_bytes = config.frames * config.size * config.size * 3
        batch_clips = max(1, encoder.settings.batch_frames // config.frames)
        step = EncodingStep(encoder, batch_clips, clip_bytes)
    pipeline = ClipPipeline(decode, num_threads=processes.num, step=step)
    uris = list(itertools.islice(itertools.cycle(scale.clips()), 2 * processes.num))

    def call() -> None:
        while not over.is_set():
            pipeline.run(uris)

    # Two callers, so that nobody waits for the last video of a batch.
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(call) for _ in range(2)]
        try:
            counted = _steady(done, calls, first=processes.num, seconds=scale.seconds)
        finally:
            over.set()
        for running in calls:
            running.result()
    pipeline.close()
    own.close()
    return _figures(done, counted, processes.num)


def _steady(
    done: Ended, calls: list[Future[None]], *, first: int, seconds: float
) -> tuple[int, int]:
    """Waits until enough is done while all are busy: from which place of `done`, and to which."""
    while not any(running.done() for running in calls):
        time.sleep(0.02)
        stop = len(done)
        if stop > first + max(3, 2 * first) and done[stop - 1][0] - done[first][0] >= seconds:
            return first, stop
    return 0, len(done)  # a call has failed, and says why


def _figures(done: Ended, counted: tuple[int, int], num: int) -> tuple[float, dict[str, Any]]:
    """Clips a second between the first and the last that count, and who was how busy with them."""
    first, stop = counted
    start, end = done[first][0], done[stop - 1][0]
    rows, seconds = [row for _, row in done[first + 1 : stop]], end - start
    busy = [min(ended, end) - max(ended - row.decode_s, start) for ended, row in done]
    clips = [row.clip for row in rows if row.clip]
    return len(rows) / seconds, {
        "counted": len(rows),
        "seconds": round(seconds, 2),
        "decoding": sum(part for part in busy if part > 0) / seconds / num,
        "encoding": sum(row.encode_s for row in rows) / seconds,
        "readers": dict(Counter(clip.reader for clip in clips)),
        "whys": sorted({clip.why for clip in clips}),
    }


def decode(scale: Scale) -> dict[str, Any]:
    """Clips a second by one core, by all, by the hardware alone, and by both."""
    part: dict[str, Any] = {}
    sets = {"one_core": ProcessSet(1), "cores": ProcessSet(scale.cores)}
    if scale.on_gpu:
        num = scale.config.hardware_processes
        sets |= {"hardware": ProcessSet(0, num), "both": ProcessSet(scale.cores, num)}
    for name, processes in sets.items():
        rate, facts = clips_per_s(scale, processes)
        part[name] = {"clips_per_s": rate, "processes": processes.num, **facts}
    if not scale.on_gpu:
        part["hardware"] = {"skipped": "no GPU"}
    return part


def flops_per_image(name: str, size: int) -> float:
    """Multiplications and additions of one frame, by PyTorch's own counter."""
    encoder = make_frame_encoder(name).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.zeros(1, 3, size, size))
    return float(counter.get_total_flops())


def encode(scale: Scale) -> dict[str, Any]:
    """Images a second of each encoder, with copies to and from the device, and of the peak."""
    part: dict[str, Any] = {}
    peak = peak_flops(torch.cuda.get_device_name(scale.device)) if scale.on_gpu else None
    ways: dict[str, dict[str, Any]] = {
        name: {"encode_precision": name} for name in ("float32", "bfloat16", "float16")
    }
    if not scale.on_gpu:
        ways.pop("float16")  # a CPU has no use for it
    for name in ("small_cnn",) if scale.small else ("small_cnn", "efficientnet_lite0"):
        for way, changes in ways.items():
            part[f"{name} {way}"] = _images_per_s(name, scale, changes, peak)
    return part


def compiled(scale: Scale) -> dict[str, Any]:
    """The larger encoder by kernels of `torch.compile`, which takes a minute to make them."""
    if not scale.on_gpu:
        return {"skipped": "no GPU"}
    peak = peak_flops(torch.cuda.get_device_name(scale.device))
    return _images_per_s("efficientnet_lite0", scale, {"encode_compiled": True}, peak)


def _images_per_s(
    name: str, scale: Scale, changes: dict[str, Any], peak: float | None
) -> dict[str, Any]:
    flops = flops_per_image(name, scale.config.size)
    encoder = ClipEncoder(name, scale.encoder_settings(**changes))
    rate, facts = timed(scale, _encoding(encoder, scale))
    alone, _ = timed(scale, _computing(encoder, scale))
    is_half = encoder.settings.precision != "float32"
    return {
        "images_per_s": rate,
        "without_copies_per_s": alone,
        "flops_per_image": flops,
        "share_of_peak": alone * flops / peak if peak and is_half else None,
        **facts,
    }


def _computing(encoder: ClipEncoder, scale: Scale) -> Callable[[], int]:
    """A batch that lies on the device already, eight times."""
    num, size = encoder.settings.batch_frames, scale.config.size
    frames = torch.zeros(num, size, size, 3, dtype=torch.uint8, device=scale.device)

    def once() -> int:
        for _ in range(8):
            features = encoder._features(frames)
        features[0].cpu()  # waits for the device
        return 8 * num

    return once


def _encoding(encoder: ClipEncoder, scale: Scale) -> Callable[[], int]:
    """Eight batches, two on their way at a time, as the pipeline does it."""
    frames = min(scale.config.frames, encoder.settings.batch_frames) or 1
    shape = (frames, scale.config.size, scale.config.size, 3)
    clip = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = [clip] * max(1, encoder.settings.batch_frames // frames)

    def once() -> int:
        before = None
        for _ in range(8):
            started = encoder.start(batch)
            if before is not None:
                before()
            before = started
        assert before is not None
        before()
        return 8 * frames * len(batch)

    return once


def fused(scale: Scale) -> dict[str, Any]:
    """Both halves at once, against the slower one alone."""
    name = "small_cnn" if scale.small else "efficientnet_lite0"
    hardware = scale.config.hardware_processes if scale.on_gpu else 0
    processes = ProcessSet(scale.cores, hardware)
    decoding, _ = clips_per_s(scale, processes)
    encoder = ClipEncoder(name, scale.encoder_settings())
    images, _ = timed(scale, _encoding(encoder, scale))
    encoding = images / scale.config.frames
    rate, facts = clips_per_s(scale, processes, encoder)
    return {
        "clips_per_s": rate,
        "decoding_alone": decoding,
        "encoding_alone": encoding,
        "of_the_slower_half": rate / min(decoding, encoding),
        **facts,
    }
